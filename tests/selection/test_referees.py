"""Referees: exact sizes, ties, and what happens to unknown and missing."""

import numpy as np
import polars as pl
import pytest

from ctr.errors import CtrError
from ctr.selection.referees import REFEREES, number_to_keep, protected, top_values, value_features
from tests.selection.conftest import kept_values


@pytest.fixture(scope="module")
def tiny(make_dataset):
    """Fields a (x x x x y y z, then missing) and b (p q p q ...), each row forty times over."""
    rows = [
        ("x", "p"),
        ("x", "q"),
        ("x", "p"),
        ("x", "q"),
        ("y", "p"),
        ("y", "q"),
        ("z", "p"),
        (None, "q"),
    ] * 40
    frame = pl.DataFrame(rows, schema=["a", "b"], orient="row").with_columns(
        click=pl.Series([n % 3 == 0 for n in range(len(rows))]).cast(pl.Int8)
    )
    return make_dataset(frame, [{"name": "a"}, {"name": "b"}])


def test_values_are_all_features_but_unknown_and_missing(tiny):
    assert value_features(tiny).tolist() == [False, False, True, True, True, False, False, True, True]


@pytest.mark.parametrize("name", ["frequency", "random"])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_a_referee_keeps_exactly_as_many_values_as_it_is_told(name, count, tiny, mixed):
    for dataset in (tiny, mixed):
        found = REFEREES[name](dataset, count, 7)
        assert found.counts()["kept"] == count
        assert found.provenance["selector"] == name
        assert found.provenance["dataset"] == dataset.digest


def test_frequency_keeps_the_most_frequent_values(tiny):
    counts = tiny.vocabulary.filter(pl.col("role") == "value").sort("count", descending=True)
    assert set(counts["value"][:4]) == {"p", "q", "x", "y"}
    found = REFEREES["frequency"](tiny, 4, 0)
    assert kept_values(found, "a") == {"x", "y"}
    assert kept_values(found, "b") == {"p", "q"}


def test_all_keeps_everything_whatever_the_count(tiny):
    assert REFEREES["all"](tiny, 1, 0).kept.all()


def test_random_depends_on_its_seed_alone(mixed):
    draws = [REFEREES["random"](mixed, 10, seed).kept for seed in (3, 3, 4)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert REFEREES["random"](mixed, 10, 3).provenance["seed"] == 3


def test_random_gives_every_value_the_same_chance(tiny):
    kept = sum(
        REFEREES["random"](tiny, 2, seed).kept[value_features(tiny)].astype(int) for seed in range(500)
    )
    assert kept.sum() == 1000
    assert kept.min() > 150  # of 200 expected, four standard errors are 44
    assert kept.max() < 250


def test_of_equal_scores_the_more_frequent_value_goes_first_then_the_lower_id(tiny):
    scores = np.zeros(tiny.features)
    order = []
    for count in range(1, 6):
        kept = top_values(tiny, scores, count) & value_features(tiny)
        order += [int(feature) for feature in np.flatnonzero(kept) if feature not in order]
    frequency = tiny.vocabulary["count"].to_list()
    expected = sorted((2, 3, 4, 7, 8), key=lambda feature: (-frequency[feature], feature))
    assert order == expected


def test_missing_stays_where_it_scores_as_high_as_the_last_value_kept(tiny):
    scores = np.array([9.0, 5.0, 4.0, 6.0, 1.0, 9.0, 9.0, 2.0, 3.0])  # 1 is the missing of a
    assert not top_values(tiny, scores, 1)[1]  # the last value kept has 6
    assert top_values(tiny, scores, 2)[1]  # and now 4
    scores[1] = 4.0
    assert top_values(tiny, scores, 2)[1]
    scores[1] = 3.9
    assert not top_values(tiny, scores, 2)[1]


def test_what_no_train_row_holds_is_kept_at_no_score(tiny):
    assert tiny.vocabulary["count"][6] == 0  # b is never missing
    assert not top_values(tiny, np.ones(tiny.features), 5)[6]


@pytest.mark.parametrize(("ratio", "count"), [(0.2, 1), (0.5, 2), (0.7, 4), (0.001, 1), (0.999, 5)])
def test_a_ratio_is_a_number_of_values_at_least_one(ratio, count, tiny):
    assert number_to_keep(tiny, ratio) == count


def test_a_set_without_any_feature_is_refused_with_what_to_do(tiny):
    from ctr.dataset.feature_set import FeatureSet

    with pytest.raises(CtrError, match=r"dropped every feature.*selector\.penalty.*selector\.ratio"):
        FeatureSet.of(tiny, np.zeros(tiny.features, bool), np.zeros(tiny.features), {})


@pytest.fixture(scope="module")
def ruled(make_dataset):
    """A field that is always kept, one that never is, a bias field, and a plain one; 240 rows."""
    columns = {
        name: [f"{name}{n % size}" for n in range(240)]
        for name, size in (("always", 4), ("never", 3), ("place", 5), ("plain", 10))
    }
    frame = pl.DataFrame({"click": [n % 7 % 2 for n in range(240)], **columns})
    fields = [
        {"name": "always", "keep": "always"},
        {"name": "never", "keep": "never"},
        {"name": "place", "role": "bias", "serve_value": "place0"},
        {"name": "plain"},
    ]
    return make_dataset(frame, fields)


@pytest.mark.parametrize("name", ["all", "frequency", "random"])
def test_what_the_schema_keeps_or_drops_is_out_of_a_referees_hands(name, ruled):
    found = REFEREES[name](ruled, 12, 3)
    kept = {field: entry["kept"] for field, entry in found.counts()["fields"].items()}
    assert kept == {"always": 4, "never": 0, "place": 5, "plain": 10 if name == "all" else 3}


def test_protected_values_stay_even_where_the_size_has_no_room_for_them(ruled):
    found = REFEREES["frequency"](ruled, 2, 0)
    assert found.counts()["kept"] == 9
    assert not kept_values(found, "never")


def test_missing_of_a_field_that_is_never_kept_is_dropped_too(ruled):
    always, never = protected(ruled)
    assert (always.sum(), never.sum()) == (6 + 7, 5)
    assert not REFEREES["all"](ruled, 1, 0).kept[never].any()


def test_frequency_goes_by_weight(make_dataset):
    frame = pl.DataFrame(
        {
            "click": [n % 7 % 2 for n in range(300)],
            "user": [f"u{n % 3}" for n in range(300)],
            "w": [(5.0, 1.0, 2.0)[n % 3] for n in range(300)],
        }
    )
    found = REFEREES["frequency"](make_dataset(frame, [{"name": "user"}], weight="w"), 1, 0)
    assert kept_values(found, "user") == {"u0"}
