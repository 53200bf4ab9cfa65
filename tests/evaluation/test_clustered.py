"""Intervals over other clusters: against a published formula, against DeLong, and against a known truth."""

from statistics import NormalDist

import numpy as np
import pytest

from ctr.errors import DataError
from ctr.evaluation.bootstrap import draws
from ctr.evaluation.clustered import clustered_difference, clustered_interval
from ctr.evaluation.intervals import Z95, auc_difference, auc_interval
from tests.reference.clustered_auc import clustered_error


def drawn(clusters, rows_each, seed=0, alike=1.0):
    """Rows of users: what a user's rows have in common is in label and first score, and half of it in the second."""
    random = np.random.default_rng(seed)
    codes = np.repeat(np.arange(clusters), rows_each)
    taste = alike * random.normal(size=clusters)[codes]
    labels = (random.random(len(codes)) < 1 / (1 + np.exp(1.0 - taste))).astype(int)
    first = np.round(taste + random.normal(size=len(codes)), 1)
    second = np.round(0.5 * taste + 0.5 * labels + random.normal(size=len(codes)), 1)
    return labels, first, second, codes


def error_of(interval):
    """The standard error that an interval was made of."""
    return (interval.high - interval.low) / 2 / Z95


def test_both_errors_are_those_of_the_published_formula():
    labels, first, second, codes = drawn(60, 5)
    found = clustered_interval(labels, first, codes)
    expected = clustered_error(labels.tolist(), [first.tolist()], codes.tolist())
    assert error_of(found) == pytest.approx(expected, rel=0.1)
    found = clustered_difference(labels, first, second, codes)
    expected = clustered_error(labels.tolist(), [first.tolist(), second.tolist()], codes.tolist())
    assert error_of(found) == pytest.approx(expected, rel=0.1)


def test_rows_that_are_clusters_of_their_own_have_the_interval_of_delong():
    labels, first, second, _ = drawn(400, 1)
    own = np.random.default_rng(1).permutation(400)
    for plain, clustered in (
        (auc_interval(labels, first), clustered_interval(labels, first, own)),
        (auc_difference(labels, first, second), clustered_difference(labels, first, second, own)),
    ):
        assert clustered.value == pytest.approx(plain.value, abs=1e-12)
        assert clustered.high - clustered.low == pytest.approx(plain.high - plain.low, rel=0.1)


def test_repeating_each_row_in_its_cluster_is_no_more_evidence():
    labels, first, second, codes = drawn(80, 3)
    thrice = [np.repeat(values, 3) for values in (labels, first, second, codes)]
    once = error_of(clustered_difference(labels, first, second, codes))
    assert error_of(clustered_difference(*thrice)) == pytest.approx(once, rel=1e-9)


def test_weights_count_as_repeated_rows_do():
    labels, first, second, codes = drawn(80, 3)
    weights = np.random.default_rng(2).integers(0, 4, len(labels))
    repeated = [np.repeat(values, weights) for values in (labels, first, second)]
    value = clustered_difference(*repeated, np.repeat(codes, weights)).value
    assert clustered_difference(labels, first, second, codes, weights).value == pytest.approx(value)


def test_what_clusters_are_called_changes_nothing():
    labels, first, _, codes = drawn(50, 4)
    names = np.array([f"user {code:03d}" for code in codes])
    assert clustered_interval(labels, first, codes) == clustered_interval(labels, first, names)


def test_two_models_with_one_ranking_differ_by_exactly_zero():
    labels, first, _, codes = drawn(50, 4)
    assert clustered_difference(labels, first, 3 * first + 1, codes) == (0.0, 0.0, 0.0)


def test_a_class_of_one_cluster_leaves_the_widest_interval():
    labels, scores, clusters = [1, 1, 0, 0, 0], [0.9, 0.2, 0.1, 0.3, 0.4], [0, 0, 1, 2, 0]
    assert clustered_interval(labels, scores, clusters)[1:] == (0.0, 1.0)
    assert clustered_difference(labels, scores, [0.1, 0.2, 0.3, 0.4, 0.5], clusters)[1:] == (-1.0, 1.0)


def test_the_seed_decides_and_nothing_else():
    labels, first, _, codes = drawn(50, 4)
    found = [clustered_interval(labels, first, codes, seed=seed) for seed in (3, 3, 4)]
    assert found[0] == found[1] != found[2]


def test_all_rows_of_a_cluster_are_drawn_together():
    codes = np.array([2, 0, 2, 1, 0, 2])
    for _, weights in zip(range(20), draws(np.ones(6), 0, codes), strict=False):
        assert all(len(set(weights[codes == code])) == 1 for code in range(3))


def test_the_clustered_interval_covers_the_truth_where_that_of_rows_does_not():
    # All rows of a user are copies: 100 users are all the evidence there is. AUC of normal scores 1 apart.
    truth = NormalDist().cdf(1 / 2**0.5)
    random = np.random.default_rng(5)
    clustered = independent = 0
    for _ in range(60):
        labels = (random.random(100) < 0.4).astype(int)
        scores = random.normal(size=100) + labels
        rows = np.repeat(labels, 5), np.repeat(scores, 5)
        found = clustered_interval(*rows, np.repeat(np.arange(100), 5))
        clustered += found.low <= truth <= found.high
        narrow = auc_interval(*rows)
        independent += narrow.low <= truth <= narrow.high
    assert clustered >= 53
    assert independent <= 45


@pytest.mark.parametrize(
    ("labels", "scores", "clusters", "message"),
    [
        ([0, 1, 0], [0.1, 0.2, 0.3], [1, 2], r"found shape \(2,\) for 3 labels"),
        ([0, 0, 0], [0.1, 0.2, 0.3], [1, 2, 3], "both classes"),
        ([0, 1, 0], [0.1, float("nan"), 0.3], [1, 2, 3], "found nan at row 1"),
    ],
)
def test_unusable_rows_are_refused(labels, scores, clusters, message):
    with pytest.raises(DataError, match=message):
        clustered_interval(labels, scores, clusters)
    with pytest.raises(DataError, match=message):
        clustered_difference(labels, scores, np.arange(3.0), clusters)
