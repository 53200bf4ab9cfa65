"""The tables of an evaluation, as text ready for a page."""

from collections.abc import Mapping, Sequence
from typing import Any

from ctr.report.tables import Cell, Table
from ctr.report.units import Report, count, decimal, known, pick, share, shown_window, signed

MEASURES = {
    "auc": "AUC",
    "logloss": "log loss",
    "normalised_entropy": "normalised entropy",
    "ece": "calibration error (ECE)",
    "calibration_ratio": "promised / observed clicks",
    "gauc": "gAUC",
}


def models_table(report: Report) -> Table:
    """Each metric of every model, with its interval."""
    models = report["models"]
    rows = [
        [
            Cell(MEASURES[metric]),
            *(_with_bounds(_value(entry, metric), _bounds(entry, metric), decimal) for entry in models),
        ]
        for metric in _measures(report)
    ]
    caption = "95 % intervals in brackets. ECE: 20 bins of equal mass. Log loss in nats; normalised entropy: over the "
    caption += "log loss of the share of clicks alone."
    return Table("models", caption, ["measure", *(entry["name"] for entry in models)], rows)


def differences_table(report: Report) -> Table | None:
    """Each metric of every model minus that of the first one."""
    differences = pick(report, "differences")
    if not differences:
        return None
    baseline = differences[0]["baseline"]
    rows = [
        [
            Cell(MEASURES[metric]),
            *(_with_bounds(_value(entry, metric), entry[metric], signed) for entry in differences),
        ]
        for metric in _measures(report)
    ]
    caption = f"Minus {baseline}, on the same rows, with paired 95 % intervals."
    columns = ["measure", *(f"{entry['name']} minus {baseline}" for entry in differences)]
    return Table("differences", caption, columns, rows)


def served_table(report: Report) -> Table | None:
    """Models with bias fields as they are served."""
    found = [entry for entry in report["models"] if entry["at_serving"]]
    if not found:
        return None
    metrics = ("auc", "logloss", "ece", "calibration_ratio")
    rows = [
        [Cell(entry["name"]), *(_cell(entry["at_serving"][metric], decimal) for metric in metrics)]
        for entry in found
    ]
    caption = "With bias fields as they are served; above, they have the values of the log."
    return Table("served", caption, ["model", *(MEASURES[metric] for metric in metrics)], rows)


def slices_table(parts: Sequence[Mapping[str, Any]], id: str, field: str) -> Table | None:
    """Rows, share of clicks, and for each model AUC, log loss and calibration, by slice."""
    if not parts:
        return None
    names = [entry["name"] for entry in parts[0]["models"]]
    several = len(names) > 1
    columns = [field, "rows", "clicks"]
    for name in names:
        of = f"{name}: " if several else ""
        columns += [f"{of}AUC", f"{of}log loss", f"{of}promised / observed"]
    columns += [f"{name} minus {names[0]}: AUC" for name in names[1:]]
    rows = []
    for part in parts:
        row = [
            Cell(part["value"]),
            _cell(part["rows"], count),
            _cell(part["positives"] / part["rows"], share),
        ]
        for entry in part["models"]:
            bounds = None if several else entry["auc"]
            row.append(_with_bounds(entry["auc"]["value"], bounds, decimal))
            row += [_cell(entry["logloss"], decimal), _cell(entry["calibration_ratio"], _ratio)]
        row += [_with_bounds(entry["auc"]["value"], entry["auc"], signed) for entry in part["differences"]]
        rows.append(row)
    caption = f"By {field}. Clicks: share of rows with label 1. Slices of one class have no AUC."
    return Table(id, caption, columns, rows)


def guardrails_table(report: Report) -> Table | None:
    """Each bound, what was found, and whether it is kept."""
    found = pick(report, "guardrails")
    if not found:
        return None
    rows = []
    for entry in found:
        change = entry["bound"] in ("max_drop", "max_rise")
        about = f"{entry['slice']} = {entry['value'] or 'any'}" if entry["slice"] else "all rows"
        state = {True: "kept", False: "MISSED", None: "not judged"}[entry["kept"]]
        if entry["why"]:
            state += f": {entry['why']}"
        bound = entry["bound"].replace("_", " ")
        by = " (whole interval)" if entry["judged_by"] == "interval" else ""
        order = {False: 0.0, None: 1.0, True: 2.0}[entry["kept"]]
        rows.append(
            [
                Cell(f"{entry['model']}, {about}"),
                Cell(f"{MEASURES[entry['metric']]}: {bound} {entry['limit']:g}{by}"),
                _with_bounds(entry["found"], entry, signed if change else decimal),
                _cell(entry["rows"], count),
                Cell(state, order),
            ]
        )
    caption = "Bounds that were stated before. A missed one ends the command with exit code 4."
    return Table("guardrails", caption, ["of", "bound", "found", "rows", "outcome"], rows)


def unseen_table(report: Report) -> Table | None:
    """By field and model, the share of values that have no feature."""
    models = report["models"]
    fields = list(dict.fromkeys(field for entry in models for field in entry["unseen"]))
    if not fields:
        return None
    several = len(models) > 1
    columns = ["field"]
    for entry in models:
        of = f"{entry['name']}: " if several else ""
        columns += [f"{of}values", f"{of}without a feature", f"{of}share", f"{of}rows without a value"]
    rows = []
    for field in fields:
        row = [Cell(field)]
        for entry in models:
            counts = entry["unseen"].get(field)
            row += [
                _cell(pick(counts, "values"), count),
                _cell(pick(counts, "unseen"), count),
                _cell(pick(counts, "share"), share),
                _cell(pick(counts, "missing"), count),
            ]
        rows.append(row)
    caption = "Values of the log by field; of lists, their items. A dash: the model does not read the field's values."
    return Table("unseen", caption, columns, rows)


def provenance(report: Report) -> list[tuple[str, str]]:
    """What one needs to know to believe the page, and to repeat it."""
    log, method = report["log"], report["method"]
    time = log["time"]
    facts = [
        ("log", ", ".join(log["inputs"])),
        ("rows", f"{count(log['rows'])} of {count(log['rows_read'])} read"),
        ("left out by where", count(log["filtered"])),
        ("set aside, break a schema", count(log["set_aside"])),
        ("digest of rows and labels", log["digest"]),
        ("time", f"{time['first']} to {time['last']} ({time['column']}: {time['unit']})" if time else "-"),
        ("AUC", method["auc"]),
        ("intervals over", "other rows" if method["intervals"] == "rows" else method["intervals"]),
        ("gAUC by", method["group_by"] or "-"),
        ("negatives kept in the log", share(log["negative_keep_rate"])),
    ]
    for entry in report["models"]:
        bundle, window = entry["bundle"], entry["bundle"]["window"]
        trained = " and ".join(bundle["trained_on"])
        if window:
            trained += f", {shown_window(window)}"
        facts.append((f"model {entry['name']}", f"{bundle['given']}: trained on {trained}"))
    versions = report["versions"]
    facts.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    return facts


def _measures(report: Report) -> list[str]:
    """The metrics that some model has."""
    return [name for name in MEASURES if any(known(_value(entry, name)) for entry in report["models"])]


def _value(entry: Mapping[str, Any], metric: str) -> float | None:
    found = entry.get(metric)
    value: float | None = found.get("value") if isinstance(found, Mapping) else found
    return value


def _bounds(entry: Mapping[str, Any], metric: str) -> Mapping[str, float | None] | None:
    found: Mapping[str, float | None] | None = (
        entry["auc"] if metric == "auc" else pick(entry, "intervals", metric)
    )
    return found


def _with_bounds(value: float | None, bounds: Mapping[str, Any] | None, write: Any) -> Cell:
    low, high = pick(bounds, "low"), pick(bounds, "high")
    if not known(value):
        return Cell("-")
    return Cell(
        f"{write(value)} ({write(low)} to {write(high)})" if known(low) or known(high) else write(value),
        value,
    )


def _cell(value: float | None, write: Any) -> Cell:
    return Cell(write(value), value if known(value) else None)


def _ratio(value: float | None) -> str:
    return decimal(value, 3)
