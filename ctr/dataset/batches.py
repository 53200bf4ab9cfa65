"""Batches of encoded rows for training and evaluation.

What is guaranteed: every row exactly once per epoch, in an order that depends on seed and epoch alone; any batch of
an epoch can be had without the ones before it, so training resumes anywhere; memory is one batch, whatever the
number of rows. What is given up: rows are gathered one by one from a file mapped into memory, so a log much larger
than the machine's memory reads slowly.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np
import numpy.typing as npt

from ctr.dataset.layout import Batch, Layout
from ctr.dataset.store import Part
from ctr.errors import ConfigError

Ints = npt.NDArray[np.int64]
_ROUNDS = 6


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
                    'training.order = "time" needs rows that have a time: in the schema split.by = "time", or '
                    'split.column beside split.by = "files"'
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
        for index in self.order(number, start):
            yield self.layout.gather(self.part, index)

    def order(self, number: int = 0, start: int = 0) -> Iterator[Ints]:
        """Which rows (B,) each batch of epoch `number` holds, from batch `start` on."""
        rows = len(self.part)
        for batch in range(start, len(self)):
            index = np.arange(batch * self.batch_size, min(rows, (batch + 1) * self.batch_size))
            if self.seed is not None:
                index = shuffled(index, rows, self.seed, number)
            elif self._sorted is not None:
                index = self._sorted[index]
            yield index


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
