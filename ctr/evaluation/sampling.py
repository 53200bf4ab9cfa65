"""What a log whose negatives were sampled says about the world that it was sampled from.

A log keeps every click and a share r of the rows without one. By Bayes' rule the odds of a click in the log are those
of the world divided by r, whatever else is known of a row. So a model that is trained on the log as it is, and gives
a row the probability q, means in the world

    p = q / (q + (1 - q) / r),    that is    logit(p) = logit(q) + ln(r).

This is applied exactly once on each path: by `ctr.training.predict` and in the graph of a bundle. What is measured on
rows of the log counts each row without a click 1 / r times.
"""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def unsampled(logits: Floats, keep_rate: float) -> Floats:
    """Click probabilities (B,) outside of the log, from logits (B,) of a model of the log.

    Args:
        logits: of a network that was trained on the sampled rows.
        keep_rate: share of the rows with label 0 that the log holds; 1 gives the plain sigmoid.
    """
    shifted = logits + math.log(keep_rate)
    small = np.exp(-np.abs(shifted))  # at most 1: nothing overflows
    return np.where(shifted >= 0.0, 1.0, small) / (1.0 + small)


def row_weights(
    labels: NDArray[np.uint8], weights: NDArray[np.float32] | None, keep_rate: float
) -> Floats | None:
    """How many impressions each row (B,) stands for; None where each stands for itself.

    Args:
        labels: 0 or 1.
        weights: the log's own, or None.
        keep_rate: share of the rows with label 0 that the log holds.
    """
    if weights is None and keep_rate == 1.0:
        return None
    own = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
    return own * np.where(labels == 0, 1.0 / keep_rate, 1.0)
