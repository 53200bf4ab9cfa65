"""The runs that `pipelines.benchmarks.embeddings` compares: its settings, and each training with its result.

Every run is the main job without a selector. Finished ones are kept under `runs/embeddings` and not repeated.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field as Key
from rich.console import Console

from ctr.config import Config, load_config
from ctr.dataset.ingest import ingest
from ctr.dataset.schema import Schema, load_schema
from ctr.dataset.split_spec import RandomSplit
from ctr.dataset.store import Dataset
from ctr.dataset.synthetic import write_log
from ctr.errors import ConfigError
from ctr.jobs.train import load_report, train
from ctr.network.network import Architecture
from ctr.settings import Strict, dump_toml

FOLDER = Path("runs/embeddings")
_FLOAT32 = 4  # bytes
Share = Annotated[float, Key(gt=0.0, le=1.0)]


class Synthetic(Strict):
    """A synthetic log to write where a config expects one."""

    preset: str
    rows: Annotated[int, Key(ge=1)]


class Log(Strict):
    """A log, by the run config that names schema and input. set: changes of it for this log."""

    config: str
    synthetic: Synthetic | None = None
    set: list[str] = []

    @cached_property
    def settings(self) -> Config:
        """Its config as it stands."""
        return load_config(self.config, self.set)

    def ensure(self) -> None:
        """Write a synthetic log that is not there yet."""
        folder = Path(self.settings.data.schema_file).parent
        if self.synthetic is not None and not (folder / "schema.toml").is_file():
            write_log(self.synthetic.preset, folder, rows=self.synthetic.rows)


class Backbone(Strict):
    """What is trained on each embedding; keys of `[backbone]`."""

    kind: Literal["lr", "fm", "fnn", "ipnn", "pin", "deepfm", "dcn", "dcnv2"]
    hidden: list[int] = [128, 64]
    layers: int | None = None
    rank: int | None = None
    subnet_units: int | None = None

    def changes(self) -> list[str]:
        """As `--set` takes them."""
        return [f"backbone.{key}={value}" for key, value in self if value is not None]


class Variants(Strict):
    """Other ways to put an embedding together from rows, at one budget: changes of each, by name."""

    budget: Share = 0.1
    changes: dict[str, list[str]] = {}


class Drift(Strict):
    """Train on the early rows, score the later ones in `buckets` of equal size."""

    budgets: Annotated[list[Share], Key(min_length=1)] = [1.0, 0.1]
    valid: Share = 0.1
    test: Share = 0.5
    buckets: Annotated[int, Key(ge=2)] = 5
    logs: list[Log] = []


class Settings(Strict):
    """The whole experiment.

    budgets: of hashed tables, as shares of the bytes that a row for each feature takes. set: changes of every run.
    """

    seeds: Annotated[int, Key(ge=1)] = 3
    budgets: Annotated[list[Share], Key(min_length=1)] = [1.0, 0.5, 0.1, 0.01]
    set: list[str] = []
    backbones: Annotated[list[Backbone], Key(min_length=1)] = [Backbone(kind="deepfm")]
    logs: list[Log] = []
    variants: Variants = Variants()
    drift: Drift = Drift()


@dataclass(frozen=True)
class Trial:
    """One training.

    kind: of the embedding. budget: share of the collision-free table's bytes; None for that table itself.
    encoding: of the dataset. schema: the schema file, with the split of this seed.
    """

    log: Log
    backbone: Backbone
    kind: Literal["table", "hashed", "unified"]
    budget: float | None
    seed: int
    schema: str
    shared_changes: tuple[str, ...] = ()
    encoding: Literal["vocabulary", "hashed"] = "vocabulary"


@dataclass(frozen=True)
class Outcome:
    """What a trial came to. run: its folder; None where the budget does not hold the fields, and `refused` says why."""

    trial: Trial
    run: Path | None
    auc: float | None
    table_bytes: int
    squared_norm: float | None
    load: float | None
    angle: float | None
    rows_per_second: float | None
    refused: str | None = None


def splits(log: Log, seeds: int, change: Callable[[Schema], Schema] | None = None) -> list[str]:
    """A schema file for each seed: with a split of its own where rows are split at random.

    Args:
        change: of the schema, before it is written.
    """
    log.ensure()
    schema = load_schema(log.settings.data.schema_file)
    changed = schema if change is None else change(schema)
    files = []
    for seed in range(seeds):
        split = changed.split
        if isinstance(split, RandomSplit):
            split = split.model_copy(update={"seed": seed})
        own = changed.model_copy(update={"split": split})
        if own == schema:
            files.append(log.settings.data.schema_file)
            continue
        name = f"{log.settings.name}-{'drift' if change else 'split'}-{seed}.toml"
        target = FOLDER / "schemas" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(dump_toml(own.model_dump(mode="json", exclude_unset=True)), encoding="utf-8")
        files.append(str(target))
    return files


def dataset_of(trial: Trial) -> Dataset:
    """The encoded log of a trial."""
    config = trial.log.settings
    schema = load_schema(trial.schema)
    return Dataset(ingest(schema, config.data.input, Path(config.data.folder), encoding=trial.encoding))


def full_bytes(trial: Trial) -> int:
    """Bytes of a table with a row for each feature of the vocabulary."""
    dim = trial.log.settings.embedding.dim
    shape = Architecture(rows=0, fields=0, dim=dim, backbone=trial.backbone.kind)
    config = trial.log.settings
    counted = Dataset(ingest(load_schema(trial.schema), config.data.input, Path(config.data.folder)))
    return counted.features * (shape.width + shape.linear) * _FLOAT32


def run_trial(trial: Trial) -> Outcome:
    """Train, or look up what was trained before."""
    whole = full_bytes(trial)
    wanted = whole if trial.budget is None else int(trial.budget * whole)
    changes = [
        f"seed={trial.seed}",
        f"data.schema={json.dumps(trial.schema)}",
        f"data.encoding={trial.encoding}",
        f"embedding.kind={trial.kind}",
        "selector.kind=none",
        "tracking.uri=off",
        "training.threads=1",
        f"output.folder={FOLDER}",
        *trial.log.set,
        *trial.shared_changes,
        *trial.backbone.changes(),
    ]
    if trial.budget is not None:
        changes.append(f"embedding.bytes={wanted}")
    try:
        run = train(load_config(trial.log.config, changes), console=Console(file=StringIO()))
    except ConfigError as error:
        if "embedding.bytes" not in str(error):
            raise
        return Outcome(trial, None, None, wanted, None, None, None, None, refused=str(error))
    report = load_report(run)
    shared = report["collisions"]["baseline"]
    angles = shared and shared["angles"]
    return Outcome(
        trial,
        run,
        report["baseline"]["test"]["auc"],
        report["baseline"]["table_bytes"],
        shared and shared["squared_norm"],
        shared and shared["load"],
        angles and angles["mean"],
        report["train_rows_per_second"],
    )


def run_all(trials: Sequence[Trial], workers: int, console: Console) -> list[Outcome]:
    """All trials, each with one thread of PyTorch, `workers` at a time; a line for each as it ends."""

    def told(outcomes: Iterable[Outcome]) -> list[Outcome]:
        found = []
        for outcome in outcomes:
            found.append(outcome)
            console.print(f"{len(found)}/{len(trials)}  {describe(outcome)}", highlight=False, soft_wrap=True)
        return found

    if workers == 1:
        return told(run_trial(trial) for trial in trials)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return told(pool.map(run_trial, trials))


def describe(outcome: Outcome) -> str:
    """One line."""
    trial = outcome.trial
    words: list[Any] = [trial.log.settings.name, trial.backbone.kind, trial.kind, trial.encoding]
    words += [f"seed {trial.seed}", f"{outcome.table_bytes:,} bytes"]
    words.append(f"AUC {outcome.auc:.4f}" if outcome.auc is not None else f"refused: {outcome.refused}")
    return "  ".join(str(word) for word in words)
