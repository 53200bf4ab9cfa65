"""Finished runs as the entries of a comparison, whatever trained them: only their scored rows must be the same."""

import json
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ctr.errors import ConfigError, CtrError, DataError, nearest
from ctr.jobs.entries import Entry, Rows, Setting, judged, keep_all_of
from ctr.jobs.run_settings import RunSettings, searches
from ctr.report.units import shown_window
from ctr.tracking import fetch_run, run_folder

_RUN_ID = re.compile(r"[0-9a-f]{32}")


class FinishedRuns:
    """Runs read from their folders.

    Args:
        names: folders, or ids of MLflow runs.
        tracking: URI of the MLflow store that knows the ids; None is the one beside the runs.
        fetched: where to download runs whose folders are not on this machine.

    Raises:
        ConfigError: fewer than two, one of them twice, or a folder that is no run.
        CtrError: a file of a run is missing or cannot be read.
        DataError: two runs scored other rows, or found other labels.
    """

    def __init__(
        self, names: Sequence[str], tracking: str | None = None, fetched: Path = Path("runs/fetched")
    ) -> None:
        if len(names) < 2:
            raise ConfigError(
                f"expected at least two runs, or one comparison (.toml), found {_listed(names)}; the report of a run "
                "compares it with keep-all already"
            )
        self.folders = [_folder(name, tracking, fetched) for name in names]
        for folder in self.folders:
            if [other.resolve() for other in self.folders].count(folder.resolve()) > 1:
                raise ConfigError(f'run "{folder}" is named more than once')
        self.reports = [_read(folder) for folder in self.folders]
        self._configs = [_config(folder) for folder in self.folders]
        self._scores = [test_scores(folder) for folder in self.folders]
        for folder, scores in zip(self.folders[1:], self._scores[1:], strict=True):
            require_same_rows(self.folders[0], self._scores[0], folder, scores)
        self._require_equal_budgets()
        self._settings = RunSettings(self._configs, self.reports)

    @property
    def rows(self) -> Rows:
        """The test rows that all of them scored."""
        first = self._scores[0]
        weights = first["weight"].to_numpy().astype(np.float64) if "weight" in first.columns else None
        return Rows(first["label"].to_numpy(), weights)

    def other_valid_rows(self) -> str | None:
        """Whose valid rows differ, in words, so that their AUCs say nothing beside each other; None where all agree."""
        first = self.reports[0]["dataset"]
        for folder, report in zip(self.folders, self.reports, strict=True):
            own = report["dataset"]
            if own["digest"] != first["digest"] and _valid(own) != _valid(first):
                return (
                    f'runs "{self.folders[0]}" and "{folder}" have other valid rows, {_valid(first)} and '
                    f"{_valid(own)}, and AUCs over other rows cannot be compared"
                )
        return None

    def entries(self) -> list[Entry]:
        """Keep-all of each backbone, embedding and seed, and what each run selected.

        Raises:
            ConfigError: runs of one setting and seed differ.
        """
        found: dict[tuple[Setting, int], Entry] = {}
        for number in range(len(self.folders)):
            for entry in self._of(number):
                before = found.setdefault((entry.setting, entry.seed), entry)
                if not np.array_equal(before.test, entry.test):
                    raise ConfigError(
                        f'runs "{before.source}" and "{entry.source}" both hold "{entry.setting.label}" with seed '
                        f"{entry.seed}, {entry.setting.backbone} and {entry.setting.embedding}, and scored rows "
                        "differently: leave one of them out"
                    )
                if (
                    before.facts["bundle_bytes"] is None
                ):  # a run that selected nothing has a bundle of keep-all
                    found[entry.setting, entry.seed] = entry
        return list(found.values())

    def _of(self, number: int) -> list[Entry]:
        folder, report, scores = self.folders[number], self.reports[number], self._scores[number]
        own, rows = self._settings.of(number), self.rows
        fields = report["feature_set"]["fields"]
        everything = {name: counts["total"] for name, counts in fields.items()}
        total = report["feature_set"]["total"]
        nothing_selected = report["selected"] is None
        baseline = {
            "kept": total,
            "ratio": 1.0,
            "fields": everything,
            "cost": _all_of(report["feature_set"]["cost"]),
            "groups": None,
            "bundle_bytes": report["bundle"]["bytes"] if nothing_selected else None,
            "seconds": {"train": report["seconds"]["baseline"] or 0.0},
            **_weights_and_valid(report, "baseline", total),
        }
        keep_all = Entry(keep_all_of(own), report["seed"], baseline, None, np.zeros(0), None, folder)
        found = [judged(keep_all, scores["baseline"].to_numpy(), rows)]
        if not nothing_selected:
            stages = ("search", "retrain")
            facts = {
                "kept": report["feature_set"]["kept"],
                "ratio": report["feature_set"]["ratio"],
                "fields": {name: counts["kept"] for name, counts in fields.items()},
                "cost": report["feature_set"]["cost"],
                "groups": report["feature_set"]["groups"],
                "bundle_bytes": report["bundle"]["bytes"],
                "cross_rows": report["selected"].get("cross_rows"),
                "pairs": report["feature_set"].get("interactions"),
                "shadow": report["feature_set"].get("shadow"),
                "seconds": {stage: report["seconds"][stage] or 0.0 for stage in stages},
                **_weights_and_valid(report, "selected", total),
            }
            entry = Entry(own, report["seed"], facts, None, np.zeros(0), folder / "feature_set", folder)
            found.append(judged(entry, scores["selected"].to_numpy(), rows))
        return found

    def _require_equal_budgets(self) -> None:
        """The same training for all, and as long a search for those that search."""
        everyone = list(zip(self.folders, self._configs, strict=True))
        searching = [each for each in everyone if searches(each[1].get("selector", {}))]
        every = {key for _, config in everyone for key in config.get("training", {})}
        for key in sorted(every - {"device", "threads"}):
            _require_equal(everyone, "training", key)
        _require_equal(searching, "selector", "epochs")


def _require_equal(runs: Sequence[tuple[Path, dict[str, Any]]], section: str, key: str) -> None:
    for folder, config in runs[1:]:
        first, own = (each.get(section, {}).get(key) for each in (runs[0][1], config))
        if first != own:
            raise ConfigError(
                f'runs "{runs[0][0]}" and "{folder}" were not trained alike: {section}.{key} is {first!r} and {own!r}; '
                "a comparison needs equal budgets"
            )


def _valid(dataset: dict[str, Any]) -> str:
    """How many valid rows there are and, where time splits them, from when to when."""
    rows, window = f"{dataset['rows']['valid']:,}", dataset["window"]
    return f"{rows} from {shown_window(window['valid'])}" if window else rows


def _weights_and_valid(report: dict[str, Any], model: str, total: int) -> dict[str, Any]:
    found = report[model]
    sizes = {key: found[key] for key in ("parameters", "bytes", "table_bytes")}
    return {**sizes, "total": total, "valid": found["valid"], "importance": None}


def _all_of(cost: dict[str, float] | None) -> dict[str, float] | None:
    return None if cost is None else {"kept": cost["total"], "total": cost["total"]}


def _folder(name: str, tracking: str | None, fetched: Path) -> Path:
    path = Path(name)
    if path.is_dir():
        return path
    if _RUN_ID.fullmatch(name):
        return _folder_of_id(name, tracking, fetched)
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    close = nearest(path.name, siblings)
    raise ConfigError(
        f'"{name}": expected a comparison (.toml), the folder of a finished run or the id of an MLflow run (32 letters '
        f"a to f and digits), found no such folder{close if 'nearest' in close else ''}"
    )


def _folder_of_id(run_id: str, tracking: str | None, fetched: Path) -> Path:
    """Where a run is kept: as a run folder beside this one says, as MLflow does, or where it is downloaded to."""
    for state in Path("runs").glob("*/mlflow.json"):
        if f'"{run_id}"' in state.read_text(encoding="utf-8"):
            return state.parent
    folder = run_folder(run_id, tracking, Path("runs"))
    return folder if folder.is_dir() else fetch_run(run_id, tracking, fallback=Path("runs"), into=fetched)


def _read(folder: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        for key, inner in _READ.items():
            found = content[key]
            if inner and not (found is None and key == "selected"):
                for name in inner:
                    found[name]
    except FileNotFoundError:
        unfinished = (folder / "config.toml").is_file()
        reason = "the run is not finished: repeat its command first" if unfinished else "that is no run"
        raise ConfigError(f'run "{folder}" has no file "report.json"; {reason}') from None
    except KeyError as error:
        place = f"{key}.{error.args[0]}" if error.args[0] != key else key
        raise CtrError(
            f'"{folder / "report.json"}" is not as a run writes it: expected the key "{place}", found none; repeat the '
            "run with --force"
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise CtrError(f'"{folder / "report.json"}" is not as a run writes it ({error!r})') from None
    return content


_MODEL = ("parameters", "bytes", "table_bytes", "valid")
_READ: dict[str, tuple[str, ...]] = {  # the keys of a report that a comparison reads
    "dataset": ("name", "digest", "rows", "fields", "features", "window"),
    "baseline": _MODEL,
    "selected": _MODEL,
    "feature_set": ("kept", "total", "ratio", "fields", "cost", "groups"),
    "bundle": ("bytes",),
    "seconds": ("baseline", "search", "retrain"),
    "seed": (),
    "selector": (),
    "backbone": (),
    "embedding": (),
}


def _config(folder: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CtrError(f'run "{folder}": its config.toml cannot be read ({error})') from None


def test_scores(folder: Path) -> pl.DataFrame:
    """Test rows of a run: row, label, baseline, selected and, where rows have one, weight.

    Raises:
        CtrError: they are missing or cannot be read.
    """
    path = folder / "scores" / "test.parquet"
    try:
        found = pl.read_parquet(path)
        return found.select(
            "row", "label", "baseline", "selected", *(["weight"] if "weight" in found.columns else [])
        )
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise CtrError(
            f'run "{folder}": its test scores "{path}" cannot be read ({reason}); repeat the run with --force'
        ) from None


def require_same_rows(first: Path, rows: pl.DataFrame, second: Path, others: pl.DataFrame) -> None:
    """Refuse two runs whose test scores are not of the same rows.

    Raises:
        DataError: with what differs: number, row numbers, labels or weights.
    """
    where = f'runs "{first}" and "{second}" cannot be compared: '
    if len(rows) != len(others):
        raise DataError(
            f"{where}they scored {len(rows):,} and {len(others):,} test rows; expected the same rows, of the same log "
            "and split"
        )
    for column, words in (("row", "row numbers"), ("label", "labels"), ("weight", "weights")):
        if (column in rows.columns) != (column in others.columns):
            raise DataError(f"{where}one of them has {words} and the other has none")
        if column not in rows.columns:
            continue
        differ = np.flatnonzero(rows[column].to_numpy() != others[column].to_numpy())
        if len(differ):
            at = int(differ[0])
            raise DataError(
                f"{where}their {words} differ in {len(differ):,} of {len(rows):,} test rows, first at position {at}: "
                f"{rows[column][at]} and {others[column][at]}; expected the same rows, of the same log and split"
            )


def _listed(names: Sequence[str]) -> str:
    return " ".join(f'"{name}"' for name in names) or "none"
