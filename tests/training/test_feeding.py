"""Rows held on a device are those that batches gather; on a GPU no step waits for it."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import ctr.training.fit as loop
from ctr.dataset.batches import Batches
from ctr.dataset.layout import Layout
from ctr.dataset.placement import place
from ctr.dataset.store import FieldInfo, Part
from ctr.training.feeding import Feed, feed, hold
from ctr.training.fit import fit
from ctr.training.optimizers import merged, shared
from ctr.training.predict import predict

CPU = torch.device("cpu")
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
# Features 0..9 of "a", 10..12 of "x" (scaled), 13..22 of "b", 23..25 of the vector field "v".
FIELDS = [
    FieldInfo("a", "categorical", 10, 0, False),
    FieldInfo("x", "numeric", 3, 10, True),
    FieldInfo("b", "categorical", 10, 13, False),
    FieldInfo("v", "vector", 3, 23, False, size=2),
]
VOCABULARY = pl.DataFrame({"field": ["a"] * 10 + ["x"] * 3 + ["b"] * 10 + ["v"] * 3}).with_columns(
    count=1, role=pl.lit("value"), value=pl.int_range(26).cast(pl.String)
)
KEYS = np.arange(26, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
DATASET = SimpleNamespace(
    fields=FIELDS, features=26, hashed=False, digest="", vocabulary=VOCABULARY, keys=KEYS, name="held"
)


def part_of(rows: int, weighted: bool = True) -> Part:
    draw = np.random.default_rng(rows)
    a, b = draw.integers(0, 10, (2, rows))
    own = np.stack([a, np.full(rows, 12), 13 + b, np.full(rows, 25)], 1)
    return Part(
        ids=own.astype(np.uint32),
        values=draw.random((rows, 4), np.float32),
        lists=[],
        labels=((a + b) % 2).astype(np.uint8),
        rows=np.arange(rows),
        true_probability=None,
        weights=draw.random(rows, np.float32) if weighted else None,
        vectors=draw.random((rows, 2), np.float32),
    )


def layouts() -> dict[str, Layout]:
    some = np.arange(1, 27)
    some[[3, 15]] = 0
    placement = place(
        {"a": 10, "x": 3, "b": 10, "v": 3}, composition="lookup", shared=True, dim=4, linear=1, rows=12
    )
    return {
        "all": Layout(DATASET),
        "some values": Layout(DATASET, some),
        "some fields": Layout(DATASET, None, ["x", "b"]),
        "no vector": Layout(DATASET, None, ["a", "b"]),
        "hashed rows": Layout(DATASET, placement=placement),
    }


def same(one, other) -> None:
    assert one.rows == other.rows
    assert one.weight == pytest.approx(other.weight)
    pairs = [(one.labels, other.labels), (one.weights, other.weights)]
    for mine, theirs in [*pairs, *zip(one.inputs, other.inputs, strict=True)]:
        assert (mine is None) == (theirs is None)
        assert mine is None or (mine.dtype == theirs.dtype and torch.equal(mine, theirs))


@pytest.mark.parametrize("name", layouts())
@pytest.mark.parametrize("weighted", [False, True])
def test_held_rows_are_those_that_are_gathered(name, weighted):
    batches = Batches(part_of(50, weighted), layouts()[name], 8, seed=3)
    held = hold(batches, CPU, 1e9)
    assert held is not None
    for number, start in ((0, 0), (2, 3)):
        pairs = list(
            zip(
                Feed(batches, CPU, held).epoch(number, start),
                Feed(batches, CPU).epoch(number, start),
                strict=True,
            )
        )
        assert len(pairs) == 7 - start
        for one, other in pairs:
            same(one, other)


def test_what_does_not_fit_or_has_lists_is_gathered(batches):
    own = Batches(part_of(50), layouts()["all"], 8)
    assert hold(own, CPU, 100) is None
    assert hold(Batches(part_of(50), layouts()["all"], 8), CPU, 50 * (4 * 4 + 4 * 4 + 2 * 4 + 1 + 4) + 4 * 26)
    train, _ = batches()
    assert hold(train, CPU, 1e9) is None
    assert feed(own, CPU).held is None  # they are in memory already


def test_a_training_on_held_rows_is_the_same(fresh, settings, tmp_path, monkeypatch):
    def trained(name: str):
        batches = Batches(part_of(200), layouts()["some fields"], 32, seed=1)
        network = fresh(fields=2, rows=27)
        valid = Batches(batches.part, batches.layout, 64)
        looks = fit(network, batches, valid, settings(epochs=2), folder=tmp_path / name).history
        return network.state_dict(), [replace(look, seconds=0.0, rows_per_second=0.0) for look in looks]

    gathered, looks = trained("gathered")
    kept = []
    monkeypatch.setattr(
        loop,
        "feed",
        lambda batches, device, reserved: (
            kept.append(Feed(batches, device, hold(batches, device, 1e9))) or kept[-1]
        ),
    )
    held, others = trained("held")
    assert len(kept) == 2
    assert all(feeding.held for feeding in kept)
    assert looks == others
    assert all(torch.equal(gathered[name], held[name]) for name in gathered)


def test_predictions_from_held_rows_are_the_same(fresh):
    batches = Batches(part_of(70), layouts()["some fields"], 32)
    network = fresh(fields=2, rows=27)
    assert np.array_equal(predict(network, batches), predict(network, batches, hold(batches, CPU, 1e9)))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40))
@hypothesis_settings(max_examples=60, deadline=None)
def test_rows_that_come_twice_share_what_they_add_up_to(rows):
    ids = torch.tensor(rows)
    values = torch.randn(len(rows), 3, generator=torch.Generator().manual_seed(0))
    gradient = torch.sparse_coo_tensor(ids[None], values, (10, 3), check_invariants=True)
    found, sums = shared(gradient, torch.full((10,), -1, dtype=torch.int32))
    assert sorted(found.tolist()) == sorted(rows)
    once, expected = merged(gradient)
    where = {int(row): number for number, row in enumerate(once)}
    for row, total in zip(found.tolist(), sums, strict=True):
        torch.testing.assert_close(total, expected[where[row]])


@GPU
@pytest.mark.parametrize("hold_rows", [False, True])
def test_no_step_waits_for_a_gpu(fresh, settings, tmp_path, monkeypatch, hold_rows):
    batches = Batches(part_of(4096), layouts()["some fields"], 64, seed=1)
    network = fresh(fields=2, rows=27).cuda()
    if not hold_rows:
        monkeypatch.setattr(loop, "feed", lambda batches, device, reserved: Feed(batches, device))
    train = loop._Loop._train

    def watched(self, batch):
        torch.cuda.set_sync_debug_mode("error")
        try:
            train(self, batch)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(loop._Loop, "_train", watched)
    fit(network, batches, None, settings(device="cuda"), folder=tmp_path, steps=100)


@GPU
def test_a_gpu_learns_what_a_cpu_learns(fresh, settings, tmp_path):
    def trained(device: str):
        batches = Batches(part_of(2000), layouts()["some fields"], 64, seed=1)
        network = fresh(fields=2, rows=27).to(device)
        fit(network, batches, None, settings(device=device), folder=tmp_path / device, steps=60)
        return predict(network, Batches(batches.part, batches.layout, 512))

    assert np.allclose(trained("cpu"), trained("cuda"), atol=1e-3)
