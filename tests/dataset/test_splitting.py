from datetime import date, datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.dataset.schema import Schema
from ctr.dataset.split_keys import HashKey, TimeKey, mixed
from ctr.dataset.split_spec import HashSplit, RandomSplit, TimeSplit
from ctr.dataset.splitting import (
    AFTER,
    GAP,
    IMMATURE,
    TEST,
    TRAIN,
    VALID,
    Cuts,
    by_share,
    random_parts,
    time_cuts,
)
from ctr.errors import ConfigError, DataError
from ctr.settings import check

HOUR, DAY = 3_600_000_000, 86_400_000_000


def time_key(values, **keys):
    """A time key that has seen `values`, and their keys as one batch per 3 rows."""
    key = TimeKey(TimeSplit(by="time", column="t", **keys))
    parsed, broken = key.parse(pl.Series("t", values))
    assert broken is None
    numbers = parsed.to_numpy()
    return key, lambda: iter([numbers[start : start + 3] for start in range(0, len(numbers), 3)])


def parts_of(values, **keys):
    key, batches = time_key(values, **keys)
    return time_cuts(batches, key).parts(np.concatenate(list(batches()))).tolist()


def test_splitmix_has_its_published_values():
    # First outputs of the reference implementation for state 0 and 0x9e3779b97f4a7c15.
    from ctr.dataset.split_keys import _splitmix

    states = np.array([0, 0x9E3779B97F4A7C15], np.uint64)
    assert [hex(value) for value in _splitmix(states)] == ["0xe220a8397b1dcdaf", "0x6e789e6aa1b965f4"]


def test_random_parts_have_their_shares_and_depend_on_row_and_seed_alone():
    split = RandomSplit(by="random", valid=0.1, test=0.2, seed=3)
    parts = random_parts(np.arange(100_000), split)
    shares = np.bincount(parts, minlength=3) / 100_000
    np.testing.assert_allclose(shares, [0.7, 0.1, 0.2], atol=0.005)
    assert (random_parts(np.arange(50_000, 50_010), split) == parts[50_000:50_010]).all()
    other = random_parts(np.arange(100_000), RandomSplit(by="random", valid=0.1, test=0.2, seed=4))
    assert 0.3 < (parts != other).mean() < 0.6


def test_all_rows_of_a_key_fall_into_one_part():
    split = HashSplit(by="hash", column="user", valid=0.2, test=0.2)
    users = pl.Series("user", [f"u{n % 50}" for n in range(1000)] + [None])
    keys, broken = HashKey(split).parse(users)
    parts = by_share(keys.to_numpy().view(np.uint64), 0.2, 0.2)
    assert broken is None
    assert set(parts.tolist()) == {TRAIN, VALID, TEST}
    assert all(len(set(parts[:1000][n::50].tolist())) == 1 for n in range(50))


def test_a_key_hashes_alike_as_text_and_as_number():
    key = HashKey(HashSplit(by="hash", column="user", seed=1))
    assert key.parse(pl.Series(["7"]))[0][0] == key.parse(pl.Series([7.0]))[0][0]
    assert (
        key.parse(pl.Series(["7"]))[0][0]
        != HashKey(HashSplit(by="hash", column="u")).parse(pl.Series(["7"]))[0][0]
    )


def test_the_key_of_a_text_is_pinned():
    # xxhash64("a") is 15154266338359012955 in every implementation.
    expected = mixed(np.array([15154266338359012955], np.uint64), 5).view(np.int64)[0]
    assert HashKey(HashSplit(by="hash", column="user", seed=5)).parse(pl.Series(["a"]))[0][0] == expected


def test_oldest_rows_train_and_newest_test_in_any_order_of_input():
    assert parts_of([5, 1, 9, 3, 7, 2, 10, 4, 8, 6], valid=0.2, test=0.3) == [0, 0, 2, 0, 1, 0, 2, 0, 2, 1]


def test_rows_of_one_instant_stay_on_one_side():
    # Ideal cuts are before the 7th and the 9th row; whole instants come closest at 2|3 (6 rows) and 3|4 (9 rows).
    assert parts_of([1, 1, 1, 2, 2, 2, 3, 3, 3, 4], valid=0.2, test=0.2) == [0] * 6 + [1] * 3 + [2]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 20), min_size=3, max_size=60),
    st.sampled_from([0.1, 0.25, 0.4]),
)
def test_cuts_come_as_close_to_the_shares_as_whole_instants_allow(values, share):
    keys, ordered = np.array(values, np.int64), np.sort(values)
    key = TimeKey(TimeSplit(by="time", column="t", valid=share, test=share), kind="integer")
    distinct = sorted(set(values))
    try:
        cuts = time_cuts(lambda: iter([keys]), key)
    except DataError:
        # Test reaches back to the second instant, which comes closest to its share: none is left for valid.
        oldest = int((keys == keys.min()).sum())
        assert len(distinct) < 3 or oldest >= len(values) - 2 * round(share * len(values))
        return
    ideal = len(values) - round(share * len(values))
    reached = np.searchsorted(ordered, cuts.test)
    possible = [np.searchsorted(ordered, value) for value in distinct[1:]]
    assert abs(reached - ideal) == min(abs(p - ideal) for p in possible)


def test_a_duration_counts_back_from_the_newest_row():
    days = [date(2024, 1, day) for day in range(1, 11)]
    assert parts_of(days, valid="2d", test="1d") == [0] * 7 + [1, 1, 2]


def test_an_instant_starts_its_part():
    days = [f"2024-01-{day:02d}" for day in range(1, 11)]
    assert parts_of(days, valid="2024-01-05", test="2024-01-09 00:00:00") == [0] * 4 + [1] * 4 + [2] * 2
    assert parts_of([10, 20, 30, 40], valid=25, test=40) == [0, 0, 1, 2]


def test_a_gap_takes_rows_from_the_earlier_part():
    hours = [datetime(2024, 1, 1, hour) for hour in range(10)]
    # valid from 05:00, test from 08:00; the gap takes 03:00, 04:00 and 06:00, 07:00.
    found = parts_of(hours, valid="2024-01-01 05:00:00", test="2024-01-01 08:00:00", gap="2h")
    assert found == [0, 0, 0, GAP, GAP, 1, GAP, GAP, 2, 2]


def test_rows_whose_labels_are_not_mature_are_left_out_before_shares_are_taken():
    hours = [datetime(2024, 1, 1, hour) for hour in range(10)]
    # Rows younger than 2 h against 09:00 are 08:00 and 09:00; of the 8 left, a quarter each.
    found = parts_of(hours, valid=0.25, test=0.25, label_matures_after="2h")
    assert found == [TRAIN] * 4 + [VALID] * 2 + [TEST] * 2 + [IMMATURE] * 2


def test_cuts_by_hand():
    cuts = Cuts(valid=10, test=20, newest=25, gap=2)
    assert cuts.parts(np.array([7, 8, 9, 10, 17, 18, 20, 25, 26])).tolist() == [0, 3, 3, 1, 1, 3, 2, 2, 4]


@pytest.mark.parametrize(
    ("values", "timezone", "expected"),
    [
        (["1970-01-01 01:00:00", "1970-01-02", "1970-01-01T00:00:00.5"], "UTC", [HOUR, DAY, 500_000]),
        (["1970-01-01T01:00:00Z", "1970-01-01T02:00:00+01:00"], "UTC", [HOUR, HOUR]),
        (["1970-01-01 01:00:00", date(1970, 1, 2).isoformat()], "Europe/Paris", [0, DAY - HOUR]),
        ([datetime(1970, 1, 1, 1)], "UTC", [HOUR]),
        ([date(1970, 1, 2)], "UTC", [DAY]),
        # 02:30 is skipped in Paris on 2024-03-31: the offset before it (+1 h) counts.
        (["2024-03-31 02:30:00"], "Europe/Paris", [1_711_848_600_000_000]),
        # 02:30 happens twice on 2024-10-27: the first one (+2 h) counts.
        (["2024-10-27 02:30:00"], "Europe/Paris", [1_729_989_000_000_000]),
    ],
)
def test_times_are_parsed_to_microseconds_utc(values, timezone, expected):
    key = TimeKey(TimeSplit(by="time", column="t", timezone=timezone))
    assert key.parse(pl.Series("t", values))[0].to_list() == expected
    assert key.kind == "datetime"


def test_times_are_compared_as_times_not_as_text():
    values = ["2024-01-01T10:00:00+10:00", "2024-01-01T01:00:00Z"]
    keys, _ = TimeKey(TimeSplit(by="time", column="t")).parse(pl.Series("t", values))
    assert keys[0] < keys[1]
    numbers, _ = TimeKey(TimeSplit(by="time", column="t")).parse(pl.Series("t", ["9", "10"]))
    assert numbers[0] < numbers[1]


def test_floats_sort_as_numbers():
    values = [-1e300, -1.5, -0.0, 0.0, 1e-300, 2.0, 1e300]
    key = TimeKey(TimeSplit(by="time", column="t"))
    keys = key.parse(pl.Series("t", values))[0].to_list()
    assert keys == sorted(keys)
    assert keys[2] == keys[3]
    assert [key.shown(k) for k in keys] == values


def test_cells_that_are_no_time_are_broken():
    key = TimeKey(TimeSplit(by="time", column="t"), tolerance=0.5)
    _, broken = key.parse(pl.Series("t", ["2024-01-01", "soon", None, "2024-13-01"]))
    assert broken is not None
    assert broken.to_list() == [False, True, True, True]
    numbers = TimeKey(TimeSplit(by="time", column="t"), tolerance=0.5)
    assert numbers.parse(pl.Series("t", ["1", "2", "x"]))[1].to_list() == [False, False, True]


@pytest.mark.parametrize(
    ("values", "keys", "expected"),
    [
        (
            [1, 2, 3],
            {"test": "1d"},
            r'"1d" is a duration, but "t" holds numbers, which have no unit; derive a time',
        ),
        ([1, 2, 3], {"gap": "6h"}, r'"6h" is a duration, but "t" holds numbers'),
        ([1, 2, 3], {"test": "2024-01-01"}, r'"2024-01-01" is a date, but "t" holds numbers'),
        ([date(2024, 1, 1), date(2024, 1, 2)], {"test": 5}, r'"t" holds times, found the instant 5'),
    ],
)
def test_durations_and_instants_must_fit_the_column(values, keys, expected):
    key, batches = time_key(values, **keys)
    with pytest.raises(ConfigError, match=expected):
        time_cuts(batches, key)


@pytest.mark.parametrize(
    "keys", [{}, {"valid": 7, "test": 5}, {"valid": 5, "test": 5}, {"valid": 0, "test": 5}]
)
def test_parts_that_cannot_be_separate_are_refused(keys):
    values = [3] * 10 if not keys else list(range(1, 10))
    key, batches = time_key(values, **keys)
    with pytest.raises(DataError, match=r'need three separate stretches of "t"'):
        time_cuts(batches, key)


def test_rows_from_the_as_of_date_on_are_left_out_and_labels_mature_until_then():
    times = [f"2024-01-01T{hour:02d}:00" for hour in range(24)]
    key, batches = time_key(times, valid="4h", test="4h", label_matures_after="2h")
    cuts = time_cuts(batches, key, as_of="2024-01-01T20:00")
    parts = cuts.parts(np.concatenate(list(batches())))
    # Labels of rows until 18:00 have had their two hours at 20:00.
    assert parts.tolist() == [TRAIN] * 11 + [VALID] * 4 + [TEST] * 4 + [IMMATURE] * 1 + [AFTER] * 4


def test_an_as_of_date_cuts_numbers_as_well():
    key, batches = time_key(list(range(20)), valid=0.25, test=0.25)
    parts = time_cuts(batches, key, as_of=16).parts(np.concatenate(list(batches())))
    assert parts.tolist() == [TRAIN] * 8 + [VALID] * 4 + [TEST] * 4 + [AFTER] * 4


def test_an_as_of_date_before_all_rows_is_refused():
    key, batches = time_key(["2024-01-02", "2024-01-03", "2024-01-04"])
    with pytest.raises(ConfigError, match=r'data.as_of = "2023-05-01" leaves no row.*2024-01-02'):
        time_cuts(batches, key, as_of="2023-05-01")


def test_an_as_of_date_for_numbers_must_be_a_number():
    key, batches = time_key(list(range(20)))
    with pytest.raises(ConfigError, match='"2023-05-01" is a date'):
        time_cuts(batches, key, as_of="2023-05-01")


@pytest.mark.parametrize("zone", ["Mars/Olympus", "CET+25", "", "../UTC"])
def test_a_time_zone_that_does_not_exist_is_refused(zone):
    content = {"name": "log", "label": "click", "fields": [{"name": "user"}]}
    split = {"by": "time", "column": "t", "timezone": zone}
    with pytest.raises(ConfigError, match=r"split\.timezone: no such time zone"):
        check({**content, "split": split}, Schema, "schema")


def test_durations_longer_than_the_log_are_refused():
    days = [f"2024-01-{day:02d}" for day in range(1, 11)]
    with pytest.raises(DataError, match="need three separate stretches"):
        parts_of(days, valid="2d", test="30d")
    with pytest.raises(DataError, match="need three separate stretches"):
        parts_of(days, valid="1d", test="1d", label_matures_after="30d")
