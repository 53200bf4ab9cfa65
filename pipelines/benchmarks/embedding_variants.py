"""Compositions and numbers of lookups at one budget, each in separate tables and in a shared one."""

from collections import defaultdict
from typing import Any

from rich.console import Console

from pipelines.benchmarks.embedding_runs import Outcome, Settings, Trial, run_all, splits
from pipelines.benchmarks.spreads import mean_and_spread, paired_gain


def measure(
    settings: Settings, names: list[str] | None, workers: int, console: Console
) -> list[dict[str, Any]]:
    """One entry for each log and variant, with the AUC of every seed."""
    logs = [log for log in settings.logs if names is None or log.settings.name in names]
    trials, labels = [], []
    for log in logs:
        for seed, schema in enumerate(splits(log, settings.seeds)):
            for name, changes in settings.variants.changes.items():
                own = (*settings.set, *changes)
                for kind in ("hashed", "unified"):
                    budget = settings.variants.budget
                    trials.append(Trial(log, settings.backbones[0], kind, budget, seed, schema, own))
                    labels.append((log.settings.name, name))
    cells: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for label, outcome in zip(labels, run_all(trials, workers, console), strict=True):
        cells[label].append(outcome)
    return [
        {
            "log": log,
            "variant": name,
            "bytes": outcomes[0].table_bytes,
            **{
                words: [each.auc for each in outcomes if each.trial.kind == kind and each.auc is not None]
                for kind, words in (("hashed", "separate"), ("unified", "shared"))
            },
        }
        for (log, name), outcomes in cells.items()
    ]


def markdown(results: list[dict[str, Any]]) -> str:
    """A table for each log."""
    lines = []
    for log in dict.fromkeys(entry["log"] for entry in results):
        lines += [f"**{log}**", "", "| rows | separate | shared | shared - separate |", "|---|---|---|---|"]
        for entry in (entry for entry in results if entry["log"] == log):
            apart, shared = entry["separate"], entry["shared"]
            cells = [mean_and_spread(values) if values else "does not fit" for values in (apart, shared)]
            gain = paired_gain(shared, apart) if apart and shared else "-"
            lines.append(f"| {entry['variant']} | {cells[0]} | {cells[1]} | {gain} |")
        lines.append("")
    return "\n".join(lines)
