"""What a training records of itself: a look at valid now and then, and what comes of them all."""

from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ctr.dataset.batches import Batches, shuffled
from ctr.dataset.stacked import subset
from ctr.network.embeddings import Inputs

LOOKS = 10  # in an epoch, where the configuration does not say
_FEWEST_ROWS = 10_000
BEST_IN_MEMORY = 1 << 28  # bytes of the weights of the best look that are held beside the current ones
# A row is predicted about three times as fast as it is trained on: so all looks of an epoch take less than a tenth of
# its time, and a tenth with the checkpoints.
_ROWS_LOOKED_AT = 0.24  # for each train row, in an epoch
_ROWS_LOOKED_AT_FAST = 0.12  # in bf16 training is about twice as fast, and prediction as slow as ever


@dataclass(frozen=True)
class Look:
    """A look at valid, and the training since the look before.

    epoch: the one that it falls in, from 1. step: batches trained on so far, over all epochs.
    passes: the same in epochs; 2.3 is three tenths into the third.
    seconds: since the look before, this one included; those of all looks add up to the whole training. What is saved
        after a look counts for the next one. rows_per_second: of training alone, without looks and saving.
    train_logloss: mean over the rows trained on since the look before.
    valid_auc, valid_logloss: on the rows of `look_rows`; None where a training is not watched (a refit).
    learning_rate: of the steps before this look.
    extra: what a companion reports of itself, such as the share of open gates.
    """

    epoch: int
    step: int
    passes: float
    seconds: float
    rows_per_second: float
    train_logloss: float
    valid_auc: float | None
    valid_logloss: float | None
    learning_rate: float
    extra: dict[str, float] = field(default_factory=dict)

    @property
    def ends_epoch(self) -> bool:
        """Whether it came after the last batch of its epoch."""
        return self.passes == self.epoch

    def flat(self) -> dict[str, float]:
        """All numbers that there are, in one level."""
        values = asdict(self)
        extra: dict[str, float] = values.pop("extra")
        return {key: value for key, value in {**values, **extra}.items() if value is not None}


@dataclass(frozen=True)
class Result:
    """What `fit` returns.

    history: every look, those that end an epoch too, at the same rows of valid (`look_rows`: a sample of a large one).
    best_step: after which the network's weights are taken: those of the best look, or of the last step with a
        companion and in a refit. best_epoch: the epoch of it. steps: batches trained on.
    """

    history: list[Look]
    best_step: int
    best_epoch: int
    steps: int


class Companion(Protocol):
    """Something that learns beside the weights, such as gates in the search stage."""

    def before_step(self, inputs: Inputs, labels: Tensor, weights: Tensor | None, progress: float) -> None:
        """A batch is about to be read; `progress` runs from 0 to 1 over the training, whatever its steps."""

    def after_backward(self) -> None:
        """Gradients of the batch are there; the weights have not moved yet."""

    def before_look(self) -> dict[str, float]:
        """A look at valid comes next. Returns numbers worth recording."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed training needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""


class Watcher(Protocol):
    """Who wants to know how training goes: a progress bar, MLflow."""

    def step(self, epoch: int, batch: int, batches: int, rows: int, loss: float) -> None:
        """So many batches of the epoch are done; so many rows since the last look had this mean loss."""

    def look(self, record: Look) -> None:
        """A look at valid is done."""


def look_points(batches: int, every: int | None) -> list[int]:
    """After which batches of an epoch valid is looked at: every so many, or ten times, and always after the last."""
    if every is not None:
        return sorted({*range(every, batches, every), batches})
    return sorted({-(-number * batches // LOOKS) for number in range(1, LOOKS + 1)} - {0})


def look_rows(valid: Batches, train_rows: int, looks: int, *, fast: bool = False) -> Batches:
    """The rows of valid that every look of a training reads: all of them, or a seeded sample where that costs too much.

    With a sample all looks of an epoch take about a tenth of the epoch's time. It is the same at every look, so that
    looks can be compared; the best weights are those of the best look, judged on these rows. Where clicks are so rare
    that the sample has none, all rows are read.

    Args:
        train_rows: rows of an epoch.
        looks: in an epoch.
        fast: whether products of the training are in bf16; those of a look never are.
    """
    rows = len(valid.part)
    share = _ROWS_LOOKED_AT_FAST if fast else _ROWS_LOOKED_AT
    count = max(_FEWEST_ROWS, int(share * train_rows / looks))
    if count >= rows:
        return valid
    chosen: npt.NDArray[np.int64] = np.sort(shuffled(np.arange(count), rows, seed=0, epoch=0))
    counted = chosen if valid.part.weights is None else chosen[valid.part.weights[chosen] > 0]
    if len(np.unique(valid.part.labels[counted])) < 2:
        return valid
    return Batches(subset(valid.part, chosen), valid.layout, valid.batch_size)


def rates(history: list[Look]) -> list[tuple[int, float]]:
    """(first step, learning rate) of each stretch of a training, from 0; what a refit follows."""
    found: list[tuple[int, float]] = []
    before = 0
    for look in history:
        if not found or found[-1][1] != look.learning_rate:
            found.append((before, look.learning_rate))
        before = look.step
    return found
