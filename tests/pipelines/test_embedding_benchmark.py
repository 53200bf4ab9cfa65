import json
import sys

import pytest

from pipelines.benchmarks import embeddings

RUN = """
name = "tiny"
[data]
schema = "log/schema.toml"
input = "log/log.parquet"
[embedding]
dim = 4
"""
EXPERIMENT = """
seeds = 1
budgets = [0.5, 0.0005]
set = ["training.epochs=1", "training.eval_every=1000"]
[[backbones]]
kind = "fm"
[[logs]]
config = "run.toml"
synthetic = { preset = "demo", rows = 2_500 }
[variants]
budget = 0.2
changes = { "1 lookup" = ["embedding.lookups=1"] }
[drift]
budgets = [0.5]
buckets = 2
logs = [{ config = "run.toml" }]
"""


@pytest.fixture
def results(tmp_path, monkeypatch, capsys):
    (tmp_path / "run.toml").write_text(RUN)
    (tmp_path / "experiment.toml").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["embeddings", "experiment.toml", "--out", "out", *arguments])
        embeddings.main()
        return capsys.readouterr().out

    return run


@pytest.mark.slow
def test_one_config_gives_tables_and_plots_and_repeats_no_training(results, tmp_path):
    printed = results()
    out = tmp_path / "out"
    budgets = json.loads((out / "budgets.json").read_text())
    assert [(entry["tables"], entry["budget"]) for entry in budgets] == [
        ("collision-free", None),
        ("separate", 0.5),
        ("shared", 0.5),
        ("separate", 0.0005),
        ("shared", 0.0005),
    ]
    assert all(len(entry["test_auc"]) == 1 for entry in budgets[:3])
    whole, half = budgets[0]["bytes"], budgets[2]["bytes"]
    assert 0.49 * whole < half <= 0.5 * whole
    assert "expected at least 20 rows" in budgets[3]["refused"]  # one for each field
    assert "does not fit" in printed
    for name in ("budgets.md", "budgets-tiny.png", "variants.md", "drift.md", "drift.png"):
        assert (out / name).stat().st_size > 100
    drift = json.loads((out / "drift.json").read_text())
    assert [entry["tables"] for entry in drift] == [
        "collision-free, unknown",
        "shared at 0.5, unknown",
        "shared at 0.5, hashed",
    ]
    assert [len(seed) for seed in drift[0]["test_auc"]] == [2]
    assert all(0.0 < part < 0.5 for part in drift[2]["unseen"])
    assert "| 1 lookup |" in printed
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("DONE")}
    results()
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("DONE")}
