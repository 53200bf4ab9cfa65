"""What a report says about the log itself: rows left out, weights, sampling, joins, bias fields, the model shipped."""

from collections.abc import Mapping
from typing import Any

from ctr.report.looks import looks_sentence
from ctr.report.units import Report, count, decimal, known, pick, share

_LEFT_OUT = {
    "filtered": "filtered by where",
    "set_aside": "set aside as broken",
    "gap": "in the gap between parts",
    "immature": "too young for their label",
    "after_as_of": "after the as-of date",
}


def log_facts(report: Report) -> list[tuple[str, str]]:
    """Name and text of all that applies; empty for a plain log of which every row was used."""
    log = pick(report, "dataset") or {}
    facts = {
        "as of": _text(log.get("as_of")),
        "train, valid and test cover": _windows(log.get("window")),
        "rows left out": ", ".join(
            f"{count(log[key])} {words}" for key, words in _LEFT_OUT.items() if log.get(key)
        ),
        "weights": _weights(log.get("weights")),
        "sampling": _sampling(log.get("negative_keep_rate")),
        "side tables": "; ".join(join_fact(join) for join in log.get("joins") or []),
        "lists cut off": ", ".join(
            f"{name} in {count(rows)} rows" for name, rows in (log.get("truncated") or {}).items()
        ),
        "personal data": _personal(log.get("personal")),
        "bias fields": ", ".join(
            f"{name} (at scoring always {value})" for name, value in (pick(report, "bias") or {}).items()
        ),
        "a dropped value reads": _dropped_reads(pick(report, "dropped_reads")),
        "model in the bundle": _model(pick(report, "model")),
        "test rows": looks_sentence(report),
    }
    return [(name, text) for name, text in facts.items() if text]


def join_fact(join: Mapping[str, Any]) -> str:
    """One side table in words: its key, whether it is joined in time, and the rows without a partner."""
    time = join.get("time")
    when = f"latest row before each impression by {time}" if time else "not point in time"
    parts = [when, f"{share(join['unmatched'])} of rows without partner"]
    if join.get("too_old"):
        parts.append(f"{share(join['too_old'])} with a partner that is too old")
    return f"{join['input']} on {join['on']}: {', '.join(parts)}"


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _windows(window: Mapping[str, Any] | None) -> str:
    return "; ".join(f"{part} {low} to {high}" for part, (low, high) in (window or {}).items())


def _weights(weights: Mapping[str, Any] | None) -> str:
    if not weights:
        return ""
    text = f"from {weights['min']:g} to {weights['max']:g}, on average {weights['mean']:g}"
    zero = weights.get("zero_rows")
    return text + (f"; {count(zero)} rows weigh nothing" if zero else "") + "; intervals by bootstrap"


def _sampling(rate: float | None) -> str:
    if rate is None:
        return ""
    return f"{share(rate)} of the rows without click were kept; probabilities are corrected for it, once, by the bundle"


def _personal(personal: Mapping[str, Any] | None) -> str:
    if not personal:
        return ""
    return f"{', '.join(personal['fields'])}: replaced by keyed hashes on reading (key {personal['key']})"


def _dropped_reads(found: Mapping[str, Any] | None) -> str:
    if not found:
        return ""
    used, aucs = found["used"], found["valid_auc"]
    rows = {"zero": "a row of zeros", "unknown": "its field's unknown"}
    other = "unknown" if used == "zero" else "zero"
    if not known(aucs.get(other)):
        return rows[used]
    better = "the better" if found["better"] == used else "the worse"
    return (
        f"{rows[used]}, {better} on valid (AUC {decimal(aucs[used])}; {rows[other]}: {decimal(aucs[other])})"
    )


def _model(model: Mapping[str, Any] | None) -> str:
    if not model or model["refit"] == "none":
        return ""
    window = model["shipped"]["window"]
    rows = " + ".join(model["shipped"]["trained_on"])
    when = f", {window[0]} to {window[1]}" if window else ""
    return (
        f"not the one that was evaluated: refitted on {rows}{when} for the same {count(model['shipped']['steps'])} "
        "steps; no metrics of its own, the ones here are those of the model trained on train alone"
    )
