"""The pairs of a dataset, with their admitted crosses: what networks that model them are laid out from."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from ctr.dataset.cross_sketch import LARGEST_COUNT, CrossSketch
from ctr.dataset.crosses import CrossKeys, cuckoo_places, each_counted, feature_words, finding_bytes
from ctr.dataset.hashing import Ints
from ctr.dataset.layout import Layout
from ctr.dataset.pairs import PairNames
from ctr.dataset.store import Dataset
from ctr.errors import ConfigError
from ctr.network.crosses import CrossIndex, PairLayout, Slots

FLOAT32 = 4  # bytes
_ROOM = 64_000_000  # bytes of what finds crosses that are counted exactly, where a budget is smaller


class LimitError(ConfigError):
    """What a choice would memorize does not fit a limit that was stated."""


class NumberedColumn:
    """(N,) numbers of features of one field, 0 for dropped ones: made for the rows that are asked for.

    Args:
        ids: (N, S) of features, memory-mapped or not.
        slot: of the field.
        numbers: of features by id.
    """

    def __init__(self, ids: Ints, slot: int, numbers: Ints) -> None:
        self._ids, self._slot, self._numbers = ids, slot, numbers

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, rows: slice) -> Ints:
        found: Ints = self._numbers[np.asarray(self._ids[rows, self._slot])]
        return found


class PairSpace:
    """Pairs of the fields that a network is fed.

    Args:
        dataset: crosses are counted in its train rows.
        layout: what the network reads; pairs with a field that it does not feed are left out.
        pairs: in schema order.
        min_count: train rows that a cross needs to have a row of its own.
        dim: floats of a pair's vector.
        cross_bytes: budget of the table of crosses; None gives each admitted cross a row.
        sketch_bytes: memory to count crosses in, about (`ctr.dataset.cross_sketch`), with `cross_bytes`. None counts
            exactly, a pair at a time, and keeps the key of each admitted cross; with `cross_bytes`, as long as what
            finds them by their keys takes no more than that, or 64 MB, and in a sketch of that size otherwise.

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
    def admitted(self) -> dict[PairNames, Ints] | None:
        """Ascending keys of the crosses of each pair that enough train rows hold; None where they are too many."""
        if self._sketch_bytes is not None:
            return None
        found, number = dict[PairNames, Ints](), 0
        for pair, keys in each_counted(self.columns(self.pairs), self.pairs, self.words, self.min_count):
            found[pair], number = keys, number + len(keys)
            if self._room is not None and finding_bytes(number) > self._room:
                return None
        return found

    @property
    def _room(self) -> int | None:
        """Bytes of what may find crosses that are counted exactly; None where that is without limit."""
        if self.cross_bytes is None or self.min_count > LARGEST_COUNT:
            return None
        return max(self.cross_bytes, _ROOM)

    @cached_property
    def _counts(self) -> dict[PairNames, int]:
        """How many crosses of each pair enough train rows hold; an estimate where they are not counted exactly."""
        if self.admitted is None:
            return self._whole.frequent
        return {pair: len(keys) for pair, keys in self.admitted.items()}

    def columns(self, pairs: Sequence[PairNames]) -> dict[str, NumberedColumn]:
        """Of each field of these pairs in train rows."""
        part, names = self._dataset.part("train"), self._layout.fields
        return {
            name: NumberedColumn(part.ids, self._layout.single[names.index(name)], self._layout.numbers)
            for name in dict.fromkeys(name for pair in pairs for name in pair)
        }

    @cached_property
    def _whole(self) -> CrossSketch:
        """Of all pairs."""
        return self._sketch(self.pairs)

    def _sketch(self, pairs: Sequence[PairNames]) -> CrossSketch:
        size = self._sketch_bytes or self._room
        assert size is not None, "without a budget all keys are kept"
        return CrossSketch(self.columns(pairs), pairs, self.words, self.min_count, size)

    def rows(self, pair: PairNames) -> int:
        """Rows that memorizing a pair takes, its unknown cross among them."""
        return self._counts[pair] + 1

    def bytes(self, memorized: Sequence[PairNames]) -> int:
        """Of the table that memorizes these pairs."""
        return self._table_rows(memorized) * self.dim * FLOAT32

    def _own_rows(self, memorized: Sequence[PairNames]) -> int:
        """Of the table that has a row for each cross."""
        rows = sum(self.rows(pair) for pair in memorized)
        # A sketch may take crosses for frequent where none was counted: a budget has a row for them.
        return rows if self.cross_bytes is None else max(rows, _least(memorized))

    def _table_rows(self, memorized: Sequence[PairNames]) -> int:
        """Of the table, without the row of dropped features."""
        budget = self._budget_rows()
        if not memorized:
            return 0
        own = self._own_rows(memorized)
        return own if budget is None else min(own, budget)

    def _budget_rows(self) -> int | None:
        return None if self.cross_bytes is None else self.cross_bytes // (self.dim * FLOAT32)

    def holds(self, memorized: Sequence[PairNames]) -> bool:
        """Whether the budget holds a row for each pair's unknown cross, and one more."""
        budget = self._budget_rows()
        return not memorized or budget is None or budget >= _least(memorized)

    def require(self, memorized: Sequence[PairNames]) -> None:
        """Refuse a budget that does not hold these pairs.

        Raises:
            LimitError: it does not.
        """
        if not self.holds(memorized):
            raise LimitError(too_small(self.cross_bytes or 0, self.dim, len(memorized)))

    def keys(self, memorized: Sequence[PairNames]) -> CrossKeys:
        """What the crosses of these pairs are found by."""
        words = self.words if memorized else np.zeros((1, 4), np.int32)
        empty, counts = np.zeros(0, np.int64), tuple(self._counts[pair] for pair in memorized)
        if self.admitted is None:
            # Some are counted anew, so that pairs that are not memorized take no room in it.
            sketch = self._whole if list(memorized) == self.pairs else self._sketch(memorized)
            return CrossKeys(tuple(memorized), words, empty, sketch.bits(), counts)
        admitted = np.concatenate([empty, *(self.admitted[pair] for pair in memorized)])
        return CrossKeys(tuple(memorized), words, np.unique(admitted), counts=counts)

    def layout(
        self, memorized: Sequence[PairNames], factorized: Sequence[PairNames], dim: int | None = None
    ) -> PairLayout:
        """How a network models these pairs.

        Args:
            dim: floats of a pair's vector, where they are not the usual number.

        Raises:
            LimitError: see `require`.
        """
        self.require(memorized)
        rows = self._table_rows(memorized)
        shifts, factor_rows = self._factor_rows(name for pair in factorized for name in pair)
        return PairLayout(
            dim=dim or self.dim,
            memorized=self._slots(memorized),
            factorized=self._slots(factorized),
            cross_rows=rows + 1,
            hashed=bool(memorized) and (self.admitted is None or self._own_rows(memorized) > rows),
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


def _least(memorized: Sequence[PairNames]) -> int:
    """Rows: the unknown cross of each pair, and one for all others."""
    return len(memorized) + 1


def too_small(cross_bytes: int, dim: int, memorized: int) -> str:
    """What is wrong with a budget that does not hold so many memorized pairs."""
    row, least = dim * FLOAT32, memorized + 1
    return (
        f"selector.cross_bytes = {cross_bytes:,} holds {cross_bytes // row} rows of {dim} floats, expected at least "
        f"{least} for {memorized} memorized pairs; state {least * row:,} or more (selector.cross_rows = {least})"
    )


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
