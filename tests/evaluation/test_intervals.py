from statistics import NormalDist

import numpy as np
import pytest

from ctr.errors import DataError
from ctr.evaluation import auc_difference, auc_interval
from tests.reference.auc import delong, interval


def drawn(seed, rows, decimals):
    """Two correlated scores of `rows` labels; few decimals give many ties."""
    random = np.random.default_rng(seed)
    labels = (random.random(rows) < 0.3).astype(int)
    labels[:4] = [0, 1, 0, 1]
    shared = random.normal(size=rows) + 0.8 * labels
    first = np.round(shared + random.normal(size=rows), decimals)
    second = np.round(shared + random.normal(size=rows) + 0.3 * labels, decimals)
    return labels, first, second


@pytest.mark.parametrize("decimals", [0, 1, 12])
@pytest.mark.parametrize("rows", [5, 37, 150])
def test_both_intervals_equal_the_nested_loops(rows, decimals):
    labels, first, second = drawn(rows, rows, decimals)
    aucs, matrix = delong(labels.tolist(), [first.tolist(), second.tolist()])
    assert auc_interval(labels, first) == pytest.approx(interval(aucs[0], matrix[0][0], 0.0, 1.0), abs=1e-12)
    variance = matrix[0][0] + matrix[1][1] - 2 * matrix[0][1]
    expected = interval(aucs[1] - aucs[0], variance, -1.0, 1.0)
    assert auc_difference(labels, first, second) == pytest.approx(expected, abs=1e-12)


def test_one_model_against_itself_differs_by_exactly_zero():
    labels, scores, _ = drawn(1, 200, 1)
    assert auc_difference(labels, scores, scores) == (0.0, 0.0, 0.0)
    assert auc_difference(labels, scores, 3.0 * scores + 1.0) == (0.0, 0.0, 0.0)


def test_swapping_the_models_mirrors_the_interval():
    labels, first, second = drawn(2, 200, 1)
    there, back = auc_difference(labels, first, second), auc_difference(labels, second, first)
    assert there == pytest.approx((-back.value, -back.high, -back.low), abs=1e-15)


def test_constant_scores_have_auc_one_half():
    assert auc_interval([0, 1, 0, 1, 1], [0.5] * 5) == (0.5, 0.5, 0.5)


def test_a_single_positive_leaves_the_widest_interval():
    assert auc_interval([0, 0, 1], [0.1, 0.4, 0.3]) == (0.5, 0.0, 1.0)
    assert auc_difference([0, 0, 1], [0.1, 0.4, 0.3], [0.1, 0.2, 0.3]) == (0.5, -1.0, 1.0)


def test_the_interval_of_the_difference_covers_the_true_difference_about_95_times_in_100():
    # Positives are shifted by 1 and 1.2 standard deviations: the AUCs are Phi(1 / sqrt 2), Phi(1.2 / sqrt 2).
    true_difference = NormalDist().cdf(1.2 / 2**0.5) - NormalDist().cdf(1 / 2**0.5)
    random = np.random.default_rng(7)
    covered = 0
    for _ in range(200):
        labels = (random.random(400) < 0.4).astype(int)
        noise = random.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], size=400)
        found = auc_difference(labels, noise[:, 0] + labels, noise[:, 1] + 1.2 * labels)
        covered += found.low <= true_difference <= found.high
    assert 0.90 <= covered / 200 <= 0.99


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 0], [0.1, 0.2], "both classes"),
        ([0, 1], [0.1, float("inf")], "scores: expected finite numbers, found inf at row 1"),
        ([0, 1], [0.1], r"found shape \(2,\) of labels"),
    ],
)
def test_unusable_scores_are_refused(labels, scores, message):
    with pytest.raises(DataError, match=message):
        auc_interval(labels, scores)
    with pytest.raises(DataError, match=message):
        auc_difference(labels, np.linspace(0, 1, len(labels)), scores)
