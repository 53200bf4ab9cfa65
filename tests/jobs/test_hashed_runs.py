"""The main job on hashed embeddings, with and without a vocabulary: budgets are kept, tables shrink, bundles agree."""

import io
import json

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

import ctr.jobs.models as models
import ctr.jobs.train as job
from ctr.config import Config
from ctr.dataset.feature_set import FeatureSet
from ctr.errors import ConfigError
from ctr.network.hashed_tables import COMPOSITIONS
from ctr.selection import optfs
from ctr.serving.bundle import Bundle
from ctr.serving.scorer import score_file
from ctr.settings import check
from tests.jobs.test_train import REPORT, Killed, assert_complete, kill_after, missing_keys

ROWS = 1500
SCHEMA = """
name = "tiny"
label = "click"
[split]
by = "time"
column = "time"
valid = 0.15
test = 0.15
[[fields]]
name = "tags"
kind = "list"
separator = "|"
[[fields]]
name = "user"
[[fields]]
name = "noise"
[[fields]]
name = "price"
kind = "numeric"
transform = "standard"
[[fields]]
name = "seen"
shares = "user"
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _plain_report(monkeypatch):
    """Pages and pictures have tests of their own, and take longer than all the rest of such a job."""
    monkeypatch.setattr(
        job, "write_report", lambda report, run, **_: (run / "report.html").write_text("page")
    )
    monkeypatch.setattr(job, "figure_png", lambda report, path: path.write_bytes(b"picture"))


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A folder with tiny.csv and tiny.toml: half of the users click more, one tag does; late users are new."""
    folder = tmp_path_factory.mktemp("tiny")
    draw = np.random.default_rng(5)
    user = draw.integers(0, 20, ROWS) + np.where(np.arange(ROWS) > 1200, 4, 0)
    tags = [sorted({"abcde"[n] for n in draw.integers(0, 5, size)}) for size in draw.integers(0, 4, ROWS)]
    logit = np.where(user % 2, 1.6, -1.6) + np.array([0.8 * ("a" in entry) for entry in tags])
    pl.DataFrame(
        {
            "time": np.arange(ROWS),
            "click": (draw.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(int),
            "user": [f"u{n}" for n in user],
            "noise": [f"n{n}" if n else None for n in draw.integers(0, 80, ROWS)],
            "tags": ["|".join(entry) for entry in tags],
            "price": [None if n % 9 == 0 else float(p) for n, p in enumerate(draw.normal(3, 2, ROWS))],
            "seen": [f"u{n}" for n in draw.integers(0, 20, ROWS)],
        }
    ).write_csv(folder / "tiny.csv")
    (folder / "tiny.toml").write_text(SCHEMA)
    return folder


@pytest.fixture
def configure(log, tmp_path):
    """A configuration of the job; sections by keyword, `encoding` of the data."""

    def build(encoding="vocabulary", **sections) -> Config:
        content = {
            "name": "tiny",
            "seed": 3,
            "data": {
                "schema": str(log / "tiny.toml"),
                "input": str(log / "tiny.csv"),
                "folder": str(log / "datasets"),
                "encoding": encoding,
            },
            "embedding": {"kind": "unified", "dim": 4, "bytes": "1kB"},
            "backbone": {"kind": "deepfm", "hidden": [8]},
            "selector": {"epochs": 2, "referees": [], "compare_dropped_reads": False},
            "training": {"batch_size": 128, "epochs": 3, "learning_rate": 1e-2, "threads": 1},
            "tracking": {"uri": "off"},
            "output": {"folder": str(tmp_path / "runs")},
        }
        for name, section in sections.items():
            content[name] = {**content.get(name, {}), **section} if isinstance(section, dict) else section
        return check(content, Config, "config")

    return build


def train(config, **keys):
    return job.train(config, console=Console(file=io.StringIO(), width=200), **keys)


def report_of(run):
    return json.loads((run / "report.json").read_text())


def slow(case):
    return pytest.param(case, marks=pytest.mark.slow)


# Each composition once, with one table and a table for each field, in both encodings; all other cases are slow.
KINDS, ENCODINGS = ("unified", "hashed"), ("vocabulary", "hashed")
ONE_SLOW = [slow("vocabulary"), "hashed"]
CASES = [
    pytest.param(kind, encoding, composition, marks=[pytest.mark.slow] if (at + k + 2 * e) % 4 else [])
    for k, kind in enumerate(KINDS)
    for e, encoding in enumerate(ENCODINGS)
    for at, composition in enumerate(COMPOSITIONS)
]


@pytest.mark.parametrize(("kind", "encoding", "composition"), CASES)
def test_a_run_keeps_its_budget_shrinks_its_tables_and_its_bundle_scores_raw_rows_alike(
    kind, encoding, composition, configure, log, tmp_path
):
    embedding = {"kind": kind, "composition": composition}
    if composition != "quotient_remainder":
        embedding["field_lookups"] = {"tags": 1, "user": 3}
    run = train(configure(encoding, embedding=embedding, selector={"ratio": 0.4}))
    report, scores = assert_complete(run)
    assert missing_keys(REPORT, report) == []
    assert report["embedding"] == kind

    row = 4 * (2 + 1 if composition in ("lookup", "robe") else 4 + 1 + 3 * (composition == "multi_hash"))
    assert 1000 - row < report["baseline"]["table_bytes"] <= 1000
    assert report["selected"]["table_bytes"] < 0.75 * report["baseline"]["table_bytes"]
    assert report["baseline"]["test"]["auc"] > 0.55  # 35 to 83 rows for 108 features are few
    assert report["selected"]["test"]["auc"] > 0.55
    manifest = Bundle.open(run / "bundle").manifest
    assert manifest.encoding == encoding
    assert manifest.placement.shared == (kind == "unified")
    assert manifest.placement.composition == composition

    score_file(run / "bundle", log / "tiny.csv", tmp_path / "scores.parquet")
    raw = pl.read_parquet(tmp_path / "scores.parquet")["probability"].to_numpy()[scores["row"].to_numpy()]
    np.testing.assert_allclose(raw, scores["selected"].to_numpy(), rtol=0, atol=1e-6)
    assert raw.std() > 0.01
    assert len(FeatureSet.load(run / "feature_set").features) == report["dataset"]["features"]


def test_both_encodings_keep_the_same_features_and_score_alike_what_train_held(configure):
    """Keys are those of names and values in both, so searches see the same rows of the same table."""
    runs = [train(configure(encoding, selector={"ratio": 0.3})) for encoding in ENCODINGS]
    sets = [FeatureSet.load(run / "feature_set") for run in runs]
    assert sets[0].counts() == sets[1].counts()
    first, second = (pl.read_parquet(run / "scores" / "test.parquet") for run in runs)
    same = (first["selected"] - second["selected"]).abs() < 1e-6
    assert same.mean() > 0.5  # the others hold a value that is unknown in one and hashed in the other
    assert report_of(runs[0])["selected"]["table_bytes"] == report_of(runs[1])["selected"]["table_bytes"]


@pytest.mark.parametrize(
    ("kind", "encoding", "keys"),
    [
        ("unified", "hashed", {"penalty": 1.0}),
        ("hashed", "vocabulary", {"ratio": 0.4, "rewind_epoch": 1}),
        ("unified", "vocabulary", {"ratio": 0.9, "kind": "optfs+optinter", "choice": "naive"}),
    ],
)
def test_shadow_fields_are_searched_in_a_larger_table_and_reach_nothing_else(
    kind, encoding, keys, configure, monkeypatch
):
    searched = []
    monkeypatch.setattr(
        optfs,
        "search",
        lambda network, *given, search=optfs.search, **named: (
            searched.append((network.table.weight.shape[0], [own.name for own in given[0].fields])),
            search(network, *given, **named),
        )[1],
    )
    embedding = {"kind": kind, "composition": "multi_hash"}
    run = train(configure(encoding, embedding=embedding, selector={"shadow": 0.4, **keys}))
    report, _ = assert_complete(run)
    shadow = report["feature_set"]["shadow"]
    assert shadow["fields"].keys() == {"user", "noise"}
    assert shadow["fields"]["noise"]["total"] > 70
    assert shadow["total"] == sum(own["total"] for own in shadow["fields"].values())
    assert 0.0 <= shadow["share"]["low"] <= shadow["share"]["value"] <= shadow["share"]["high"] <= 1.0
    ((rows, fields),) = searched
    assert [name for name in fields if "shuffled" in name] == ["user (shuffled)", "noise (shuffled)"]

    # The budget is that of the real fields, and so are tables, feature set and bundle.
    row = 4 * (5 + 2)
    assert 1000 - row < report["baseline"]["table_bytes"] <= 1000
    assert rows - 1 > 1.7 * report["baseline"]["table_bytes"] / row
    real = {"tags", "user", "noise", "price"}
    features = FeatureSet.load(run / "feature_set").features
    assert set(features["field"]) == real
    assert len(features) == report["dataset"]["features"]
    placement = Bundle.open(run / "bundle").manifest.placement
    assert {own.field for own in placement.stretches} <= real
    assert report["selected"]["table_bytes"] < report["baseline"]["table_bytes"]
    written = [path.read_bytes() for path in (run / "bundle").rglob("*") if path.is_file()]
    assert not any(b"(shuffled)" in content for content in written)


@pytest.mark.parametrize("encoding", ONE_SLOW)
def test_the_same_seed_gives_the_same_run_and_another_seed_another(encoding, configure, tmp_path):
    selector = {"penalty": 1.0}
    first = train(configure(encoding, selector=selector))
    again = train(configure(encoding, selector=selector, output={"folder": str(tmp_path / "again")}))
    other = train(configure(encoding, selector=selector, seed=4))
    assert first.name == again.name != other.name
    read = [pl.read_parquet(run / "scores" / "test.parquet") for run in (first, again, other)]
    assert read[0].equals(read[1])
    assert not read[0].equals(read[2])
    assert (first / "feature_set/features.parquet").read_bytes() == (
        again / "feature_set/features.parquet"
    ).read_bytes()
    weights = [(run / "bundle" / "weights.safetensors").read_bytes() for run in (first, again)]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("encoding", ONE_SLOW)
def test_a_run_that_was_killed_in_every_stage_goes_on_to_the_same_result(
    encoding, configure, monkeypatch, tmp_path
):
    keys = {"selector": {"penalty": 1.0, "referees": ["random"]}, "embedding": {"composition": "multi_hash"}}
    whole = train(configure(encoding, **keys))
    config = configure(encoding, **keys, output={"folder": str(tmp_path / "other")})
    for stage in ("baseline", "search", "optfs", "random"):
        with monkeypatch.context() as patch:
            kill_after(patch, stage)
            with pytest.raises(Killed):
                train(config)
    run = train(config)
    assert run.name == whole.name
    assert FeatureSet.load(run / "feature_set").features.equals(
        FeatureSet.load(whole / "feature_set").features
    )
    assert pl.read_parquet(run / "scores" / "test.parquet").equals(
        pl.read_parquet(whole / "scores" / "test.parquet")
    )
    for key in ("baseline", "selected", "difference", "feature_set", "curve"):
        assert report_of(run)[key] == report_of(whole)[key]


class StopError(Exception):
    pass


@pytest.mark.parametrize("stop", [slow("baseline"), "search", slow("optfs")])
def test_a_run_that_was_killed_within_a_training_goes_on_to_the_same_result(
    stop, configure, monkeypatch, tmp_path
):
    """After the first epoch of that training, from the checkpoint that stands there."""
    keys = {"selector": {"penalty": 1.0}, "embedding": {"composition": "quotient_remainder"}}
    whole = train(configure("hashed", **keys))
    config = configure("hashed", **keys, output={"folder": str(tmp_path / "other")})
    fit = models.fit

    def dying(*arguments, folder, **settings):
        class Stopper:
            def step(self, epoch, batch, batches, rows, loss):
                pass

            def look(self, record):
                if record.ends_epoch:
                    raise StopError

        if folder.name.startswith(stop):
            settings["watcher"] = Stopper()
        return fit(*arguments, folder=folder, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(models, "fit", dying)
        patch.setattr(optfs, "fit", dying)
        with pytest.raises(StopError):
            train(config)
    run = train(config)
    assert pl.read_parquet(run / "scores" / "test.parquet").equals(
        pl.read_parquet(whole / "scores" / "test.parquet")
    )
    assert report_of(run)["selected"] == report_of(whole)["selected"]


def test_dropped_values_that_read_unknown_are_compared_and_shipped_alike(configure, log, tmp_path):
    selector = {"ratio": 0.3, "dropped_reads": "unknown", "compare_dropped_reads": True}
    run = train(configure("hashed", selector=selector))
    report, scores = report_of(run), pl.read_parquet(run / "scores" / "test.parquet")
    assert report["dropped_reads"]["used"] == "unknown"
    assert all(auc > 0.5 for auc in report["dropped_reads"]["valid_auc"].values())
    score_file(run / "bundle", log / "tiny.csv", tmp_path / "scores.parquet")
    raw = pl.read_parquet(tmp_path / "scores.parquet")["probability"].to_numpy()[scores["row"].to_numpy()]
    np.testing.assert_allclose(raw, scores["selected"].to_numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_keep_all_ships_the_whole_table_within_the_usual_budget(encoding, configure, log, tmp_path):
    """A tenth of a row for each feature, where nothing is stated."""
    run = train(configure(encoding, embedding={"bytes": None}, selector={"kind": "none"}))
    report, scores = report_of(run), pl.read_parquet(run / "scores" / "test.parquet")
    floats = report["dataset"]["features"] * (4 + 1)
    assert 0.85 * floats * 4 / 10 < report["baseline"]["table_bytes"] <= floats * 4 / 10
    assert report["selected"] is None
    assert report["baseline"]["test"]["auc"] > 0.65
    score_file(run / "bundle", log / "tiny.csv", tmp_path / "scores.parquet")
    raw = pl.read_parquet(tmp_path / "scores.parquet")["probability"].to_numpy()[scores["row"].to_numpy()]
    np.testing.assert_allclose(raw, scores["baseline"].to_numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("encoding", "composition"), [("vocabulary", "robe"), ("hashed", "lookup"), ("hashed", "multi_hash")]
)
def test_keeping_everything_is_the_baseline_again(encoding, composition, configure):
    """Nothing shrinks, so the table keeps its first weights like all the rest."""
    config = configure(encoding, embedding={"composition": composition}, selector={"kind": "all"})
    scores = pl.read_parquet(train(config) / "scores" / "test.parquet")
    assert (scores["baseline"] - scores["selected"]).abs().max() < 1e-5


def test_fields_with_few_values_keep_rows_of_their_own_within_the_budget(configure):
    run = train(configure(embedding={"collision_free": 7, "bytes": "1.2kB"}, selector={"ratio": 0.4}))
    report = report_of(run)
    stretches = Bundle.open(run / "bundle").manifest.placement.stretches
    exact = {own.field: own.rows for own in stretches if own.exact}
    assert exact.keys() == {"tags", "price"}
    kept = report["feature_set"]["fields"]["tags"]["kept"]
    assert exact["tags"] in (
        2 * kept,
        2 * kept + 2,
    )  # two rows for each kept tag, and for missing where it is kept
    assert report["baseline"]["table_bytes"] <= 1200


@pytest.mark.parametrize(
    ("embedding", "message"),
    [
        ({"bytes": 11}, r"embedding\.bytes = 11 holds 0 rows .*state 12 bytes or more"),
        ({"kind": "hashed", "bytes": 30}, r"embedding\.bytes = 30 holds 2 rows .*state 48 bytes or more"),
        ({"bytes": 100, "collision_free": 7}, r"state \d+ bytes or more, or lower embedding\.collision_free"),
        ({"field_lookups": {"usr": 3}}, 'field_lookups names "usr", .*; the nearest name is "user"'),
        ({"field_lookups": {"seen": 3}}, 'field_lookups names "seen", which is no field with features'),
    ],
)
def test_a_budget_that_does_not_hold_the_fields_is_refused_before_anything_is_trained(
    embedding, message, configure
):
    with pytest.raises(ConfigError, match=message):
        train(configure(embedding=embedding))


@pytest.mark.parametrize("backbone", ["lr", slow("fnn"), slow("dcnv2")])
def test_other_backbones_train_and_ship_on_one_table(backbone, configure, log, tmp_path):
    embedding = {"field_lookups": {"user": 3}, "bytes": 400}
    run = train(
        configure("hashed", backbone={"kind": backbone}, embedding=embedding, selector={"ratio": 0.4})
    )
    scores = pl.read_parquet(run / "scores" / "test.parquet")
    score_file(run / "bundle", log / "tiny.csv", tmp_path / "scores.parquet")
    raw = pl.read_parquet(tmp_path / "scores.parquet")["probability"].to_numpy()[scores["row"].to_numpy()]
    np.testing.assert_allclose(raw, scores["selected"].to_numpy(), rtol=0, atol=1e-6)
