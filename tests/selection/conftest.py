"""Small datasets, networks and searches that tests of selection share."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pytest
import torch

from ctr.config import SelectorConfig, Training
from ctr.dataset.batches import Batches
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.ingest import ingest
from ctr.dataset.layout import Layout
from ctr.dataset.schema import Schema
from ctr.dataset.store import Dataset
from ctr.network.network import Architecture, Network, build
from ctr.selection import optfs
from ctr.settings import check
from ctr.training.looks import Look

SPLIT = {"by": "random", "seed": 1, "valid": 0.15, "test": 0.15}


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def make_dataset(tmp_path_factory):
    """A dataset of a frame: parquet in, random split; `fields` as in a schema."""

    def encode(frame: pl.DataFrame, fields: list[dict], encoding: str = "vocabulary", **keys) -> Dataset:
        folder = tmp_path_factory.mktemp("log")
        frame.write_parquet(folder / "log.parquet")
        content = {"name": "log", "label": "click", "read": {"format": "parquet"}, "split": SPLIT, **keys}
        schema = check({**content, "fields": fields}, Schema, "schema")
        return Dataset(ingest(schema, folder / "log.parquet", folder, encoding=encoding))

    return encode


def mixed_log(rows: int = 600) -> pl.DataFrame:
    """Every kind of column: categories, a number with gaps, two lists with repeated and absent values."""
    draw = np.random.default_rng(3)
    user, item = draw.integers(0, 12, rows), draw.integers(0, 5, rows)
    price = draw.normal(20.0, 5.0, rows)
    lists = [[list("abcdefg")[n] for n in draw.integers(0, 7, size)] for size in draw.integers(0, 5, rows)]
    words = [[f"w{n}" for n in draw.integers(0, 9, size)] for size in draw.integers(0, 4, rows)]
    return pl.DataFrame(
        {
            "click": (draw.random(rows) < 0.2 + 0.1 * (user % 6)).astype(int),
            "tags": ["|".join(entry) for entry in lists],
            "user": [f"u{n}" if n else None for n in user],
            "price": [None if n % 7 == 0 else float(p) for n, p in enumerate(price)],
            "item": [f"i{n}" for n in item],
            "words": ["|".join(entry) for entry in words],
            "day": [f"d{n}" for n in draw.integers(0, 3, rows)],
            "seen": [[f"i{n}" for n in draw.integers(0, 6, size)] for size in draw.integers(0, 4, rows)],
            "picture": [draw.normal(size=3).tolist() if n % 5 else None for n in range(rows)],
            "before": [f"i{n}" for n in draw.integers(0, 7, rows)],
        }
    )


# A list field stands before and between the others on purpose: fields are fed single-valued ones first.
MIXED_FIELDS = [
    {"name": "tags", "kind": "list", "separator": "|"},
    {"name": "user", "kind": "categorical"},
    {"name": "price", "kind": "numeric", "transform": "standard"},
    {"name": "item", "kind": "categorical"},
    {"name": "words", "kind": "list", "separator": "|", "min_count": 2, "pooling": "sum"},
    {"name": "day", "kind": "categorical"},
    {"name": "seen", "kind": "list", "shares": "item", "pooling": "max"},
    {"name": "picture", "kind": "vector", "size": 3},
    {"name": "before", "shares": "item"},
]


@pytest.fixture(scope="session")
def mixed(make_dataset) -> Dataset:
    """600 rows with every kind of field; some unknown and missing features are in no train row."""
    return make_dataset(mixed_log(), MIXED_FIELDS)


def planted_log(rows: int = 6000, effect: float = 1.2) -> pl.DataFrame:
    """Values of `useful` shift the logit by `effect` either way; those of `noise` (60) and `other` (30) by nothing."""
    draw = np.random.default_rng(11)
    useful = draw.integers(0, 8, rows)
    logit = np.where(useful % 2, effect, -effect)
    return pl.DataFrame(
        {
            "click": (draw.random(rows) < 1 / (1 + np.exp(-logit))).astype(int),
            "useful": [f"v{n}" for n in useful],
            "noise": [f"n{n}" for n in draw.integers(0, 60, rows)],
            "other": [f"o{n}" for n in draw.integers(0, 30, rows)],
        }
    )


PLANTED_FIELDS = [{"name": name} for name in ("useful", "noise", "other")]


@pytest.fixture(scope="session")
def planted(make_dataset) -> Dataset:
    """6000 rows, one useful field of 8 values and 90 values of noise."""
    return make_dataset(planted_log(), PLANTED_FIELDS)


@pytest.fixture(scope="session")
def keyed_mixed(make_dataset) -> Dataset:
    """`mixed` without a vocabulary."""
    return make_dataset(mixed_log(), MIXED_FIELDS, encoding="hashed")


@pytest.fixture(scope="session")
def keyed_planted(make_dataset) -> Dataset:
    """`planted` without a vocabulary."""
    return make_dataset(planted_log(), PLANTED_FIELDS, encoding="hashed")


@pytest.fixture
def make_network():
    """A network over all features of a dataset, with weights large enough for logits to differ."""

    def construct(dataset: Dataset, backbone: str = "deepfm", seed: int = 0, **keys) -> Network:
        torch.manual_seed(seed)
        layout = Layout(dataset)
        settings = {"dim": 4, "hidden": (8,), "init_scale": 0.5, **keys}
        settings |= {"pooling": layout.pooling, "vectors": layout.vectors}
        network = build(
            Architecture(rows=layout.rows, fields=len(layout.fields), backbone=backbone, **settings)
        )
        if network.linear:
            torch.nn.init.normal_(network.table.weight[1:, -1].data, std=0.5)
            network.bias.data.fill_(-0.3)
        return network

    return construct


class Found(NamedTuple):
    """A search and what was chosen after it."""

    feature_set: FeatureSet
    network: Network
    history: list[Look]
    evidence: np.ndarray


@pytest.fixture
def run_search(tmp_path):
    """Runs a whole OptFS search on a dataset; settings by keyword."""

    def run(
        dataset: Dataset,
        backbone: str = "deepfm",
        *,
        ratio: float | None = None,
        penalty: float | None = None,
        folder: Path | None = None,
        batch_size: int = 256,
        watcher=None,
        norm: str = "none",
        seed: int = 0,
        **settings,
    ) -> Found:
        torch.manual_seed(seed)
        layout = Layout(dataset)
        network = build(
            Architecture(
                rows=layout.rows,
                fields=len(layout.fields),
                dim=4,
                hidden=(16,),
                backbone=backbone,
                norm=norm,
                pooling=layout.pooling,
                vectors=layout.vectors,
            )
        )
        found = optfs.search(
            network,
            dataset,
            Batches(dataset.part("train"), layout, batch_size, seed),
            Batches(dataset.part("valid"), layout, 1024),
            SelectorConfig(**{"epochs": 3, **settings}),
            Training(batch_size=batch_size, learning_rate=1e-2),
            price=optfs.DEFAULT_PRICE if penalty is None else penalty,
            folder=folder or tmp_path / f"search-{len(list(tmp_path.iterdir()))}",
            watcher=watcher,
        )
        return Found(
            optfs.choose(found, dataset, dataset.part("valid"), ratio),
            found.network,
            found.history,
            found.evidence,
        )

    return run


def kept_values(feature_set, field: str) -> set[str]:
    """Vocabulary values of `field` that are kept."""
    rows = feature_set.features.filter(pl.col("role") == "value", pl.col("field") == field, "kept")
    return set(rows["value"])
