"""The page of an evaluation, and its verdict in plain words."""

from pathlib import Path

from ctr.report import evaluation_plots as plots
from ctr.report import evaluation_tables as tables
from ctr.report.headline import Outcome, Tile
from ctr.report.html import render, write_page
from ctr.report.units import Report, count, decimal, known, pick, share, signed

_DAYS_SHOWN = 400


def write_evaluation(report: Report, folder: Path) -> Path:
    """Write `evaluation.html` into the existing `folder`, whole or not at all; returns its path.

    Args:
        report: what is saved as `evaluation.json`.
        folder: of the evaluation.
    """
    fields = list(dict.fromkeys(part["field"] for part in report["slices"]))
    sliced = [
        (
            field,
            plots.slices_plot(report, field, number),
            tables.slices_table(
                [part for part in report["slices"] if part["field"] == field], f"slices-{number}", field
            ),
        )
        for number, field in enumerate(fields)
    ]
    page = render(
        "evaluation.html.j2",
        report=report,
        outcome=evaluation_outcome(report),
        tiles=_tiles(report),
        differences_plot=plots.differences_plot(report),
        models=tables.models_table(report),
        differences=tables.differences_table(report),
        served=tables.served_table(report),
        guardrails=tables.guardrails_table(report),
        reliability=plots.reliability_plot(report),
        days_plot=plots.days_plot(report),
        days=tables.slices_table((report["days"] or [])[:_DAYS_SHOWN], "days", "day"),
        sliced=sliced,
        unseen_plot=plots.unseen_plot(report),
        unseen=tables.unseen_table(report),
        provenance=tables.provenance(report),
    )
    return write_page(page, folder / "evaluation.html")


def evaluation_outcome(report: Report) -> Outcome:
    """Loss where a bound is missed; else where the interval of the last model's AUC difference lies."""
    if any(entry["kept"] is False for entry in report["guardrails"]):
        return "loss"
    if not report["differences"]:
        return "baseline"
    interval = report["differences"][-1]["auc"]
    low, high = interval["low"], interval["high"]
    return "gain" if low is not None and low > 0 else "loss" if high is not None and high < 0 else "even"


def evaluation_verdict(report: Report) -> str:
    """A sentence for each model against the first one, or about the only one; then the bounds."""
    rows = f"{count(report['rows'])} rows"
    if report["differences"]:
        parts = [_against(entry) for entry in report["differences"]]
        text = f"On {rows}: " + "; ".join(parts) + "."
    else:
        entry = report["models"][0]
        low, high = (decimal(entry["auc"][end]) for end in ("low", "high"))
        text = (
            f"{entry['name']}: AUC {decimal(entry['auc']['value'])} (95 % interval {low} to {high}) on {rows}"
        )
        ratio = entry["calibration_ratio"]
        text += f", {decimal(ratio, 2)} clicks promised for each that came." if known(ratio) else "."
    missed = sum(entry["kept"] is False for entry in report["guardrails"])
    if missed:
        text += f" {missed} of {len(report['guardrails'])} bounds missed."
    elif report["guardrails"]:
        text += (
            " All stated bounds are kept."
            if all(e["kept"] for e in report["guardrails"])
            else (" No stated bound is missed, but not all could be judged.")
        )
    return text


def _against(entry: Report) -> str:
    name, baseline, interval = entry["name"], entry["baseline"], entry["auc"]
    value, low, high = interval["value"], interval["low"], interval["high"]
    if value == low == high == 0.0:
        return f"{name} ranks exactly as {baseline} does"
    bounds = f"95 % interval {signed(low)} to {signed(high)}"
    if low is not None and low > 0.0:
        return f"{name} is better than {baseline}, AUC {signed(value)} ({bounds})"
    if high is not None and high < 0.0:
        return f"{name} is worse than {baseline}, AUC {signed(value)} ({bounds})"
    return f"{name} cannot be told from {baseline}, AUC {signed(value)} ({bounds})"


def _tiles(report: Report) -> list[Tile]:
    """The numbers that matter."""
    clicks = share(report["positives"] / report["rows"])
    found = [Tile("rows", count(report["rows"]), f"{clicks} of them clicks")]
    for entry in report["models"][:4]:
        low, high = (decimal(entry["auc"][end]) for end in ("low", "high"))
        found.append(Tile(f"AUC, {entry['name']}", decimal(entry["auc"]["value"]), f"{low} to {high} (95 %)"))
    for entry in report["differences"][:2]:
        low, high = (signed(entry["auc"][end]) for end in ("low", "high"))
        found.append(
            Tile(
                f"{entry['name']} minus {entry['baseline']}",
                signed(entry["auc"]["value"]),
                f"{low} to {high}",
            )
        )
    if len(report["models"]) == 1:
        entry = report["models"][0]
        found.append(Tile("log loss", decimal(entry["logloss"]), "in nats"))
        found.append(Tile("promised / observed", decimal(entry["calibration_ratio"], 3), "1 is right"))
        if known(pick(entry, "gauc")):
            found.append(Tile("gAUC", decimal(entry["gauc"]), f"by {report['method']['group_by']}"))
    return found
