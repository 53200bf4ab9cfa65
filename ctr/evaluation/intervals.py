"""95 % intervals of an AUC and of the difference between two AUCs on the same rows.

DeLong, DeLong and Clarke-Pearson, "Comparing the Areas under Two or More Correlated Receiver Operating
Characteristic Curves", Biometrics 1988, in O(B log B) by ranks (Sun and Xu, "Fast Implementation of DeLong's
Algorithm", IEEE Signal Processing Letters 2014).
The intervals speak about other rows from the same source, scored by this very model; they say nothing about
what another training seed would give.
"""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ctr.evaluation.metrics import Floats, checked

Z95 = NormalDist().inv_cdf(0.975)


class Interval(NamedTuple):
    """An estimate with its 95 % bounds."""

    value: float
    low: float
    high: float


def auc_interval(labels: ArrayLike, scores: ArrayLike) -> Interval:
    """AUC of `scores` (B,) for 0/1 `labels` (B,), cut to [0, 1].

    Raises:
        DataError: lengths differ, labels are not 0/1 of both classes, or a score is not finite.
    """
    truth, values = checked(labels, scores, "scores")
    return _interval(*_placements(truth, values), lowest=0.0, highest=1.0)


def auc_difference(labels: ArrayLike, baseline: ArrayLike, selected: ArrayLike) -> Interval:
    """AUC of `selected` minus AUC of `baseline`, paired: both (B,) score the same rows.

    Equal rankings give exactly (0, 0, 0). Where a class has a single row its spread is unknown, and the
    interval is the widest possible one.

    Raises:
        DataError: lengths differ, labels are not 0/1 of both classes, or a score is not finite.
    """
    before = _placements(*checked(labels, baseline, "baseline scores"))
    after = _placements(*checked(labels, selected, "selected scores"))
    return _interval(after[0] - before[0], after[1] - before[1], lowest=-1.0, highest=1.0)


def _placements(labels: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Per positive the share of negatives below it, per negative the share of positives above it.

    A tie counts one half. Both means are the AUC. These are the differences of midranks of the 2014 paper,
    without ranking the union.
    """
    positive, negative = scores[labels == 1.0], scores[labels == 0.0]
    return _share_below(positive, negative), 1.0 - _share_below(negative, positive)


def _share_below(values: Floats, others: Floats) -> Floats:
    ordered = np.sort(others)
    twice = np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")
    return np.asarray(twice / (2.0 * len(others)), dtype=np.float64)


def _interval(positives: Floats, negatives: Floats, *, lowest: float, highest: float) -> Interval:
    value = float(positives.mean())
    if min(len(positives), len(negatives)) < 2:
        return Interval(value, lowest, highest)
    variance = positives.var(ddof=1) / len(positives) + negatives.var(ddof=1) / len(negatives)
    half = Z95 * float(np.sqrt(variance))
    return Interval(value, max(lowest, value - half), min(highest, value + half))
