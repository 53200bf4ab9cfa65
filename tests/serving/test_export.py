import json

import numpy as np
import polars as pl
import pytest
import torch

from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.ingest import ingest
from ctr.dataset.schema import Schema
from ctr.dataset.store import Dataset
from ctr.errors import CtrError
from ctr.network.gates import HardGate
from ctr.selection.compaction import compact_layout
from ctr.serving.bundle import Bundle
from ctr.serving.scorer import Scorer
from ctr.settings import check
from tests.serving.conftest import everything


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_the_same_network_gives_the_same_bytes(train, bundle, tmp_path):
    again = train(share=0.7).export(tmp_path / "again")
    assert contents(again) == contents(bundle)


def test_a_compact_bundle_is_smaller_by_what_was_dropped(train, tmp_path):
    full, compact = train("fm"), train("fm", 0.3)
    sizes = [Bundle.open(t.export(tmp_path / f"{n}")).bytes for n, t in enumerate((full, compact))]
    rows = [len(Bundle.open(tmp_path / f"{n}").vocabulary()) for n in range(2)]
    assert rows == [full.dataset.features, int(compact.feature_set.kept.sum())]
    assert sizes[1] < sizes[0]


def test_an_earlier_bundle_is_replaced_and_nothing_else_is_left(train, tmp_path):
    train("lr").export(tmp_path / "bundle")
    train("fm", 0.5).export(tmp_path / "bundle")
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert Bundle.open(tmp_path / "bundle").manifest.architecture["backbone"] == "fm"


def test_the_manifest_says_where_the_bundle_comes_from(train, tmp_path):
    trained = train(share=0.5)
    manifest = json.loads((trained.export(tmp_path / "bundle") / "manifest.json").read_text())
    assert manifest["dataset"] == trained.dataset.digest
    assert manifest["feature_set"] == trained.feature_set.digest()
    assert manifest["features"] == trained.feature_set.counts()
    assert manifest["metrics"] == {"test": {"auc": 0.75}}
    assert manifest["provenance"] == {"seed": 0}
    packages = {"polars", "polars-hash", "numpy", "safetensors", "torch", "onnx", "onnxruntime"}
    assert set(manifest["versions"]) == {"ctr", *packages}
    assert str(tmp_path) not in "".join(map(str, manifest.values()))


def test_golden_rows_are_the_first_raw_rows(log, bundle):
    golden = Bundle.open(bundle).golden()
    assert golden.height == 200
    needed = golden.drop("@probability")
    assert needed.equals(log[1].head(200).select(needed.columns))


def test_golden_rows_are_later_ones_where_the_first_break_the_schema(train, tmp_path):
    prices = ["a lot"] * 250 + [str(number % 9) for number in range(150)]
    log = pl.DataFrame(
        {"click": ["0", "1"] * 200, "price": prices, "shop": [f"s{n % 5}" for n in range(400)]}
    )
    log.write_csv(tmp_path / "log.csv")
    keys = {
        "name": "late", "label": "click", "split": {"by": "random", "valid": 0.2, "test": 0.2},
        "read": {"max_bad_rows": 0.9},
        "fields": [{"name": "price", "kind": "numeric", "transform": "minmax"}, {"name": "shop"}],
    }  # fmt: skip
    dataset = Dataset(ingest(check(keys, Schema, "schema"), tmp_path / "log.csv", tmp_path / "datasets"))
    folder = train(dataset=dataset, source=tmp_path / "log.csv").export(tmp_path / "bundle")
    golden = Bundle.open(folder).golden()
    assert golden["price"].to_list() == prices[200:400]
    assert golden["@probability"].null_count() == 50


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_broken_network_is_not_exported(train, tmp_path, value):
    trained = train()
    trained.network.bias.data[:] = value
    with pytest.raises(CtrError, match='"bias" hold NaN or infinity'):
        trained.export(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_gated_network_is_not_exported(train, tmp_path):
    trained = train()
    trained.network.gate = HardGate(torch.ones(trained.layout.rows))
    with pytest.raises(CtrError, match="compact it first"):
        trained.export(tmp_path / "bundle")


def test_an_unknown_that_would_stand_for_dropped_values_is_not_exported(train, tmp_path):
    trained = train()
    kept = np.ones(trained.dataset.features, np.bool_)
    kept[3] = False  # the field's unknown is kept: in a bundle the value would read its row
    trained.layout = compact_layout(
        trained.dataset, FeatureSet(trained.dataset.vocabulary.with_columns(pl.Series("kept", kept)), {})
    )
    with pytest.raises(CtrError, match='field "user" keeps its unknown but drops values'):
        trained.export(tmp_path / "bundle")


def test_a_fault_in_the_bundle_stops_the_export(train, tmp_path):
    trained = train("fm", 0.5)
    trained.architecture = train("fnn", 0.5).architecture
    with pytest.raises(CtrError, match="do not fit"):
        trained.export(tmp_path / "bundle")
    assert list(tmp_path.iterdir()) == []


def test_a_log_given_as_three_files_has_golden_rows_from_train(log, train, tmp_path):
    folder, frame, _ = log
    for number, part in enumerate(("train", "valid", "test")):
        frame.slice(200 * number, 200).write_csv(tmp_path / f"{part}-0.csv")
    split = {"by": "files", "train": "train-*.csv", "valid": "valid-*.csv", "test": "test-*.csv"}
    schema = check({**everything(folder), "split": split}, Schema, "schema")
    dataset = Dataset(ingest(schema, tmp_path, tmp_path / "datasets"))
    scorer = Scorer(train(dataset=dataset, source=tmp_path).export(tmp_path / "bundle"))
    assert scorer.bundle.golden()["user"].to_list() == frame["user"].head(200).to_list()


def test_a_folder_that_cannot_be_written_is_named(train, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CtrError, match=r'bundle ".*": cannot be written'):
        train("lr").export(tmp_path / "file" / "bundle")
