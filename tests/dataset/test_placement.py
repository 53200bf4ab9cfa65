"""Which rows features read: budgets counted by hand, and places against one feature at a time in plain integers."""

import json
import re
from itertools import product
from typing import NamedTuple, get_args

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ctr.dataset.hashing import PRIME, multipliers, value_keys
from ctr.dataset.placed import PlacedFeatures, PlacedKeys
from ctr.dataset.placement import Composition, Placement, place
from ctr.errors import ConfigError

COMPOSITIONS = get_args(Composition)
SIDE_BY_SIDE = ("lookup", "robe")
WITH_SECOND = ("multi_hash", "quotient_remainder")
NAMES = ["user", "item", "hour", "city", "ad"]


class Case(NamedTuple):
    """Arguments of `place`, all but the budget, and the least rows that they need."""

    features: dict[str, int]
    keys: dict
    needed: int

    def placed(self, **budget) -> Placement:
        return place(self.features, **self.keys, **budget)


def keys_of(field: str, count: int) -> np.ndarray:
    return value_keys(field, pl.Series("any", [f"v{n}" for n in range(count)], dtype=pl.String))


def exact_rows(composition: str, lookups: int) -> int:
    """Rows of the budget that a feature free of collisions takes."""
    return {"multi_hash": 1, "quotient_remainder": 2}.get(composition, lookups)


@st.composite
def cases(draw, collision_free: tuple[int, int] = (0, 12)) -> Case:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=5, unique=True))
    features = {name: draw(st.integers(1, 30)) for name in names}
    chosen = draw(st.sampled_from(COMPOSITIONS))
    keys = {
        "composition": chosen,
        "shared": draw(st.booleans()),
        "dim": 12,
        "linear": draw(st.integers(0, 1)),
        "lookups": 2 if chosen == "quotient_remainder" else draw(st.sampled_from([1, 2, 3, 4])),
        "collision_free": draw(st.integers(*collision_free)),
    }
    if chosen != "quotient_remainder":
        keys["field_lookups"] = draw(st.dictionaries(st.sampled_from(names), st.integers(1, 5), max_size=3))
    lookups = keys.get("field_lookups", {})
    exact = {name: count for name, count in features.items() if count <= keys["collision_free"]}
    taken = sum(n * exact_rows(chosen, lookups.get(name, keys["lookups"])) for name, n in exact.items())
    stretches = len(features) - len(exact)
    if keys["shared"]:
        stretches = min(1, stretches)
    return Case(features, keys, taken + stretches * (2 if chosen == "quotient_remainder" else 1))


def slow_hash(key: int, lookup: int) -> int:
    a, b, c = multipliers(lookup)
    return (a * (key >> 33) + b * ((key >> 2) % 2**31) + c) % PRIME


def slow_places(placement: Placement, field: str, key: int, number: int) -> list[int]:
    """What one feature reads, the `number`-th of its field."""
    (own,) = (stretch for stretch in placement.stretches if stretch.field == field)
    found = []
    if placement.composition == "quotient_remainder":
        found = [own.start + (number if own.exact else slow_hash(key, 0) % own.rows)]
    elif placement.composition == "multi_hash" and own.exact:
        found = [own.start + number]
    else:
        for lookup in range(own.lookups):
            row = number * own.lookups + lookup if own.exact else slow_hash(key, lookup) % own.rows
            found.append(own.start + row)
            if placement.composition == "robe":
                starts = (own.rows - 1) * placement.width + 1  # a block may start at each of so many floats
                first = row * placement.width if own.exact else slow_hash(key, lookup) % starts
                found[-1] = own.start * placement.width + first
    second = placement.composition in WITH_SECOND
    found += [0] * (placement.numbers - second - len(found))
    if second:
        row = number if own.exact else slow_hash(key, 1000) % own.second_rows
        found.append(own.second_start + row)
    return found


def all_places(placement: Placement, features: dict[str, int]) -> dict[str, np.ndarray]:
    return {
        name: placement.places(keys_of(name, count), placement.of(name), np.arange(count))
        for name, count in features.items()
    }


# Budgets


def test_a_budget_in_bytes_by_hand():
    # 8 floats and a first-order weight in a row: 36 bytes, so 1,000 bytes hold 27 rows.
    shared = place({"user": 30, "item": 10}, shared=True, dim=16, linear=1, bytes=1000)
    assert (shared.width, shared.rows, shared.parameters) == (9, 28, 27 * 9)
    assert [(own.start, own.rows) for own in shared.stretches] == [(1, 27), (1, 27)]
    # One row each, and of the 25 others three in four: 18.75 and 6.25.
    separate = place({"user": 30, "item": 10}, shared=False, dim=16, linear=1, bytes=1000)
    assert [(own.start, own.rows) for own in separate.stretches] == [(1, 20), (21, 7)]
    assert separate.rows == 28


def test_rows_of_two_tables_by_hand():
    keys = {"shared": False, "dim": 4, "linear": 0}
    # A row of 4 floats and the weights of 2 lookups, which are another row of 2 floats: 24 bytes.
    weighted = place({"user": 3, "item": 1}, composition="multi_hash", bytes=24 * 10, **keys)
    assert (weighted.rows, weighted.second_rows) == (11, 11)
    assert (weighted.width, weighted.second_width) == (4, 2)
    assert weighted.parameters == 10 * 6
    # Rows of both tables are paid for alike: 10 rows of 16 bytes, of which a stretch has half in each.
    both = place({"user": 3, "item": 1}, composition="quotient_remainder", bytes=16 * 11, **keys)
    assert [(own.rows, own.second_rows) for own in both.stretches] == [(4, 3), (2, 2)]
    assert (both.rows, both.second_rows, both.parameters) == (7, 6, 11 * 4)


@given(cases(), st.integers(0, 2000))
def test_a_budget_in_bytes_is_kept_and_used_up(case, extra):
    least = case.placed(rows=case.needed)
    stated = 4 * least.parameters + extra
    placement = case.placed(bytes=stated)
    assert 4 * placement.parameters <= stated
    if not all(own.exact for own in placement.stretches):
        row = 4 * (
            placement.width + (placement.second_width if case.keys["composition"] == "multi_hash" else 0)
        )
        assert 4 * placement.parameters > stated - row


@given(cases(), st.integers(0, 60))
def test_a_budget_in_rows_is_what_the_tables_have(case, extra):
    placement = case.placed(rows=case.needed + extra)
    found = placement.rows - 1
    if case.keys["composition"] == "quotient_remainder":
        found += placement.second_rows - 1
    elif case.keys["composition"] == "multi_hash":
        assert placement.second_rows == placement.rows
    else:
        assert placement.second_rows == 0
    hashed = [own for own in placement.stretches if not own.exact]
    assert found == case.needed + (extra if hashed else 0)


@given(cases(), st.integers(0, 60))
def test_a_budget_that_does_not_do_is_refused_with_one_that_does(case, short):
    assume(case.needed > 0)
    row = 4 * case.placed(rows=case.needed).width
    if case.keys["composition"] == "multi_hash":
        row += 4 * case.placed(rows=case.needed).second_width
    for budget in (
        {"rows": max(0, case.needed - 1 - short)},
        {"bytes": max(1, case.needed * row - 1 - short)},
    ):
        with pytest.raises(ConfigError) as caught:
            case.placed(**budget)
        assert f"embedding.{next(iter(budget))} = " in str(caught.value)
        enough = int(re.search(r"([\d,]+) bytes\)? or more", str(caught.value))[1].replace(",", ""))
        assert enough == case.needed * row
    placement = case.placed(bytes=enough)
    assert 4 * placement.parameters == enough
    with pytest.raises(ConfigError):
        case.placed(bytes=enough - 1)


def test_what_a_small_budget_is_told():
    keys = {"shared": False, "dim": 16, "linear": 1}
    with pytest.raises(ConfigError) as caught:
        place({"user": 900, "item": 90, "hour": 24}, bytes=1000, collision_free=30, **keys)
    assert str(caught.value) == (
        "embedding.bytes = 1,000 holds 27 rows of 9 floats (36 bytes each), expected at least 50 rows: 2 for "
        "hashed fields and 48 for fields free of collisions; state 1,800 bytes or more, or lower "
        "embedding.collision_free"
    )
    with pytest.raises(ConfigError) as caught:
        place({"user": 900, "item": 90}, rows=1, **keys)
    assert str(caught.value) == (
        "embedding.rows = 1 holds 1 row of 9 floats (36 bytes each), expected at least 2 rows: 2 for hashed "
        "fields; state 2 rows (72 bytes) or more"
    )
    with pytest.raises(
        ConfigError, match=r"holds 0 rows .* at least 1 row: 1 for .* state 36 bytes or more$"
    ):
        place({"user": 900, "item": 90}, bytes=35, **{**keys, "shared": True})
    with pytest.raises(ConfigError, match=r"expected at least 180 rows: 180 for fields free of collisions; "):
        place({"item": 90}, bytes=1000, collision_free=90, **keys)


def test_without_a_budget_it_is_a_tenth_of_a_row_for_each_feature():
    # 1,000 features at 17 floats are 68,000 bytes; 6,800 hold 188 rows of 36.
    placement = place({"user": 900, "item": 100}, shared=True, dim=16, linear=1)
    assert placement.rows - 1 == 188
    # A tenth would not hold the 20 values of their own twice: then it is what they need, and a row for the others.
    placement = place({"user": 21, "item": 20}, shared=True, dim=16, linear=1, collision_free=20)
    assert placement.rows - 1 == 2 * 20 + 1


def test_when_all_fields_are_free_of_collisions_tables_are_no_larger_than_they_need():
    placement = place({"user": 3, "item": 2}, shared=True, dim=4, linear=0, bytes=10**9, collision_free=3)
    assert placement.rows - 1 == 2 * 5
    places = np.concatenate(list(all_places(placement, {"user": 3, "item": 2}).values()))
    assert sorted(places.ravel().tolist()) == list(range(1, 11))


# Stretches


def test_separate_tables_are_in_proportion_to_values_and_add_up():
    features = {"user": 1000, "item": 100, "hour": 10, "city": 1}
    placement = place(features, shared=False, dim=2, linear=0, rows=1115)
    rows = {own.field: own.rows for own in placement.stretches}
    assert sum(rows.values()) == 1115
    # One row each comes first; the other 1,111 are one for each value.
    assert rows == {"user": 1001, "item": 101, "hour": 11, "city": 2}


def test_what_rounding_leaves_goes_to_the_largest_rests():
    # Of 10 rows one each; 7 in proportion 5:4:2 are 3.18, 2.54 and 1.27.
    placement = place({"user": 5, "item": 4, "hour": 2}, shared=False, dim=2, linear=0, rows=10)
    assert [own.rows for own in placement.stretches] == [4, 4, 2]


@given(cases(), st.integers(0, 200))
def test_stretches_fill_the_tables_without_gaps(case, extra):
    placement = case.placed(rows=case.needed + extra)
    assert [own.field for own in placement.stretches] == list(case.features)
    own_lookups = case.keys.get("field_lookups", {})
    for own in placement.stretches:
        assert own.exact == (case.features[own.field] <= case.keys["collision_free"])
        assert own.lookups == own_lookups.get(own.field, case.keys["lookups"])
    tables = [({(own.start, own.rows) for own in placement.stretches}, placement.rows)]
    if case.keys["composition"] in WITH_SECOND:
        seconds = {(own.second_start, own.second_rows) for own in placement.stretches}
        tables.append((seconds, placement.second_rows))
    for stretches, rows in tables:
        end = 1
        for start, length in sorted(stretches):
            assert start == end
            assert length >= 1
            end += length
        assert end == rows
    hashed = {own.start for own in placement.stretches if not own.exact}
    assert len(hashed) <= 1 or not case.keys["shared"]


# Places


@settings(max_examples=150)
@given(cases(), st.integers(0, 60))
@example(
    Case({"user": 4}, {"composition": "robe", "shared": True, "dim": 12, "linear": 1, "lookups": 2}, 1), 0
)
def test_places_are_those_of_one_feature_at_a_time(case, extra):
    placement = case.placed(rows=case.needed + extra)
    for name, found in all_places(placement, case.features).items():
        keys = keys_of(name, case.features[name]).tolist()
        expected = [slow_places(placement, name, key, number) for number, key in enumerate(keys)]
        assert found.tolist() == expected


@settings(max_examples=150)
@given(cases(), st.integers(0, 60))
def test_places_are_within_the_fields_own_stretch_and_never_the_dropped_row(case, extra):
    placement = case.placed(rows=case.needed + extra)
    composition, width = placement.composition, placement.width
    for name, found in all_places(placement, case.features).items():
        own = placement.stretches[placement.of(name)]
        assert found.shape == (case.features[name], placement.numbers)
        columns = (
            1
            if composition == "quotient_remainder" or (composition == "multi_hash" and own.exact)
            else own.lookups
        )
        if composition == "robe":
            first, last = found[:, :columns], found[:, :columns] + width - 1
            assert (first >= own.start * width).all()
            assert (last < (own.start + own.rows) * width).all()
            assert (last < placement.rows * width).all()
        else:
            assert (found[:, :columns] >= own.start).all()
            assert (found[:, :columns] < own.start + own.rows).all()
            assert (found[:, :columns] < placement.rows).all()
        rest = found[:, columns:]
        if composition in WITH_SECOND:
            assert (found[:, -1] >= own.second_start).all()
            assert (found[:, -1] < own.second_start + own.second_rows).all()
            assert (found[:, -1] < placement.second_rows).all()
            rest = rest[:, :-1]
        assert not rest.any()
        assert own.start >= 1


def rows_read(placement: Placement, places: np.ndarray) -> list[set[tuple[str, int]]]:
    """Per feature the rows that it reads, of both tables."""
    second = placement.composition in WITH_SECOND
    found = []
    for numbers in places.tolist():
        table = [number for number in numbers[: len(numbers) - second] if number]
        if placement.composition == "robe":
            floats = [number + shift for number in table for shift in range(placement.width)]
            table = [number // placement.width for number in floats]
        found.append({("first", row) for row in table} | {("second", row) for row in numbers[-1:] if second})
    return found


@given(cases(collision_free=(5, 30)), st.integers(0, 60))
def test_features_free_of_collisions_have_rows_that_nobody_else_reads(case, extra):
    placement = case.placed(rows=case.needed + extra)
    taken: set[tuple[str, int]] = set()
    others: set[tuple[str, int]] = set()
    for name, places in all_places(placement, case.features).items():
        own = placement.stretches[placement.of(name)]
        for rows in rows_read(placement, places):
            if not own.exact:
                others |= rows
                continue
            expected = own.lookups if case.keys["composition"] in SIDE_BY_SIDE else 2
            assert len(rows) == expected
            assert not rows & taken
            taken |= rows
    assert not taken & others


@given(cases(), st.integers(0, 60))
def test_fields_are_read_together_as_one_by_one(case, extra):
    placement = case.placed(rows=case.needed + extra)
    one_by_one = all_places(placement, case.features)
    stretches = np.concatenate([np.full(n, placement.of(name)) for name, n in case.features.items()])
    keys = np.concatenate([keys_of(name, n) for name, n in case.features.items()])
    numbers = np.concatenate([np.arange(n) for n in case.features.values()])
    together = placement.places(keys, stretches, numbers)
    assert together.tolist() == np.concatenate(list(one_by_one.values())).tolist()
    square = placement.places(keys[:, None], stretches[:, None], numbers[:, None])
    assert square.shape == (len(keys), 1, placement.numbers)
    assert square[:, 0].tolist() == together.tolist()


@pytest.mark.parametrize(("composition", "shared"), [*product(COMPOSITIONS, [True, False])])
def test_numbers_of_a_place_are_enough_for_the_usual_lookups(composition, shared):
    """The network reads as many rows as usual, whatever the lookups of the fields that there happen to be."""
    lookups = 2 if composition == "quotient_remainder" else 3
    few = None if composition == "quotient_remainder" else {"user": 1, "item": 1}
    placement = place(
        {"user": 5, "item": 5}, shared=shared, composition=composition, dim=6, linear=0, lookups=lookups,
        field_lookups=few, rows=10,
    )  # fmt: skip
    assert (
        placement.numbers == {"lookup": 3, "robe": 3, "multi_hash": 4, "quotient_remainder": 2}[composition]
    )
    if composition in SIDE_BY_SIDE:
        assert placement.odd_lookups == {"user": 1, "item": 1}
        places = placement.places(keys_of("user", 5), placement.of("user"))
        assert not places[:, 1:].any()
        assert places[:, 0].all()
    else:
        assert placement.odd_lookups == {}


def test_a_table_of_one_row_is_read_by_everyone():
    for composition in ("lookup", "robe", "multi_hash"):
        placement = place({"user": 50}, shared=True, composition=composition, dim=4, linear=0, rows=1)
        first = placement.width if composition == "robe" else 1
        expected = [first, first, *([1] if composition == "multi_hash" else [])]
        assert placement.places(keys_of("user", 50), 0).tolist() == [expected] * 50


# Fields that come and go


def moved(before: Placement, after: Placement, fields: list[str]) -> bool:
    return any(
        before.places(keys_of(name, 50), before.of(name)).tolist()
        != after.places(keys_of(name, 50), after.of(name)).tolist()
        for name in fields
    )


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_in_a_shared_table_of_the_same_size_other_fields_move_nothing(composition):
    def shared(*names: str, **keys) -> Placement:
        return place(
            dict.fromkeys(names, 50), shared=True, composition=composition, dim=4, linear=1, rows=40, **keys
        )

    before = shared("user", "item")
    assert not moved(before, shared("item", "user"), ["user", "item"])
    assert not moved(before, shared("new", "user", "hour", "item"), ["user", "item"])
    assert not moved(before, shared("item"), ["item"])
    # What a field holds decides nothing but the size of the table.
    assert not moved(
        before, place({"item": 7}, shared=True, composition=composition, dim=4, linear=1, rows=40), ["item"]
    )


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_in_separate_tables_a_field_keeps_its_hashes_and_shifts_as_a_whole(composition):
    keys = {"shared": False, "composition": composition, "dim": 4, "linear": 0}
    before = place({"user": 50, "item": 50}, rows=40, **keys)
    after = place({"item": 50, "user": 50}, rows=40, **keys)
    assert moved(before, after, ["user"])
    for name in ("user", "item"):
        old, new = before.stretches[before.of(name)], after.stretches[after.of(name)]
        shift = (new.start - old.start) * (before.width if composition == "robe" else 1)
        shifts = np.full(before.numbers, shift)
        if composition in WITH_SECOND:
            shifts[-1] = new.second_start - old.second_start
        places = [one.places(keys_of(name, 50), one.of(name)) for one in (before, after)]
        assert (places[1] - places[0] == shifts).all()


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_fields_free_of_collisions_stand_behind_a_shared_stretch_and_do_not_move_it(composition):
    keys = {"shared": True, "composition": composition, "dim": 4, "linear": 0, "collision_free": 3}
    before = place({"user": 50, "item": 50}, rows=40, **keys)
    own = 3 * exact_rows(composition, 2)
    after = place({"hour": 3, "item": 50, "user": 50}, rows=40 + own, **keys)
    assert not moved(before, after, ["user", "item"])
    assert after.rows > before.rows


def test_two_fields_with_the_same_texts_read_different_rows():
    placement = place({"user": 500, "item": 500}, shared=True, dim=2, linear=0, rows=1000)
    one, two = (placement.places(keys_of(name, 500), placement.of(name)) for name in ("user", "item"))
    assert (one == two).mean() < 0.01


# Compact placements


@given(cases(), st.integers(0, 200), st.data())
def test_what_is_kept_has_as_many_features_on_a_row_as_before(case, extra, data):
    before = case.placed(rows=case.needed + extra)
    kept = {name: data.draw(st.integers(0, count), label=name) for name, count in case.features.items()}
    after = before.kept(case.features, kept)
    assert [own.field for own in after.stretches] == [name for name in case.features if kept[name]]
    for name in ("composition", "shared", "width", "linear", "lookups"):
        assert getattr(after, name) == getattr(before, name)
    least = 2 if case.keys["composition"] == "quotient_remainder" else 1

    def rows(own) -> int:
        return own.rows + (own.second_rows if case.keys["composition"] == "quotient_remainder" else 0)

    hashed = [own.field for own in before.stretches if not own.exact]
    for own in after.stretches:
        old = before.stretches[before.of(own.field)]
        assert (own.exact, own.lookups) == (old.exact, old.lookups)
        if own.exact:
            assert rows(own) == kept[own.field] * exact_rows(case.keys["composition"], own.lookups)
            continue
        joined = hashed if case.keys["shared"] else [own.field]
        share = sum(kept[name] for name in joined) / sum(case.features[name] for name in joined)
        assert rows(own) == max(least, round(rows(old) * share))
        assert rows(own) <= rows(old)
    assert after.parameters <= before.parameters


def test_a_compact_placement_by_hand():
    features = {"user": 80, "item": 20, "hour": 3}
    keys = {"dim": 4, "linear": 0, "lookups": 2, "collision_free": 3}
    kept = {"user": 10, "item": 15, "hour": 2}
    shared = place(features, shared=True, rows=46, **keys).kept(features, kept)
    # 40 rows held 100 values: 25 of them are held by 10. Two hours have two rows each.
    assert [(own.field, own.start, own.rows) for own in shared.stretches] == [
        ("user", 1, 10),
        ("item", 1, 10),
        ("hour", 11, 4),
    ]
    assert shared.rows == 15
    separate = place(features, shared=False, rows=46, **keys)
    assert [own.rows for own in separate.stretches] == [31, 9, 6]
    assert [own.rows for own in separate.kept(features, kept).stretches] == [4, 7, 4]
    without = shared.kept({"user": 10, "item": 15, "hour": 2}, {"user": 10, "item": 15})
    assert [own.field for own in without.stretches] == ["user", "item"]
    assert without.rows == 11


@given(cases(), st.integers(0, 200))
def test_all_kept_is_the_placement_itself(case, extra):
    placement = case.placed(rows=case.needed + extra)
    assert placement.kept(case.features, case.features) == placement


# As JSON


@given(cases(), st.integers(0, 200))
def test_a_placement_survives_being_written_as_json(case, extra):
    placement = case.placed(rows=case.needed + extra)
    again = Placement.from_entry(json.loads(json.dumps(placement.entry())))
    assert again == placement
    for name, places in all_places(placement, case.features).items():
        assert all_places(again, case.features)[name].tolist() == places.tolist()


def entry(composition: str = "lookup", **keys) -> dict:
    placement = place({"user": 9, "item": 4}, shared=False, composition=composition, dim=4, linear=0, rows=9)
    return json.loads(json.dumps(placement.entry())) | keys


def with_stretch(found: dict, **keys) -> dict:
    return {**found, "stretches": [{**found["stretches"][0], **keys}, *found["stretches"][1:]]}


LIES = {
    "too few rows": entry(rows=9),
    "no such composition": entry(composition="sum"),
    "no composition": {key: value for key, value in entry().items() if key != "composition"},
    "an unknown key": entry(colour="red"),
    "rows as text": entry(rows="10"),
    "no stretches": {key: value for key, value in entry().items() if key != "stretches"},
    "stretches that are numbers": entry(stretches=[1, 2]),
    "the dropped row": with_stretch(entry(), start=0),
    "a negative start": with_stretch(entry(), start=-3),
    "past the end": with_stretch(entry(), start=9),
    "no rows": with_stretch(entry(), rows=0),
    "negative rows": with_stretch(entry(), rows=-1),
    "no lookups": with_stretch(entry(), lookups=0),
    "a lookup that is the second table's": with_stretch(entry(), lookups=1000),
    "a field twice": with_stretch(entry(), field="item"),
    "no second table": entry("multi_hash", second_rows=0),
    "too small a second table": entry("quotient_remainder", second_rows=3),
    "the second table's dropped row": with_stretch(entry("multi_hash"), second_start=0),
    "no rows in the second table": with_stretch(entry("quotient_remainder"), second_rows=0),
}


@pytest.mark.parametrize("lie", LIES)
def test_what_is_no_placement_is_refused(lie):
    with pytest.raises((ValueError, TypeError, KeyError)):
        Placement.from_entry(LIES[lie])


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_the_entries_that_the_lies_were_made_of_are_no_lies(composition):
    assert Placement.from_entry(entry(composition)).composition == composition


# Bad input


def test_a_width_that_lookups_do_not_divide_is_refused():
    for composition in SIDE_BY_SIDE:
        with pytest.raises(
            ConfigError, match=r"dim = 16 .*lookups = 3 rows of equal width; state a multiple of 3"
        ):
            place({"user": 9}, shared=True, composition=composition, dim=16, linear=0, lookups=3)
    added_up = place({"user": 9}, shared=True, composition="multi_hash", dim=16, linear=0, lookups=3, rows=5)
    assert added_up.width == 16


def test_lookups_of_a_field_that_is_not_there_are_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r'field_lookups names "usr".*; the nearest name is "user"'):
        place({"user": 9, "item": 9}, shared=True, dim=4, linear=0, field_lookups={"item": 1, "usr": 2})


def test_bytes_and_rows_together_are_refused():
    with pytest.raises(ConfigError, match="state bytes or rows, not both"):
        place({"user": 9}, shared=True, dim=4, linear=0, bytes=1000, rows=10)


# Features with places


def test_each_numbered_feature_has_its_place_and_the_dropped_one_reads_nothing():
    features = pl.DataFrame(
        {
            "field": ["user", "user", "hour", "hour", "hour"],
            "number": [3, 1, 6, 2, 5],
            "key": np.concatenate([keys_of("user", 2), keys_of("hour", 3)]),
        }
    )
    placement = place({"user": 2, "hour": 3}, shared=True, dim=4, linear=0, rows=20, collision_free=3)
    placed = PlacedFeatures(placement, features)
    start = {own.field: own.start for own in placement.stretches}
    # Rows of their own are given in the order of numbers; number 4 is nobody's.
    own = {
        0: 0,
        4: 0,
        1: start["user"],
        3: start["user"] + 2,
        2: start["hour"],
        5: start["hour"] + 2,
        6: start["hour"] + 4,
    }
    assert placed.places[:, 0].tolist() == [own[number] for number in range(7)]
    assert placed.places[:, 1].tolist() == [own[number] + 1 if own[number] else 0 for number in range(7)]
    ids, flat = np.array([[1, 2], [0, 6]], np.int32), np.array([5], np.int32)
    found = placed.read(ids, flat, np.zeros(1, np.int64))
    assert found[1].tolist() == [[placed.places[n].tolist() for n in row] for row in ids.tolist()]
    assert found[3].tolist() == [placed.places[5].tolist()]


def test_keys_of_fields_with_rows_of_their_own_are_refused_as_nothing_numbers_them():
    placement = place({"user": 50, "hour": 3}, shared=True, dim=4, linear=0, rows=20, collision_free=3)
    with pytest.raises(ConfigError, match=r'field "hour" has a row for each value.*collision_free'):
        PlacedKeys(placement, ["user", "hour"])
    PlacedKeys(placement, ["user"])


@settings(max_examples=60, deadline=None)
@given(cases(), st.integers(0, 200), st.data())
def test_copies_of_fields_leave_as_many_features_on_a_row_as_before(case, more, data):
    placement = case.placed(rows=case.needed + more)
    copied = data.draw(st.lists(st.sampled_from(list(case.features)), min_size=1, unique=True))
    copies = {f"{name} (shuffled)": name for name in copied}
    found = placement.with_copies(case.features, copies)
    assert [own.field for own in found.stretches] == [*case.features, *copies]
    for own in found.stretches:
        of = placement.stretches[placement.of(copies.get(own.field, own.field))]
        assert (own.lookups, own.exact) == (of.lookups, of.exact)
        if placement.shared and not own.exact:
            hashed = [name for name in case.features if not placement.stretches[placement.of(name)].exact]
            before = sum(case.features[name] for name in hashed)
            after = before + sum(case.features[name] for name in copied if name in hashed)
            both = own.rows + own.second_rows, of.rows + of.second_rows
            assert both[0] == pytest.approx(both[1] * after / before, abs=1.01)
        else:
            assert (own.rows, own.second_rows) == (of.rows, of.second_rows)
    # No row is that of two stretches, but where all fields share one.
    spans = sorted({(own.start, own.rows) for own in found.stretches})
    assert [start for start, _ in spans] == [1, *(start + rows for start, rows in spans[:-1])]
    assert sum(spans[-1]) == found.rows
    if not any(own.exact for own in found.stretches) and not placement.shared:
        assert found.stretches[: len(case.features)] == placement.stretches
