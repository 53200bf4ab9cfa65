"""A comparison in MLflow, and without one that answers."""

import io
import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from rich.console import Console

import ctr.jobs.compare as job
from ctr.errors import CtrError
from ctr.jobs.sync import sync
from tests.jobs.comparison_logs import comparison, content, write_log
from tests.jobs.test_finished_runs import write_run

SMALL = {
    "grid": {"selectors": ["frequency"], "sizes": [0.5], "seeds": [0]},
    "compare": {"alternatives": []},
}


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return write_log(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def _plain_page(monkeypatch):
    monkeypatch.setattr(
        job, "write_comparison", lambda document, folder, _: (folder / "comparison.html").touch()
    )


def run(config, **keys):
    return job.compare(config, console=Console(file=io.StringIO()), **keys)


def tracked(log, folder, uri):
    changed = content(log, folder)["run"] | {"tracking": {"uri": uri, "experiment": "tiny"}}
    return comparison(log, folder, run=changed, **SMALL)


def test_a_comparison_is_a_parent_run_with_a_table_and_a_nested_run_for_each_model(log, tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    folder = run(tracked(log, tmp_path, uri))
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny").experiment_id
    runs = client.search_runs([experiment])
    parents = [each for each in runs if "mlflow.parentRunId" not in each.data.tags]
    nested = [each for each in runs if "mlflow.parentRunId" in each.data.tags]
    assert len(parents) == 1
    assert parents[0].info.status == "FINISHED"
    assert parents[0].data.tags["verdict"] == job.load_document(folder)["verdict"]
    names = {path.path for path in client.list_artifacts(parents[0].info.run_id)}
    assert {"comparison.json", "comparison.html", "comparison.parquet", "tables"} <= names
    assert {each.info.run_name for each in nested} == {
        "keep all, deepfm, table, seed 0",
        "frequency at 50 %, deepfm, table, seed 0",
    }
    table = json.loads(
        Path(
            client.download_artifacts(parents[0].info.run_id, "tables/comparison.json", str(tmp_path))
        ).read_text()
    )
    assert {len(row) for row in table["data"]} == {len(table["columns"])}
    assert {"memorized", "factorized", "cross_rows"} < set(table["columns"])
    kept = next(each for each in nested if "frequency" in each.info.run_name)
    assert kept.data.params["label"] == "frequency"
    assert 0.5 < kept.data.metrics["test_auc"] < 1.0
    before = len(runs)
    run(tracked(log, tmp_path, uri))
    assert len(client.search_runs([experiment])) == before


def test_a_comparison_of_finished_runs_is_logged_where_a_store_is_stated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [str(write_run(tmp_path / kind, kind)) for kind in ("optfs", "frequency")]
    job.compare_runs(names, tmp_path / "out")
    assert not (tmp_path / "runs").exists()
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for _ in range(2):  # the second time in the same runs
        folder = job.compare_runs(names, tmp_path / "out", tracking=uri, margin=0.002)
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("ctr").experiment_id])
    (parent,) = [each for each in runs if "mlflow.parentRunId" not in each.data.tags]
    assert parent.data.tags["verdict"] == job.load_document(folder)["verdict"]
    assert parent.data.params["compare.max_auc_loss"] == "0.002"
    assert {each.info.run_name for each in runs if each is not parent} == {
        f"{name}, deepfm, table, seed 0" for name in ("keep all", "optfs at 50 %", "frequency at 50 %")
    }


def test_a_store_that_does_not_answer_loses_no_comparison_of_finished_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [str(write_run(tmp_path / kind, kind)) for kind in ("optfs", "frequency")]
    broken = tmp_path / "store"
    broken.write_text("no database")
    with pytest.raises(CtrError, match="the comparison itself is done"):
        job.compare_runs(names, tmp_path / "out", tracking=f"sqlite:///{broken}")
    assert job.load_document(tmp_path / "out")["verdict"]
    broken.unlink()
    assert sync(tmp_path / "out", tell=str) == 1


@pytest.mark.parametrize("by_sync", [False, True])
def test_a_store_that_does_not_answer_loses_nothing_and_gets_it_later(log, tmp_path, by_sync):
    broken = tmp_path / "store"
    broken.write_text("no database")
    with pytest.raises(CtrError, match="the comparison itself is done") as told:
        run(tracked(log, tmp_path, f"sqlite:///{broken}"), out=tmp_path / "out")
    assert "the same command sends it" in str(told.value)
    assert job.load_document(tmp_path / "out")["verdict"]
    broken.unlink()
    if by_sync:
        assert sync(tmp_path / "out", tell=str) == 1
    for _ in range(2):  # the second time there is nothing to do
        run(tracked(log, tmp_path, f"sqlite:///{broken}"), out=tmp_path / "out")
    client = MlflowClient(f"sqlite:///{broken}")
    runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
    assert len(runs) == 3
    assert {each.info.status for each in runs} == {"FINISHED"}
    assert not (tmp_path / "out" / "unsent.json").exists()
    state = json.loads((tmp_path / "out" / "mlflow.json").read_text())
    assert state["sent"] == job.load_document(tmp_path / "out")["digest"]
