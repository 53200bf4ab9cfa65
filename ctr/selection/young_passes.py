"""Saliency of a network that is still young: after each of the first epochs of a training, kept on disk.

A network that has gone on cannot be asked again what it felt then. So it is asked on the way.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from ctr.dataset.batches import Batches
from ctr.network.network import Network
from ctr.selection.saliency import Saliency, saliency
from ctr.training.checkpoint import load_checkpoint, save_checkpoint
from ctr.training.looks import Look, Watcher


class YoungPasses:
    """Where the passes of one network are kept.

    Args:
        folder: `pass-1` comes to lie there, and so on.
        train: all train rows in order, by a layout in which every feature has its own number, id + 1.
        features: V.
        epochs: how many there are.
    """

    def __init__(self, folder: Path, train: Batches, features: int, epochs: int) -> None:
        self._folder, self._train, self._features, self.epochs = folder, train, features, epochs

    def known(self, epoch: int) -> Saliency | None:
        """What was taken after an epoch, from 1; None where nothing was.

        Raises:
            CtrError: it was altered.
        """
        found = load_checkpoint(self._path(epoch))
        return None if found is None else Saliency(**{key: sums.numpy() for key, sums in found.items()})

    def all_known(self) -> Sequence[Saliency] | None:
        """What was taken after each of the epochs; None where one is lacking."""
        found = [self.known(epoch) for epoch in range(1, self.epochs + 1)]
        taken = [each for each in found if each is not None]
        return taken if len(taken) == self.epochs else None

    def take(self, network: Network, epoch: int) -> None:
        """Ask a network that has been trained for so many epochs; it is left as it was."""
        found = saliency(network, self._train, self._features)
        save_checkpoint(
            self._path(epoch), {key: torch.from_numpy(sums) for key, sums in asdict(found).items()}
        )

    def watching(self, network: Network) -> Watcher:
        """Who asks the network while it is trained; nothing of its training changes by that."""
        return _Watching(self, network)

    def _path(self, epoch: int) -> Path:
        return self._folder / f"pass-{epoch}"


class _Watching:
    def __init__(self, passes: YoungPasses, network: Network) -> None:
        self._passes, self._network = passes, network

    def step(self, epoch: int, batch: int, batches: int, rows: int, loss: float) -> None:
        """Whole epochs count."""

    def look(self, record: Look) -> None:
        if record.ends_epoch and record.epoch <= self._passes.epochs:
            self._passes.take(self._network, record.epoch)
