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

from ctr.serving.scorer import Scorer
from ctr.tracking import Tracker
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


def test_the_model_holds_source_and_data_and_nothing_pickled(store, tmp_path):
    import mlflow

    mlflow.set_tracking_uri(store)
    folder = Path(mlflow.artifacts.download_artifacts("models:/ads@candidate", dst_path=str(tmp_path)))
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
    kinds = {path.suffix for path in files}
    assert kinds <= {"", ".py", ".json", ".yaml", ".txt", ".parquet", ".safetensors", ".onnx"}
    copied = {path.name for path in (folder / "artifacts" / "bundle").iterdir()}
    assert copied == {path.name for path in BUNDLE.iterdir()}
    assert not list((folder / "code" / "ctr").rglob("network.py"))


@pytest.mark.slow
def test_it_is_served_over_http(store, tmp_path):
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(Path(sys.executable).parent / "mlflow"), "models", "serve", "--model-uri"]
    command += ["models:/ads@candidate", "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": store,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    rows = pl.read_parquet(ROWS).drop("expected").select(Scorer(BUNDLE).columns)
    body = json.dumps(
        {"dataframe_split": {"columns": rows.columns, "data": [list(row) for row in rows.rows()]}}
    )
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations", body.encode(), {"Content-Type": "application/json"}
    )
    server = subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True)
    try:
        for _ in range(240):
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    found = [row["probability"] for row in json.load(answer)["predictions"]]
                break
            except urllib.error.HTTPError:
                raise
            except (ConnectionError, urllib.error.URLError):  # it is not there yet
                assert server.poll() is None
                time.sleep(0.5)
    finally:
        os.killpg(server.pid, 15)
        server.wait(30)
    expected = Scorer(BUNDLE).score(rows)
    np.testing.assert_allclose(np.array(found, float), expected, rtol=0, atol=1e-6)
