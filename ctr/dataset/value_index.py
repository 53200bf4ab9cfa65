"""Values -> ids without a table of Python objects."""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh64_intdigest

from ctr.dataset.arrow_arrays import as_arrow, as_numpy
from ctr.dataset.hashing import hashes

Ids = npt.NDArray[np.int32]


class ValueIndex:
    """Text -> id by binary search over sorted 64-bit hashes; a hit is confirmed by the text itself.

    Cheap to build, and a look-up of few values costs nothing that grows with the vocabulary but its logarithm. A value
    takes 20 bytes (hash, id, end of its text) beside its UTF-8 text, which stands in one buffer with all others.
    """

    def __init__(self, values: pl.Series, ids: Ids) -> None:
        found = hashes(values)
        order = np.argsort(found, kind="stable")
        self._hashes, self._ids = found[order], ids[order]
        self._values = _arrow(values.gather(order))
        # The same memory as single items of Python: what a look-up of one text reads.
        _, ends, text = self._values.buffers()
        self._ends = np.frombuffer(ends, np.int64) if ends else np.zeros(1, np.int64)
        self._hash_at, self._id_at = memoryview(self._hashes.data), memoryview(self._ids.data)
        self._end_at = memoryview(self._ends.data)
        self._text = memoryview(text).cast("B") if text else memoryview(b"")

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        return self._hashes.nbytes + self._ids.nbytes + int(self._values.nbytes)

    def repeated(self) -> str | None:
        """A text that is there twice; None where all are different."""
        for at in np.flatnonzero(self._hashes[1:] == self._hashes[:-1]):
            if self._values[at] == self._values[at + 1]:
                return str(self._values[at])
        return None

    def look_up(self, values: pl.Series, default: int) -> Ids:
        """Id of each text without nulls, `default` where it has none."""
        result = np.full(len(values), default, np.int32)
        if len(self) == 0 or len(values) == 0:
            return result
        wanted = hashes(values)
        # Sorted look-ups walk through memory in one direction.
        todo = np.argsort(wanted)
        at = np.searchsorted(self._hashes, wanted[todo])
        while len(todo):
            inside = at < len(self)
            todo, at = todo[inside], at[inside]
            same = self._hashes[at] == wanted[todo]
            todo, at = todo[same], at[same]
            if not len(todo):
                break
            equal = pc.equal(self._values.take(as_arrow(at)), _arrow(values.gather(todo)))
            found = as_numpy(equal)
            result[todo[found]] = self._ids[at[found]]
            todo, at = todo[~found], at[~found] + 1  # another text with the same hash
        return result

    def find(self, text: str, default: int) -> int:
        """Id of one text, `default` where it has none; about a microsecond, without Polars or NumPy.

        Raises:
            UnicodeEncodeError: the text holds a lone surrogate, which UTF-8 cannot say.
        """
        raw = text.encode()
        wanted = xxh64_intdigest(raw)
        return self._from(bisect_left(self._hash_at, wanted), wanted, raw, default)

    def find_all(self, texts: Sequence[str], default: int) -> list[int]:
        """The same of several texts; the searches are done at once."""
        raws = [text.encode() for text in texts]
        wanted = [xxh64_intdigest(raw) for raw in raws]
        if len(self) == 0:
            return [default] * len(texts)
        places = np.searchsorted(self._hashes, np.array(wanted, np.uint64))
        near = np.minimum(places, len(self) - 1)
        looks = zip(
            places.tolist(),
            wanted,
            raws,
            self._hashes[near].tolist(),
            self._ends[near].tolist(),
            self._ends[near + 1].tolist(),
            self._ids[near].tolist(),
            strict=True,
        )
        text = self._text
        return [
            identity
            if own == there and text[start:end] == raw
            else self._from(at, own, raw, default)
            if own == there
            else default
            for at, own, raw, there, start, end, identity in looks
        ]

    def _from(self, at: int, wanted: int, raw: bytes, default: int) -> int:
        """Id of the text `raw` among those with its hash, the first of which would be at `at`."""
        hash_at, end_at = self._hash_at, self._end_at
        while at < len(hash_at) and hash_at[at] == wanted:
            if self._text[end_at[at] : end_at[at + 1]] == raw:
                found: int = self._id_at[at]
                return found
            at += 1
        return default


def _arrow(values: pl.Series) -> pa.LargeStringArray:
    return values.rechunk().to_arrow().cast(pa.large_string())
