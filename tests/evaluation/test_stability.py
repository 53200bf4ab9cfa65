import numpy as np
import pytest
from scipy.stats import t as student

from ctr.evaluation.stability import agreement, coin_flips, jaccard, nogueira
from tests.reference import stability as reference


@pytest.mark.parametrize(("runs", "things", "share"), [(2, 5, 0.5), (3, 40, 0.2), (12, 7, 0.8)])
def test_the_index_is_that_of_the_paper_and_its_interval_the_jackknifes(runs, things, share):
    choices = np.random.default_rng(runs).random((runs, things)) < share
    value, low, high = nogueira(choices)
    assert value == pytest.approx(reference.nogueira(choices.tolist()), abs=1e-12)
    if runs > 2:
        half = student.isf(0.025, runs - 1) * reference.jackknife_error(choices.tolist())
        assert low == pytest.approx(max(value - half, -1 / (runs - 1)), abs=1e-12)
        assert high == pytest.approx(min(value + half, 1.0), abs=1e-12)


def test_equal_choices_are_perfectly_stable_and_drawn_ones_not_at_all():
    assert nogueira(np.tile(np.arange(10) < 4, (3, 1))) == (1.0, 1.0, 1.0)
    value, low, high = nogueira(np.random.default_rng(0).random((20, 2000)) < 0.3)
    assert abs(value) < 0.01
    assert low < 0.0 < high


@pytest.mark.parametrize("runs", [3, 5, 10, 30])
def test_the_interval_of_the_index_covers_what_many_more_runs_would_give(runs):
    random = np.random.default_rng(1)
    chances = random.beta(0.3, 0.6, 500)  # most things are chosen nearly always, or nearly never
    truth = 1.0 - (chances * (1 - chances)).mean() / (chances.mean() * (1 - chances.mean()))
    found = [nogueira(random.random((runs, 500)) < chances) for _ in range(300)]
    assert np.mean([low <= truth <= high for _, low, high in found]) > 0.92


def test_two_runs_tell_nothing_of_how_much_runs_vary():
    value, low, high = nogueira(np.random.default_rng(1).random((2, 50)) < 0.5)
    assert (low, high) == (-1.0, 1.0)
    assert low < value < high


@pytest.mark.parametrize("choices", [np.ones((3, 4), bool), np.zeros((3, 4), bool), np.ones((1, 4), bool)])
def test_where_stability_means_nothing_there_is_no_index(choices):
    assert nogueira(choices) is None


def test_jaccard_is_the_mean_over_pairs_of_runs():
    choices = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]], bool)
    assert jaccard(choices) == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)
    assert jaccard(choices[:1]) is None
    assert jaccard(np.zeros((2, 4), bool)) == 1.0


def test_coin_flips_are_chosen_by_a_third_to_two_thirds_of_the_runs():
    choices = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0]], bool)
    assert coin_flips(choices).tolist() == [1, 2]


def test_agreement_is_fleisss_kappa_of_its_worked_example():
    # 14 raters put 10 things into 5 kinds: a worked example often quoted for it, kappa 0.210.
    table = [[0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1]]
    table += [[7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]]
    kinds = np.array([np.repeat(np.arange(5), counts) for counts in table]).T
    assert agreement(kinds) == pytest.approx(0.210, abs=5e-4)


def test_agreement_is_one_where_runs_agree_and_nothing_where_there_is_nothing_to_agree_on():
    assert agreement(np.tile([0, 1, 2, 1], (3, 1))) == pytest.approx(1.0)
    assert agreement(np.array([[0, 1, 2]])) is None
    assert agreement(np.ones((3, 4), int)) is None
    drawn = np.random.default_rng(0).integers(0, 3, (5, 4000))
    assert agreement(drawn) == pytest.approx(0.0, abs=0.02)
