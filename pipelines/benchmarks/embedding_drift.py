"""Train on the early rows of a log, score the later ones: a vocabulary with unknown against hashes without one."""

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from rich.console import Console

from ctr.dataset.schema import Schema
from ctr.dataset.split_spec import TimeSplit
from ctr.dataset.store import UNKNOWN, Dataset
from ctr.errors import ConfigError
from ctr.evaluation.metrics import measure as measured
from ctr.report.canvas import INK, SERIES, few_ticks, png
from pipelines.benchmarks.embedding_runs import Drift, Outcome, Settings, Trial, dataset_of, run_all, splits
from pipelines.benchmarks.spreads import mean_and_spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def measure(
    settings: Settings, names: list[str] | None, workers: int, console: Console
) -> list[dict[str, Any]]:
    """One entry for each log and embedding, with the AUC of every seed in every bucket of later rows."""
    drift, backbone = settings.drift, settings.backbones[0]
    logs = [log for log in drift.logs if names is None or log.settings.name in names]
    trials = []
    for log in logs:
        for seed, schema in enumerate(splits(log, settings.seeds, partial(_late_test, drift))):
            free = Trial(log, backbone, "table", None, seed, schema, tuple(settings.set))
            trials.append(free)
            for budget in drift.budgets:
                for encoding in ("vocabulary", "hashed"):
                    trials.append(
                        Trial(log, backbone, "unified", budget, seed, schema, tuple(settings.set), encoding)
                    )
    cells: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in run_all(trials, workers, console):
        cells[outcome.trial.log.settings.name, _name(outcome.trial)].append(outcome)
    return [_entry(log, name, outcomes, drift.buckets) for (log, name), outcomes in cells.items()]


def _late_test(drift: Drift, schema: Schema) -> Schema:
    if not isinstance(schema.split, TimeSplit):
        raise ConfigError(f'drift: the log "{schema.name}" is not split by time, found "{schema.split.by}"')
    split = schema.split.model_copy(update={"valid": drift.valid, "test": drift.test})
    return schema.model_copy(update={"split": split})


def _name(trial: Trial) -> str:
    if trial.budget is None:
        return "collision-free, unknown"
    values = "unknown" if trial.encoding == "vocabulary" else "hashed"
    return f"shared at {trial.budget:g}, {values}"


def _entry(log: str, name: str, outcomes: list[Outcome], buckets: int) -> dict[str, Any]:
    dataset = dataset_of(outcomes[0].trial)
    test = dataset.sealed_test()  # as the final evaluation of these runs, when all of them are done
    assert test.times is not None
    order = np.argsort(test.times, kind="stable")
    parts = np.array_split(order, buckets)
    aucs = []
    for outcome in outcomes:
        if outcome.run is None:
            continue
        scores = pl.read_parquet(outcome.run / "scores" / "test.parquet")
        labels, probabilities = scores["label"].to_numpy(), scores["baseline"].to_numpy()
        aucs.append([measured(labels[part], probabilities[part]).auc for part in parts])
    unseen = None
    if dataset.hashed:
        strange = _unseen(dataset, np.asarray(test.ids))
        unseen = [float(strange[part].mean()) for part in parts]
    return {"log": log, "tables": name, "bytes": outcomes[0].table_bytes, "test_auc": aucs, "unseen": unseen}


def _unseen(dataset: Dataset, ids: Any) -> Any:
    """(B, S) whether each hashed value is one that no train row holds."""
    singles = np.array([info.offset + UNKNOWN for info in dataset.fields if info.kind != "list"])
    return dataset.numbered(np.ascontiguousarray(ids).view(np.uint64), singles) == singles


def markdown(results: list[dict[str, Any]]) -> str:
    """A table for each log: AUC per bucket, oldest rows first."""
    lines = []
    for log in dict.fromkeys(entry["log"] for entry in results):
        here = [entry for entry in results if entry["log"] == log]
        buckets = len(here[0]["test_auc"][0])
        lines += [
            f"**{log}**",
            "",
            f"| embedding | {' | '.join(f'{100 * (n + 1) // buckets} %' for n in range(buckets))} |",
            "|---" * (buckets + 1) + "|",
        ]
        unseen = next(entry["unseen"] for entry in here if entry["unseen"])
        lines.append(f"| values that train never saw | {' | '.join(f'{part:.1%}' for part in unseen)} |")
        for entry in here:
            cells = [mean_and_spread(aucs) for aucs in zip(*entry["test_auc"], strict=True)]
            lines.append(f"| {entry['tables']} | {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def draw(results: list[dict[str, Any]], folder: Path) -> None:
    """AUC in each bucket, a panel for each log."""
    png(lambda figure, _: _draw(figure, results), 980, 340, folder / "drift.png")


def _draw(figure: "Figure", results: list[dict[str, Any]]) -> None:
    logs = list(dict.fromkeys(entry["log"] for entry in results))
    panels = figure.subplots(1, len(logs), squeeze=False)[0]
    for axes, log in zip(panels, logs, strict=True):
        here = [entry for entry in results if entry["log"] == log]
        for entry, color in zip(here, (INK, *SERIES), strict=False):
            aucs = np.array(entry["test_auc"])
            places = range(1, aucs.shape[1] + 1)
            axes.plot(places, aucs.mean(0), color=color, marker="o", markersize=3.5, label=entry["tables"])
        axes.yaxis.set_major_locator(few_ticks())
        axes.set_xticks(list(places))
        axes.grid(axis="y")
        axes.set(title=f"{log}: test AUC", xlabel="later rows, in parts of equal size")
    panels[0].legend(frameon=False, fontsize=9)
