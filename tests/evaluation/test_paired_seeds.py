from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_1samp

from ctr.evaluation import auc_difference
from ctr.evaluation.influence import Influence, auc_influence
from ctr.evaluation.paired_seeds import Difference, holm, paired_difference, pooled


def influences(labels, scores):
    return [auc_influence(labels, each) for each in scores]


def drawn(random, rows, seeds, *, shared=0.8, main=0.0, interplay=0.6, shift=1.2):
    """Scores of two configurations over seeds, of AUCs Phi(1 / r2) and, on average over seeds, a little more.

    Rows are hard or easy for all models (`shared`); seeds rank rows in their own way (`interplay`), and are better or
    worse on the whole (`main`).
    """
    labels = (random.random(rows) < 0.4).astype(int)
    labels[:4] = [0, 1, 0, 1]
    common = shared * random.normal(size=rows)
    own = np.sqrt(1.0 - shared**2)
    mixed = np.sqrt(own**2 * interplay), np.sqrt(own**2 * (1.0 - interplay))
    scores = []
    for strength in (1.0, shift):
        of_rows = mixed[1] * random.normal(size=rows)
        each = [
            common
            + of_rows
            + mixed[0] * random.normal(size=rows)
            + labels * (strength + main * random.normal())
            for _ in range(seeds)
        ]
        scores.append(each)
    return labels, scores[0], scores[1]


def true_difference(main, shift):
    """Of the mean AUC over seeds: a seed's AUC is Phi(strength / r2), its strength normal around the stated one."""
    scale = np.sqrt(2.0 + main**2)
    return NormalDist().cdf(shift / scale) - NormalDist().cdf(1.0 / scale)


def coverage(seeds, repetitions, rows=400, **kind):
    random = np.random.default_rng(11)
    truth = true_difference(kind.get("main", 0.0), kind.get("shift", 1.2))
    covered = 0
    for _ in range(repetitions):
        labels, first, second = drawn(random, rows, seeds, **kind)
        found = paired_difference(influences(labels, second), influences(labels, first)).interval()
        covered += found.low <= truth <= found.high
    return covered / repetitions


@pytest.mark.parametrize(
    ("seeds", "kind"),
    [
        (3, {}),
        (3, {"interplay": 0.0}),
        (3, {"main": 0.1}),
        (5, {"main": 0.2}),
        (3, {"shift": 1.0, "interplay": 0.2}),
    ],
    ids=["rows and interplay", "rows alone", "seeds as well", "seeds most of all", "equal models"],
)
def test_the_interval_covers_the_true_difference_in_93_to_97_percent_of_500_repetitions(seeds, kind):
    assert 0.93 <= coverage(seeds, 500, **kind) <= 0.97


@pytest.mark.parametrize("main", [0.0, 0.03, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("seeds", [3, 5])
def test_it_covers_as_often_where_only_seeds_tell_the_models_apart(seeds, main):
    random, covered = np.random.default_rng(1), 0
    for _ in range(500):
        labels = (random.random(400) < 0.2).astype(int)
        labels[:4] = [0, 1, 0, 1]
        common = random.normal(size=400)
        first, second = (
            [
                common + 0.3 * random.normal(size=400) + labels * (1 + main * random.normal())
                for _ in range(seeds)
            ]
            for _ in range(2)
        )
        low, high = paired_difference(influences(labels, second), influences(labels, first)).interval()[1:]
        covered += low <= 0.0 <= high
    assert 0.93 <= covered / 500 <= 0.97


@pytest.mark.parametrize("clusters", [3, 5, 10, 30])
def test_with_few_clusters_the_bounds_are_students(clusters):
    random, covered = np.random.default_rng(2), 0
    for _ in range(400):
        rows = np.repeat(random.normal(size=clusters), 4) / clusters / 4
        numbers = np.repeat(np.arange(clusters), 4)
        # The mean of the clusters' effects, whose truth is 0.
        found = Influence(float(rows.sum()), rows - rows.mean())
        low, high = paired_difference([found], [Influence(0.0, np.zeros(4 * clusters))], numbers).interval()[
            1:
        ]
        covered += low <= 0.0 <= high
    assert 0.92 <= covered / 400 <= 0.98


@settings(max_examples=200, deadline=None)
@given(
    value=st.floats(-1e-3, 1e-3) | st.floats(-1e-15, 1e-15),
    rows=st.floats(0.0, 1e-3) | st.just(1e-30),
    excess=st.none() | st.floats(-1e-4, 1e-3),
    interplay=st.floats(0.0, 1e-3),
    clusters=st.none() | st.integers(2, 40),
)
def test_there_is_a_p_value_of_any_difference(value, rows, excess, interplay, clusters):
    found = Difference(value, (value,) * 3, rows, excess, 2, interplay, clusters)
    assert 0.0 < found.p_value <= 1.0


def test_two_copies_of_one_model_differ_by_exactly_zero():
    labels, first, _ = drawn(np.random.default_rng(1), 300, 3)
    found = paired_difference(influences(labels, first), influences(labels, [3 * s + 1 for s in first]))
    assert found.interval() == (0.0, 0.0, 0.0)
    assert found.p_value == 1.0


def test_with_one_seed_it_is_delongs_interval_of_this_model():
    labels, first, second = drawn(np.random.default_rng(2), 300, 1)
    found = paired_difference(influences(labels, second), influences(labels, first))
    assert found.excess is None
    assert found.interval() == pytest.approx(auc_difference(labels, first[0], second[0]), abs=1e-12)


def test_with_seeds_that_differ_and_rows_that_do_not_it_is_students_interval():
    values = [0.01, 0.02, 0.06, 0.03]
    nothing = np.zeros(5)
    found = paired_difference(
        [Influence(value, nothing) for value in values], [Influence(0.0, nothing)] * len(values)
    )
    expected = ttest_1samp(values, 0.0)
    assert found.interval()[1:] == pytest.approx(tuple(expected.confidence_interval(0.95)), abs=1e-12)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6)


def test_swapping_the_models_mirrors_the_interval():
    labels, first, second = drawn(np.random.default_rng(3), 300, 3, main=0.2)
    there = paired_difference(influences(labels, second), influences(labels, first)).interval()
    back = paired_difference(influences(labels, first), influences(labels, second)).interval()
    assert there == pytest.approx((-back.value, -back.high, -back.low), abs=1e-15)


def test_the_p_value_is_the_level_at_which_the_interval_touches_zero():
    labels, first, second = drawn(np.random.default_rng(4), 300, 3, main=0.1)
    found = paired_difference(influences(labels, second), influences(labels, first))
    assert found.half_width(1.0 - found.p_value) == pytest.approx(abs(found.value), rel=1e-6)
    assert 0.0 < found.p_value < 1.0


def test_a_higher_level_gives_a_wider_interval():
    found = Difference(0.0, (0.1, -0.1, 0.0), 1e-4, 1e-4, 2)
    widths = [found.half_width(level) for level in (0.5, 0.9, 0.95, 0.999)]
    assert widths == sorted(widths)


def test_pooled_spreads_are_their_mean_with_all_their_degrees_of_freedom():
    one = Difference(0.1, (0.1, 0.2, 0.0), 1e-6, 4e-4, 2)
    other = Difference(0.2, (0.1, 0.2, 0.3), 1e-6, -1e-4, 2)
    alone = Difference(0.3, (0.3,), 1e-6)
    found = pooled([one, other, alone])
    assert [each.excess for each in found] == [pytest.approx(1.5e-4), pytest.approx(1.5e-4), None]
    assert [each.freedom for each in found] == [4, 4, 0]
    assert [each.value for each in found] == [0.1, 0.2, 0.3]
    assert found[2] == alone
    assert pooled([alone]) == [alone]


def test_all_corrected_intervals_of_equal_spreads_hold_at_once():
    random, settings, seeds, held = np.random.default_rng(5), 6, 3, 0
    for _ in range(400):
        drawn = random.normal(size=(settings, seeds))
        found = pooled([Difference(d.mean(), tuple(d), 0.0, float(d.var(ddof=1)), seeds - 1) for d in drawn])
        intervals = [each.interval(1.0 - 0.05 / settings) for each in found]
        held += all(low <= 0.0 <= high for _, low, high in intervals)
    assert 0.92 < held / 400 < 0.98


def test_holms_correction_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.2]) == pytest.approx([0.04, 0.09, 0.09, 0.2])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_unpaired_seeds_are_refused():
    with pytest.raises(ValueError, match="1 seeds of one, 0 of the other"):
        paired_difference([Influence(0.5, np.zeros(2))], [])
