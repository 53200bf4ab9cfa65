"""What MLflow holds after a job: the same tests on a SQLite store and on a real `mlflow server`."""

import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from ctr import __version__, tracking
from ctr.errors import ConfigError, CtrError
from ctr.tracking import SplitRecord, Tracker, clean_name, fetch_run, flat_metrics, flat_params
from tests.mlflow_server import mlflow_server

pytest.importorskip("sqlalchemy", reason="MLflow is not installed")
from mlflow import MlflowClient

DIGEST = "0123456789abcdef0123456789abcdef0123"  # 36 characters, the most that MLflow takes
DATASETS = [
    SplitRecord("train", DIGEST, "toy", 80, 3, "datasets/toy"),
    SplitRecord("valid", DIGEST, "toy", 10, 3, "datasets/toy"),
    SplitRecord("test", DIGEST, "toy", 10, 3, "datasets/toy"),
]
CONFIG = {
    "name": "toy",
    "training": {"epochs": 3, "patience": None, "shuffle": True, "learning_rate": 1e-3},
    "backbone": {"kind": "deepfm", "hidden": [256, 128]},
    "data": {"input": "x" * 7000},
}
TAGS = {
    "selector": "optfs",
    "backbone": "deepfm",
    "embedding": "table",
    "data_window": "2024-01-01..2024-01-07",
    "seed": 1,
    "left out": None,
}
REPORT = {
    "dataset": {"name": "toy", "rows": {"train": 80}},
    "baseline": {"test": {"auc": 0.75}},
    "selected": {"test": {"auc": 0.76}, "cross_rows": None},
    "difference": {"test_auc": {"value": 0.01, "low": -0.01, "high": 0.03}},
    "feature_set": {
        "kept": 3,
        "total": 6,
        "ratio": 0.5,
        "fields": {"user": {"kept": 2, "total": 4}, "price (EUR)": {"kept": 1, "total": 2}},
    },
    "bundle": {"path": "bundle", "bytes": 1234},
    "seconds": {"search": 1.5},
    "train_rows_per_second": 1e6,
    "seed": 1,
}
PNG = b"\x89PNG\r\n\x1a\nnot much of a picture"


@pytest.fixture(scope="module")
def sqlite_uri(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a folder with ü")
    return f"sqlite:///{folder / 'mlflow.db'}"


@pytest.fixture(scope="module")
def server_uri(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with mlflow_server(folder) as uri:
        yield uri


@pytest.fixture(params=["sqlite", "server"])
def uri(request):
    return request.getfixturevalue(f"{request.param}_uri")


@pytest.fixture(autouse=True)
def _nothing_is_written_into_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield
    assert list((tmp_path / "work").iterdir()) == []


@pytest.fixture
def tracker(uri, request, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)  # MlflowClient.load_table looks nowhere else
    return Tracker.open(uri, request.node.name, fallback=tmp_path / "fallback")


@pytest.fixture
def run_folder(tmp_path):
    folder = tmp_path / "run"
    (folder / "feature_set").mkdir(parents=True)
    (folder / "bundle").mkdir()
    (folder / "config.toml").write_text('name = "toy"\n')
    (folder / "report.json").write_text(json.dumps(REPORT))
    (folder / "report.html").write_text("<p>report</p>")
    (folder / "bundle" / "manifest.json").write_text("{}")
    pl.DataFrame(
        {
            "field": ["user", "user", "user", "price (EUR)"],
            "value": ["ann", "bob", "eve", "4"],
            "id": [2, 3, 4, 2],
            "count": [9, 7, 30, 8],
            "gate": [0.5, float("nan"), -1.0, 0.25],
            "kept": [True, True, False, True],
        }
    ).write_parquet(folder / "feature_set" / "features.parquet")
    return folder


def open_job(tracker, **changes):
    arguments = {"config": CONFIG, "config_text": 'name = "toy"\n', "tags": TAGS, "datasets": DATASETS}
    return tracker.job("toy-job", **{**arguments, **changes})


def children(client, run_id):
    experiment = client.get_run(run_id).info.experiment_id
    found = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{run_id}'")
    return {run.info.run_name: run for run in found}


def steps(client, run, name):
    return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]


def content(client, run_id, path, folder):
    return Path(client.download_artifacts(run_id, path, str(folder))).read_bytes()


def test_a_job_is_a_parent_run_with_a_nested_run_per_stage_and_metrics_by_step(tracker, uri):
    with open_job(tracker) as job:
        for name in ("baseline", "search", "retrain"):
            with job.stage(name) as stage:
                stage.params({"epochs": 3})
                for step in range(3):
                    stage.metrics({"valid.auc": 0.5 + step / 8, "loss@1": 1.0}, step)
    client = MlflowClient(uri)
    nested = children(client, job.run_id)
    assert sorted(nested) == ["baseline", "retrain", "search"]
    for name, run in nested.items():
        assert run.data.tags["stage"] == name
        assert run.info.status == "FINISHED"
        assert run.data.params == {"epochs": "3"}
        assert steps(client, run, "valid.auc") == [(0, 0.5), (1, 0.625), (2, 0.75)]
        assert steps(client, run, clean_name("loss@1")) == [(0, 1.0), (1, 1.0), (2, 1.0)]
    parent = client.get_run(job.run_id)
    assert (parent.info.status, parent.info.run_name) == ("FINISHED", "toy-job")


def test_more_metrics_than_one_request_takes_arrive_and_so_do_nan_and_infinity(tracker, uri):
    with open_job(tracker) as job, job.stage("search") as stage:
        stage.metrics({"odd": float("nan")}, 0)
        stage.metrics({"odd": float("inf")}, 1)
        stage.metrics({f"m{number}": number for number in range(1201)}, 0)
    run = MlflowClient(uri).get_run(stage.run_id)
    assert len(run.data.metrics) == 1202
    assert run.data.metrics["m1200"] == 1200


def test_the_config_is_params_and_artifact_and_the_tags_say_what_ran(tracker, uri, tmp_path):
    with open_job(tracker) as job:
        pass
    client = MlflowClient(uri)
    data = client.get_run(job.run_id).data
    assert data.params == {
        "name": "toy",
        "training.epochs": "3",
        "training.shuffle": "true",
        "training.learning_rate": "0.001",
        "backbone.kind": "deepfm",
        "backbone.hidden": "[256, 128]",
        "data.input": "x" * 5997 + "...",
    }
    own = {name: value for name, value in data.tags.items() if not name.startswith("mlflow.")}
    wanted = {name: str(value) for name, value in TAGS.items() if value is not None}
    assert own == {**wanted, "ctr_version": __version__}  # no git_commit: this is no checkout
    assert content(client, job.run_id, "config.toml", tmp_path) == b'name = "toy"\n'


def test_each_split_is_a_dataset_input_with_our_digest(tracker, uri):
    with open_job(tracker) as job:
        pass
    inputs = MlflowClient(uri).get_run(job.run_id).inputs.dataset_inputs
    found = {entry.tags[0].value: entry.dataset for entry in inputs}
    assert {entry.tags[0].key for entry in inputs} == {"mlflow.data.context"}
    assert sorted(found) == ["test", "train", "valid"]
    assert {dataset.digest for dataset in found.values()} == {DIGEST}
    assert found["train"].name == "toy.train"
    assert json.loads(found["train"].profile) == {"num_rows": 80, "num_fields": 3}
    assert json.loads(found["train"].source) == {"uri": "datasets/toy"}


def test_a_finished_job_shows_its_report_as_metrics(tracker, uri, run_folder):
    with open_job(tracker) as job:
        job.finish(REPORT, run_folder)
    assert MlflowClient(uri).get_run(job.run_id).data.metrics == {
        "dataset.rows.train": 80,
        "baseline.test.auc": 0.75,
        "selected.test.auc": 0.76,
        "difference.test_auc.value": 0.01,
        "difference.test_auc.low": -0.01,
        "difference.test_auc.high": 0.03,
        "feature_set.kept": 3,
        "feature_set.total": 6,
        "feature_set.ratio": 0.5,
        "feature_set.fields.user.kept": 2,
        "feature_set.fields.user.total": 4,
        clean_name("feature_set.fields.price (EUR).kept"): 1,
        clean_name("feature_set.fields.price (EUR).total"): 2,
        "bundle.bytes": 1234,
        "seconds.search": 1.5,
        "train_rows_per_second": 1e6,
    }


def test_a_finished_job_holds_its_files_byte_by_byte(tracker, uri, run_folder, tmp_path):
    with open_job(tracker) as job:
        job.finish(REPORT, run_folder, {"curve": PNG})
    client = MlflowClient(uri)
    files = ["report.json", "report.html", "config.toml", "bundle/manifest.json"]
    for path in [*files, "feature_set/features.parquet"]:
        assert content(client, job.run_id, path, tmp_path) == (run_folder / path).read_bytes()
    assert content(client, job.run_id, "figures/curve.png", tmp_path) == PNG


def test_what_a_comparison_reads_of_a_run_comes_back_from_the_store(tracker, uri, run_folder, tmp_path):
    (run_folder / "scores").mkdir()
    (run_folder / "scores" / "test.parquet").write_bytes(b"scores")
    with open_job(tracker) as job:
        job.finish(REPORT, run_folder, scores=True)
    found = fetch_run(job.run_id, uri, fallback=tmp_path / "fallback", into=tmp_path / "fetched")
    for path in ("report.json", "scores/test.parquet", "feature_set/features.parquet"):
        assert (found / path).read_bytes() == (run_folder / path).read_bytes()
    assert [path.name for path in (tmp_path / "fetched").iterdir()] == [job.run_id]
    assert fetch_run(job.run_id, "off", fallback=tmp_path, into=tmp_path / "fetched") == found


def test_a_run_without_scores_says_what_to_do_and_leaves_nothing(tracker, uri, run_folder, tmp_path):
    with open_job(tracker) as job:
        job.finish(REPORT, run_folder, scores=True)
    with pytest.raises(ConfigError, match=r'holds no "scores", and its folder is not .*: copy the'):
        fetch_run(job.run_id, uri, fallback=tmp_path / "fallback", into=tmp_path / "fetched")
    assert not (tmp_path / "fetched").exists()


def test_the_feature_set_is_a_table_of_the_mlflow_page(tracker, uri, run_folder):
    with open_job(tracker) as job:
        job.finish(REPORT, run_folder)
    client = MlflowClient(uri)
    run = client.get_run(job.run_id)
    shown = json.loads(run.data.tags["mlflow.loggedArtifacts"])
    tables = [{"path": f"tables/{name}.json", "type": "table"} for name in ("fields", "features")]
    assert shown == tables
    fields = client.load_table(run.info.experiment_id, "tables/fields.json", [job.run_id])
    assert fields.to_dict("list") == {
        "field": ["user", "price (EUR)"],
        "kept": [2, 1],
        "total": [4, 2],
        "ratio": [0.5, 0.5],
    }
    features = client.load_table(run.info.experiment_id, "tables/features.json", [job.run_id])
    assert list(features["value"].astype(str)) == ["ann", "4", "bob"]  # kept ones, by count
    assert list(features["count"]) == [9, 8, 7]
    assert features["gate"].isna().tolist() == [False, False, True]


def test_a_table_is_bounded(monkeypatch, sqlite_uri, tmp_path, run_folder):
    monkeypatch.setattr(tracking, "TABLE_ROWS", 1)
    with open_job(Tracker.open(sqlite_uri, "bounded", fallback=tmp_path)) as job:
        job.tables(REPORT, run_folder / "feature_set")
    table = json.loads(content(MlflowClient(sqlite_uri), job.run_id, "tables/features.json", tmp_path))
    assert [row[1] for row in table["data"]] == ["ann"]


@pytest.mark.parametrize("measured", [True, False])
def test_pairs_are_a_table_with_what_valid_loses_without_each(
    monkeypatch, sqlite_uri, tmp_path, run_folder, measured
):
    monkeypatch.setattr(tracking, "TABLE_ROWS", 2)
    pairs = {
        "field_a": ["a", "a", "b"],
        "field_b": ["b", "c", "c"],
        "method": ["naive", "memorize", "factorize"],
    }
    frame = pl.DataFrame(pairs | {"strength": [None, 3.0, 5.0]}, schema_overrides={"strength": pl.Float64})
    frame.write_parquet(run_folder / "feature_set" / "interactions.parquet")
    lost = {"auc_lost": {"value": 0.02, "low": 0.01, "high": 0.03}}
    switched_off = [{"field_a": "a", "field_b": "c", "method": "memorize", "strength": 3.0, **lost}]
    report = REPORT | {"interactions": {"switched_off": switched_off} if measured else None}
    with open_job(Tracker.open(sqlite_uri, f"pairs-{measured}", fallback=tmp_path)) as job:
        job.tables(report, run_folder / "feature_set")
    table = json.loads(content(MlflowClient(sqlite_uri), job.run_id, "tables/interactions.json", tmp_path))
    assert table["columns"] == [*pairs, "strength", "auc_lost", "auc_lost_low", "auc_lost_high"]
    assert table["data"] == [
        ["b", "c", "factorize", 5.0, None, None, None],
        ["a", "c", "memorize", 3.0, *([0.02, 0.01, 0.03] if measured else [None] * 3)],
    ]


def _job_that_breaks(job, run_folder):
    with job.stage("baseline") as stage:
        stage.metrics({"loss": 9.0}, 0)
    with job.stage("search") as stage:
        for step in range(3):
            stage.metrics({"loss": step}, step)
        job.finish(REPORT, run_folder)
        raise RuntimeError("power cut")


def test_a_resumed_job_goes_on_in_the_same_runs_and_repeats_nothing(tracker, uri, run_folder):
    with pytest.raises(RuntimeError), open_job(tracker) as first:
        _job_that_breaks(first, run_folder)
    with open_job(tracker, run_id=first.run_id) as second:
        with second.stage("search") as stage:
            for step in range(1, 5):  # goes on from the checkpoint after step 0
                stage.metrics({"loss": step}, step)
        with second.stage("retrain"):
            pass
        second.finish(REPORT, run_folder)
    client = MlflowClient(uri)
    assert second.run_id == first.run_id
    parent = client.get_run(second.run_id)
    assert parent.info.status == "FINISHED"
    assert "error" not in parent.data.tags
    nested = children(client, second.run_id)
    assert {name: run.info.status for name, run in nested.items()} == {
        "baseline": "FINISHED",
        "search": "FINISHED",
        "retrain": "FINISHED",
    }
    assert steps(client, nested["search"], "loss") == [(0, 0), (1, 1), (2, 2), (3, 3), (4, 4)]
    assert len(parent.inputs.dataset_inputs) == 3
    table = client.load_table(parent.info.experiment_id, "tables/fields.json", [second.run_id])
    assert len(table) == 2


def test_a_param_of_a_resumed_job_keeps_its_first_value(tracker, uri):
    with open_job(tracker, config={"threads": 1}) as first:
        pass
    with open_job(tracker, config={"threads": 2, "new": 3}, run_id=first.run_id):
        pass
    assert MlflowClient(uri).get_run(first.run_id).data.params == {"threads": "1", "new": "3"}


def test_a_run_that_the_store_does_not_hold_is_started_anew(tracker, uri):
    with open_job(tracker, run_id="0" * 32) as job:
        pass
    assert MlflowClient(uri).get_run(job.run_id).info.status == "FINISHED"
    MlflowClient(uri).delete_run(job.run_id)
    with open_job(tracker, run_id=job.run_id) as again:
        pass
    assert again.run_id != job.run_id


@pytest.mark.parametrize(
    ("error", "status"),
    [(CtrError("column is gone"), "FAILED"), (ValueError("odd"), "FAILED"), (KeyboardInterrupt(), "KILLED")],
)
def test_a_broken_job_says_so_and_the_error_goes_on(tracker, uri, error, status):
    with pytest.raises(type(error)), open_job(tracker) as job, job.stage("search") as stage:
        raise error
    client = MlflowClient(uri)
    for run_id in (job.run_id, stage.run_id):
        run = client.get_run(run_id)
        assert run.info.status == status
        assert run.data.tags["error"] == (str(error) or "KeyboardInterrupt")


class Flaky:
    """A client whose every call fails while `down`."""

    def __init__(self, client):
        self.client, self.down = client, False

    def __getattr__(self, name):
        if self.down:
            raise ConnectionError("the line is dead")
        return getattr(self.client, name)


@pytest.fixture
def flaky(sqlite_uri, request, tmp_path):
    tracker = Tracker.open(sqlite_uri, request.node.name, fallback=tmp_path)
    tracker._connection._client = Flaky(tracker._connection._client)
    return tracker


def test_what_was_logged_in_an_outage_arrives_later(flaky, sqlite_uri, caplog):
    line = flaky._connection._client
    with open_job(flaky) as job:
        line.down = True
        with job.stage("search") as stage:
            for step in range(3):
                stage.metrics({"loss": step}, step)
        line.down = False
    client = MlflowClient(sqlite_uri)
    assert steps(client, children(client, job.run_id)["search"], "loss") == [(0, 0), (1, 1), (2, 2)]
    assert client.get_run(stage.run_id).info.status == "FINISHED"
    assert [record.message.count("the line is dead") for record in caplog.records] == [1]


def test_a_store_that_stays_down_stops_no_training_and_ends_in_one_message(flaky):
    trained = []

    def train():
        with open_job(flaky) as job:
            flaky._connection._client.down = True
            with job.stage("search") as stage:
                stage.metrics({"loss": 1}, 0)
            trained.append(True)

    with pytest.raises(
        CtrError, match=r"the line is dead; 4 entries .* run the same command again"
    ) as caught:
        train()
    assert trained == [True]
    assert caught.value.exit_code == 1


def test_a_job_that_cannot_even_start_its_run_is_refused_at_once(flaky):
    flaky._connection._client.down = True
    with pytest.raises(CtrError, match="the line is dead"), open_job(flaky):
        pytest.fail("the job must not begin")


def _closed_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("scheme", ["http", "postgresql", "mysql+pymysql"])
def test_a_server_that_is_down_is_one_clear_message_within_seconds(scheme, tmp_path):
    uri = f"{scheme}://me:secret@127.0.0.1:{_closed_port()}/db"
    started = time.monotonic()
    with pytest.raises(CtrError, match="Connection refused") as caught:
        Tracker.open(uri, "x", fallback=tmp_path)
    assert time.monotonic() - started < 5
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_never_answers_is_given_up(monkeypatch, tmp_path):
    monkeypatch.setattr(tracking, "OPENING_SECONDS", 1)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        started = time.monotonic()
        with pytest.raises(CtrError, match="timed out"):
            Tracker.open(f"http://127.0.0.1:{deaf.getsockname()[1]}", "x", fallback=tmp_path)
        assert time.monotonic() - started < 8


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("sqlite:///{tmp}/folder", "unable to open database file"),
        ("sqlite:///{tmp}/text", "file is not a database"),
        ("sqlite:///{tmp}/text/mlflow.db", "File exists"),
        ("sqlite://", "names no file"),
        ("nonsense", "expected .sqlite:///PATH"),
        ("foo://bar", "expected .sqlite:///PATH"),
    ],
)
def test_a_wrong_uri_is_one_message_that_names_it(uri, reason, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("no database, but long enough to be read as the header of one" * 9)
    uri = uri.format(tmp=tmp_path)
    started = time.monotonic()
    with pytest.raises(CtrError, match=reason) as caught:
        Tracker.open(uri, "x", fallback=tmp_path)
    assert time.monotonic() - started < 5
    assert f'"{uri}"' in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_default_is_a_sqlite_file_in_the_fallback_folder_whatever_its_name(tmp_path):
    folder = tmp_path / "50%20 ?"
    with open_job(Tracker.open(None, "x", fallback=folder)) as job:
        pass
    assert sorted(path.name for path in folder.iterdir()) == ["artifacts", "mlflow.db"]
    assert (folder / "artifacts" / job.run_id / "artifacts" / "config.toml").is_file()


def test_a_deleted_experiment_is_named(sqlite_uri, tmp_path):
    Tracker.open(sqlite_uri, "gone", fallback=tmp_path)
    client = MlflowClient(sqlite_uri)
    client.delete_experiment(client.get_experiment_by_name("gone").experiment_id)
    with pytest.raises(CtrError, match='"gone" was deleted'):
        Tracker.open(sqlite_uri, "gone", fallback=tmp_path)


def test_an_absent_mlflow_is_named_even_beside_a_folder_mlflow(monkeypatch, tmp_path):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    with pytest.raises(CtrError, match=r"pip install \"ctr\[train\]\""):
        Tracker.open(None, "x", fallback=tmp_path)


def test_off_takes_every_call_and_does_nothing(monkeypatch, tmp_path, run_folder):
    monkeypatch.setattr(tracking, "_client", lambda address: pytest.fail("MLflow was asked for"))
    tracker = Tracker.open("off", "x", fallback=tmp_path / "fallback")
    with open_job(tracker, run_id="abc") as job:
        with job.stage("search") as stage:
            stage.metrics({"loss": 1.0}, 0)
            stage.params({"a": 1})
        job.finish(REPORT, run_folder, {"curve": PNG})
    assert (tracker.uri, job.run_id) == ("off", None)
    assert not (tmp_path / "fallback").exists()


SCRIPT = """
import socket, sys
reached = set()
def look(event, arguments):
    if event == "socket.connect":
        reached.add(str(arguments[1]))
    if event == "socket.getaddrinfo":
        reached.add(str(arguments[:2]))
sys.addaudithook(look)
import ctr.tracking
from pathlib import Path
assert "mlflow" not in sys.modules
uri, allowed, fallback, run = sys.argv[1:]
tracker = ctr.tracking.Tracker.open(uri or None, "quiet", fallback=Path(fallback))
with tracker.job("q", config={"a": 1}, config_text="a = 1", tags={"seed": 1}, datasets=[]) as job:
    with job.stage("search") as stage:
        stage.metrics({"loss": 1.0}, 0)
    job.finish({"feature_set": {"fields": {"u": {"kept": 1, "total": 2}}}}, Path(run))
print(*[address for address in reached if not allowed or allowed not in address])
"""


@pytest.mark.parametrize("where", ["default", "server"])
def test_mlflow_prints_nothing_and_calls_nobody_else(where, request, tmp_path, run_folder):
    server = request.getfixturevalue("server_uri") if where == "server" else ""
    arguments = [server, server.rpartition(":")[2], str(tmp_path / "fallback"), str(run_folder)]
    strange = ("PYTEST_", "MLFLOW_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(strange)}
    environment["PYTHONPATH"] = str(Path(tracking.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
    if where == "default":
        stored = [path for path in (tmp_path / "fallback" / "artifacts").rglob("*") if path.is_file()]
        assert (tmp_path / "fallback" / "mlflow.db").is_file()
        assert {path.name for path in stored} >= {"config.toml", "fields.json", "features.parquet"}


def test_the_commit_is_known_in_a_checkout_only(monkeypatch, tmp_path):
    assert tracking.git_commit() is None
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "checkout").mkdir()
    monkeypatch.chdir(tmp_path / "checkout")
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *command], check=True)
    assert len(tracking.git_commit()) == 40
    monkeypatch.setenv("PATH", "")
    assert tracking.git_commit() is None


def test_the_first_cause_of_an_error_is_told_in_one_line_without_credentials():
    error = ValueError("long story")
    error.__cause__ = OSError("no way to http://me:secret@there/x\nmore")
    assert tracking._reason(error) == "no way to http://***@there/x"


@pytest.mark.parametrize(
    "name", ["", "a#b", "../up", "/root", "a//b", ".", " a", "a ", "a\n", "n" * 251, "ü:%"]
)
def test_a_name_that_mlflow_refuses_is_changed_to_one_that_it_takes(name):
    from mlflow.utils.validation import _validate_metric_name

    _validate_metric_name(clean_name(name))
    assert clean_name(name) != name
    assert len(clean_name(name)) <= 250


def test_changed_names_stay_different_and_good_names_stay():
    assert len({clean_name(name) for name in ("a#", "a@", "a_", "n" * 251, "n" * 252)}) == 5
    assert clean_name("feature_set.fields.user id-1.kept") == "feature_set.fields.user id-1.kept"
    assert clean_name("price (EUR)").startswith("price _EUR_-")


def test_nested_values_are_flattened_by_dots():
    assert flat_params({"a": {"b": {"c": [1, "x"]}, "d": None, "e": False}}) == {
        "a.b.c": '[1, "x"]',
        "a.e": "false",
    }
    assert flat_metrics({"a": {"b": 1, "c": None, "d": "x", "e": True}, "seed": 3}) == {"a.b": 1.0}
