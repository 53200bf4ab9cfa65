"""The main job end to end on a tiny log: what it leaves behind, and what repeating, breaking and altering it do."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

import ctr.jobs.models as models
import ctr.jobs.train as job
from ctr.config import Config
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.store import Dataset
from ctr.errors import CtrError, ThresholdError
from ctr.settings import check

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
min_count = 2
[[fields]]
name = "price"
kind = "numeric"
transform = "standard"
"""
# DESIGN, section 5; a dict stands for keys that must be there, None for a value of any kind.
PARTS = {"valid": {"auc": 0, "logloss": 0}, "test": {"auc": 0, "logloss": 0, "ece": 0}}
SIZES = {"parameters": 0, "bytes": 0, "table_bytes": 0}
STAGES = ("ingest", "baseline", "search", "retrain", "evaluate", "export")
REPORT = {
    "dataset": {
        "name": "",
        "digest": "",
        "rows": {"train": 0, "valid": 0, "test": 0},
        "fields": 0,
        "features": 0,
    },
    "baseline": PARTS | SIZES,
    "selected": PARTS | SIZES | {"cross_rows": None, "cross_index_bytes": None},
    "difference": {"test_auc": {"value": 0, "low": 0, "high": 0}},
    "feature_set": {
        "kept": 0,
        "total": 0,
        "ratio": 0,
        "fields": {name: {"kept": 0, "total": 0} for name in ("tags", "user", "noise", "price")},
        "interactions": {"memorize": None, "factorize": None, "naive": None},
    },
    "bundle": {"path": "", "bytes": 0},
    "seconds": dict.fromkeys(STAGES),
    "train_rows_per_second": 0,
    "peak_rss_bytes": 0,
    "seed": 0,
    "backbone": "",
    "selector": "",
    "embedding": "",
    "versions": {"ctr": "", "torch": "", "polars": "", "python": ""},
}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _plain_report(request, monkeypatch):
    """Pages and pictures have tests of their own, and take longer than all the rest of such a job."""
    if "real_report" not in request.fixturenames:
        monkeypatch.setattr(
            job, "write_report", lambda report, run, **_: (run / "report.html").write_text("page")
        )
        monkeypatch.setattr(job, "figure_png", lambda report, path: path.write_bytes(b"picture"))


@pytest.fixture
def real_report():
    """Asks for the page and the pictures as they are."""


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A folder with tiny.csv and tiny.toml: half of the users click more, one tag does, noise tells nothing."""
    folder = tmp_path_factory.mktemp("tiny")
    draw = np.random.default_rng(5)
    user, noise = draw.integers(0, 6, ROWS), draw.integers(0, 40, ROWS)
    tags = [sorted({"abcde"[n] for n in draw.integers(0, 5, size)}) for size in draw.integers(0, 4, ROWS)]
    logit = np.where(user % 2, 1.0, -1.4) + np.array([0.8 * ("a" in entry) for entry in tags])
    frame = pl.DataFrame(
        {
            "time": np.arange(ROWS),
            "click": (draw.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(int),
            "user": [f"u{n}" for n in user],
            "noise": [f"n{n}" for n in noise],
            "tags": ["|".join(entry) for entry in tags],
            "price": [
                None if n % 9 == 0 else round(float(p), 3) for n, p in enumerate(draw.normal(3, 2, ROWS))
            ],
        }
    )
    frame.write_csv(folder / "tiny.csv")
    (folder / "tiny.toml").write_text(SCHEMA)
    return folder


@pytest.fixture
def configure(log, tmp_path):
    """A configuration of the tiny job; sections by keyword."""

    def build(**sections) -> Config:
        content = {
            "name": "tiny",
            "seed": 3,
            "data": {
                "schema": str(log / "tiny.toml"),
                "input": str(log / "tiny.csv"),
                "folder": str(log / "datasets"),
            },
            "embedding": {"dim": 4},
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


def snapshot(run):
    return {path: path.stat().st_mtime_ns for path in sorted(run.rglob("*"))}


def missing_keys(expected, found, path=""):
    if not isinstance(expected, dict):
        return []
    absent = [f"{path}{key}" for key in expected if not isinstance(found, dict) or key not in found]
    nested = [key for key in expected if isinstance(found, dict) and key in found]
    return absent + [
        name for key in nested for name in missing_keys(expected[key], found[key], f"{path}{key}.")
    ]


def assert_complete(run):
    """Every file and every key that DESIGN names."""
    assert {path.name for path in run.iterdir() if not path.name.startswith(".")} >= {
        "config.toml",
        "report.json",
        "report.html",
        "scores",
        "bundle",
        "checkpoints",
        "DONE",
    }
    assert not list(run.rglob(".*"))  # nothing half-written
    scores = pl.read_parquet(run / "scores" / "test.parquet")
    assert scores.columns == ["row", "label", "baseline", "selected"]
    return report_of(run), scores


def test_a_job_leaves_everything_that_the_design_lists(configure, real_report):
    run = train(configure())
    report, _ = assert_complete(run)
    assert missing_keys(REPORT, report) == []
    assert run.name.startswith("tiny-")
    assert (run / "feature_set" / "features.parquet").is_file()
    assert report["dataset"]["rows"] == {"train": 1050, "valid": 225, "test": 225}
    assert report["dataset"]["fields"] == 4
    assert report["bundle"]["path"] == "bundle"
    files = [path for path in (run / "bundle").rglob("*") if path.is_file()]
    assert report["bundle"]["bytes"] == sum(path.stat().st_size for path in files)
    assert all(report["seconds"][stage] is not None and report["seconds"][stage] >= 0 for stage in STAGES)
    assert report["train_rows_per_second"] > 0
    assert report["peak_rss_bytes"] > 50_000_000
    kept = FeatureSet.load(run / "feature_set")
    assert {key: report["feature_set"][key] for key in kept.counts()} == kept.counts()
    assert report["selector"] == "optfs"
    assert kept.provenance["price"] > 0


def test_scores_are_of_the_test_rows_in_input_order_and_reports_are_about_them(configure, log):
    from ctr.evaluation.intervals import auc_difference
    from ctr.evaluation.metrics import measure

    run = train(configure())
    report, scores = report_of(run), pl.read_parquet(run / "scores" / "test.parquet")
    raw = pl.read_csv(log / "tiny.csv").with_row_index("row").tail(225)
    assert scores["row"].to_list() == raw["row"].to_list()
    assert scores["label"].to_list() == raw["click"].to_list()
    for name, column in (("baseline", "baseline"), ("selected", "selected")):
        found = measure(scores["label"].to_numpy(), scores[column].to_numpy())
        assert report[name]["test"]["auc"] == pytest.approx(found.auc, abs=1e-12)
        assert report[name]["test"]["logloss"] == pytest.approx(found.logloss, abs=1e-12)
        assert report[name]["test"]["ece"] == pytest.approx(found.ece, abs=1e-12)
    expected = auc_difference(
        scores["label"].to_numpy(), scores["baseline"].to_numpy(), scores["selected"].to_numpy()
    )
    assert report["difference"]["test_auc"] == expected._asdict()
    value = report["selected"]["test"]["auc"] - report["baseline"]["test"]["auc"]
    assert report["difference"]["test_auc"]["value"] == pytest.approx(value, abs=1e-12)


def test_sizes_in_the_report_count_what_is_stored(configure):
    run = train(configure(selector={"kind": "frequency", "ratio": 0.3}))
    report = report_of(run)
    kept = FeatureSet.load(run / "feature_set")
    rows, width = int(kept.kept.sum()), 5  # four floats and a first-order weight
    assert report["selected"]["table_bytes"] == rows * width * 4
    fields = kept.features.filter("kept")["field"].n_unique()
    dense = 1 + (fields * 4 * 8 + 8) + (8 + 1)  # bias, hidden layer, output
    assert report["selected"]["parameters"] == rows * width + dense
    assert report["selected"]["bytes"] == 4 * report["selected"]["parameters"]
    assert report["baseline"]["table_bytes"] == kept.kept.size * width * 4


SELECTORS = {
    "none": {"kind": "none"},
    "all": {"kind": "all"},
    "frequency": {"kind": "frequency", "ratio": 0.4},
    "random": {"kind": "random", "ratio": 0.4},
    "ratios": {"kind": "optfs", "ratio": [0.5, 0.2], "referees": ["frequency", "random"]},
    "penalties": {"kind": "optfs", "penalty": [1.0, 4.0], "referees": ["random"]},
}
MODELS = {
    "none": {"baseline"},
    "all": {"baseline", "all-all"},
    "frequency": {"baseline", "frequency-0.4"},
    "random": {"baseline", "random-0.4"},
    "ratios": {  # one search serves all sizes
        "baseline",
        "search-2.5",
        *(f"{name}-{ratio}" for name in ("optfs", "frequency", "random") for ratio in (0.5, 0.2)),
    },
    "penalties": {
        "baseline",
        *(f"search-{price}" for price in (1, 4)),
        *(f"{name}-price-{price}" for name in ("optfs", "random") for price in (1, 4)),
    },
}


@pytest.mark.parametrize("case", SELECTORS)
def test_every_selector_writes_a_complete_report(case, configure):
    run = train(configure(selector=SELECTORS[case]))
    report, scores = assert_complete(run)
    expected = dict(REPORT)
    if case == "none":
        expected |= {"selected": None, "difference": None}
    assert missing_keys(expected, report) == []
    assert {path.name for path in (run / "checkpoints").iterdir()} == MODELS[case]
    assert (run / "feature_set").is_dir() == (case != "none")
    assert report["feature_set"]["interactions"] == {"memorize": None, "factorize": None, "naive": None}
    if case == "none":
        assert scores["selected"].null_count() == scores.height
        assert report["selected"] is None
        assert report["feature_set"]["ratio"] == 1.0
        assert report["seconds"]["search"] is None
        assert report["seconds"]["retrain"] is None
        return
    assert scores["selected"].null_count() == 0
    points = [(point["selector"], round(point["ratio"], 1)) for point in report["curve"]]
    if case == "ratios":
        assert points == [(name, ratio) for ratio in (0.5, 0.2) for name in ("optfs", "frequency", "random")]
    if case == "all":
        assert report["feature_set"]["ratio"] == 1.0
        assert report["difference"]["test_auc"]["value"] == pytest.approx(0.0, abs=0.02)
    assert [point["chosen"] for point in report["curve"]] == [True] + [False] * (len(points) - 1)
    chosen = report["curve"][0]
    assert chosen["test"] == report["selected"]["test"]
    assert chosen["kept"] == report["feature_set"]["kept"]
    for first, second in zip(report["curve"], report["curve"][1:], strict=False):
        if case == "penalties" and second["selector"] == "random":
            assert second["kept"] == first["kept"]  # referees run at the very same size


def test_keeping_everything_is_the_baseline_again(configure):
    """Compaction of the full set leaves the same network: from the same seed, the same weights but for unknowns."""
    scores = pl.read_parquet(train(configure(selector={"kind": "all"})) / "scores" / "test.parquet")
    assert (scores["baseline"] - scores["selected"]).abs().max() < 1e-5


@pytest.mark.parametrize(("speed", "warned"), [(0.02, True), (1.9, False)])
def test_a_processor_that_multiplies_bf16_slowly_is_warned_of(configure, monkeypatch, speed, warned):
    monkeypatch.setattr(models, "bf16_speed", lambda: speed)
    said = io.StringIO()
    config = configure(selector={"kind": "none"}, training={"precision": "bf16", "epochs": 1})
    run = job.train(config, console=Console(file=said, width=200))
    assert ("warning: training.precision" in said.getvalue()) is warned
    assert f"at {speed} of the speed of float32" in said.getvalue() or not warned
    assert_complete(run)


def test_repeating_a_finished_run_touches_nothing_and_force_redoes_it(configure):
    config = configure()
    run = train(config)
    before, report = snapshot(run), report_of(run)
    assert train(config) == run
    assert snapshot(run) == before
    (run / "left_over").write_text("")
    assert train(config, force=True) == run
    assert not (run / "left_over").exists()
    again = report_of(run)
    for key in ("baseline", "selected", "difference", "feature_set"):
        assert again[key] == report[key]


class Killed(Exception):  # noqa: N818 - a death, no error
    pass


def kill_after(monkeypatch, name):
    """The job dies as soon as the stage that trains `name` begins."""
    stage = models.Trainer._stage

    def dying(self, model, kind, watchers=()):
        if model.startswith(name):
            raise Killed
        return stage(self, model, kind, watchers)

    monkeypatch.setattr(models.Trainer, "_stage", dying)


@pytest.mark.parametrize("at", ["baseline", "search", "optfs", "random", "evaluate", "report", "finish"])
def test_a_run_that_was_killed_goes_on_to_the_same_result(at, configure, monkeypatch, tmp_path):
    selector = {"penalty": 1.0, "referees": ["random"]}
    whole = train(configure(selector=selector))
    config = configure(selector=selector, output={"folder": str(tmp_path / "other")})

    def die(*arguments, **keys):
        raise Killed

    with monkeypatch.context() as patch:
        if at == "evaluate":
            patch.setattr(job, "score", die)
        elif at == "report":
            patch.setattr(job, "write_report", die)
        elif at == "finish":
            patch.setattr(job.Job, "finish", die)
        else:
            kill_after(patch, at)
        with pytest.raises(Killed):
            train(config)
    run = tmp_path / "other" / whole.name
    assert run.is_dir()
    assert not (run / "DONE").exists()
    trained = snapshot(run / "checkpoints") if (run / "checkpoints").exists() else {}
    assert train(config) == run
    assert_complete(run)
    kept = snapshot(run / "checkpoints")
    assert all(kept[path] == time for path, time in trained.items() if path.is_file())
    assert FeatureSet.load(run / "feature_set").features.equals(
        FeatureSet.load(whole / "feature_set").features
    )
    assert pl.read_parquet(run / "scores" / "test.parquet").equals(
        pl.read_parquet(whole / "scores" / "test.parquet")
    )
    for key in ("baseline", "selected", "difference", "feature_set", "curve"):
        assert report_of(run)[key] == report_of(whole)[key]
    assert all(seconds is None or seconds >= 0 for seconds in report_of(run)["seconds"].values())


@pytest.fixture
def half_done(configure, monkeypatch):
    """The configuration and folder of a run that died after its baseline."""
    config = configure()
    with monkeypatch.context() as patch:
        kill_after(patch, "search")
        with pytest.raises(Killed):
            train(config)
    (run,) = Path(config.output.folder).glob("tiny-*")
    return config, run


def overwrite(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


BASELINE = "checkpoints/baseline"
ALTERATIONS = {
    "another seed in the config": lambda run: overwrite(run / "config.toml", b"seed = 3", b"seed = 4"),
    "a config that is no TOML": lambda run: (run / "config.toml").write_text("seed = = 4"),
    "a changed weight": lambda run: _change_last_byte(next((run / BASELINE / "best").glob("*.safetensors"))),
    "a changed state": lambda run: overwrite(
        run / BASELINE / "last/state.json", b'"epoch": 1', b'"epoch": 9'
    ),
    "a state cut short": lambda run: (run / BASELINE / "last/state.json").write_text("{"),
    "weights gone": lambda run: shutil.rmtree(run / BASELINE / "best"),
    "another MLflow run": lambda run: (run / "mlflow.json").write_text("[]"),
}


def _change_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_an_unfinished_run_whose_files_were_altered_is_refused_until_forced(alteration, half_done):
    config, run = half_done
    ALTERATIONS[alteration](run)
    with pytest.raises(CtrError, match=str(run.name)):
        train(config)
    assert not (run / "DONE").exists()
    assert_complete(train(config, force=True))


def test_an_unfinished_run_goes_on_from_another_folder_device_or_server(half_done, log, tmp_path):
    config, run = half_done
    shutil.copy(log / "tiny.csv", tmp_path / "tiny.csv")
    moved = config.model_copy(
        update={
            "data": config.data.model_copy(update={"input": str(tmp_path / "tiny.csv")}),
            "training": config.training.model_copy(update={"device": "cpu"}),
        }
    )
    assert train(moved) == run
    assert_complete(run)


def test_a_finished_run_without_its_report_is_named(configure):
    config = configure()
    run = train(config)
    (run / "report.json").unlink()
    with pytest.raises(CtrError, match=r"report\.json.*--force"):
        job.load_report(run)


def test_every_look_at_test_is_counted_also_of_a_run_that_is_redone(configure, tmp_path):
    data = {"folder": str(tmp_path / "unread")}
    config = configure(data=data)
    first = train(config)
    counted = report_of(first)["dataset"]["test_reads"]
    assert (counted["look"], counted["runs"]) == (1, 1)
    assert counted["reads"][0]["run"] == first.name
    train(config, force=True)
    assert report_of(first)["dataset"]["test_reads"]["look"] == 2
    other = train(configure(data=data, seed=4))
    counted = report_of(other)["dataset"]["test_reads"]
    assert (counted["look"], counted["runs"]) == (3, 2)
    assert [read["run"] for read in counted["reads"]] == [first.name, first.name, other.name]


@pytest.mark.parametrize(
    "keys",
    [
        {"penalty": 2.5},
        {"ratio": 0.4, "rewind_epoch": 1},
        {"ratio": 0.9, "kind": "optfs+optinter", "choice": "naive"},
    ],
)
def test_shadow_fields_are_counted_in_the_report_and_are_nowhere_else(configure, keys):
    run = train(configure(selector={"shadow": 0.5, "epochs": 2, **keys}))
    assert_complete(run)
    shadow = report_of(run)["feature_set"]["shadow"]
    assert set(shadow["fields"]) == {"user", "noise"}
    assert shadow["total"] == sum(entry["total"] for entry in shadow["fields"].values())
    assert 0.0 <= shadow["share"]["low"] <= shadow["share"]["value"] <= shadow["share"]["high"] <= 1.0
    features = FeatureSet.load(run / "feature_set").features
    assert set(features["field"]) == {"tags", "user", "noise", "price"}
    written = [path.read_bytes() for path in (run / "bundle").rglob("*") if path.is_file()]
    assert not any(b"(shuffled)" in content for content in written)


def test_without_shadow_fields_nothing_is_said_of_them(configure):
    assert report_of(train(configure()))["feature_set"]["shadow"] is None


def test_a_missed_threshold_ends_with_code_4_after_everything_was_written(configure):
    config = configure(export={"min_auc": 0.999})
    for _ in range(2):
        with pytest.raises(
            ThresholdError, match=r"test AUC 0\.\d+ is below export\.min_auc = 0\.999"
        ) as error:
            train(config)
        assert error.value.exit_code == 4
    (run,) = Path(config.output.folder).glob("tiny-*")
    assert_complete(run)
    assert train(configure(export={"min_auc": 0.5}))


def test_test_rows_are_read_once_and_after_all_training(configure, monkeypatch):
    seen = []
    sealed, fit = Dataset.sealed_test, models.fit

    monkeypatch.setattr(Dataset, "sealed_test", lambda *a: seen.append("test") or sealed(*a))
    monkeypatch.setattr(models, "fit", lambda *a, **k: seen.append("fit") or fit(*a, **k))
    train(configure(selector={"ratio": [0.5, 0.2], "referees": ["random"]}))
    assert seen.count("test") == 1
    assert seen[-1] == "test"
    assert seen.count("fit") == 5


def test_test_labels_steer_nothing(configure, log, tmp_path):
    lines = (log / "tiny.csv").read_text().splitlines()
    turned = []
    for line in lines[-225:]:
        time, click, rest = line.split(",", 2)
        turned.append(f"{time},{1 - int(click)},{rest}")
    (tmp_path / "turned.csv").write_text("\n".join([*lines[:-225], *turned]) + "\n")
    straight = train(configure())
    other = train(configure(data={"input": str(tmp_path / "turned.csv")}))
    assert other.name != straight.name
    first, second = (FeatureSet.load(run / "feature_set") for run in (straight, other))
    assert first.features.equals(second.features)
    scores = [pl.read_parquet(run / "scores" / "test.parquet") for run in (straight, other)]
    assert scores[0].drop("label").equals(scores[1].drop("label"))


def test_the_same_seed_gives_the_same_run_and_another_seed_another(configure, tmp_path):
    first = train(configure())
    second = train(configure(output={"folder": str(tmp_path / "again")}))
    other = train(configure(seed=4))
    assert first.name == second.name != other.name
    read = [pl.read_parquet(run / "scores" / "test.parquet") for run in (first, second, other)]
    assert read[0].equals(read[1])
    assert not read[0].equals(read[2])
    assert (first / "feature_set/features.parquet").read_bytes() == (
        second / "feature_set/features.parquet"
    ).read_bytes()


def test_the_order_of_columns_in_the_input_does_not_matter(configure, log, tmp_path):
    frame = pl.read_csv(log / "tiny.csv")
    frame.select(reversed(frame.columns)).write_csv(tmp_path / "turned.csv")
    runs = [train(configure()), train(configure(data={"input": str(tmp_path / "turned.csv")}))]
    sets = [FeatureSet.load(run / "feature_set") for run in runs]
    assert sets[0].features.equals(sets[1].features)
    scores = [pl.read_parquet(run / "scores" / "test.parquet") for run in runs]
    assert scores[0].equals(scores[1])


def test_a_run_is_named_by_what_can_change_its_result_alone(configure):
    digest = configure().digest("data")
    assert configure(output={"folder": "elsewhere"}).digest("data") == digest
    assert configure(tracking={"experiment": "other"}).digest("data") == digest
    assert configure(training={"device": "cpu"}).digest("data") == digest
    assert configure(seed=4).digest("data") != digest
    assert configure(selector={"epochs": 3}).digest("data") != digest
    assert configure().digest("other data") != digest


def test_a_job_is_tracked_in_a_sqlite_file_beside_the_runs(configure, tmp_path, real_report):
    pytest.importorskip("sqlalchemy", reason="MLflow is not installed")
    from mlflow import MlflowClient

    config = configure(tracking={"uri": None}, selector={"ratio": [0.5, 0.2]})
    run = train(config)
    client = MlflowClient(f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("ctr")
    found = client.search_runs([experiment.experiment_id])
    names = sorted(entry.info.run_name for entry in found)
    assert names == sorted([run.name, "baseline", "search", "retrain", "optfs-0.2"])
    assert {entry.info.status for entry in found} == {"FINISHED"}
    (parent,) = [entry for entry in found if entry.info.run_name == run.name]
    assert json.loads((run / "mlflow.json").read_text())["run_id"] == parent.info.run_id
    report = report_of(run)
    assert parent.data.metrics["selected.test.auc"] == report["selected"]["test"]["auc"]
    assert parent.data.tags["selector"] == "optfs"
    assert parent.data.params["training.epochs"] == "3"
