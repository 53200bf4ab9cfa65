"""A bundle as an MLflow model: by alias in a fresh interpreter without our repository, and over HTTP."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ctr.dataset.ingest import ingest
from ctr.dataset.schema import Schema
from ctr.dataset.store import Dataset
from ctr.serving.scorer import Scorer
from ctr.settings import check
from ctr.tracking import Tracker
from tests.serving.conftest import Trained
from tests.serving.write_released import RELEASED

pytest.importorskip("mlflow.pyfunc", reason="MLflow is not installed")

BUNDLE, ROWS = RELEASED / "format_3" / "bundle", RELEASED / "format_3" / "rows.parquet"
LOADED = """
import sys
import mlflow, numpy as np, polars as pl
uri, rows = sys.argv[1:]
mlflow.set_tracking_uri(uri)
model = mlflow.pyfunc.load_model("models:/ads@candidate")
import ctr
assert "/code/ctr/" in ctr.__file__, ctr.__file__
rows = pl.read_parquet(rows)
found = model.predict(rows.to_pandas())["probability"].to_numpy()
np.testing.assert_allclose(found, rows["expected"], rtol=0, atol=1e-6)
assert "torch" not in sys.modules
assert [column.name for column in model.metadata.signature.inputs][0] == "user"
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Address of a store with the fixture of the third format as candidate of "ads"."""
    folder = tmp_path_factory.mktemp("store")
    tracker = Tracker.open(None, "ads", fallback=folder)
    with tracker.job("ads", config={}, config_text="", tags={}, datasets=[]) as job:
        job.register("ads", {"run": "ads-1", "bundle_sha256": "aa"}, BUNDLE)
    return f"sqlite:///{folder}/mlflow.db"


def test_it_is_loaded_by_alias_where_our_repository_is_not(store, tmp_path):
    done = subprocess.run(
        [sys.executable, "-I", "-c", LOADED, store, str(ROWS)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_model_holds_source_and_data_and_nothing_pickled(store, tmp_path, monkeypatch):
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)  # not for the whole process, as set_tracking_uri is
    folder = Path(mlflow.artifacts.download_artifacts("models:/ads@candidate", dst_path=str(tmp_path)))
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
    kinds = {path.suffix for path in files}
    assert kinds <= {"", ".py", ".json", ".yaml", ".txt", ".parquet", ".safetensors", ".onnx"}
    copied = {path.name for path in (folder / "artifacts" / "bundle").iterdir()}
    assert copied == {path.name for path in BUNDLE.iterdir()}
    assert not list((folder / "code" / "ctr").rglob("network.py"))


BIG = 2**53 + 1  # no float is as long


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    """A bundle of a log with 64-bit ids, truths, numbers and lists, gaps in all of them; and as an MLflow model."""
    from ctr.serving.pyfunc import write_model

    folder = tmp_path_factory.mktemp("numbered")
    log = pl.DataFrame(
        {
            "click": [n % 2 for n in range(80)],
            "id": [None if n % 5 == 4 else BIG + n % 5 for n in range(80)],
            "known": [None if n % 3 == 2 else n % 3 == 1 for n in range(80)],
            "price": [None if n % 7 == 0 else n * 0.5 for n in range(80)],
            "seen": [None if n % 4 == 0 else [n % 4, BIG] for n in range(80)],
        }
    )
    log.write_parquet(folder / "log.parquet")
    keys = {
        "name": "numbered", "label": "click", "split": {"by": "random", "valid": 0.2, "test": 0.2},
        "read": {"format": "parquet"},
        "fields": [{"name": "id"}, {"name": "known"}, {"name": "price", "kind": "numeric", "transform": "minmax"},
                   {"name": "seen", "kind": "list"}],
    }  # fmt: skip
    dataset = Dataset(ingest(check(keys, Schema, "schema"), folder / "log.parquet", folder / "datasets"))
    bundle = Trained(dataset, folder / "log.parquet", hidden=(4,), dim=2).export(folder / "bundle")
    write_model(bundle, folder / "model")
    scorer = Scorer(bundle)
    rows = log.select(scorer.columns).head(20)
    return folder / "model", rows, scorer.score(rows)


def test_gaps_among_integers_and_64_bits_pass_the_signature(numbered):
    import mlflow
    import pandas as pd

    folder, rows, expected = numbered
    model = mlflow.pyfunc.load_model(str(folder))
    assert len(set(expected[[0, 1, 2, 3]])) == 4  # ids that are one number as floats

    def probabilities(frame):
        return model.predict(frame)["probability"].to_numpy()

    plain = {
        "known": rows["known"].to_list(),
        "price": rows["price"].to_list(),
        "seen": rows["seen"].to_list(),
    }
    nullable = pd.DataFrame({"id": pd.array(rows["id"].to_list(), "Int64"), **plain})
    np.testing.assert_array_equal(probabilities(nullable), expected)
    np.testing.assert_array_equal(probabilities(nullable.astype({"known": "boolean"})), expected)
    whole = rows.filter(pl.col("id").is_not_null()).to_pandas()
    assert whole["id"].dtype == np.int64
    np.testing.assert_array_equal(probabilities(whole), expected[rows["id"].is_not_null().to_numpy()])
    text = rows.with_columns(pl.col("id").cast(pl.String)).to_pandas()
    np.testing.assert_array_equal(probabilities(text), expected)
    floats = rows.with_columns(pl.lit(None).alias("id")).to_pandas()
    assert np.isfinite(probabilities(floats)).all()
    assert [column.type.to_dict() for column in model.metadata.signature.inputs] == [{"type": "any"}] * 4


def served(model, bodies, folder, **environment):
    """What a server of a model answers to each body of a request: probabilities."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "mlflow"), "models", "serve", "--model-uri"]
    command += [model, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, **environment, "PATH": path}
    server = subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True)
    try:
        return [_answer(server, port, body) for body in bodies]
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)


def _answer(server, port, body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    for _ in range(240):
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return np.array([row["probability"] for row in json.load(answer)["predictions"]], float)
        except urllib.error.HTTPError:
            raise
        except (ConnectionError, urllib.error.URLError):  # it is not there yet
            assert server.poll() is None
            time.sleep(0.5)
    raise AssertionError("the server does not answer")


def split(rows):
    return {"dataframe_split": {"columns": rows.columns, "data": [list(row) for row in rows.rows()]}}


@pytest.mark.slow
def test_it_is_served_over_http(store, tmp_path):
    rows = pl.read_parquet(ROWS).drop("expected").select(Scorer(BUNDLE).columns)
    [found] = served("models:/ads@candidate", [split(rows)], tmp_path, MLFLOW_TRACKING_URI=store)
    np.testing.assert_allclose(found, Scorer(BUNDLE).score(rows), rtol=0, atol=1e-6)


@pytest.mark.slow
def test_integers_with_gaps_are_served_over_http_and_long_ids_as_text(numbered, tmp_path):
    folder, rows, expected = numbered
    whole = rows.filter(pl.col("id").is_not_null())
    text = rows.with_columns(pl.col("id").cast(pl.String))
    records = {"dataframe_records": rows.with_columns(pl.lit(7).alias("id")).to_dicts()}
    found = served(str(folder), [split(whole), split(text), records, split(rows)], tmp_path)
    np.testing.assert_allclose(found[0], expected[rows["id"].is_not_null().to_numpy()], rtol=0, atol=1e-6)
    np.testing.assert_allclose(found[1], expected, rtol=0, atol=1e-6)
    assert np.isfinite(found[2]).all()
    assert np.isfinite(found[3]).all()  # as floats, so long ids are others
