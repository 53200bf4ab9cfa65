"""What was trained on between two looks at valid: rows, loss and time."""

import time

import torch
from torch import Tensor


class Stretch:
    """The training since the last look. Losses stay on the device until someone asks."""

    def __init__(self) -> None:
        self._started = self._training = time.perf_counter()
        self._pending: list[Tensor] = []
        self._loss, self._weight = 0.0, 0.0
        self.rows, self.batches = 0, 0

    def train_on(self) -> None:
        """Training goes on: what the time until now went to (a checkpoint) does not make it slower."""
        self._training = time.perf_counter()

    def add(self, loss: Tensor, rows: int, weight: float) -> None:
        """Take in the summed loss of a batch, its rows, and what they weigh."""
        self._pending.append(loss)
        self._weight += weight
        self.rows += rows
        self.batches += 1

    def first_not_finite(self) -> int | None:
        """How many batches before the last one a loss was not finite; None where all are. Settles what is pending."""
        losses, self._pending = torch.stack(self._pending), []
        finite = torch.isfinite(losses)
        if not bool(finite.all()):
            return len(losses) - 1 - int(finite.logical_not().nonzero()[0])
        self._loss += float(losses.sum())
        return None

    @property
    def mean_loss(self) -> float:
        """Per unit of weight, over what is settled."""
        return self._loss / self._weight if self._weight else 0.0

    @property
    def seconds(self) -> float:
        """Since the last look."""
        return time.perf_counter() - self._started

    @property
    def rows_per_second(self) -> float:
        """So far, of training alone."""
        return self.rows / (time.perf_counter() - self._training)
