import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from ctr.errors import DataError
from ctr.evaluation import measure


def test_four_rows_give_the_metrics_computed_by_hand():
    found = measure([0, 1, 0, 1], [0.1, 0.4, 0.5, 0.8])
    # Three of the four (positive, negative) pairs are in the right order.
    assert found.auc == 0.75
    assert found.logloss == pytest.approx(-math.log(0.9 * 0.4 * 0.5 * 0.8) / 4)
    # Four rows fall into four bins: mean of |0.1 - 0|, |0.4 - 1|, |0.5 - 0|, |0.8 - 1|.
    assert found.ece == pytest.approx((0.1 + 0.6 + 0.5 + 0.2) / 4)
    assert found.calibration_ratio == pytest.approx(1.8 / 2)
    assert (found.rows, found.positives) == (4, 2)


def test_tied_rows_share_a_bin_so_that_constant_scores_have_the_error_of_their_mean():
    labels = [0] * 50 + [1] * 50
    assert measure(labels, [0.3] * 100).ece == pytest.approx(0.2)
    assert measure(labels[::-1], [0.3] * 100).ece == pytest.approx(0.2)


def test_the_bins_hold_equal_numbers_of_rows():
    # 40 rows, 20 bins of 2: each bin has one click, so its share of positives is one half.
    labels = np.tile([0, 1], 20)
    centres = np.linspace(0.45, 0.55, 40)
    expected = np.mean(np.abs(centres.reshape(20, 2).mean(1) - 0.5))
    assert measure(labels, centres).ece == pytest.approx(expected)


def test_a_large_group_of_ties_takes_its_own_bin_and_leaves_the_others_theirs():
    # 38 tied rows sit around rank 19 (bin 9), the other two in the last bin: gaps 38 * 0.1 and 0.2 - 1 + 0.3.
    found = measure([0] * 38 + [1, 0], [0.1] * 38 + [0.2, 0.3])
    assert found.ece == pytest.approx((3.8 + 0.5) / 40)


def test_the_order_of_rows_changes_nothing():
    random = np.random.default_rng(0)
    probabilities = np.round(random.random(500), 2)
    labels = (random.random(500) < probabilities).astype(np.uint8)
    order = random.permutation(500)
    before, after = measure(labels, probabilities), measure(labels[order], probabilities[order])
    assert after.ece == pytest.approx(before.ece, abs=1e-14)
    assert after.auc == before.auc


@given(
    st.lists(
        st.tuples(
            st.integers(0, 1),
            st.sampled_from([0.0, 1e-9, 0.1, 0.25, 0.5, 0.9, 1.0]) | st.floats(0, 1),
            st.floats(0, 9),
        ),
        min_size=2,
        max_size=40,
    ),
    st.booleans(),
)
def test_auc_and_log_loss_are_those_of_scikit_learn(rows, weighted):
    labels, scores, mass = (np.array(column) for column in zip(*rows, strict=True))
    mass = mass if weighted else np.ones(len(labels))
    if min(mass[labels == 0].sum(), mass[labels == 1].sum()) < 1e-3:
        return
    weights = mass if weighted else None
    assert measure(labels, scores, weights).auc == pytest.approx(
        roc_auc_score(labels, scores, sample_weight=mass), abs=1e-12
    )
    inner = np.clip(scores, 1e-9, 1 - 1e-9)  # beyond that 1 - p has no digits to compare
    expected = log_loss(labels, inner, sample_weight=mass)
    assert measure(labels, inner, weights).logloss == pytest.approx(expected, rel=1e-9)


def test_certain_and_wrong_predictions_cost_a_finite_log_loss():
    found = measure([0, 1], np.array([1.0, 0.0], dtype=np.float32))
    assert found.logloss == pytest.approx(-math.log(1e-15), rel=1e-4)


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([1, 1], [0.2, 0.3], "expected both classes, found 2 positives in 2 rows"),
        ([], [], "expected both classes, found 0 positives in 0 rows"),
        ([0, 1], [0.2, float("nan")], "found nan at row 1"),
        ([0, 1], [0.2, 0.3, 0.4], r"found shape \(2,\) of labels and \(3,\) of probabilities"),
        ([[0], [1]], [[0.2], [0.3]], "expected one per label"),
        ([0, 2], [0.2, 0.3], "expected 0 or 1, found 2 at row 1"),
        ([0, 1], [0.2, 1.5], "expected values from 0 to 1, found 1.5"),
        ([0, 1], [-0.5, 0.5], "expected values from 0 to 1, found -0.5"),
    ],
)
def test_scores_that_cannot_be_measured_are_refused_with_the_reason(labels, probabilities, message):
    with pytest.raises(DataError, match=message):
        measure(labels, probabilities)
