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

    From the best field on, each one is kept that brings the number of kept values nearer to `count`: the size is met
    within half of the smallest field that is dropped. Where that is none, the smallest field is kept alone. Fields that
    the schema keeps always come first and count; those that it never keeps are no candidates. Of equal scores the
    smaller field goes first.

    Args:
        scores: by field, without those that share features.
    """
    sizes = {info.name: info.features - FIRST_VALUE for info in owners(dataset)}
    candidates = [info.name for info in owners(dataset) if not (info.always or info.never)]
    kept = {info.name for info in owners(dataset) if info.always}
    total = sum(sizes[name] for name in kept)
    for name in sorted(candidates, key=lambda name: (-scores[name], sizes[name])):
        if abs(total + sizes[name] - count) < abs(total - count):
            kept.add(name)
            total += sizes[name]
    if not kept:
        kept.add(min(candidates, key=lambda name: (sizes[name], -scores[name])))
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
