"""A walk forward end to end: whether ageing is seen where it is planted, what is read when, and what is refused."""

import io
import json
import shutil

import numpy as np
import polars as pl
import pytest
from rich.console import Console

import ctr.jobs.compare as job
from ctr.config import Tracking
from ctr.dataset.store import Dataset
from ctr.errors import ConfigError
from ctr.evaluation import auc_difference
from ctr.jobs.comparison_tracking import send
from ctr.tracking import Tracker
from tests.jobs.comparison_logs import broken_off
from tests.jobs.walking_logs import ROWS, walking, write_log


def run(config, **keys):
    console = Console(file=io.StringIO(), width=300)
    folder = job.compare(config, console=console, **keys)
    return folder, console.file.getvalue()


@pytest.fixture(scope="module", autouse=True)
def _plain_page():
    """Pages have tests of their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            job, "write_comparison", lambda document, folder, _: (folder / "comparison.html").touch()
        )
        yield


@pytest.fixture(scope="module")
def drifting(tmp_path_factory):
    return write_log(tmp_path_factory.mktemp("drifting"), drift=True)


@pytest.fixture(scope="module")
def steady(tmp_path_factory):
    return write_log(tmp_path_factory.mktemp("steady"), drift=False)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Where cells are kept: tests share them."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def walked(drifting, runs):
    """On a log that drifts, with new values dropped and kept; the looks at test, with whether the choice stood."""
    looks, whole = [], Dataset.sealed_test
    out = runs / "drifting"

    def counted(self, *arguments, **keys):
        cells = len(list((runs / "cells").glob("*/cell.json")))
        looks.append((self.digest, (out / "choice.json").is_file(), cells))
        return whole(self, *arguments, **keys)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dataset, "sealed_test", counted)
        run(walking(drifting, runs, walk_forward={"new_values": ["drop", "keep"]}), out=out)
    return out, looks


@pytest.fixture
def walk(walked):
    return job.load_document(walked[0])["walk_forward"]


def test_a_set_ages_where_ads_come_and_go(walk):
    one = walk["sets"][0]
    assert one["pace"]["drop"]["outcome"] == "ages"
    assert one["pace"]["drop"]["high"] < 0.0
    reached = one["pace"]["drop"]["margin_after"]
    assert reached["low"] < reached["value"] < reached["high"]
    assert "Age costs it" in one["sentence"]
    losses = [point["minus_anew"]["value"] for point in one["points"]["drop"]]
    assert losses[0] == 0.0
    assert max(losses[1:]) < -0.02
    # What ages it is that it drops what it has never judged.
    assert one["points"]["keep"][2]["minus_anew"]["value"] > losses[2] / 2.0


def test_the_share_of_what_it_never_judged_grows_with_its_age(walk):
    shares = [window["unjudged"]["fields"]["ad"] for window in walk["windows"]]
    assert shares[0] < shares[1] < shares[2]
    # One in 24 ads is new every 125 rows; the last window lies 1,875 to 2,625 rows after the end of train.
    assert shares[2] == pytest.approx(18 / 24, abs=0.04)
    assert walk["windows"][2]["unjudged"]["any"] >= shares[2]
    assert walk["windows"][2]["unjudged"]["fields"]["site"] == 0.0
    assert walk["windows"][2]["unjudged"]["fields"]["tags"] == 0.0


def test_without_drift_no_ageing_is_claimed(steady, runs):
    folder, _ = run(walking(steady, runs, grid={"seeds": [0]}))
    one = job.load_document(folder)["walk_forward"]["sets"][0]
    assert one["pace"]["drop"]["outcome"] != "ages"
    assert "Age costs it no more" in one["sentence"] or "not decided" in one["sentence"]


def test_windows_follow_each_other_and_train_on_all_rows_before_them(walk):
    edges = [(window["first"], window["end"]) for window in walk["windows"]]
    assert edges == [(3000, 3750), (3750, 4500), (4500, 5250)]
    assert [sum(window["trained_on"].values()) for window in walk["windows"]] == [3000, 3750, 4500]
    assert [window["age"] for window in walk["windows"]] == [0.0, 1.0, 2.0]
    assert ROWS > 5250


def test_each_window_is_read_once_after_the_choice_stands_and_all_is_trained(walked, walk):
    looks = walked[1]
    assert [digest for digest, _, _ in looks] == [window["dataset"] for window in walk["windows"]]
    assert all(chosen for _, chosen, _ in looks)
    assert {cells for _, _, cells in looks} == {4 + 2 * 8}
    assert [window["test_reads"] for window in walk["windows"]] == [1, 1, 1]


def test_differences_are_those_of_the_scores_on_disk(walked, walk):
    scores = pl.read_parquet(walked[0] / "walk_forward" / "window-2.parquet")
    labels = scores["label"].to_numpy()
    # keep-all, selected anew, new values dropped, new values kept; of two seeds each
    models = [scores[f"model_{number}"].to_numpy() for number in range(8)]
    point = walk["sets"][0]["points"]["drop"][2]
    for other, first in (("keep_all", 0), ("anew", 2)):
        each = [auc_difference(labels, models[first + n], models[4 + n]).value for n in range(2)]
        assert point[f"minus_{other}"]["by_seed"] == pytest.approx(each, abs=1e-12)
        assert point[f"minus_{other}"]["value"] == pytest.approx(np.mean(each), abs=1e-12)
    assert point["minus_keep_all"]["low_corrected"] < point["minus_keep_all"]["low"]


def test_a_table_has_a_row_for_each_line_and_window(walked):
    table = pl.read_parquet(walked[0] / "walk_forward.parquet")
    assert table.select("line", "window").rows() == [
        (line, window) for line in ("drop", "keep", "anew") for window in range(3)
    ]
    assert table["minus_anew_value"].null_count() == 3


def test_mlflow_shows_each_line_as_curves_over_windows(drifting, walked, walk, tmp_path):
    pytest.importorskip("sqlalchemy", reason="MLflow is not installed")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    config = walking(drifting, tmp_path).run.model_copy(update={"tracking": Tracking(uri=uri)})
    shutil.copytree(walked[0], tmp_path / "copy")
    send(tmp_path / "copy", job.load_document(walked[0]), {}, config.tracking, tmp_path)
    client = Tracker.open(uri, "ctr", fallback=tmp_path)._connection._client
    (experiment,) = [each for each in client.search_experiments() if each.name == "ctr"]
    wanted = "tags.stage LIKE '%as it was, new values dropped'"
    (run,) = client.search_runs([experiment.experiment_id], wanted)
    found = client.get_metric_history(run.info.run_id, "minus_anew_value")
    points = walk["sets"][0]["points"]["drop"]
    assert [metric.value for metric in found] == [point["minus_anew"]["value"] for point in points]
    assert [metric.step for metric in found] == [0, 1, 2]


def test_a_walk_that_was_broken_off_goes_on_and_comes_to_the_same(
    drifting, runs, walked, tmp_path, monkeypatch
):
    smaller = {"grid": {"seeds": [0]}, "walk_forward": {"windows": 2}}
    whole, said = run(walking(drifting, runs, **smaller))
    assert "3 cells, 3 of them done" in said  # windows are known by their rows, whoever asks for them
    with broken_off(monkeypatch, after=3):
        run(walking(drifting, tmp_path, **smaller))
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("*/cell.json")}
    assert len(done) == 3
    again, said = run(walking(drifting, tmp_path, **smaller))
    assert "3 cells, 1 of them done" in said
    assert {path: path.stat().st_mtime_ns for path in done} == done
    before, after = (job.load_document(folder)["walk_forward"]["sets"] for folder in (whole, again))
    assert json.dumps(after) == json.dumps(before)


def test_what_is_done_is_not_read_again(drifting, runs, walked, monkeypatch):
    monkeypatch.setattr(Dataset, "sealed_test", None)
    _, said = run(walking(drifting, runs, walk_forward={"new_values": ["drop", "keep"]}), out=walked[0])
    assert "already done" in said


def test_each_choice_of_pairs_walks_under_its_own_name(steady, tmp_path):
    own = {"backbone": {"kind": "fnn", "hidden": [4]}, "selector": {"kind": "optinter", "pair_dim": 2}}
    grid = {"selectors": ["optinter"], "choices": ["memorize", "factorize"], "seeds": [0]}
    walk = {"windows": 2, "sets": "all"}
    folder, _ = run(walking(steady, tmp_path, run=own, grid=grid, walk_forward=walk))
    found = job.load_document(folder)["walk_forward"]["sets"]
    assert [one["label"] for one in found] == ["optinter memorize", "optinter factorize"]
    aucs = [[point["auc"] for point in one["points"]["anew"]] for one in found]
    assert all(memorized != factorized for memorized, factorized in zip(*aucs, strict=True))


def test_a_log_without_time_is_refused_before_anything_is_trained(steady, tmp_path):
    text = (steady / "schema.toml").read_text()
    text = text.replace('by = "time"', 'by = "random"').replace('column = "time"\n', "")
    (tmp_path / "random.toml").write_text(text)
    data = {"schema": str(tmp_path / "random.toml"), "input": str(steady / "log.csv")}
    config = walking(steady, tmp_path / "runs", run={"data": {**data, "folder": str(tmp_path / "datasets")}})
    with pytest.raises(ConfigError, match=r'splits by = "random"; a walk forward needs a log with time'):
        run(config)
    assert not (tmp_path / "runs").exists()
