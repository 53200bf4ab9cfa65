"""What two feature sets disagree on: values, fields and pairs, whom that touches, and what it changes.

Counts are those of train rows, as the sets hold them; of a bundle, which holds none, those of the other set.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ctr.dataset.feature_set import FeatureSet
from ctr.errors import ConfigError, CtrError, DataError, nearest
from ctr.evaluation.intervals import Interval, auc_difference
from ctr.jobs.finished_runs import require_same_rows, test_scores
from ctr.report.set_difference import byte_change, interval_words
from ctr.serving.manifest import MANIFEST, broken, modelled_pairs, read_manifest

_KEY = ["field", "role", "value"]
_EXPECTED = "a feature set, a run or a bundle"


@dataclass(frozen=True)
class Side:
    """One of the two: kept features (field, role, value, count or null), pairs by method, sizes, test scores."""

    path: Path
    kept: pl.DataFrame
    every: pl.DataFrame | None
    pairs: Mapping[tuple[str, str], str]
    table_bytes: int | None
    bundle_bytes: int | None
    scores: pl.DataFrame | None


@dataclass(frozen=True)
class SetDifference:
    """Two sets beside each other.

    fields: one row per field that differs: values added and dropped, and the share of the train rows (of a list: of the
        items) whose value that touches; null where no counts are known.
    fields_added, fields_dropped: fields that kept nothing before, or keep nothing now.
    pairs: (field, field, method before, method after) where they differ.
    touched: share of impressions at least, and at most: of the field that is touched most, and of all fields' sum.
    auc: of test, second minus first, paired; None where not both hold scores.
    """

    first: Side
    second: Side
    added: pl.DataFrame
    dropped: pl.DataFrame
    fields: pl.DataFrame
    fields_added: tuple[str, ...]
    fields_dropped: tuple[str, ...]
    pairs: tuple[tuple[str, str, str, str], ...]
    touched: tuple[float, float] | None
    auc: Interval | None


def difference(first: Path, second: Path) -> SetDifference:
    """From the first set to the second.

    Raises:
        ConfigError: a folder is missing, or holds neither of what is expected.
        DataError: a file cannot be read, or both are runs that scored other rows.
    """
    one, other = side(first), side(second)
    dropped = one.kept.join(other.kept, on=_KEY, how="anti", nulls_equal=True, maintain_order="left")
    added = other.kept.join(one.kept, on=_KEY, how="anti", nulls_equal=True, maintain_order="left")
    fields = _fields(added, dropped, one.every if one.every is not None else other.every)
    before, after = (set(each.kept["field"]) for each in (one, other))
    shares = fields["touched"].drop_nulls()
    pairs = sorted({*one.pairs, *other.pairs})
    methods = [(*pair, one.pairs.get(pair, "naive"), other.pairs.get(pair, "naive")) for pair in pairs]
    auc = None
    if one.scores is not None and other.scores is not None:
        require_same_rows(first, one.scores, second, other.scores)
        weights = one.scores["weight"].to_numpy() if "weight" in one.scores.columns else None
        old, new = (each.scores["used"].to_numpy() for each in (one, other) if each.scores is not None)
        auc = auc_difference(one.scores["label"].to_numpy(), old, new, weights)
    return SetDifference(
        one,
        other,
        added,
        dropped,
        fields,
        tuple(sorted(after - before)),
        tuple(sorted(before - after)),
        tuple(each for each in methods if each[2] != each[3]),
        (float(np.max(shares.to_numpy())), min(1.0, float(shares.sum()))) if len(shares) else None,
        auc,
    )


def _fields(added: pl.DataFrame, dropped: pl.DataFrame, every: pl.DataFrame | None) -> pl.DataFrame:
    def counted(frame: pl.DataFrame, name: str) -> pl.DataFrame:
        return frame.group_by("field").agg(pl.len().alias(name))

    found = counted(added, "added").join(counted(dropped, "dropped"), on="field", how="full", coalesce=True)
    if every is None:
        shares = pl.DataFrame(schema={"field": pl.String, "touched": pl.Float64})
    else:
        changed = pl.concat([added, dropped]).select(_KEY).unique()
        weight = pl.col("count").cast(pl.Float64)
        touched = every.join(changed, on=_KEY, how="semi", nulls_equal=True)
        shares = (
            every.group_by("field")
            .agg(weight.sum().alias("all"))
            .join(touched.group_by("field").agg(weight.sum().alias("some")), on="field")
            .select("field", (pl.col("some") / pl.col("all").clip(1.0)).alias("touched"))
        )
    numbers = pl.col("added", "dropped").fill_null(0)
    return found.join(shares, on="field", how="left").with_columns(numbers).sort("field")


def side(path: Path) -> Side:
    """Read a feature set, a run (its set and its test scores) or a bundle.

    Raises:
        ConfigError: it is none of them.
        DataError, CtrError: a file cannot be read.
    """
    if not path.is_dir():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        close = nearest(path.name, siblings)
        raise ConfigError(
            f'"{path}": expected {_EXPECTED}, found no folder{close if "nearest" in close else ""}'
        )
    if (path / "feature_set.json").is_file():
        return _of_set(path, path)
    if (path / "report.json").is_file():
        return _of_run(path)
    if (path / "vocabulary.parquet").is_file() and (path / "weights.safetensors").is_file():
        return _of_bundle(path, path)
    reason = ""
    if (path / "weights.safetensors").is_file():
        reason = ", which holds fingerprints of values instead of a vocabulary, and they cannot be told apart"
    names = ", ".join(f'"{entry.name}"' for entry in sorted(path.iterdir())[:8]) or "nothing"
    raise ConfigError(f'"{path}": expected {_EXPECTED}, found a folder with {names}{reason}')


def _of_set(path: Path, folder: Path, report: Mapping[str, Any] | None = None) -> Side:
    found = FeatureSet.load(folder)
    every = found.features.select(*_KEY, "count")
    pairs = {pair: method for method in ("memorize", "factorize") for pair in found.pairs(method)}
    kept = every.filter(found.features["kept"])
    selected = (report or {}).get("selected") or {}
    scores = None if report is None else _used(path, "selected")
    bundle = ((report or {}).get("bundle") or {}).get("bytes")
    return Side(path, kept, every, pairs, selected.get("table_bytes"), bundle, scores)


def _of_run(path: Path) -> Side:
    try:
        report = json.loads((path / "report.json").read_text(encoding="utf-8"))
        selected = report["selected"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CtrError(f'"{path / "report.json"}" is not as a run writes it ({error!r})') from None
    if selected is not None:
        return _of_set(path, path / "feature_set", report)
    whole = _of_bundle(path, path / "bundle")
    sizes = (report["baseline"]["table_bytes"], report["bundle"]["bytes"])
    return Side(path, whole.kept, None, whole.pairs, *sizes, _used(path, "baseline"))


def _used(path: Path, column: str) -> pl.DataFrame:
    return test_scores(path).rename({column: "used"})


def _of_bundle(path: Path, folder: Path) -> Side:
    try:
        found = pl.read_parquet(folder / "vocabulary.parquet", columns=_KEY)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f'"{folder / "vocabulary.parquet"}": no readable vocabulary: {reason}') from None
    try:
        pairs = modelled_pairs(read_manifest(folder).model_dump())
    except ValueError as error:
        raise broken(folder, f'"{MANIFEST}": {error}') from None
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    none = pl.lit(None, pl.Int64).alias("count")
    return Side(path, found.with_columns(none), None, pairs, None, size, None)


def facts(found: SetDifference) -> dict[str, str | None]:
    """What a reader wants to know first."""
    touched = None
    if found.touched is not None:
        low, high = (f"{100 * bound:.1f} %" for bound in found.touched)
        touched = low if low == high else f"{low} to {high}"
    return {
        "features": f"{found.first.kept.height:,} -> {found.second.kept.height:,}: {found.added.height:,} added, "
        f"{found.dropped.height:,} dropped",
        "fields added": ", ".join(found.fields_added) or None,
        "fields dropped": ", ".join(found.fields_dropped) or None,
        "impressions touched": touched,
        "tables": byte_change(found.first.table_bytes, found.second.table_bytes),
        "bundle": byte_change(found.first.bundle_bytes, found.second.bundle_bytes),
        "test AUC": None if found.auc is None else interval_words(*found.auc),
    }
