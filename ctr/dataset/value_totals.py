"""Counts of one field's values, added up over chunks or files; each value has a place, by which chunks find its id."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ctr.dataset.arrow_arrays import as_arrow, as_numpy
from ctr.dataset.scratch import Arrays
from ctr.dataset.value_index import ValueIndex

Ids = npt.NDArray[np.int32]
NO_PLACE = -1
_PENDING_ROWS, _PENDING_BYTES = 4_000_000, 128 << 20


class ValueTotals:
    """Adds up counts; memory grows with the number of values that are counted, not with what is added.

    A value keeps the place that it gets when it is first counted. Whoever adds values may have their places written
    down, and has an array of ids to look into afterwards instead of the values.
    """

    def __init__(self) -> None:
        # A PyArrow array: the value at each place but the first, which is that of null.
        self._values: Any = None
        self._counts = np.zeros(1, np.int64)
        self._heavy: npt.NDArray[np.float64] | None = None
        self._pending: list[tuple[pl.DataFrame, Arrays | None]] = []
        self._rows = self._bytes = self._taken_in = 0

    def add(self, frame: pl.DataFrame, places: Arrays | None = None) -> None:
        """Add counts.

        Args:
            frame: `value` (Int64 or String, null where missing, each once), and, unless they are to be placed only,
                `count` (Int64) and, where rows have weights, `weighted_count` (Float64).
            places: where the places of the values are appended, as int32 in the order of the frame, by the time that
                the totals are asked for; `NO_PLACE` where a value is not counted, as far as is known then.
        """
        self._pending.append((frame, places))
        self._rows += frame.height
        self._bytes += int(frame["value"].estimated_size())
        if self._rows > _PENDING_ROWS or self._bytes > _PENDING_BYTES:
            self._take_in()

    def totals(self) -> pl.DataFrame:
        """value, count and, where rows have weights, weighted_count, in the order of places; null may count nothing."""
        self._take_in()
        if self._values is None:
            return pl.DataFrame(schema={"value": pl.String, "count": pl.Int64})
        values = pl.Series(self._values)
        columns = {"value": pl.concat([values.clear(1), values]), "count": pl.Series(self._counts)}
        return pl.DataFrame(
            columns if self._heavy is None else columns | {"weighted_count": pl.Series(self._heavy)}
        )

    @property
    def settled(self) -> bool:
        """Whether what had no place when it was added has none now."""
        return self._taken_in <= 1

    def finder(self) -> Callable[[pl.Series], Ids]:
        """What gives the places of values, none of which is null, after `totals`."""
        if self._values is None or not pa.types.is_int64(self._values.type):
            values = pl.Series([] if self._values is None else self._values, dtype=pl.String)
            index = ValueIndex(values, np.arange(1, len(values) + 1, dtype=np.int32))
            return lambda wanted: index.look_up(wanted, NO_PLACE)
        numbers = as_numpy(self._values)
        order = np.argsort(numbers).astype(np.int32)
        return partial(_found, numbers[order], order)

    def _take_in(self) -> None:
        if not self._pending:
            return
        self._taken_in += 1
        arrays = [_array(frame["value"]) for frame, _ in self._pending]
        there = np.concatenate([as_numpy(array.is_valid()) for array in arrays])
        counted = np.concatenate([_counted(frame) for frame, _ in self._pending])
        found = np.zeros(len(there), np.int32)
        self._values, numbered = _grouped(
            self._values, [array.drop_null() for array in arrays], counted[there]
        )
        found[there] = numbered
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
                some = frame["count"].to_numpy() > 0
                self._counts[places[some]] += frame["count"].to_numpy()[some]
                if self._heavy is not None and "weighted_count" in frame.columns:
                    self._heavy[places[some]] += frame["weighted_count"].to_numpy()[some]
        self._pending = []
        self._rows = self._bytes = 0


def _array(values: pl.Series) -> Any:
    array = values.rechunk().to_arrow()
    return array if pa.types.is_int64(array.type) else array.cast(pa.large_string())


def _counted(frame: pl.DataFrame) -> npt.NDArray[np.bool_]:
    if "count" not in frame.columns:
        return np.zeros(frame.height, np.bool_)
    return frame["count"].to_numpy() > 0


def _grouped(known: Any, arrays: Sequence[Any], counted: npt.NDArray[np.bool_]) -> tuple[Any, Ids]:
    """The known values, and after them the new ones that are counted, each once; and the place of each of `arrays`."""
    count = 0 if known is None else len(known)
    together = arrays if known is None else [known, *arrays]
    distinct: Any
    if pa.types.is_int64(arrays[0].type):
        # Sorting takes a third of the time of a hash table that has to grow.
        distinct, group = np.unique(as_numpy(pa.concat_arrays(together)), return_inverse=True)
        distinct = as_arrow(distinct)
    else:
        coded = pa.chunked_array(together).dictionary_encode()
        codes = [as_numpy(chunk.indices) for chunk in coded.chunks]
        distinct = coded.chunk(0).dictionary if codes else arrays[0]
        group = np.concatenate(codes) if codes else np.zeros(0, np.int32)
    place = np.full(len(distinct), NO_PLACE, np.int32)
    place[group[:count]] = np.arange(1, count + 1, dtype=np.int32)
    new = np.zeros(len(distinct), np.bool_)
    new[group[count:][counted]] = True
    new &= place == NO_PLACE
    place[new] = np.arange(count + 1, count + 1 + int(new.sum()), dtype=np.int32)
    added = distinct.filter(as_arrow(new))
    return added if known is None else pa.concat_arrays([known, added]), place[group[count:]]


def _found(numbers: npt.NDArray[np.int64], order: Ids, wanted: pl.Series) -> Ids:
    """Places of `wanted` among sorted numbers, of which the one at k has the place order[k] + 1."""
    values = wanted.to_numpy()
    todo = np.argsort(values)  # sorted look-ups walk through memory in one direction
    values = values[todo]
    at = np.searchsorted(numbers, values)
    there = at < len(numbers)
    there[there] = numbers[at[there]] == values[there]
    places = np.full(len(values), NO_PLACE, np.int32)
    places[todo[there]] = order[at[there]] + 1
    return places


def _longer(sums: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    return np.concatenate((sums, np.zeros(size - len(sums), sums.dtype)))
