"""Finished runs compared by what they left on disk."""

import json
import shutil

import polars as pl
import pytest

import ctr.jobs.compare as job
from ctr.errors import ConfigError, CtrError, DataError
from ctr.evaluation import auc_difference
from ctr.jobs.finished_runs import FinishedRuns

ROWS = 400


def write_run(
    folder, selector="optfs", *, seed=0, ratio=0.5, labels=None, rows=ROWS, epochs=3, shift=0.0, settings=""
):
    """What a run leaves, as far as a comparison reads it; scores that depend on selector and seed alone."""
    kinds = {"optfs": 1, "frequency": 2, "none": 3, "optinter": 4}
    frame = pl.DataFrame({"row": range(1000, 1000 + rows)}).with_columns(
        (pl.col("row") * 7919 % 3 == 0).cast(pl.UInt8).alias("label")
        if labels is None
        else pl.Series("label", labels)
    )

    def scores(number):
        noise = (pl.col("row") * (2654435761 + number) % 1009) / 1009
        return (0.05 + 0.3 * pl.col("label") + 0.6 * noise).alias("s")

    frame = frame.with_columns(
        scores(17 * seed).alias("baseline"),
        (scores(17 * seed + kinds[selector]) * (1 - shift)).alias("selected"),
    )
    if selector == "none":
        frame = frame.with_columns(pl.lit(None, pl.Float64).alias("selected"))
    sizes = {"parameters": 100, "bytes": 400, "table_bytes": 200}
    valid = {"valid": {"auc": 0.7 + seed / 1000, "logloss": 0.5}}
    report = {
        "dataset": {"name": "tiny", "digest": "d" * 36, "rows": {"train": 9, "valid": 9, "test": rows}}
        | {"fields": 2, "features": 12, "window": None},
        "baseline": sizes | valid,
        "selected": None if selector == "none" else {**sizes, "table_bytes": 100} | valid,
        "feature_set": {"kept": 5, "total": 10, "ratio": ratio, "cost": None, "groups": None}
        | {"fields": {"user": {"kept": 5, "total": 8}, "item": {"kept": 0, "total": 2}}},
        "bundle": {"bytes": 900},
        "seconds": {"baseline": 1.0, "search": 2.0, "retrain": 3.0},
        "seed": seed,
        "selector": selector,
        "backbone": "deepfm",
        "embedding": "table",
    }
    (folder / "scores").mkdir(parents=True)
    frame.write_parquet(folder / "scores" / "test.parquet")
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "config.toml").write_text(
        f'[selector]\nkind = "{selector}"\n{settings}\n[training]\nepochs = {epochs}\n[backbone]\nkind = "deepfm"\n'
    )
    (folder / "feature_set").mkdir()
    return folder


@pytest.fixture(autouse=True)
def _no_feature_sets(monkeypatch):
    monkeypatch.setattr(
        job, "write_comparison", lambda document, folder, _: (folder / "comparison.html").touch()
    )
    monkeypatch.setattr("ctr.jobs.comparison_document.stability", lambda groups: [])
    monkeypatch.setattr("ctr.jobs.comparison_document._chosen_set", lambda groups, choice: None)


@pytest.fixture
def runs(tmp_path):
    """Two selectors, three seeds each."""
    return [
        str(write_run(tmp_path / f"{selector}-{seed}", selector, seed=seed))
        for selector in ("optfs", "frequency")
        for seed in range(3)
    ]


def test_runs_of_two_selectors_share_keep_all_and_are_paired_by_seed(runs, tmp_path):
    folder = job.compare_runs(runs, tmp_path / "out")
    document = job.load_document(folder)
    assert [(each["label"], each["size"], each["seeds"]) for each in document["settings"]] == [
        ("keep all", None, [0, 1, 2]),
        ("optfs", 0.5, [0, 1, 2]),
        ("frequency", 0.5, [0, 1, 2]),
    ]
    found = document["settings"][1]["differences"]
    first = pl.read_parquet(tmp_path / "optfs-0" / "scores" / "test.parquet")
    label, old, new = (first[name].to_numpy() for name in ("label", "baseline", "selected"))
    assert found["keep_all"]["by_seed"][0] == pytest.approx(auc_difference(label, old, new).value, abs=1e-12)
    assert set(found) == {"keep_all", "frequency"}
    assert pl.read_parquet(folder / "comparison.parquet").height == 9


def test_a_run_that_selected_nothing_is_keep_all(tmp_path):
    names = [str(write_run(tmp_path / kind, kind)) for kind in ("none", "optfs")]
    entries = FinishedRuns(names).entries()
    assert [entry.setting.label for entry in entries] == ["keep all", "optfs"]


def test_runs_that_scored_other_rows_are_refused_with_what_differs(runs, tmp_path):
    other = write_run(tmp_path / "other", rows=ROWS - 3)
    with pytest.raises(DataError, match="they scored 400 and 397 test rows"):
        FinishedRuns([*runs, str(other)])


def test_runs_with_other_labels_are_refused_with_the_first_of_them(runs, tmp_path):
    labels = pl.read_parquet(f"{runs[0]}/scores/test.parquet")["label"].to_list()
    labels[7] = 1 - labels[7]
    other = write_run(tmp_path / "other", seed=5, labels=labels)
    with pytest.raises(DataError, match="their labels differ in 1 of 400 test rows, first at position 7"):
        FinishedRuns([*runs, str(other)])


def test_runs_with_other_row_numbers_are_refused(runs, tmp_path):
    other = write_run(tmp_path / "other", seed=5)
    path = other / "scores" / "test.parquet"
    pl.read_parquet(path).with_columns(pl.col("row") + 1).write_parquet(path)
    with pytest.raises(DataError, match="their row numbers differ in 400 of 400"):
        FinishedRuns([*runs, str(other)])


def test_runs_of_unequal_budgets_are_refused(runs, tmp_path):
    other = write_run(tmp_path / "other", seed=5, epochs=9)
    with pytest.raises(ConfigError, match=r"training\.epochs is 3 and 9; a comparison needs equal budgets"):
        FinishedRuns([*runs, str(other)])


def test_two_runs_of_one_setting_and_seed_that_differ_are_refused(runs, tmp_path):
    other = write_run(tmp_path / "other", "frequency", shift=0.01)
    with pytest.raises(ConfigError, match='both hold "frequency" with seed 0'):
        FinishedRuns([*runs, str(other)]).entries()


SEARCHES = {
    "optinter memorize": 'choice = "memorize"',
    "optinter search, search_rows held_out": 'choice = "search"\nsearch_rows = "held_out"',
    "optinter search, search_rows train": 'choice = "search"\nsearch_rows = "train"',
    "optinter search, max_cross_bytes 900, search_rows held_out": (
        'choice = "search"\nsearch_rows = "held_out"\nmax_cross_bytes = 900'
    ),
}


def test_runs_that_chose_pairs_otherwise_are_settings_of_their_own(tmp_path):
    names = [
        str(write_run(tmp_path / f"{number}-{seed}", "optinter", seed=seed, shift=number / 100, settings=own))
        for number, own in enumerate(SEARCHES.values())
        for seed in range(2)
    ]
    found = FinishedRuns(names).entries()
    labels = [(entry.setting.label, entry.setting.size, entry.seed) for entry in found]
    assert labels[:2] == [("keep all", None, 0), ("optinter memorize", None, 0)]
    assert {entry[:2] for entry in labels[1:]} == {("keep all", None), *((label, None) for label in SEARCHES)}
    assert len(labels) == 10


def test_what_runs_do_not_differ_in_has_no_place_in_their_names(tmp_path):
    own = 'choice = "memorize"\nmax_cross_bytes = 900\nreferees = ["random"]'
    names = [str(write_run(tmp_path / "one", "optinter", settings=own))]
    names.append(
        str(write_run(tmp_path / "two", "optinter", seed=1, settings=own.replace("random", "trial")))
    )
    assert {entry.setting.label for entry in FinishedRuns(names).entries()} == {"keep all", "optinter"}


def test_long_lists_of_pairs_are_told_apart_by_a_digest(tmp_path):
    lists = [[["user", f"field_{number}"] for number in range(first, first + 9)] for first in (0, 1)]
    names = [
        str(write_run(tmp_path / f"{number}", "optinter", shift=number / 10, settings=f"pairs = {own}"))
        for number, own in enumerate(lists)
    ]
    _, one, two = (entry.setting.label for entry in FinishedRuns(names).entries())
    assert one.startswith("optinter, pairs 9 (")
    assert len(one) == len(two)
    assert one != two


def test_frequency_is_found_by_its_name_whatever_its_search_would_have_been(tmp_path):
    names = [
        str(write_run(tmp_path / f"{epochs}", "frequency", seed=epochs, settings=f"epochs = {epochs}"))
        for epochs in (1, 2)
    ]
    assert {entry.setting.label for entry in FinishedRuns(names).entries()} == {"keep all", "frequency"}


@pytest.mark.parametrize("number", [0, 1])
def test_fewer_than_two_runs_are_refused(runs, number):
    with pytest.raises(ConfigError, match="at least two runs"):
        FinishedRuns(runs[:number])


def test_a_run_that_is_named_twice_is_refused(runs):
    with pytest.raises(ConfigError, match="named more than once"):
        FinishedRuns([runs[0], runs[1], runs[0] + "/"])


def test_a_folder_that_is_not_there_is_named_with_its_nearest(runs):
    with pytest.raises(ConfigError, match='the nearest name is "optfs-0"'):
        FinishedRuns([runs[1], runs[0] + "0"])


def test_a_run_without_a_file_says_which(runs, tmp_path):
    shutil.rmtree(f"{runs[0]}/scores")
    with pytest.raises(CtrError, match=r"its test scores .*test\.parquet\" cannot be read"):
        FinishedRuns(runs)
    (tmp_path / "optfs-1" / "report.json").unlink()
    with pytest.raises(ConfigError, match="the run is not finished: repeat its command first"):
        FinishedRuns(runs[1:])


def test_mlflow_ids_are_found_by_what_run_folders_say(runs, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    names = []
    for number, run in enumerate(runs[:2]):
        moved = tmp_path / "runs" / f"tiny-{number}"
        shutil.move(run, moved)
        names.append(f"{number}" * 32)
        (moved / "mlflow.json").write_text(json.dumps({"run_id": names[-1], "uri": "off"}))
    monkeypatch.chdir(tmp_path)
    assert [folder.name for folder in FinishedRuns(names).folders] == ["tiny-0", "tiny-1"]
    with pytest.raises(CtrError, match="name the folder of the run, or the store with --tracking-uri"):
        FinishedRuns([names[0], "f" * 32])


def test_mlflow_ids_whose_folders_are_elsewhere_are_compared_by_what_was_logged(runs, tmp_path, monkeypatch):
    pytest.importorskip("sqlalchemy", reason="MLflow is not installed")
    from ctr.tracking import Tracker

    monkeypatch.chdir(tmp_path)
    tracker, ids = Tracker.open(None, "ctr", fallback=tmp_path / "runs"), []
    config = {"output": {"folder": "elsewhere"}}
    for name in runs[:2]:
        folder = tmp_path / name
        with tracker.job(folder.name, config=config, config_text="", tags={}, datasets=[]) as logged:
            logged.finish(json.loads((folder / "report.json").read_text()), folder, scores=True)
        ids.append(logged.run_id)
    found = FinishedRuns(ids, fetched=tmp_path / "out" / "runs")
    assert [folder.relative_to(tmp_path / "out" / "runs").name for folder in found.folders] == ids
    there = FinishedRuns(runs[:2])
    for ours, theirs in zip(found.entries(), there.entries(), strict=True):
        assert (ours.setting, ours.seed) == (theirs.setting, theirs.seed)
        assert (ours.test == theirs.test).all()
