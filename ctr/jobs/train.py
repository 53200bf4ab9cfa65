"""The main job: raw log in; feature set, verdict and bundle out.

    ingest -> baseline -> for each size: search, retrain, referees -> evaluate (test, once) -> export -> report

A run's folder is named after the digest of its configuration, data and as-of date. Repeating a finished run writes
nothing; repeating an unfinished one goes on from its last stage and checkpoint; a live one is refused (see `lock`).
"""

import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.status import Status

from ctr.config import Config
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.ingest import planned
from ctr.dataset.schema import load_schema
from ctr.dataset.store import Dataset, Part
from ctr.errors import CtrError, ThresholdError, memory_told
from ctr.jobs.limits import memory_advice, require_batch
from ctr.jobs.lock import LOCK, RunLock
from ctr.jobs.models import Model, Trainer
from ctr.jobs.networks import Networks
from ctr.jobs.rounding import require_small, rounding
from ctr.jobs.run_registration import STATE, remember, settle, version_tags
from ctr.jobs.scored import Scored
from ctr.jobs.verdict import build_report, model_entry, score, scores_table
from ctr.registry import Version
from ctr.report import figure_png, pairs_png, verdict, write_report
from ctr.selection.optfs import DEFAULT_PRICE
from ctr.selection.optinter import stated_pairs
from ctr.serving.export import export_bundle
from ctr.settings import check, dump_toml, load_toml
from ctr.tracking import Job, SplitRecord, Tracker, UnsentError
from ctr.training.looks import Look
from ctr.training.machine import pick_device, pick_threads


@dataclass
class _Clock:
    """Seconds per stage; stages of the same name add up."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def add(self, name: str, history: Sequence[Look]) -> None:
        """Count trained epochs, also those that an interrupted process trained."""
        self.seconds[name] = self.seconds.get(name, 0.0) + sum(epoch.seconds for epoch in history)


def train(config: Config, *, force: bool = False, command: str = "", console: Console | None = None) -> Path:
    """Run the main job.

    Args:
        force: redo a run that is finished or half done.
        command: what the report says repeats it.
        console: where progress goes; by default standard error.

    Returns:
        The run's folder.

    Raises:
        CtrError: with the exit code of the command line; a `ThresholdError` comes after everything was written, and so
            does the error of a store that does not answer at the end.
    """
    console = console or Console(stderr=True)
    unsent: CtrError | None = None
    clock, data = _Clock(), config.data
    schema = load_schema(data.schema_file)
    if config.selector.selects_pairs:
        stated_pairs(schema.fields, config.selector)
    with ExitStack() as stack:
        with (
            clock.stage("ingest"),
            console.status("reading the log") as status,
            planned(schema, data.input, Path(data.folder), encoding=data.encoding, as_of=data.as_of) as plan,
        ):
            run = Path(config.output.folder) / f"{config.name}-{config.digest(plan.digest)}"
            dataset = None
            if force or not _finished(run):
                # What the machine does not have is told before the log is encoded for it.
                device = pick_device(config.training.device)
                pick_threads(config.training.threads)
                lock = stack.enter_context(RunLock(run))
                if force or not _finished(run):  # another process may just have finished it
                    progress = partial(_show, status)
                    dataset = Dataset(plan.build(progress=progress))
        if dataset is None:
            console.print(f"already done: {run} (--force redoes it)", highlight=False, soft_wrap=True)
        else:
            if plan.counts is not None:
                console.print(plan.counts, highlight=False, soft_wrap=True)
            require_batch(config, dataset)
            with memory_told(memory_advice(config)):
                networks = Networks(config, dataset, device)
                if force:
                    _clear(run)
                rows = dataset.manifest["rows"]
                _prepare(run, config, rows["train"])
                console.print(
                    f"{dataset.name}: {rows['train']:,} train, {rows['valid']:,} valid, {rows['test']:,} test rows, "
                    f"{len(dataset.fields)} fields, {dataset.features:,} features ({clock.seconds['ingest']:.1f} s)",
                    highlight=False,
                    soft_wrap=True,
                )
                unsent = _Job(config, dataset, networks, run, lock, clock, command, console).run()
    unsent = unsent or _settled(run, config, console)
    missed = threshold_missed(load_report(run), config)
    if missed is not None:
        also = f"\n{unsent}" if unsent else ""
        raise ThresholdError(f'{missed}; everything is written to "{run}", nothing was registered{also}')
    if unsent is not None:
        raise CtrError(f'{unsent}; the run itself is done, all of it is in "{run}"')
    return run


def _settled(run: Path, config: Config, console: Console) -> CtrError | None:
    """Send and register what is still to be; returns what went wrong."""
    report = load_report(run)
    wanted = config.tracking.register_ is not None and threshold_missed(report, config) is None
    try:
        version = settle(run, config if wanted else _unregistered(config), report)
    except CtrError as error:
        return error
    if version is not None:
        _tell_version(console, version)
    return None


def _unregistered(config: Config) -> Config:
    return config.model_copy(update={"tracking": config.tracking.model_copy(update={"register_": None})})


def _tell_version(console: Console, version: Version) -> None:
    console.print(
        f'registered: version {version.number} of "{version.name}"', highlight=False, soft_wrap=True
    )


def _show(status: Status, stage: str, share: float) -> None:
    status.update(f"{stage} {share:.0%}")


def _finished(run: Path) -> bool:
    return (run / "DONE").is_file()


def _clear(run: Path) -> None:
    """Delete all that a run's folder holds but its lock; the mark that it is finished first."""
    (run / "DONE").unlink(missing_ok=True)
    for path in list(run.iterdir()):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        elif LOCK not in path.name:
            path.unlink(missing_ok=True)


def _prepare(run: Path, config: Config, rows: int) -> None:
    """Create the run's folder, or make sure that an unfinished one is the same run; `rows` are those of train."""
    # Stated, a batch larger than train would be refused; whoever repeats the run by its config has not stated it.
    unstated = {"batch_size"} if config.training.batch_size > rows else set()
    text = dump_toml(config.model_dump(mode="json", by_alias=True, exclude={"training": unstated}))
    path = run / "config.toml"
    if path.is_file():
        kept = check(load_toml(path, "config"), Config, f'config "{path}"')
        if kept.digest("") != config.digest(""):  # data may have moved, and the device be another
            raise CtrError(f'"{path}" was altered after the run began; use --force to start it again')
    run.mkdir(parents=True, exist_ok=True)
    _write(path, text)


def _write(path: Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)


def threshold_missed(report: dict[str, Any], config: Config) -> str | None:
    """What is said of a run below `export.min_auc`; None where it is not."""
    auc = (report["selected"] or report["baseline"])["test"]["auc"]
    if config.export.min_auc is None or auc >= config.export.min_auc:
        return None
    return f"test AUC {auc:.4f} is below export.min_auc = {config.export.min_auc:g}"


class _Job:
    """One run of the main job."""

    def __init__(
        self,
        config: Config,
        dataset: Dataset,
        networks: Networks,
        run: Path,
        lock: RunLock,
        clock: _Clock,
        command: str,
        console: Console,
    ) -> None:
        self.config, self.dataset, self.networks = config, dataset, networks
        self.folder, self.lock = run, lock
        self.clock, self.command, self.console = clock, command, console

    def run(self) -> UnsentError | None:
        """Do it; returns what is said where MLflow has not got all of it."""
        tracker = Tracker.open(
            self.config.tracking.uri,
            self.config.tracking.experiment,
            fallback=Path(self.config.output.folder),
            keep=self.folder,
        )
        state = self.folder / STATE
        run_id = _read_json(state).get("run_id") if state.is_file() else None
        unsent = None
        try:
            self._tracked(tracker, state, run_id)
        except UnsentError as error:
            unsent = error
        self.lock.check()
        _write(self.folder / "DONE", "")
        return unsent

    def _tracked(self, tracker: Tracker, state: Path, run_id: str | None) -> None:
        with tracker.job(
            self.folder.name,
            config=self.config.model_dump(mode="json", by_alias=True),
            config_text=(self.folder / "config.toml").read_text(encoding="utf-8"),
            tags=self._tags(),
            datasets=self._splits(),
            run_id=run_id,
        ) as job:
            _write(state, json.dumps({"run_id": job.run_id, "uri": tracker.uri}))
            self._stages(job)
        if job.registered is not None:
            remember(self.folder, job.registered)
            _tell_version(self.console, job.registered)

    def _stages(self, job: Job) -> None:
        checkpoints = self.folder / "checkpoints"
        trainer = Trainer(
            self.config, self.dataset, self.networks, checkpoints, job, self.console, self.lock.check
        )
        models, chosen = self._train(trainer)
        self.lock.check()
        other = self._other_reading(trainer, chosen)
        rounded = self._rounding(trainer, chosen or models[0])  # refuses before test is read
        self.lock.check()
        with self.clock.stage("evaluate"):
            scored, test = score(models, self.dataset, trainer.device, run=self.folder.name)
        best = next((entry for entry in scored if entry.model is chosen), None)
        (self.folder / "scores").mkdir(exist_ok=True)
        scratch = self.folder / "scores" / ".test.parquet"
        scores_table(scored[0], best, test, self.dataset.row_ids("test")).write_parquet(scratch)
        scratch.replace(self.folder / "scores" / "test.parquet")
        with self.clock.stage("evaluate"):
            report = build_report(
                self.config,
                self.dataset,
                scored,
                best,
                test,
                seconds={},
                run=self.folder,
                command=self.command,
                other_reading=other,
            )
        self.lock.check()
        if chosen and chosen.feature_set:
            chosen.feature_set.save(self.folder / "feature_set")
        self._export(report, trainer, best or scored[0], test, rounded)
        self.lock.check()
        self._report(report, chosen.feature_set if chosen else None)
        job.finish(report, self.folder, self._figures(report), scores=self.config.tracking.scores)
        name = self.config.tracking.register_
        if name is not None and threshold_missed(report, self.config) is None:
            job.register(name, version_tags(self.folder, report), self.folder / "bundle")

    def _train(self, trainer: Trainer) -> tuple[list[Model], Model | None]:
        """All models, the baseline first; and the one to ship."""
        settings = self.config.selector
        models = [trainer.baseline()]
        self.clock.add("baseline", models[0].history)
        if settings.kind == "none":
            return models, None
        ratios, penalties = settings.ratio or [], settings.penalty or []
        if not ratios and not penalties and settings.searches_features:
            penalties = [DEFAULT_PRICE]
        points: list[tuple[float | None, float | None]]
        points = [(ratio, None) for ratio in ratios] + [(None, penalty) for penalty in penalties] or [
            (None, None)
        ]
        chosen = None
        for ratio, penalty in points:
            self.lock.check()
            model = trainer.select(settings.kind, ratio=ratio, penalty=penalty)
            self.clock.add("search", model.search_history)
            self.clock.add("retrain", model.history)
            self.clock.add("referees", model.rival_history)
            chosen = chosen or model
            models.append(model)
            for referee in settings.referees:
                self.lock.check()
                if referee != settings.kind and settings.kind not in ("all", "optinter"):
                    models.append(trainer.referee(referee, model))
                    self.clock.add("referees", models[-1].history)
        return models, chosen

    def _other_reading(self, trainer: Trainer, chosen: Model | None) -> Scored | None:
        """The set that is shipped, with dropped values reading the other way: looked at on valid, never on test."""
        if chosen is None or chosen.feature_set is None or not self.config.selector.compare_dropped_reads:
            return None
        model = trainer.other_reading(chosen)
        if model is None:
            return None
        self.clock.add("referees", model.history)
        return Scored(model, model.predict(trainer.valid, trainer.device), np.zeros(0))

    def _rounding(self, trainer: Trainer, model: Model) -> dict[str, float] | None:
        """What storing the weights in `export.dtype` costs on valid.

        Raises:
            CtrError: more than the configuration allows.
        """
        found = rounding(model, trainer.valid, trainer.device)
        require_small(found, self.config.export)
        return found

    def _refitted(self, trainer: Trainer, model: Model, test: Part) -> Model:
        """What the bundle will hold: the model that was evaluated, or the same trained on more rows."""
        if self.config.export.refit == "none":
            return model
        # The verdict stands: nothing that the test rows teach from here on can reach it.
        parts = [trainer.train, trainer.valid, *([test] if self.config.export.refit == "all" else [])]
        with self.clock.stage("refit"):
            return trainer.refit(model, parts)

    def _export(
        self,
        report: dict[str, Any],
        trainer: Trainer,
        scored: Scored,
        test: Part,
        rounded: dict[str, float] | None,
    ) -> None:
        model = self._refitted(trainer, scored.model, test)
        report["model"] = model_entry(self.config.export.refit, scored.model, self.dataset, report)
        with self.clock.stage("export"):
            # A refitted model has other weights.
            report["rounding"] = rounded if model is scored.model else self._rounding(trainer, model)
            size = export_bundle(
                self.folder / "bundle",
                dataset=self.dataset,
                source=self.config.data.input,
                network=model.load(),
                architecture=model.architecture,
                layout=model.layout,
                feature_set=model.feature_set,
                metrics={key: (report["selected"] or report["baseline"])[key] for key in ("valid", "test")},
                model=report["model"],
                provenance={
                    "run": self.folder.name,
                    "model": model.name,
                    "seed": self.config.seed,
                    "selector": model.selector,
                },
                crosses=model.crosses,
                dtype=model.dtype,
                rounding=report["rounding"],
                keep_all=self.networks.architecture,
            )
        report["bundle"] = {"path": "bundle", "bytes": size}

    def _report(self, report: dict[str, Any], feature_set: FeatureSet | None) -> None:
        stages = ("ingest", "baseline", "search", "retrain", "referees", "evaluate", "refit", "export")
        report["seconds"] = {stage: self.clock.seconds.get(stage) for stage in stages}
        report["verdict"] = verdict(report)
        _write(self.folder / "report.json", json.dumps(report, indent=2, allow_nan=False) + "\n")
        write_report(report, self.folder, features=feature_set.features if feature_set else None)

    def _figures(self, report: dict[str, Any]) -> dict[str, bytes]:
        drawn = {"curve": figure_png if report["curve"] else None, "interactions": pairs_png}
        pictures = {}
        for name, draw in drawn.items():
            scratch = self.folder / f".{name}.png"
            if draw is not None and draw(report, scratch) is not None:
                pictures[name] = scratch.read_bytes()
                scratch.unlink()
        return pictures

    def _tags(self) -> dict[str, Any]:
        window = self.dataset.manifest.get("window")
        return {
            "selector": self.config.selector.kind,
            "backbone": self.config.backbone.kind,
            "embedding": self.config.embedding.kind,
            "seed": self.config.seed,
            "data_window": json.dumps(window) if window else None,
        }

    def _splits(self) -> list[SplitRecord]:
        rows = self.dataset.manifest["rows"]
        return [
            SplitRecord(
                split,
                self.dataset.digest,
                self.dataset.name,
                rows[split],
                len(self.dataset.fields),
                str(self.dataset.folder / split),
            )
            for split in ("train", "valid", "test")
        ]


def load_report(run: Path) -> dict[str, Any]:
    """The `report.json` of a finished run.

    Raises:
        CtrError: it is missing or was altered.
    """
    return _read_json(run / "report.json")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"expected a table, found {type(content).__name__}")
    except (OSError, ValueError) as error:
        raise CtrError(f'"{path}" is missing or was altered ({error}); use --force to redo the run') from None
    return content
