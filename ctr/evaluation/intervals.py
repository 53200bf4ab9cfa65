"""95 % intervals of an AUC and of the difference between two AUCs on the same rows.

DeLong, DeLong and Clarke-Pearson, "Comparing the Areas under Two or More Correlated Receiver Operating
Characteristic Curves", Biometrics 1988, in O(B log B) by ranks (Sun and Xu, "Fast Implementation of DeLong's
Algorithm", IEEE Signal Processing Letters 2014). Where rows have weights, by bootstrap; see `ctr.evaluation.bootstrap`.
The intervals speak about other rows from the same source, scored by this very model; they say nothing about
what another training seed would give.
"""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from ctr.evaluation.bootstrap import WeightedRanking, draws
from ctr.evaluation.metrics import Floats, checked, checked_weights

Z95 = NormalDist().inv_cdf(0.975)


def quantile(tail: float, freedom: float | None = None) -> float:
    """What Student's distribution exceeds with the probability `tail`; the normal one where `freedom` is None.

    Args:
        freedom: degrees of freedom, from 1; infinitely many are the normal distribution's.
    """
    if freedom is None or freedom == float("inf"):
        return -NormalDist().inv_cdf(tail)
    from scipy.stats import t

    return float(t.isf(tail, freedom))


class Interval(NamedTuple):
    """An estimate with its 95 % bounds."""

    value: float
    low: float
    high: float


def auc_interval(
    labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None, *, seed: int = 0
) -> Interval:
    """AUC of `scores` (B,) for 0/1 `labels` (B,), cut to [0, 1].

    Args:
        labels: 0 or 1.
        scores: any finite numbers.
        weights: (B,) how much each row counts. A row of weight 2 counts twice, but is no more evidence than one row.
        seed: of the bootstrap that weighted rows need.

    Raises:
        DataError: lengths differ, labels are not 0/1 of both classes, a score is not finite, or weights are no weights.
    """
    truth, values = checked(labels, scores, "scores")
    if weights is not None:
        mass = checked_weights(truth, weights)
        ranking = WeightedRanking(truth, values)
        found = [ranking.auc(drawn) for drawn in draws(mass, seed)]
        return _around(ranking.auc(mass), found, _settled(truth, mass), lowest=0.0, highest=1.0)
    return _interval(*_placements(truth, values), lowest=0.0, highest=1.0)


def auc_difference(
    labels: ArrayLike,
    baseline: ArrayLike,
    selected: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    seed: int = 0,
) -> Interval:
    """AUC of `selected` minus AUC of `baseline`, paired: both (B,) score the same rows.

    Equal rankings give exactly (0, 0, 0). Where a class has a single row its spread is unknown, and the
    interval is the widest possible one. `weights` and `seed` as in `auc_interval`.

    Raises:
        DataError: lengths differ, labels are not 0/1 of both classes, a score is not finite, or weights are no weights.
    """
    truth, first = checked(labels, baseline, "baseline scores")
    _, second = checked(labels, selected, "selected scores")
    if weights is not None:
        mass = checked_weights(truth, weights)
        if np.array_equal(_ranks(first), _ranks(second)):
            return Interval(0.0, 0.0, 0.0)
        old, new = WeightedRanking(truth, first), WeightedRanking(truth, second)
        found = [new.auc(drawn) - old.auc(drawn) for drawn in draws(mass, seed)]
        value = new.auc(mass) - old.auc(mass)
        return _around(value, found, _settled(truth, mass), lowest=-1.0, highest=1.0)
    before, after = _placements(truth, first), _placements(truth, second)
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


def _ranks(scores: Floats) -> npt.NDArray[np.int64]:
    return np.unique(scores, return_inverse=True)[1]


def _settled(labels: Floats, weights: Floats) -> bool:
    """Whether both classes have more than one row that weighs anything."""
    there = weights > 0.0
    return min(int((there & (labels == label)).sum()) for label in (0.0, 1.0)) > 1


def _around(value: float, drawn: list[float], settled: bool, *, lowest: float, highest: float) -> Interval:
    """The interval of the normal distribution with the standard error of the draws."""
    if not settled:
        return Interval(value, lowest, highest)
    half = Z95 * float(np.nanstd(drawn, ddof=1))
    return Interval(value, max(lowest, value - half), min(highest, value + half))
