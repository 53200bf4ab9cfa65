"""Quality and calibration of predicted click probabilities."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ctr.errors import DataError

Floats = NDArray[np.float64]

BINS = 20
CLIP = 1e-15  # a certain and wrong prediction costs 34.5 nats instead of infinity


@dataclass(frozen=True)
class Metrics:
    """What one set of scored rows says about a model.

    Attributes:
        auc: area under the ROC curve; ties count one half.
        logloss: mean binary cross-entropy in nats.
        ece: expected calibration error, see `calibration_error`.
        calibration_ratio: sum of probabilities over number of positives; above 1 promises too much.
        rows: number of rows, whatever they weigh.
        positives: number of rows with label 1.
    """

    auc: float
    logloss: float
    ece: float
    calibration_ratio: float
    rows: int
    positives: int


class Ties(NamedTuple):
    """Rows (B,) in T groups of one score each, ascending by it.

    order: (B,) the rows, group by group. starts: (T,) where in `order` each group starts. scores: (T,) of each group.
    positives, negatives: (T,) mass of both classes in it.
    """

    order: NDArray[np.int64]
    starts: NDArray[np.int64]
    scores: Floats
    positives: Floats
    negatives: Floats


def measure(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike | None = None) -> Metrics:
    """All metrics of `probabilities` (B,) against 0/1 `labels` (B,), computed in float64, from one sort.

    AUC and log loss are those of scikit-learn's `roc_auc_score` and `log_loss`; for the log loss, probabilities are
    clipped to [1e-15, 1 - 1e-15]. Training looks at valid some thirty times, where theirs take ten times as long.

    Args:
        labels: 0 or 1.
        probabilities: of label 1.
        weights: (B,) how much each row counts: a row of weight 2 is as good as the row twice.

    Raises:
        DataError: lengths differ, a label is not 0 or 1, one class only, a probability is not in [0, 1], or a weight
            is negative, not finite, or 0 for all rows of a class.
    """
    truth, predicted = checked(labels, probabilities, "probabilities")
    if predicted.min() < 0.0 or predicted.max() > 1.0:
        worst = predicted.min() if predicted.min() < 0.0 else predicted.max()
        raise DataError(f"probabilities: expected values from 0 to 1, found {worst:g}")
    mass = np.ones(len(truth)) if weights is None else checked_weights(truth, weights)
    found = ties(truth, predicted, mass)
    return Metrics(
        auc=area(found.positives, found.negatives),
        logloss=float(row_losses(truth, predicted) @ mass / mass.sum()),
        ece=calibration_error(found),
        calibration_ratio=float(predicted @ mass / (truth @ mass)),
        rows=len(truth),
        positives=int(truth.sum()),
    )


def ties(labels: Floats, scores: Floats, mass: Floats) -> Ties:
    """Sort rows (B,) by score, and add up what each score has of either class."""
    order = np.argsort(scores)
    ordered = scores[order]
    first = np.empty(len(ordered), np.bool_)
    first[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    starts = np.flatnonzero(first)
    distinct = ordered[starts]
    del ordered, first  # each such array of ten million rows takes 80 MB
    weight = mass[order]
    negatives = np.add.reduceat(weight, starts)
    weight *= labels[order]
    positives = np.add.reduceat(weight, starts)
    negatives -= positives
    return Ties(order, starts, distinct, positives, negatives)


def area(positives: Floats, negatives: Floats) -> float:
    """AUC of masses (T,) of both classes, ascending by score: pairs of one score count one half. NaN without pairs."""
    pairs = positives.sum() * negatives.sum()
    below = np.cumsum(negatives) - negatives / 2.0
    return float(positives @ below / pairs) if pairs > 0.0 else float("nan")


def row_losses(labels: Floats, probabilities: Floats) -> Floats:
    """Cross-entropy (B,) of each row in nats, of probabilities that are clipped to [1e-15, 1 - 1e-15]."""
    of_label = np.where(labels == 1.0, probabilities, 1.0 - probabilities)
    return np.asarray(-np.log(np.clip(of_label, CLIP, 1.0 - CLIP)))


def calibration_error(found: Ties, bins: int = BINS) -> float:
    """Compute the expected calibration error over bins of equal mass.

    Rows are ordered by probability and cut into `bins` bins of as equal a mass (rows, or their weights) as ties
    allow; the error is the mean over rows of |mean probability - share of positives| of the row's bin. Rows of one
    probability stay in one bin (that of their middle rank), so the order of rows cannot change the result.

    Source: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015.
    """
    # NOTE[DIFF] they use bins of equal width; click rates are small, which would leave most of those empty.
    mass = found.positives + found.negatives
    gaps = np.bincount(equal_mass_bins(mass, bins), found.scores * mass - found.positives, bins)
    return float(np.abs(gaps).sum() / mass.sum())


def equal_mass_bins(mass: Floats, bins: int) -> NDArray[np.int64]:
    """The bin (T,), from 0, of groups of ties with masses (T,), in order: bins of as equal a mass as groups allow.

    A group is in the bin of its middle rank; groups without mass may stand at the very end.
    """
    middle = np.cumsum(mass) - mass / 2.0  # in (0, total mass)
    return np.asarray(np.minimum(np.floor(middle * bins / mass.sum()).astype(np.int64), bins - 1))


def checked(labels: ArrayLike, scores: ArrayLike, name: str) -> tuple[Floats, Floats]:
    """Both as float64 vectors of one length, with both classes present and every score finite.

    Raises:
        DataError: anything of that does not hold; `name` says which scores are meant.
    """
    truth, values = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != values.shape:
        raise DataError(
            f"{name}: expected one per label and one column of each, "
            f"found shape {truth.shape} of labels and {values.shape} of {name}"
        )
    valid = (truth == 0.0) | (truth == 1.0)
    if not valid.all():
        row = int(np.argmin(valid))
        raise DataError(f"labels: expected 0 or 1, found {truth[row]:g} at row {row}")
    positives = int(truth.sum())
    if positives in (0, len(truth)):
        raise DataError(
            f"labels: expected both classes, found {positives:,} positives in {len(truth):,} rows; "
            "AUC is undefined, take more rows"
        )
    finite = np.isfinite(values)
    if not finite.all():
        row = int(np.argmin(finite))
        raise DataError(
            f"{name}: expected finite numbers, found {values[row]} at row {row} "
            f"({int((~finite).sum()):,} such rows)"
        )
    return truth, values


def checked_weights(labels: Floats, weights: ArrayLike) -> Floats:
    """Weights (B,) as float64, none negative, and both classes with some.

    Raises:
        DataError: anything of that does not hold.
    """
    mass = np.asarray(weights, dtype=np.float64)
    if mass.shape != labels.shape:
        raise DataError(
            f"weights: expected one per label, found shape {mass.shape} for {labels.shape} labels"
        )
    wrong = ~(np.isfinite(mass) & (mass >= 0.0))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"weights: expected finite numbers of 0 or more, found {mass[row]} at row {row} "
            f"({int(wrong.sum()):,} such rows)"
        )
    for label in (0, 1):
        if not mass[labels == label].any():
            raise DataError(
                f"weights: expected some above 0 in both classes, found that all rows with label {label} weigh 0; "
                "AUC is undefined, take more rows"
            )
    return mass
