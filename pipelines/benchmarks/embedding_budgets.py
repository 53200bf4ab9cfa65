"""AUC against the bytes of the tables: collision-free, separate and shared tables at equal budgets."""

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console

from ctr.report.canvas import INK, SERIES, few_ticks, png
from ctr.report.units import size
from pipelines.benchmarks.embedding_runs import Log, Outcome, Settings, Trial, run_all, splits
from pipelines.benchmarks.spreads import mean_and_spread, paired_gain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = {"table": "collision-free", "hashed": "separate", "unified": "shared"}
_COLORS = {"table": INK, "hashed": SERIES[1], "unified": SERIES[0]}


def measure(
    settings: Settings, names: list[str] | None, workers: int, console: Console
) -> list[dict[str, Any]]:
    """One entry for each log, backbone, kind and budget, with the AUC of every seed."""
    logs = [log for log in settings.logs if names is None or log.settings.name in names]
    trials = [trial for log in logs for trial in _trials(log, settings)]
    cells: dict[tuple[str, str, str, float | None], list[Outcome]] = defaultdict(list)
    for outcome in run_all(trials, workers, console):
        trial = outcome.trial
        cells[trial.log.settings.name, trial.backbone.kind, trial.kind, trial.budget].append(outcome)
    return [_entry(*key, outcomes) for key, outcomes in cells.items()]


def _trials(log: Log, settings: Settings) -> list[Trial]:
    files, found = splits(log, settings.seeds), []
    for backbone in settings.backbones:
        for seed, schema in enumerate(files):
            found.append(Trial(log, backbone, "table", None, seed, schema, tuple(settings.set)))
            for budget in settings.budgets:
                found += [
                    Trial(log, backbone, kind, budget, seed, schema, tuple(settings.set))
                    for kind in ("hashed", "unified")
                ]
    return found


def _entry(
    log: str, backbone: str, kind: str, budget: float | None, outcomes: list[Outcome]
) -> dict[str, Any]:
    def mean(name: str) -> float | None:
        values = [getattr(outcome, name) for outcome in outcomes]
        return float(np.mean(values)) if all(value is not None for value in values) else None

    return {
        "log": log,
        "backbone": backbone,
        "tables": _NAMES[kind],
        "budget": budget,
        "bytes": mean("table_bytes"),
        "test_auc": [outcome.auc for outcome in outcomes if outcome.auc is not None],
        "load": mean("load"),
        "squared_norm": mean("squared_norm"),
        "angle": mean("angle"),
        "rows_per_second": mean("rows_per_second"),
        "refused": next((outcome.refused for outcome in outcomes if outcome.refused), None),
    }


def markdown(results: list[dict[str, Any]]) -> str:
    """A table for each log and backbone."""
    lines = []
    for log, backbone in dict.fromkeys((entry["log"], entry["backbone"]) for entry in results):
        here = [entry for entry in results if (entry["log"], entry["backbone"]) == (log, backbone)]
        free = next(entry for entry in here if entry["budget"] is None)
        lines += [
            f"**{log}, {backbone}**: collision-free {_aucs(free)}, {size(free['bytes'])}",
            "",
            "| budget | bytes | separate | shared | shared - separate | shared - collision-free |",
            "|---|---|---|---|---|---|",
        ]
        for budget in sorted({entry["budget"] for entry in here if entry["budget"]}, reverse=True):
            apart, shared = (
                next(entry for entry in here if entry["budget"] == budget and entry["tables"] == name)
                for name in ("separate", "shared")
            )
            cells = [
                f"{budget:g}",
                size(shared["bytes"]),
                _aucs(apart),
                _aucs(shared),
            ]
            cells += [_gain(shared, apart), _gain(shared, free)]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _aucs(entry: dict[str, Any]) -> str:
    return mean_and_spread(entry["test_auc"]) if entry["test_auc"] else "does not fit"


def _gain(one: dict[str, Any], other: dict[str, Any]) -> str:
    both = one["test_auc"] and other["test_auc"]
    return paired_gain(one["test_auc"], other["test_auc"]) if both else "-"


def draw(results: list[dict[str, Any]], folder: Path) -> None:
    """A picture for each log: AUC against bytes, a panel for each backbone; bars are one standard deviation."""
    for log in dict.fromkeys(entry["log"] for entry in results):
        here = [entry for entry in results if entry["log"] == log and entry["test_auc"]]
        png(partial(_draw, log=log, entries=here), 860, 340, folder / f"budgets-{log}.png")


def _draw(figure: "Figure", narrow: bool, *, log: str, entries: list[dict[str, Any]]) -> None:
    backbones = list(dict.fromkeys(entry["backbone"] for entry in entries))
    panels = figure.subplots(1, len(backbones), squeeze=False, sharey=True)[0]
    for axes, backbone in zip(panels, backbones, strict=True):
        for kind, name in _NAMES.items():
            line = [entry for entry in entries if (entry["backbone"], entry["tables"]) == (backbone, name)]
            line.sort(key=lambda entry: entry["bytes"])
            means = [float(np.mean(entry["test_auc"])) for entry in line]
            spreads = [
                float(np.std(entry["test_auc"], ddof=min(1, len(entry["test_auc"]) - 1))) for entry in line
            ]
            axes.errorbar(
                [entry["bytes"] for entry in line],
                means,
                spreads,
                color=_COLORS[kind],
                marker="o",
                markersize=4,
                capsize=3,
                label=name,
            )
            if kind == "table" and means:
                axes.axhline(means[0], color=_COLORS[kind], linewidth=0.8, linestyle=(0, (4, 3)))
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: size(value))
        axes.yaxis.set_major_locator(few_ticks())
        axes.grid(axis="y")
        axes.set(title=f"{log}, {backbone}: test AUC", xlabel="bytes of embedding tables")
    panels[-1].legend(frameon=False, loc="lower right")
