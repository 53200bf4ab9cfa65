"""Batches of encoded rows for training and evaluation.

What is guaranteed: every row exactly once per epoch, in an order that depends on seed and epoch alone; any batch of
an epoch can be had without the ones before it, so training resumes anywhere; memory is one batch, whatever the
number of rows. What is given up: rows are gathered one by one from a file mapped into memory, so a log much larger
than the machine's memory reads slowly.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ctr.dataset.store import Dataset, Part

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
    """

    ids: Ints
    values: npt.NDArray[np.float32] | None
    list_ids: Ints
    list_slots: Ints
    list_lengths: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    rows: Ints

    def __len__(self) -> int:
        return len(self.labels)


class Layout:
    """Which row of an embedding table each feature of a dataset reads, and which fields are fed at all.

    Args:
        dataset: where the ids come from.
        table_rows: (V,) row per global feature id, 0 for dropped ones; by default every feature keeps a row of its
            own (id + 1).
        fields: names of the fields to feed; by default all.
    """

    def __init__(
        self,
        dataset: Dataset,
        table_rows: npt.NDArray[np.int64] | None = None,
        fields: list[str] | None = None,
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

    def gather(self, part: Part, index: Ints) -> Batch:
        """The rows `index` of `part`, in that order."""
        ids = part.ids[index]
        values = part.values[index] if self.scaled and part.values is not None else None
        if not self._all_single:
            ids = ids[:, self.single]
            values = None if values is None else values[:, self.single]
        list_ids, list_slots, list_lengths = self._gather_lists(part, index)
        return Batch(
            ids=self.table_rows[ids],
            values=values,
            list_ids=list_ids,
            list_slots=list_slots,
            list_lengths=list_lengths,
            labels=part.labels[index].astype(np.float32),
            rows=np.asarray(part.rows[index]),
        )

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
    """

    def __init__(self, part: Part, layout: Layout, batch_size: int, seed: int | None = None) -> None:
        self.part, self.layout, self.batch_size, self.seed = part, layout, batch_size, seed

    def __len__(self) -> int:
        return -(-len(self.part) // self.batch_size)

    def epoch(self, number: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch `number`, from batch `start` on."""
        rows = len(self.part)
        for batch in range(start, len(self)):
            index = np.arange(batch * self.batch_size, min(rows, (batch + 1) * self.batch_size))
            if self.seed is not None:
                index = shuffled(index, rows, self.seed, number)
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
