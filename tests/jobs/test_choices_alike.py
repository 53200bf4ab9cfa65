from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest

from ctr.jobs.choices_alike import _pairs

EVERY = list(combinations("abcdefghijklmno", 2))[:100]


def chose(pairs):
    """A feature set that memorizes some of all pairs."""
    memorized = {EVERY[number] for number in pairs}
    methods = {"memorize": memorized, "factorize": set(), "naive": set(EVERY) - memorized}
    return SimpleNamespace(interactions=methods, pairs=lambda how: sorted(methods[how]))


def test_chance_is_that_of_all_pairs_which_could_have_been_chosen():
    # Each of 100 is chosen with a chance of .1: 18 of 20 choices agree, where 2 * 10 * .1 would by chance.
    found = _pairs([chose(range(10)), chose(range(2, 12))])
    assert found["nogueira"]["value"] == pytest.approx(1 - 2 * (4 * 0.25 / 100) / (0.1 * 0.9))
    assert found["jaccard"] == pytest.approx(8 / 12)


def test_pairs_drawn_at_random_are_not_stable():
    random = np.random.default_rng(0)
    indices = [
        _pairs([chose(random.choice(100, 10, replace=False)) for _ in range(5)])["nogueira"]["value"]
        for _ in range(40)
    ]
    assert abs(np.mean(indices)) < 0.02
