"""A small planted log, and fresh networks over it, for tests of training."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ctr.config import Training
from ctr.dataset.batches import Batches
from ctr.dataset.layout import Layout
from ctr.dataset.store import FieldInfo, Part
from ctr.network.network import Architecture, Network, build

SIDE = 8  # values of the fields a and b
# Features 0..7 of "a", 8..15 of "b", 16..18 of "x" (scaled), 19..24 of the list "l".
FIELDS = [
    FieldInfo("a", "categorical", SIDE, 0, False),
    FieldInfo("b", "categorical", SIDE, SIDE, False),
    FieldInfo("x", "numeric", 3, 2 * SIDE, True),
    FieldInfo("l", "list", 6, 2 * SIDE + 3, False),
]
DATASET = SimpleNamespace(fields=FIELDS, features=2 * SIDE + 9, hashed=False, digest="")


def checkerboard(rows: int, seed: int) -> Part:
    """a and b colour a checkerboard: 95 % of black squares are clicked and 5 % of white ones. x and l mean nothing."""
    draw = np.random.default_rng(seed)
    a, b = draw.integers(0, SIDE, (2, rows))
    lengths = draw.integers(0, 4, rows)
    return Part(
        ids=np.stack([a, SIDE + b, np.full(rows, 2 * SIDE + 2)], 1).astype(np.int32),
        values=np.stack([np.ones(rows), np.ones(rows), draw.normal(size=rows)], 1).astype(np.float32),
        lists=[(draw.integers(19, 25, lengths.sum()).astype(np.int32), np.cumsum([0, *lengths]))],
        labels=((a + b) % 2 == (draw.random(rows) < 0.95)).astype(np.uint8),
        rows=np.arange(rows),
        true_probability=None,
    )


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def batches() -> Callable[..., tuple[Batches, Batches]]:
    """Batches of train and valid."""

    def make(rows: int = 400, batch_size: int = 64, seed: int = 3) -> tuple[Batches, Batches]:
        layout = Layout(DATASET)
        train = Batches(checkerboard(rows, 1), layout, batch_size, seed)
        return train, Batches(checkerboard(300, 2), layout, 128)

    return make


@pytest.fixture
def fresh() -> Callable[..., Network]:
    """A network with first weights drawn from a seed, which dropout then goes on with."""

    def make(backbone: str = "deepfm", seed: int = 0, **keys) -> Network:
        torch.manual_seed(seed)
        sizes = {"rows": DATASET.features + 1, "fields": len(FIELDS), "dim": 4, "hidden": (8,)}
        return build(Architecture(backbone=backbone, **{**sizes, "init_scale": 0.1, **keys}))

    return make


@pytest.fixture
def settings() -> Callable[..., Training]:
    """Settings of a short training."""

    def make(**keys) -> Training:
        usual = {"epochs": 4, "learning_rate": 0.01, "patience": 10.0, "device": "cpu"}
        return Training(**{**usual, "eval_every": 1000, **keys})  # one look an epoch, unless said otherwise

    return make
