"""Datasets, runs, feature sets and bundles as tables for a terminal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ctr.dataset.unsealing import sealed_reads
from ctr.errors import DataError
from ctr.report import tables
from ctr.report.collisions import collisions_table
from ctr.report.headline import verdict
from ctr.report.log_facts import join_fact, log_facts
from ctr.report.looks import reads_fact
from ctr.report.pairs import pairs_table, strongest
from ctr.report.shadow import shadow_sentence
from ctr.report.terminal import fact_sheet, heading, ruled_table, setting_text, settings_text, shortened
from ctr.report.units import ABSENT, Report, count, decimal, known, pick, share, signed, size
from ctr.serving.manifest import modelled_pairs

_TOP = 15  # features listed
_WORST = 10  # fields whose collisions are listed
_PAIRS = 40  # pairs listed; as many as a run switches off
_PARTS = ("train", "valid", "test")


def dataset(folder: Path, manifest: Mapping[str, Any]) -> RenderableType:
    """Rows and positives per part, what was left out, and every field with its vocabulary."""
    rows, positives = manifest["rows"], manifest["positives"]
    window = manifest.get("window") or {}
    parts = [
        [
            part,
            count(rows[part]),
            count(positives[part]),
            share(positives[part] / max(rows[part], 1)),
            *_span(window.get(part)),
        ]
        for part in _PARTS
    ]
    keys = ("read", "filtered", "set_aside", "gap", "immature", "after_as_of")
    aside = {key: rows.get(key) for key in keys}
    facts = {
        "inputs": ", ".join(f"{entry['name']} ({size(entry['bytes'])})" for entry in manifest["inputs"]),
        "label": manifest["schema"]["label"],
        "where": manifest["schema"].get("where"),
        "split": settings_text(manifest["schema"]["split"]),
        "rows": ", ".join(
            f"{count(number)} {key.replace('_', ' ')}" for key, number in aside.items() if number
        ),
        "joins": "; ".join(join_fact(join) for join in manifest["joins"]),
        "encoding": "hashed: values are keys, no vocabulary" if manifest["encoding"] == "hashed" else None,
        "digest": manifest["digest"],
        "test rows": reads_fact([read._asdict() for read in sealed_reads(folder)]),
    }
    columns = ["part", "rows", "positive", "share", *(["from", "to"] if window else [])]
    return Group(
        heading("Dataset", manifest["name"], folder),
        fact_sheet(facts),
        ruled_table(columns, parts),
        _vocabulary(folder, manifest),
    )


def _span(window: Sequence[Any] | None) -> list[str]:
    return [str(moment) for moment in window] if window else []


def _vocabulary(folder: Path, manifest: Mapping[str, Any]) -> Table:
    """Fields in schema order: values, and how many train rows (of lists: items) are unknown or missing.

    Hashed values are counted when such a dataset is first trained on, and shown by their keys.
    """
    hashed = manifest["encoding"] == "hashed"
    path = folder / ("cache/keys.parquet" if hashed else "vocabulary.parquet")
    found = {name: frame for (name,), frame in _parquet(path).group_by("field")} if path.is_file() else {}
    specs = {spec["name"]: spec for spec in manifest["schema"]["fields"]}
    lines = []
    for entry in manifest["fields"]:
        spec, own = specs.get(entry["name"], {}), found.get(entry["name"])
        kind = f"{entry['kind']}, {spec['transform']}" if spec.get("transform") else entry["kind"]
        features = own.height if hashed and own is not None else entry["features"]
        values = ABSENT if features is None else count(features - 2)
        line = [entry["name"], kind, values, ABSENT if hashed else count(spec.get("min_count"))]
        lines.append([*line, *(_frequencies(own) if own is not None else [ABSENT] * 3)])
    columns = ["field", "kind", "values", "min count", "unknown", "missing", "most frequent value"]
    return ruled_table(columns, lines, left=("field", "kind", "most frequent value"))


def _frequencies(own: pl.DataFrame) -> list[str]:
    total = max(int(own["count"].sum()), 1)
    shares = {
        role: int(own.filter(pl.col("role") == role)["count"].sum()) / total
        for role in ("unknown", "missing")
    }
    values = own.filter(pl.col("role") == "value", pl.col("value").is_not_null()).sort("id")
    top = (
        f"{shortened(values['value'][0])} ({share(values['count'][0] / total)})" if values.height else ABSENT
    )
    return [share(shares["unknown"]), share(shares["missing"]), top]


def feature_set(folder: Path, content: Mapping[str, Any]) -> RenderableType:
    """Who chose, what is kept per field, and the features with the strongest gates."""
    path = folder / "features.parquet"
    features = _parquet(path) if path.is_file() else None
    facts = {key: setting_text(content.get(key)) for key in ("selector", "ratio", "penalty", "price", "seed")}
    facts["kept"] = _kept(content)
    facts["false keeps"] = shadow_sentence({"feature_set": content})
    facts["a dropped value reads"] = content.get("dropped_reads")
    facts |= {"dataset": content.get("dataset"), "digest": content.get("digest")}
    shown: list[RenderableType] = [heading("Feature set", folder.name, folder), fact_sheet(facts)]
    fields = tables.fields_table({"feature_set": content}, features)
    shown += [_of(fields)] if fields else []
    shown += [_strongest(features)] if features is not None else []
    pairs = folder / "interactions.parquet"
    if pairs.is_file():
        found = _parquet(pairs)
        methods = found.group_by("method").len().sort("method")
        shown.append(
            ruled_table(
                ["interaction", "pairs"], [[method, count(number)] for method, number in methods.rows()]
            )
        )
        shown += _strongest_pairs(found)
    return Group(*shown)


def _strongest_pairs(pairs: pl.DataFrame) -> list[Table]:
    """The pairs in use, by how much their method leads; none where all are naive."""
    used = pairs.filter(pl.col("method") != "naive").sort("strength", descending=True, maintain_order=True)
    lines = [
        [f"{row['field_a']} x {row['field_b']}", row["method"], decimal(row["strength"], 2)]
        for row in used.head(_PAIRS).iter_rows(named=True)
    ]
    title, columns = strongest(len(lines), used.height), ["pair", "method", "strength"]
    return [ruled_table(columns, lines, left=("method",), title=title)] if lines else []


def _kept(counts: Mapping[str, Any]) -> str:
    return f"{count(counts['kept'])} of {count(counts['total'])} values ({share(counts['ratio'])})"


def _strongest(features: pl.DataFrame) -> Table:
    """The kept values with the largest gates; by count where gates are not what chose."""
    values = features.filter(pl.col("role") == "value")
    top = (
        values.filter("kept")
        .sort(["gate", "count", "field", "id"], descending=[True, True, False, False])
        .head(_TOP)
    )
    lines = [
        [row["field"], shortened(row["value"]), count(row["count"]), decimal(row["gate"], 3)]
        for row in top.iter_rows(named=True)
    ]
    title = f"The {len(lines)} kept values with the largest gates"
    return ruled_table(["field", "value", "train rows", "gate"], lines, left=("field", "value"), title=title)


def run(folder: Path, report: Report) -> RenderableType:
    """Verdict, quality, sizes, the curve, and where everything is."""
    facts = {
        "dataset": f"{pick(report, 'dataset', 'name')} ({_row_counts(report)})",
        "model": " ".join(str(pick(report, key) or ABSENT) for key in ("backbone", "selector", "embedding")),
        "seed": setting_text(pick(report, "seed")),
        "state": "done"
        if (folder / "DONE").is_file()
        else "report written, run not finished: the same command goes on",
    }
    low, high = (pick(report, "difference", "test_auc", bound) for bound in ("low", "high"))
    if known(low) and known(high):
        value = signed(pick(report, "difference", "test_auc", "value"))
        facts["AUC difference"] = f"{value} on test (95 % interval {signed(low)} to {signed(high)})"
    facts["false keeps"] = shadow_sentence(report)
    facts |= dict(log_facts(report))
    text = str(pick(report, "verdict") or verdict(report))
    shown: list[RenderableType] = [
        heading("Run", folder.name, folder),
        Text(text, style="bold"),
        fact_sheet(facts),
    ]
    shown += [_of(tables.quality_table(report)), _of(tables.sizes_table(report))]
    curve = tables.curve_table(report)
    if curve:
        columns = ("selector", "kept", "share", "valid AUC", "test AUC", "minus keep-all (95 %)")
        shown.append(_of(curve, columns))
    pairs = pairs_table(report)
    shown += [_of(pairs)] if pairs else []
    if shared := collisions_table(report, _WORST):
        shown.append(
            _of(shared, ("field", "values", "values on a row", "merged", "rows learn from own field"))
        )
    fields = tables.fields_table(report, None)
    if fields and known(pick(report, "difference", "test_auc", "value")):
        shown.append(_of(fields))
    shown.append(fact_sheet(_places(folder)))
    return Group(*shown)


def _row_counts(report: Report) -> str:
    rows = pick(report, "dataset", "rows") or {}
    return ", ".join(f"{count(number)} {part}" for part, number in rows.items())


def _places(folder: Path) -> dict[str, str | None]:
    names = {
        "report": "report.html",
        "feature set": "feature_set",
        "bundle": "bundle",
        "test scores": "scores/test.parquet",
    }
    return {what: str(folder / name) if (folder / name).exists() else None for what, name in names.items()}


def unfinished_run(folder: Path) -> RenderableType:
    """A run without a report: how far it came."""
    models = sorted(
        entry.name for entry in (folder / "checkpoints").glob("*") if not entry.name.startswith(".")
    )
    facts = {
        "state": "unfinished: the command that started it goes on from its last checkpoint",
        "models begun": ", ".join(models) or "none",
        "config": str(folder / "config.toml"),
    }
    return Group(heading("Run", folder.name, folder), fact_sheet(facts))


def bundle(folder: Path, manifest: Mapping[str, Any]) -> RenderableType:
    """What it needs, what it reached, and its files."""
    names = [str(field["name"]) for field in manifest["fields"]]
    architecture = dict(manifest.get("architecture") or {})
    pairs = architecture.pop("pairs", None)
    counts = manifest.get("features") or {}
    files = {path: path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    facts = {
        "format version": setting_text(manifest["format_version"]),
        "kept": _kept(counts) if counts else None,
        "fields": f"{len(names)}: {', '.join(names)}",
        "kept values": _kept_values(manifest.get("kept_values")),
        "architecture": settings_text(architecture),
        "interactions": _pair_counts(pairs) if pairs else None,
        "size": f"{size(sum(files.values()))} in {len(files)} files",
        "made by": settings_text(manifest.get("provenance") or {}),
        "versions": settings_text(manifest.get("versions") or {}),
        "score with": f"ctr score {folder} FILE --out scores.parquet",
    }
    shown: list[RenderableType] = [heading("Bundle", str(manifest["name"]), folder), fact_sheet(facts)]
    metrics = {part: values for part, values in (manifest.get("metrics") or {}).items() if values}
    if measures := list(dict.fromkeys(name for values in metrics.values() for name in values)):
        lines = [
            [part, *(decimal(values.get(name)) for name in measures)] for part, values in metrics.items()
        ]
        shown.append(ruled_table(["part", *measures], lines))
    fields = tables.fields_table({"feature_set": counts}, None)
    shown += [_of(fields)] if fields else []
    shown += _modelled_pairs(manifest)
    listed = [[path.relative_to(folder).as_posix(), size(number)] for path, number in files.items()]
    return Group(*shown, ruled_table(["file", "size"], listed))


def _pair_counts(pairs: Mapping[str, Any]) -> str:
    memorized, factorized = count(len(pairs["memorized"])), count(len(pairs["factorized"]))
    return f"{memorized} pairs memorized in {count(pairs['cross_rows'] - 1)} rows, {factorized} factorized"


def _modelled_pairs(manifest: Mapping[str, Any]) -> list[Table]:
    """The pairs that a bundle models, those with most rows first: how strong they were it does not hold."""
    costs = (manifest.get("costs") or {}).get("pairs") or []
    rows = {tuple(entry["fields"]): entry["rows"] for entry in costs}
    found = sorted(modelled_pairs(manifest).items(), key=lambda pair: -(rows.get(pair[0]) or 0))
    lines = [[" x ".join(pair), method, count(rows.get(pair))] for pair, method in found[:_PAIRS]]
    title = f"{count(len(lines))} of {count(len(found))} pairs in use"
    columns = ["pair", "method", "rows of crosses"]
    return [ruled_table(columns, lines, left=("method",), title=title)] if lines else []


def _kept_values(entry: Mapping[str, Any] | None) -> str | None:
    """How a bundle without vocabulary knows them, and how often it is wrong."""
    if entry is None:
        return None
    whole = f"; all of {', '.join(entry['whole'])}" if entry["whole"] else ""
    return (
        f"{count(entry['values'])} fingerprints of {entry['bits']} bits, which take {entry['error_rate']:.2g} "
        f"of the dropped values for kept ones{whole}"
    )


def _of(table: tables.Table, columns: Sequence[str] | None = None) -> Table:
    """A table of the report, or some of its columns."""
    chosen = [place for place, name in enumerate(table.columns) if columns is None or name in columns]
    lines = [[row[place].text for place in chosen] for row in table.rows]
    return ruled_table([table.columns[place] for place in chosen], lines, title=table.caption)


def _parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f'"{path}": no readable parquet file: {str(error).splitlines()[0]}') from None
