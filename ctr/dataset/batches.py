"""Batches of encoded rows for training and evaluation.

What is guaranteed: every row exactly once per epoch, in an order that depends on seed and epoch alone; any batch of
an epoch can be had without the ones before it, so training resumes anywhere; memory is one batch, whatever the
number of rows. What is given up: rows are gathered one by one from a file mapped into memory, so a log much larger
than the machine's memory reads slowly.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ctr.dataset.store import Dataset, Part
from ctr.errors import ConfigError

Ints = npt.NDArray[np.int64]
_ROUNDS = 6


@dataclass(frozen=True)
class Batch:
    """One batch, as NumPy arrays.

    Shapes (B rows, S single-valued fields, M list fields, L values over all lists of the batch):
        ids: (B, S) rows of the embedding table.
        values: (B, S) factors of scaled fields (1 elsewhere), or None.
        list_ids: (L,) rows of the embedding table.
        list_slots: (L,) row in the batch * M + number of the list field.
        list_lengths: (B, M) float32.
        labels: (B,) float32.
        rows: (B,) numbers of the rows in the input.
        weights: (B,) float32, how much each row counts, or None where all count alike.
        vectors: (B, T) float32, numbers of the vector fields side by side, or None where there are none.
    """

    ids: Ints
    values: npt.NDArray[np.float32] | None
    list_ids: Ints
    list_slots: Ints
    list_lengths: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    rows: Ints
    weights: npt.NDArray[np.float32] | None = None
    vectors: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)


class Layout:
    """Which row of an embedding table each feature of a dataset reads, and which fields are fed at all.

    Args:
        dataset: where the ids come from.
        table_rows: (V,) row per global feature id, 0 for dropped ones; by default every feature keeps a row of its
            own (id + 1).
        fields: names of the fields to feed; by default all.
        serving: whether bias fields have the values that they have at scoring, instead of those of the log.
    """

    def __init__(
        self,
        dataset: Dataset,
        table_rows: npt.NDArray[np.int64] | None = None,
        fields: list[str] | None = None,
        *,
        serving: bool = False,
    ) -> None:
        names = [field.name for field in dataset.fields] if fields is None else fields
        single = [field for field in dataset.fields if field.kind != "list"]
        lists = [field for field in dataset.fields if field.kind == "list"]
        self.table_rows = np.arange(1, dataset.features + 1) if table_rows is None else table_rows
        self.rows = int(self.table_rows.max(initial=0)) + 1
        self.single = [slot for slot, field in enumerate(single) if field.name in names]
        self.lists = [number for number, field in enumerate(lists) if field.name in names]
        self.fields = [single[slot].name for slot in self.single] + [lists[n].name for n in self.lists]
        self.scaled = any(single[slot].scaled for slot in self.single)
        self._all_single = len(self.single) == len(single)
        self.pooling = tuple(lists[number].pooling for number in self.lists)
        # (slot among the fields fed, numbers) of each vector field, and where its numbers stand in a part's.
        ends = np.cumsum([field.size for field in single])
        vectors = [(at, single[slot], ends[slot]) for at, slot in enumerate(self.single) if single[slot].size]
        self.vectors = tuple((at, field.size) for at, field, _ in vectors)
        columns = [np.arange(end - field.size, end) for _, field, end in vectors]
        self._columns = np.concatenate(columns) if columns else None
        self._served = [
            (at, *serve) for at, slot in enumerate(self.single) if serving and (serve := single[slot].serve)
        ]
        self._dataset = dataset

    def at_serving(self) -> "Layout":
        """The same, with bias fields as they are at scoring."""
        return Layout(self._dataset, self.table_rows, self.fields, serving=True)

    def gather(self, part: Part, index: Ints) -> Batch:
        """The rows `index` of `part`, in that order."""
        ids = part.ids[index]
        values = part.values[index] if self.scaled and part.values is not None else None
        if not self._all_single:
            ids = ids[:, self.single]
            values = None if values is None else values[:, self.single]
        for at, identity, factor in self._served:
            ids[:, at] = identity
            if values is not None:
                values[:, at] = factor
        list_ids, list_slots, list_lengths = self._gather_lists(part, index)
        return Batch(
            ids=self.table_rows[ids],
            values=values,
            list_ids=list_ids,
            list_slots=list_slots,
            list_lengths=list_lengths,
            labels=part.labels[index].astype(np.float32),
            rows=np.asarray(part.rows[index]),
            weights=None if part.weights is None else part.weights[index],
            vectors=self._gather_vectors(part, index),
        )

    def _gather_vectors(self, part: Part, index: Ints) -> npt.NDArray[np.float32] | None:
        if self._columns is None or part.vectors is None:
            return None
        found = part.vectors[index]
        return found if len(self._columns) == found.shape[1] else found[:, self._columns]

    def _gather_lists(self, part: Part, index: Ints) -> tuple[Ints, Ints, npt.NDArray[np.float32]]:
        count = len(self.lists)
        lengths = np.zeros((len(index), count), np.float32)
        ids, slots = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for column, number in enumerate(self.lists):
            flat, offsets = part.lists[number]
            start, length = offsets[index], offsets[index + 1] - offsets[index]
            lengths[:, column] = length
            within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
            ids.append(self.table_rows[flat[np.repeat(start, length) + within]])
            slots.append(np.repeat(np.arange(len(index)) * count + column, length))
        return np.concatenate(ids), np.concatenate(slots), lengths


class Batches:
    """The batches of one part.

    Args:
        part: rows to feed.
        layout: from features to rows of the embedding table.
        batch_size: rows in a batch; the last one of an epoch may be smaller.
        seed: of the shuffle; None keeps the order of the input.
        order: `time` feeds the oldest rows first, in every epoch, and rows of one instant in the order of the input.

    Raises:
        ConfigError: the order of time was asked for, and the rows have no time.
    """

    def __init__(
        self,
        part: Part,
        layout: Layout,
        batch_size: int,
        seed: int | None = None,
        order: Literal["shuffled", "time"] = "shuffled",
    ) -> None:
        self.part, self.layout, self.batch_size, self.seed = part, layout, batch_size, seed
        self._sorted: Ints | None = None
        if order == "time":
            if part.times is None:
                raise ConfigError(
                    'training.order = "time" needs rows that have a time: split.by = "time" in the schema'
                )
            self.seed = None
            if (np.diff(part.times) < 0).any():
                self._sorted = np.argsort(part.times, kind="stable")

    def __len__(self) -> int:
        return -(-len(self.part) // self.batch_size)

    @property
    def in_order(self) -> bool:
        """Whether rows come in the order of the part."""
        return self.seed is None and self._sorted is None

    def epoch(self, number: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`, from batch `start` on."""
        rows = len(self.part)
        for batch in range(start, len(self)):
            index = np.arange(batch * self.batch_size, min(rows, (batch + 1) * self.batch_size))
            if self.seed is not None:
                index = shuffled(index, rows, self.seed, number)
            elif self._sorted is not None:
                index = self._sorted[index]
            yield self.layout.gather(self.part, index)


def shuffled(positions: Ints, size: int, seed: int, epoch: int) -> Ints:
    """Where a seeded shuffle of `size` rows puts `positions`: a bijection of 0..size-1 in constant memory.

    A Feistel network over the smallest even number of bits that holds `size`; positions that leave the range walk on
    until they are back in it (cycle walking, fewer than four rounds on average).
    """
    half = max(1, -(-max(1, (size - 1).bit_length()) // 2))
    low = np.uint64((1 << half) - 1)
    # splitmix64 keys: one per round, all different for each seed and epoch
    keys = _mix(
        np.arange(_ROUNDS, dtype=np.uint64) + _mix(np.array([seed], np.uint64)) + np.uint64(epoch << 8)
    )

    def walk(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        left, right = values >> np.uint64(half), values & low
        for key in keys:
            left, right = right, left ^ (_mix(right + key) & low)
        return (left << np.uint64(half)) | right

    result = walk(positions.astype(np.uint64))
    while (outside := result >= size).any():
        result[outside] = walk(result[outside])
    return result.astype(np.int64)


def _mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
