"""Steps of every network and every search run on a device whose numbers the host cannot see: no step waits for one.

A GPU is not needed. What is checked is which operators run on what (`tests.training.device_watch`); not their speed,
and not that CUDA runs them.
"""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.optim import Adam

from ctr.dataset.batches import Batches
from ctr.network.backbones import BACKBONES
from ctr.network.crosses import CrossIndex, PairLayout
from ctr.network.embeddings import Inputs
from ctr.network.gates import FieldGate, HardGate, SoftGate
from ctr.network.hashed_tables import COMPOSITIONS
from ctr.network.network import Architecture, Network, build
from ctr.selection import pair_evidence
from ctr.selection.evidence import EvidenceGates, Schedule
from ctr.selection.pair_choice import ChoiceTraining
from ctr.selection.pair_evidence import DrawnPaths
from ctr.training import feeding
from ctr.training.feeding import Fed, Feed, hold
from ctr.training.fit import _Loop
from tests.training.device_watch import DEVICE, DeviceWatch
from tests.training.test_feeding import layouts, part_of

CPU = torch.device("cpu")
B, ROWS, VALUES = 16, 30, 40  # rows of a batch, of a table, values in its lists
# Three single-valued fields, the second of them of vectors, and two lists.
NETWORK = Architecture(
    rows=ROWS, fields=5, dim=4, hidden=(8, 8), dropout=0.1, pooling=("mean", "max"), vectors=((1, 3),)
)
PLAIN = Architecture(
    rows=ROWS, fields=3, dim=4, hidden=(8, 8, 8)
)  # as in docs/speed.md: without any of these
PAIRS = ((0, 1), (0, 2), (1, 2))
PAIRED = PairLayout(4, PAIRS, PAIRS, 20, True, ROWS, ((0, 0), (1, 0), (2, 0)))
# What a step starts on a GPU, at most: docs/speed.md says what follows.
STARTED = {"held batch": 4, "plain": 71, "search": 113}


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    """What a device without data cannot do: take rows of the host, and move all dense weights in one kernel."""

    def arrived(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
        if device == DEVICE:
            return torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
        return tensor

    for module in (feeding, pair_evidence):
        monkeypatch.setattr(module, "sent", arrived)
    monkeypatch.setattr(sys.modules[Adam.__module__], "_device_dtype_check_for_fused", lambda parameter: None)


def index(sketch: int = 0) -> CrossIndex:
    """What crosses are found by: their keys, or a sketch of them."""
    admitted = torch.arange(0 if sketch else 9)
    words, salts = torch.ones(ROWS, 4, dtype=torch.int32), torch.ones(len(PAIRS), 2, dtype=torch.int64)
    return CrossIndex(
        words, salts, admitted, torch.zeros(16, dtype=torch.int32), torch.zeros(2, sketch).byte()
    )


def batch(architecture: Architecture, device: torch.device, weighted: bool = False) -> Fed:
    """Random rows for a network."""
    single, lists = architecture.fields - len(architecture.pooling), len(architecture.pooling)
    draw = torch.Generator().manual_seed(0)
    hashed = {"lookup": 2, "robe": 2, "multi_hash": 3, "quotient_remainder": 2}.get(architecture.composition)
    count = VALUES if lists else 0

    def numbers(*shape: int) -> torch.Tensor:
        return torch.randint(0, ROWS, shape, generator=draw).to(device)

    inputs = Inputs(
        ids=numbers(B, single),
        values=torch.rand(B, single, generator=draw).to(device) if lists else None,
        list_ids=numbers(count),
        list_slots=(torch.arange(count) % max(1, B * lists)).to(device),  # no list is empty
        list_lengths=torch.ones(B, lists, device=device),
        vectors=torch.rand(B, 3, generator=draw).to(device) if architecture.vectors else None,
        places=numbers(B, single, hashed) if hashed else None,
        list_places=numbers(count, hashed) if hashed else None,
    )
    weights = torch.rand(B, generator=draw).to(device) if weighted else None
    return Fed(inputs, torch.rand(B, generator=draw).round().to(device), weights, B, float(B))


def stepping(network: Network, settings, tmp_path, companion=None) -> _Loop:
    """A training that is under way."""
    batches = Batches(part_of(50), layouts()["all"], 8, seed=1)
    return _Loop(network, batches, None, settings, tmp_path, 100, (), companion, None)


def started(network: Network, fed: Fed, settings, tmp_path, companion=None) -> list[str]:
    """What the second step starts on the device; the first one makes what optimizers keep."""
    loop = stepping(network, settings, tmp_path, companion)
    loop._train(fed)
    with DeviceWatch() as watch:
        loop._train(fed)
    return watch.started


def gated(network: Network, grain: str, tmp_path) -> EvidenceGates:
    """A search, by value or by field, with some gates that are ruled."""
    fields = torch.arange(ROWS) % 3
    network.gate = (SoftGate(ROWS) if grain == "value" else FieldGate(fields)).to(network.device)
    gates = len(network.gate.logits) - 1
    always, never = torch.arange(gates) == 0, torch.arange(gates) == 1
    schedule = Schedule(100, 10, 10.0)
    rules = {"values": torch.ones(gates, dtype=torch.bool), "always": always, "never": never}
    return EvidenceGates(network, schedule, price=2.5, rate=1.0, rewind_epoch=9.0, folder=tmp_path, **rules)


@pytest.mark.parametrize(("search", "weighted"), [("none", True), ("value", False), ("field", True)])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_no_step_of_a_backbone_waits(backbone, search, weighted, settings, tmp_path):
    architecture = replace(NETWORK, backbone=backbone, norm="layer" if weighted else "batch")
    network = build(architecture).to(DEVICE)
    gates = None if search == "none" else gated(network, search, tmp_path)
    fed = batch(architecture, DEVICE, weighted)
    assert "index_copy_" in started(network, fed, settings(weight_decay=0.1), tmp_path, gates)


def hashed(composition: str) -> Architecture:
    return replace(
        NETWORK, composition=composition, second_rows=ROWS, lookups=2, odd_lookups=((0, 1), (3, 1))
    )


@pytest.mark.parametrize("search", ["none", "value"])
@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_no_step_of_a_hashed_table_waits(composition, search, settings, tmp_path):
    network = build(hashed(composition)).to(DEVICE)
    gates = None if search == "none" else gated(network, search, tmp_path)
    assert started(network, batch(hashed(composition), DEVICE), settings(), tmp_path, gates)


COMPANIONS = {
    "retraining": lambda network: None,
    "on train rows": lambda network: ChoiceTraining(
        network, learning_rate=0.1, final_temperature=0.1, prices=torch.ones(len(PAIRS))
    ),
    "drawn": lambda network: DrawnPaths(network, 0),
    "drawn with naive": lambda network: DrawnPaths(network, 0, naive=True),
}


@pytest.mark.parametrize("companion", COMPANIONS)
@pytest.mark.parametrize(("composition", "sketch"), [("", 0), ("lookup", 8)])
def test_no_step_of_a_network_of_pairs_waits(companion, sketch, composition, settings, tmp_path):
    pairs = replace(PAIRED, searched=companion != "retraining")
    architecture = replace(PLAIN, pairs=pairs, composition=composition, lookups=2)
    network = build(architecture, index=index(sketch)).to(DEVICE)
    beside = COMPANIONS[companion](network)
    assert started(network, batch(architecture, DEVICE), settings(), tmp_path, beside)


@pytest.mark.parametrize("composition", ["", *COMPOSITIONS])
def test_no_prediction_waits(composition):
    architecture = hashed(composition) if composition else NETWORK
    network = build(architecture, HardGate(torch.arange(ROWS) > 3)).to(DEVICE).eval()
    fed = batch(architecture, DEVICE)
    with DeviceWatch() as watch, torch.no_grad():
        network(fed.inputs)
    assert watch.started


@pytest.mark.parametrize("name", layouts())
def test_held_rows_are_picked_and_gathered_ones_sent_without_waiting(name):
    batches = Batches(part_of(50), layouts()[name], 8, seed=3)
    held = hold(batches, DEVICE, 1e9)
    assert held is not None
    with DeviceWatch() as watch:
        held.batch(next(batches.order()))
        Feed(batches, DEVICE)._sent(next(batches.epoch()))
    assert watch.started


def test_what_a_step_starts_is_what_the_docs_say(settings, tmp_path):
    found = {}
    for name in ("plain", "search"):
        network = build(PLAIN).to(DEVICE)
        gates = gated(network, "value", tmp_path) if name == "search" else None
        if gates is not None:
            gates._rules = False  # as usual
        found[name] = len(started(network, batch(PLAIN, DEVICE), settings(), tmp_path, gates))
    batches = Batches(part_of(50, weighted=False), layouts()["no vector"], 8)
    held = hold(batches, DEVICE, 1e9)
    with DeviceWatch() as watch:
        held.batch(np.arange(8))
    found["held batch"] = len(watch.started)
    assert found == STARTED


class Wrong:
    """A companion that does after each step what it must not."""

    def __init__(self, network: Network, wrong) -> None:
        self._network, self._wrong = network, wrong

    def before_step(self, inputs, labels, weights, progress) -> None:
        self._labels = labels

    def after_backward(self) -> None:
        self._wrong(self._network.table.weight, self._labels)


WRONG = {
    "a number": lambda table, labels: labels.sum().item(),
    "a truth": lambda table, labels: bool((labels > 0).any()),
    "a choice by truth": lambda table, labels: labels[labels > 0],
    "different rows": lambda table, labels: labels.unique(),
    "a count": lambda table, labels: labels.long().bincount(),
    "a sum of equals": lambda table, labels: table.grad.coalesce(),
    "a comparison": lambda table, labels: torch.equal(labels, labels),
    "a copy to the host": lambda table, labels: labels.cpu(),
    "a copy from the host": lambda table, labels: torch.ones(B).to(labels.device),
    "a tensor of the host": lambda table, labels: labels * torch.ones(B),
    "rows told on the host": lambda table, labels: table[torch.ones(B, dtype=torch.int64)],
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_step_that_asks_for_something_is_found_out(wrong, settings, tmp_path):
    network = build(PLAIN).to(DEVICE)
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)):
        started(network, batch(PLAIN, DEVICE), settings(), tmp_path, Wrong(network, WRONG[wrong]))


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("composition", ["", *COMPOSITIONS])
def test_a_search_in_any_precision_moves_float32_weights(composition, precision, settings, tmp_path):
    architecture = hashed(composition) if composition else NETWORK
    network = build(architecture)
    loop = stepping(network, settings(precision=precision), tmp_path, gated(network, "value", tmp_path))
    for _ in range(2):
        loop._train(batch(architecture, CPU, weighted=True))
    assert all(weights.dtype == torch.float32 for weights in network.parameters())
    assert all(weights.isfinite().all() for weights in network.parameters())
    assert torch.get_float32_matmul_precision() == "highest"
