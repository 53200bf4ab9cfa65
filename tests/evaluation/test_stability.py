import numpy as np
import pytest

from ctr.evaluation.stability import coin_flips, jaccard, nogueira
from tests.reference.stability import nogueira as slow_nogueira


@pytest.mark.parametrize(("runs", "things", "share"), [(2, 5, 0.5), (3, 40, 0.2), (12, 7, 0.8)])
def test_the_index_and_its_interval_are_those_of_the_paper(runs, things, share):
    choices = np.random.default_rng(runs).random((runs, things)) < share
    assert nogueira(choices) == pytest.approx(slow_nogueira(choices.tolist()), abs=1e-12)


def test_equal_choices_are_perfectly_stable_and_drawn_ones_not_at_all():
    assert nogueira(np.tile(np.arange(10) < 4, (3, 1))) == (1.0, 1.0, 1.0)
    value, low, high = nogueira(np.random.default_rng(0).random((20, 2000)) < 0.3)
    assert abs(value) < 0.01
    assert low < 0.0 < high


def test_the_interval_of_the_index_covers_what_many_more_runs_would_give():
    random = np.random.default_rng(1)
    chances = random.random(60)
    truth = 1.0 - (chances * (1 - chances)).mean() / (chances.mean() * (1 - chances.mean()))
    found = [nogueira(random.random((30, 60)) < chances) for _ in range(200)]
    assert 0.88 < np.mean([low <= truth <= high for _, low, high in found]) < 0.99


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
