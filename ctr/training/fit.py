"""The one training loop and the one prediction loop: baselines, searches and retrainings all run through them."""

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from ctr.config import Training
from ctr.dataset.batches import Batch, Batches
from ctr.errors import ConfigError, CtrError
from ctr.evaluation.metrics import measure
from ctr.network.embeddings import Inputs
from ctr.network.network import Network
from ctr.training.checkpoint import damaged, load_checkpoint, save_checkpoint
from ctr.training.optimizers import LazyAdam, dense_parameters, table_parameters

_LOSS_CHECK = 50  # steps between looks at the loss: a look per step would stall a GPU


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to. `seconds` include the look at valid, `rows_per_second` does not.

    `extra` holds what a companion reports of itself, such as the share of open gates.
    """

    epoch: int
    step: int
    seconds: float
    rows_per_second: float
    train_logloss: float
    valid_auc: float
    valid_logloss: float
    learning_rate: float
    extra: dict[str, float] = field(default_factory=dict)

    def flat(self) -> dict[str, float]:
        """All numbers in one level."""
        values = asdict(self)
        extra: dict[str, float] = values.pop("extra")
        return {**values, **extra}


@dataclass(frozen=True)
class Result:
    """What `fit` returns; the network then holds the weights of `best_epoch` (of the last one with a companion)."""

    history: list[Epoch]
    best_epoch: int
    steps: int


class Companion(Protocol):
    """Something that learns beside the weights, such as gates in the search stage."""

    def start_epoch(self, number: int) -> None:
        """Epoch `number`, from 0, is about to begin."""

    def before_step(self, inputs: Inputs, labels: Tensor, progress: float) -> None:
        """A batch is about to be read; `progress` runs from 0 to 1 over the training, whatever its steps."""

    def after_backward(self) -> None:
        """Gradients of the batch are there; the weights have not moved yet."""

    def end_epoch(self) -> dict[str, float]:
        """The epoch is over, valid comes next. Returns numbers worth recording."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed training needs."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""


class Watcher(Protocol):
    """Who wants to know how training goes: a progress bar, MLflow."""

    def step(self, epoch: int, batch: int, batches: int, rows: int, loss: float) -> None:
        """So many batches and rows of the epoch are done, at this mean loss."""

    def epoch(self, record: Epoch) -> None:
        """An epoch is done."""


def pick_device(name: str) -> torch.device:
    """`"auto"` is the GPU where there is one.

    Raises:
        ConfigError: the device is asked for by name and absent.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    mps = torch.backends.mps.is_available()
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(mps)}[kind]
    if int(number or 0) >= count:
        raise ConfigError(f'training.device: "{name}" is not available here; use "auto" or "cpu"')
    return torch.device(name)


def to_inputs(batch: Batch, device: torch.device) -> Inputs:
    """A batch's arrays as tensors on `device`."""

    def tensor(array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(device, non_blocking=True)

    return Inputs(
        ids=tensor(batch.ids),
        values=None if batch.values is None else tensor(batch.values),
        list_ids=tensor(batch.list_ids),
        list_slots=tensor(batch.list_slots),
        list_lengths=tensor(batch.list_lengths),
    )


@torch.no_grad()
def predict(network: Network, batches: Batches) -> npt.NDArray[np.float64]:
    """Click probabilities (N,) of all rows, in the order of the part.

    Raises:
        ValueError: the batches are shuffled.
    """
    if batches.seed is not None:
        raise ValueError("predict: expected batches in the order of the part, found shuffled ones")
    device = network.table.weight.device
    was_training = network.training
    network.eval()
    logits = [network(to_inputs(batch, device)).cpu().double() for batch in batches.epoch()]
    network.train(was_training)
    return torch.sigmoid(torch.cat(logits)).numpy() if logits else np.zeros(0)


def fit(
    network: Network,
    train: Batches,
    valid: Batches,
    settings: Training,
    *,
    folder: Path,
    epochs: int | None = None,
    companion: Companion | None = None,
    watcher: Watcher | None = None,
) -> Result:
    """Train `network` on `train`, watched on `valid`; goes on from the checkpoint in `folder` if there is one.

    Without a companion training stops when AUC on valid has not improved for `settings.patience` epochs, and the
    weights of the best epoch are restored. With one it runs all `epochs`: a search has to finish its annealing.

    Raises:
        CtrError: the loss or a prediction became NaN or infinite (names the step), or the checkpoint is damaged.
    """
    loop = _Loop(network, train, valid, settings, folder, epochs or settings.epochs, companion, watcher)
    loop.resume()
    while not loop.finished:
        loop.run_epoch()
    return loop.result()


class _Loop:
    """The state of one training: what a checkpoint holds, and what an epoch changes."""

    def __init__(
        self,
        network: Network,
        train: Batches,
        valid: Batches,
        settings: Training,
        folder: Path,
        epochs: int,
        companion: Companion | None,
        watcher: Watcher | None,
    ) -> None:
        self.network, self.train, self.valid, self.settings = network, train, valid, settings
        self.folder, self.epochs, self.companion, self.watcher = folder, epochs, companion, watcher
        self.device = network.table.weight.device
        tables = table_parameters(network)
        gates = [] if network.gate is None else list(network.gate.parameters())
        self.tables = LazyAdam(tables, settings.learning_rate, weight_decay=settings.weight_decay)
        dense = dense_parameters(network, [*tables, *gates])
        # A table alone (logistic regression without bias) leaves nothing dense to train.
        self.dense = (
            torch.optim.Adam(dense, settings.learning_rate, weight_decay=settings.network_weight_decay)
            if dense
            else None
        )
        self.history: list[Epoch] = []
        self.best_auc, self.best_epoch, self.stale = -1.0, 0, 0

    @property
    def finished(self) -> bool:
        """All epochs done, or patience lost."""
        stopped = self.companion is None and self.stale >= self.settings.patience
        return stopped or len(self.history) >= self.epochs

    @property
    def learning_rate(self) -> float:
        """The current one, after any plateau."""
        return float(self.tables.param_groups[0]["lr"])

    def run_epoch(self) -> None:
        """One pass over train, a look at valid, a checkpoint."""
        number = len(self.history)
        if self.companion:
            self.companion.start_epoch(number)
        started = time.perf_counter()
        loss = self._steps(number)
        stepped = time.perf_counter() - started
        self.tables.settle()
        extra = self.companion.end_epoch() if self.companion else {}
        probabilities = predict(self.network, self.valid)
        if not np.isfinite(probabilities).all():
            raise self._diverged("predictions", (number + 1) * len(self.train))
        metrics = measure(self.valid.part.labels, probabilities)
        record = Epoch(
            epoch=number + 1,
            step=(number + 1) * len(self.train),
            seconds=time.perf_counter() - started,
            rows_per_second=len(self.train.part) / stepped,
            train_logloss=loss,
            valid_auc=metrics.auc,
            valid_logloss=metrics.logloss,
            learning_rate=self.learning_rate,
            extra=extra,
        )
        self.history.append(record)
        self._judge(record)
        save_checkpoint(self.folder / "last", self._state())
        if self.watcher:
            self.watcher.epoch(record)

    def _steps(self, epoch: int) -> float:
        self.network.train()
        batches = len(self.train)
        total, pending = 0.0, []
        for number, batch in enumerate(self.train.epoch(epoch)):
            inputs, labels = to_inputs(batch, self.device), torch.from_numpy(batch.labels).to(self.device)
            if self.companion:
                self.companion.before_step(
                    inputs, labels, (epoch * batches + number) / (self.epochs * batches)
                )
            loss = self._step(inputs, labels)
            pending.append(loss * len(batch))
            if len(pending) == _LOSS_CHECK or number == batches - 1:
                losses = torch.stack(pending)
                self._check_finite(losses, epoch * batches + number + 1 - len(pending))
                total += float(losses.sum())
                pending = []
                if self.watcher:
                    rows = min((number + 1) * self.train.batch_size, len(self.train.part))
                    self.watcher.step(epoch + 1, number + 1, batches, rows, total / rows)
        return total / len(self.train.part)

    def _step(self, inputs: Inputs, labels: Tensor) -> Tensor:
        loss = F.binary_cross_entropy_with_logits(self.network(inputs), labels)
        for parameter in self.network.parameters():
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        if self.companion:
            self.companion.after_backward()
        self.tables.step()
        if self.dense:
            self.dense.step()
        return loss.detach()

    def _check_finite(self, losses: Tensor, first_step: int) -> None:
        if not bool(torch.isfinite(losses).all()):
            step = first_step + int(torch.isfinite(losses).logical_not().nonzero()[0]) + 1
            raise self._diverged("loss", step)

    def _diverged(self, what: str, step: int) -> CtrError:
        return CtrError(
            f"the training {what} became NaN or infinite at step {step}; lower training.learning_rate "
            f"(now {self.learning_rate:g}), or scale wide numeric fields"
        )

    def _judge(self, record: Epoch) -> None:
        if record.valid_auc > self.best_auc:
            self.best_auc, self.best_epoch, self.stale = record.valid_auc, record.epoch, 0
            if self.companion is None:
                save_checkpoint(self.folder / "best", {"network": self.network.state_dict()})
            return
        self.stale += 1
        for optimizer in filter(None, (self.tables, self.dense)):
            for group in optimizer.param_groups:
                group["lr"] *= self.settings.plateau

    def _state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "tables": self.tables.state_dict(),
            "dense": self.dense.state_dict() if self.dense else None,
            "companion": self.companion.state_dict() if self.companion else None,
            "history": [asdict(record) for record in self.history],
            "best": [self.best_auc, self.best_epoch, self.stale],
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def resume(self) -> None:
        """Take up the state of the last finished epoch, if there is one."""
        state = load_checkpoint(self.folder / "last", self.device)
        if state is None:
            return
        try:
            self._take_up(state)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise damaged(self.folder / "last", error) from None

    def _take_up(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.tables.load_state_dict(_numbered(state["tables"]))
        if self.dense:
            self.dense.load_state_dict(_numbered(state["dense"]))
        if self.companion:
            self.companion.load_state_dict(state["companion"])
        self.history = [Epoch(**record) for record in state["history"]]
        self.best_auc, self.best_epoch, self.stale = state["best"]
        torch.set_rng_state(state["random"].cpu())
        if state["cuda_random"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_random"].cpu(), self.device)

    def result(self) -> Result:
        """Restore the best weights and say what happened."""
        if self.companion is None:
            best = load_checkpoint(self.folder / "best", self.device)
            if best is None:
                raise CtrError(
                    f'checkpoint "{self.folder / "best"}" is missing; use --force to start the run again'
                )
            self.network.load_state_dict(best["network"])
        last = self.history[-1]
        return Result(self.history, self.best_epoch if self.companion is None else last.epoch, last.step)


def _numbered(state: dict[str, Any]) -> dict[str, Any]:
    """JSON turned the parameters' numbers into text; optimizers want numbers, and their steps on the CPU."""
    numbered = {int(key): {**value, "step": value["step"].cpu()} for key, value in state["state"].items()}
    return {**state, "state": numbered}
