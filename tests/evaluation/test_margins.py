import math
from dataclasses import replace

import numpy as np
import pytest

from ctr.evaluation.influence import auc_influence
from ctr.evaluation.margins import decide, provable_margin, seeds_known
from ctr.evaluation.paired_seeds import Difference

SE = 0.001 / 1.959963984540054  # rows alone: a half-width of 0.001


def difference(value, *, width=1.0, seeds=None):
    return Difference(value, (value,) * 3, (width * SE) ** 2, seeds, 2)


@pytest.mark.parametrize(
    ("value", "margin", "outcome"),
    [
        (0.0015, 0.001, "gain"),
        (0.0005, 0.001, "no_loss"),
        (-0.0005, 0.002, "no_loss"),
        (-0.0015, 0.003, "no_loss"),
        (-0.0015, 0.001, "loss"),
        (-0.0005, 0.001, "undecided"),
        (0.0, 0.0005, "undecided"),
    ],
)
def test_an_interval_is_a_gain_no_loss_a_loss_or_decides_nothing(value, margin, outcome):
    assert decide(difference(value), margin, 1000).outcome == outcome


POWER = (1.959963984540054 + 0.8416212335729143) / 1.959963984540054


def test_rows_that_are_needed_grow_with_the_square_of_the_width():
    found = decide(difference(0.0, width=4.0), 0.001, 1000)
    assert found.provable == pytest.approx(0.004 * POWER)
    assert found.more_rows == pytest.approx(1000 * (16 * POWER**2 - 1), abs=1)
    assert (
        decide(difference(0.0, width=0.9), 0.001, 1000).more_rows > 0
    )  # it would prove it three times of five
    assert decide(difference(0.0, width=0.69), 0.001, 1000).more_rows == 0


def test_four_of_five_logs_of_the_rows_that_are_asked_for_prove_the_margin():
    more = decide(difference(0.0, width=3.0), 0.001, 1000).more_rows
    random, enough = np.random.default_rng(0), 3.0 * SE / np.sqrt((1000 + more) / 1000)
    values = random.normal(0.0, enough, 20_000)
    proven = [
        decide(Difference(value, (value,) * 3, enough**2), 0.001, 1).outcome in ("gain", "no_loss")
        for value in values
    ]
    assert np.mean(proven) == pytest.approx(0.8, abs=0.01)


def test_where_seeds_differ_by_more_than_the_margin_no_number_of_rows_helps():
    assert decide(difference(0.0, seeds=0.001**2), 0.001, 1000).more_rows is None
    helped = decide(difference(0.0, width=2.0, seeds=0.0001**2), 0.001, 1000).more_rows
    alone = decide(difference(0.0, width=2.0), 0.001, 1000).more_rows
    assert helped > alone


def test_more_rows_also_tell_seeds_apart_better():
    seeded = Difference(0.0, (0.0,) * 3, (2 * SE) ** 2, 0.0, 2, interplay=3 * (1.5 * SE) ** 2)
    found = decide(seeded, 0.001, 1000).more_rows
    more = replace(seeded, rows_variance=seeded.rows_variance / 30, interplay=seeded.interplay / 30)
    assert 0 < found < 29_000
    assert decide(more, 0.001, 30_000).more_rows == 0


def test_two_seeds_say_nothing_about_others():
    assert not seeds_known(Difference(0.0, (0.0, 0.0), 1e-6))
    assert seeds_known(difference(0.0))


def test_the_margin_foreseen_is_the_width_found_on_such_rows():
    random = np.random.default_rng(0)
    rows, strength = 20_000, 2**0.5 * 0.6744897501960817  # normal scores that far apart have AUC 0.75
    labels = (random.random(rows) < 0.3).astype(int)
    shared, own = np.sqrt(0.95), np.sqrt(0.05)
    common = random.normal(size=rows)
    first, second = (shared * common + own * random.normal(size=rows) + strength * labels for _ in range(2))
    old, new = auc_influence(labels, first), auc_influence(labels, second)
    half = 1.96 * np.sqrt(np.square(new.rows - old.rows).sum())
    correlation = np.corrcoef(old.rows, new.rows)[0, 1]
    foreseen = provable_margin(int(labels.sum()), int((1 - labels).sum()), 0.75, correlation)
    assert foreseen == pytest.approx(half * POWER, rel=0.12)  # the formula assumes exponential scores
    assert provable_margin(0, 10) == math.inf
