"""Rows of a dataset as statistics of libraries want them: a table of counts, a sparse matrix, or a dense one."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ctr.dataset.batches import shuffled
from ctr.dataset.feature_set import Floats
from ctr.dataset.hashing import Ints
from ctr.dataset.row_arrays import FieldInfo, Part
from ctr.dataset.stacked import subset
from ctr.dataset.store import UNKNOWN, Dataset
from ctr.dataset.transforms import quantile_edges

BINS = 16  # of numbers that enter a network as they are


def sample(part: Part, rows: int, seed: int) -> Part:
    """At most so many rows of a part, drawn by a seed, in memory."""
    chosen: Ints = np.arange(len(part))
    if rows < len(part):
        chosen = np.sort(shuffled(np.arange(rows), len(part), seed, epoch=3_000))
    return subset(part, chosen)


def weights_of(part: Part) -> Floats:
    """(N,) how much each row counts."""
    return np.ones(len(part)) if part.weights is None else part.weights.astype(np.float64)


def occurrences(dataset: Dataset, part: Part) -> Iterator[tuple[FieldInfo, Ints, Ints]]:
    """Field, codes (M,) from 0 without gaps, and the row (M,) of each value, for every field; of vectors each number.

    A row has one value of a field that is no list; numbers are cut into bins of about as many rows each, and what is
    missing has a code of its own.
    """
    single = [info for info in dataset.fields if info.kind != "list"]
    lists = [info for info in dataset.fields if info.kind == "list"]
    rows, start = np.arange(len(part)), 0
    for slot, info in enumerate(single):
        ids = np.asarray(part.ids[:, slot])
        if info.size:
            assert part.vectors is not None
            for column in range(start, start + info.size):
                yield info, _binned(ids, np.asarray(part.vectors[:, column])), rows
            start += info.size
        elif info.scaled:
            assert part.values is not None
            yield info, _binned(ids, np.asarray(part.values[:, slot])), rows
        else:
            yield info, compact(ids), rows
    for info, (flat, offsets) in zip(lists, part.lists, strict=True):
        yield info, compact(np.asarray(flat)), np.repeat(rows, np.diff(offsets))


def compact(ids: npt.NDArray[np.signedinteger[npt.NBitBase]]) -> Ints:
    """Codes from 0 in place of ids."""
    codes: Ints = np.unique(ids, return_inverse=True)[1].astype(np.int64)
    return codes


def _binned(ids: npt.NDArray[np.signedinteger[npt.NBitBase]], values: npt.NDArray[np.float32]) -> Ints:
    """Bin of each number; ids tell what is missing from what is there."""
    numbers = values.astype(np.float64)
    bins = np.searchsorted(np.array(quantile_edges(numbers, BINS)), numbers, side="left")
    return compact(compact(ids) * (BINS + 1) + bins)


def numbered_ids(dataset: Dataset, ids: npt.NDArray[Any], unknown: Any) -> Ints:
    """Global ids of what a part holds; of a log without a vocabulary by its keys.

    Args:
        unknown: the ids of keys that no train row holds; broadcast against `ids`.
    """
    if not dataset.hashed:
        return np.asarray(ids)
    return dataset.numbered(np.ascontiguousarray(ids).view(np.uint64), np.asarray(unknown))


def global_ids(dataset: Dataset, part: Part) -> tuple[Ints, list[Ints]]:
    """(N, S) ids of single values, and (L,) ids of each list field."""
    singles = np.array([info.offset + UNKNOWN for info in dataset.fields if info.kind != "list"], np.int64)
    unknown = [info.offset + UNKNOWN for info in dataset.fields if info.kind == "list"]
    listed = [
        numbered_ids(dataset, np.asarray(flat), own)
        for (flat, _), own in zip(part.lists, unknown, strict=True)
    ]
    return numbered_ids(dataset, part.ids, singles), listed
