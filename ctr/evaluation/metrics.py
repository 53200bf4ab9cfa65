"""Quality and calibration of predicted click probabilities."""

from dataclasses import dataclass

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
        rows: number of rows.
        positives: number of rows with label 1.
    """

    auc: float
    logloss: float
    ece: float
    calibration_ratio: float
    rows: int
    positives: int


def measure(labels: ArrayLike, probabilities: ArrayLike) -> Metrics:
    """All metrics of `probabilities` (B,) against 0/1 `labels` (B,), computed in float64.

    AUC and log loss are scikit-learn's; for the log loss, probabilities are clipped to [1e-15, 1 - 1e-15].

    Raises:
        DataError: lengths differ, a label is not 0 or 1, one class only, or a probability is not in [0, 1].
    """
    from sklearn.metrics import log_loss, roc_auc_score

    truth, predicted = checked(labels, probabilities, "probabilities")
    if predicted.min() < 0.0 or predicted.max() > 1.0:
        worst = predicted.min() if predicted.min() < 0.0 else predicted.max()
        raise DataError(f"probabilities: expected values from 0 to 1, found {worst:g}")
    positives = int(truth.sum())
    return Metrics(
        auc=float(roc_auc_score(truth, predicted)),
        logloss=float(log_loss(truth, np.clip(predicted, CLIP, 1.0 - CLIP))),
        ece=calibration_error(truth, predicted),
        calibration_ratio=float(predicted.sum() / positives),
        rows=len(truth),
        positives=positives,
    )


def calibration_error(labels: Floats, probabilities: Floats, bins: int = BINS) -> float:
    """Compute the expected calibration error over bins of equal mass.

    Rows are ordered by probability and cut into `bins` bins of as equal a number of rows as ties allow; the
    error is the mean over rows of |mean probability - share of positives| of the row's bin. Rows of one
    probability stay in one bin (that of their middle rank), so the order of rows cannot change the result.

    Source: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015.
    """
    # NOTE[DIFF] they use bins of equal width; click rates are small, which would leave most of those empty.
    _, group, sizes = np.unique(probabilities, return_inverse=True, return_counts=True)
    middle = np.cumsum(sizes) - sizes / 2.0  # rank in the middle of each group of ties, in (0, B)
    chosen = np.floor(middle * bins / len(labels)).astype(np.int64)[group]  # (B,)
    gaps = np.bincount(chosen, weights=probabilities - labels, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


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
