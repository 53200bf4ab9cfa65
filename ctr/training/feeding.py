"""From encoded rows to tensors on a device: gathered batch by batch, or held there whole where they fit.

Off a CPU batches are made ahead of their use, in a thread, from memory that the device reads without asking. Where a
part has no lists and takes a small share of the device's memory, all of it goes there once, and a batch is picked by
its rows' places: what is left on the host is the shuffle. Either way order and numbers are those of `Batches`.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from ctr.dataset.batches import Batches
from ctr.dataset.layout import Batch, Column
from ctr.dataset.parallel import ahead
from ctr.dataset.placed import PlacedFeatures
from ctr.network.embeddings import Inputs
from ctr.training.machine import free_memory

HELD_SHARE = 0.25  # of the free memory of a GPU; tables, their moments and activations need the rest
_ROWS_AT_A_TIME = 1 << 18
_NUMBER = torch.int32  # of a feature, and its id


class Fed(NamedTuple):
    """A batch on a device.

    labels, weights: (B,); weights None where all rows count alike. rows: B. weight: the sum of the weights, or B.
    """

    inputs: Inputs
    labels: Tensor
    weights: Tensor | None
    rows: int
    weight: float


def to_inputs(batch: Batch, device: torch.device) -> Inputs:
    """A batch's arrays as tensors on `device`."""

    def tensor(array: npt.NDArray[Any]) -> Tensor:
        return sent(torch.from_numpy(array), device)

    return Inputs(
        ids=tensor(batch.ids),
        values=None if batch.values is None else tensor(batch.values),
        list_ids=tensor(batch.list_ids),
        list_slots=tensor(batch.list_slots),
        list_lengths=tensor(batch.list_lengths),
        vectors=None if batch.vectors is None else tensor(batch.vectors),
        places=None if batch.places is None else tensor(batch.places),
        list_places=None if batch.list_places is None else tensor(batch.list_places),
    )


def feed(batches: Batches, device: torch.device, reserved: int = 0) -> "Feed":
    """The cheapest way to bring rows to a device: a GPU holds all of them, where they fit.

    Args:
        reserved: bytes of its free memory that something else is going to take.
    """
    if device.type != "cuda":
        return Feed(batches, device)
    return Feed(batches, device, hold(batches, device, HELD_SHARE * ((free_memory(device) or 0) - reserved)))


class Feed:
    """The batches of a part on a device.

    Args:
        batches: their order.
        held: the same rows, if they are on the device already.
    """

    def __init__(self, batches: Batches, device: torch.device, held: "HeldRows | None" = None) -> None:
        self._batches, self._device, self.held = batches, device, held

    def epoch(self, number: int = 0, start: int = 0) -> Iterator[Fed]:
        """The batches of epoch `number`, from batch `start` on."""
        if self.held is not None:
            source = map(self.held.batch, self._batches.order(number, start))
        else:
            source = map(self._sent, self._batches.epoch(number, start))
        # On a CPU the thread would take a core from the matrix products.
        return source if self._device.type == "cpu" else ahead(source)

    def _sent(self, batch: Batch) -> Fed:
        weights = None if batch.weights is None else sent(torch.from_numpy(batch.weights), self._device)
        weight = float(len(batch)) if batch.weights is None else float(batch.weights.sum())
        labels = sent(torch.from_numpy(batch.labels), self._device)
        return Fed(to_inputs(batch, self._device), labels, weights, len(batch), weight)


class HeldRows:
    """All rows (N) of a part on a device, as they lie on disk but for their features, which are numbered.

    Args:
        batches: of the part; without lists, with a vocabulary.
    """

    def __init__(self, batches: Batches, device: torch.device) -> None:
        part, layout = batches.part, batches.layout
        self._device, self._weights = device, part.weights
        self._no_ids = torch.zeros(0, dtype=torch.int64, device=device)
        numbers = torch.from_numpy(np.asarray(layout.numbers, np.int32)).to(device)  # (V,)
        reader = layout.reader if isinstance(layout.reader, PlacedFeatures) else None
        places = None if reader is None else torch.from_numpy(reader.places).to(device)
        self._places = places  # (numbers + 1, R)
        self._columns = {
            name: _brought(name, column, numbers) for name, column in layout.columns(part).items()
        }

    def batch(self, index: npt.NDArray[np.int64]) -> Fed:
        """The rows `index` (B,), in that order."""
        rows, here = len(index), sent(torch.from_numpy(index), self._device)
        picked = {name: column.index_select(0, here) for name, column in self._columns.items()}
        ids = picked["ids"].long()
        inputs = Inputs(
            ids=ids,
            values=picked.get("values"),
            list_ids=self._no_ids,
            list_slots=self._no_ids,
            list_lengths=torch.zeros(rows, 0, device=self._device),
            vectors=picked.get("vectors"),
            places=None if self._places is None else F.embedding(ids, self._places),
            list_places=None if self._places is None else self._places[:0],
        )
        weight = float(rows) if self._weights is None else float(self._weights[index].sum())
        return Fed(inputs, picked["labels"].float(), picked.get("weights"), rows, weight)


def hold(batches: Batches, device: torch.device, budget: float) -> HeldRows | None:
    """All rows of a part on a device; None where they take more than `budget` bytes, or cannot be picked there."""
    part, layout = batches.part, batches.layout
    if not layout.holdable or not len(part):
        return None
    needed = sum(
        math.prod(column.shape) * _kind(name, column).itemsize
        for name, column in layout.columns(part).items()
    )
    needed += _NUMBER.itemsize * len(layout.numbers)
    if isinstance(layout.reader, PlacedFeatures):
        needed += layout.reader.places.nbytes
    return HeldRows(batches, device) if needed <= budget else None


def _kind(name: str, column: Column) -> torch.dtype:
    """Of a column on the device: numbers stand for ids, and everything else has floats, or bytes, on disk as well."""
    return _NUMBER if name == "ids" else torch.from_numpy(np.zeros(0, column.array.dtype)).dtype


def _brought(name: str, column: Column, numbers: Tensor) -> Tensor:
    """A column of all rows on the device of `numbers` (V,), a stretch at a time; of ids their numbers."""
    found = torch.empty(column.shape, dtype=_kind(name, column), device=numbers.device)
    for start in range(0, len(found), _ROWS_AT_A_TIME):
        stretch = column.rows(start, start + _ROWS_AT_A_TIME)
        if name == "ids":  # unsigned on disk, which PyTorch cannot pick by
            ids = torch.from_numpy(stretch.astype(np.int32)).to(numbers.device)
            found[start : start + len(stretch)] = numbers.index_select(0, ids.view(-1)).view_as(ids)
        else:
            found[start : start + len(stretch)] = torch.from_numpy(stretch)
    return found


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host on a device. A GPU reads it when it gets to it, from memory that is kept till then."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
