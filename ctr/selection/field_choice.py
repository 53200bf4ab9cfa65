"""Whole fields kept or dropped by a score of each, at a size that is stated in values."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ctr.dataset.feature_set import Bools, FeatureSet
from ctr.dataset.hashing import Ints
from ctr.dataset.row_arrays import FieldInfo
from ctr.dataset.store import FIRST_VALUE, Dataset


def owners(dataset: Dataset) -> list[FieldInfo]:
    """The fields that have features of their own; those that share them are kept or dropped along."""
    return [info for info in dataset.fields if info.shares is None]


def field_numbers(dataset: Dataset) -> Ints:
    """(V + 1,) number of the field of each table row, from 1, in the order of `owners`; 0 for the dropped row."""
    numbers = np.zeros(dataset.features + 1, np.int64)
    for number, info in enumerate(owners(dataset), 1):
        numbers[info.offset + 1 : info.offset + info.features + 1] = number
    return numbers


def top_fields(dataset: Dataset, scores: Mapping[str, float], count: int) -> Bools:
    """(V,) every feature of the fields that are kept.

    From the best field on, each one is kept that `count` values still have room for; at the end the smallest of the
    others as well, where that brings their number nearer to `count`. So the size is met within half of the smallest
    field that is dropped. Where that would be none, the smallest field is kept alone. Fields that the schema keeps
    always come first and count; those that it never keeps are no candidates. Of equal scores the smaller field goes
    first.

    Args:
        scores: by field, without those that share features.
    """
    sizes = {info.name: info.features - FIRST_VALUE for info in owners(dataset)}
    kept = {info.name for info in owners(dataset) if info.always}
    room = count - sum(sizes[name] for name in kept)
    left = [info.name for info in owners(dataset) if not (info.always or info.never)]
    for name in sorted(left, key=lambda name: (-scores[name], sizes[name])):
        if sizes[name] <= room:
            kept.add(name)
            room -= sizes[name]
    left = [name for name in left if name not in kept]
    smallest = min(left, key=lambda name: (sizes[name], -scores[name]), default=None)
    if smallest is not None and (sizes[smallest] - room < room or not kept):
        kept.add(smallest)
    return of_fields(dataset, kept)


def of_fields(dataset: Dataset, kept: set[str]) -> Bools:
    """(V,) every feature of some fields."""
    found = np.zeros(dataset.features, np.bool_)
    for info in owners(dataset):
        found[info.offset : info.offset + info.features] = info.name in kept
    return found


def fields_as_set(
    dataset: Dataset, kept: Bools, scores: Mapping[str, float], provenance: dict[str, Any]
) -> FeatureSet:
    """A feature set of whole fields; the gate of a feature is the score of its field."""
    gate = np.zeros(dataset.features)
    for info in owners(dataset):
        gate[info.offset : info.offset + info.features] = scores[info.name]
    return FeatureSet.of(dataset, kept, gate, {**provenance, "grain": "field", "field_scores": dict(scores)})
