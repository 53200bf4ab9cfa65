"""Offline evaluation: models against a labelled log, paired row by row, with intervals, slices and bounds.

    resolve models -> score the log with each -> put the scores side by side -> metrics -> page -> MLflow -> bounds

Memory does not grow with the log: scores wait on disk, and of rows that do not fit the AUC is that of a histogram.
"""

import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status

from ctr.errors import ConfigError, CtrError, ThresholdError
from ctr.jobs.evaluated_models import found_bundles
from ctr.jobs.evaluation_pass import score_log
from ctr.jobs.evaluation_report import evaluation_report
from ctr.jobs.evaluation_settings import EvaluationSettings
from ctr.jobs.guardrails import missed_text
from ctr.jobs.paired_scores import paired
from ctr.jobs.report_facts import peak_memory, versions
from ctr.report.evaluation import evaluation_verdict, write_evaluation
from ctr.settings import dump_toml
from ctr.tracking import OFF, SplitRecord, Tracker

STORE = Path("runs")  # where training keeps its MLflow store unless told otherwise
_METRICS = ("auc", "logloss", "normalised_entropy", "ece", "calibration_ratio", "gauc")


def evaluate(
    settings: EvaluationSettings,
    *,
    command: str = "",
    console: Console | None = None,
    rule: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Evaluate, write `evaluation.json`, `.parquet` and `.html` into `settings.out`, and log to MLflow.

    Args:
        settings: models, logs, and what is asked of them.
        command: what the page says repeats it.
        console: where progress goes; by default standard error.
        rule: of a promotion; what it makes of the numbers becomes the key `promotion`, and its `sentence` ends the
            verdict.

    Returns:
        What evaluation.json holds.

    Raises:
        ThresholdError: a bound was missed; everything is written.
        CtrError: with the exit code of the command line. Where MLflow does not answer, everything is written, and
            what it misses is kept for `ctr sync`.
    """
    console = console or Console(stderr=True)
    out = Path(settings.out)
    if out.exists() and not out.is_dir():
        raise ConfigError(f'--out "{out}": expected a folder to write to, found a file')
    uri = OFF if settings.tracking == "none" else settings.tracking
    out.parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder,
        console.status("reading the models") as status,
    ):
        scratch = Path(folder)
        models = found_bundles(
            settings.models, settings.names, uri=uri, store=STORE, scratch=scratch / "models"
        )
        keys = [*settings.sliced, *(key for key in (settings.group_by, settings.cluster) if key)]
        logs, seconds = [], {}
        for number, model in enumerate(models):
            started = time.perf_counter()
            logs.append(
                score_log(
                    model,
                    settings.data,
                    list(dict.fromkeys(keys)) if number == 0 else [],
                    scratch / f"{number}.parquet",
                    partial(_show, status, f"scoring with {model.name}"),
                    allow_paths=settings.allow_paths,
                )
            )
            seconds[f"score {model.name}"] = time.perf_counter() - started
        started = time.perf_counter()
        scores = paired(logs, scratch / "evaluation.parquet")
        report = evaluation_report(settings, logs, scores, lambda what: status.update(f"measuring {what}"))
        report["seconds"] = {**seconds, "measure": time.perf_counter() - started}
        report |= {"command": command, "peak_rss_bytes": peak_memory(), "versions": versions()}
        report["mlflow_run"] = None
        report["verdict"] = evaluation_verdict(report)
        if rule is not None:
            report["promotion"] = rule(report)
            report["verdict"] += f" {report['promotion']['sentence']}"
        out.mkdir(exist_ok=True)
        scores.path.replace(out / "evaluation.parquet")
    write_document(report, out)
    write_evaluation(report, out)
    for warning in report["warnings"]:
        console.print(f"warning: {warning}", style="yellow", highlight=False, soft_wrap=True, markup=False)
    untracked = _tracked(settings, report, uri, out)
    missed = [entry for entry in report["guardrails"] if entry["kept"] is False]
    if missed:
        lines = "\n".join(f"  {missed_text(entry)}" for entry in missed)
        also = f"\n{untracked}" if untracked else ""
        bounds = "1 bound was missed" if len(missed) == 1 else f"{len(missed)} bounds were missed"
        raise ThresholdError(f'{bounds}; everything is written to "{out}":\n{lines}{also}')
    if untracked:
        raise CtrError(f'{untracked}; the evaluation is written to "{out}"')
    return report


def _show(status: Status, what: str, share: float) -> None:
    status.update(f"{what} {share:.0%}")


def write_document(report: dict[str, Any], out: Path) -> None:
    """Write `evaluation.json`, whole or not at all."""
    scratch = out / ".evaluation.json"
    scratch.write_text(json.dumps(report, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    scratch.replace(out / "evaluation.json")


def _tracked(
    settings: EvaluationSettings, report: dict[str, Any], uri: str | None, out: Path
) -> CtrError | None:
    """Log to MLflow, and note in which run; returns what went wrong, for the evaluation stands without it."""
    log = report["log"]
    try:
        tracker = Tracker.open(uri, settings.experiment, fallback=STORE, keep=out, required=False)
        config = settings.model_dump(mode="json", by_alias=True, exclude={"tracking"})
        with tracker.job(
            f"evaluation {out.name}",
            config=config,
            config_text=dump_toml(config),
            tags={"job": "evaluation"},
            datasets=[
                SplitRecord("evaluation", log["digest"], "log", log["rows"], 0, ", ".join(log["inputs"]))
            ],
        ) as job:
            report["mlflow_run"] = job.run_id
            write_document(report, out)
            job.metrics(_numbers(report), step=0)
            job.files(out)
    except CtrError as error:
        return error
    return None


def _numbers(report: dict[str, Any]) -> dict[str, float]:
    """Metrics for MLflow: `<model>.auc`, `<model>.auc.low`, ..., `<model>.difference.auc`, ..."""
    found: dict[str, float | None] = {"rows": report["rows"], "positives": report["positives"]}
    found["bounds_missed"] = sum(entry["kept"] is False for entry in report["guardrails"])
    for entry in report["models"]:
        found |= {f"{entry['name']}.{metric}": entry[metric] for metric in _METRICS if metric != "auc"}
        found |= _ends(f"{entry['name']}.auc", entry["auc"])
    for entry in report["differences"]:
        for metric in _METRICS:
            found |= _ends(f"{entry['name']}.difference.{metric}", entry[metric] or {})
    return {name: float(value) for name, value in found.items() if value is not None}


def _ends(name: str, interval: dict[str, float | None]) -> dict[str, float | None]:
    return {name: interval.get("value")} | {f"{name}.{end}": interval.get(end) for end in ("low", "high")}
