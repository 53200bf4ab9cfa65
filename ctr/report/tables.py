"""The tables of a run's report, as text ready for a page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import polars as pl

from ctr.report.units import Report, change, count, decimal, duration, known, pick, share, signed, size


class Cell(NamedTuple):
    """What a table shows, and the number it sorts by; cells without one sort by their text."""

    text: str
    value: float | None = None


@dataclass(frozen=True)
class Table:
    """A table with a caption; the first column names the row, all others but those of `words` are numbers."""

    id: str
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    words: Sequence[str] = ()


def curve_table(report: Report) -> Table | None:
    """Every trained point: selector, size, quality on valid and test, difference to keep-all."""
    points = pick(report, "curve")
    if not points:
        return None
    rows = [
        [
            Cell(str(point["selector"]) + (" (chosen)" if point.get("chosen") else "")),
            Cell(count(point["kept"]), point["kept"]),
            Cell(share(point["ratio"]), point["ratio"]),
            _cell(point.get("penalty"), lambda value: f"{value:.3g}"),
            _cell(point.get("parameters"), count),
            _cell(point.get("bytes"), size),
            _cell(pick(point, "valid", "auc")),
            _cell(pick(point, "valid", "logloss")),
            _cell(pick(point, "test", "auc")),
            _cell(pick(point, "test", "logloss")),
            _cell(pick(point, "test", "ece")),
            Cell(_interval(point.get("difference")), pick(point, "difference", "value")),
        ]
        for point in points
    ]
    columns = ["selector", "kept", "share", "penalty", "parameters", "all weights", "valid AUC"]
    columns += ["valid log loss", "test AUC", "test log loss", "test ECE", "minus keep-all (95 %)"]
    return Table(
        "runs",
        "Every trained model. The one that is shipped was stated before; test chose nothing.",
        columns,
        rows,
    )


def _cell(value: float | None, write: Any = decimal) -> Cell:
    return Cell(write(value) if known(value) else "-", value if known(value) else None)


def _interval(difference: Mapping[str, float | None] | None) -> str:
    if not known(pick(difference, "value")):
        return "-"
    low, high = (signed(pick(difference, bound)) for bound in ("low", "high"))
    return f"{signed(pick(difference, 'value'))} ({low} to {high})"


def fields_table(report: Report, features: pl.DataFrame | None) -> Table | None:
    """Per field, in schema order: values, kept, dropped, and the share of train rows whose value is kept."""
    fields: Mapping[str, Mapping[str, int]] | None = pick(report, "feature_set", "fields")
    if not fields:
        return None
    covered: dict[str, float] = {}
    if features is not None:
        weight = pl.col("count").cast(pl.Float64)
        sums = (
            features.filter(pl.col("role") == "value")
            .group_by("field")
            .agg(weight.filter(pl.col("kept")).sum().alias("kept"), weight.sum().alias("all"))
            .filter(pl.col("all") > 0)
        )
        covered = {field: kept / total for field, kept, total in sums.iter_rows()}
    rows = []
    for name, counts in fields.items():
        kept, total = counts["kept"], counts["total"]
        ratio = kept / total if total else None
        row = [
            Cell(name),
            _cell(total, count),
            _cell(kept, count),
            _cell(total - kept, count),
            _cell(ratio, share),
        ]
        rows.append([*row, _cell(covered.get(name), share)] if features is not None else row)
    columns = ["field", "values", "kept", "dropped", "kept share"]
    caption = "Values per field, without unknown and missing."
    if features is not None:
        columns.append("rows covered")
        caption += " Rows covered: of the train rows with a known value, the share whose value is kept."
    return Table("fields", caption, columns, rows)


def sizes_table(report: Report) -> Table:
    """Parameters and bytes of both models, and what selection changed."""
    rows = []
    for name, key, write in (
        ("parameters", "parameters", count),
        ("embedding, first-order and cross tables", "table_bytes", size),
        ("all weights", "bytes", size),
        ("rows of cross tables", "cross_rows", count),
        ("memory that finds crosses", "cross_index_bytes", size),
    ):
        before, after = pick(report, "baseline", key), pick(report, "selected", key)
        if known(before) or known(after):
            rows.append([Cell(name), _cell(before, write), _cell(after, write), Cell(change(before, after))])
    bundle = pick(report, "bundle", "bytes")
    rows.append([Cell("bundle on disk"), Cell("-"), _cell(bundle, size), Cell("-")])
    caption = "Sizes. Keep-all is counted in float32, selected as stored in the bundle."
    return Table("sizes", caption, ["size", "keep all", "selected", "change"], rows)


def quality_table(report: Report) -> Table:
    """AUC, log loss and calibration of both models."""
    measures = [("AUC", "auc"), ("log loss", "logloss"), ("calibration error (ECE)", "ece")]
    measures.append(("predicted / observed clicks", "calibration_ratio"))
    rows = []
    for part, words in (("valid", "valid"), ("test", "test"), ("test_at_serving", "test, as served:")):
        for name, key in measures:
            before, after = pick(report, "baseline", part, key), pick(report, "selected", part, key)
            if known(before) or known(after):
                difference = after - before if known(before) and known(after) else None
                row = [Cell(f"{words} {name}"), _cell(before), _cell(after), _cell(difference, signed)]
                rows.append(row)
    caption = "Quality and calibration. ECE: 20 bins of equal mass; log loss in nats."
    if pick(report, "bias"):
        caption += (
            " As served: bias fields have their serving values; the clicks are those of the logged ones."
        )
    return Table("quality", caption, ["measure", "keep all", "selected", "selected minus keep all"], rows)


def planted_table(report: Report) -> Table | None:
    """Compare what was planted in a synthetic log with what the selector made of it."""
    planted = pick(report, "planted")
    if not planted:
        return None
    rows = []
    for name, found, total in (
        ("pure-noise values dropped", "noise_dropped", "noise_values"),
        ("detectable values kept", "detectable_kept", "detectable_values"),
    ):
        right, of = pick(planted, found), pick(planted, total)
        ratio = right / of if known(right) and of else None
        rows.append([Cell(name), _cell(right, count), _cell(of, count), _cell(ratio, share)])
    caption = "The planted truth of this synthetic log. Detectable: an effect above four standard errors."
    return Table("planted", caption, ["truth", "found", "planted", "share"], rows)


def seconds_table(report: Report) -> Table:
    """Wall time per stage."""
    stages = pick(report, "seconds") or {}
    total = sum(seconds for seconds in stages.values() if known(seconds))
    rows = [
        [
            Cell(stage),
            _cell(seconds, duration),
            _cell(seconds / total if known(seconds) and total else None, share),
        ]
        for stage, seconds in stages.items()
    ]
    rows.append([Cell("all"), _cell(total, duration), _cell(1.0 if total else None, share)])
    return Table("seconds", "Time per stage.", ["stage", "time", "share"], rows)


def provenance(report: Report) -> list[tuple[str, str]]:
    """List what one needs to know to believe the page, and to repeat it."""
    rows, versions = pick(report, "dataset", "rows") or {}, pick(report, "versions") or {}
    settings = [(name, pick(report, name)) for name in ("run", "backbone", "selector", "embedding", "seed")]
    return [
        ("dataset", str(pick(report, "dataset", "name") or "-")),
        ("dataset digest", str(pick(report, "dataset", "digest") or "-")),
        ("rows", ", ".join(f"{part} {count(number)}" for part, number in rows.items()) or "-"),
        ("fields", count(_length(pick(report, "dataset", "fields")))),
        ("features, with unknown and missing", count(pick(report, "dataset", "features"))),
        *((name, _described(value)) for name, value in settings),
        ("training speed", _with_unit(count(pick(report, "train_rows_per_second")), "rows/s")),
        ("peak memory", size(pick(report, "peak_rss_bytes"))),
        ("bundle", str(pick(report, "bundle", "path") or "-")),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items()) or "-"),
    ]


def _described(setting: Any) -> str:
    """Write a setting in words: a name, a number, or a mapping of such."""
    if isinstance(setting, Mapping):
        return ", ".join(f"{name} {value}" for name, value in setting.items())
    return "-" if setting is None else str(setting)


def _length(fields: Any) -> float | None:
    """Count fields, whether given as a number or by their names."""
    return fields if fields is None or isinstance(fields, int | float) else len(fields)


def _with_unit(text: str, unit: str) -> str:
    return text if text == "-" else f"{text} {unit}"
