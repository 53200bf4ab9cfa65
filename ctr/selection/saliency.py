"""Saliency: what each feature is worth to a network that was trained with all of them, by one pass over its rows.

For one occurrence of feature v in a row with label y and predicted probability p, let z' be the slope of the logit
along the gate of v, at gate 1 (that is what v adds to the logit, where the network is linear in it), and
s = (p - y) z' the slope of the row's log loss. Two scores come of their sums over all rows:

    fisher(v)       = sum of s^2                              how much the loss feels v at all
    second_order(v) = -sum of s + sum of z'^2 p (1 - p) / 2   nats that the loss rises by, to second order, if v goes

Theis et al., "Faster gaze prediction with dense networks and Fisher pruning", 2018 (arXiv 1801.05787), and LeCun,
Denker and Solla, "Optimal Brain Damage", NIPS 1989, for weights of networks; here the gates of features take their
place. No search and no gate is trained: a backward pass gives z' of everything that a batch holds at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ctr.dataset.batches import Batches
from ctr.dataset.feature_set import Floats
from ctr.dataset.layout import Batch
from ctr.network.network import Network
from ctr.training.feeding import to_inputs
from ctr.training.predict import require_dataset


@dataclass(frozen=True)
class Saliency:
    """Sums over the occurrences of each feature in the rows of a part, by global id; a row of weight 2 is two rows.

    slope: (V,) of s. curvature: (V,) of z'^2 p (1 - p). fisher: (V,) of s^2.
    """

    slope: Floats
    curvature: Floats
    fisher: Floats

    @property
    def second_order(self) -> Floats:
        """(V,) nats that the log loss over all rows rises by if a feature goes, to second order."""
        return 0.5 * self.curvature - self.slope


def saliency(network: Network, batches: Batches, features: int) -> Saliency:
    """One pass over the rows of `batches`.

    Args:
        network: trained, without a gate. It is left as it was; dropout and batch statistics are off.
        batches: by a layout in which every feature has its own number, id + 1.
        features: V.

    Raises:
        DataError: the network was built on the vocabulary of another dataset.
    """
    if network.gate is not None:
        raise ValueError("saliency: expected a network without a gate")
    require_dataset(network, batches)
    sums = torch.zeros(3, features + 1, dtype=torch.float64)
    was_training = network.training
    network.eval()
    with _fed(network) as fed:
        for batch in batches.epoch():
            fed.clear()
            _add(sums, fed, network, batch)
    network.train(was_training)
    return Saliency(*sums[:, 1:].numpy())


@contextmanager
def _fed(network: Network) -> Iterator[list[Tensor]]:
    """What the backbone is fed of a batch, as long as the context lives: vectors of single values, then of lists."""
    fed: list[Tensor] = []

    def keep(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        fed.append(output)

    hook = network.gated.register_forward_hook(keep)
    try:
        yield fed
    finally:
        hook.remove()


def _add(sums: Tensor, fed: list[Tensor], network: Network, batch: Batch) -> None:
    """Add a batch to `sums` (3, V + 1): slope, curvature, fisher by number; `fed` fills as it is predicted."""
    inputs = to_inputs(batch, network.device)
    logits = network(inputs)  # (B,)
    # Rows do not feel each other, so the sum of all logits has the slopes of each.
    slopes = torch.autograd.grad(logits.sum(), fed)
    probabilities = torch.sigmoid(logits.detach())
    residual = probabilities - torch.from_numpy(batch.labels).to(network.device)
    spread = probabilities * (1.0 - probabilities)
    weight = torch.ones_like(residual)
    if batch.weights is not None:
        weight = torch.from_numpy(batch.weights).to(network.device)
    rows = [
        torch.arange(len(logits), device=network.device).unsqueeze(1)
    ]  # (B, 1), as all fields of a row share it
    if len(fed) > 1:
        rows.append(torch.div(inputs.list_slots, inputs.list_lengths.shape[1], rounding_mode="floor"))  # (L,)
    for ids, vectors, slope, row in zip((inputs.ids, inputs.list_ids), fed, slopes, rows, strict=False):
        added = torch.linalg.vecdot(slope, vectors.detach())  # z' of each occurrence: (B, S) or (L,)
        s = residual[row] * added
        found = weight[row] * torch.stack([s, spread[row] * added.square(), s.square()])
        sums.index_add_(1, ids.flatten().cpu(), found.flatten(1).cpu().double())
