"""Offline evaluation end to end: the numbers of training again, pairing, slices, bounds, MLflow, what is refused."""

import io
import json
import shutil
import tomllib
from datetime import UTC

import numpy as np
import polars as pl
import pytest
from rich.console import Console

import ctr.jobs.evaluate as job
from ctr.errors import ConfigError, CtrError, DataError, ThresholdError
from ctr.evaluation.intervals import auc_difference
from ctr.jobs.evaluation_settings import evaluation_settings
from ctr.settings import dump_toml
from tests.jobs.conftest import SCHEMA, configuration, tiny_log, trained


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Nothing is written to the working directory of the suite."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _plain_page(request, monkeypatch):
    """Pages have tests of their own, and take longer than all the rest."""
    if "real_page" not in request.fixturenames:
        monkeypatch.setattr(
            job, "write_evaluation", lambda report, out: (out / "evaluation.html").write_text("page")
        )


@pytest.fixture
def real_page():
    """Asks for the page as it is."""


def evaluated(models, data, **keys):
    given = {
        "models": [str(m) for m in models],
        "data": [str(d) for d in data],
        "out": "out",
        "tracking": "none",
    }
    return job.evaluate(
        evaluation_settings(None, given | keys),
        console=Console(file=io.StringIO(), width=200),
        command="ctr evaluate",
    )


def both(finished, **keys):
    names = {"names": ["champion", "candidate"]}
    return evaluated(
        [finished.champion, finished.candidate], [finished.folder / "test.parquet"], **names | keys
    )


def reported(run):
    report = json.loads((run / "report.json").read_text())
    return (report["selected"] or report["baseline"])["test"]


def altered(run, target, change):
    """A copy of a run's bundle with another schema, sealed again."""
    from ctr.serving.manifest import file_entry, render_manifest

    folder = shutil.copytree(run / "bundle", target)
    schema = json.loads((folder / "schema.json").read_text())
    schema.update(change)
    (folder / "schema.json").write_text(json.dumps(schema))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["schema.json"] = file_entry(folder / "schema.json").model_dump()
    (folder / "manifest.json").write_text(render_manifest(manifest))
    return folder


def test_test_rows_of_a_run_have_the_metrics_of_its_report_again(finished):
    report = both(finished)
    for entry, run in zip(report["models"], (finished.champion, finished.candidate), strict=True):
        expected = reported(run)
        assert entry["auc"]["value"] == pytest.approx(expected["auc"], abs=1e-6)
        for metric in ("logloss", "ece", "calibration_ratio"):
            assert entry[metric] == pytest.approx(expected[metric], abs=1e-6), metric
    one, other = (
        pl.read_parquet(run / "scores" / "test.parquet") for run in (finished.champion, finished.candidate)
    )
    expected = auc_difference(
        one["label"].to_numpy(), one["baseline"].to_numpy(), other["selected"].to_numpy()
    )
    found = report["differences"][0]["auc"]
    assert (found["value"], found["low"], found["high"]) == pytest.approx(expected, abs=1e-6)


def test_an_evaluation_leaves_what_the_design_lists(finished, real_page, tmp_path):
    report = both(finished, slices=["shop"], group_by="user")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        f"evaluation.{k}" for k in ("json", "parquet", "html")
    }
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text()) == report
    for entry in report["models"]:
        assert entry["auc"]["low"] < entry["auc"]["value"] < entry["auc"]["high"]
        for key in ("name", "logloss", "normalised_entropy", "ece", "calibration_ratio", "gauc"):
            assert entry[key] is not None, key
        assert entry["intervals"]["logloss"]["low"] < entry["logloss"] < entry["intervals"]["logloss"]["high"]
    scores = pl.read_parquet(tmp_path / "out" / "evaluation.parquet")
    assert scores.columns[:4] == ["row", "label", "champion", "candidate"]
    assert scores["row"].to_list() == list(range(scores.height))
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert report["verdict"] in page


def test_one_model_needs_no_other(finished):
    report = evaluated([finished.champion / "bundle"], [finished.folder / "test.parquet"])
    assert report["differences"] == []
    assert report["models"][0]["name"] == finished.champion.name


def test_a_model_and_its_copy_differ_by_exactly_nothing(finished, tmp_path):
    copy = shutil.copytree(finished.champion / "bundle", tmp_path / "copy")
    report = evaluated([finished.champion, copy], [finished.folder / "test.parquet"])
    zero = {"value": 0.0, "low": 0.0, "high": 0.0}
    for metric in ("auc", "logloss", "normalised_entropy", "calibration_ratio"):
        assert report["differences"][0][metric] == zero
    assert "ranks exactly as" in report["verdict"]


def test_a_log_in_several_files_is_one_log(finished, tmp_path):
    whole = both(finished)
    log = pl.read_parquet(finished.folder / "test.parquet")
    log.head(300).write_parquet(tmp_path / "a.parquet")
    log.slice(300, 200).write_ndjson(tmp_path / "b.ndjson")
    log.slice(500).write_parquet(tmp_path / "c1.parquet")
    names = {"names": ["champion", "candidate"]}
    parts = [tmp_path / "a.parquet", tmp_path / "b.ndjson", tmp_path / "c*.parquet"]
    found = evaluated([finished.champion, finished.candidate], parts, **names)
    assert found["models"][1]["auc"] == whole["models"][1]["auc"]
    assert found["log"]["digest"] == whole["log"]["digest"]
    assert [entry["first_row"] for entry in found["log"]["files"]] == [0, 300, 500]


def test_a_log_that_does_not_fit_has_the_same_numbers_within_the_stated_bound(finished):
    keys = {"slices": ["shop"], "group_by": "user", "cluster": "user"}
    exact, binned = both(finished, **keys), both(finished, exact_rows=600, **keys)
    assert (exact["method"]["auc"], binned["method"]["auc"]) == ("exact", "histogram")
    for one, other in zip(exact["models"], binned["models"], strict=True):
        assert abs(one["auc"]["value"] - other["auc"]["value"]) <= other["auc_error"] + 1e-12
        assert one["auc_error"] == 0.0 < other["auc_error"] < 1e-3
        for metric in ("logloss", "normalised_entropy", "calibration_ratio", "gauc"):
            assert other[metric] == pytest.approx(one[metric], abs=1e-9), metric
        assert other["intervals"]["logloss"] == pytest.approx(one["intervals"]["logloss"], abs=1e-9)
    assert binned["slices"] == exact["slices"]  # each of them fits


# Slices, keys and time


def test_slices_of_a_field_hold_every_row_once(finished):
    report = both(finished, slices=["shop", "price", "hour", "tags"])
    for field in ("shop", "price", "hour", "tags"):
        parts = [part for part in report["slices"] if part["field"] == field]
        assert sum(part["rows"] for part in parts) == report["rows"], field
        assert sum(part["positives"] for part in parts) == report["positives"], field
    log = pl.read_parquet(finished.folder / "test.parquet")
    own = next(part for part in report["slices"] if part["value"] == "s1")
    assert (own["rows"], own["positives"]) == log.filter(shop="s1").select(
        pl.len(), pl.col("click").sum()
    ).row(0)
    scores = pl.read_parquet("out/evaluation.parquet").filter(pl.col("@shop") == "s1")
    expected = auc_difference(*(scores[name].to_numpy() for name in ("label", "champion", "candidate")))
    assert own["differences"][0]["auc"] == pytest.approx(expected._asdict(), abs=1e-12)
    hours = [part["value"] for part in report["slices"] if part["field"] == "hour"]
    assert hours == [str(hour) for hour in range(24)]
    ranges = [part["value"] for part in report["slices"] if part["field"] == "price"]
    assert len(ranges) == 11
    assert ranges[-1] == "missing"


def test_a_value_that_a_guardrail_names_is_looked_at_however_rare_it_is(finished, monkeypatch):
    monkeypatch.setattr("ctr.jobs.evaluation_slices.MOST", 1)
    log = pl.read_parquet(finished.folder / "test.parquet")
    rare, frequent = (
        log["shop"].value_counts(sort=True).sort("count", "shop", descending=[False, True])["shop"][0, 2]
    )
    rails = [{"slice": "shop", "value": rare, "min": 0.0}, {"slice": "hour", "value": 7, "min": 0.0}]
    price = log["price"].drop_nulls().mode()[0]
    rails += [{"slice": "price", "value": price, "min": 0.0}, {"slice": "shop", "value": "s9", "min": 0.0}]
    report = both(finished, guardrail=rails)
    counts = [log.filter(shop=rare).height, log.filter(pl.col("time").dt.hour() == 7).height]
    counts += [log.filter(price=price).height, 0]
    assert [entry["rows"] for entry in report["guardrails"]] == counts
    assert report["guardrails"][-1]["why"] == "the log has no such rows"
    shops = {part["value"]: part["rows"] for part in report["slices"] if part["field"] == "shop"}
    assert set(shops) == {frequent, rare, "all 1 others"}
    assert sum(shops.values()) == log.height


def test_days_are_those_of_the_log(finished):
    report = both(finished)
    days = (
        pl.read_parquet(finished.folder / "test.parquet")["time"]
        .dt.date()
        .value_counts(sort=False)
        .sort("time")
    )
    assert [(part["value"], part["rows"]) for part in report["days"]] == [
        (d.isoformat(), n) for d, n in days.rows()
    ]
    assert report["log"]["time"]["unit"] == "times in UTC"


def test_clusters_of_rows_that_are_alike_widen_the_interval(finished, tmp_path):
    log = pl.read_parquet(finished.folder / "test.parquet").with_row_index("request")
    pl.concat([log] * 4).write_parquet(tmp_path / "four.parquet")

    def width(**keys):
        found = evaluated([finished.champion], [tmp_path / "four.parquet"], **keys)["models"][0]["auc"]
        return found["high"] - found["low"]

    once = evaluated([finished.champion], [finished.folder / "test.parquet"])["models"][0]["auc"]
    assert width(cluster="request") == pytest.approx(once["high"] - once["low"], rel=0.1)
    assert width() < 0.6 * width(cluster="request")


def test_few_clusters_are_warned_of(finished):
    shops = pl.read_parquet(finished.folder / "test.parquet")["shop"].n_unique()
    assert shops < 30
    (warning,) = both(finished, cluster="shop")["warnings"]
    assert f'"shop" has {shops} values' in warning


def test_rows_from_the_time_of_training_are_warned_of(finished):
    report = evaluated([finished.champion], [finished.folder / "log.parquet"])
    train = json.loads((finished.champion / "report.json").read_text())["dataset"]["rows"]["train"]
    assert report["models"][0]["overlap"]["rows"] == train
    assert f"{train:,} rows of this log lie in that time" in report["warnings"][0]
    assert both(finished)["warnings"] == []


def test_a_run_whose_parts_are_files_with_a_time_is_evaluated_by_day_and_warned_of_overlap(tmp_path):
    log = tiny_log()
    parts = {
        "test": log[:700],
        "train": log[700:1700],
        "valid": log[1700:],
    }  # test is oldest: files may say so
    for part, rows in parts.items():
        rows.write_parquet(tmp_path / f"{part}.parquet")
    schema = tomllib.loads(SCHEMA)
    schema["split"] = {"by": "files", "column": "time", **{part: f"{part}.parquet" for part in parts}}
    (tmp_path / "shop.toml").write_text(dump_toml(schema))
    data = {"schema": f"{tmp_path}/shop.toml", "input": str(tmp_path), "folder": f"{tmp_path}/datasets"}
    training = {"batch_size": 100, "epochs": 1, "order": "time", "threads": 1}
    run = trained(
        configuration(
            tmp_path,
            "files",
            data=data,
            training=training,
            selector={"kind": "none"},
            export={"refit": "all"},
        )
    )
    shipped = json.loads((run / "report.json").read_text())["model"]["shipped"]
    times = [moment.replace(tzinfo=UTC).isoformat() for moment in (log["time"].min(), log["time"].max())]
    assert shipped["window"] == times
    report = evaluated([run], [tmp_path / "test.parquet"])
    assert report["models"][0]["overlap"]["rows"] == 700
    assert "700 rows of this log lie in that time" in report["warnings"][0]
    assert [day["rows"] for day in report["days"]] == [480, 220]


def test_a_log_without_time_is_evaluated_without_days(finished, tmp_path):
    log = pl.read_parquet(finished.folder / "test.parquet").with_columns(hour=pl.col("time").dt.hour())
    log.drop("time").write_parquet(tmp_path / "timeless.parquet")
    bundle = altered(finished.champion, tmp_path / "bundle", {"derive": {}})
    manifest = json.loads((bundle / "manifest.json").read_text())
    next(entry for entry in manifest["fields"] if entry["name"] == "hour")["columns"] = ["hour"]
    from ctr.serving.manifest import render_manifest

    golden = pl.read_parquet(bundle / "golden.parquet").with_columns(hour=pl.col("time").dt.hour())
    golden.write_parquet(bundle / "golden.parquet")
    from ctr.serving.manifest import file_entry

    manifest["files"]["golden.parquet"] = file_entry(bundle / "golden.parquet").model_dump()
    (bundle / "manifest.json").write_text(render_manifest(manifest))
    report = evaluated([bundle], [tmp_path / "timeless.parquet"])
    assert report["days"] is None
    assert report["models"][0]["overlap"] is None
    assert report["models"][0]["auc"]["value"] == pytest.approx(reported(finished.champion)["auc"], abs=1e-6)


def test_unseen_values_are_counted_by_field(finished, tmp_path):
    log = pl.read_parquet(finished.folder / "test.parquet").head(100)
    users = [f"new {n}" if n < 25 else "u1" for n in range(100)]
    tags = ["a|zzz", "", None, "zzz"] * 25
    log.with_columns(user=pl.Series(users), tags=pl.Series(tags)).write_parquet(tmp_path / "new.parquet")
    found = evaluated([finished.champion], [tmp_path / "new.parquet"])["models"][0]["unseen"]
    assert found["user"] == {"values": 100, "unseen": 25, "share": 0.25, "missing": 0}
    assert found["tags"] == {"values": 75, "unseen": 50, "share": 50 / 75, "missing": 50}
    assert "price" not in found  # a scaled number cannot be unseen


# Bounds


def test_missed_thresholds_end_with_exit_code_4_after_all_is_written(finished, tmp_path):
    with pytest.raises(ThresholdError, match="1 bound was missed") as error:
        evaluated([finished.champion], [finished.folder / "test.parquet"], min_auc=0.99)
    assert error.value.exit_code == 4
    assert json.loads((tmp_path / "out" / "evaluation.json").read_text())["guardrails"][0]["kept"] is False
    assert (tmp_path / "out" / "evaluation.html").is_file()


def test_a_candidate_may_not_lose_more_than_max_drop(finished):
    data = [finished.folder / "test.parquet"]
    value = both(finished)["differences"][0]["auc"]["value"]
    better, worse = finished.candidate, finished.champion
    if value < 0:
        better, worse = worse, better
    evaluated([worse, better], data, max_drop=0.0)
    with pytest.raises(ThresholdError, match="auc changes by -0"):
        evaluated([better, worse], data, max_drop=abs(value) * 0.99)
    evaluated([better, worse], data, max_drop=abs(value) * 1.01)


def test_max_drop_needs_something_to_compare_with(finished):
    with pytest.raises(ConfigError, match="name at least two models"):
        evaluated([finished.champion], [finished.folder / "test.parquet"], max_drop=0.1)


# What cannot be evaluated


def test_models_that_keep_other_rows_are_refused(finished, tmp_path):
    other = altered(finished.champion, tmp_path / "other", {"where": "price > 0"})
    with pytest.raises(DataError) as error:
        evaluated([finished.champion, other], [finished.folder / "test.parquet"])
    assert "the models do not keep the same rows" in str(error.value)
    assert '"other" (where = "price > 0") leaves it out' in str(error.value)
    assert 'row 1 of file "test.parquet"' in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("leaves_out", ["first", "last"])
def test_the_first_and_the_last_row_are_not_overlooked(finished, tmp_path, leaves_out):
    ends = pl.read_parquet(finished.folder / "test.parquet")["time"]
    where = f"time > CAST('{ends.min()}' AS TIMESTAMP)"
    if leaves_out == "last":
        where = f"time < CAST('{ends.max()}' AS TIMESTAMP)"
    other = altered(finished.champion, tmp_path / "other", {"where": where})
    row = 1 if leaves_out == "first" else len(ends)
    for models in ([finished.champion, other], [other, finished.champion]):
        with pytest.raises(DataError, match=f'keeps row {row} of file "test.parquet"'):
            evaluated(models, [finished.folder / "test.parquet"])


def test_models_of_other_labels_are_refused(finished, tmp_path):
    other = altered(finished.champion, tmp_path / "other", {"label": "1 - click"})
    with pytest.raises(
        DataError, match=r'the label [01] by "champion.*" \(label = "click"\) and [01] by "other" '
    ):
        evaluated([finished.champion, other], [finished.folder / "test.parquet"])


def test_a_row_that_breaks_one_schema_is_left_out_for_all(finished, tmp_path):
    log = pl.read_parquet(finished.folder / "test.parquet").with_columns(pl.col("price").cast(pl.String))
    spoiled = log.with_columns(
        price=pl.when(pl.int_range(pl.len()) == 7).then(pl.lit("dear")).otherwise("price")
    )
    spoiled.write_parquet(tmp_path / "spoiled.parquet")
    report = evaluated([finished.champion, finished.candidate], [tmp_path / "spoiled.parquet"])
    assert report["log"]["set_aside"] == 1
    assert report["rows"] == log.height - 1
    assert 7 not in pl.read_parquet("out/evaluation.parquet")["row"]
    worse = log.with_columns(
        price=pl.when(pl.int_range(pl.len()) < 50).then(pl.lit("dear")).otherwise("price")
    )
    worse.write_parquet(tmp_path / "worse.parquet")
    with pytest.raises(DataError, match=r"break the schema, max_bad_rows = 0\.01 allows 1.00%"):
        evaluated([finished.champion], [tmp_path / "worse.parquet"])


def test_one_class_and_a_missing_label_are_refused(finished, tmp_path):
    log = pl.read_parquet(finished.folder / "test.parquet")
    log.filter(click=0).write_parquet(tmp_path / "zeros.parquet")
    with pytest.raises(DataError, match="expected both classes, found 0 positives"):
        evaluated([finished.champion], [tmp_path / "zeros.parquet"])
    log.rename({"click": "clik"}).write_parquet(tmp_path / "unlabelled.parquet")
    with pytest.raises(DataError, match=r'label = "click": "click" is no column of the input.*"clik"'):
        evaluated([finished.champion], [tmp_path / "unlabelled.parquet"])
    log.drop("user").write_parquet(tmp_path / "userless.parquet")
    with pytest.raises(DataError, match=r'field "user": file "userless\.parquet" has no such column'):
        evaluated([finished.champion], [tmp_path / "userless.parquet"])


def test_scores_that_are_no_numbers_are_refused(finished, monkeypatch):
    from ctr.serving.scorer import Scorer

    honest = Scorer.probabilities
    monkeypatch.setattr(
        Scorer,
        "probabilities",
        lambda self, rows: honest(self, rows) * (np.nan if rows.height > 300 else 1.0),
    )
    with pytest.raises(DataError, match="expected probabilities, found nan for row 1 of the log"):
        evaluated([finished.champion], [finished.folder / "test.parquet"])


def test_constant_scores_are_warned_of(finished, monkeypatch):
    from ctr.serving.scorer import Scorer

    honest = Scorer.probabilities

    def flat(self, rows):
        found = honest(self, rows)
        return found if rows.height <= 300 else np.full(rows.height, 0.3)

    monkeypatch.setattr(Scorer, "probabilities", flat)
    report = evaluated([finished.champion], [finished.folder / "test.parquet"])
    assert report["models"][0]["auc"] == {"value": 0.5, "low": 0.5, "high": 0.5}
    assert "gives every row the same probability" in report["warnings"][0]


def test_what_is_no_model_is_refused_with_what_was_found(finished, tmp_path):
    data = [finished.folder / "test.parquet"]
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.toml").write_text("")
    for given, message in (
        ("nowhere", "no such folder"),
        (finished.folder / "log.parquet", "found a file"),
        (finished.folder, "found neither"),
        (unfinished, "not finished"),
        ("models:/a/b/c", 'expected "models:/NAME@ALIAS"'),
        ("models:/ads@champion", "tracking is off"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluated([given], data)
    broken = shutil.copytree(finished.champion / "bundle", tmp_path / "broken")
    (broken / "weights.safetensors").unlink()
    with pytest.raises(DataError, match=r'the file "weights\.safetensors" is missing'):
        evaluated([broken], data)
    with pytest.raises(ConfigError, match="no such file"):
        evaluated([finished.champion], [tmp_path / "none.parquet"])
    with pytest.raises(ConfigError, match='"shopp" is no column of the log; the nearest name is "shop"'):
        evaluated([finished.champion], data, slices=["shopp"])
    with pytest.raises(ConfigError, match='two models are named "a"'):
        evaluated([finished.champion, finished.candidate], data, names=["a", "a"])
    with pytest.raises(ConfigError, match='cannot be named "label"'):
        evaluated([finished.champion], data, names=["label"])


# MLflow


def test_a_registered_model_is_evaluated_by_its_alias_and_the_numbers_are_logged(finished, tmp_path):
    pytest.importorskip("sqlalchemy", reason="MLflow is not installed")
    from ctr.tracking import Tracker

    tracker = Tracker.open(None, "ctr", fallback=tmp_path / "runs")
    with tracker.job("toy", config={}, config_text="", tags={}, datasets=[]) as tracked:
        tracked.files(finished.champion)
    client = tracker._connection._client
    client.create_registered_model("ads")
    root = client.get_run(tracked.run_id).info.artifact_uri
    client.create_model_version("ads", f"{root}/bundle", tracked.run_id)
    client.set_registered_model_alias("ads", "champion", "1")
    data = [finished.folder / "test.parquet"]
    for given in ("models:/ads@champion", "models:/ads/1", f"runs:/{tracked.run_id}"):
        report = evaluated([given], data, tracking=None, names=["ads"])
        assert report["models"][0]["auc"]["value"] == pytest.approx(
            reported(finished.champion)["auc"], abs=1e-6
        )
    assert not list(tmp_path.glob(".out-*"))
    run = client.search_runs([tracker._experiment_id], "tags.job = 'evaluation'")[-1]
    logged, entry = run.data.metrics, report["models"][0]
    assert (logged["ads.auc"], logged["ads.auc.low"]) == (entry["auc"]["value"], entry["auc"]["low"])
    assert (logged["ads.logloss"], logged["rows"]) == (entry["logloss"], report["rows"])
    assert {item.path for item in client.list_artifacts(run.info.run_id)} >= {
        "evaluation.json",
        "evaluation.html",
    }
    for given, message in (
        ("models:/ads@nobody", "nobody"),
        ("models:/other/1", "other"),
        ("runs:/0123", "0123"),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluated([given], data, tracking=None)


def test_an_evaluation_is_written_where_mlflow_does_not_answer(finished, tmp_path):
    pytest.importorskip("sqlalchemy", reason="MLflow is not installed")
    keys = {"tracking": "http://127.0.0.1:9", "names": ["a"]}
    with pytest.raises(CtrError, match='the evaluation is written to "out"') as error:
        evaluated([finished.champion], [finished.folder / "test.parquet"], **keys)
    assert error.value.exit_code == 1
    assert (tmp_path / "out" / "evaluation.json").is_file()
    with pytest.raises(ThresholdError, match=r"tracking\.uri"):
        evaluated([finished.champion], [finished.folder / "test.parquet"], min_auc=0.99, **keys)
