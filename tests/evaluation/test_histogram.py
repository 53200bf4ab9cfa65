"""AUC of a histogram: within its stated bound of scikit-learn's, whatever the scores."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from ctr.evaluation.histogram import BINS, Histogram, bins_of

PROBABILITY = st.one_of(
    st.floats(0.0, 1.0),
    st.sampled_from([0.0, 1.0, 0.5, 1e-300, 1e-12, 1 - 1e-12, 1 - 2**-53]),
    # Neighbours that fall into one bin, and such that do not.
    st.integers(-3, 3).map(lambda step: 0.3 + step * 1e-5),
    st.integers(-3, 3).map(lambda step: 0.5 + step * 2**-53),
)
ROWS = st.lists(st.tuples(st.integers(0, 1), PROBABILITY, st.integers(0, 4)), min_size=2, max_size=60).filter(
    lambda rows: all(any(y == label and w for y, _, w in rows) for label in (0, 1))
)


def histogram_of(labels, scores, mass):
    found = Histogram()
    found.add(np.asarray(labels, float), np.asarray(scores, float), np.asarray(mass, float))
    return found


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_the_auc_is_within_its_bound_of_scikit_learns(rows):
    labels, scores, weights = zip(*rows, strict=True)
    found = histogram_of(labels, scores, weights)
    exact = roc_auc_score(labels, scores, sample_weight=weights)
    assert abs(found.auc - exact) <= found.auc_error + 1e-12


@given(PROBABILITY, PROBABILITY)
def test_a_larger_probability_is_never_in_a_lower_bin(one, other):
    low, high = bins_of(np.array([min(one, other), max(one, other)])).tolist()
    assert 0 <= low <= high < BINS


def test_the_bound_is_reached_where_a_bin_hides_the_order():
    # 0.3 and its neighbour share a bin: the histogram sees a tie, the truth is all right or all wrong.
    near = np.nextafter(0.3, 1.0)
    found = histogram_of([0, 1], [0.3, near], [1, 1])
    assert (found.auc, found.auc_error) == (0.5, 0.5)
    assert roc_auc_score([0, 1], [0.3, near]) == 1.0


def test_a_million_rows_have_an_error_that_no_one_can_see():
    draw = np.random.default_rng(0)
    scores = 1 / (1 + np.exp(2.0 - draw.normal(size=200_000)))
    labels = draw.random(200_000) < scores
    found = histogram_of(labels, scores, np.ones(200_000))
    assert found.auc_error < 1e-5
    assert found.auc == pytest.approx(roc_auc_score(labels, scores), abs=1e-6)


def test_merging_histograms_is_adding_their_rows():
    draw = np.random.default_rng(1)
    labels, scores, mass = draw.integers(0, 2, 500), draw.random(500), draw.random(500)
    whole = histogram_of(labels, scores, mass)
    merged = histogram_of(labels[:200], scores[:200], mass[:200])
    merged.merge(histogram_of(labels[200:], scores[200:], mass[200:]))
    assert merged.auc == pytest.approx(whole.auc, abs=1e-14)
    assert merged.auc_error == pytest.approx(whole.auc_error, abs=1e-14)
    np.testing.assert_allclose(merged.expected, whole.expected)


def test_one_class_has_no_auc():
    found = histogram_of([1, 1], [0.2, 0.3], [1, 1])
    assert np.isnan(found.auc)
    assert np.isnan(found.auc_error)
