"""Features, or keys without a vocabulary, with the places that they are read at: the same in training and scoring.

Shapes: B rows, S single-valued fields, L list values, R numbers of a place.
"""

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
import polars as pl

from ctr.dataset.encoding import Numbers
from ctr.dataset.hashing import Ints, Keys, role_key, vocabulary_keys
from ctr.dataset.kept_values import KeptValues
from ctr.dataset.placement import Placement
from ctr.errors import ConfigError


class PlacedFeatures:
    """The place of each numbered feature.

    Args:
        placement: of the fields.
        features: field, number and key of every feature.

    `places` (numbers + 1, R); those of number 0, the dropped one, are 0.
    """

    @classmethod
    def of_vocabulary(cls, placement: Placement, vocabulary: pl.DataFrame) -> Self:
        """Of a vocabulary: field, role, value and id, the number."""
        keys = pl.Series("key", vocabulary_keys(vocabulary))
        return cls(placement, vocabulary.select("field", pl.col("id").alias("number"), keys))

    def __init__(self, placement: Placement, features: pl.DataFrame) -> None:
        rows = int(features["number"].to_numpy().max(initial=0)) + 1
        self.places = np.zeros((rows, placement.numbers), np.int64)
        for (field,), group in features.sort("number").group_by("field", maintain_order=True):
            numbers, keys = group["number"].to_numpy(), group["key"].to_numpy()
            self.places[numbers] = placement.places(keys, placement.of(str(field)), np.arange(len(keys)))

    def read(self, ids: Numbers, list_ids: Numbers, list_slots: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        """Numbers as they are, (B, S), and places (B, S, R) of single-valued fields; then (L,) and (L, R) of lists."""
        return ids.astype(np.int64), self.places[ids], list_ids.astype(np.int64), self.places[list_ids]


class PlacedKeys:
    """Keys -> numbers and places.

    Args:
        placement: of the fields.
        owners: of each field fed, single-valued ones first: the field whose features it has.
        kept: which values are kept; all by default.
        number: (keys, slots) -> numbers, where features are told apart; otherwise kept ones have the number 1.

    Raises:
        ConfigError: a field is free of collisions, which takes a vocabulary that numbers its values.
    """

    def __init__(
        self,
        placement: Placement,
        owners: Sequence[str],
        kept: KeptValues | None = None,
        number: Callable[[Keys, Ints], Ints] | None = None,
    ) -> None:
        self._placement, self._owners, self.kept, self._number = placement, owners, kept, number
        self._stretches = np.array([placement.of(owner) for owner in owners])
        if exact := [owner for owner in owners if placement.stretches[placement.of(owner)].exact]:
            raise ConfigError(
                f'field "{exact[0]}" has a row for each value, but its values are hashes without numbers; '
                "leave embedding.collision_free out, or ingest with a vocabulary"
            )
        self._whole = np.array([kept is None or owner in kept.whole for owner in owners], np.bool_)
        self._reads_unknown = np.array(
            [kept is not None and owner in kept.unknown for owner in owners], np.bool_
        )
        self._unknown = np.array([role_key(owner, "unknown") for owner in owners], np.uint64)
        self._missing = np.array([role_key(owner, "missing") for owner in owners], np.uint64)

    def read(self, ids: Numbers, list_ids: Numbers, list_slots: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        """Numbers (B, S) and places (B, S, R) of single-valued fields; then (L,) and (L, R) of lists.

        Args:
            ids, list_ids: signed keys.
            list_slots: row in the batch * number of list fields + list field.
        """
        single = ids.shape[1]
        lists = len(self._owners) - single
        slots = np.broadcast_to(np.arange(single), ids.shape)
        list_fields = single + list_slots % max(1, lists)
        return (*self.placed(_keys(ids), slots), *self.placed(_keys(list_ids), list_fields))

    def placed(self, keys: Keys, slots: Ints) -> tuple[Ints, Ints]:
        """Numbers (...) and places (..., R) of keys (...) in the fields at `slots` (...), 0 for dropped ones."""
        if self._number is not None:
            numbers = self._number(keys, slots)
        elif self.kept is None or self._whole.all():
            numbers = np.ones(keys.shape, np.int64)
        else:
            held = self.kept.hold(keys) | self._whole[slots]
            unknown = (
                ~held & self._reads_unknown[slots] & (keys != self._missing[slots])
            )  # missing is no value
            keys = np.where(unknown, self._unknown[slots], keys)
            numbers = (held | unknown).astype(np.int64)
        places = self._placement.places(keys, self._stretches[slots])
        return numbers, places * (numbers > 0)[..., None]


def _keys(ids: Numbers) -> Keys:
    return np.ascontiguousarray(ids).view(np.uint64)
