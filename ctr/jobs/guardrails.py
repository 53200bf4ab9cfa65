"""Which bounds an evaluation keeps: of all rows, and of slices."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ctr.errors import ConfigError, nearest
from ctr.jobs.evaluation_settings import DAY, Guardrail

Entry = Mapping[str, Any]


def judged(guardrails: Sequence[Guardrail], report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each guardrail found, one entry for each model and slice that it is about.

    `kept` is true or false; null where it could not be told, as `why` says.

    Args:
        guardrails: the bounds.
        report: with `models`, `differences`, `slices` and `days` as in evaluation.json.

    Raises:
        ConfigError: a guardrail names a model that was not evaluated.
    """
    return [entry for rail in guardrails for entry in _judged(rail, report)]


def missed_text(entry: Entry) -> str:
    """One line about a bound that was missed."""
    where = f" where {entry['slice']} is {entry['value']}" if entry["slice"] else ""
    return (
        f'"{entry["model"]}"{where}: {entry["metric"]} {_shown(entry)}, {entry["bound"]} {entry["limit"]:g}'
    )


def _shown(entry: Entry) -> str:
    change = entry["bound"] in ("max_drop", "max_rise")
    found = f"changes by {entry['found']:+.4f}" if change else f"is {entry['found']:.4f}"
    if entry["judged_by"] == "value":
        return found
    low, high = (("%+.4f" if change else "%.4f") % entry[end] for end in ("low", "high"))
    return f"{found} ({low} to {high})"


def _judged(rail: Guardrail, report: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    names = [entry["name"] for entry in report["models"]]
    if rail.model is not None and rail.model not in names:
        raise ConfigError(f'guardrail: no model is named "{rail.model}"{nearest(rail.model, names)}')
    chosen = [rail.model] if rail.model is not None else names[1:] or names
    parts = _parts(rail, report)
    for bound in ("min", "max", "max_drop", "max_rise"):
        limit = getattr(rail, bound)
        if limit is None:
            continue
        for model in chosen:
            stated = {
                "metric": rail.metric,
                "bound": bound,
                "limit": limit,
                "judged_by": rail.judged_by,
                "slice": rail.slice,
                "model": model,
            }
            nothing = {"value": rail.value, "rows": 0, "found": None, "low": None, "high": None, "kept": None}
            if not parts:
                yield {**stated, **nothing, "why": "the log has no such rows"}
            for part in parts:
                yield {**stated, "value": part.get("value"), **_outcome(rail, bound, limit, model, part)}


def _parts(rail: Guardrail, report: Mapping[str, Any]) -> list[Entry]:
    """What the bound is about: everything, or slices."""
    if rail.slice is None:
        return [report]
    sliced = report["days"] if rail.slice == DAY else report["slices"]
    of_field = [part for part in sliced or [] if part["field"] == rail.slice]
    if rail.value is None:
        return of_field
    return [part for part in of_field if part["value"] == str(rail.value)]


def _outcome(rail: Guardrail, bound: str, limit: float, model: str, part: Entry) -> dict[str, Any]:
    change = bound in ("max_drop", "max_rise")
    among = part["differences"] if change else part["models"]
    found = next((entry for entry in among if entry["name"] == model), None)
    if found is None:  # the first model does not differ from itself
        return {"rows": part["rows"], "found": 0.0, "low": 0.0, "high": 0.0, "kept": True, "why": None}
    measure = found[rail.metric]
    bounds = measure if isinstance(measure, Mapping) else found["intervals"].get(rail.metric) or {}
    value = measure["value"] if isinstance(measure, Mapping) else measure
    low, high = bounds.get("low"), bounds.get("high")
    result = {"rows": part["rows"], "found": value, "low": low, "high": high, "kept": None}
    if part["rows"] < rail.min_rows:
        return {**result, "why": f"fewer than {rail.min_rows:,} rows"}
    if value is None:
        return {**result, "why": f"{rail.metric} is not defined: the rows hold one class, or no groups"}
    below = bound in ("max", "max_rise")  # or else it must be above
    judged = value if rail.judged_by == "value" else high if below else low
    if judged is None:
        return {**result, "kept": False, "why": "its interval has no end"}
    edge = -limit if bound == "max_drop" else limit
    return {**result, "kept": bool(judged <= edge if below else judged >= edge), "why": None}
