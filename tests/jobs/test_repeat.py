"""Runs that a scheduler repeats: finished ones, killed ones, and two at once."""

import hashlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

import ctr.jobs.train as job
import ctr.training.fit as fit_module
from ctr.config import Config, load_config
from ctr.dataset import manifest
from ctr.dataset.store import Dataset
from ctr.errors import CtrError, ThresholdError
from ctr.jobs.lock import LOCK

ROOT = Path(__file__).parents[2]
ROWS = 4000
SCHEMA = """
name = "tiny"
label = "click"
[split]
by = "time"
column = "time"
[[fields]]
name = "user"
[[fields]]
name = "noise"
min_count = 2
"""
CONFIG = """
name = "tiny"
data = { schema = "tiny.toml", input = "tiny.csv" }
embedding = { dim = 4 }
backbone = { kind = "deepfm", hidden = [8] }
selector = { kind = "frequency", ratio = 0.5, referees = [], compare_dropped_reads = false }
training = { batch_size = 256, epochs = 2, learning_rate = 1e-2, threads = 1 }
tracking = { uri = "off" }
"""
# What a process of its own runs; {hook} is put before the first save of a checkpoint of the baseline returns.
PROGRAM = """
import os, signal, sys, time
from pathlib import Path
import ctr.jobs.train as job
import ctr.training.fit as fit
job.write_report = lambda report, run, **_: (run / "report.html").write_text("page")
job.figure_png = lambda report, path: path.write_bytes(b"picture")
save = fit.save_checkpoint
def saving(folder, state):
    save(folder, state)
    if folder.name == "last" and folder.parent.name == "baseline":
        {hook}
fit.save_checkpoint = saving
from ctr.config import load_config
job.train(load_config("run.toml"))
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _plain_report(monkeypatch):
    monkeypatch.setattr(
        job, "write_report", lambda report, run, **_: (run / "report.html").write_text("page")
    )
    monkeypatch.setattr(job, "figure_png", lambda report, path: path.write_bytes(b"picture"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with tiny.csv (settled since long), tiny.toml and run.toml."""
    draw = np.random.default_rng(5)
    user = draw.integers(0, 6, ROWS)
    clicks = draw.random(ROWS) < np.where(user % 2, 0.7, 0.2)
    pl.DataFrame(
        {
            "time": np.arange(ROWS),
            "click": clicks.astype(int),
            "user": [f"a user of some name {number}" for number in user],
            "noise": draw.integers(0, 40, ROWS),
        }
    ).write_csv(tmp_path / "tiny.csv")
    os.utime(tmp_path / "tiny.csv", (1_600_000_000, 1_600_000_000))
    (tmp_path / "tiny.toml").write_text(SCHEMA)
    (tmp_path / "run.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*changes, **keys):
    """Runs the job; returns its folder and what it told."""
    console = Console(file=io.StringIO(), width=200)
    run = job.train(load_config("run.toml", changes), console=console, **keys)
    return run, console.file.getvalue()


def snapshot(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in [folder, *folder.rglob("*")]}


def start(hook):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    program = PROGRAM.replace("{hook}", hook)
    return subprocess.Popen([sys.executable, "-c", program], env=environment, stderr=subprocess.DEVNULL)


def wait_for(path, process):
    until = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize("tracking", ["off", "sqlite"])
def test_repeating_a_finished_run_writes_nothing_anywhere_and_reads_no_data(folder, monkeypatch, tracking):
    changes = ["tracking.uri=off"]
    if tracking == "sqlite":
        pytest.importorskip("sqlalchemy", reason="MLflow is not installed")
        changes = ["tracking.uri=sqlite:///mlflow.db"]
    run, _ = train(*changes)
    before = snapshot(folder)

    def never(*_):
        raise AssertionError("read again")

    monkeypatch.setattr(hashlib, "file_digest", never)
    monkeypatch.setattr(manifest, "is_intact", never)
    monkeypatch.setattr(Dataset, "__init__", never)
    again, told = train(*changes)
    assert again == run
    assert "already done" in told
    assert snapshot(folder) == before


def test_a_log_that_was_only_just_written_is_read_again_and_still_nothing_is_written(folder):
    os.utime("tiny.csv")
    train()
    os.utime("tiny.csv", (1_600_000_000, 1_600_000_000))  # settled by now, and not remembered
    before = snapshot(folder)
    assert "already done" in train()[1]
    assert snapshot(folder) == before


def test_a_missed_threshold_is_told_again_and_nothing_is_written(folder):
    for _ in range(2):
        with pytest.raises(ThresholdError, match=r"min_auc = 0\.999"):
            train("export.min_auc=0.999")
        before = snapshot(folder)
    with pytest.raises(ThresholdError):
        train("export.min_auc=0.999")
    assert snapshot(folder) == before


def test_a_log_with_another_byte_is_another_run(folder):
    run, _ = train()
    content = Path("tiny.csv").read_bytes().replace(b"some name 1", b"some name 7", 1)
    Path("tiny.csv").write_bytes(content)
    os.utime("tiny.csv", (1_600_000_001, 1_600_000_001))
    assert train()[0] != run


def test_another_as_of_date_is_another_run_of_fewer_rows(folder):
    runs = [train(*changes)[0] for changes in ([], ["data.as_of=3000"], ["data.as_of=2000"])]
    assert len(set(runs)) == 3
    rows = [sum(job.load_report(run)["dataset"]["rows"].values()) for run in runs]
    assert rows == [ROWS, 3000, 2000]


def test_a_run_that_was_killed_in_training_goes_on_at_once_from_its_checkpoint(folder, monkeypatch):
    process = start("os.kill(os.getpid(), signal.SIGKILL)")
    assert process.wait(timeout=60) == -signal.SIGKILL
    (run,) = Path("runs").iterdir()
    assert (run / LOCK).exists()
    found, load = [], fit_module.load_checkpoint

    def loading(path, *device):
        state = load(path, *device)
        found.append((path.parent.name, path.name, state is not None))
        return state

    monkeypatch.setattr(fit_module, "load_checkpoint", loading)
    assert train()[0] == run
    assert found[0] == ("baseline", "last", True)
    assert {"DONE", "report.json"} <= {path.name for path in run.iterdir()}
    assert not (run / LOCK).exists()
    whole, _ = train("output.folder=whole")
    scores = [pl.read_parquet(entry / "scores" / "test.parquet") for entry in (run, whole)]
    assert scores[0].equals(scores[1])


def test_of_two_at_once_the_second_is_refused_and_the_first_finishes(folder):
    process = start("Path('training').touch()\n        while not Path('go').exists(): time.sleep(0.02)")
    try:
        wait_for(folder / "training", process)
        (run,) = Path("runs").iterdir()
        before = {path: entry for path, entry in snapshot(run).items() if path not in (run, run / LOCK)}
        for force in (False, True):
            with pytest.raises(
                CtrError, match=f'run "{run}": already running.*process {process.pid}'
            ) as error:
                train(force=force)
            assert error.value.exit_code == 1
        after = {path: entry for path, entry in snapshot(run).items() if path not in (run, run / LOCK)}
        assert after == before
    finally:
        Path("go").touch()
    assert process.wait(timeout=60) == 0
    assert (run / "DONE").exists()
    assert "already done" in train()[1]


def test_a_run_that_lost_its_lock_stops_at_the_next_stage(folder, monkeypatch):
    def taken_over(*_, **keys):
        (lock,) = Path("runs").glob(f"*/{LOCK}")
        lock.write_text("somebody else's")
        return original(*_, **keys)

    original = job.score
    monkeypatch.setattr(job, "score", taken_over)
    with pytest.raises(CtrError, match="its lock was taken over"):
        train()
    (run,) = Path("runs").iterdir()
    assert (run / LOCK).read_text() == "somebody else's"
    assert not {"DONE", "report.json", "bundle"} & {path.name for path in run.iterdir()}


def test_a_log_that_breaks_the_schema_leaves_no_run(folder):
    (folder / "tiny.toml").write_text(SCHEMA.replace('"noise"', '"none"'))
    with pytest.raises(CtrError, match='"none"'):
        train()
    assert not Path("runs").exists()


def test_how_a_number_is_written_does_not_name_another_run(folder):
    config = load_config("run.toml")
    content = config.model_dump(by_alias=True)
    turned = {key: content[key] for key in reversed(content)}
    turned["selector"] = {**content["selector"], "rewind_epoch": 0.0}
    turned["training"] = {**content["training"], "patience": 3}
    turned["output"], turned["tracking"] = {"folder": "elsewhere"}, {"uri": "sqlite:///other.db"}
    assert Config.model_validate(turned).digest("data") == config.digest("data")
    turned["training"] = {**content["training"], "patience": 3.5}
    assert Config.model_validate(turned).digest("data") != config.digest("data")
