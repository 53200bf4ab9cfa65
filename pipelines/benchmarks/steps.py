"""What the parts about training share: sizes, random batches, the MLP that is the bound, steps timed in turns.

Rows are drawn at random, Zipf-like, and fed as ready-made batches; the bound is the same MLP alone on ready-made
inputs that require gradients, with plain fused Adam.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ctr.network.embeddings import Inputs
from ctr.network.network import Architecture, Network, build
from ctr.selection.evidence import EvidenceGates
from ctr.training.machine import rounding
from ctr.training.optimizers import Optimizers

FIELDS, DIM, HIDDEN, BATCH = 39, 16, (1024, 512, 256), 4096
DRAWN = 8  # batches, fed again and again
WARM_UP = 2  # rounds that are not counted

LabelledInputs = tuple[Inputs, torch.Tensor]
Step = Callable[[Inputs, torch.Tensor], None]
Turn = Callable[[int], object]


class Moving(Protocol):
    """What moves all weights of a network: `Optimizers`, or what is measured beside it."""

    def step(self) -> None:
        """Move all weights that have a gradient."""


@dataclass(frozen=True)
class Setting:
    """How large everything is; tests make it small.

    Attributes:
        million: features that `1m` in a key stands for; `10m` and `33m` are 10 and 33 times as many.
        hidden: widths of the MLP. batch: rows in a step. steps: rounds that are counted.
        rows_ingested, rows_fed, rows_evaluated: rows of the synthetic logs, and of scored ones.
        rows_loaded: of the log whose values a bundle with about a million of them keeps.
        rows_served, served_hidden, requests: rows of the log behind the bundles that are served, their MLP, and how
            many requests of each kind are timed.
    """

    million: int = 1_000_000
    hidden: tuple[int, ...] = HIDDEN
    batch: int = BATCH
    steps: int = 12
    rows_ingested: int = 1_000_000
    rows_fed: int = 500_000
    rows_evaluated: int = 10_000_000
    rows_served: int = 500_000
    rows_loaded: int = 3_000_000
    served_hidden: tuple[int, ...] = (400, 400)
    requests: int = 500


def seconds_in_turns(turns: Mapping[str, Turn], steps: int) -> dict[str, float]:
    """Median seconds of each turn, which is told the number of the round.

    One of each after the other, so that a busy machine slows all down alike.
    """
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(WARM_UP + steps):
        for name, turn in turns.items():
            started = time.perf_counter()
            turn(number)
            seconds[name].append(time.perf_counter() - started)
    return {name: float(np.median(values[WARM_UP:])) for name, values in seconds.items()}


def fed(step: Step, batches: list[LabelledInputs]) -> Turn:
    """Turns of a step over ready-made batches."""
    return lambda number: step(*batches[number % len(batches)])


def deepfm(features: int, setting: Setting, fields: int = FIELDS) -> Network:
    """The network that is measured, new and with seed 0; `features` over all its fields."""
    torch.manual_seed(0)
    return build(
        Architecture(rows=features + 1, fields=fields, dim=DIM, backbone="deepfm", hidden=setting.hidden)
    )


def training_step(
    network: Network,
    gates: EvidenceGates | None = None,
    optimizers: Moving | None = None,
    precision: str = "float32",
) -> Step:
    """A step from inputs to updated weights; with `gates` one of a search. `optimizers` default to new ones."""
    moved = optimizers or Optimizers(network, 1e-3, 0.0, 0.0)

    def step(inputs: Inputs, labels: torch.Tensor) -> None:
        if gates:
            gates.before_step(inputs, labels, None, 0.5)
        for parameter in network.parameters():
            parameter.grad = None
        with rounding(precision, network.device):
            logits = network(inputs)
        F.binary_cross_entropy_with_logits(logits.float(), labels).backward()  # type: ignore[no-untyped-call]
        if gates:
            gates.after_backward()
        moved.step()

    return step


def forward_turn(network: Network, batches: list[LabelledInputs]) -> Turn:
    """Turns of the forward pass alone."""

    def forward(number: int) -> None:
        with torch.no_grad():
            network(batches[number % len(batches)][0])

    return forward


def mlp_alone(setting: Setting) -> tuple[Turn, Turn]:
    """The bounds: a training step and a forward pass of the MLP on vectors that need no looking up."""
    torch.manual_seed(0)
    sizes = (FIELDS * DIM, *setting.hidden)
    layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
    mlp = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))
    optimizer = torch.optim.Adam(mlp.parameters(), fused=True)
    ready, labels = torch.randn(setting.batch, FIELDS * DIM), torch.rand(setting.batch).round()

    def train(number: int) -> None:
        optimizer.zero_grad()
        vectors = ready.detach().requires_grad_()
        F.binary_cross_entropy_with_logits(mlp(vectors).squeeze(1), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def forward(number: int) -> None:
        with torch.no_grad():
            mlp(ready)

    return train, forward


def random_batches(features: int, count: int, rows: int = BATCH) -> Iterator[LabelledInputs]:
    """Batches of `rows` rows whose ids are skewed within each field, as in click logs."""
    generator = np.random.default_rng(0)
    size = features // FIELDS
    offsets = np.arange(FIELDS) * size + 1
    for _ in range(count):
        ids = (size * generator.random((rows, FIELDS)) ** 4).astype(np.int64) + offsets
        none = torch.zeros(0, dtype=torch.int64)
        inputs = Inputs(torch.from_numpy(ids), None, none, none, torch.zeros(rows, 0))
        yield inputs, torch.from_numpy(generator.integers(0, 2, rows).astype(np.float32))
