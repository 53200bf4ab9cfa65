"""A small log with every kind of field, datasets and bundles made of it, and networks with loud random weights."""

import random
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.ingest import ingest
from ctr.dataset.kept_values import KeptValues
from ctr.dataset.layout import Layout
from ctr.dataset.placement import place
from ctr.dataset.schema import Schema
from ctr.dataset.store import Dataset
from ctr.network.embeddings import Table
from ctr.network.network import Architecture, build, build_table
from ctr.selection.compaction import (
    compact_architecture,
    compact_layout,
    compact_network,
    compact_placement,
    feature_counts,
)
from ctr.serving.export import export_bundle
from ctr.settings import check

ROWS = 600
TRAINED = {"trained_on": ["train"], "steps": 1, "window": None, "metrics": {"test": {"auc": 0.75}}}
FIELDS = [
    {"name": "user", "min_count": 3},
    {"name": "item"},
    {"name": "price", "kind": "numeric", "transform": "minmax"},
    {"name": "age", "kind": "numeric", "transform": "standard"},
    {"name": "income", "kind": "numeric", "transform": "quantile", "bins": 5},
    {"name": "visits", "kind": "numeric", "transform": "log_square"},
    {"name": "tags", "kind": "list", "separator": "|", "min_count": 4},
    {"name": "words", "kind": "list", "separator": " "},
    {"name": "hour"},
    {"name": "brand"},
    {"name": "weight", "kind": "numeric", "transform": "standard"},
    {"name": "country"},
    {"name": "liked", "shares": "item"},
    {"name": "basket", "kind": "list", "separator": "|", "shares": "item", "max_length": 3, "pooling": "max"},
    {"name": "topics", "kind": "list", "separator": "|", "pooling": "sum", "missing_values": ["none", -1]},
    {"name": "picture", "kind": "vector", "size": 3, "separator": " "},
    {"name": "sound", "kind": "vector", "size": 2, "separator": ";"},
    {"name": "position", "role": "bias", "serve_value": 1},
    {"name": "scroll", "kind": "numeric", "transform": "minmax", "role": "bias", "serve_value": 0.5},
    {"name": "shop", "keep": "always", "missing_values": [-1, "?"]},
]


def everything(folder) -> dict:
    """Keys of a schema that uses all there is: derived columns, chained joins, a row filter, a computed label."""
    return {
        "name": "log",
        "label": "rating >= 4",
        "weight": "1 + rating % 2",
        "negative_keep_rate": 0.25,
        "row_id": "noise",
        "missing_values": ["n/a"],
        "where": "rating <> 3",
        "derive": {"hour": "seconds / 3600 % 24", "unused": "rating * 2"},
        "read": {"format": "csv", "max_bad_rows": 0.05},
        "split": {"by": "time", "column": "seconds", "valid": 0.2, "test": 0.2},
        "fields": FIELDS,
        "joins": [
            {"input": str(folder / "items.csv"), "on": "item"},
            {"input": str(folder / "brands.csv"), "on": "brand"},
            {"input": str(folder / "users.csv"), "on": "user"},
        ],
    }


def write_log(folder) -> pl.DataFrame:
    """600 rows: missing values everywhere, rare and late users, items and tags; the log as text, as a csv gives it."""
    draw = random.Random(7)
    rows = []
    for number in range(ROWS):
        late = number > 350
        rows.append(
            {
                "seconds": str(number * 977),
                "rating": str(draw.randint(1, 5)),
                "user": draw.choice(["", *(f"u{n}" for n in range(30 + 30 * late))]),
                "item": f"i{draw.randrange(12 + 6 * late)}",
                "price": draw.choice(["", str(draw.randrange(100)), f"{draw.uniform(-3, 90):.3f}"]),
                "age": draw.choice(["", "NaN", str(draw.randint(18, 80))]),
                "income": draw.choice(["", f"{draw.lognormvariate(3, 1):.2f}"]),
                "visits": draw.choice(["", "-1", "0", "1", "2", str(draw.randrange(3, 10_000))]),
                "tags": "|".join(draw.choices("abcdefghij" if late else "abcdef", k=draw.randint(0, 4))),
                "words": " ".join(draw.choices(["red", "blue", "green"], k=draw.randint(0, 3))),
                "noise": str(number),
                "liked": draw.choice(["", f"i{draw.randrange(20)}"]),
                "basket": "|".join(f"i{draw.randrange(16)}" for _ in range(draw.randint(0, 6))),
                "topics": "|".join(draw.choices(["x", "y", "z", "none", "-1"], k=draw.randint(0, 3))),
                "picture": draw.choice(["", " ".join(f"{draw.gauss(0, 9):.3f}" for _ in range(3))]),
                "sound": f"{draw.random()};{draw.randint(-4, 4)}",
                "position": str(draw.randint(1, 4)),
                "scroll": draw.choice(["", f"{draw.uniform(0, 2):.2f}"]),
                "shop": draw.choice(["-1", "-1.0", "?", "n/a", "7", "8", "9"]),
            }
        )
    log = pl.DataFrame(rows)
    log = log.with_columns(pl.all().replace("", None))
    log.write_csv(folder / "log.csv")
    (folder / "items.csv").write_text(
        "item,brand,weight,colour\n" + "".join(f"i{n},b{n % 4},{n * 1.5},red\n" for n in range(15))
    )
    (folder / "brands.csv").write_text("brand,country\nb0,fr\nb1,de\nb2,\n")
    (folder / "users.csv").write_text("user,city\nu1,Rome\nu2,Oslo\n")
    return log


def loud(network, seed=0):
    """Random weights large enough that a wrong row shows in the probability; statistics of norms as well.

    Those of dense layers keep about the size of what they read: where logits of a hundred are sums of thousands,
    float32 has no sixth digit of a probability, whoever adds them up. What is the same for all rows stays small, so
    that rows tell apart.
    """
    torch.manual_seed(seed)
    tables = {module.weight for module in network.modules() if isinstance(module, Table)}
    for name, tensor in network.state_dict(keep_vars=True).items():
        if not tensor.is_floating_point():
            continue
        random_ = torch.randn_like(tensor)
        if tensor in tables:
            random_ *= 0.3
        elif name.endswith("bias"):
            random_ *= 0.1
        elif tensor.ndim > 1 and not name.endswith("norm_weight"):
            random_ *= 1.6 * tensor.shape[-1] ** -0.5
        elif name.endswith(("weight", "running_var", "slope")):
            random_ = 0.5 * random_.abs() + 0.5
        else:
            random_ *= 0.5
        tensor.data.copy_(random_)
    for table in tables:
        table.data[0] = 0.0
    return network.eval()


def some_of(dataset, share, seed=0, reads="zero"):
    """A random feature set."""
    draw = np.random.default_rng(seed)
    kept = draw.random(dataset.features) < share
    found = FeatureSet.of(dataset, kept, draw.random(dataset.features), {"selector": "random"})
    return found if reads == "zero" else found.reading(dataset, reads)


class Trained:
    """A dataset with a network, as a job hands them to the export.

    placing: how `ctr.dataset.placement.place` is to hash features; None gives each a row of its own.
    feature_set: what is kept, instead of a random share.
    """

    def __init__(
        self,
        dataset,
        source,
        backbone="deepfm",
        share=None,
        seed=0,
        *,
        placing=None,
        reads="zero",
        feature_set=None,
        **architecture,
    ):
        self.dataset, self.source = dataset, source
        usual = Architecture(
            rows=0, fields=0, **{"dim": 4, "backbone": backbone, "hidden": (8, 4), **architecture}
        )
        placement = None
        if placing is not None:
            stated = {"dim": usual.width, "linear": usual.linear, **placing}
            placement = place(feature_counts(dataset), **stated)
        kept = None
        if dataset.hashed:
            kept = KeptValues.everything({info.shares or info.name for info in dataset.fields})
        self.layout = Layout(dataset, placement=placement, kept=kept)
        self.architecture = compact_architecture(usual, self.layout)
        self.network = loud(build(self.architecture))
        self.feature_set = feature_set if share is None else some_of(dataset, share, seed, reads)
        if self.feature_set is not None:
            if placement is not None:
                placement = compact_placement(placement, dataset, self.feature_set)
            self.layout = compact_layout(dataset, self.feature_set, placement)
            self.architecture = compact_architecture(self.architecture, self.layout)
            table = None if placement is None else loud(build_table(self.architecture))
            self.network = compact_network(self.network, dataset, self.feature_set, table)

    def export(self, folder, **keys):
        size = export_bundle(
            folder,
            dataset=self.dataset,
            source=self.source,
            network=self.network,
            architecture=self.architecture,
            layout=self.layout,
            feature_set=self.feature_set,
            metrics={"test": {"auc": 0.75}},
            model={"refit": "none", "evaluated": TRAINED, "shipped": TRAINED},
            provenance={"seed": 0},
            **keys,
        )
        assert size == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        return folder


@pytest.fixture(scope="session")
def log(tmp_path_factory):
    """Folder, text frame and dataset of the log with everything."""
    folder = tmp_path_factory.mktemp("everything")
    frame = write_log(folder)
    schema = check(everything(folder), Schema, "schema")
    dataset = Dataset(ingest(schema, folder / "log.csv", folder / "datasets"))
    return folder, frame, dataset


@pytest.fixture(scope="session")
def keyed(log):
    """The dataset of the log with everything, without a vocabulary."""
    folder, _, dataset = log
    return Dataset(ingest(dataset.schema, folder / "log.csv", folder / "datasets", encoding="hashed"))


@pytest.fixture(scope="session")
def bundle(log):
    """A compact bundle of the log with everything; read only."""
    folder, _, dataset = log
    return Trained(dataset, folder / "log.csv", share=0.7).export(folder / "bundle")


@pytest.fixture
def train(log):
    """Builds a `Trained`; unless said otherwise on the log with everything."""
    folder, _, usual = log

    def build(backbone="deepfm", share=None, *, dataset=None, source=None, **keys):
        return Trained(dataset or usual, source or folder / "log.csv", backbone, share, **keys)

    return build


@pytest.fixture
def copied(bundle, tmp_path):
    """A bundle that a test may spoil."""
    return Path(shutil.copytree(bundle, tmp_path / "copied"))
