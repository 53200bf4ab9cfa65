"""Saliency by nested loops: every row and occurrence for itself, in float64, each gate moved a little."""

import math

import numpy as np
import torch

from ctr.training.feeding import to_inputs
from tests.reference.evidence import STEP, in_float64, row_logit, rows_of


def reference_saliency(network, batches, features):
    """(3, V): slope, curvature and fisher by global id."""
    network, sums = in_float64(network), np.zeros((3, features + 1))
    for batch in batches.epoch():
        inputs = to_inputs(batch, torch.device("cpu"))
        slots = inputs.ids.shape[1] + inputs.list_lengths.shape[1]
        weights = np.ones(len(batch)) if batch.weights is None else batch.weights
        for row, occurrences in enumerate(rows_of(network, inputs)):
            factors = [1.0] * len(occurrences)
            logit = row_logit(network, occurrences, factors, slots)
            p, weight = 1 / (1 + math.exp(-logit)), float(weights[row])
            for place, (_, feature, vector) in enumerate(occurrences):
                above = row_logit(network, occurrences, factors, slots, place, STEP * vector)
                below = row_logit(network, occurrences, factors, slots, place, -STEP * vector)
                slope = (above - below) / (2 * STEP)
                s = (p - float(batch.labels[row])) * slope
                sums[:, feature] += weight * np.array([s, p * (1 - p) * slope**2, s**2])
    return sums[:, 1:]
