"""A bundle is scored where PyTorch cannot be imported, and by a network file alone."""

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
SCORED = """
import polars as pl
from ctr.serving.scorer import Scorer, score_file
folder, rows, out = {paths}
Scorer(folder)
score_file(folder, rows, out)
assert not [name for name in sys.modules if name.split(".")[0] == "torch"]
"""


def run_blocked(names, paths):
    code = BLOCKED.format(names=names) + SCORED.format(paths=paths)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_bundle_scores_where_pytorch_cannot_be_imported(bundle, log, tmp_path):
    paths = (str(bundle), str(log[0] / "log.csv"), str(tmp_path / "scores.parquet"))
    names = {"torch", "sklearn", "mlflow", "matplotlib", "pandas", "onnxscript"}
    done = run_blocked(names, paths)
    assert done.returncode == 0, done.stderr
    found = pl.read_parquet(tmp_path / "scores.parquet")["probability"].to_numpy()
    np.testing.assert_allclose(found, Scorer(bundle).score(log[1]), rtol=0, atol=1e-6)


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
