"""Evaluation of logs with everything: bias fields, weights, sampled negatives, joins, `where`, derived columns."""

import io

import numpy as np
import polars as pl
import pytest
from rich.console import Console

import ctr.jobs.evaluate as job
from ctr.dataset.batches import Batches
from ctr.dataset.ingest import ingest
from ctr.dataset.schema import Schema
from ctr.dataset.store import Dataset
from ctr.errors import ConfigError
from ctr.evaluation.metrics import measure
from ctr.evaluation.sampling import row_weights
from ctr.jobs.evaluation_settings import evaluation_settings
from ctr.settings import check
from ctr.training.predict import predict
from tests.serving.conftest import Trained, everything, write_log


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Folder and raw rows of the log with everything, its datasets with and without a vocabulary."""
    folder = tmp_path_factory.mktemp("everything")
    frame = write_log(folder)
    schema = check(everything(folder), Schema, "schema")
    kinds = ("vocabulary", "hashed")
    made = {
        kind: Dataset(ingest(schema, folder / "log.csv", folder / "datasets", encoding=kind))
        for kind in kinds
    }
    return folder, frame, made


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(job, "write_evaluation", lambda report, out: None)


def evaluated(models, data, **keys):
    given = {
        "models": [str(m) for m in models],
        "data": [str(d) for d in data],
        "out": "out",
        "tracking": "none",
    }
    return job.evaluate(evaluation_settings(None, given | keys), console=Console(file=io.StringIO()))


def the_test_rows(log, path):
    """Writes the raw rows of the test split."""
    _, frame, made = log
    part = made["vocabulary"].sealed_test()
    frame[np.sort(part.rows)].write_csv(path)
    return path


@pytest.mark.parametrize("kind", ["vocabulary", "hashed"])
def test_rows_count_as_in_the_evaluation_of_training(log, kind, tmp_path):
    folder, _, made = log
    dataset = made[kind]
    keys = {} if kind == "vocabulary" else {"placing": {"shared": True, "rows": 64}}
    model = Trained(dataset, folder / "log.csv", **keys)
    model.export(tmp_path / "bundle")
    report = evaluated([tmp_path / "bundle"], [the_test_rows(log, tmp_path / "test.csv")])
    part = dataset.sealed_test()
    weights = row_weights(part.labels, part.weights, part.keep_rate)
    for serving, found in ((False, report["models"][0]), (True, report["models"][0]["at_serving"])):
        layout = model.layout.at_serving() if serving else model.layout
        found_scores = predict(model.network, Batches(part, layout, 100))
        expected = measure(part.labels, found_scores, weights)
        auc = found["auc"] if serving else found["auc"]["value"]
        assert auc == pytest.approx(expected.auc, abs=1e-6)
        for metric in ("logloss", "ece", "calibration_ratio"):
            assert found[metric] == pytest.approx(getattr(expected, metric), abs=1e-6), metric
    assert report["log"]["negative_keep_rate"] == 0.25
    assert report["rows"] == len(part)


def test_a_log_without_its_bias_fields_is_evaluated_as_it_is_served(log, tmp_path):
    folder, _, made = log
    Trained(made["vocabulary"], folder / "log.csv").export(tmp_path / "bundle")
    rows = the_test_rows(log, tmp_path / "test.csv")
    whole = evaluated([tmp_path / "bundle"], [rows])["models"][0]
    pl.read_csv(rows, infer_schema=False).drop("position", "scroll").write_csv(tmp_path / "unbiased.csv")
    served = evaluated([tmp_path / "bundle"], [tmp_path / "unbiased.csv"])["models"][0]
    assert served["at_serving"] is None
    assert served["auc"]["value"] == pytest.approx(whole["at_serving"]["auc"], abs=1e-12)
    assert served["logloss"] == pytest.approx(whole["at_serving"]["logloss"], abs=1e-12)


def test_models_of_other_schemas_meet_on_the_same_rows(log, tmp_path):
    folder, frame, made = log
    small = everything(folder) | {
        "fields": [{"name": "user"}, {"name": "shop"}],
        "joins": [],
        "split": {"by": "random"},
        "derive": {},
    }
    other = Dataset(ingest(check(small, Schema, "schema"), folder / "log.csv", tmp_path / "datasets"))
    Trained(made["vocabulary"], folder / "log.csv").export(tmp_path / "large")
    Trained(other, folder / "log.csv").export(tmp_path / "small")
    report = evaluated([tmp_path / "large", tmp_path / "small"], [folder / "log.csv"])
    kept = frame.filter(pl.col("rating") != "3").height
    assert report["rows"] == kept
    assert report["log"]["filtered"] == frame.height - kept
    assert report["models"][1]["unseen"].keys() == {"user", "shop"}
    assert report["models"][1]["overlap"] is None
    assert report["differences"][0]["auc"]["low"] < report["differences"][0]["auc"]["high"]
    turned = evaluated([tmp_path / "small", tmp_path / "large"], [folder / "log.csv"])
    value, back = report["differences"][0]["auc"]["value"], turned["differences"][0]["auc"]["value"]
    assert value == pytest.approx(-back, abs=1e-12)


def test_other_weights_and_rates_are_warned_of_and_those_of_the_first_model_count(log, tmp_path):
    folder, _, made = log
    plain = everything(folder)
    plain["negative_keep_rate"] = 1.0
    del plain["weight"]
    other = Dataset(ingest(check(plain, Schema, "schema"), folder / "log.csv", tmp_path / "datasets"))
    Trained(made["vocabulary"], folder / "log.csv").export(tmp_path / "weighted")
    Trained(other, folder / "log.csv").export(tmp_path / "plain")
    both = evaluated([tmp_path / "weighted", tmp_path / "plain"], [folder / "log.csv"])
    alone = evaluated([tmp_path / "weighted"], [folder / "log.csv"])
    assert both["models"][0]["logloss"] == alone["models"][0]["logloss"]
    assert any("weighs rows otherwise" in warning for warning in both["warnings"])
    assert any("negative_keep_rate = 1" in warning for warning in both["warnings"])


def test_fields_of_every_kind_can_be_sliced_but_vectors(log, tmp_path):
    folder, _, made = log
    Trained(made["vocabulary"], folder / "log.csv").export(tmp_path / "bundle")
    names = ["user", "tags", "price", "hour", "country", "rating"]
    report = evaluated([tmp_path / "bundle"], [folder / "log.csv"], slices=names)
    for name in names:
        parts = [part for part in report["slices"] if part["field"] == name]
        assert sum(part["rows"] for part in parts) == report["rows"], name
    single = next(part for part in report["slices"] if (part["field"], part["value"]) == ("rating", "5"))
    assert single["models"][0]["auc"]["value"] is None  # they are all clicks
    assert single["models"][0]["logloss"] > 0.0
    with pytest.raises(ConfigError, match='"picture" is a vector'):
        evaluated([tmp_path / "bundle"], [folder / "log.csv"], slices=["picture"])


def test_times_without_a_unit_fall_into_windows(log, tmp_path):
    folder, _, made = log
    Trained(made["vocabulary"], folder / "log.csv").export(tmp_path / "bundle")
    report = evaluated([tmp_path / "bundle"], [folder / "log.csv"])
    assert len(report["days"]) == 10
    assert report["days"][0]["value"].startswith("977 to ")
    assert sum(part["rows"] for part in report["days"]) == report["rows"]
    assert report["log"]["time"]["unit"] == "numbers"
    seconds = pl.read_csv(folder / "log.csv", infer_schema=False).with_columns(
        (pl.col("seconds").cast(pl.Int64) + 1_700_000_000).cast(pl.String)
    )
    seconds.write_csv(tmp_path / "seconds.csv")
    dated = evaluated([tmp_path / "bundle"], [tmp_path / "seconds.csv"])
    assert dated["days"][0]["value"] == "2023-11-14"
    assert dated["log"]["time"]["unit"].startswith("seconds since 1970")
