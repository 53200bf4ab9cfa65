"""Which set is chosen on valid."""

from pathlib import Path

import numpy as np
import pytest

from ctr.jobs.entries import Entry, Rows, Setting, by_setting
from ctr.jobs.valid_choice import choose

KEEP_ALL = Setting("keep_all", "keep all", None, "deepfm", "table")
HALF, TENTH = (Setting("selector", "optfs", size, "deepfm", "table") for size in (0.5, 0.1))
WIDTH = Setting("alternative", "width 4", None, "deepfm", "table")
BYTES = {KEEP_ALL: 1000, HALF: 500, TENTH: 100, WIDTH: 50}


def groups(aucs, seeds=(0, 1, 2), valid=None):
    found = []
    for setting, auc in aucs.items():
        for seed in seeds:
            kept = {"user": 5, "item": 0 if setting == TENTH else 3}
            facts = {"valid": {"auc": auc + 0.001 * seed}, "bundle_bytes": BYTES[setting], "fields": kept}
            facts |= {"bytes": 0, "cost": {"kept": 1.0 if setting == TENTH else 2.5}}
            scores = None if valid is None else valid[setting, seed]
            found.append(Entry(setting, seed, facts, scores, np.zeros(0), None, Path()))
    return by_setting(found)


def test_the_cheapest_set_within_one_standard_error_is_chosen():
    # Equal seeds in all settings: paired differences do not vary, and the standard error is zero.
    found = choose(groups({KEEP_ALL: 0.80, HALF: 0.80, TENTH: 0.79, WIDTH: 0.9}), None, {})
    assert (found.best, found.cheapest, found.chosen) == (KEEP_ALL, HALF, HALF)
    assert found.within == (KEEP_ALL, HALF)


def test_where_only_keep_all_comes_near_keep_all_the_best_set_is_chosen():
    found = choose(groups({KEEP_ALL: 0.80, HALF: 0.78, TENTH: 0.70}), None, {})
    assert (found.cheapest, found.chosen, found.best_set) == (KEEP_ALL, HALF, HALF)


def test_settings_are_paired_by_seed_and_not_by_position():
    # Seed 2 is better by 0.002 in all settings: paired by position, half would lose that to keep-all's seed 0.
    found = groups({KEEP_ALL: 0.80, HALF: 0.80}, seeds=(0, 1, 2))
    found[KEEP_ALL], found[HALF] = found[KEEP_ALL][1:], found[HALF][:2]
    assert choose(found, None, {}).within == (KEEP_ALL, HALF)


def test_a_set_that_shares_no_seed_with_the_best_is_not_within_a_standard_error():
    found = groups({KEEP_ALL: 0.80, HALF: 0.80}, seeds=(0, 1, 2))
    found[KEEP_ALL], found[HALF] = found[KEEP_ALL][2:], found[HALF][:2]
    assert choose(found, None, {}).within == (KEEP_ALL,)


def test_bytes_are_those_of_whole_bundles_on_both_sides_or_of_weights_on_both():
    found = groups({KEEP_ALL: 0.80, HALF: 0.80})
    for entry in found[KEEP_ALL]:  # as a finished run leaves it: its baseline has no bundle
        entry.facts.update(bundle_bytes=None, bytes=400)
    for entry in found[HALF]:
        entry.facts.update(bytes=200)
    assert (
        choose(found, None, {}).cheapest == HALF
    )  # of 500 bytes, with all that a bundle holds beside weights


@pytest.mark.parametrize(
    ("seeds", "known"),
    [((0, 1, 2), "known"), ((0, 1), "unknown"), ((0,), "unknown")],
)
def test_with_fewer_than_three_seeds_and_no_scores_the_standard_error_is_unknown(seeds, known):
    assert choose(groups({KEEP_ALL: 0.80, HALF: 0.79}, seeds), None, {}).standard_error == known


def test_with_few_seeds_and_scores_the_standard_error_is_that_over_rows():
    labels = np.array([0, 1, 0, 1], np.uint8)
    valid = {(setting, 0): np.array([0.1, 0.4, 0.2, 0.3]) for setting in (KEEP_ALL, HALF)}
    found = choose(groups({KEEP_ALL: 0.80, HALF: 0.79}, (0,), valid), Rows(labels), {})
    assert found.standard_error == "rows"


@pytest.mark.parametrize(
    ("budget", "chosen"),
    [
        ({"max_bytes": 500.0}, HALF),
        ({"max_bytes": 499.0}, TENTH),
        ({"max_fields": 1.0}, TENTH),
        ({"max_cost": 2.0}, TENTH),
        ({"max_cost": 0.5}, None),
    ],
)
def test_a_budget_is_met_by_the_best_set_that_fits_it(budget, chosen):
    found = choose(groups({KEEP_ALL: 0.80, HALF: 0.80, TENTH: 0.79}), None, budget)
    assert found.chosen == found.budget == chosen


def test_rows_of_valid_give_the_standard_error_that_a_worse_set_may_hide_in():
    random = np.random.default_rng(4)
    labels = (random.random(300) < 0.4).astype(np.uint8)
    good = labels + random.normal(size=300)
    scores = {KEEP_ALL: good, HALF: good + 0.1 * random.normal(size=300), TENTH: random.normal(size=300)}
    valid = {(setting, seed): each for setting, each in scores.items() for seed in (0, 1, 2)}
    found = choose(groups({KEEP_ALL: 0.0, HALF: 0.0, TENTH: 0.0}, valid=valid), Rows(labels), {})
    assert HALF in found.within
    assert TENTH not in found.within
    assert found.chosen == HALF
