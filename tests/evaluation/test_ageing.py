"""The pace at which a set ages: by hand, of equal models, and how often its interval covers a known truth."""

import numpy as np
import pytest

from ctr.evaluation.ageing import pace
from ctr.evaluation.influence import Influence, auc_influence


def window(random, rows, loss, seeds):
    """AUCs of a frozen and a fresh model on the same rows, by seed; the frozen one is noisier by `loss`."""
    labels = random.random(rows) < 0.4
    hard = random.normal(size=rows)
    found = []
    for _ in range(seeds):
        fresh = labels + hard + 0.3 * random.normal(size=rows)
        frozen = fresh + loss * random.normal(size=rows)
        found.append((auc_influence(labels, frozen), auc_influence(labels, fresh)))
    frozen, fresh = zip(*found, strict=True)
    return list(frozen), list(fresh)


def test_the_pace_is_the_slope_of_weighted_least_squares_through_the_origin():
    values, rows, ages = [0.0, -0.02, -0.03], [100, 50, 200], [0.0, 1.0, 2.0]
    frozen = [[Influence(value, np.zeros(n))] for value, n in zip(values, rows, strict=True)]
    anew = [[Influence(0.0, np.zeros(n))] for n in rows]
    slope = np.linalg.lstsq(
        np.sqrt(rows)[:, None] * np.array(ages)[:, None], np.sqrt(rows) * values, rcond=None
    )[0]
    assert pace(frozen, anew, ages).value == pytest.approx(slope[0], abs=1e-15)


def test_a_set_that_is_the_same_when_selected_anew_does_not_age_at_all():
    random = np.random.default_rng(1)
    frozen = [window(random, 200, 0.0, 3)[1] for _ in range(3)]
    found = pace(frozen, frozen, [0.0, 1.0, 2.0])
    assert found.interval() == (0.0, 0.0, 0.0)


def test_rows_of_a_cluster_are_added_up_over_windows():
    random = np.random.default_rng(2)
    rows = random.normal(size=40) * 0.01
    frozen = [[Influence(-0.01, rows)], [Influence(-0.02, rows)]]
    anew = [[Influence(0.0, np.zeros(40))] for _ in range(2)]
    numbers = np.arange(40)
    apart = pace(frozen, anew, [1.0, 1.0], [numbers, numbers + 40]).rows_variance
    together = pace(frozen, anew, [1.0, 1.0], [numbers, numbers]).rows_variance
    assert together == pytest.approx(2.0 * apart, rel=0.05)


def test_windows_that_are_all_of_age_zero_have_no_pace():
    with pytest.raises(ValueError, match="above 0"):
        pace([[Influence(0.0, np.zeros(3))]], [[Influence(0.0, np.zeros(3))]], [0.0])


def test_its_interval_covers_the_truth_as_often_as_it_says():
    """The truth is the mean over 300 repetitions, known to a seventeenth of an interval."""
    found = []
    for repetition in range(300):
        random = np.random.default_rng(repetition)
        windows = [window(random, 400, 0.4 * age, 1) for age in (0.0, 1.0, 2.0)]
        found.append(pace([each[0] for each in windows], [each[1] for each in windows], [0.0, 1.0, 2.0]))
    truth = float(np.mean([each.value for each in found]))
    covered = np.mean([each.interval().low <= truth <= each.interval().high for each in found])
    assert 0.92 <= covered <= 0.98
