"""From scores on disk to what evaluation.json says."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ctr.errors import DataError
from ctr.evaluation.clustered import clustered_difference, clustered_interval
from ctr.evaluation.intervals import Interval
from ctr.evaluation.paired import NAMES, Measured, measured
from ctr.evaluation.reliability import Reliability
from ctr.jobs.evaluation_pass import TIME, ScoredLog
from ctr.jobs.evaluation_reader import key_column
from ctr.jobs.evaluation_settings import EvaluationSettings
from ctr.jobs.evaluation_slices import Slice, field_slices, time_slices
from ctr.jobs.guardrails import judged
from ctr.jobs.paired_scores import AT_SERVING, PairedScores
from ctr.jobs.score_file import HeldRows, ScoreFile, exact_rows_for
from ctr.report.units import shown_window

Progress = Callable[[str], None]
FEW_CLUSTERS = 30
_DRAWN_ROWS = (
    1_000_000  # up to which clusters are drawn again; above, their influences are as good and much faster
)


def evaluation_report(
    settings: EvaluationSettings, logs: Sequence[ScoredLog], scores: PairedScores, progress: Progress
) -> dict[str, Any]:
    """All numbers of an evaluation.

    Raises:
        DataError: the log has rows of one class only.
        ConfigError: a guardrail names a model that was not evaluated.
    """
    if scores.positives in (0, scores.rows):
        raise DataError(
            f"expected both classes, found {scores.positives:,} positives in {scores.rows:,} rows; "
            "AUC is undefined, take more rows"
        )
    names = [log.name for log in logs]
    file = ScoreFile(
        path=scores.path,
        models=names,
        keep_rate=logs[0].schema.keep_rate,
        weighted="weight" in logs[0].columns,
        cluster=settings.cluster and key_column(settings.cluster),
        group=settings.group_by and key_column(settings.group_by),
        exact_rows=exact_rows_for(len(names)) if settings.exact_rows is None else settings.exact_rows,
    )
    progress("all rows")
    rows = file.rows(scores.rows)
    found = measured(rows)
    if isinstance(rows, HeldRows) and settings.cluster is not None and scores.rows <= _DRAWN_ROWS:
        found = _drawn(found, rows, settings.seed)
    exact, clusters = isinstance(rows, HeldRows), rows.clusters
    del rows
    overall = _entry(found)
    served = _served(file, scores, len(names))
    for log, entry in zip(logs, overall["models"], strict=True):
        entry["auc_error"] = found.auc_error[log.name]
        entry["at_serving"] = served.get(log.name)
        entry["reliability"] = _diagram(found.reliability[log.name])
        entry["unseen"] = log.unseen
        entry["overlap"] = _overlap(log)
        entry["bundle"] = log.bundle
    slices = []
    for name in settings.sliced:
        progress(name)
        slices += [_sliced(file, part) for part in field_slices(file, name, settings.named(name))]
    times = time_slices(file, logs[0].time) if logs[0].time and TIME in logs[0].columns else None
    progress("days")
    days = None if times is None else [_sliced(file, part) for part in times.slices]
    report: dict[str, Any] = {
        "log": {
            "inputs": list(settings.data),
            "files": logs[0].files,
            "digest": scores.digest,
            "rows_read": logs[0].rows,
            "filtered": logs[0].filtered,
            "set_aside": scores.excluded,
            "rows": scores.rows,
            "positives": scores.positives,
            "weighted": file.weighted,
            "negative_keep_rate": logs[0].schema.negative_keep_rate,
            "time": None
            if times is None
            else {"column": times.column, "unit": times.unit, "first": times.first, "last": times.last},
        },
        **overall,
        "slices": slices,
        "days": days,
        "method": {
            "auc": "exact" if exact else "histogram",
            "intervals": f"clustered by {settings.cluster}" if settings.cluster else "rows",
            "group_by": settings.group_by,
        },
        "warnings": [*_warnings(logs, scores, overall["models"]), *_few(settings.cluster, clusters)],
    }
    report["guardrails"] = judged(settings.bounds, report)
    return report


def _entry(found: Measured) -> dict[str, Any]:
    """Rows, positives, models and differences, as JSON."""
    first = next(iter(found.values))
    models = []
    for name, values in found.values.items():
        plain = {metric: _number(values[metric].value) for metric in NAMES if metric in values}
        bounds = {
            metric: {"low": _number(values[metric].low), "high": _number(values[metric].high)}
            for metric in plain
            if metric != "auc"
        }
        models.append(
            {"name": name, "gauc": None, **plain, "auc": _interval(values["auc"]), "intervals": bounds}
        )
    differences = [
        {"name": name, "baseline": first, "gauc": None}
        | {metric: _interval(values[metric]) for metric in NAMES if metric in values}
        for name, values in found.differences.items()
    ]
    return {
        "rows": found.rows,
        "positives": found.clicks,
        "models": models,
        "differences": differences,
    }


def _sliced(file: ScoreFile, part: Slice) -> dict[str, Any]:
    found = measured(file.rows(part.rows, part.condition))
    return {"field": part.field, "value": part.value, **_entry(found)}


def _drawn(found: Measured, rows: HeldRows, seed: int) -> Measured:
    """With AUC intervals from clusters that are drawn again."""
    batch = rows.whole()
    assert batch.clusters is not None, "clusters are asked for"
    weights = rows.own_weights
    values = {name: dict(own) for name, own in found.values.items()}
    differences = {name: dict(own) for name, own in found.differences.items()}
    first = batch.scores[rows.models[0]]
    for name, scores in batch.scores.items():
        values[name]["auc"] = clustered_interval(batch.labels, scores, batch.clusters, weights, seed=seed)
        if name in differences:
            differences[name]["auc"] = clustered_difference(
                batch.labels, first, scores, batch.clusters, weights, seed=seed
            )
    return replace(found, values=values, differences=differences)


def _served(file: ScoreFile, scores: PairedScores, models: int) -> dict[str, dict[str, float | None]]:
    """By model with bias fields: its metrics with these as they are served."""
    found = {}
    for name in scores.served:
        own = replace(file, models=[name + AT_SERVING], cluster=None, group=None)
        values = measured(own.rows(scores.rows)).values[name + AT_SERVING]
        wanted = ("auc", "logloss", "ece", "calibration_ratio")
        found[name] = {metric: _number(values[metric].value) for metric in wanted}
    return found


def _overlap(log: ScoredLog) -> dict[str, Any] | None:
    """Rows of the log from the time that the model was trained on; None where its time is not known."""
    return None if log.inside is None else {"rows": log.inside, "window": log.window}


def _warnings(
    logs: Sequence[ScoredLog], scores: PairedScores, models: Sequence[Mapping[str, Any]]
) -> list[str]:
    found = []
    for log, entry in zip(logs, models, strict=True):
        if log.inside and log.window:
            found.append(
                f'"{log.name}" was trained on {shown_window(log.window)}, and {log.inside:,} rows of this log '
                "lie in that time: it has seen them, or such like them, and its numbers are too good"
            )
        if log.name in scores.constant:
            found.append(f'"{log.name}" gives every row the same probability: it ranks nothing')
        elif entry["auc"]["value"] < 0.5:
            found.append(f'"{log.name}" ranks worse than chance: AUC {entry["auc"]["value"]:.4f}')
        if log.name in scores.weights_differ:
            found.append(
                f'"{log.name}" weighs rows otherwise (weight = "{log.schema.weight}"); '
                f'all models are measured with the weights of "{logs[0].name}"'
            )
        if log.schema.keep_rate != logs[0].schema.keep_rate:
            found.append(
                f'"{log.name}" was trained on a log with negative_keep_rate = {log.schema.keep_rate:g}, '
                f'"{logs[0].name}" with {logs[0].schema.keep_rate:g}; rows count as the schema of '
                f'"{logs[0].name}" says'
            )
    if scores.excluded:
        found.append(f"{scores.excluded:,} rows break a model's schema and are left out for all models")
    return found


def _few(key: str | None, clusters: int | None) -> list[str]:
    if key is None or clusters is None or clusters >= FEW_CLUSTERS:
        return []
    return [
        f'"{key}" has {clusters} values: as evidence the log is {clusters} observations, and intervals of so few '
        "are wide and only roughly right"
    ]


def _diagram(found: Reliability) -> list[dict[str, float]]:
    return [dict(zip(found._fields, map(float, row), strict=True)) for row in zip(*found, strict=True)]


def _interval(interval: Interval) -> dict[str, float | None]:
    return {name: _number(value) for name, value in interval._asdict().items()}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
