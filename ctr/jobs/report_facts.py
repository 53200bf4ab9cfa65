"""What a report says besides the numbers of its models: features kept, truth of synthetic logs, machine."""

import importlib.metadata
import platform
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ctr import __version__
from ctr.config import Config
from ctr.dataset.feature_set import METHODS, FeatureSet
from ctr.dataset.store import Dataset, Part
from ctr.dataset.synthetic import read_truth
from ctr.evaluation.metrics import measure
from ctr.jobs.models import Model
from ctr.jobs.scored import Scored, weights_of

_PACKAGES = ("torch", "polars", "polars-hash", "numpy", "scikit-learn", "safetensors", "mlflow")


def feature_counts(feature_set: FeatureSet | None, dataset: Dataset) -> dict[str, Any]:
    """How many values of each field are kept, all of them where nothing was selected; costs and groups of fields."""
    if feature_set is None:
        values = dataset.vocabulary.filter(pl.col("role") == "value")
        totals = values.group_by("field", maintain_order=True).len().iter_rows()
        fields = {name: {"kept": total, "total": total} for name, total in totals}
        counts: dict[str, Any]
        counts = {"kept": values.height, "total": values.height, "ratio": 1.0, "fields": fields}
        counts["interactions"] = dict.fromkeys(METHODS)
    else:
        counts = feature_set.counts()
    costs = _costs(dataset, counts["fields"])
    shadow = feature_set.provenance.get("shadow") if feature_set else None
    return {**counts, **costs, "shadow": shadow}


def _costs(dataset: Dataset, fields: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """What the fields cost that keep anything, and how many fields each group keeps; None where nothing is stated."""
    owner = {spec.name: spec.shares or spec.name for spec in dataset.schema.fields}
    kept = {name for name, used in owner.items() if fields[used]["kept"]}
    costs = {spec.name: spec.cost for spec in dataset.schema.fields if spec.cost is not None}
    groups: dict[str, dict[str, float]] = {}
    for spec in dataset.schema.fields:
        if spec.group is not None:
            entry = groups.setdefault(spec.group, {"kept": 0, "total": 0, "cost": 0.0})
            entry["kept"] += spec.name in kept
            entry["total"] += 1
            entry["cost"] += float(spec.cost or 0.0)
    total = sum(costs.values())
    cost = {"kept": sum(cost for name, cost in costs.items() if name in kept), "total": total}
    return {"cost": cost if costs else None, "groups": groups or None}


def histories(baseline: Model, chosen: Model | None) -> dict[str, Any]:
    """Every look at valid of the baseline and of the model that is shipped."""
    return {
        "baseline": [epoch.flat() for epoch in baseline.history],
        "search": [epoch.flat() for epoch in chosen.search_history] if chosen else [],
        "retrain": [epoch.flat() for epoch in chosen.history] if chosen else [],
    }


def ceiling(baseline: Scored, chosen: Scored | None, test: Part) -> dict[str, float | None] | None:
    """The AUC of the true probabilities, which no model can be expected to exceed, and how near the models come.

    The calibrations are sums of probabilities over sums of true ones.
    """
    if test.true_probability is None:
        return None
    weights, truth = weights_of(test), test.true_probability
    best = measure(test.labels, truth, weights).auc

    def reached(scored: Scored | None) -> float | None:
        if scored is None:
            return None
        return (measure(test.labels, scored.test, weights).auc - 0.5) / (best - 0.5)

    def promised(scored: Scored | None) -> float | None:
        if scored is None:
            return None
        return float(np.average(scored.test, weights=weights) / np.average(truth, weights=weights))

    return {
        "test_auc": best,
        "baseline_share": reached(baseline),
        "selected_share": reached(chosen),
        "baseline_calibration": promised(baseline),
        "selected_calibration": promised(chosen),
    }


def planted(config: Config, dataset: Dataset, feature_set: FeatureSet | None) -> dict[str, Any] | None:
    """How the feature set meets the truth of a synthetic log."""
    if config.data.truth is None or feature_set is None:
        return None
    rate = dataset.manifest["positives"]["train"] / dataset.manifest["rows"]["train"]
    values = feature_set.features.filter(pl.col("role") == "value")
    truth = read_truth(Path(config.data.truth)).detectable(values, rate).with_columns(values["kept"])
    noise = truth.filter(pl.col("field_role") == "noise")
    detectable = truth.filter("detectable")
    return {
        "noise_values": noise.height,
        "noise_dropped": int((~noise["kept"]).sum()),
        "noise_dropped_share": float((~noise["kept"]).mean()) if noise.height else None,  # type: ignore[arg-type]
        "detectable_values": detectable.height,
        "detectable_kept": int(detectable["kept"].sum()),
        "detectable_kept_share": float(detectable["kept"].mean()) if detectable.height else None,  # type: ignore[arg-type]
    }


def gates(feature_set: FeatureSet | None) -> dict[str, Any] | None:
    """Histogram of the final gates of vocabulary values, where gates were trained."""
    if feature_set is None or feature_set.provenance.get("selector") not in ("optfs", "optfs+optinter"):
        return None
    values = feature_set.features.filter(pl.col("role") == "value")
    gate, kept = values["gate"].to_numpy(), values["kept"].to_numpy()
    # A few features have evidence by the thousand; the picture is about the rest.
    shown = np.clip(gate, None, np.quantile(gate, 0.98))
    edges = np.histogram_bin_edges(shown, bins=40)
    return {
        "edges": edges.tolist(),
        "kept": np.histogram(shown[kept], edges)[0].tolist(),
        "dropped": np.histogram(shown[~kept], edges)[0].tolist(),
    }


def test_reads(dataset: Dataset) -> dict[str, Any]:
    """Which look at these test rows this is, and every one of them, the present one last."""
    reads = [read._asdict() for read in dataset.sealed_reads()]
    return {"look": len(reads), "runs": len({read["run"] for read in reads}), "reads": reads}


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version(), "ctr": __version__}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def peak_memory() -> int:
    """Largest resident memory of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
