"""How an AUC, or the difference of two, varies over other clusters (users, sessions, days) from the same source.

Rows of one user are alike, so a thousand rows of ten users are less evidence than a thousand rows of a thousand users,
and intervals that take rows for independent are too narrow. Here whole clusters are drawn again with replacement, each
with all its rows (Field and Welsh, "Bootstrapping Clustered Data", Journal of the Royal Statistical Society B 2007),
a Poisson number of times with mean 1; see `ctr.evaluation.bootstrap`. The bounds are Student's with one degree of
freedom less than there are clusters: with ten users the normal distribution's would be too narrow (Donald and Lang,
"Inference with Difference-in-Differences and Other Panel Data", Review of Economics and Statistics 2007).
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from ctr.errors import DataError
from ctr.evaluation.bootstrap import WeightedRanking, draws
from ctr.evaluation.intervals import Interval, quantile
from ctr.evaluation.metrics import Floats, checked, checked_weights

Codes = npt.NDArray[np.int64]


def clustered_interval(
    labels: ArrayLike,
    scores: ArrayLike,
    clusters: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    seed: int = 0,
) -> Interval:
    """AUC of `scores` (B,) for 0/1 `labels` (B,) with its 95 % bounds over other clusters, cut to [0, 1].

    The interval is the widest possible one where a class has rows in a single cluster.

    Args:
        labels: 0 or 1.
        scores: any finite numbers.
        clusters: (B,) numbers or texts; rows with the same one belong together.
        weights: (B,) how much each row counts; None where all count alike.
        seed: of the bootstrap.

    Raises:
        DataError: lengths differ, labels are not 0/1 of both classes, a score is not finite, or weights are no weights.
    """
    truth, values = checked(labels, scores, "scores")
    mass, codes = _mass(truth, weights), cluster_codes(clusters, len(truth))
    value = WeightedRanking(truth, values).auc
    return _around(value(mass), _half(truth, mass, codes, value, seed), lowest=0.0, highest=1.0)


def clustered_difference(
    labels: ArrayLike,
    baseline: ArrayLike,
    selected: ArrayLike,
    clusters: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    seed: int = 0,
) -> Interval:
    """AUC of `selected` minus AUC of `baseline`, paired, with its 95 % bounds over other clusters.

    Equal rankings give exactly (0, 0, 0); other arguments as in `clustered_interval`.

    Raises:
        DataError: as `clustered_interval`.
    """
    truth, first = checked(labels, baseline, "baseline scores")
    _, second = checked(labels, selected, "selected scores")
    before, after = WeightedRanking(truth, first), WeightedRanking(truth, second)
    mass, codes = _mass(truth, weights), cluster_codes(clusters, len(truth))

    def value(drawn: Floats) -> float:
        return after.auc(drawn) - before.auc(drawn)

    return _around(value(mass), _half(truth, mass, codes, value, seed), lowest=-1.0, highest=1.0)


def cluster_codes(clusters: ArrayLike, rows: int) -> Codes:
    """Each row's (B,) cluster as a number from 0.

    Raises:
        DataError: there is not one cluster per row.
    """
    given = np.asarray(clusters)
    if given.shape != (rows,):
        raise DataError(f"clusters: expected one per label, found shape {given.shape} for {rows:,} labels")
    return np.unique(given, return_inverse=True)[1].astype(np.int64)


def _mass(labels: Floats, weights: ArrayLike | None) -> Floats:
    return np.ones(len(labels)) if weights is None else checked_weights(labels, weights)


def _half(labels: Floats, mass: Floats, codes: Codes, value: Callable[[Floats], float], seed: int) -> float:
    there = mass > 0.0
    if min(len(np.unique(codes[there & (labels == label)])) for label in (0.0, 1.0)) < 2:
        return float("inf")
    drawn = np.array([value(weights) for weights in draws(mass, seed, codes)])
    # A draw without one of the classes has no AUC; with so few clusters nothing could be said of it.
    freedom = len(np.unique(codes[there])) - 1
    # Draws vary less than clusters do, by the share that the mean of few clusters takes up.
    few = np.sqrt((freedom + 1) / freedom)
    return quantile(0.025, freedom) * float(few * np.std(drawn[np.isfinite(drawn)], ddof=1))


def _around(value: float, half: float, *, lowest: float, highest: float) -> Interval:
    return Interval(value, max(lowest, value - half), min(highest, value + half))
