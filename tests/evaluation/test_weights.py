"""Weighted rows: metrics as of repeated rows, intervals by bootstrap, and the world behind a sampled log."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.errors import DataError
from ctr.evaluation import auc_difference, auc_interval, measure
from ctr.evaluation.bootstrap import WeightedRanking, _poisson_table
from ctr.evaluation.sampling import row_weights, unsampled

ROWS = st.lists(
    st.tuples(st.integers(0, 1), st.integers(1, 19).map(lambda n: n / 20), st.integers(0, 3)),
    min_size=2,
    max_size=40,
).filter(lambda rows: all(any(y == label and w for y, _, w in rows) for label in (0, 1)))


def drawn(rows=3000, seed=0):
    draw = np.random.default_rng(seed)
    logits = draw.normal(-1.0, 1.0, rows)
    labels = draw.random(rows) < 1 / (1 + np.exp(-logits))
    return labels.astype(int), logits, logits + draw.normal(0, 0.7, rows)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_a_row_of_weight_two_is_the_row_twice_in_every_metric(rows):
    labels, scores, weights = (np.array(column) for column in zip(*rows, strict=True))
    weighted = measure(labels, scores, weights)
    repeated = measure(np.repeat(labels, weights), np.repeat(scores, weights))
    for name in ("auc", "logloss", "ece", "calibration_ratio"):
        assert getattr(weighted, name) == pytest.approx(getattr(repeated, name), abs=1e-12), name
    assert auc_interval(labels, scores, weights).value == pytest.approx(repeated.auc, abs=1e-12)


def test_weights_of_one_give_the_metrics_of_unweighted_rows():
    labels, first, _ = drawn()
    probabilities = 1 / (1 + np.exp(-first))
    plain, ones = measure(labels, probabilities), measure(labels, probabilities, np.ones(len(labels)))
    assert ones.auc == pytest.approx(plain.auc, abs=1e-12)
    assert ones.ece == pytest.approx(plain.ece, abs=1e-12)
    assert (ones.rows, ones.positives) == (plain.rows, plain.positives)


def test_weighted_pairs_by_hand():
    # Positives .9 (weight 2) and .4 (1) against negatives .5 (3) and .4 (1): .9 beats both, .4 ties with one.
    ranking = WeightedRanking(np.array([1.0, 1.0, 0.0, 0.0]), np.array([0.9, 0.4, 0.5, 0.4]))
    assert ranking.auc(np.array([2.0, 1.0, 3.0, 1.0])) == pytest.approx((2 * 4 + 1 * 0.5) / (3 * 4))
    assert np.isnan(ranking.auc(np.array([0.0, 0.0, 3.0, 1.0])))


def test_the_bootstrap_of_equal_weights_agrees_with_delong():
    labels, first, second = drawn()
    ones = np.ones(len(labels))
    for plain, weighted in (
        (auc_interval(labels, first), auc_interval(labels, first, ones)),
        (auc_difference(labels, first, second), auc_difference(labels, first, second, ones)),
    ):
        assert weighted.value == pytest.approx(plain.value, abs=1e-12)
        assert weighted.high - weighted.low == pytest.approx(plain.high - plain.low, rel=0.08)


def test_counting_rows_twice_is_no_more_evidence():
    labels, first, second = drawn(800)
    once = auc_difference(labels, first, second, np.ones(800))
    twice = auc_difference(labels, first, second, np.full(800, 2.0))
    assert twice == pytest.approx(once, abs=1e-12)
    repeated = auc_difference(np.repeat(labels, 2), np.repeat(first, 2), np.repeat(second, 2))
    assert repeated.high - repeated.low < 0.8 * (once.high - once.low)


def test_uneven_weights_widen_the_interval():
    labels, first, _ = drawn()
    weights = np.random.default_rng(1).lognormal(0, 1.5, len(labels))
    even, uneven = auc_interval(labels, first, np.ones(len(labels))), auc_interval(labels, first, weights)
    assert uneven.high - uneven.low > 1.5 * (even.high - even.low)


def test_rows_of_weight_zero_are_as_if_they_were_not_there():
    labels, first, second = drawn(400)
    weights = np.where(np.arange(400) % 3 == 0, 0.0, 1.0)
    there = weights > 0
    left = measure(labels, 1 / (1 + np.exp(-first)), weights)
    alone = measure(labels[there], 1 / (1 + np.exp(-first[there])), weights[there])
    assert left.auc == pytest.approx(alone.auc, abs=1e-12)
    assert left.logloss == pytest.approx(alone.logloss, abs=1e-12)
    whole = auc_difference(labels, first, second, weights)
    part = auc_difference(labels[there], first[there], second[there], weights[there])
    assert whole.value == pytest.approx(part.value, abs=1e-12)


def test_the_same_seed_gives_the_same_interval_and_another_seed_one_like_it():
    labels, first, second = drawn(500)
    weights = np.random.default_rng(1).random(500)
    found = [auc_difference(labels, first, second, weights, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert found[0].low == pytest.approx(found[2].low, abs=0.1 * (found[0].high - found[0].low))


def test_equal_rankings_do_not_differ_at_all():
    labels, first, _ = drawn(300)
    assert auc_difference(labels, first, 3 * first - 7, np.arange(300.0)) == (0.0, 0.0, 0.0)


def test_a_class_with_a_single_weighty_row_has_the_widest_interval():
    found = auc_interval([1, 1, 0, 0, 0], [0.9, 0.1, 0.2, 0.3, 0.4], [1.0, 0.0, 1.0, 1.0, 1.0])
    assert found == (1.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, -1.0, 1.0], "found -1.0 at row 1"),
        ([1.0, 1.0, np.nan], "found nan at row 2"),
        ([np.inf, 1.0, 1.0], "found inf at row 0"),
        ([1.0, 1.0], "expected one per label"),
        ([0.0, 1.0, 1.0], "all rows with label 1 weigh 0"),
        ([0.0, 0.0, 0.0], "all rows with label 0 weigh 0"),
    ],
)
def test_weights_that_are_none_are_refused(weights, message):
    for score in (measure, auc_interval):
        with pytest.raises(DataError, match=message):
            score([1, 0, 0], [0.3, 0.2, 0.1], weights)
    with pytest.raises(DataError, match=message):
        auc_difference([1, 0, 0], [0.3, 0.2, 0.1], [0.1, 0.2, 0.3], weights)


def test_poisson_draws_have_mean_and_variance_one():
    table = _poisson_table().astype(float)
    assert table.mean() == pytest.approx(1.0, abs=1e-3)
    assert table.var() == pytest.approx(1.0, abs=1e-3)


# The world behind a sampled log


@given(st.floats(-700, 700), st.floats(0.001, 1.0))
def test_the_correction_is_the_published_formula(logit, rate):
    p = unsampled(np.array([logit]), rate)[0]
    q = 1 / (1 + np.exp(-logit)) if logit > -700 else 0.0
    assert 0.0 <= p <= 1.0
    assert p == pytest.approx(q / (q + (1 - q) / rate), abs=1e-12)


def test_the_correction_finds_the_rate_of_the_world_again():
    # A hundred clicks among a thousand rows; one negative in ten is kept: 100 of 190 rows are clicks.
    q = 100 / 190
    assert unsampled(np.array([np.log(q / (1 - q))]), 0.1)[0] == pytest.approx(0.1)


def test_a_log_that_was_not_sampled_gets_a_plain_sigmoid():
    logits = np.linspace(-30, 30, 601)
    np.testing.assert_allclose(unsampled(logits, 1.0), 1 / (1 + np.exp(-logits)), rtol=1e-15)


def test_a_row_stands_for_its_weight_and_a_negative_for_those_left_out_too():
    labels = np.array([0, 1, 0], np.uint8)
    assert row_weights(labels, None, 1.0) is None
    assert row_weights(labels, None, 0.25).tolist() == [4.0, 1.0, 4.0]
    assert row_weights(labels, np.array([1, 2, 0.5], np.float32), 0.25).tolist() == [4.0, 2.0, 2.0]
    assert row_weights(labels, np.array([1, 2, 0.5], np.float32), 1.0).tolist() == [1.0, 2.0, 0.5]
