"""The pairs of a dataset, with their admitted crosses: what networks that model them are laid out from."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from ctr.dataset.cross_sketch import CrossSketch
from ctr.dataset.crosses import CrossKeys, counted_crosses, cuckoo_places, feature_words
from ctr.dataset.hashing import Ints
from ctr.dataset.layout import Layout
from ctr.dataset.pairs import PairNames
from ctr.dataset.store import Dataset
from ctr.errors import ConfigError
from ctr.network.crosses import CrossIndex, PairLayout, Slots

_FLOAT32 = 4  # bytes


class PairSpace:
    """Pairs of the fields that a network is fed.

    Args:
        dataset: crosses are counted in its train rows.
        layout: what the network reads; pairs with a field that it does not feed are left out.
        pairs: in schema order.
        min_count: train rows that a cross needs to have a row of its own.
        dim: floats of a pair's vector.
        cross_bytes: budget of the table of crosses; None gives each admitted cross a row.
        sketch_bytes: memory to count crosses in, about (`ctr.dataset.cross_sketch`), with `cross_bytes`; None counts
            exactly, a pair at a time, and keeps the key of each admitted cross.

    Raises:
        ConfigError: rows are hashes without a vocabulary, or no pair is left.
    """

    def __init__(
        self,
        dataset: Dataset,
        layout: Layout,
        pairs: Sequence[PairNames],
        *,
        min_count: int,
        dim: int,
        cross_bytes: int | None = None,
        sketch_bytes: int | None = None,
    ) -> None:
        if dataset.hashed:
            raise ConfigError(
                'pair selectors need a vocabulary, found data.encoding = "hashed"; use data.encoding = "vocabulary" '
                '(embedding.kind = "unified" works with both)'
            )
        self._dataset, self._layout = dataset, layout
        self.dim, self.cross_bytes, self.min_count = dim, cross_bytes, min_count
        self._sketch_bytes = sketch_bytes
        self.slots = {name: slot for slot, name in enumerate(layout.fields[: len(layout.single)])}
        self.pairs = [pair for pair in pairs if pair[0] in self.slots and pair[1] in self.slots]
        if not self.pairs:
            raise ConfigError("no pair is left: all but one of the fields that could take part were dropped")

    @cached_property
    def words(self) -> npt.NDArray[np.int32]:
        """(V + 1, 4) of features by number."""
        features = self._layout.features()
        return feature_words(features["key"].to_numpy(), features["number"].to_numpy())

    @cached_property
    def admitted(self) -> dict[PairNames, Ints]:
        """Ascending keys of the crosses of each pair that enough train rows hold, counted exactly."""
        return counted_crosses(self.columns(self.pairs), self.pairs, self.words, self.min_count)

    @cached_property
    def _counts(self) -> dict[PairNames, int]:
        """How many crosses of each pair enough train rows hold."""
        if self._sketch_bytes is not None:
            return self._sketch(self.pairs).frequent
        return {pair: len(keys) for pair, keys in self.admitted.items()}

    def columns(self, pairs: Sequence[PairNames]) -> dict[str, Ints]:
        """(N,) numbers of features, 0 for dropped ones, of each field of these pairs, in train rows."""
        part, names = self._dataset.part("train"), self._layout.fields
        return {
            name: self._layout.numbers[np.asarray(part.ids[:, self._layout.single[names.index(name)]])]
            for name in dict.fromkeys(name for pair in pairs for name in pair)
        }

    def _sketch(self, pairs: Sequence[PairNames]) -> CrossSketch:
        assert self._sketch_bytes is not None
        return CrossSketch(self.columns(pairs), pairs, self.words, self.min_count, self._sketch_bytes)

    def rows(self, pair: PairNames) -> int:
        """Rows that memorizing a pair takes, its unknown cross among them."""
        return self._counts[pair] + 1

    def bytes(self, memorized: Sequence[PairNames]) -> int:
        """Of the table that memorizes these pairs with a row for each cross."""
        return sum(self.rows(pair) for pair in memorized) * self.dim * _FLOAT32

    def keys(self, memorized: Sequence[PairNames]) -> CrossKeys:
        """What the crosses of these pairs are found by."""
        words = self.words if memorized else np.zeros((1, 4), np.int32)
        empty, counts = np.zeros(0, np.int64), tuple(self._counts[pair] for pair in memorized)
        if self._sketch_bytes is not None:
            # Counted anew, so that pairs that are not memorized take no room in it.
            return CrossKeys(tuple(memorized), words, empty, self._sketch(memorized).bits(), counts)
        admitted = np.concatenate([empty, *(self.admitted[pair] for pair in memorized)])
        return CrossKeys(tuple(memorized), words, np.unique(admitted), counts=counts)

    def layout(
        self, memorized: Sequence[PairNames], factorized: Sequence[PairNames], dim: int | None = None
    ) -> PairLayout:
        """How a network models these pairs.

        Args:
            dim: floats of a pair's vector, where they are not the usual number.

        Raises:
            ConfigError: the budget does not hold a row for each pair's unknown cross, and one more.
        """
        rows = 1 + sum(self.rows(pair) for pair in memorized)
        hashed = False
        if memorized and self.cross_bytes is not None:
            budget, least = self.cross_bytes // (self.dim * _FLOAT32), len(memorized) + 1
            if budget < least:
                raise ConfigError(
                    f"selector.cross_bytes = {self.cross_bytes:,} holds {budget} rows of {self.dim} floats, "
                    f"expected at "
                    f"least {least} for {len(memorized)} memorized pairs; state {least * self.dim * _FLOAT32:,} or more"
                )
            hashed = self._sketch_bytes is not None or rows > budget + 1
            # With a sketch, one row more than the least, in case that it found no frequent cross.
            rows = min(max(rows, least + 1), budget + 1)
        shifts, factor_rows = self._factor_rows(name for pair in factorized for name in pair)
        return PairLayout(
            dim=dim or self.dim,
            memorized=self._slots(memorized),
            factorized=self._slots(factorized),
            cross_rows=rows,
            hashed=hashed,
            factor_rows=factor_rows,
            shifts=shifts,
        )

    def _slots(self, pairs: Sequence[PairNames]) -> Slots:
        return tuple((self.slots[a], self.slots[b]) for a, b in pairs)

    def _factor_rows(self, names: Iterable[str]) -> tuple[Slots, int]:
        """The shift of each field's numbers, and the rows of E_a, where features have one each."""
        own: dict[str, int] = {}
        shifts, end = [], 1
        for name in sorted(set(names), key=self.slots.__getitem__):
            owner = self._layout.owners[self.slots[name]]
            if owner not in own:
                numbers = self._layout.numbers_of(name)
                first, last = int(numbers[numbers > 0].min(initial=1 << 62)), int(numbers.max(initial=0))
                own[owner] = first - end
                end += max(0, last - first + 1)
            shifts.append((self.slots[name], own[owner]))
        return tuple(shifts), end


def cross_index(keys: CrossKeys) -> CrossIndex:
    """The same as tensors."""
    arrays: Mapping[str, npt.NDArray[np.generic]] = {
        "words": keys.words,
        "salts": keys.salts,
        "admitted": keys.admitted,
        "places": cuckoo_places(keys.admitted),
        "sketch": np.zeros((2, 0), np.uint8) if keys.sketch is None else keys.sketch,
    }
    return CrossIndex(**{name: torch.from_numpy(array) for name, array in arrays.items()})
