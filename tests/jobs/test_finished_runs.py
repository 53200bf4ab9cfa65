"""Finished runs compared by what they left on disk."""

import json
import shutil

import polars as pl
import pytest

import ctr.jobs.compare as job
from ctr.dataset.feature_set import FeatureSet
from ctr.errors import ConfigError, CtrError, DataError
from ctr.evaluation import auc_difference
from ctr.jobs.finished_runs import FinishedRuns

ROWS = 400
VALUES = {"user": 8, "item": 2}  # of each field; a run keeps the first half of users, and no item


def write_run(
    folder,
    selector="optfs",
    *,
    seed=0,
    ratio=0.5,
    labels=None,
    rows=ROWS,
    epochs=3,
    shift=0.0,
    settings="",
    data="",
    digest="d" * 36,
    values=VALUES,
):
    """What a run leaves, as far as a comparison reads it; scores that depend on selector and seed alone."""
    kinds = {"optfs": 1, "frequency": 2, "none": 3, "optinter": 4, "saliency": 5}
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
        "dataset": {"name": "tiny", "digest": digest, "rows": {"train": 9, "valid": 9, "test": rows}}
        | {"fields": 2, "features": 12, "window": None},
        "baseline": sizes | valid,
        "selected": None if selector == "none" else {**sizes, "table_bytes": 100} | valid,
        "feature_set": {"ratio": 0.5, "cost": None, "groups": None, **write_features(folder, values)},
        "bundle": {"bytes": 900},
        "seconds": {"baseline": 1.0, "search": 2.0, "retrain": 3.0},
        "seed": seed,
        "selector": selector,
        "backbone": "deepfm",
        "embedding": "table",
    }
    (folder / "scores").mkdir()
    frame.write_parquet(folder / "scores" / "test.parquet")
    (folder / "report.json").write_text(json.dumps(report))
    size = f"ratio = [{ratio}]" if ratio and selector not in ("none", "optinter") else ""
    (folder / "config.toml").write_text(
        f'[selector]\nkind = "{selector}"\n{size}\n{settings}\n[training]\nepochs = {epochs}\n'
        f'[backbone]\nkind = "deepfm"\n[data]\n{data}\n'
    )
    return folder


def write_features(folder, values):
    """A feature set as a run leaves it, and what its report says of it."""
    rows = [(field, f"{field[0]}{n}", n, 50 - n) for field, number in values.items() for n in range(number)]
    features = pl.DataFrame(rows, ["field", "value", "id", "count"], orient="row").with_columns(
        role=pl.lit("value"),
        gate=pl.lit(1.0),
        kept=(pl.col("field") == next(iter(values))) & (pl.col("id") < next(iter(values.values())) // 2),
    )
    FeatureSet(features, {"dataset": "d"}).save(folder / "feature_set")
    counts = FeatureSet(features).counts()
    return {key: counts[key] for key in ("kept", "total", "fields")}


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


def shown(names):
    """The settings of runs, with their seeds."""
    found = {}
    for entry in FinishedRuns(names).entries():
        found.setdefault((entry.setting.label, entry.setting.size, entry.setting.embedding), []).append(
            entry.seed
        )
    return found


def test_settings_of_other_seeds_are_paired_over_the_seeds_that_both_have(runs, tmp_path):
    document = job.load_document(job.compare_runs(runs[:-1], tmp_path / "out"))
    *_, optfs, frequency = document["settings"]
    assert (optfs["seeds"], frequency["seeds"]) == ([0, 1, 2], [0, 1])
    assert len(optfs["differences"]["keep_all"]["by_seed"]) == 3
    assert len(optfs["differences"]["frequency"]["by_seed"]) == 2
    scores = (
        pl.read_parquet(f"{runs[1]}/scores/test.parquet"),
        pl.read_parquet(f"{runs[4]}/scores/test.parquet"),
    )
    expected = auc_difference(scores[0]["label"], scores[1]["selected"], scores[0]["selected"]).value
    assert optfs["differences"]["frequency"]["by_seed"][1] == pytest.approx(expected, abs=1e-12)
    assert document["left_out"] == []


def test_settings_that_share_no_seed_are_not_compared_and_the_page_says_so(runs, tmp_path):
    folder = job.compare_runs([runs[0], *runs[4:]], tmp_path / "out")
    document = job.load_document(folder)
    assert set(document["settings"][1]["differences"]) == {"keep_all"}
    told = "optfs at 50 % minus frequency at 50 %: they share no seed (0 and 1, 2)"
    assert document["left_out"][0].startswith(told)
    assert told in (folder / "comparison.html").read_text(encoding="utf-8")


def test_seeds_of_one_penalty_are_one_setting_however_much_each_keeps(tmp_path):
    names = []
    for seed, found in enumerate((0.42, 0.57)):
        run = write_run(tmp_path / f"{seed}", seed=seed, ratio=None, settings="penalty = [4.0]")
        report = json.loads((run / "report.json").read_text())
        report["feature_set"]["ratio"] = found
        (run / "report.json").write_text(json.dumps(report))
        names.append(str(run))
    assert shown(names)["optfs penalty 4", None, "table"] == [0, 1]


def test_runs_that_state_no_size_are_of_the_penalty_that_stands_for_it(tmp_path):
    names = [str(write_run(tmp_path / f"{seed}", seed=seed, ratio=None)) for seed in (0, 1)]
    assert shown(names)["optfs penalty 2.5", None, "table"] == [0, 1]


OTHER = {"user": 6, "city": 4}  # a vocabulary with fewer users, and another field


def test_runs_over_other_data_are_settings_of_their_own_named_by_what_differs(tmp_path):
    first = [write_run(tmp_path / f"a{seed}", seed=seed, data='schema = "log/all.toml"') for seed in (0, 1)]
    other = {"data": 'schema = "log/frequent.toml"', "digest": "e" * 36, "values": OTHER}
    second = [write_run(tmp_path / f"b{seed}", seed=seed, shift=0.1, **other) for seed in (0, 1)]
    for run in second:  # another vocabulary is another keep-all
        path = run / "scores" / "test.parquet"
        pl.read_parquet(path).with_columns(pl.col("baseline") * 0.9).write_parquet(path)
    folder = job.compare_runs([str(run) for run in (*first, *second)], tmp_path / "out")
    document = job.load_document(folder)
    assert [(each["label"], each["embedding"], each["seeds"]) for each in document["settings"]] == [
        ("keep all", "table, schema all.toml", [0, 1]),
        ("optfs", "table, schema all.toml", [0, 1]),
        ("keep all", "table, schema frequent.toml", [0, 1]),
        ("optfs", "table, schema frequent.toml", [0, 1]),
    ]
    assert [each["embedding"] for each in document["stability"]][-1] == "all"
    # Of the six users that both vocabularies have, one keeps the first four and the other the first three.
    together = document["stability"][-1]
    assert together["features"]["jaccard"] == pytest.approx((1 + 1 + 4 * 3 / 4) / 6)
    assert [each["value"] for each in together["coin_flips_named"]] == ["u3"]
    assert together["fields_by_run"] == {"user": 4, "item": 0, "city": 0}
    assert "schema frequent.toml" in (folder / "comparison.html").read_text(encoding="utf-8")


def test_one_schema_file_that_changed_between_runs_is_told_by_a_digest(tmp_path):
    names = [
        str(write_run(tmp_path / digest, data='schema = "all.toml"', digest=digest * 36)) for digest in "de"
    ]
    assert {name[2] for name in shown(names)} == {"table, data dddddd", "table, data eeeeee"}


def test_the_same_data_found_elsewhere_is_the_same_data(tmp_path):
    names = [
        str(write_run(tmp_path / f"{seed}", seed=seed, data=f'input = "{seed}/log.csv"')) for seed in (0, 1)
    ]
    assert {name[2] for name in shown(names)} == {"table"}


def test_runs_whose_vocabularies_have_nothing_in_common_have_no_stability_together(tmp_path):
    names = [
        str(
            write_run(
                tmp_path / digest, digest=digest * 36, values={"user": number} if number else {"city": 3}
            )
        )
        for digest, number in (("d", 4), ("e", 0))
    ]
    document = job.load_document(job.compare_runs(names, tmp_path / "out"))
    assert document["stability"][-1]["features"] == {"nogueira": None, "jaccard": None}
    assert document["stability"][-1]["fields_by_run"] == {"user": 1, "city": 1}


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


def test_searches_of_unequal_length_are_refused(tmp_path):
    names = [
        str(write_run(tmp_path / f"{epochs}", seed=epochs, settings=f"epochs = {epochs}"))
        for epochs in (3, 50)
    ]
    with pytest.raises(ConfigError, match=r"selector\.epochs is 3 and 50; a comparison needs equal budgets"):
        FinishedRuns(names)


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("optfs", "gate_learning_rate = 1.0", "gate_learning_rate = 0.001"),
        ("optfs", 'dropped_reads = "zero"', 'dropped_reads = "unknown"'),
        ("saliency", 'saliency = "fisher"', 'saliency = "second_order"'),
    ],
)
def test_runs_whose_selectors_were_asked_otherwise_are_no_seeds_of_one_setting(tmp_path, kind, one, other):
    names = [
        str(write_run(tmp_path / f"{seed}", kind, seed=seed, settings=own))
        for seed, own in enumerate((one, other))
    ]
    told = [f"{kind}, " + own.replace(" = ", " ").replace('"', "") for own in (one, other)]
    assert shown(names) == {("keep all", None, "table"): [0, 1]} | {
        (label, 0.5, "table"): [seed] for seed, label in enumerate(told)
    }


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


@pytest.mark.parametrize(
    ("key", "inner"),
    [("seconds", "baseline"), ("selected", "table_bytes"), ("feature_set", "total"), ("backbone", None)],
)
def test_a_report_without_a_key_says_which(runs, tmp_path, key, inner):
    path = tmp_path / "optfs-0" / "report.json"
    report = json.loads(path.read_text())
    del (report if inner is None else report[key])[inner or key]
    path.write_text(json.dumps(report))
    place = key if inner is None else f"{key}.{inner}"
    with pytest.raises(CtrError, match=rf'report.json" .*: expected the key "{place}", found none'):
        FinishedRuns(runs)


def other_data(run, **dataset):
    path = run / "report.json"
    report = json.loads(path.read_text())
    path.write_text(json.dumps({**report, "dataset": {**report["dataset"], "digest": "e" * 36, **dataset}}))
    return str(run)


def test_over_other_valid_rows_nothing_is_chosen_and_the_page_says_so(runs, tmp_path):
    other = other_data(write_run(tmp_path / "other", seed=0), rows={"train": 9, "valid": 12, "test": ROWS})
    folder = job.compare_runs([*runs, other], tmp_path / "out")
    document = job.load_document(folder)
    assert document["choice"]["chosen"] is document["choice"]["best"] is None
    assert document["verdict"].startswith("Nothing was chosen on valid: runs ")
    assert (
        "have other valid rows, 9 and 12, and AUCs over other rows cannot be compared" in document["verdict"]
    )
    assert document["equal_runs"]["runs"] == []
    assert all(
        "keep_all" in each["differences"] for each in document["settings"] if each["role"] == "selector"
    )
    text = (folder / "comparison.html").read_text(encoding="utf-8")
    assert document["verdict"].split(":")[0] in text
    assert "Every choice was made on valid" not in text
    assert "it was chosen before test was read" not in text


def test_over_other_days_of_valid_nothing_is_chosen(tmp_path):
    days = [{"valid": ["2024-01-01", end]} for end in ("2024-01-02", "2024-01-03")]
    names = [
        other_data(write_run(tmp_path / end, seed=seed), digest=end * 36, window=window)
        for seed, (end, window) in enumerate(zip("de", days, strict=True))
    ]
    told = FinishedRuns(names).other_valid_rows()
    assert "9 from 2024-01-01 to 2024-01-02 and 9 from 2024-01-01 to 2024-01-03" in told


def test_constant_scores_are_warned_of(runs, tmp_path):
    path = tmp_path / "frequency-1" / "scores" / "test.parquet"
    pl.read_parquet(path).with_columns(selected=pl.lit(0.25)).write_parquet(path)
    folder = job.compare_runs(runs, tmp_path / "out")
    (warning,) = job.load_document(folder)["warnings"]
    assert warning.startswith(
        '"frequency at 50 %, deepfm, table" with seed 1 gives every test row the same probability'
    )
    assert "gives every test row the same probability" in (folder / "comparison.html").read_text(
        encoding="utf-8"
    )


def test_keep_all_has_the_bundle_of_the_run_that_selected_nothing(tmp_path):
    names = [str(write_run(tmp_path / kind, kind)) for kind in ("optfs", "none")]
    assert [entry.facts["bundle_bytes"] for entry in FinishedRuns(names).entries()] == [900, 900]


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
