"""What each row adds to a metric: from it come variances over rows, clustered rows and means of several models.

A metric over many rows is, up to its own value, a sum of what the rows contribute; the variance of the metric is
that of this sum. For AUC a row contributes its placement among the rows of the other class (DeLong, DeLong and
Clarke-Pearson, Biometrics 1988: the sum of squares here is their variance, to the last digit); for a mean loss, its own
loss. Sums over models add contributions row by row, and rows that belong together (a user's) are added up first
(Obuchowski, "Nonparametric Analysis of Clustered ROC Curve Data", Biometrics 1997).
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

from ctr.errors import DataError
from ctr.evaluation.estimates import METRICS, Totals, ranked
from ctr.evaluation.metrics import Floats, checked, checked_weights


class Influence(NamedTuple):
    """A metric, and what each row (B,) adds to it: the sum of their squares is the variance of the metric over rows."""

    value: float
    rows: Floats


def auc_influence(labels: ArrayLike, scores: ArrayLike, weights: ArrayLike | None = None) -> Influence:
    """AUC of `scores` (B,) for 0/1 `labels` (B,), row by row.

    Raises:
        DataError: lengths differ, labels are not 0/1 of both classes, a score is not finite, weights are no weights, or
            a class has a single row, whose spread is unknown.
    """
    truth, values = checked(labels, scores, "scores")
    mass = np.ones(len(truth)) if weights is None else checked_weights(truth, weights)
    of_class = [(truth == label) & (mass > 0.0) for label in (0.0, 1.0)]
    if min(int(own.sum()) for own in of_class) < 2:
        raise DataError(
            "labels: expected at least two rows of each class, found one; its spread is unknown, take more rows"
        )
    value, rows, *_ = ranked(truth, values, mass)
    for own in of_class:
        rows[own] *= _of_sample(own)
    return Influence(value, rows)


def logloss_influence(
    labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None
) -> Influence:
    """Mean binary cross-entropy in nats of `probabilities` (B,), row by row; clipped as in `metrics.measure`.

    Raises:
        DataError: as `auc_influence`.
    """
    truth, predicted = checked(labels, probabilities, "probabilities")
    mass = np.ones(len(truth)) if weights is None else checked_weights(truth, weights)
    metric, totals = METRICS["logloss"], Totals.of(truth, predicted, mass)
    rows = metric.influence(truth, predicted, mass, totals) * _of_sample(mass > 0.0)
    return Influence(metric.value(totals), rows)


def clustered(rows: Floats, clusters: npt.NDArray[np.int64] | None) -> Floats:
    """Contributions (..., B) added up by cluster, (..., C); as they are where rows stand for themselves.

    Args:
        clusters: (B,) number of each row's cluster, from 0; those of other rows may be left out.

    Raises:
        DataError: there is one cluster alone.
    """
    if clusters is None:
        return rows
    present, numbers = np.unique(clusters, return_inverse=True)
    count = len(present)
    if count < 2:
        raise DataError("clusters: expected at least two values of the key, found one; take another key")
    flat = rows.reshape(-1, rows.shape[-1])
    sums = np.stack([np.bincount(numbers, weights=each, minlength=count) for each in flat])
    scale = float(np.sqrt(count / (count - 1.0)))
    return np.asarray(sums.reshape(*rows.shape[:-1], count) * scale, dtype=np.float64)


def _of_sample(rows: npt.NDArray[np.bool_]) -> float:
    """The square root of n / (n - 1): the mean was taken from the same rows, as in the variances of the paper."""
    count = max(int(rows.sum()), 2)
    return float(np.sqrt(count / (count - 1.0)))
