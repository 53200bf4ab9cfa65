"""Models with their probabilities, and the numbers that a report gives of them."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ctr.dataset.store import Dataset, Part
from ctr.evaluation.intervals import auc_difference
from ctr.evaluation.metrics import measure
from ctr.evaluation.sampling import row_weights
from ctr.jobs.models import Model

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """A model's probabilities on valid and test, row by row in the order of the input.

    served: on test, with bias fields as they are at scoring; None where the log has no bias field.
    """

    model: Model
    valid: Probabilities
    test: Probabilities
    served: Probabilities | None = None


def numbers(scored: Scored, valid: Part, test: Part) -> dict[str, Any]:
    """Quality on valid and test, and size, of one model."""
    model = scored.model
    on_valid = measured(valid, scored.valid)
    # Keep-all is what sizes are compared with: always in float32.
    whole, tables = (replace(model, dtype="float32") if model.feature_set is None else model).bytes
    return {
        "valid": {"auc": on_valid["auc"], "logloss": on_valid["logloss"]},
        "test": measured(test, scored.test),
        "test_at_serving": None if scored.served is None else measured(test, scored.served),
        "parameters": model.parameters,
        "bytes": whole,
        "table_bytes": tables,
    }


def measured(part: Part, probabilities: Probabilities) -> dict[str, float]:
    """The metrics that a report gives of a part."""
    found = measure(part.labels, probabilities, weights_of(part))
    return {key: getattr(found, key) for key in ("auc", "logloss", "ece", "calibration_ratio")}


def weights_of(part: Part) -> npt.NDArray[np.float64] | None:
    """How many impressions each row stands for."""
    return row_weights(part.labels, part.weights, part.keep_rate)


def difference(scored: Scored, baseline: Scored, test: Part) -> dict[str, float]:
    """AUC on test minus the baseline's, paired, with its 95 % interval."""
    # Weights that only undo the sampling of negatives are one for each class, and AUC does not see them.
    return auc_difference(test.labels, baseline.test, scored.test, test.weights)._asdict()


def point(scored: Scored, baseline: Scored, valid: Part, test: Part, *, chosen: bool) -> dict[str, Any]:
    """A point of the curve of AUC over features kept."""
    model = scored.model
    assert model.feature_set is not None
    counts = model.feature_set.counts()
    return {
        "selector": model.selector,
        "ratio": counts["ratio"],
        "kept": counts["kept"],
        "penalty": model.penalty,
        **numbers(scored, valid, test),
        "difference": difference(scored, baseline, test),
        "chosen": chosen,
    }


def dropped_reads(chosen: Scored | None, other: Scored | None, dataset: Dataset) -> dict[str, Any] | None:
    """What a dropped value reads, and how the other way does on valid; None where nothing was dropped."""
    if chosen is None or chosen.model.feature_set is None:
        return None
    valid, used = dataset.part("valid"), chosen.model.feature_set.dropped_reads
    found = {used: measure(valid.labels, chosen.valid, weights_of(valid)).auc}
    if other is not None and other.model.feature_set is not None:
        reading = other.model.feature_set.dropped_reads
        found[reading] = measure(valid.labels, other.valid, weights_of(valid)).auc
    aucs = {reading: found.get(reading) for reading in ("zero", "unknown")}
    return {"used": used, "valid_auc": aucs, "better": max(found, key=found.__getitem__) if other else None}
