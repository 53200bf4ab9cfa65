"""The final evaluation of a job: the one place that reads the test split, and the report that it writes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch

from ctr.config import Config
from ctr.dataset.store import Dataset, Part
from ctr.jobs.collisions import collisions
from ctr.jobs.models import Model
from ctr.jobs.pair_facts import interactions
from ctr.jobs.report_facts import (
    ceiling,
    feature_counts,
    gates,
    histories,
    peak_memory,
    planted,
    test_reads,
    versions,
)
from ctr.jobs.scored import Scored, difference, dropped_reads, numbers, point

_LEFT_OUT = ("filtered", "set_aside", "gap", "immature", "after_as_of")  # rows, by why they are in no part


def score(
    models: Sequence[Model],
    dataset: Dataset,
    device: torch.device,
    *,
    run: str,
    purpose: str = "final evaluation",
) -> tuple[list[Scored], Part]:
    """Score all models of a job, when nothing is left to choose. The only reader of the test split.

    Args:
        run: the name of the job, with its digest, and `purpose`: what the dataset notes of this read.
    """
    valid, test = dataset.part("valid"), dataset.sealed_test(run, purpose)
    biased = any(info.serve is not None for info in dataset.fields)

    def scored(model: Model) -> Scored:
        served = model.predict(test, device, serving=True) if biased else None
        return Scored(model, model.predict(valid, device), model.predict(test, device), served)

    return [scored(model) for model in models], test


def scores_table(
    baseline: Scored, chosen: Scored | None, test: Part, row_ids: pl.Series | None = None
) -> pl.DataFrame:
    """Test rows: number of the row in the input, label, probability by keep-all and by the chosen set.

    Where they apply also: weight, the schema's row id, and the probabilities with bias fields as at scoring.
    """
    none = pl.Series([None] * len(test), dtype=pl.Float64)
    columns = {
        "row": np.asarray(test.rows),
        "label": test.labels,
        "baseline": baseline.test,
        "selected": chosen.test if chosen else none,
    }
    if test.weights is not None:
        columns["weight"] = test.weights
    if row_ids is not None:
        columns["row_id"] = row_ids
    if baseline.served is not None:
        columns["baseline_at_serving"] = baseline.served
        columns["selected_at_serving"] = chosen.served if chosen else none
    return pl.DataFrame(columns)


def build_report(
    config: Config,
    dataset: Dataset,
    scored: Sequence[Scored],
    chosen: Scored | None,
    test: Part,
    *,
    seconds: Mapping[str, float],
    run: Path,
    command: str,
    other_reading: Scored | None = None,
) -> dict[str, Any]:
    """Everything that `report.json` holds, but bundle, model and verdict (DESIGN section 5).

    Args:
        scored: the baseline first.
        chosen: the one that is shipped; None where nothing was selected.
        other_reading: the same set with dropped values reading the other way, on valid.
    """
    specs = {spec.name: spec for spec in dataset.schema.fields}
    baseline = scored[0]
    valid = dataset.part("valid")
    points = [point(other, baseline, valid, test, chosen=other is chosen) for other in scored[1:]]
    feature_set = chosen.model.feature_set if chosen else None
    return {
        "name": config.name,
        "run": run.name,
        "command": command,
        "dataset": {
            "name": dataset.name,
            "digest": dataset.digest,
            "rows": {part: dataset.manifest["rows"][part] for part in ("train", "valid", "test")},
            **{key: dataset.manifest["rows"][key] for key in _LEFT_OUT},
            "fields": len(dataset.fields),
            "features": dataset.features,
            "window": dataset.manifest.get("window"),
            "as_of": dataset.manifest["as_of"],
            "weights": dataset.manifest["weights"],
            "negative_keep_rate": dataset.schema.negative_keep_rate,
            "joins": dataset.manifest["joins"],
            "test_reads": test_reads(dataset),
            "personal": dataset.manifest.get("personal"),
            "truncated": {
                entry["name"]: entry["truncated"]
                for entry in dataset.manifest["fields"]
                if entry["truncated"]
            },
        },
        "baseline": numbers(baseline, valid, test),
        "selected": numbers(chosen, valid, test)
        | {"cross_rows": chosen.model.cross_rows, "cross_index_bytes": chosen.model.cross_index_bytes}
        if chosen
        else None,
        "difference": {"test_auc": difference(chosen, baseline, test)} if chosen else None,
        "feature_set": feature_counts(feature_set, dataset),
        "bundle": {"path": None, "bytes": None},
        "rounding": None,
        "seconds": dict(seconds),
        "train_rows_per_second": float(np.mean([epoch.rows_per_second for epoch in baseline.model.history])),
        "peak_rss_bytes": peak_memory(),
        "seed": config.seed,
        "backbone": config.backbone.kind,
        "selector": config.selector.kind,
        "embedding": config.embedding.kind,
        "versions": versions(),
        "curve": points,
        "history": histories(baseline.model, chosen.model if chosen else None),
        "ceiling": ceiling(baseline, chosen, test),
        "planted": planted(config, dataset, feature_set),
        "gates": gates(feature_set),
        "interactions": interactions(chosen.model, valid) if chosen else None,
        "collisions": {
            "baseline": collisions(baseline.model),
            "selected": collisions(chosen.model) if chosen else None,
        },
        "dropped_reads": dropped_reads(chosen, other_reading, dataset),
        "bias": {info.name: specs[info.name].serve_value for info in dataset.fields if info.serve} or None,
    }


def model_entry(
    refit: Literal["none", "valid", "all"], model: Model, dataset: Dataset, report: Mapping[str, Any]
) -> dict[str, Any]:
    """Which model was evaluated and which one is shipped, each with the rows it learned from.

    Metrics belong to the model that they were measured of: a refitted one has none.
    """
    numbers = report["selected"] or report["baseline"]
    parts = {"none": ["train"], "valid": ["train", "valid"], "all": ["train", "valid", "test"]}[refit]

    def entry(names: Sequence[str], metrics: Mapping[str, Any] | None) -> dict[str, Any]:
        window = dataset.manifest.get("window")
        ends = [end for name in names for end in window[name]] if window else []
        return {
            "trained_on": list(names),
            "steps": model.best_step,
            "window": [min(ends), max(ends)] if ends else None,  # parts given as files come in any order
            "metrics": metrics,
        }

    metrics = {key: numbers[key] for key in ("valid", "test")}
    return {
        "refit": refit,
        "evaluated": entry(["train"], metrics),
        "shipped": entry(parts, metrics if refit == "none" else None),
    }
