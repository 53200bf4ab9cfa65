"""A comparison end to end on a tiny log: what it leaves, what is read when, and what breaking it off does."""

import io
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

import ctr.jobs.compare as job
from ctr.config import load_config
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.store import Dataset
from ctr.errors import ConfigError, CtrError
from ctr.evaluation import auc_difference
from ctr.settings import dump_toml
from tests.jobs.comparison_logs import broken_off, comparison, content, write_log

ROOT = Path(__file__).parents[2]

GRID = {"selectors": ["optfs", "frequency"], "sizes": [0.5, 0.2], "seeds": [0, 1, 2]}


def run(config, **keys):
    console = Console(file=io.StringIO(), width=300)
    folder = job.compare(config, console=console, **keys)
    return folder, console.file.getvalue()


def children(pid):
    """Processes that a process has started, by their numbers."""
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.fixture(scope="module", autouse=True)
def _plain_page():
    """Pages have tests of their own, and take longer than all the rest."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            job, "write_comparison", lambda document, folder, _: (folder / "comparison.html").touch()
        )
        yield


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return write_log(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Where cells are kept: tests share them."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def finished(log, runs):
    """A comparison of 12 cells and 21 models, and what it said."""
    return run(comparison(log, runs), command="ctr compare tiny.toml")


@pytest.fixture
def document(finished):
    return job.load_document(finished[0])


def setting(document, label, size=None):
    return next(each for each in document["settings"] if (each["label"], each["size"]) == (label, size))


def test_it_leaves_a_table_a_document_and_a_page(finished, document):
    folder, said = finished
    assert {path.name for path in folder.iterdir()} == {
        "choice.json",
        "comparison.html",
        "comparison.json",
        "comparison.parquet",
        "scores.parquet",
    }
    table = pl.read_parquet(folder / "comparison.parquet")
    assert table.height == 21
    assert table.group_by("role").len().sort("role").rows() == [
        ("alternative", 6),
        ("keep_all", 3),
        ("selector", 12),
    ]
    assert document["seeds"] == [0, 1, 2]
    assert document["rows"] == 320
    assert document["verdict"].startswith("Chosen on valid, ")
    assert document["command"] == "ctr compare tiny.toml"
    assert "12/12" in said


def test_the_smallest_provable_margin_is_said_before_the_first_cell(finished):
    said = finished[1]
    assert "320 test rows" in said
    assert said.index("can rule out a loss of AUC beyond") < said.index("  1/12")


def test_every_model_of_a_size_keeps_as_many_values_and_stores_as_many_bytes(document):
    for size in (0.5, 0.2):
        same = [setting(document, label, size) for label in ("optfs", "frequency", "min count")]
        assert len({each["kept"] for each in same}) == 1
        assert max(e["table_bytes"] for e in same) <= 1.1 * min(e["table_bytes"] for e in same) + 100


def test_differences_are_those_of_the_scores_on_disk(finished, document):
    scores = pl.read_parquet(finished[0] / "scores.parquet")
    table = pl.read_parquet(finished[0] / "comparison.parquet").with_row_index("model")
    chosen = {}
    for label, size in (("keep all", None), ("frequency", 0.5)):
        same = pl.col("size").is_null() if size is None else pl.col("size") == size
        own = table.filter(pl.col("label") == label, same).sort("seed")
        chosen[label] = [scores[f"model_{number}"].to_numpy() for number in own["model"]]
    labels = scores["label"].to_numpy()
    pairs = zip(chosen["keep all"], chosen["frequency"], strict=True)
    each = [auc_difference(labels, old, new).value for old, new in pairs]
    found = setting(document, "frequency", 0.5)["differences"]["keep_all"]
    assert found["by_seed"] == pytest.approx(each, abs=1e-12)
    assert found["auc"]["value"] == pytest.approx(np.mean(each), abs=1e-12)
    assert found["auc_corrected"]["low"] < found["auc"]["low"] < found["auc"]["value"]


def test_keep_all_in_fewer_bits_is_an_alternative_that_is_not_trained_again(finished, log, runs):
    grid = {**GRID, "selectors": ["frequency"], "sizes": [0.5], "seeds": [0]}
    folder, _ = run(comparison(log, runs, grid=grid, compare={"alternatives": ["int8"]}))
    table = pl.read_parquet(folder / "comparison.parquet")
    keep_all, int8 = (
        table.row(by_predicate=pl.col("label") == name, named=True) for name in ("keep all", "int8")
    )
    assert int8["role"] == "alternative"
    assert int8["table_bytes"] < 0.75 * keep_all["table_bytes"]
    assert 0 < abs(int8["test_logloss"] - keep_all["test_logloss"]) < 0.01  # the same weights, rounded
    weights = [
        {file.stat().st_ino for file in Path(each["source"]).glob("checkpoints/baseline/best/*.safetensors")}
        for each in (keep_all, int8)
    ]
    assert weights[0] == weights[1] != set()


def test_frequency_is_compared_with_itself_nowhere_and_alternatives_with_it(document):
    assert set(setting(document, "optfs", 0.5)["differences"]) == {"keep_all", "frequency", "alternative"}
    assert set(setting(document, "frequency", 0.5)["differences"]) == {"keep_all", "alternative"}
    assert set(setting(document, "min count", 0.5)["differences"]) == {"keep_all", "frequency"}
    assert setting(document, "keep all")["differences"] == {}
    # At 20 % a row for each unknown makes min count more than a tenth larger than what it would stand beside.
    assert setting(document, "optfs", 0.2)["differences"].keys() == {"keep_all", "frequency"}
    assert document["comparisons"] == 12


def test_stability_is_told_for_every_set_of_a_selector(document):
    assert [(each["label"], each["size"]) for each in document["stability"]] == [
        ("optfs", 0.5),
        ("optfs", 0.2),
        ("frequency", 0.5),
        ("frequency", 0.2),
    ]
    frequency = document["stability"][2]
    assert frequency["features"]["nogueira"]["value"] == 1.0
    assert frequency["coin_flips"] == 0
    importance = document["equal_runs"]["importance"]
    assert set(importance) == {"user", "noise", "tags"}
    assert min(importance["user"]) > 0.05 > max(map(abs, importance["noise"]))
    pairs = {tuple(each["fields"]): each["values"] for each in document["equal_runs"]["pair_importance"]}
    assert set(pairs) == {("user", "noise"), ("user", "tags"), ("noise", "tags")}
    assert max(map(abs, pairs["user", "noise"])) < 0.05


def test_the_same_command_again_writes_nothing(finished, log, runs):
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    folder, said = run(comparison(log, runs))
    assert folder == finished[0]
    assert "already done" in said
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before


def test_test_is_read_once_after_the_choice_stands_for_all_models_together(log, runs, tmp_path, monkeypatch):
    reads = []
    whole = Dataset.sealed_test

    def counted(self, *arguments, **keys):
        reads.append((tmp_path / "out" / "choice.json").is_file())
        return whole(self, *arguments, **keys)

    monkeypatch.setattr(Dataset, "sealed_test", counted)
    run(comparison(log, runs), out=tmp_path / "out")
    assert reads == [True]
    run(comparison(log, runs, compare={"max_auc_loss": 0.01}), out=tmp_path / "out")
    assert len(reads) == 2  # other rules may choose something else: that is another look, and counted as one


def test_cells_are_trained_without_test(log, tmp_path, monkeypatch):
    def refuse(self, *arguments, **keys):
        raise AssertionError("test was read")

    monkeypatch.setattr(Dataset, "sealed_test", refuse)
    config = comparison(log, tmp_path, grid={**GRID, "seeds": [0], "selectors": ["frequency"]})
    with pytest.raises(AssertionError, match="test was read"):
        run(config)
    cells = list((tmp_path / "cells").glob("*/cell.json"))
    assert len(cells) == 3
    assert not any("test" in json.loads(path.read_text())["points"][0] for path in cells)


def test_a_comparison_that_was_broken_off_goes_on_and_comes_to_the_same(log, runs, tmp_path, monkeypatch):
    smaller = {"grid": {**GRID, "selectors": ["frequency"], "sizes": [0.5]}, "compare": {"alternatives": []}}
    whole, _ = run(comparison(log, runs, **smaller))
    with broken_off(monkeypatch, after=4):
        run(comparison(log, tmp_path, **smaller))
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").glob("*/cell.json")}
    assert len(done) == 4
    again, said = run(comparison(log, tmp_path, **smaller))
    assert "6 cells, 4 of them done" in said
    assert {path: path.stat().st_mtime_ns for path in done} == done
    before, after = (pl.read_parquet(folder / "comparison.parquet") for folder in (whole, again))
    assert after.drop("source", "seconds").equals(before.drop("source", "seconds"))


@pytest.mark.slow
def test_a_killed_comparison_leaves_no_process_behind_and_goes_on(log, tmp_path):
    path = tmp_path / "tiny.toml"
    path.write_text(dump_toml(content(log, tmp_path / "runs", compare={"alternatives": [], "jobs": 2})))
    command = [sys.executable, "-m", "pipelines.compare", str(path), "--out", str(tmp_path / "out")]
    started = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    for line in started.stderr:
        if "1/9" in line:
            break
    workers = [int(pid) for pid in children(started.pid)]
    started.kill()
    started.wait()
    assert workers
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers)
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "9 cells, " in again.stderr
    assert "of them done" in again.stderr
    assert "Chosen on valid" in again.stdout


def test_a_selector_finds_keep_all_of_its_network_and_seed_trained(finished, runs):
    keep_all, optfs = (sorted((runs / "cells").glob(f"tiny-{name}-*")) for name in ("keep-all", "optfs"))
    weights = [path / "checkpoints" / "baseline" / "best" for path in (*keep_all, *optfs)]
    found = [{file.name: file.read_bytes() for file in path.iterdir()} for path in weights if path.is_dir()]
    assert len(found) == 6
    assert all(each in found[:3] for each in found[3:])


def test_a_wider_grid_trains_what_is_new_alone(finished, log, runs):
    _, said = run(comparison(log, runs, grid={**GRID, "selectors": ["optfs", "frequency", "random"]}))
    assert "15 cells, 12 of them done" in said


def test_a_trial_ranks_by_what_keep_all_was_asked_and_alike_where_it_was_not(log, tmp_path):
    training = {"batch_size": 128, "epochs": 2, "learning_rate": 1e-2}
    grid, chosen = {"selectors": ["trial"], "sizes": [0.2], "seeds": [0]}, []
    for first in ("trial", "frequency"):
        for selector in (first, "trial"):
            found = {**grid, "selectors": [selector]}
            asked = {"run": {"training": training}, "grid": found, "compare": {"alternatives": []}}
            run(comparison(log, tmp_path / first, **asked))
        (cell,) = (tmp_path / first / "cells").glob("tiny-trial-*")
        assert (cell / "checkpoints" / "trial-network").exists() == (first == "frequency")
        chosen.append(FeatureSet.load(cell / "feature_sets" / "trial-0.2").digest())
    assert chosen[0] == chosen[1]


def test_optinter_is_compared_with_its_pure_baselines_each_by_its_name(log, runs, tmp_path):
    """Of three fields one is a list, so there is one pair."""
    own = {"kind": "optinter", "choice": "random", "random_counts": [1, 0], "epochs": 1, "pair_dim": 2}
    shared = content(log, runs)["run"] | {"selector": own}
    choices = ["search", "memorize", "factorize", "naive", "random", "best"]
    grid = {"selectors": ["optinter"], "choices": choices, "seeds": [0, 1]}
    config = comparison(log, runs, run=shared, grid=grid, compare={"alternatives": []})
    path = tmp_path / "run.toml"
    path.write_text(dump_toml(shared))
    folder, _ = run(config, ship=f"ctr train {path}")
    document = job.load_document(folder)
    found = {each["label"]: each for each in document["settings"]}
    assert list(found) == ["keep all", *(f"optinter {choice}" for choice in choices)]
    pairs = {
        name: (each["memorized"], each["factorized"], each["cross_rows"] == 0) for name, each in found.items()
    }
    assert pairs["keep all"] == (None, None, False)
    assert pairs["optinter memorize"] == pairs["optinter random"] == (1, 0, False)
    assert pairs["optinter factorize"] == (0, 1, True)
    assert pairs["optinter naive"] == (0, 0, True)
    rows = found["optinter memorize"]["cross_rows"]
    assert 1 < rows <= 30 * 40 + 1
    more = found["optinter memorize"]["table_bytes"] - found["optinter naive"]["table_bytes"]
    assert more == rows * 2 * 4
    table = pl.read_parquet(folder / "comparison.parquet").filter(label="optinter memorize")
    assert table["cross_rows"].to_list() == [rows, rows]
    assert table["memorized"].to_list() == [1, 1]
    # The command that the page gives trains what was chosen: that the run states other counts is taken back.
    chosen = document["choice"]["chosen"]["label"].removeprefix("optinter ")
    words = shlex.split(document["ship"])
    shipped = load_config(path, [word for word in words[3:] if word != "--set"])
    assert shipped.selector.choice == chosen != "random", "its settings would be those of the file"
    assert shipped.selector.random_counts is None


def test_a_limit_that_a_choice_cannot_meet_is_told(log, tmp_path):
    own = {"kind": "optinter", "max_cross_bytes": 100, "pair_dim": 2}
    shared = content(log, tmp_path)["run"] | {"selector": own}
    grid = {"selectors": ["optinter"], "choices": ["naive", "memorize"], "seeds": [0]}
    with pytest.raises(ConfigError, match=r"max_cross_bytes = 100 does not hold the 1 pairs"):
        run(comparison(log, tmp_path, run=shared, grid=grid, compare={"alternatives": []}))


def test_what_a_search_keeps_of_shuffled_copies_is_in_the_document(log, tmp_path):
    shared = content(log, tmp_path)["run"] | {"selector": {"epochs": 1, "shadow": 0.5}}
    grid = {"selectors": ["optfs", "frequency"], "sizes": [0.5], "seeds": [0]}
    folder, _ = run(comparison(log, tmp_path, run=shared, grid=grid, compare={"alternatives": []}))
    document = job.load_document(folder)
    (found,) = setting(document, "optfs", 0.5)["shadow"]
    assert 0 <= found["kept"] <= found["total"] > 0
    assert setting(document, "frequency", 0.5)["shadow"] == [None]


def test_one_seed_speaks_about_this_model_only(log, runs):
    folder, _ = run(comparison(log, runs, grid={**GRID, "seeds": [0]}))
    assert "(this model only)" in job.load_document(folder)["verdict"]
    assert job.load_document(folder)["stability"][0]["features"]["nogueira"] is None


def test_rows_of_a_user_can_be_drawn_together(log, runs):
    folder, _ = run(comparison(log, runs, compare={"cluster": "user"}))
    clustered = setting(job.load_document(folder), "optfs", 0.5)["differences"]["keep_all"]
    single = setting(job.load_document(run(comparison(log, runs))[0]), "optfs", 0.5)["differences"][
        "keep_all"
    ]
    assert clustered["auc"]["value"] == pytest.approx(single["auc"]["value"], abs=1e-12)
    assert clustered["rows_variance"] != pytest.approx(single["rows_variance"], rel=0.01)


def test_a_budget_that_nothing_fits_chooses_nothing_and_says_so(log, runs):
    folder, _ = run(comparison(log, runs, compare={"max_bytes": 10}))
    document = job.load_document(folder)
    assert document["choice"]["chosen"] is None
    assert document["verdict"].startswith("No set of the grid fits the budget (max_bytes = 10); keep-all has")


def test_a_budget_of_cost_is_met_by_what_is_chosen(log, runs):
    folder, _ = run(comparison(log, runs, compare={"max_cost": 3.0}))
    document = job.load_document(folder)
    assert document["choice"]["chosen"] == document["choice"]["budget"]
    assert (
        setting(document, document["choice"]["chosen"]["label"], document["choice"]["chosen"]["size"])["cost"]
        <= 3
    )


def test_a_column_that_the_log_lacks_is_named_with_its_nearest(log, runs):
    with pytest.raises(ConfigError, match='the log has no such column; the nearest name is "user"'):
        run(comparison(log, runs, compare={"cluster": "usr"}))


def test_a_cell_that_was_altered_is_named(log, tmp_path):
    smaller = {**GRID, "seeds": [0], "selectors": ["frequency"], "sizes": [0.5]}
    run(comparison(log, tmp_path, grid=smaller))
    next((tmp_path / "cells").glob("*/cell.json")).write_text("{}")
    with pytest.raises(CtrError, match="delete the folder, and the same command trains it"):
        run(comparison(log, tmp_path, grid=smaller), force=True)
