"""The main job with interactions of pairs: searches, pure methods, limits, OptFS first; scoring equals training."""

import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

import ctr.jobs.train as job
import ctr.jobs.verdict as verdict
from ctr.config import Config
from ctr.dataset.batches import Batches
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.store import Dataset
from ctr.errors import ConfigError
from ctr.evaluation.intervals import auc_difference
from ctr.jobs import models
from ctr.jobs.pair_facts import interactions as pair_facts
from ctr.jobs.set_difference import difference
from ctr.report.show import show
from ctr.selection import optinter
from ctr.selection.pair_space import PairSpace
from ctr.serving.scorer import Scorer
from ctr.settings import check
from ctr.training.feeding import to_inputs
from ctr.training.predict import predict

ROWS, SIDE, DIM = 4000, 10, 2
SCHEMA = """
name = "board"
label = "click"
[read]
format = "parquet"
[split]
by = "random"
seed = 1
valid = 0.15
test = 0.15
[[fields]]
name = "column"
[[fields]]
name = "tags"
kind = "list"
separator = "|"
[[fields]]
name = "row"
[[fields]]
name = "noise"
min_count = 2
"""
PAIRS = [("column", "row"), ("column", "noise"), ("row", "noise")]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Column and row are places on a board where every square has a colour of its own; noise tells nothing."""
    folder = tmp_path_factory.mktemp("board")
    draw = np.random.default_rng(5)
    column, row = draw.integers(0, SIDE, (2, ROWS))
    colour = draw.permutation(SIDE * SIDE)[column * SIDE + row] % 2
    frame = pl.DataFrame(
        {
            "click": (colour == (draw.random(ROWS) < 0.9)).astype(int),
            "column": [f"c{n}" if n else None for n in column],
            "row": [f"r{n}" for n in row],
            "price": np.exp(np.sqrt(column + 1.5)),  # whose logarithms squared are the columns, about
            "noise": [f"n{n}" for n in draw.zipf(1.4, ROWS) % 40],
            "tags": [
                "|".join("abc"[n] for n in draw.integers(0, 3, size)) for size in draw.integers(0, 3, ROWS)
            ],
        }
    )
    frame.write_parquet(folder / "log.parquet")
    (folder / "schema.toml").write_text(SCHEMA)
    return folder


@pytest.fixture
def configure(log, tmp_path, monkeypatch):
    """A configuration of the job; sections by keyword."""
    monkeypatch.setattr(job, "write_report", lambda report, run, **_: None)
    for name in ("figure_png", "pairs_png"):
        monkeypatch.setattr(job, name, lambda report, path: path.write_bytes(b"picture"))

    def build(**sections) -> Config:
        content = {
            "name": "board",
            "data": {
                "schema": str(log / "schema.toml"),
                "input": str(log / "log.parquet"),
                "folder": str(log / "datasets"),
            },
            "embedding": {"dim": 4},
            "backbone": {"kind": "fnn", "hidden": [8], "norm": "layer"},
            "selector": {"kind": "optinter", "pair_dim": DIM, "epochs": 4, "compare_dropped_reads": False},
            "training": {"batch_size": 256, "epochs": 5, "learning_rate": 2e-2, "threads": 1},
            "tracking": {"uri": "off"},
            "output": {"folder": str(tmp_path / "runs")},
        }
        for name, section in sections.items():
            content[name] = {**content.get(name, {}), **section}
        return check(content, Config, "config")

    return build


def interactions(run) -> dict:
    frame = pl.read_parquet(run / "feature_set" / "interactions.parquet")
    names = zip(frame["field_a"], frame["field_b"], strict=True)
    return dict(zip(names, frame["method"], strict=True))


def report_of(run) -> dict:
    return json.loads((run / "report.json").read_text())


def assert_scored_as_trained(run, log) -> None:
    scores = pl.read_parquet(run / "scores" / "test.parquet")
    frame = pl.read_parquet(log / "log.parquet")
    found = Scorer(run / "bundle").score(frame)[scores["row"].to_numpy()]
    np.testing.assert_allclose(found, scores["selected"].to_numpy(), rtol=0, atol=1e-6)


def test_the_search_memorizes_the_board_and_leaves_noise_alone(configure, log):
    run = job.train(configure())
    assert interactions(run) == dict(zip(PAIRS, ["memorize", "naive", "naive"], strict=True))
    report = report_of(run)
    assert report["feature_set"]["interactions"] == {"memorize": 1, "factorize": 0, "naive": 2}
    # One row for each square that two train rows hold, and one for the squares that are unknown.
    assert report["selected"]["cross_rows"] == SIDE * SIDE + 1
    assert report["difference"]["test_auc"]["low"] > 0
    assert (
        report["selected"]["table_bytes"] - report["baseline"]["table_bytes"] == (SIDE * SIDE + 1) * DIM * 4
    )
    assert_scored_as_trained(run, log)
    saved = FeatureSet.load(run / "feature_set")
    frame = saved.interactions
    assert frame.columns[:6] == ["field_a", "field_b", "method", "memorize", "factorize", "naive"]
    np.testing.assert_allclose(frame.select("memorize", "factorize", "naive").sum_horizontal(), 1.0)
    shown = {}
    for path in (run, run / "feature_set", run / "bundle"):
        console = Console(file=io.StringIO(), width=200)
        console.print(show(path))
        shown[path.name] = " ".join(console.file.getvalue().split())
    assert all("1 of 1 pairs in use" in text for text in shown.values())
    assert "1 pairs memorized in 101 rows, 0 factorized" in shown["bundle"]
    assert "│ column x row │ memorize │ 101 │" in shown["bundle"]
    assert "│ column x row │ memorize │" in shown["feature_set"]


def test_the_published_search_runs_on_the_rows_of_the_weights(configure, log):
    own = {"search_rows": "train", "pair_learning_rate": 0.05}
    run = job.train(configure(selector=own))
    assert interactions(run)["column", "row"] == "memorize"
    looks = report_of(run)["history"]["search"]
    assert looks[-1]["memorize"] + looks[-1]["factorize"] + looks[-1]["naive"] == 3
    assert looks[-1]["temperature"] < looks[0]["temperature"]
    assert_scored_as_trained(run, log)


@pytest.mark.parametrize("method", ["memorize", "factorize", "naive"])
@pytest.mark.parametrize("embedding", [{}, {"kind": "unified", "rows": 60, "collision_free": 11}])
def test_each_pure_method_is_a_run_of_its_own(configure, log, method, embedding):
    run = job.train(configure(selector={"choice": method}, embedding=embedding))
    assert set(interactions(run).values()) == {method}
    names = {file.name for file in (run / "bundle").iterdir()}
    assert ("crosses.parquet" in names) == (method == "memorize")
    assert_scored_as_trained(run, log)


def test_all_naive_is_the_baseline_itself(configure):
    report = report_of(job.train(configure(selector={"choice": "naive"})))
    assert report["selected"]["cross_rows"] == 0
    assert report["selected"]["table_bytes"] == report["baseline"]["table_bytes"]


@pytest.mark.parametrize("search_rows", ["held_out", "train"])
def test_a_search_of_screened_pairs_keeps_a_row_for_those_that_were_screened_out(
    configure, log, monkeypatch, search_rows
):
    from ctr.report import write_report

    monkeypatch.setattr(job, "write_report", write_report)
    console = Console(file=io.StringIO(), width=200)
    own = {"screened_pairs": 1, "search_rows": search_rows}
    if search_rows == "train":
        own["pair_learning_rate"] = 0.05
    run = job.train(configure(selector=own), console=console)
    assert "3 pairs screened to 1" in console.file.getvalue()
    assert interactions(run) == dict(zip(PAIRS, ["memorize", "naive", "naive"], strict=True))
    frame = FeatureSet.load(run / "feature_set").interactions
    assert frame["strength"].is_null().to_list() == [False, True, True]
    assert frame["screened_nats"].arg_max() == 0
    found = report_of(run)["interactions"]
    assert [pair["strength"] is None for pair in found["pairs"]] == [False, True, True]
    assert "2 pairs that were screened out" in (run / "report.html").read_text()
    assert report_of(run)["selected"]["cross_rows"] == SIDE * SIDE + 1
    assert_scored_as_trained(run, log)
    show(run / "feature_set")


def test_a_screen_that_keeps_all_pairs_changes_nothing(configure):
    runs = [job.train(configure(selector=own)) for own in ({}, {"screened_pairs": 3})]
    frames = [pl.read_parquet(run / "feature_set" / "interactions.parquet") for run in runs]
    assert runs[0] != runs[1]
    assert frames[0].equals(frames[1])


def test_screened_pairs_join_what_optfs_leaves(configure, log):
    own = {"kind": "optfs+optinter", "ratio": 0.6, "referees": [], "screened_pairs": 2}
    run = job.train(configure(selector=own))
    frame = pl.read_parquet(run / "feature_set" / "interactions.parquet")
    assert frame["strength"].null_count() == frame.height - 2
    assert_scored_as_trained(run, log)


def test_pairs_are_a_picture_and_a_table_in_mlflow(configure, monkeypatch, tmp_path):
    mlflow = pytest.importorskip("mlflow")
    from ctr.report import pairs_png

    monkeypatch.setattr(job, "pairs_png", pairs_png)
    uri = f"sqlite:///{tmp_path / 'store' / 'mlflow.db'}"
    own = {"screened_pairs": 1, "epochs": 1}
    run = job.train(configure(selector=own, tracking={"uri": uri}))
    client = mlflow.MlflowClient(uri)
    run_id = json.loads((run / "mlflow.json").read_text())["run_id"]
    path = Path(client.download_artifacts(run_id, "figures/interactions.png", str(tmp_path)))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert not list(run.glob(".*.png"))
    path = Path(client.download_artifacts(run_id, "tables/interactions.json", str(tmp_path)))
    table = json.loads(path.read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    told = {(row["field_a"], row["field_b"]): row["auc_lost_low"] for row in rows}
    assert set(told) == set(PAIRS)
    (lost,) = report_of(run)["interactions"]["switched_off"]
    assert {pair: low for pair, low in told.items() if low is not None} == {
        (lost["field_a"], lost["field_b"]): lost["auc_lost"]["low"]
    }


def test_methods_can_be_drawn_in_stated_numbers(configure):
    run = job.train(configure(selector={"choice": "random", "random_counts": [1, 1]}))
    assert sorted(interactions(run).values()) == ["factorize", "memorize", "naive"]


def test_a_run_and_its_own_bundle_model_the_same_pairs(configure):
    run = job.train(configure(selector={"choice": "random", "random_counts": [1, 1]}))
    found = difference(run, run / "bundle")
    assert sorted(found.second.pairs.values()) == ["factorize", "memorize"]
    assert (found.pairs, found.added.height, found.dropped.height) == ((), 0, 0)


def test_crosses_under_a_budget_share_its_rows(configure, log):
    run = job.train(configure(selector={"choice": "memorize", "cross_bytes": 30 * DIM * 4}))
    assert report_of(run)["selected"]["cross_rows"] == 30
    assert_scored_as_trained(run, log)


def test_a_budget_without_room_for_the_pairs_says_how_much_is_needed(configure, tmp_path):
    with pytest.raises(ConfigError, match=r"cross_bytes = 24 holds 3 rows of 2 floats, .* at least 4 for 3"):
        job.train(configure(selector={"choice": "memorize", "cross_bytes": 24}))
    with pytest.raises(ConfigError, match=r"does not hold the 3 pairs .* state [\d,]+ or more"):
        job.train(configure(selector={"choice": "memorize", "max_cross_bytes": 48}))
    assert not list((tmp_path / "runs").rglob("best"))  # nothing was trained


def test_a_limit_is_met_whatever_a_sketch_has_estimated(configure, log, monkeypatch):
    monkeypatch.setattr(PairSpace, "bytes", lambda *_: 0)
    own = {"sketch_bytes": 4000, "cross_bytes": 4000, "max_cross_bytes": 30 * DIM * 4}
    run = job.train(configure(selector={**own, "search_rows": "train", "pair_learning_rate": 0.05}))
    assert interactions(run)["column", "row"] == "memorize"
    assert report_of(run)["selected"]["cross_rows"] == 30
    assert_scored_as_trained(run, log)


def test_a_table_that_is_held_by_its_budget_is_within_a_larger_limit(configure):
    own = {"choice": "memorize", "cross_rows": 30, "max_cross_bytes": 30 * DIM * 4}
    assert report_of(job.train(configure(selector=own)))["selected"]["cross_rows"] == 30


def test_what_finds_crosses_is_counted_and_told_where_it_is_more_than_the_table(configure):
    console = Console(file=io.StringIO(), width=200)
    run = job.train(configure(selector={"choice": "memorize", "cross_rows": 30}), console=console)
    keys = json.loads((run / "bundle" / "manifest.json").read_text())["crosses"]["admitted"]
    assert report_of(run)["selected"]["cross_index_bytes"] > 16 * keys
    assert "crosses are found by" in console.file.getvalue()
    run = job.train(configure(selector={"choice": "naive"}))
    assert report_of(run)["selected"]["cross_index_bytes"] == 0


def test_bins_of_a_number_are_crossed_as_values_are(configure, log, tmp_path):
    number = '[[fields]]\nname = "price"\nkind = "numeric"\ntransform = "log_square"\n'
    fields = SCHEMA.replace('[[fields]]\nname = "column"\n', number)
    (tmp_path / "schema.toml").write_text(fields)
    run = job.train(configure(data={"schema": str(tmp_path / "schema.toml")}))
    found = interactions(run)
    assert found["price", "row"] == "memorize"
    assert list(found.values()).count("memorize") == 1
    assert_scored_as_trained(run, log)


def test_limits_leave_the_pair_its_second_best_method(configure):
    for limit in ({"max_memorized": 0}, {"max_cross_bytes": 100}):
        assert interactions(job.train(configure(selector=limit)))["column", "row"] != "memorize"


def test_optfs_drops_values_first_and_pairs_join_what_is_left(configure, log):
    own = {"kind": "optfs+optinter", "ratio": 0.3, "referees": ["frequency"], "compare_dropped_reads": True}
    run = job.train(configure(selector={**own, "pairs": [["row", "column"], ["noise", "row"]]}))
    report = report_of(run)
    assert report["feature_set"]["ratio"] < 0.5
    assert [point["selector"] for point in report["curve"]] == ["optfs+optinter", "frequency"]
    assert sum(report["feature_set"]["interactions"].values()) >= 1
    assert_scored_as_trained(run, log)


def test_dropped_values_that_read_their_unknown_have_its_crosses(configure, log):
    own = {"kind": "optfs+optinter", "ratio": 0.6, "referees": [], "dropped_reads": "unknown"}
    run = job.train(configure(selector={**own, "choice": "memorize", "min_count": 1}))
    assert_scored_as_trained(run, log)


def test_a_refitted_bundle_has_its_crosses_too(configure):
    run = job.train(configure(selector={"choice": "memorize"}, export={"refit": "valid"}))
    assert json.loads((run / "bundle" / "manifest.json").read_text())["crosses"]["admitted"] > 0


@pytest.mark.parametrize(
    "own",
    [
        {},
        {"max_memorized": 1},
        {"screened_pairs": 1, "cross_rows": 3},
        {"kind": "optfs+optinter", "ratio": 0.5, "referees": []},
    ],
)
def test_the_best_of_all_choices_on_valid_is_shipped_and_the_others_are_told(configure, log, own):
    run = job.train(configure(selector={"choice": "best", **own}))
    report = report_of(run)
    provenance = json.loads((run / "feature_set" / "feature_set.json").read_text())
    aucs = provenance["valid_auc"]
    expected = {"search", "factorize", "naive"} | ({"memorize"} if not own or "ratio" in own else set())
    assert set(aucs) == expected
    assert provenance["chosen"] == max(aucs, key=aucs.get)
    assert aucs[provenance["chosen"]] == pytest.approx(report["selected"]["valid"]["auc"], abs=1e-12)
    assert_scored_as_trained(run, log)


def test_crosses_counted_by_a_sketch_are_scored_as_trained_and_no_key_is_kept(configure, log):
    own = {"choice": "memorize", "cross_bytes": 4000, "sketch_bytes": 20_000}
    run = job.train(configure(selector=own))
    entry = json.loads((run / "bundle" / "manifest.json").read_text())["crosses"]
    assert entry["sketch"] == 20_000 // 2 // 8  # bytes of a row: half of the counters, a bit each
    assert "admitted" not in entry
    assert report_of(run)["selected"]["cross_rows"] <= 4000 // (4 * 2)
    assert_scored_as_trained(run, log)


def test_a_search_with_a_sketch_ends(configure, log):
    run = job.train(configure(selector={"cross_bytes": 4000, "sketch_bytes": 20_000}))
    assert_scored_as_trained(run, log)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"selector": {"sketch_bytes": 1000}}, "state cross_bytes"),
        (
            {"selector": {"sketch_bytes": 1000, "cross_bytes": 9999, "min_count": 300}},
            "at most 255, found 300",
        ),
        ({"selector": {"cross_bytes": 1000, "cross_rows": 10}}, "state cross_bytes or cross_rows, not both"),
        ({"selector": {"cross_rows": 3}}, "at least 4 for 3 memorized pairs"),
        ({"selector": {"pair_temperature": 0.1}}, 'pair_temperature applies to search_rows = "train"'),
        ({"selector": {"pairs": [["column", "tags"]]}}, '"tags" is a list field'),
        ({"selector": {"pairs": [["column", "rwo"]]}}, 'no field "rwo"; the nearest name is "row"'),
    ],
)
def test_a_wrong_pair_is_refused_before_anything_is_trained(configure, tmp_path, sections, message):
    with pytest.raises(ConfigError, match=message):
        job.train(configure(**sections))
    assert not (tmp_path / "runs").exists()


def test_test_rows_are_read_once_and_after_all_trainings(configure, monkeypatch):
    seen = []
    sealed, fit, search = Dataset.sealed_test, models.fit, optinter.fit
    monkeypatch.setattr(Dataset, "sealed_test", lambda *a: seen.append("test") or sealed(*a))
    monkeypatch.setattr(models, "fit", lambda *a, **k: seen.append("fit") or fit(*a, **k))
    monkeypatch.setattr(optinter, "fit", lambda *a, **k: seen.append("search") or search(*a, **k))
    job.train(configure(selector={"choice": "best"}))
    assert seen.count("test") == 1
    assert seen[-1] == "test"
    assert seen.count("fit") == 5
    assert "search" in seen


def test_an_interrupted_search_goes_on_and_ends_alike(configure, monkeypatch, tmp_path):
    whole = job.train(configure(output={"folder": str(tmp_path / "whole")}))
    config = configure(output={"folder": str(tmp_path / "broken")})

    def stop(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(optinter, "pair_evidence", stop)
        with pytest.raises(KeyboardInterrupt):
            job.train(config)
    run = job.train(config)
    tables = [pl.read_parquet(path / "feature_set" / "interactions.parquet") for path in (whole, run)]
    assert tables[0].equals(tables[1])


def test_the_report_lists_pairs_and_what_valid_loses_without_them(configure, monkeypatch, log):
    from ctr.report import write_report

    config = configure(selector={"choice": "memorize"})
    monkeypatch.setattr(job, "write_report", write_report)
    run = job.train(config)
    found = report_of(run)["interactions"]
    assert [(pair["field_a"], pair["field_b"]) for pair in found["pairs"]] == PAIRS
    best, *others = found["switched_off"]
    assert (best["field_a"], best["field_b"]) == ("column", "row")
    assert best["auc_lost"]["low"] > 0 > others[-1]["auc_lost"]["low"]
    assert "Which pairs interact?" in (run / "report.html").read_text()


@pytest.mark.parametrize("backbone", ["fnn", "deepfm", "poly2"])
def test_valid_loses_what_it_loses_when_the_vector_of_a_pair_is_replaced(configure, monkeypatch, backbone):
    """The fast way reads crosses once for all pairs; here the whole network runs again for each of them."""
    given = []
    monkeypatch.setattr(verdict, "interactions", lambda model, valid: given.append((model, valid)))
    job.train(configure(selector={"choice": "memorize"}, backbone={"kind": backbone}))
    (model, valid), network = given[0], given[0][0].load().eval()
    batches = Batches(valid, model.layout, 64)
    crosses, dim = network.crosses, network.crosses.layout.dim
    mean = torch.cat([crosses(to_inputs(batch, network.device)) for batch in batches.epoch()]).mean(0)
    whole = predict(network, batches)
    found = pair_facts(model, valid)["switched_off"]
    assert len(found) == len(PAIRS)
    for row in found:
        start = PAIRS.index((row["field_a"], row["field_b"])) * dim

        def replaced(module, arguments, output, start=start):
            output[:, start : start + dim] = mean[start : start + dim]

        hook = crosses.register_forward_hook(replaced)
        expected = auc_difference(valid.labels, predict(network, batches), whole)
        hook.remove()
        # Rows that are nearly tied may change places.
        assert tuple(row["auc_lost"].values()) == pytest.approx(tuple(expected), abs=1e-4)


def test_poly2_is_a_logistic_regression_with_a_weight_for_each_cross(configure, log):
    own = {"choice": "memorize", "pair_dim": 1, "pairs": [["column", "row"]]}
    run = job.train(configure(selector=own, backbone={"kind": "poly2"}))
    report = report_of(run)
    assert report["selected"]["parameters"] == report["baseline"]["parameters"] + SIDE * SIDE + 1
    assert report["difference"]["test_auc"]["low"] > 0.1
    assert_scored_as_trained(run, log)
