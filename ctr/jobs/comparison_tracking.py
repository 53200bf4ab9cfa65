"""A comparison in MLflow: a parent run with its tables, and a nested run for each model.

All of it is on disk before, so a store that does not answer loses nothing: the same command, or `ctr sync`, sends it
later.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from ctr.config import Tracking
from ctr.errors import CtrError
from ctr.report.comparison_words import setting_words
from ctr.report.walk_words import LINES
from ctr.settings import dump_toml
from ctr.tracking import OFF, Job, Tracker, UnsentError, resend
from ctr.unsent import UNSENT

_STATE = "mlflow.json"
_SIZES = ("kept", "bundle_bytes", "memorized", "factorized", "cross_rows")
_SETTING = ("role", "label", "size", "backbone", "embedding", "seed", "chosen", "source")


def is_sent(folder: Path, tracking: Tracking, digest: str | None) -> bool:
    """Whether MLflow has all of the comparison in `folder`, or is not to have it."""
    if tracking.uri == OFF:
        return True
    return _state(folder).get("sent") == digest and not (folder / UNSENT).is_file()


def send(
    folder: Path, document: Mapping[str, Any], content: Mapping[str, Any], tracking: Tracking, beside: Path
) -> None:
    """Log a finished comparison; one that was sent in part goes on in the same runs.

    Args:
        folder: of the comparison.
        document: what its `comparison.json` holds.
        content: the configuration of the comparison.
        tracking: where to. beside: the folder of runs, which holds the store that is meant where none is stated.

    Raises:
        CtrError: MLflow does not answer, or not all could be sent.
    """
    if tracking.uri == OFF:
        return
    try:
        state = _state(folder)
        if state.get("sent") == document["digest"] and (folder / UNSENT).is_file():
            job = resend(folder)
            _write(folder, {**state, "run_id": job.run_id})
            return
        tracker = Tracker.open(
            tracking.uri,
            tracking.experiment,
            fallback=beside,
            keep=folder,
            required=False,
        )
        tags = {"comparison": document["name"], "verdict": document["verdict"]}
        run_id = state.get("run_id") if state.get("uri") == tracker.uri else None
        with tracker.job(
            folder.name, config=content, config_text=dump_toml(content), tags=tags, datasets=[], run_id=run_id
        ) as job:
            state = {"run_id": job.run_id, "uri": tracker.uri}
            _write(folder, state)
            table = pl.read_parquet(folder / "comparison.parquet")
            for row in table.iter_rows(named=True):
                with job.stage(f"{setting_words(row, where=True)}, seed {row['seed']}") as stage:
                    stage.params({key: row[key] for key in _SETTING})
                    numbers = {key: value for key, value in row.items() if key not in _SETTING}
                    stage.metrics({k: v for k, v in numbers.items() if isinstance(v, int | float)}, step=0)
            job.table("comparison", *_rows(document))
            files = [folder / f"comparison.{kind}" for kind in ("json", "html", "parquet")]
            if document.get("walk_forward") is not None:
                _walked(job, document["walk_forward"])
                files.append(folder / "walk_forward.parquet")
            job.artifacts(files)
        _write(folder, {**state, "sent": document["digest"]})
    except CtrError as error:
        if (
            isinstance(error, UnsentError) and (folder / UNSENT).is_file()
        ):  # it is kept, so no need to log it again
            _write(folder, {**_state(folder), "sent": document["digest"]})
        raise CtrError(
            f'{error}; the comparison itself is done, all of it is in "{folder}", and the same command sends it once '
            "MLflow answers"
        ) from None


def _walked(job: Job, walk: Mapping[str, Any]) -> None:
    """A nested run for each set and line of a walk forward: its metrics are curves over windows."""
    for one in walk["sets"]:
        for line, points in one["points"].items():
            with job.stage(f"{setting_words(one, where=True)}, {LINES[line]}") as stage:
                stage.params({"line": line, "age_unit": walk["age_unit"]})
                for point, window in zip(points, walk["windows"], strict=True):
                    numbers = {"auc": point["auc"], "keep_all_auc": point["keep_all_auc"]}
                    numbers |= {"age": window["age"], "unjudged": window["unjudged"]["any"]}
                    for other in ("keep_all", "anew"):
                        found = point.get(f"minus_{other}", {})
                        bounds = {key: found[key] for key in ("value", "low", "high") if found}
                        numbers |= {f"minus_{other}_{key}": number for key, number in bounds.items()}
                    stage.metrics(numbers, step=point["window"])


def _rows(document: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """The table of the MLflow page: a row for each setting."""
    columns = ["setting", "backbone", "embedding", *_SIZES, "valid_auc", "test_auc"]
    columns += ["minus_keep_all", "low", "high", "low_corrected", "high_corrected", "verdict"]
    rows = []
    for each in document["settings"]:
        difference = each["differences"].get("keep_all")
        bounds: list[Any] = [None] * 6
        if difference is not None:
            auc, wide = difference["auc"], difference["auc_corrected"]
            bounds = [
                auc["value"],
                auc["low"],
                auc["high"],
                wide["low"],
                wide["high"],
                difference["sentence"],
            ]
        aucs = [each[part]["auc"]["mean"] for part in ("valid", "test")]
        sizes = [each.get(key) for key in _SIZES]  # what was judged by an earlier version counts no pairs
        rows.append([setting_words(each), each["backbone"], each["embedding"], *sizes, *aucs, *bounds])
    return columns, rows


def _state(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(folder: Path, content: Mapping[str, Any]) -> None:
    scratch = folder / f".{_STATE}"
    scratch.write_text(json.dumps(content), encoding="utf-8")
    scratch.replace(folder / _STATE)
