"""What a run logs to MLflow: one parent run per job, a nested run per stage.

Guarantees:
- MLflow is imported on first use only; with `uri = "off"` it is not needed at all.
- MLflow prints nothing, nothing is written to the working directory, and no network address is contacted but
  the tracking URI (telemetry is off).
- A wrong or dead tracking URI is one `CtrError` within seconds, before any training.
- An outage in mid-job stops no training: what could not be sent is kept and sent later, in order. Only at
  the end does a job say that something is missing, and keeps it in its folder, from which `resend` sends it.

Gives up: up to `FLUSH_SECONDS` of step metrics when the process is killed hard.
Every logged name is listed in `mlflow/README.md`.
"""

import hashlib
import importlib.metadata
import json
import logging
import math
import numbers
import os
import posixpath
import re
import shutil
import socket
import sqlite3
import subprocess
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ctr import __version__, registry, unsent
from ctr.errors import ConfigError, CtrError
from ctr.unsent import Entry, Unsent

OFF = "off"
SCORES = "scores/test.parquet"  # of a run: by them it is compared where its folder is not
TABLE_ROWS = 2000  # rows of a table in the MLflow page; the whole set is the artifact feature_set/
FLUSH_SECONDS = 1.0  # step metrics wait at most this long for company
OPENING_SECONDS = 4  # one attempt to reach a tracking server while opening it; there are two
_NAME_LENGTH, _PARAM_LENGTH, _TAG_LENGTH = 250, 6000, 5000  # what MLflow takes, older servers included
_BATCH = 100  # params and tags in one request; metrics may be ten times as many
_EXPECTED = f'expected "sqlite:///PATH", a database URI, "http(s)://HOST:PORT" or "{OFF}"'
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_SENT_LATER = {"_start", "_inputs", "_start_stage", "_log_params", "_log_metrics", "_close"}
_SENT_LATER |= {"_upload", "_table", "_file", "_register"}  # calls that may be kept, and nothing else is


class UnsentError(CtrError):
    """A job is done, but MLflow does not have all of it. Exit code 1."""


class Place(NamedTuple):
    """Where runs go, and `keep`, the folder that keeps what does not get there."""

    uri: str
    experiment: str
    fallback: Path
    keep: Path | None
    required: bool


class SplitRecord(NamedTuple):
    """One split of a dataset as a run's input. `digest`: at most 36 characters; `source`: folder or URI."""

    split: str
    digest: str
    name: str
    rows: int
    fields: int
    source: str = ""


class Tracker:
    """An experiment on a tracking store, or nothing at all (`uri = "off"`), with the same methods."""

    def __init__(self, connection: "_Connection", experiment_id: str, place: Place) -> None:
        self._connection = connection
        self._experiment_id = experiment_id
        self._place = place

    @property
    def uri(self) -> str:
        """The tracking URI without credentials, or "off"."""
        return self._connection.uri

    @classmethod
    def open(
        cls,
        uri: str | None,
        experiment: str,
        *,
        fallback: Path,
        keep: Path | None = None,
        required: bool = True,
    ) -> "Tracker":
        """Connect, and create the experiment where it does not exist.

        Args:
            uri: any MLflow tracking URI; None is the SQLite file `<fallback>/mlflow.db`; "off" is none.
            experiment: its name.
            fallback: folder of the SQLite file, made where missing. An experiment created on a database keeps
                its artifacts in `artifacts` beside the SQLite file (other databases: in `fallback`); servers
                decide for themselves.
            keep: a folder in which jobs keep what could not be sent until their end.
            required: whether a store that does not answer is an error now; else all is kept. For jobs that are
                done when they are logged.

        Raises:
            CtrError: MLflow is not installed; where it is required, also that the URI is wrong, the server does
                not answer or the database cannot be written.
        """
        if uri == OFF:
            return cls(_Connection(OFF, None), "", Place(OFF, experiment, fallback, None, required))
        _require_mlflow()
        address = uri if uri is not None else _sqlite_uri(fallback.absolute() / "mlflow.db")
        place = Place(address, experiment, fallback, keep, required)
        try:
            location = _prepare(address, fallback)
            client = _client(address)
            with _short_attempts(retries=1):
                experiment_id = _experiment(client, experiment, location)
        except Exception as error:  # each store has its own exceptions
            told = (
                error
                if isinstance(error, CtrError)
                else CtrError(f'tracking.uri "{_public(address)}": {_reason(error)}; {_EXPECTED}')
            )
            if required or keep is None:
                raise told from None
            return cls(_Connection(_public(address), _Absent(told)), "", place)
        return cls(_Connection(_public(address), client), experiment_id, place)

    @contextmanager
    def job(
        self,
        name: str,
        *,
        config: Mapping[str, Any],
        config_text: str,
        tags: Mapping[str, Any],
        datasets: Sequence[SplitRecord],
        run_id: str | None = None,
    ) -> Iterator["Job"]:
        """Run a job as a parent run, which ends FINISHED, FAILED (an exception) or KILLED (Ctrl-C).

        Args:
            name: run name.
            config: nested; becomes params such as "training.epochs".
            config_text: the resolved config as TOML; becomes the artifact config.toml.
            tags: None is left out; `git_commit` and `ctr_version` are added.
            datasets: the inputs, each logged with its split as context.
            run_id: `Job.run_id` of an interrupted job, which then goes on in that run; a run that this
                experiment does not hold (any more) is started anew.

        Raises:
            CtrError: the store refuses the run. UnsentError: something could not be sent until the job's end.
        """
        job = Job(self._connection, self._experiment_id, self._place)
        if self._place.keep is not None:
            (self._place.keep / unsent.UNSENT).unlink(missing_ok=True)  # all of it is logged again
        commit = git_commit()
        given = {**tags, "git_commit": commit, "mlflow.source.git.commit": commit, "ctr_version": __version__}
        first = self._connection.do if self._place.required else self._connection.send
        first(job._start, name, run_id, given, config)
        first(job._inputs, config_text, datasets)
        with job._until_end():
            yield job


class Run:
    """One MLflow run: metrics by step, and params."""

    def __init__(self, connection: "_Connection", experiment_id: str, run_id: str | None = None) -> None:
        self.run_id = run_id
        self._connection = connection
        self._experiment_id = experiment_id
        self._metrics: list[tuple[str, float, int, int]] = []  # name, value, milliseconds, step
        self._flushed = -math.inf
        self._last_steps: dict[str, int] = {}

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Log `values` at `step`; sent in batches. A resumed stage skips steps that it already holds."""
        now = int(time.time() * 1000)
        self._metrics += [(clean_name(name), float(value), now, step) for name, value in values.items()]
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self._flush()

    def params(self, values: Mapping[str, Any]) -> None:
        """Log params, flattened; one that the run already holds keeps its first value."""
        self._connection.send(self._log_params, values)

    def _log_params(self, client: Any, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        held = client.get_run(self.run_id).data.params
        fresh = [Param(name, text) for name, text in flat_params(values).items() if name not in held]
        for part in _batches(fresh, _BATCH):
            client.log_batch(self.run_id, params=part)

    def _flush(self) -> None:
        metrics, self._metrics = self._metrics, []
        self._flushed = time.monotonic()
        for part in _batches(metrics, 10 * _BATCH):
            self._connection.send(self._log_metrics, part)

    def _log_metrics(self, client: Any, rows: Sequence[tuple[str, float, int, int]]) -> None:
        from mlflow.entities import Metric

        fresh = [Metric(*row) for row in rows if row[3] > self._last_steps.get(row[0], -1)]
        client.log_batch(self.run_id, metrics=fresh)

    def _go_on(self, client: Any) -> None:
        """Reopen the run that `run_id` names."""
        client.update_run(self.run_id, status="RUNNING")
        if "error" in client.get_run(self.run_id).data.tags:
            client.delete_tag(self.run_id, "error")

    @contextmanager
    def _until_end(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            self._end("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", error)
            raise
        self._end("FINISHED", None)

    def _end(self, status: str, error: BaseException | None) -> None:
        with (
            nullcontext() if error is None else _short_attempts(retries=0)
        ):  # who stops a job waits for nothing
            self._flush()
            self._connection.send(self._close, status, error and (str(error) or type(error).__name__))

    def _close(self, client: Any, status: str, error: str | None) -> None:
        if error is not None:
            client.set_tag(self.run_id, "error", _cut(error, _TAG_LENGTH))
        client.set_terminated(self.run_id, status)


class Job(Run):
    """The parent run of a job. `registered`: the version that its bundle has become."""

    registered: registry.Version | None = None
    _resumed = False

    def __init__(self, connection: "_Connection", experiment_id: str, place: Place) -> None:
        super().__init__(connection, experiment_id)
        self._place = place

    @contextmanager
    def stage(self, name: str) -> Iterator[Run]:
        """Run a stage as a nested run, in a resumed job the one that it already has; ends as a job does."""
        stage = Run(self._connection, self._experiment_id)
        self._connection.send(self._start_stage, stage, name)
        with stage._until_end():
            yield stage

    def finish(
        self,
        report: Mapping[str, Any],
        folder: Path,
        figures: Mapping[str, bytes] | None = None,
        *,
        scores: bool = False,
    ) -> None:
        """Log everything that a finished job has to show: `summary`, `files`, `tables`, each `figure`, and scores."""
        self.summary(report)
        self.tables(report, folder / "feature_set")
        for name, png in (figures or {}).items():
            self.figure(name, png)
        self.files(folder)
        if scores and (folder / SCORES).is_file():
            self._connection.send(self._upload, folder / SCORES, posixpath.dirname(SCORES))

    def summary(self, report: Mapping[str, Any]) -> None:
        """Log the numbers of report.json as metrics such as "selected.test.auc"; null is skipped."""
        self.metrics(flat_metrics(report), step=0)

    def files(self, folder: Path) -> None:
        """Log what the folder holds of config.toml, a report, an evaluation, feature_set/, bundle/."""
        reports = [f"{name}.{kind}" for name in ("report", "evaluation") for kind in ("json", "html")]
        for name in ("config.toml", *reports):
            if (folder / name).is_file():
                self._connection.send(self._upload, folder / name, None)
        for name in ("feature_set", "bundle"):
            if (folder / name).is_dir():
                self._connection.send(self._upload, folder / name, name)

    def tables(self, report: Mapping[str, Any], feature_set: Path) -> None:
        """Log the feature set as tables of the MLflow page: fields, most frequent kept values, pairs."""
        fields = (report.get("feature_set") or {}).get("fields")
        if fields:
            self._connection.send(self._table, "fields", _fields_table(fields))
        features, pairs = feature_set / "features.parquet", feature_set / "interactions.parquet"
        if features.is_file():
            self._connection.send(self._table, "features", _features_table(features))
        if pairs.is_file():
            switched_off = (report.get("interactions") or {}).get("switched_off") or []
            self._connection.send(self._table, "interactions", _pairs_table(pairs, switched_off))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Log a table of the MLflow page as the artifact tables/<name>.json."""
        self._connection.send(self._table, name, {"columns": list(columns), "data": list(rows)})

    def artifacts(self, paths: Sequence[Path]) -> None:
        """Log files as they are."""
        for path in paths:
            self._connection.send(self._upload, path, None)

    def figure(self, name: str, png: bytes) -> None:
        """Log a picture as the artifact figures/<name>.png."""
        self._connection.send(self._file, f"figures/{name}.png", png)

    def register(self, name: str, tags: Mapping[str, str], bundle: Path) -> None:
        """Register a bundle as a version of a model and as its `candidate`; see `registry.register`."""
        self._connection.send(self._register, name, tags, bundle)

    def _register(self, client: Any, name: str, tags: Mapping[str, str], bundle: Path) -> None:
        self.registered = register_bundle(client, name, str(self.run_id), tags, bundle)

    def _start(
        self, client: Any, name: str, run_id: str | None, tags: Mapping[str, Any], config: Mapping[str, Any]
    ) -> None:
        from mlflow.entities import RunTag

        known = run_id or self.run_id  # a start that got stuck on its way has made the run already
        if known is not None and self._holds(client, known):
            self.run_id, self._resumed = known, True
            self._go_on(client)
        else:
            made = client.create_run(self._experiment_id, run_name=name, tags=_source_tags())
            self.run_id = made.info.run_id
        written = [
            RunTag(clean_name(k), _cut(_text(v), _TAG_LENGTH)) for k, v in tags.items() if v is not None
        ]
        for part in _batches(written, _BATCH):
            client.log_batch(self.run_id, tags=part)
        self._log_params(client, config)

    def _holds(self, client: Any, run_id: str) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            found = client.get_run(run_id).info
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                return False
            raise
        return bool(found.lifecycle_stage == "active" and found.experiment_id == self._experiment_id)

    def _require(self, client: Any) -> None:
        if not self._holds(client, str(self.run_id)):
            raise CtrError(f'the experiment has no run "{self.run_id}" (any more); redo it with --force')

    def _inputs(self, client: Any, config_text: str, datasets: Sequence[SplitRecord]) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        client.log_text(self.run_id, config_text, "config.toml")
        # NOTE: MLflow holds one context per run and (name, digest): the split must be part of the name.
        # The entity is filled in directly, because MLflow's dataset classes would hash data of their own.
        inputs = [
            DatasetInput(
                Dataset(
                    name=f"{record.name}.{record.split}",
                    digest=record.digest,
                    source_type="local",
                    source=json.dumps({"uri": record.source}),
                    profile=json.dumps({"num_rows": record.rows, "num_fields": record.fields}),
                ),
                tags=[InputTag("mlflow.data.context", record.split)],
            )
            for record in map(SplitRecord._make, datasets)
        ]
        if inputs:
            client.log_inputs(self.run_id, inputs)

    def _start_stage(self, client: Any, stage: Run, name: str) -> None:
        if self._resumed:
            wanted = f"tags.`mlflow.parentRunId` = '{self.run_id}' AND tags.stage = '{name}'"
            for found in client.search_runs([self._experiment_id], wanted, max_results=1):
                stage.run_id = found.info.run_id
                for key in found.data.metrics:
                    history = client.get_metric_history(stage.run_id, key)
                    stage._last_steps[key] = max(metric.step for metric in history)
                stage._go_on(client)
                return
        tags = {**_source_tags(), "mlflow.parentRunId": self.run_id, "stage": name}
        stage.run_id = client.create_run(self._experiment_id, run_name=name, tags=tags).info.run_id

    def _table(self, client: Any, name: str, content: Mapping[str, Any]) -> None:
        # NOTE: the same file and tag as client.log_table, which would append the rows again in a resumed job.
        path = f"tables/{name}.json"
        self._file(client, path, json.dumps(content, default=str).encode())
        shown = json.loads(client.get_run(self.run_id).data.tags.get("mlflow.loggedArtifacts", "[]"))
        if (entry := {"path": path, "type": "table"}) not in shown:
            client.set_tag(self.run_id, "mlflow.loggedArtifacts", json.dumps([*shown, entry]))

    def _upload(self, client: Any, path: Path, folder: str | None) -> None:
        upload = client.log_artifacts if path.is_dir() else client.log_artifact
        upload(self.run_id, str(path), folder)

    def _file(self, client: Any, name: str, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, posixpath.basename(name))
            path.write_bytes(content)
            client.log_artifact(self.run_id, str(path), posixpath.dirname(name))

    def _end(self, status: str, error: BaseException | None) -> None:
        super()._end(status, error)
        self._settle(strict=error is None)

    def _settle(self, *, strict: bool) -> None:
        """Send what is left; what cannot be sent at the end of a job that is done is kept."""
        left, error = self._connection.settle(strict=strict)
        if error is None or not strict:
            return
        what = (
            str(error)
            if isinstance(error, CtrError)
            else f'MLflow at "{self._connection.uri}": {_reason(error)}'
        )
        what = f"{what}; {len(left)} entries of this job are missing there"
        if (folder := self._place.keep) is None:
            raise UnsentError(
                f"{what}, the run folder has all of it; run the same command again once MLflow answers"
            )
        unsent.keep(folder, self._kept(left, folder))
        raise UnsentError(f'{what}; they are kept, and `ctr sync "{folder}"` sends them once MLflow answers')

    def _kept(self, left: Sequence["_Call"], folder: Path) -> Unsent:
        runs: list[Run] = [self]
        entries = []
        for call, arguments in left:
            own, *given = call.__self__, *arguments  # type: ignore[attr-defined]
            for run in (own, *(each for each in given if isinstance(each, Run))):
                if run not in runs:
                    runs.append(run)
            values = [
                {"@run": runs.index(each)} if isinstance(each, Run) else unsent.packed(each, folder)
                for each in given
            ]
            entries.append(Entry(runs.index(own), call.__name__, values))
        uri, experiment, fallback, *_ = self._place
        return Unsent(uri, experiment, str(fallback.absolute()), [run.run_id for run in runs], entries)


_Call = tuple[Callable[..., object], tuple[Any, ...]]


class _Absent:
    """Stands for the client of a store that could not be opened: every use of it says why."""

    def __init__(self, error: CtrError) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        raise self._error


class _Connection:
    """The only caller of the MLflow client: at once, or in order and keeping what did not get through."""

    def __init__(self, uri: str, client: Any | None) -> None:
        self.uri = uri
        self._client = client
        self._waiting: deque[_Call] = deque()
        self._not_before = -math.inf
        self._warned = isinstance(client, _Absent)  # the error at the end says all

    def do(self, call: Callable[..., None], *arguments: object) -> None:
        """Call `call(client, *arguments)` now.

        Raises:
            CtrError: the store gave an error or did not answer.
        """
        if self._client is None:
            return
        try:
            call(self._client, *arguments)
        except Exception as error:
            raise CtrError(f'MLflow at "{self.uri}": {_reason(error)}') from None

    def send(self, call: Callable[..., object], *arguments: object) -> None:
        """Call `call(client, *arguments)` after all earlier ones, or later where the store does not answer.

        A store that is down is asked again so rarely that at most a tenth of the time goes into it.
        """
        if self._client is None:
            return
        self._waiting.append((call, arguments))
        started = time.monotonic()
        if started < self._not_before:
            return
        error = self._drain()
        if error is not None:
            now = time.monotonic()
            self._not_before = now + max(5.0, 10 * (now - started))
            if not self._warned:
                self._warned = True
                logging.getLogger(__name__).warning(
                    'MLflow at "%s": %s; the job goes on and sends its results later',
                    self.uri,
                    _reason(error),
                )

    def settle(self, *, strict: bool) -> tuple[list[_Call], Exception | None]:
        """Send what is left, patiently (`strict`) or with one short attempt; returns what is left then, and why."""
        with nullcontext() if strict else _short_attempts(retries=0):
            error = self._drain()
        left = list(self._waiting)
        self._waiting.clear()
        return left, error

    def _drain(self) -> Exception | None:
        while self._waiting:
            call, arguments = self._waiting[0]
            try:
                call(self._client, *arguments)
            except Exception as error:
                return error
            self._waiting.popleft()
        return None


def resend(folder: Path, uri: str | None = None) -> Job:
    """Send what a job kept in `folder`, and delete it there; what still does not get through stays.

    Args:
        folder: which holds `unsent.json`.
        uri: of a store to send it to instead of the one that did not answer.

    Returns:
        The job that it was.

    Raises:
        CtrError: the store does not answer, or has no such run any more. UnsentError: it stopped answering.
    """
    kept = unsent.load(folder)
    tracker = Tracker.open(uri or kept.uri, kept.experiment, fallback=Path(kept.fallback), keep=folder)
    job = Job(tracker._connection, tracker._experiment_id, tracker._place)
    job.run_id, job._resumed = kept.runs[0], True  # stages that the store has go on
    stages = [Run(tracker._connection, tracker._experiment_id, run_id) for run_id in kept.runs[1:]]
    if job.run_id is not None:
        tracker._connection.do(job._require)
    runs: list[Run] = [job, *stages]
    for number, (run, call, arguments) in enumerate(kept.entries):
        if call not in _SENT_LATER:
            raise CtrError(f'"{folder / unsent.UNSENT}" was altered: it asks for "{call}"')
        given = [
            runs[value["@run"]]
            if isinstance(value, dict) and set(value) == {"@run"}
            else unsent.unpacked(value, folder)
            for value in arguments
        ]
        tracker._connection.send(getattr(runs[run], call), *given)
        if call == "_start" and job.run_id is not None:  # a second attempt must not start a second run
            rest = replace(kept, runs=[job.run_id, *kept.runs[1:]], entries=kept.entries[number + 1 :])
            unsent.keep(folder, rest)
    job._settle(strict=True)
    (folder / unsent.UNSENT).unlink()
    return job


def run_folder(run_id: str, uri: str | None, fallback: Path) -> Path:
    """Where a job said that it keeps its run: `output.folder` and the run's name. It may be on another machine.

    Raises:
        CtrError: MLflow is not installed, does not answer, or knows no such run.
    """
    address = uri if uri is not None else _sqlite_uri(fallback.absolute() / "mlflow.db")
    try:
        if address.startswith("sqlite:///") and not Path(address.removeprefix("sqlite:///")).is_file():
            raise CtrError("no such file")
        with _short_attempts(retries=0):
            found = _client(address).get_run(run_id)
    except Exception as error:  # each store has its own exceptions
        raise CtrError(
            f'MLflow run "{run_id}" at "{_public(address)}": {_reason(error)}; name the folder of the run, or the '
            "store with --tracking-uri"
        ) from None
    return Path(found.data.params.get("output.folder", "runs")) / str(found.info.run_name)


def fetch_run(run_id: str, uri: str | None, *, fallback: Path, into: Path) -> Path:
    """Download what a comparison reads of a finished run; what was downloaded before is not again.

    Args:
        uri, fallback: as `Tracker.open` takes them.
        into: the folder to which the run's own folder, named by its id, is added whole or not at all.

    Returns:
        The run's folder: `config.toml`, `report.json`, `scores/test.parquet` and, where it selected, `feature_set/`.

    Raises:
        ConfigError: the run did not log its scores, or is not finished. CtrError: the store does not answer.
    """
    target = into / run_id
    if target.is_dir():
        return target
    needed = ("config.toml", "report.json", posixpath.dirname(SCORES))
    with asked(f'MLflow run "{run_id}"', uri, fallback=fallback) as (client, _):
        there = {entry.path for entry in client.list_artifacts(run_id)}
        if missing := [path for path in needed if path not in there]:
            raise ConfigError(
                f'MLflow run "{run_id}" holds no "{missing[0]}", and its folder is not on this machine: copy the '
                "folder here and name it, or repeat the run where it is, with --force and tracking.scores = true"
            )
        into.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{run_id}-", dir=into))
        try:
            for path in (*needed, *({"feature_set"} & there)):
                client.download_artifacts(run_id, path, str(scratch))
            scratch.replace(target)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise
    return target


def clean_name(name: str) -> str:
    """Return the name under which MLflow takes a param, metric or tag; different names stay different.

    Letters, digits, `_ - .` and inner spaces stay. Every other character, a leading dot and a space at either
    end become `_`; a name that was changed so, or cut to 250 characters, ends in `-` and the first 6 hex
    digits of the SHA-256 of the original.

    Example:
        >>> clean_name("feature_set.fields.user_id.kept"), clean_name("price (EUR)")
        ('feature_set.fields.user_id.kept', 'price _EUR_-0094cd')
    """
    clean = re.sub(r"[^\w.\- ]|^[ .]|[ \n]$", "_", name)
    if clean == name and 0 < len(name) <= _NAME_LENGTH:
        return name
    return f"{clean[: _NAME_LENGTH - 7]}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def flat_params(values: Mapping[str, Any]) -> dict[str, str]:
    """Flatten a config to params: dotted names, lists as JSON, no None, at most 6000 characters."""
    return {
        clean_name(name): _cut(_text(value), _PARAM_LENGTH)
        for name, value in _leaves(values)
        if value is not None
    }


def flat_metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """Flatten a report to its numbers by dotted name, without `seed`, which is a tag."""
    return {
        name: float(value)
        for name, value in _leaves(report)
        if isinstance(value, numbers.Real) and not isinstance(value, bool) and name != "seed"
    }


def fetch_model(reference: str, uri: str | None, *, fallback: Path, into: Path) -> Path:
    """Download the files of a registered model version, or the bundle of a run.

    Args:
        reference: `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `runs:/ID`.
        uri, fallback: as `Tracker.open` takes them.
        into: the folder to download to, made where missing.

    Returns:
        The folder that holds them.

    Raises:
        ConfigError: no such reference, or the store knows no such model, version, alias or run.
        CtrError: MLflow is not installed, tracking is off, or the store does not answer.
    """
    found = re.fullmatch(
        r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))|runs:/(?P<run>[^/]+)(?P<path>/.+)?",
        reference,
    )
    if found is None:
        raise ConfigError(
            f'model "{reference}": expected "models:/NAME@ALIAS", "models:/NAME/VERSION" or "runs:/ID"'
        )
    with asked(f'model "{reference}"', uri, fallback=fallback) as (client, address):
        from mlflow.artifacts import download_artifacts

        with _short_attempts(retries=1):
            source = _artifacts_of(client, found.groupdict())
        into.mkdir(parents=True, exist_ok=True)
        return Path(
            download_artifacts(
                artifact_uri=source, dst_path=str(into), tracking_uri=address, registry_uri=address
            )
        )


def register_bundle(
    client: Any, name: str, run_id: str, tags: Mapping[str, str], bundle: Path
) -> registry.Version:
    """Register a bundle, as the MLflow model `model/` of a run: see `ctr.serving.pyfunc` and `registry.register`."""

    def add_model() -> None:
        from ctr.serving.pyfunc import write_model

        with tempfile.TemporaryDirectory() as scratch:
            write_model(bundle, Path(scratch) / registry.MODEL)
            client.log_artifacts(run_id, str(Path(scratch) / registry.MODEL), registry.MODEL)

    return registry.register(client, name, run_id, tags, add_model)


@contextmanager
def asked(what: str, uri: str | None, *, fallback: Path) -> Iterator[tuple[Any, str]]:
    """The client of a store that is there already, and its address; nothing is made.

    Args:
        what: the subject of messages.
        uri, fallback: as `Tracker.open` takes them.

    Raises:
        ConfigError: tracking is off, there is no store, or it knows no such thing.
        CtrError: MLflow is not installed, or the store does not answer.
    """
    if uri == OFF:
        raise ConfigError(f"{what}: is looked up in MLflow, but tracking is off; state its URI")
    _require_mlflow()
    database = fallback.absolute() / "mlflow.db"
    if uri is None and not database.is_file():
        raise ConfigError(f'{what}: there is no MLflow store "{database}"; state its URI')
    address = uri if uri is not None else _sqlite_uri(database)
    try:
        yield _client(address), address
    except CtrError:
        raise
    except Exception as error:  # each store has its own exceptions
        code = getattr(error, "error_code", "")
        kind = ConfigError if code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE") else CtrError
        raise kind(f'{what}: MLflow at "{_public(address)}": {_reason(error)}') from None


def _artifacts_of(client: Any, parts: Mapping[str, str | None]) -> str:
    """Where the files of a model version, or of a run's bundle, are kept."""
    if parts["run"] is not None:
        root = client.get_run(parts["run"]).info.artifact_uri
        return f"{root}{parts['path'] or '/bundle'}"
    version = parts["version"]
    if parts["alias"] is not None:
        version = client.get_model_version_by_alias(parts["name"], parts["alias"]).version
    return str(client.get_model_version_download_uri(parts["name"], version))


def _require_mlflow() -> None:
    try:
        importlib.metadata.version("mlflow")  # an import would find the repository's folder mlflow/
    except importlib.metadata.PackageNotFoundError:
        raise CtrError(
            'tracking needs MLflow, which is not installed: pip install "ctr[train]", '
            'or set tracking.uri = "off"'
        ) from None


def git_commit() -> str | None:
    """Return the commit checked out in the working directory; None outside a checkout or without git."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--verify", "HEAD"], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _batches(rows: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _fields_table(fields: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    rows = [
        [name, count["kept"], count["total"], count["kept"] / count["total"] if count["total"] else None]
        for name, count in fields.items()
    ]
    return {"columns": ["field", "kept", "total", "ratio"], "data": rows}


def _features_table(path: Path) -> dict[str, Any]:
    import polars as pl

    kept = pl.scan_parquet(path).filter(pl.col("kept"))
    order = kept.sort(["count", "field", "value"], descending=[True, False, False])
    return _shown(order.head(TABLE_ROWS).collect())


def _pairs_table(path: Path, switched_off: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Pairs, the strongest first, each with the AUC that valid loses without it; null where none was measured."""
    import polars as pl

    pair = ["field_a", "field_b"]
    names = {"value": "auc_lost", "low": "auc_lost_low", "high": "auc_lost_high"}
    lost = pl.DataFrame(
        [[row[key] for key in pair] + [row["auc_lost"][bound] for bound in names] for row in switched_off],
        schema=dict.fromkeys(pair, pl.String) | dict.fromkeys(names.values(), pl.Float64),
        orient="row",
    )
    pairs = pl.read_parquet(path).sort("strength", descending=True, nulls_last=True, maintain_order=True)
    return _shown(pairs.head(TABLE_ROWS).join(lost, on=pair, how="left", maintain_order="left"))


def _shown(frame: Any) -> dict[str, Any]:
    rows = [
        [None if isinstance(v, float) and not math.isfinite(v) else v for v in row] for row in frame.rows()
    ]
    return {"columns": frame.columns, "data": rows}


def _source_tags() -> dict[str, str]:
    from getpass import getuser

    try:
        user = getuser()
    except (OSError, KeyError, ImportError):  # a container whose user has no name
        user = "unknown"
    return {"mlflow.user": user, "mlflow.source.name": "ctr", "mlflow.source.type": "LOCAL"}


def _client(address: str) -> Any:
    """Make an MlflowClient that keeps quiet and calls nobody but `address`."""
    os.environ.update(
        MLFLOW_DISABLE_TELEMETRY="true",
        DO_NOT_TRACK="true",
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT="true",
        MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR="false",
    )
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow import MlflowClient
    for name in ("mlflow", "alembic", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return MlflowClient(tracking_uri=address, registry_uri=address)


def _experiment(client: Any, name: str, location: str | None) -> str:
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException:
            found = client.get_experiment_by_name(name)  # another process was faster
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise CtrError(
            f'tracking.experiment "{name}" was deleted: take another name, or restore it with '
            f"`mlflow experiments restore --experiment-id {found.experiment_id}`"
        )
    return str(found.experiment_id)


def _sqlite_uri(path: Path) -> str:
    from sqlalchemy import URL, make_url

    plain = f"sqlite:///{path}"
    if make_url(plain).database == str(path):
        return plain
    return URL.create("sqlite", database=str(path)).render_as_string()  # a path with % or ?


def _prepare(address: str, fallback: Path) -> str | None:
    """Check a database before MLflow does, which would retry for minutes; say where its artifacts go."""
    scheme = address.partition(":")[0].partition("+")[0]
    if scheme != "sqlite" and scheme not in _PORTS:
        return None
    from sqlalchemy import make_url

    parts = make_url(address)
    if scheme == "sqlite":
        if parts.database in (None, "", ":memory:"):
            raise CtrError(f'tracking.uri "{address}": names no file; {_EXPECTED}')
        database = Path(str(parts.database)).absolute()
        database.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(database, timeout=10, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")  # fails where the file is no database or read-only
        return (database.parent / "artifacts").as_uri()
    if parts.host:
        socket.create_connection((parts.host, parts.port or _PORTS[scheme]), OPENING_SECONDS).close()
    return (fallback.absolute() / "artifacts").as_uri()


@contextmanager
def _short_attempts(retries: int) -> Iterator[None]:
    """Bound each request to `OPENING_SECONDS`; MLflow's limits are environment variables."""
    limits = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": retries, "MLFLOW_HTTP_REQUEST_TIMEOUT": OPENING_SECONDS}
    before = {name: os.environ.pop(name) for name in limits if name in os.environ}
    os.environ.update({name: str(value) for name, value in limits.items()})
    try:
        yield
    finally:
        for name in limits:
            del os.environ[name]
        os.environ.update(before)


def _public(text: str) -> str:
    return re.sub(r"://[^/@\s]*@", "://***@", text)


def _reason(error: BaseException) -> str:
    """One line about the first cause, such as "Connection refused", without credentials."""
    while cause := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = cause
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return _cut(_public(line), 300)
