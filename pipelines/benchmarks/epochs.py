"""What whole epochs cost beside training: looks at valid, and a search with its retraining; by the main job itself."""

import json
import tempfile
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from ctr.config import load_config
from ctr.dataset.synthetic import write_log
from ctr.jobs.train import load_report, train
from ctr.training.machine import bf16_speed
from pipelines.benchmarks.steps import DIM, Setting

EPOCHS = 2


def measure(setting: Setting) -> dict[str, float]:
    """Run the main job on a Criteo-shaped log, a tenth of it valid: two epochs plain, two of search, two of retraining.

    One after the other, so that this wants an otherwise idle machine.

    Returns:
        evaluation_over_epoch (share of the plain epochs' time that goes into ten looks an epoch at valid and into
        checkpoints), search_and_retrain_over_plain (time of search and retraining over that of the plain epochs). Where
        the processor multiplies bf16 faster than float32 (see `bf16_speed`) the same with it, as
        evaluation_over_epoch_bf16 and search_and_retrain_over_plain_bf16, and stages_bf16_over_float32 (speed of all
        three together, of that in float32).
    """
    results, stages = dict[str, float](), dict[str, float]()
    with tempfile.TemporaryDirectory(prefix="ctr-bench-") as name:
        folder = Path(name)
        write_log("criteo", folder / "log", rows=setting.rows_fed)
        for precision, ending in (("float32", ""), ("bf16", "_bf16")):
            if precision == "bf16" and bf16_speed() <= 1.0:
                break
            report = _report(folder, setting, precision)
            seconds, rows = report["seconds"], report["dataset"]["rows"]["train"]
            results[f"evaluation_over_epoch{ending}"] = _beside_training(report["history"]["baseline"], rows)
            selecting = seconds["search"] + seconds["retrain"]
            results[f"search_and_retrain_over_plain{ending}"] = selecting / seconds["baseline"]
            stages[precision] = selecting + seconds["baseline"]
    if "bf16" in stages:
        results["stages_bf16_over_float32"] = stages["float32"] / stages["bf16"]
    return results


def _report(folder: Path, setting: Setting, precision: str) -> dict[str, Any]:
    changes = {
        "data.schema": str(folder / "log" / "schema.toml"),
        "data.input": str(folder / "log" / "log.parquet"),
        "data.folder": str(folder / "datasets"),
        "output.folder": str(folder / "runs"),
        "tracking.uri": "off",
        "embedding.dim": DIM,
        "backbone.hidden": list(setting.hidden),
        "selector.penalty": 2.5,
        "selector.epochs": EPOCHS,
        "selector.referees": [],
        "selector.compare_dropped_reads": False,
        "training.epochs": EPOCHS,
        "training.patience": 2 * EPOCHS,  # never lost: both trainings run to the end
        "training.batch_size": setting.batch,
        "training.precision": precision,
    }
    (folder / "run.toml").write_text('name = "epochs"\n', encoding="utf-8")
    stated = [f"{key}={json.dumps(value)}" for key, value in changes.items()]
    return load_report(train(load_config(folder / "run.toml", stated), console=Console(file=StringIO())))


def _beside_training(looks: list[dict[str, float]], rows: int) -> float:
    """Share of the time of some epochs over `rows` rows each that was not spent on training."""
    training, passes = 0.0, 0.0
    for look in looks:
        training += (look["passes"] - passes) * rows / look["rows_per_second"]
        passes = look["passes"]
    return 1.0 - training / sum(look["seconds"] for look in looks)
