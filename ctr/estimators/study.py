"""A frame encoded in a temporary folder, and what trains on it: the pipeline's own parts, without a run's folder."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from rich.console import Console

from ctr.config import Config
from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.ingest import ingest
from ctr.dataset.schema import Schema
from ctr.dataset.store import Dataset
from ctr.jobs.models import Trainer
from ctr.jobs.networks import Networks
from ctr.settings import check
from ctr.tracking import OFF, Tracker
from ctr.training.machine import pick_device

Ints = npt.NDArray[np.int64]
LABEL, WEIGHT = "@y", "@sample_weight"  # fields cannot begin with "@"


@dataclass(frozen=True)
class Rows:
    """What is fitted on: columns of the fields, labels of 0 and 1 (N,), and weights (N,) where rows have them."""

    frame: pl.DataFrame
    labels: Ints
    weights: npt.NDArray[np.float64] | None


def valid_rows(labels: Ints, share: float, shuffle: bool, seed: int) -> tuple[Ints, Ints]:
    """Positions of the rows to train on, and of a share of all to watch them by; both classes are in both.

    Args:
        labels: (N,) 0 or 1.
        shuffle: whether that share of each class is drawn, or the last rows are taken.

    Raises:
        ValueError: a class has a single row, or a part is left without one.
    """
    if not 0.0 < share < 1.0:
        raise ValueError(f"validation_fraction: expected a share above 0 and below 1, found {share}")
    counts = np.bincount(labels, minlength=2).tolist()
    if min(counts) < 2:
        raise ValueError(
            f"y holds one class {min(counts)} time{'s' * (min(counts) != 1)} in n_samples = {len(labels)}: expected "
            "at least 2 rows of each class, one to train on and one to validate by"
        )
    if shuffle:
        draw, drawn = np.random.default_rng(seed), np.zeros(len(labels), np.bool_)
        for label, count in enumerate(counts):
            size = min(max(1, round(share * count)), count - 1)
            drawn[draw.permutation(np.flatnonzero(labels == label))[:size]] = True
        return np.flatnonzero(~drawn), np.flatnonzero(drawn)
    size = min(max(2, round(share * len(labels))), len(labels) - 2)
    train, valid = np.arange(len(labels) - size), np.arange(len(labels) - size, len(labels))
    for name, part in (("the rows to train on", train), ("the last rows, to validate by,", valid)):
        if len(np.unique(labels[part])) < 2:
            raise ValueError(
                f"validation_fraction = {share} with shuffle = False leaves {name} with one class of y alone; "
                "state another share, or shuffle"
            )
    return train, valid


@dataclass(frozen=True)
class Study:
    """What a fit needs while it lasts. source: the folder with the raw rows."""

    dataset: Dataset
    trainer: Trainer
    source: Path
    config: Config


@contextmanager
def study(
    rows: Rows,
    specs: Sequence[FieldSpec],
    settings: Mapping[str, Any],
    parts: tuple[Ints, Ints],
    *,
    seed: int,
    verbose: bool = False,
) -> Iterator[Study]:
    """Encode rows and open what trains on them; all of it is gone at the end of the context.

    PyTorch's threads and random numbers are those of before when it ends.

    Args:
        specs: a field for each column that is used.
        settings: of the run configuration, by "section.key".
        parts: what `valid_rows` gives.

    Raises:
        ConfigError: a setting is wrong.
        DataError: the rows cannot be encoded as these fields.
    """
    config_of = _configured(settings, seed)  # wrong settings are told before anything is written
    with tempfile.TemporaryDirectory(prefix="ctr-") as scratch:
        folder = Path(scratch)
        _write(folder / "rows", rows, specs, *parts)
        content = {
            "name": "frame",
            "label": LABEL,
            "weight": None if rows.weights is None else WEIGHT,
            "read": {"format": "parquet", "max_bad_rows": 0.0},
            "split": {
                "by": "files",
                "train": "train.parquet",
                "valid": "valid.parquet",
                "test": "unread.parquet",
            },
            "fields": [spec.model_dump(exclude_defaults=True) for spec in specs],
        }
        schema = check(content, Schema, "fields")
        config = config_of(folder)
        encoding = config.data.encoding
        dataset = Dataset(ingest(schema, folder / "rows", folder / "datasets", encoding=encoding))
        device = pick_device(config.training.device)
        console = Console(stderr=True, quiet=not verbose)
        tracker = Tracker.open(OFF, "frame", fallback=folder)
        job_of = tracker.job("frame", config={}, config_text="", tags={}, datasets=[], run_id=None)
        with _torch_as_before(device), job_of as job:
            networks = Networks(config, dataset, device)
            trainer = Trainer(config, dataset, networks, folder / "checkpoints", job, console, lambda: None)
            yield Study(dataset, trainer, folder / "rows", config)


def _configured(settings: Mapping[str, Any], seed: int) -> Any:
    """A configuration for any folder."""

    def config_of(folder: Path) -> Config:
        values: dict[str, Any] = {"name": "frame", "seed": seed, "tracking": {"uri": OFF}}
        own = {"data.schema": "frame", "data.input": str(folder / "rows"), "data.folder": str(folder)}
        for name, value in {**settings, **own}.items():
            section, _, key = name.partition(".")
            values.setdefault(section, {})[key] = value
        return check(values, Config, "parameters")

    config_of(Path())
    return config_of


def _write(folder: Path, rows: Rows, specs: Sequence[FieldSpec], train: Ints, valid: Ints) -> None:
    """The parts as files. A dataset has a part that only an evaluation reads: here two rows stand for it, unread."""
    folder.mkdir()
    columns = [pl.Series(LABEL, rows.labels)]
    if rows.weights is not None:
        columns.append(pl.Series(WEIGHT, rows.weights))
    whole = rows.frame.select([spec.name for spec in specs]).with_columns(columns)
    labels = rows.labels[valid]
    unread = valid[[int(np.argmin(labels)), int(np.argmax(labels))]]
    for name, part in (("train", train), ("valid", valid), ("unread", unread)):
        whole[part].write_parquet(folder / f"{name}.parquet")


@contextmanager
def _torch_as_before(device: torch.device) -> Iterator[None]:
    threads = torch.get_num_threads()
    gpus = []
    if device.type == "cuda":  # one that nobody asked for is not even opened
        gpus = [torch.cuda.current_device() if device.index is None else device.index]
    try:
        with torch.random.fork_rng(devices=gpus):
            yield
    finally:
        torch.set_num_threads(threads)
