"""A cell trained, measured on valid and kept on disk, with the test split sealed.

checkpoints/   of each training; an interrupted cell goes on from there
feature_sets/  what each size kept
valid.parquet  probabilities on valid, a column for each model
cell.json      sizes, quality on valid, seconds; written last, so a cell that has it is done
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from rich.console import Console

from ctr.config import Config
from ctr.dataset.carried_set import carried
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.store import Dataset
from ctr.errors import CtrError, memory_told
from ctr.jobs.cells import Cell
from ctr.jobs.importance import importance
from ctr.jobs.limits import memory_advice
from ctr.jobs.lock import RunLock
from ctr.jobs.models import Model, Trainer
from ctr.jobs.networks import Networks
from ctr.jobs.report_facts import feature_counts
from ctr.jobs.rounding import rounding
from ctr.jobs.scored import Probabilities, measured
from ctr.serving.export import export_bundle
from ctr.tracking import OFF, Tracker
from ctr.training.checkpoint import share_checkpoints
from ctr.training.machine import pick_device

_DONE = "cell.json"


@dataclass(frozen=True)
class SealedPoint:
    """What a cell says of one of its models. `facts`: sizes, counts, valid metrics, seconds, importance by field."""

    size: float | None
    facts: dict[str, Any]
    valid: Probabilities
    feature_set: Path | None


def is_done(folder: Path) -> bool:
    """Whether the cell in `folder` was trained to its end."""
    return (folder / _DONE).is_file()


def train_cell(cell: Cell, dataset_folder: Path, keep_all: Path | None = None) -> float:
    """Train what a cell has to train, and leave its files; returns the seconds that it took.

    Args:
        keep_all: the folder of the finished cell that trained keep-all with the same network and seed; a selector that
            asks the trained network finds it there.

    Raises:
        CtrError: another process trains it, or memory ran out.
    """
    started = time.perf_counter()
    dataset = Dataset(dataset_folder)
    folder = cell.folder(dataset.digest)
    with RunLock(folder) as lock:
        if not is_done(folder):
            device = pick_device(cell.config.training.device)
            if keep_all is not None:
                own = Path("checkpoints") / "baseline"
                share_checkpoints(keep_all / own, folder / own)
            with memory_told(memory_advice(cell.config)):
                models = trained(cell, dataset, device, lock.check)
                _measure(cell, models, dataset, device, folder)
    return time.perf_counter() - started


def trained(
    cell: Cell, dataset: Dataset, device: torch.device, guard: Callable[[], None] = lambda: None
) -> list[Model]:
    """The models of a cell, one for each size; those whose checkpoints are complete are not trained again."""
    quiet = Console(quiet=True)
    config, folder = cell.config, cell.folder(dataset.digest)
    tracker = Tracker.open(OFF, "", fallback=folder)
    with tracker.job(folder.name, config={}, config_text="", tags={}, datasets=[]) as job:
        trainer = Trainer(
            config, dataset, Networks(config, dataset, device), folder / "checkpoints", job, quiet, guard
        )
        if config.selector.kind == "none":
            return [trainer.baseline(for_trial=cell.for_trial)]
        if cell.earlier is not None:
            earlier = carried(FeatureSet.load(cell.earlier.folder), dataset, cell.earlier.new_values)
            return [trainer.as_it_is(config.selector.kind, earlier, ratio=cell.sizes[0])]
        return [trainer.select(config.selector.kind, ratio=size, penalty=None) for size in cell.sizes]


def sealed_points(cell: Cell, data_digest: str) -> list[SealedPoint]:
    """What a finished cell says of its models, in the order of its sizes.

    Raises:
        CtrError: a file is missing or was altered.
    """
    folder = cell.folder(data_digest)
    try:
        content = json.loads((folder / _DONE).read_text(encoding="utf-8"))
        valid = pl.read_parquet(folder / "valid.parquet")
        return [
            SealedPoint(
                size,
                facts,
                valid[facts["name"]].to_numpy(),
                folder / "feature_sets" / facts["name"] if facts["selects"] else None,
            )
            for size, facts in zip(cell.sizes, content["points"], strict=True)
        ]
    except (OSError, ValueError, KeyError, TypeError, pl.exceptions.PolarsError) as error:
        raise CtrError(
            f'cell "{folder}" is not as it was written ({error!r}); delete the folder, and the same command trains it '
            "again"
        ) from None


def _measure(cell: Cell, models: list[Model], dataset: Dataset, device: torch.device, folder: Path) -> None:
    valid = dataset.part("valid")
    scores = {model.name: model.predict(valid, device) for model in models}
    points = []
    for size, model in zip(cell.sizes, models, strict=True):
        counts = feature_counts(model.feature_set, dataset)
        if model.feature_set is not None:
            model.feature_set.save(folder / "feature_sets" / model.name)
        found = measured(valid, scores[model.name])
        worth = importance(model, valid, dataset.fields, device)
        search = sum(look.seconds for look in model.search_history)
        points.append(
            {
                "name": model.name,
                "size": size,
                "selects": model.feature_set is not None,
                "kept": counts["kept"],
                "total": counts["total"],
                "ratio": counts["ratio"],
                "fields": {name: field["kept"] for name, field in counts["fields"].items()},
                "cost": counts["cost"],
                "groups": counts["groups"],
                "parameters": model.parameters,
                "bytes": model.bytes[0],
                "table_bytes": model.bytes[1],
                "cross_rows": model.cross_rows,
                "pairs": counts["interactions"],
                "shadow": counts["shadow"],
                "bundle_bytes": _bundle_bytes(cell.config, model, dataset, device),
                "valid": {"auc": found["auc"], "logloss": found["logloss"]},
                "seconds": {"search": search, "train": sum(look.seconds for look in model.history)},
                "epochs": model.history[-1].epoch,
                "importance": worth.fields,
                "pair_importance": worth.pairs,
            }
        )
    scratch = folder / ".valid.parquet"
    pl.DataFrame({name: np.asarray(found) for name, found in scores.items()}).write_parquet(scratch)
    scratch.replace(folder / "valid.parquet")
    (folder / f".{_DONE}").write_text(json.dumps({"points": points}, indent=2) + "\n", encoding="utf-8")
    (folder / f".{_DONE}").replace(folder / _DONE)


def _bundle_bytes(config: Config, model: Model, dataset: Dataset, device: torch.device) -> int:
    """What the bundle of a model takes on disk: it is written, proven and measured, and not kept."""
    nothing = {"trained_on": ["train"], "steps": model.best_step, "window": None, "metrics": None}
    with tempfile.TemporaryDirectory() as folder:
        size = export_bundle(
            Path(folder) / "bundle",
            dataset=dataset,
            source=config.data.input,
            network=model.load(),
            architecture=model.architecture,
            layout=model.layout,
            feature_set=model.feature_set,
            metrics={},
            model={"refit": "none", "evaluated": nothing, "shipped": nothing},
            provenance={"selector": model.selector, "seed": config.seed},
            crosses=model.crosses,
            dtype=model.dtype,
            rounding=rounding(model, dataset.part("valid"), device),
        )
        shutil.rmtree(Path(folder) / "bundle")
    return size
