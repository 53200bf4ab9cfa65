"""How fast training, search and the forward pass are, as ratios to bounds measured in the same run.

Rows are drawn at random, Zipf-like, and fed as ready-made batches; the bound is the same MLP alone on ready-made
inputs that require gradients, with plain fused Adam.
"""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import cycle, islice, pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ctr.dataset.hashing import Ints
from ctr.dataset.placement import place
from ctr.network.embeddings import Inputs
from ctr.network.gates import SoftGate
from ctr.network.network import Architecture, Network, build
from ctr.selection.evidence import EvidenceGates, Schedule
from ctr.training.optimizers import LazyAdam, dense_parameters, table_parameters

FIELDS, DIM, HIDDEN, BATCH = 39, 16, (1024, 512, 256), 4096
SEARCH_STEPS = 1000
Step = Callable[[Inputs, torch.Tensor], None]


def measure(steps: int = 12) -> dict[str, float]:
    """Rows per second and their ratios, at 1 and at 10 million features."""
    bound, forward_bound = _mlp_alone(steps)
    million = _training(1_000_000, steps)
    ten_million = _training(10_000_000, steps)
    return {
        "mlp_rows_per_second": bound,
        "train_rows_per_second_1m": million["train"],
        "train_rows_per_second_10m": ten_million["train"],
        "train_ratio_1m": million["train"] / bound,
        "train_10m_over_1m": ten_million["train"] / million["train"],
        "search_over_plain_1m": million["train"] / million["search"],
        "score_rows_per_second_1m": million["score"],
        "score_ratio": million["score"] / forward_bound,
        **_unified(1_000_000, steps),
    }


def _rate(step: Step, batches: list[tuple[Inputs, torch.Tensor]], steps: int) -> float:
    """Rows per second: the median over steps, the first two left out."""
    seconds = []
    for inputs, labels in islice(cycle(batches), steps + 2):
        started = time.perf_counter()
        step(inputs, labels)
        seconds.append(time.perf_counter() - started)
    return BATCH / float(np.median(seconds[2:]))


def _mlp_alone(steps: int) -> tuple[float, float]:
    torch.manual_seed(0)
    sizes = (FIELDS * DIM, *HIDDEN)
    layers = [m for a, b in pairwise(sizes) for m in (nn.Linear(a, b), nn.ReLU())]
    mlp = nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1))
    optimizer = torch.optim.Adam(mlp.parameters(), fused=True)
    ready = torch.randn(BATCH, FIELDS * DIM)
    nothing = Inputs(ready, None, ready, ready, ready)

    def step(inputs: Inputs, labels: torch.Tensor) -> None:
        optimizer.zero_grad()
        vectors = ready.detach().requires_grad_()
        F.binary_cross_entropy_with_logits(mlp(vectors).squeeze(1), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def forward(inputs: Inputs, labels: torch.Tensor) -> None:
        with torch.no_grad():
            mlp(ready)

    batches = [(nothing, torch.rand(BATCH).round())]
    return _rate(step, batches, steps), _rate(forward, batches, steps)


def _training(features: int, steps: int) -> dict[str, float]:
    torch.manual_seed(0)
    network = build(Architecture(rows=features + 1, fields=FIELDS, dim=DIM, backbone="deepfm", hidden=HIDDEN))
    batches = list(random_batches(features, 8))
    plain = _rate(_step(network), batches, steps)

    def forward(inputs: Inputs, labels: torch.Tensor) -> None:
        with torch.no_grad():
            network(inputs)

    score = _rate(forward, batches, steps)
    network.gate = SoftGate(features + 1)
    with tempfile.TemporaryDirectory() as folder:
        gates = EvidenceGates(
            network,
            Schedule(SEARCH_STEPS, SEARCH_STEPS // 3, 200.0),
            price=2.5,
            values=torch.ones(features, dtype=torch.bool),
            rate=1.0,
            rewind_epoch=0,
            folder=Path(folder),
        )
        search = _rate(_step(network, gates), batches, steps)
    return {"train": plain, "score": score, "search": search}


def _unified(features: int, steps: int) -> dict[str, float]:
    """Rows per second over those of a row for each feature, in turns: one table for all, of a tenth of the bytes.

    From ids, or from keys, to updated weights: looking up or computing where they are read is part of a step.
    """
    size = features // FIELDS
    counts = {f"field {number}": size for number in range(FIELDS)}
    shape = Architecture(rows=features + 1, fields=FIELDS, dim=DIM, backbone="deepfm", hidden=HIDDEN)
    placement = place(counts, shared=True, dim=shape.width, linear=shape.linear)
    keys = np.random.default_rng(0).integers(0, 1 << 63, features + 1, np.uint64)
    keys[0] = 0
    slots = np.arange(FIELDS)
    places = placement.places(keys, np.maximum(0, np.arange(features + 1) - 1) // size % FIELDS)
    hashed = replace(shape, rows=placement.rows, composition=placement.composition, lookups=placement.lookups)
    places_of: dict[str, Callable[[Ints], Ints | None]] = {
        "table": lambda ids: None,
        "unified": lambda ids: places[ids],
        "unified_hashed": lambda ids: placement.places(keys[ids], slots),
    }
    torch.manual_seed(0)
    networks = {"table": build(shape), "unified": build(hashed), "unified_hashed": build(hashed)}
    turns = {name: _step(network) for name, network in networks.items()}
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    batches = list(random_batches(features, 8))
    for inputs, labels in islice(cycle(batches), steps + 2):
        for name, step in turns.items():
            started = time.perf_counter()
            found = places_of[name](inputs.ids.numpy())
            step(inputs if found is None else inputs._replace(places=torch.from_numpy(found)), labels)
            seconds[name].append(time.perf_counter() - started)
    usual = float(np.median(seconds.pop("table")[2:]))
    return {f"{name}_over_table_1m": usual / float(np.median(times[2:])) for name, times in seconds.items()}


def _step(network: Network, gates: EvidenceGates | None = None) -> Step:
    tables = table_parameters(network)
    frozen = [] if network.gate is None else list(network.gate.parameters())
    optimizers = (LazyAdam(tables), torch.optim.Adam(dense_parameters(network, [*tables, *frozen])))

    def step(inputs: Inputs, labels: torch.Tensor) -> None:
        if gates:
            gates.before_step(inputs, labels, None, 0.5)
        for parameter in network.parameters():
            parameter.grad = None
        F.binary_cross_entropy_with_logits(network(inputs), labels).backward()  # type: ignore[no-untyped-call]
        if gates:
            gates.after_backward()
        for optimizer in optimizers:
            optimizer.step()

    return step


def random_batches(features: int, count: int) -> Iterator[tuple[Inputs, torch.Tensor]]:
    """Batches whose ids are skewed within each field, as in click logs."""
    generator = np.random.default_rng(0)
    size = features // FIELDS
    offsets = np.arange(FIELDS) * size + 1
    for _ in range(count):
        ids = (size * generator.random((BATCH, FIELDS)) ** 4).astype(np.int64) + offsets
        none = torch.zeros(0, dtype=torch.int64)
        inputs = Inputs(torch.from_numpy(ids), None, none, none, torch.zeros(BATCH, 0))
        yield inputs, torch.from_numpy(generator.integers(0, 2, BATCH).astype(np.float32))
