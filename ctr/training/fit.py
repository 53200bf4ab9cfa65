"""The one training loop: baselines, searches, retrainings and refits all run through it."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ctr.config import Training
from ctr.dataset.batches import Batches
from ctr.errors import CtrError, out_of_memory
from ctr.evaluation.metrics import measure
from ctr.evaluation.sampling import row_weights
from ctr.network.network import Network
from ctr.training.checkpoint import damaged, load_checkpoint, save_checkpoint
from ctr.training.feeding import Fed, feed
from ctr.training.looks import BEST_IN_MEMORY, Companion, Look, Result, Watcher, look_points, look_rows
from ctr.training.machine import multiplying, rounding
from ctr.training.optimizers import Optimizers, state_bytes
from ctr.training.predict import predict, require_dataset
from ctr.training.stretch import Stretch

CHECKPOINT_SECONDS = 60.0  # inside an epoch; at its end there is always a checkpoint
CHECKPOINT_SHARE = 0.03  # of the time at most goes into checkpoints inside an epoch: large tables have fewer
_LOSS_CHECK = 50  # steps between looks at the loss: a look per step would stall a GPU


def fit(
    network: Network,
    train: Batches,
    valid: Batches | None,
    settings: Training,
    *,
    folder: Path,
    epochs: int | None = None,
    steps: int | None = None,
    rates: Sequence[tuple[int, float]] = (),
    companion: Companion | None = None,
    watcher: Watcher | None = None,
) -> Result:
    """Train `network` on `train`, watched on `valid`; goes on from the checkpoint in `folder` if there is one.

    Valid is looked at `settings.eval_every` steps apart (ten times an epoch by default). Without a companion training
    stops when AUC there has not improved for `settings.patience` epochs, and the weights of the best look are
    restored. With one it runs all `epochs`: a search has to finish its annealing. Without valid it runs exactly `steps`
    and keeps the last weights.

    Args:
        epochs: by default those of the settings.
        steps: how long a training without valid is.
        rates: (first step, learning rate) of each stretch of it.

    Raises:
        CtrError: the loss or a prediction became NaN or infinite (names the step), or the checkpoint is damaged.
        DataError: the network was built on the vocabulary of another dataset.
    """
    if (valid is None) != (steps is not None):
        raise ValueError("fit: expected valid or steps, one of them")
    for batches in (train, valid):
        if batches is not None:
            require_dataset(network, batches)
    total = (epochs or settings.epochs) * len(train) if steps is None else steps
    loop = _Loop(network, train, valid, settings, folder, total, rates, companion, watcher)
    try:
        loop.resume()
        while not loop.finished:
            loop.run_epoch()
        return loop.result()
    finally:
        loop.optimizers.detach()


class _Loop:
    """The state of one training: what a checkpoint holds, and what a step changes."""

    def __init__(
        self,
        network: Network,
        train: Batches,
        valid: Batches | None,
        settings: Training,
        folder: Path,
        total: int,
        rates: Sequence[tuple[int, float]],
        companion: Companion | None,
        watcher: Watcher | None,
    ) -> None:
        self.network, self.train, self.settings = network, train, settings
        self.folder, self.total, self.companion, self.watcher = folder, total, companion, watcher
        self.device = network.device
        self.points = look_points(len(train), settings.eval_every)
        self.valid = None
        if valid is not None:
            fast = settings.precision == "bf16"
            self.valid = look_rows(valid, len(train.part), len(self.points), fast=fast)
        reserved = state_bytes(network) + BEST_IN_MEMORY
        self.feed = feed(train, self.device, reserved)
        self.held_valid = None if self.valid is None else feed(self.valid, self.device, reserved).held
        self.rates = dict(rates)
        self.optimizers = Optimizers(
            network, settings.learning_rate, settings.weight_decay, settings.network_weight_decay
        )
        self.history: list[Look] = []
        self.step, self.best_step, self.best_auc = 0, 0, -1.0
        self.stale = 0  # looks since the best one
        self.best: dict[str, Tensor] | None = None  # its weights, as long as they are not on disk
        self.since = Stretch()
        self.saved, self.saving = (
            time.monotonic(),
            0.0,
        )  # the last checkpoint: its end, and the seconds it took

    @property
    def finished(self) -> bool:
        """All steps done, or patience lost."""
        patience = math.ceil(self.settings.patience * len(self.points) - 1e-9)
        watched = self.companion is None and self.valid is not None
        return self.step >= self.total or (watched and self.stale >= patience)

    def run_epoch(self) -> None:
        """Train to the end of the epoch, or until patience is lost; a look at valid and a checkpoint now and then."""
        epoch, start = divmod(self.step, len(self.train))
        self.network.train()
        for number, batch in enumerate(self.feed.epoch(epoch, start), start + 1):
            self._train(batch)
            due = number in self.points or self.step >= self.total
            if due or self.since.batches % _LOSS_CHECK == 0:
                self._check_loss(epoch, number)
            if due:
                self._look(epoch, number)
                if self.finished:
                    return

    def _train(self, batch: Fed) -> None:
        inputs, labels, weights = batch.inputs, batch.labels, batch.weights
        if self.step in self.rates:
            self.optimizers.learning_rate = self.rates[self.step]
        if self.companion:
            self.companion.before_step(inputs, labels, weights, self.step / self.total)
        for parameter in self.network.parameters():
            parameter.grad = None
        precision = self.settings.precision
        with multiplying(precision):
            with rounding(precision, self.device):
                logits = self.network(inputs)
            loss = F.binary_cross_entropy_with_logits(logits.float(), labels, weight=weights)
            loss.backward()  # type: ignore[no-untyped-call]
        if self.companion:
            self.companion.after_backward()
        self.optimizers.step()
        self.step += 1
        self.since.add(loss.detach() * batch.rows, batch.rows, batch.weight)

    def _check_loss(self, epoch: int, batch: int) -> None:
        wrong = self.since.first_not_finite()
        if wrong is not None:
            raise self._diverged("loss", self.step - wrong)
        if self.watcher:
            since = self.since
            self.watcher.step(epoch + 1, batch, len(self.train), since.rows, since.mean_loss)

    def _diverged(self, what: str, step: int) -> CtrError:
        return CtrError(
            f"the training {what} became NaN or infinite at step {step}; lower training.learning_rate "
            f"(now {self.optimizers.learning_rate:g}), or scale wide numeric fields"
        )

    def _look(self, epoch: int, batch: int) -> None:
        """See how good the weights are by now, keep the best, and save a checkpoint when it is time."""
        since, speed = self.since, self.since.rows_per_second
        self.optimizers.settle()
        extra = self.companion.before_look() if self.companion else {}
        auc, logloss = self._judge() if self.valid is not None else (None, None)
        record = Look(
            epoch=epoch + 1,
            step=self.step,
            passes=self.step / len(self.train),
            seconds=since.seconds,
            rows_per_second=speed,
            train_logloss=since.mean_loss,
            valid_auc=auc,
            valid_logloss=logloss,
            learning_rate=self.optimizers.learning_rate,
            extra=extra,
        )
        self.history.append(record)
        if record.ends_epoch and auc is not None and self.best_step <= self.step - batch:
            self.optimizers.learning_rate *= self.settings.plateau
        self.since = Stretch()
        pause = max(CHECKPOINT_SECONDS, self.saving / CHECKPOINT_SHARE)
        if record.ends_epoch or self.finished or time.monotonic() - self.saved > pause:
            self._save()
        if self.watcher:
            self.watcher.look(record)
        self.since.train_on()

    def _judge(self) -> tuple[float, float]:
        """AUC and log loss on valid; the weights are kept where no look was better."""
        assert self.valid is not None
        probabilities = predict(self.network, self.valid, self.held_valid)
        if not np.isfinite(probabilities).all():
            raise self._diverged("predictions", self.step)
        part = self.valid.part
        found = measure(part.labels, probabilities, row_weights(part.labels, part.weights, part.keep_rate))
        if found.auc > self.best_auc:
            self.best_auc, self.best_step, self.stale = found.auc, self.step, 0
            if self.companion is None:
                self._keep(self.network.state_dict())
        else:
            self.stale += 1
        return found.auc, found.logloss

    def _keep(self, best: dict[str, Tensor]) -> None:
        """Put the best weights aside until the next checkpoint: large ones on disk, or they would take memory twice.

        Where the process dies before that checkpoint, the same steps come again, and the same best look.
        """
        if sum(tensor.nbytes for tensor in best.values()) > BEST_IN_MEMORY:
            save_checkpoint(self.folder / "best", {"network": best})
        else:
            self.best = {name: tensor.detach().clone() for name, tensor in best.items()}

    def _save(self) -> None:
        """Write the best weights, where they are new, and then the state that a resumed training takes up."""
        started = time.monotonic()
        if self.valid is None and self.finished:
            self.best = self.network.state_dict()
        if self.best is not None:
            save_checkpoint(self.folder / "best", {"network": self.best})
            self.best = None
        save_checkpoint(self.folder / "last", self._state())
        self.saved = time.monotonic()
        self.saving = self.saved - started

    def _state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "dataset": self.network.dataset,
            "optimizers": self.optimizers.state_dict(),
            "companion": self.companion.state_dict() if self.companion else None,
            "history": [asdict(record) for record in self.history],
            "progress": [self.step, self.best_step, self.best_auc, self.stale],
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def resume(self) -> None:
        """Take up the last state that was saved, if there is one."""
        state = load_checkpoint(self.folder / "last", self.device)
        if state is None:
            return
        try:
            self._take_up(state)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            if out_of_memory(error):
                raise
            raise damaged(self.folder / "last", error) from None
        self.since.train_on()

    def _take_up(self, state: dict[str, Any]) -> None:
        if state["dataset"] != self.network.dataset:
            raise ValueError(f"it is of the dataset {state['dataset'][:12]}, not {self.network.dataset[:12]}")
        self.network.load_state_dict(state["network"])
        self.optimizers.load_state_dict(state["optimizers"])
        if self.companion:
            self.companion.load_state_dict(state["companion"])
        self.history = [Look(**record) for record in state["history"]]
        self.step, self.best_step, self.best_auc, self.stale = state["progress"]
        torch.set_rng_state(state["random"].cpu())
        if state["cuda_random"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda_random"].cpu(), self.device)

    def result(self) -> Result:
        """Restore the best weights and say what happened."""
        if self.companion is None:
            self.optimizers.detach()  # memory for the best weights
            best = load_checkpoint(self.folder / "best", self.device)
            if best is None:
                raise CtrError(
                    f'checkpoint "{self.folder / "best"}" is missing; use --force to start the run again'
                )
            self.network.load_state_dict(best["network"])
        watched = self.companion is None and self.valid is not None
        step = self.best_step if watched else self.step
        return Result(self.history, step, -(-step // len(self.train)), self.step)
