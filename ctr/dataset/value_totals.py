"""Counts of one field's values, added up over chunks or files; each value has a place, by which chunks find its id."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ctr.dataset.scratch import Arrays

Ids = npt.NDArray[np.int32]
_PENDING_ROWS, _PENDING_BYTES = 4_000_000, 128 << 20


class ValueTotals:
    """Adds up counts; memory grows with the number of distinct values, not with what is added.

    A value keeps the place that it gets when it first comes. Whoever adds values may have their places written down,
    and has an array of ids to look into afterwards instead of the values.
    """

    def __init__(self) -> None:
        self._values: Any = (
            None  # a PyArrow array: the value at each place but the first, which is that of null
        )
        self._counts = np.zeros(1, np.int64)
        self._heavy: npt.NDArray[np.float64] | None = None
        self._pending: list[tuple[pl.DataFrame, Arrays | None]] = []
        self._rows = self._bytes = 0

    def add(self, frame: pl.DataFrame, places: Arrays | None = None) -> None:
        """Add counts.

        Args:
            frame: `value` (Int64 or String, null where missing, each once), and, unless they are to be placed only,
                `count` (Int64) and, where rows have weights, `weighted_count` (Float64).
            places: where the places of the values are appended, as int32 in the order of the frame, by the time that
                the totals are asked for.
        """
        self._pending.append((frame, places))
        self._rows += frame.height
        self._bytes += int(frame["value"].estimated_size())
        if self._rows > _PENDING_ROWS or self._bytes > _PENDING_BYTES:
            self._take_in()

    def totals(self) -> pl.DataFrame:
        """value, count and, where rows have weights, weighted_count, in the order of places; counts may be zero."""
        self._take_in()
        if self._values is None:
            return pl.DataFrame(schema={"value": pl.String, "count": pl.Int64})
        values = pl.Series(self._values)
        columns = {"value": pl.concat([values.clear(1), values]), "count": pl.Series(self._counts)}
        return pl.DataFrame(
            columns if self._heavy is None else columns | {"weighted_count": pl.Series(self._heavy)}
        )

    def _take_in(self) -> None:
        if not self._pending:
            return
        arrays = [_array(frame["value"]) for frame, _ in self._pending]
        there = np.concatenate([array.is_valid().to_numpy(zero_copy_only=False) for array in arrays])
        found = np.zeros(len(there), np.int32)
        self._values, codes = _grouped(self._values, [array.drop_null() for array in arrays])
        found[there] = codes + 1
        size = len(self._values) + 1
        self._counts = _longer(self._counts, size)
        if self._heavy is not None or any("weighted_count" in frame.columns for frame, _ in self._pending):
            self._heavy = _longer(np.zeros(1) if self._heavy is None else self._heavy, size)
        at = 0
        for frame, sink in self._pending:
            places = found[at : at + frame.height]
            at += frame.height
            if sink is not None:
                sink.append(places)
            # A frame has each value once, so that this adds up; and in the order of frames, so that sums of floats are
            # the same in every run.
            if "count" in frame.columns:
                self._counts[places] += frame["count"].to_numpy()
            if self._heavy is not None and "weighted_count" in frame.columns:
                self._heavy[places] += frame["weighted_count"].to_numpy()
        self._pending = []
        self._rows = self._bytes = 0


def _array(values: pl.Series) -> Any:
    array = values.rechunk().to_arrow()
    return array if pa.types.is_int64(array.type) else array.cast(pa.large_string())


def _grouped(known: Any, arrays: Sequence[Any]) -> tuple[Any, Ids]:
    """The known values and the new ones after them, each once; and where each value of `arrays` is among them."""
    count = 0 if known is None else len(known)
    together = arrays if known is None else [known, *arrays]
    if not pa.types.is_int64(arrays[0].type):
        coded = pa.chunked_array(together).dictionary_encode()
        codes = [chunk.indices.to_numpy() for chunk in coded.chunks]
        if not codes:
            return arrays[0], np.zeros(0, np.int32)
        return coded.chunk(0).dictionary, np.concatenate(codes)[count:]
    # Sorting takes a third of the time of a hash table that has to grow.
    distinct, group = np.unique(pa.concat_arrays(together).to_numpy(), return_inverse=True)
    place = np.full(len(distinct), -1, np.int32)
    place[group[:count]] = np.arange(count, dtype=np.int32)
    new = place < 0
    place[new] = np.arange(count, len(distinct), dtype=np.int32)
    values = pa.array(distinct[new])
    return values if known is None else pa.concat_arrays([known, values]), place[group[count:]]


def _longer(sums: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    return np.concatenate((sums, np.zeros(size - len(sums), sums.dtype)))
