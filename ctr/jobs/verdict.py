"""The final evaluation of a job: the one place that reads the test split, and the report that it writes."""

import importlib.metadata
import platform
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

from ctr import __version__
from ctr.config import Config
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.store import Dataset, Part
from ctr.dataset.synthetic import read_truth
from ctr.evaluation.intervals import auc_difference
from ctr.evaluation.metrics import measure
from ctr.jobs.models import Model

_FLOAT32 = 4  # bytes
_PACKAGES = ("torch", "polars", "polars-hash", "numpy", "scikit-learn", "safetensors", "mlflow")
Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """A model's probabilities on valid and test, row by row in the order of the input."""

    model: Model
    valid: Probabilities
    test: Probabilities


def score(models: Sequence[Model], dataset: Dataset, device: torch.device) -> tuple[list[Scored], Part]:
    """Score all models of a job, when nothing is left to choose. The only reader of the test split."""
    valid, test = dataset.part("valid"), dataset.sealed_test()
    return [
        Scored(model, model.predict(valid, device), model.predict(test, device)) for model in models
    ], test


def scores_table(baseline: Scored, chosen: Scored | None, test: Part) -> pl.DataFrame:
    """Test rows: number of the row in the input, label, probability by keep-all and by the chosen set."""
    return pl.DataFrame(
        {
            "row": np.asarray(test.rows),
            "label": test.labels,
            "baseline": baseline.test,
            "selected": chosen.test if chosen else pl.Series([None] * len(test), dtype=pl.Float64),
        }
    )


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
) -> dict[str, Any]:
    """Everything that `report.json` holds, but bundle and verdict (DESIGN section 5).

    Args:
        scored: the baseline first.
        chosen: the one that is shipped; None where nothing was selected.
    """
    baseline = scored[0]
    valid = dataset.part("valid")
    points = [_point(other, baseline, valid, test, chosen=other is chosen) for other in scored[1:]]
    feature_set = chosen.model.feature_set if chosen else None
    return {
        "name": config.name,
        "run": run.name,
        "command": command,
        "dataset": {
            "name": dataset.name,
            "digest": dataset.digest,
            "rows": {part: dataset.manifest["rows"][part] for part in ("train", "valid", "test")},
            "set_aside": dataset.manifest["rows"]["set_aside"],
            "fields": len(dataset.fields),
            "features": dataset.features,
            "window": dataset.manifest.get("window"),
        },
        "baseline": _numbers(baseline, valid, test),
        "selected": _numbers(chosen, valid, test) | {"cross_rows": None} if chosen else None,
        "difference": {"test_auc": _difference(chosen, baseline, test)} if chosen else None,
        "feature_set": _feature_counts(feature_set, dataset),
        "bundle": {"path": None, "bytes": None},
        "seconds": dict(seconds),
        "train_rows_per_second": float(np.mean([epoch.rows_per_second for epoch in baseline.model.history])),
        "peak_rss_bytes": peak_memory(),
        "seed": config.seed,
        "backbone": config.backbone.kind,
        "selector": config.selector.kind,
        "embedding": config.embedding.kind,
        "versions": versions(),
        "curve": points,
        "history": _histories(baseline.model, chosen.model if chosen else None),
        "ceiling": _ceiling(baseline, chosen, test),
        "planted": _planted(config, dataset, feature_set),
        "gates": _gates(feature_set),
    }


def _numbers(scored: Scored, valid: Part, test: Part) -> dict[str, Any]:
    model = scored.model
    on_valid, on_test = measure(valid.labels, scored.valid), measure(test.labels, scored.test)
    return {
        "valid": {"auc": on_valid.auc, "logloss": on_valid.logloss},
        "test": {
            "auc": on_test.auc,
            "logloss": on_test.logloss,
            "ece": on_test.ece,
            "calibration_ratio": on_test.calibration_ratio,
        },
        "parameters": model.parameters,
        "bytes": model.parameters * _FLOAT32,
        "table_bytes": model.table_parameters * _FLOAT32,
    }


def _difference(scored: Scored, baseline: Scored, test: Part) -> dict[str, float]:
    return auc_difference(test.labels, baseline.test, scored.test)._asdict()


def _point(scored: Scored, baseline: Scored, valid: Part, test: Part, *, chosen: bool) -> dict[str, Any]:
    model = scored.model
    assert model.feature_set is not None
    counts = model.feature_set.counts()
    return {
        "selector": model.selector,
        "ratio": counts["ratio"],
        "kept": counts["kept"],
        "penalty": model.penalty,
        **_numbers(scored, valid, test),
        "difference": _difference(scored, baseline, test),
        "chosen": chosen,
    }


def _feature_counts(feature_set: FeatureSet | None, dataset: Dataset) -> dict[str, Any]:
    if feature_set is None:
        values = dataset.vocabulary.filter(pl.col("role") == "value")
        totals = values.group_by("field", maintain_order=True).len().iter_rows()
        fields = {name: {"kept": total, "total": total} for name, total in totals}
        counts = {"kept": values.height, "total": values.height, "ratio": 1.0, "fields": fields}
    else:
        counts = feature_set.counts()
    return {**counts, "interactions": {"memorize": None, "factorize": None, "naive": None}}


def _histories(baseline: Model, chosen: Model | None) -> dict[str, Any]:
    return {
        "baseline": [epoch.flat() for epoch in baseline.history],
        "search": [epoch.flat() for epoch in chosen.search_history] if chosen else [],
        "retrain": [epoch.flat() for epoch in chosen.history] if chosen else [],
    }


def _ceiling(baseline: Scored, chosen: Scored | None, test: Part) -> dict[str, float | None] | None:
    """The AUC of the true probabilities: no model can be expected to exceed it."""
    if test.true_probability is None:
        return None
    best = measure(test.labels, test.true_probability).auc

    def reached(scored: Scored | None) -> float | None:
        return None if scored is None else (measure(test.labels, scored.test).auc - 0.5) / (best - 0.5)

    return {"test_auc": best, "baseline_share": reached(baseline), "selected_share": reached(chosen)}


def _planted(config: Config, dataset: Dataset, feature_set: FeatureSet | None) -> dict[str, Any] | None:
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


def _gates(feature_set: FeatureSet | None) -> dict[str, Any] | None:
    """Histogram of the final gates of vocabulary values, where gates were trained."""
    if feature_set is None or feature_set.provenance.get("selector") != "optfs":
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
