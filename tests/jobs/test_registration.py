"""Runs that register their bundle, and what is kept of a job where MLflow stops to answer."""

import io
import json
from contextlib import suppress

import pytest
import torch
from rich.console import Console

import ctr.jobs.evaluate as evaluation
import ctr.jobs.train as job
from ctr import tracking
from ctr.config import Tracking
from ctr.errors import CtrError, ThresholdError
from ctr.jobs.evaluation_settings import evaluation_settings
from ctr.jobs.sync import sync
from ctr.settings import check
from ctr.unsent import UNSENT
from tests.jobs.conftest import SCHEMA, configuration, tiny_log, trained

pytest.importorskip("sqlalchemy", reason="MLflow is not installed")
from mlflow import MlflowClient


class Line:
    """MLflow clients fail while it is down, and after `calls_left` calls."""

    def __init__(self):
        self.down, self.calls_left = False, None

    def client(self, address, make=tracking._client):
        return Client(self, make(address))


class Client:
    def __init__(self, line, real):
        self.line, self.real = line, real

    def __getattr__(self, name):
        if self.line.calls_left is not None:
            self.line.calls_left -= 1
        if self.line.down or (self.line.calls_left is not None and self.line.calls_left < 0):
            raise ConnectionError("the line is dead")
        return getattr(self.real, name)


@pytest.fixture(autouse=True)
def _threads_as_before():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("registered")
    tiny_log(600).write_parquet(folder / "log.parquet")
    (folder / "shop.toml").write_text(SCHEMA)
    return folder


@pytest.fixture
def line(monkeypatch):
    line = Line()
    monkeypatch.setattr(tracking, "_client", line.client)
    return line


def config(folder, tmp_path, *, register="ads", **sections):
    return configuration(
        folder,
        "ads",
        backbone={"kind": "lr"},
        selector={"kind": "none"},
        training={"batch_size": 128, "epochs": 1, "threads": 1},
        tracking={"uri": f"sqlite:///{tmp_path}/mlflow.db", "register": register},
        output={"folder": str(tmp_path / "runs")},
        **sections,
    )


def store(tmp_path):
    return MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")


def versions(tmp_path):
    return store(tmp_path).search_model_versions("name = 'ads'")


def test_a_finished_run_is_a_version_once_and_the_candidate(folder, tmp_path):
    run = trained(config(folder, tmp_path))
    report = json.loads((run / "report.json").read_text())
    (version,) = versions(tmp_path)
    assert version.tags["run"] == run.name
    assert float(version.tags["test_auc"]) == report["baseline"]["test"]["auc"]
    assert int(version.tags["bundle_bytes"]) == report["bundle"]["bytes"]
    assert (version.tags["feature_set"], version.tags["selector"]) == ("all", "none")
    client = store(tmp_path)
    assert client.get_model_version_by_alias("ads", "candidate").version == version.version
    held = client.get_run(version.run_id)
    assert held.info.status == "FINISHED"
    assert version.source == f"{held.info.artifact_uri}/model"
    trained(config(folder, tmp_path))
    state = json.loads((run / "mlflow.json").read_text())
    del state["registered"]  # a process that was killed before it could note that
    (run / "mlflow.json").write_text(json.dumps(state))
    trained(config(folder, tmp_path))
    assert len(versions(tmp_path)) == 1


def test_a_run_that_was_finished_before_is_registered_on_request(folder, tmp_path):
    run = trained(config(folder, tmp_path, register=None))
    assert versions(tmp_path) == []
    assert trained(config(folder, tmp_path)) == run
    assert len(versions(tmp_path)) == 1


def test_a_missed_threshold_registers_nothing(folder, tmp_path):
    for _ in range(2):
        with pytest.raises(ThresholdError, match="nothing was registered"):
            trained(config(folder, tmp_path, export={"min_auc": 0.99}))
    assert versions(tmp_path) == []


def test_a_name_and_a_store_are_needed():
    with pytest.raises(CtrError, match='register: needs an MLflow store, found uri = "off"'):
        check({"uri": "off", "register": "ads"}, Tracking, "config")
    with pytest.raises(CtrError, match="register"):
        check({"register": "a/b"}, Tracking, "config")


def interrupted(folder, tmp_path, line, monkeypatch):
    """The folder of a run whose store stops to answer before its end."""
    real = job.export_bundle

    def export(*arguments, **keys):
        line.down = True
        return real(*arguments, **keys)

    monkeypatch.setattr(job, "export_bundle", export)
    with pytest.raises(CtrError, match=r"ctr sync .* the run itself is done") as told:
        trained(config(folder, tmp_path))
    assert told.value.exit_code == 1
    (done,) = (tmp_path / "runs").glob("*/DONE")
    assert (done.parent / UNSENT).stat().st_mode & 0o077 == 0
    return done.parent


def is_whole(run, tmp_path):
    client = store(tmp_path)
    experiment = client.get_experiment_by_name("ctr").experiment_id
    runs = client.search_runs([experiment])
    assert sorted(each.info.run_name for each in runs) == sorted([run.name, "baseline"])
    assert {each.info.status for each in runs} == {"FINISHED"}
    (parent,) = [each for each in runs if each.info.run_name == run.name]
    report = json.loads((run / "report.json").read_text())
    assert parent.data.metrics["baseline.test.auc"] == report["baseline"]["test"]["auc"]
    names = {entry.path for entry in client.list_artifacts(parent.info.run_id)}
    assert names >= {"bundle", "report.json", "config.toml"}
    assert len(versions(tmp_path)) == 1
    assert not (run / UNSENT).exists()


def test_a_run_whose_store_died_is_sent_and_registered_later(folder, tmp_path, line, monkeypatch):
    run = interrupted(folder, tmp_path, line, monkeypatch)
    told = []
    with pytest.raises(CtrError, match="1 not sent, 0 sent"):
        sync(tmp_path / "runs", tell=told.append)
    with pytest.raises(CtrError, match="the line is dead"):
        trained(config(folder, tmp_path))
    assert (run / UNSENT).is_file()
    line.down = False
    moved = (tmp_path / "runs").rename(tmp_path / "moved")
    assert sync(moved, tell=told.append) == 1
    assert told == [f'sent: {moved / run.name}, registered as version 1 of "ads"']
    is_whole(moved / run.name, tmp_path)
    assert sync(moved, tell=told.append) == 0
    moved.rename(tmp_path / "runs")
    trained(config(folder, tmp_path))
    is_whole(run, tmp_path)


def test_the_same_command_sends_it_too(folder, tmp_path, line, monkeypatch):
    run = interrupted(folder, tmp_path, line, monkeypatch)
    line.down = False
    trained(config(folder, tmp_path))
    is_whole(run, tmp_path)


def test_a_store_that_dies_again_and_again_gets_everything_once(folder, tmp_path, line, monkeypatch):
    run = interrupted(folder, tmp_path, line, monkeypatch)
    line.down, attempts = False, 0
    for line.calls_left in range(3, 60, 4):
        attempts += 1
        with suppress(CtrError):
            sync(run, tell=str)
            break
    assert attempts > 1
    line.calls_left = None
    is_whole(run, tmp_path)


def test_what_is_kept_of_a_run_that_is_gone_says_what_to_do(folder, tmp_path, line, monkeypatch):
    run = interrupted(folder, tmp_path, line, monkeypatch)
    line.down = False
    store(tmp_path).delete_run(json.loads((run / "mlflow.json").read_text())["run_id"])
    with pytest.raises(CtrError, match="redo it with --force"):
        sync(run, tell=str)
    assert (run / UNSENT).is_file()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"uri": 1}'])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / UNSENT).write_text(content)
    with pytest.raises(CtrError, match="missing or was altered"):
        sync(tmp_path, tell=str)


def test_calls_that_no_job_keeps_are_not_made(tmp_path):
    kept = {"uri": f"sqlite:///{tmp_path}/a.db", "experiment": "x", "fallback": str(tmp_path), "runs": [None]}
    (tmp_path / UNSENT).write_text(json.dumps({**kept, "entries": [[0, "__init__", []]]}))
    with pytest.raises(CtrError, match='it asks for "__init__"'):
        sync(tmp_path, tell=str)


def test_an_evaluation_that_mlflow_never_heard_of_is_sent_later(folder, tmp_path, monkeypatch):
    run = trained(config(folder, tmp_path, register=None))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        evaluation, "write_evaluation", lambda report, out: (out / "evaluation.html").write_text("page")
    )
    given = {"models": [str(run)], "names": ["a"], "data": [str(folder / "log.parquet")], "out": "out"}
    settings = evaluation_settings(None, given | {"tracking": "http://127.0.0.1:9"})
    with pytest.raises(CtrError, match='`ctr sync "out"` sends them'):
        evaluation.evaluate(settings, console=Console(file=io.StringIO()))
    with pytest.raises(CtrError, match="Connection refused"):
        sync(tmp_path / "out", tell=str)
    other = f"sqlite:///{tmp_path}/other.db"
    assert sync(tmp_path / "out", uri=other, tell=str) == 1
    client = MlflowClient(other)
    (found,) = client.search_runs([client.get_experiment_by_name("ctr").experiment_id])
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert found.data.metrics["a.auc"] == report["models"][0]["auc"]["value"]
    assert found.info.status == "FINISHED"
    assert found.data.tags["job"] == "evaluation"
    assert "evaluation.json" in {entry.path for entry in client.list_artifacts(found.info.run_id)}
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {f"evaluation.{kind}" for kind in ("json", "html", "parquet")}


def test_a_job_that_was_kept_whole_is_one_run_however_often_the_store_dies(tmp_path, line):
    line.down = True
    keys = {"fallback": tmp_path, "keep": tmp_path, "required": False}
    tracker = tracking.Tracker.open(f"sqlite:///{tmp_path}/mlflow.db", "kept", **keys)
    with (
        pytest.raises(tracking.UnsentError),
        tracker.job("toy", config={"a": 1}, config_text="", tags={}, datasets=[]) as tracked,
        tracked.stage("search") as stage,
    ):
        stage.metrics({"loss": float("nan")}, 1)
    line.down = False
    for line.calls_left in range(3, 60, 2):
        with suppress(CtrError):
            sync(tmp_path, tell=str)
            break
    client = store(tmp_path)
    runs = client.search_runs([client.get_experiment_by_name("kept").experiment_id])
    assert sorted((each.info.run_name, each.info.status) for each in runs) == [
        ("search", "FINISHED"),
        ("toy", "FINISHED"),
    ]
