"""Slope and intercept by which logits mean what they say, against scikit-learn and where nothing can be said."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ctr.evaluation.calibration import Calibration, calibrated


def drawn(slope, intercept, rows=20_000, seed=0):
    """Logits of which the truth is `slope` times as large, and shifted."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(0.5, 1.5, rows)
    truth = 1 / (1 + np.exp(-(slope * logits + intercept)))
    return logits, (draw.random(rows) < truth).astype(np.uint8)


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.6, -1.0), (1.7, 0.4)])
def test_a_model_that_is_too_sure_or_too_shy_is_put_right(slope, intercept):
    found = calibrated(*drawn(slope, intercept), None)
    assert found.slope == pytest.approx(slope, abs=0.05)
    assert found.intercept == pytest.approx(intercept, abs=0.06)


def test_it_is_the_logistic_regression_of_scikit_learn():
    logits, labels = drawn(0.7, 0.3, 500)
    weights = np.random.default_rng(1).random(500).astype(np.float32)
    reference = LogisticRegression(C=1e12, tol=1e-12).fit(logits[:, None], labels, sample_weight=weights)
    found = calibrated(logits, labels, weights)
    assert found == pytest.approx((reference.coef_[0, 0], reference.intercept_[0]), rel=1e-4)


def test_what_it_gives_needs_no_calibration():
    logits, labels = drawn(0.7, 0.3, 2000)
    found = calibrated(logits, labels, None)
    assert calibrated(found.slope * logits + found.intercept, labels, None) == pytest.approx(
        (1.0, 0.0), abs=1e-8
    )


@pytest.mark.parametrize(
    "logits", [np.array([1.0, 2.0, 3.0, 4.0]), np.array([4.0, 3.0, 2.0, 1.0]), np.full(4, 2.0)]
)
def test_where_no_slope_can_be_told_the_intercept_alone_is_fitted(logits):
    labels = np.array(
        [0, 0, 1, 1], np.uint8
    )  # perfectly apart, the wrong way round, or without any difference
    found = calibrated(logits, labels, None)
    assert found.slope == 1.0
    assert np.mean(1 / (1 + np.exp(-(logits + found.intercept)))) == pytest.approx(0.5)


def test_of_a_single_class_nothing_can_be_told():
    assert calibrated(np.array([1.0, 2.0]), np.zeros(2, np.uint8), None) == Calibration(1.0, 0.0)
