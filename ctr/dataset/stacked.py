"""Several parts as one, without copying their rows; and some rows of a part as a part."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ctr.dataset.row_arrays import Part


class Stacked:
    """Arrays of one layout, one after the other, that can be indexed by an array of positions."""

    def __init__(self, arrays: Sequence[npt.NDArray[Any]]) -> None:
        self._arrays = arrays
        self._starts = np.cumsum([0, *(len(array) for array in arrays)])
        self.shape = (int(self._starts[-1]), *arrays[0].shape[1:])

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, index: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        result = np.empty((len(index), *self.shape[1:]), self._arrays[0].dtype)
        which = np.searchsorted(self._starts, index, side="right") - 1
        for number, array in enumerate(self._arrays):
            here = which == number
            result[here] = array[index[here] - self._starts[number]]
        return result


def stacked(parts: Sequence[Part]) -> Part:
    """The rows of all `parts`, in their order; what is large stays on disk."""
    first = parts[0]

    def large(arrays: Sequence[npt.NDArray[Any] | None]) -> npt.NDArray[Any] | None:
        there = [array for array in arrays if array is not None]
        return cast(npt.NDArray[Any], Stacked(there)) if there else None

    def small(name: str) -> npt.NDArray[Any] | None:
        there = [array for part in parts if (array := getattr(part, name)) is not None]
        return np.concatenate(there) if there else None

    lists = []
    for number in range(len(first.lists)):
        flats = [part.lists[number][0] for part in parts]
        starts = np.cumsum([0, *(len(flat) for flat in flats)])
        offsets = [part.lists[number][1][1:] + start for part, start in zip(parts, starts, strict=False)]
        flat = cast(npt.NDArray[Any], Stacked(flats))
        lists.append((flat, np.concatenate([np.zeros(1, np.int64), *offsets])))
    return replace(
        first,
        ids=cast(npt.NDArray[Any], Stacked([part.ids for part in parts])),
        values=large([part.values for part in parts]),
        lists=lists,
        labels=np.concatenate([part.labels for part in parts]),
        rows=np.concatenate([part.rows for part in parts]),
        true_probability=small("true_probability"),
        weights=small("weights"),
        times=small("times"),
        vectors=large([part.vectors for part in parts]),
    )


def subset(part: Part, index: npt.NDArray[np.int64]) -> Part:
    """The rows `index` of a part, in memory."""

    def chosen(array: npt.NDArray[Any] | None) -> npt.NDArray[Any] | None:
        return None if array is None else np.asarray(array[index])

    lists = []
    for flat, offsets in part.lists:
        start, length = offsets[index], offsets[index + 1] - offsets[index]
        ends = np.cumsum(length)
        within = np.arange(length.sum()) - np.repeat(ends - length, length)
        lists.append((np.asarray(flat[np.repeat(start, length) + within]), np.concatenate([[0], ends])))
    return replace(
        part,
        ids=part.ids[index],
        values=chosen(part.values),
        lists=lists,
        labels=part.labels[index],
        rows=np.asarray(part.rows[index]),
        true_probability=chosen(part.true_probability),
        weights=chosen(part.weights),
        times=chosen(part.times),
        vectors=chosen(part.vectors),
    )
