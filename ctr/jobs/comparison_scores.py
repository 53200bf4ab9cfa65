"""Test rows with the probability of every model of a comparison: read once, and kept."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ctr.config import Config
from ctr.dataset.store import Dataset
from ctr.jobs.cells import Cell
from ctr.jobs.cluster_keys import cluster_numbers
from ctr.jobs.entries import Rows
from ctr.jobs.scored import weights_of
from ctr.jobs.sealed_cell import trained
from ctr.jobs.verdict import score
from ctr.training.machine import pick_device


def sealed_scores(
    path: Path, run: str, digest: str, cells: Sequence[Cell], dataset: Dataset, *, force: bool
) -> pl.DataFrame:
    """Columns digest, row, label, weight where rows have one, and `model_N` for each model in the order of the cells.

    Test is read and models run, unless `path` holds what that gave before.

    Args:
        run: the name of who reads. digest: of the comparison. force: read again.
    """
    if path.is_file() and not force:
        kept = pl.read_parquet(path)
        if kept["digest"][0] == digest:
            return kept
    device = pick_device(cells[0].config.training.device)
    models = [model for cell in cells for model in trained(cell, dataset, device)]
    scored, test = score(models, dataset, device, run=f"{run}-{digest}", purpose="comparison")
    columns: dict[str, Any] = {
        "digest": np.full(len(test), digest),
        "row": np.asarray(test.rows),
        "label": test.labels,
    }
    weights = weights_of(test)
    if weights is not None:
        columns["weight"] = weights
    for number, each in enumerate(scored):
        columns[f"model_{number}"] = each.test
    found = pl.DataFrame(columns)
    path.parent.mkdir(exist_ok=True)
    scratch = path.with_name(f".{path.name}")
    found.write_parquet(scratch)
    scratch.replace(path)
    return found


def scored_rows(
    scores: Sequence[pl.DataFrame], dataset: Dataset, run: Config, cluster: str | None
) -> list[Rows]:
    """The test rows of each table; a cluster has the same number in all of them."""
    clusters = None
    if cluster is not None:
        numbers = np.concatenate([table["row"].to_numpy() for table in scores])
        clusters = cluster_numbers(dataset.schema, run.data.input, cluster, numbers)
    found, first = list[Rows](), 0
    for table in scores:
        weights = table["weight"].to_numpy() if "weight" in table.columns else None
        own = None if clusters is None else clusters[first : first + table.height]
        found.append(Rows(table["label"].to_numpy(), weights, own))
        first += table.height
    return found
