"""Logits that mean what they say: slope and intercept by which rows that were not trained on agree with a model.

Platt, "Probabilistic Outputs for Support Vector Machines", 1999. A model that fits its train rows too well is too sure
of itself: its logits are too large by a factor. Within the log that hardly shows in the sum of its probabilities; once
the sampling of negatives is undone it does, since then the sum consists of odds, which grow exponentially.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctr.evaluation.sampling import unsampled

Floats = NDArray[np.float64]

_ROUNDS, _SMALL = 100, 1e-10


class Calibration(NamedTuple):
    """A calibrated logit is `slope * logit + intercept`. With a slope above zero every ranking stays."""

    slope: float = 1.0
    intercept: float = 0.0


def calibrated(logits: Floats, labels: NDArray[np.uint8], weights: NDArray[np.float32] | None) -> Calibration:
    """The calibration of the largest likelihood, by Newton's method.

    Args:
        logits: (B,) of rows that the model was not trained on.
        labels: (B,) 0 or 1.
        weights: (B,) how much each row counts; None where all count alike.

    Returns:
        Slope 1 where the likelihood knows no finite slope above zero: then the intercept alone is fitted.
    """
    mass = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
    found = _fitted(np.stack([logits, np.ones(len(logits))], 1), labels, mass, np.array([1.0, 0.0]))
    if found is not None and found[0] > 0.0:
        return Calibration(float(found[0]), float(found[1]))
    alone = _fitted(np.ones((len(logits), 1)), labels, mass, np.zeros(1), fixed=logits)
    return Calibration() if alone is None else Calibration(1.0, float(alone[0]))


def _fitted(
    inputs: Floats, labels: NDArray[np.uint8], mass: Floats, start: Floats, fixed: Floats | float = 0.0
) -> Floats | None:
    """The coefficients of a logistic regression with an offset; None where Newton's method finds none."""
    found = start
    for _ in range(_ROUNDS):
        p = unsampled(inputs @ found + fixed, 1.0)
        slope = inputs.T @ (mass * (labels - p))
        curvature = (inputs * (mass * p * (1.0 - p))[:, None]).T @ inputs
        try:
            step = np.linalg.solve(curvature, slope)
        except np.linalg.LinAlgError:
            return None
        found = found + step
        if not np.isfinite(found).all() or np.abs(found).max() > 100.0:
            return None
        if np.abs(step).max() < _SMALL:
            return found
    return None
