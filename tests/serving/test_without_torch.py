"""A bundle is scored where PyTorch cannot be imported, without pandas, and by a network file alone."""

import subprocess
import sys

import numpy as np
import onnxruntime
import polars as pl
import pytest

from ctr.errors import ConfigError
from ctr.serving import forward_pass
from ctr.serving.scorer import Scorer
from tests.serving.write_released import RELEASED

BLOCKED = """
import sys


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names}:
            raise ModuleNotFoundError(f"{{name}} is not installed", name=name)


sys.meta_path.insert(0, Absent())
"""
INGESTED_AND_SCORED = """
from pathlib import Path
import polars as pl
from ctr.dataset.ingest import ingest
from ctr.dataset.store import Dataset
from ctr.serving.scorer import Scorer, score_file
dataset, bundle, rows, out = {paths}
ingest(Dataset(Path(dataset)).schema, rows, Path(out).parent / "datasets")
Scorer(bundle)
score_file(bundle, rows, out)
assert not {{"torch", "pandas"}} & {{name.split(".")[0] for name in sys.modules}}
"""


def test_a_log_is_ingested_and_scored_where_pytorch_cannot_be_imported_and_pandas_is_not(
    bundle, log, tmp_path
):
    folder, frame, dataset = log
    paths = [str(path) for path in (dataset.folder, bundle, folder / "log.csv", tmp_path / "scores.parquet")]
    names = {"torch", "sklearn", "mlflow", "matplotlib", "onnxscript"}
    code = BLOCKED.format(names=names) + INGESTED_AND_SCORED.format(paths=paths)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    found = pl.read_parquet(tmp_path / "scores.parquet")["probability"].to_numpy()
    np.testing.assert_allclose(found, Scorer(bundle).score(frame), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "bundle_format", "advice"),
    [
        ("onnxruntime", 3, 'needs onnxruntime, .* "ctr\\[serve\\]"'),
        ("torch", 2, 'needs torch, .* "ctr\\[train\\]"'),
    ],
)
def test_what_is_not_installed_is_named(monkeypatch, name, bundle_format, advice):
    there = forward_pass.find_spec
    monkeypatch.setattr(forward_pass, "find_spec", lambda wanted: None if wanted == name else there(wanted))
    with pytest.raises(ConfigError, match=advice):
        Scorer(RELEASED / f"format_{bundle_format}" / "bundle")


def test_any_onnx_runtime_loads_the_folder(bundle, log):
    scorer = Scorer(bundle)
    session = onnxruntime.InferenceSession(bundle / "network.onnx", providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == scorer.bundle.manifest.network.inputs
    assert [each.name for each in session.get_outputs()] == ["logit", "probability"]
    assert session.get_inputs()[0].shape[0] == "B"
