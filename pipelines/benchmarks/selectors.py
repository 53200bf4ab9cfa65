"""What it costs to choose values, beside the OptFS search: by the parts of the main job themselves."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ctr.dataset.synthetic import write_log
from ctr.estimators.field_specs import field_specs
from ctr.estimators.study import Rows, study, valid_rows
from pipelines.benchmarks.steps import DIM, Setting

SIZES = (0.5, 0.2, 0.1, 0.05, 0.02)


def measure(setting: Setting) -> dict[str, float]:
    """Choose values for five sizes on a Criteo-shaped log, by trial and by an OptFS search of three epochs.

    Both with a keep-all network that is trained already; nothing is trained again.

    Returns:
        trial_over_search: time of the one over that of the other. trial_of_one_size_over_search: the same of the first
        size alone.
    """
    with tempfile.TemporaryDirectory(prefix="ctr-bench-") as name:
        write_log("criteo", Path(name), rows=setting.rows_fed)
        rows = _rows(pl.read_parquet(Path(name) / "log.parquet"))
    specs = field_specs(rows.frame, None, min_count=2)
    settings: dict[str, Any] = {
        "embedding.dim": DIM,
        "backbone.hidden": list(setting.hidden),
        "training.batch_size": setting.batch,
        "training.epochs": 1,
        "selector.epochs": 3,
    }
    parts = valid_rows(rows.labels, 0.1, True, 0)
    with study(rows, specs, settings, parts, seed=0) as found:
        found.trainer.baseline()
        seconds = {kind: _seconds(found.trainer, kind) for kind in ("trial", "optfs")}
    trial, search = seconds["trial"], seconds["optfs"]
    return {
        "trial_over_search": trial[-1] / search[-1],
        "trial_of_one_size_over_search": trial[0] / search[0],
    }


def _rows(log: pl.DataFrame) -> Rows:
    return Rows(log.drop("label", "true_probability"), log["label"].to_numpy().astype(np.int64), None)


def _seconds(trainer: Any, kind: str) -> list[float]:
    """Seconds until each size was chosen."""
    started, found = time.perf_counter(), []
    for size in SIZES:
        trainer.choose(kind, ratio=size)
        found.append(time.perf_counter() - started)
    return found
