"""A selector held against the best other one, at every size of several comparisons.

    python -m pipelines.compare pipelines/comparisons/ml100k.toml --out A      (and other logs: B, C)
    python -m pipelines.benchmarks.best_referee A B C [--selector trial] [--out FILE]

For each log and size the best other selector is the one with the best mean AUC on valid; the paired difference to it is
that on test, over rows and seeds. Means over sizes are taken row by row and seed by seed, as sizes share both; means
over logs add half-widths in squares, as logs share nothing.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ctr.evaluation.influence import Influence, auc_influence
from ctr.evaluation.intervals import Interval
from ctr.evaluation.paired_seeds import Difference, paired_difference


class Cell(NamedTuple):
    """A size of a log: the best other selector, and the difference of each seed's AUC on test, row by row."""

    size: float
    best: str
    own: list[Influence]
    other: list[Influence]

    @property
    def difference(self) -> Difference:
        """Of the selector to the best other one."""
        return paired_difference(self.own, self.other)


def main() -> None:
    """Print a table of each log, and the mean over all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="of finished comparisons")
    parser.add_argument("--selector", default="trial")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    means = []
    for folder in arguments.folders:
        name = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))["name"]
        found = cells(folder, arguments.selector)
        print(f"{name}: test AUC of {arguments.selector} less that of the best other selector on valid")
        for cell in found:
            print(f"  {cell.size:>5.0%}  {cell.best:<24} {_shown(cell.difference.interval())}")
        means.append(over_sizes(found).interval())
        print(f"   mean  {'':<24} {_shown(means[-1])}")
        results[name] = {
            "mean": means[-1]._asdict(),
            **{
                f"{cell.size:g}": {"best": cell.best, **cell.difference.interval()._asdict()}
                for cell in found
            },
        }
    pooled = over_logs(means)
    print(f"all logs: {_shown(pooled)}")
    results["all"] = pooled._asdict()
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def cells(folder: Path, selector: str) -> list[Cell]:
    """The sizes of a comparison, from the largest."""
    models = pl.read_parquet(folder / "comparison.parquet").with_row_index("model")
    scores = pl.read_parquet(folder / "scores.parquet")
    models = models.filter((pl.col("role") == "selector") & pl.col("size").is_not_null())
    found = []
    for size in sorted(models["size"].unique(), reverse=True):
        here = models.filter(pl.col("size") == size)
        others = here.filter(pl.col("label") != selector).group_by("label").agg(pl.col("valid_auc").mean())
        best = others.sort("valid_auc", "label", descending=[True, False])["label"][0]
        pair = [_influences(here.filter(pl.col("label") == label), scores) for label in (selector, best)]
        found.append(Cell(float(size), best, *pair))
    return found


def over_sizes(found: Sequence[Cell]) -> Difference:
    """The mean over the sizes of a log."""
    own, other = (
        [_mean([getattr(cell, side)[seed] for cell in found]) for seed in range(len(found[0].own))]
        for side in ("own", "other")
    )
    return paired_difference(own, other)


def over_logs(means: Sequence[Interval]) -> Interval:
    """The mean of independent differences."""
    value = float(np.mean([each.value for each in means]))
    half = float(np.sqrt(sum(((each.high - each.low) / 2.0) ** 2 for each in means))) / len(means)
    return Interval(value, value - half, value + half)


def _influences(models: pl.DataFrame, scores: pl.DataFrame) -> list[Influence]:
    """AUC on test of each seed, row by row."""
    labels = scores["label"].to_numpy()
    numbers = models.sort("seed")["model"]
    return [auc_influence(labels, scores[f"model_{number}"].to_numpy()) for number in numbers]


def _mean(found: Sequence[Influence]) -> Influence:
    rows = np.mean([each.rows for each in found], axis=0)
    return Influence(float(np.mean([each.value for each in found])), rows)


def _shown(found: Interval) -> str:
    return f"{found.value:+.4f} ({found.low:+.4f} to {found.high:+.4f})"


if __name__ == "__main__":
    main()
