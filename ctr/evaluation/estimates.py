"""Metrics with what each row moves them by, from which all their intervals follow: paired, weighted, clustered.

The influence of a row on a metric is the first-order change of the metric's value when the row's weight grows, scaled
so that the sum of influences of other rows from the same source is how far their metric would be off (Hampel, "The
Influence Curve and Its Role in Robust Estimation", Journal of the American Statistical Association 1974). Hence

- the variance of a metric is the sum of its squared influences; for the AUC of unweighted rows that is DeLong's;
- rows of one cluster are taken together by adding their influences first; for the AUC that is Obuchowski's (1997);
- the difference of two models on the same rows has the differences of their influences.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ctr.evaluation.intervals import Interval, quantile
from ctr.evaluation.metrics import Floats, row_losses, ties

Codes = npt.NDArray[np.int64]


class Totals(NamedTuple):
    """Sums over rows, each times its weight; those of parts of a log add up to those of the log.

    mass: of the weights. clicks: of the labels. expected: of the probabilities. loss: of the cross-entropies in nats.
    """

    mass: float
    clicks: float
    expected: float
    loss: float

    @classmethod
    def of(cls, labels: Floats, probabilities: Floats, mass: Floats) -> "Totals":
        """Of rows: labels (B,) 0 or 1, probabilities (B,) of label 1, mass (B,) how much each counts."""
        loss = float(row_losses(labels, probabilities) @ mass)
        return cls(float(mass.sum()), float(labels @ mass), float(probabilities @ mass), loss)

    def plus(self, other: "Totals") -> "Totals":
        """The totals of both."""
        return Totals(*(one + two for one, two in zip(self, other, strict=True)))

    @property
    def rate(self) -> float:
        """The share of clicks."""
        return self.clicks / self.mass

    @property
    def entropy(self) -> float:
        """Of the share of clicks, in nats: the log loss of whoever knows nothing else."""
        rate = self.rate
        return float(-rate * np.log(rate) - (1.0 - rate) * np.log1p(-rate)) if 0.0 < rate < 1.0 else 0.0


Value = Callable[[Totals], float]
Influences = Callable[[Floats, Floats, Floats, Totals], Floats]


class Metric(NamedTuple):
    """A metric that follows from totals: its value, and the influence (B,) of rows (labels, probabilities, mass)."""

    value: Value
    influence: Influences


def _logloss(totals: Totals) -> float:
    return totals.loss / totals.mass


def _logloss_influence(labels: Floats, probabilities: Floats, mass: Floats, totals: Totals) -> Floats:
    return mass * (row_losses(labels, probabilities) - _logloss(totals)) / totals.mass


def _normalised(totals: Totals) -> float:
    return _logloss(totals) / totals.entropy if totals.entropy else float("nan")


def _normalised_influence(labels: Floats, probabilities: Floats, mass: Floats, totals: Totals) -> Floats:
    loss = _logloss_influence(labels, probabilities, mass, totals)
    slope = np.log1p(-totals.rate) - np.log(totals.rate)  # of the entropy, by the rate
    rate = mass * (labels - totals.rate) / totals.mass
    return np.asarray(loss / totals.entropy - _normalised(totals) / totals.entropy * slope * rate)


def _calibration(totals: Totals) -> float:
    return totals.expected / totals.clicks if totals.clicks else float("nan")


def _calibration_influence(labels: Floats, probabilities: Floats, mass: Floats, totals: Totals) -> Floats:
    return mass * (probabilities - _calibration(totals) * labels) / totals.clicks


# Normalised entropy: He et al., "Practical Lessons from Predicting Clicks on Ads at Facebook", ADKDD 2014.
METRICS = {
    "logloss": Metric(_logloss, _logloss_influence),
    "normalised_entropy": Metric(_normalised, _normalised_influence),
    "calibration_ratio": Metric(_calibration, _calibration_influence),
}


class Ranking(NamedTuple):
    """Rows by their scores: the AUC, ties counting one half, and what it follows from.

    influence: (B,) of each row. scores, positives, negatives: (T,) each distinct score, ascending, and the mass of both
    classes that has it.
    """

    auc: float
    influence: Floats
    scores: Floats
    positives: Floats
    negatives: Floats


def ranked(labels: Floats, scores: Floats, mass: Floats) -> Ranking:
    """Rank rows; without mass in both classes the AUC is NaN.

    A positive's influence is the share of negatives below it, less the AUC, over the mass of positives, times its own
    mass; a negative's likewise.
    """
    order, starts, distinct, positives, negatives = ties(labels, scores, mass)
    clicks, others = positives.sum(), negatives.sum()
    if not (clicks > 0.0 and others > 0.0):
        return Ranking(float("nan"), np.full(len(scores), np.nan), distinct, positives, negatives)
    below, above = _share_below(negatives, others), _share_below(positives, clicks)
    auc = float(positives @ below / clicks)
    below -= auc
    below /= clicks
    above -= 1.0 - auc  # of a negative the share above counts
    above /= -others
    if len(distinct) < len(order):
        sizes = np.diff(starts, append=len(order))
        below, above = np.repeat(below, sizes), np.repeat(above, sizes)
    influence = np.where(labels[order] == 1.0, below, above)
    del below, above
    influence *= mass[order]
    found = np.empty(len(scores))
    found[order] = influence
    return Ranking(auc, found, distinct, positives, negatives)


def _share_below(masses: Floats, total: float) -> Floats:
    """The share of mass below each group of ties (T,), half of its own included."""
    found = np.cumsum(masses)
    found -= masses / 2.0
    found /= total
    return found


class Spread:
    """Influences, row by row or cluster by cluster, and the standard error that they amount to.

    Args:
        clusters: number of clusters; None where each row is its own.
    """

    def __init__(self, clusters: int | None = None) -> None:
        self._squares, self._rows = np.zeros(2), np.zeros(2)  # per class
        self._sums = None if clusters is None else np.zeros(clusters)
        self._there = None if clusters is None else np.zeros((2, clusters), np.bool_)

    def add(self, labels: Floats, influence: Floats, mass: Floats, clusters: Codes | None = None) -> None:
        """Take in rows (B,): labels 0 or 1, influences, weights, and numbers of clusters."""
        if self._sums is None or self._there is None:
            squares, there = influence * influence, mass > 0.0
            clicks = np.array([squares @ labels, there @ labels])
            both = np.array([squares.sum(), there.sum()])
            self._squares += [both[0] - clicks[0], clicks[0]]
            self._rows += [both[1] - clicks[1], clicks[1]]
            return
        assert clusters is not None, "the spread is one of clusters"
        self._sums += np.bincount(clusters, influence, len(self._sums))
        for label in (0, 1):
            self._there[label, clusters[(labels == label) & (mass > 0.0)]] = True

    def error(self) -> float:
        """The standard error; infinite where a class has fewer than two rows, or rows in fewer than two clusters."""
        if self._sums is None or self._there is None:
            if self._rows.min() < 2:
                return float("inf")
            return float(np.sqrt((self._squares * self._rows / (self._rows - 1)).sum()))
        if self._there.sum(1).min() < 2:
            return float("inf")
        clusters = int(self._there.any(0).sum())
        return float(np.sqrt(clusters / (clusters - 1) * (self._sums @ self._sums)))

    @property
    def freedom(self) -> int | None:
        """Degrees of freedom of the error: one less than there are clusters; None where rows are many."""
        return None if self._there is None else max(1, int(self._there.any(0).sum()) - 1)


def around(value: float, error: float, lowest: float, highest: float, freedom: int | None = None) -> Interval:
    """The 95 % interval of a normal, or Student's, distribution, cut to what the metric can be."""
    half = quantile(0.025, freedom) * error
    return Interval(value, max(lowest, value - half), min(highest, value + half))
