"""Texts of at most eight bytes as 64-bit numbers: hashed, compared and kept several times cheaper, and exact.

A number holds the UTF-8 bytes of its text. A shorter text has its length in the last byte, plus 0xF8, which no byte of
UTF-8 reaches, so that no two texts have the same number.
"""

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

MOST_BYTES = 8
_LENGTH = np.uint64(0xF8)
_EMPTY = -(8 << 56)  # the number of empty text: its mark alone, read as signed
_SLICE = 1 << 14  # texts at a time: what lies between stays in the processor's cache
_HALF, _LAST = np.uint64(32), np.uint64(56)


def packed(texts: pl.Series) -> pa.Int64Array | None:
    """The number of each text, null where it is null; None where a text is longer."""
    array = texts.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
    assert array.type == pa.string_view(), "Polars keeps text as views"
    count = array.offset + len(array)
    validity, views, *_ = array.buffers()
    # A view is the length (4 bytes) and, of a text of at most 12 bytes, the text, followed by zeros.
    words = (
        np.frombuffer(views, np.uint64, 2 * count).reshape(-1, 2) if count else np.empty((0, 2), np.uint64)
    )
    numbers = np.empty(count, np.uint64)
    scratch = np.empty(min(count, _SLICE), np.uint64)
    for start in range(array.offset, count, _SLICE):  # what is before the offset belongs to others
        first, second = words[start : start + _SLICE, 0], words[start : start + _SLICE, 1]
        lengths = first.astype(np.uint32)
        if lengths.max() > MOST_BYTES:
            there = array[start - array.offset :][: len(lengths)].is_valid().to_numpy(zero_copy_only=False)
            if (there & (lengths > MOST_BYTES)).any():  # a null may hide what was there before
                return None
        found = numbers[start : start + _SLICE]
        other = scratch[: len(found)]
        np.left_shift(second, _HALF, out=found)
        found |= np.right_shift(first, _HALF, out=other)
        # The mark of a length; that of eight bytes is too large for the last byte, and leaves it to the text.
        np.add(first, _LENGTH, out=other)
        found |= np.left_shift(other, _LAST, out=other)
    return pa.Array.from_buffers(
        pa.int64(), len(array), [validity, pa.py_buffer(numbers)], array.null_count, array.offset
    )


def unpacked(numbers: pl.Series) -> pl.Series:
    """The texts that `packed` gave the numbers of."""
    # Without a value, a number is that of empty text.
    filled = numbers.fill_null(_EMPTY).to_numpy()
    raw = np.ascontiguousarray(filled).view(np.uint8).reshape(-1, MOST_BYTES)
    lengths: npt.NDArray[np.int64] = np.where(raw[:, -1] < 0xF8, MOST_BYTES, raw[:, -1] & 7).astype(np.int64)
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    text = raw[np.arange(MOST_BYTES) < lengths[:, None]]
    array = pa.LargeStringArray.from_buffers(len(raw), pa.py_buffer(offsets), pa.py_buffer(text))
    found = pl.Series(numbers.name, array, dtype=pl.String)
    return found.set(numbers.is_null(), None) if numbers.null_count() else found
