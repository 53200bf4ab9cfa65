"""What it costs to choose values, beside the OptFS search: by the parts of the main job themselves."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ctr.dataset.batches import Batches
from ctr.dataset.synthetic import write_log
from ctr.estimators.field_specs import field_specs
from ctr.estimators.study import Rows, study, valid_rows
from ctr.jobs.models import Trainer
from ctr.selection import trial
from ctr.selection.saliency import saliency
from pipelines.benchmarks.steps import DIM, Setting

_ROWS = 8192  # of a batch where nothing is learned, as in a run
SIZES = (0.5, 0.2, 0.1, 0.05, 0.02)


def measure(setting: Setting) -> dict[str, float]:
    """Choose values for five sizes on a Criteo-shaped log, by trial and by an OptFS search of three epochs.

    Keep-all is trained beforehand, as every run does, and nothing is trained again. A trial asks it on the way: the
    time of these passes over train is the trial's.

    Returns:
        trial_over_search: time of the one over that of the other. trial_of_one_size_over_search: the same of the first
        size alone. trial_passes_over_search: of the passes alone, which both hold.
    """
    with tempfile.TemporaryDirectory(prefix="ctr-bench-") as name:
        write_log("criteo", Path(name), rows=setting.rows_fed)
        rows = _rows(pl.read_parquet(Path(name) / "log.parquet"))
    settings: dict[str, Any] = {
        "embedding.dim": DIM,
        "backbone.hidden": list(setting.hidden),
        "training.batch_size": setting.batch,
        "training.epochs": trial.EPOCHS,
        "selector.kind": "trial",
        "selector.ratio": list(SIZES),
        "selector.referees": [],
        "selector.epochs": 3,
    }
    specs = field_specs(rows.frame, None, min_count=2)
    parts = valid_rows(rows.labels, 0.1, True, 0)
    with study(rows, specs, settings, parts, seed=0) as found:
        trainer = found.trainer
        network = trainer.baseline().load()
        train = Batches(trainer.train, trainer.networks.numbered, _ROWS)
        started = time.perf_counter()
        saliency(network, train, found.dataset.features)
        asked = trial.EPOCHS * (time.perf_counter() - started)
        tried, searched = _seconds(trainer, "trial"), _seconds(trainer, "optfs")
    return {
        "trial_over_search": (asked + tried[-1]) / searched[-1],
        "trial_of_one_size_over_search": (asked + tried[0]) / searched[0],
        "trial_passes_over_search": asked / searched[-1],
    }


def _rows(log: pl.DataFrame) -> Rows:
    return Rows(log.drop("label", "true_probability"), log["label"].to_numpy().astype(np.int64), None)


def _seconds(trainer: Trainer, kind: str) -> list[float]:
    """Seconds until each size was chosen."""
    started, found = time.perf_counter(), []
    for size in SIZES:
        trainer.choose(kind, ratio=size)
        found.append(time.perf_counter() - started)
    return found
