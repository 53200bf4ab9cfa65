"""Texts of at most eight bytes as 64-bit numbers: hashed, compared, sorted and kept several times cheaper, and exact.

A number holds the UTF-8 bytes of its text, the first as the highest; those of a shorter text end with zeros. Added to
the last is the length, which keeps shorter texts apart from longer ones that have the same bytes and zeros (no byte of
UTF-8 is above 0xF7, so that there is room). Numbers are signed and texts are not: the highest bit is turned. So no two
texts have the same number, and numbers are in the order of their texts.
"""

import numpy as np
import polars as pl
import pyarrow as pa

from ctr.dataset.arrow_arrays import as_numpy

MOST_BYTES = 8
_EMPTY = -(1 << 63)  # the number of empty text
_TOP, _HALF, _LAST_BYTE = np.uint64(1 << 63), np.uint64(32), np.uint64(0xFF)
_SLICE = 1 << 14  # texts at a time: what lies between stays in the processor's cache


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
            there = as_numpy(array[start - array.offset :][: len(lengths)].is_valid())
            if (there & (lengths > MOST_BYTES)).any():  # a null may hide what was there before
                return None
        found = numbers[start : start + _SLICE]
        np.left_shift(second, _HALF, out=found)
        found |= np.right_shift(first, _HALF, out=scratch[: len(found)])
        found.byteswap(inplace=True)
        found += lengths
        found ^= _TOP
    return pa.Array.from_buffers(
        pa.int64(), len(array), [validity, pa.py_buffer(numbers)], array.null_count, array.offset
    )


def unpacked(numbers: pl.Series) -> pl.Series:
    """The texts that `packed` gave the numbers of."""
    left = numbers.fill_null(_EMPTY).to_numpy().view(np.uint64) ^ _TOP
    lengths = np.minimum(left & _LAST_BYTE, np.uint64(MOST_BYTES))
    left -= lengths
    left.byteswap(inplace=True)
    views = np.empty((len(left), 2), np.uint64)
    views[:, 0] = lengths | left << _HALF
    views[:, 1] = left >> _HALF
    array = pa.Array.from_buffers(pa.string_view(), len(views), [None, pa.py_buffer(views)])
    found = pl.Series(numbers.name, array, dtype=pl.String)
    return found.set(numbers.is_null(), None) if numbers.null_count() else found
