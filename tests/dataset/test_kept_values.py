"""Kept values as fingerprints: none is lost, few others pass for one, and how many bytes that takes."""

import json
from math import log2

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ctr.dataset.hashing import role_key, value_keys
from ctr.dataset.kept_values import FILTER_ERROR, KeptValues
from ctr.dataset.placed import PlacedKeys
from ctr.dataset.placement import place

key_lists = st.lists(st.integers(0, 2**64 - 1), max_size=30)


def as_keys(numbers) -> np.ndarray:
    return np.array(numbers, np.uint64)


def random_keys(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, count, np.uint64)


def users(*numbers: int) -> np.ndarray:
    return value_keys("user", pl.Series("any", [f"u{n}" for n in numbers]))


def read_again(kept: KeptValues, path) -> KeptValues:
    kept.write(path)
    entry = json.loads(json.dumps(kept.entry()))
    entry.pop("error_rate")
    return KeptValues.read(path, **entry)


# What is kept


@given(key_lists, st.floats(1e-18, 0.5))
@example([0, 1, 2, 3, 2**63, 2**64 - 1], FILTER_ERROR)
@example([2**64 - 1, 2**64 - 1], 1e-18)
@example([], FILTER_ERROR)
def test_no_kept_value_is_ever_lost(numbers, error):
    kept = KeptValues.of(as_keys(numbers), [], error)
    assert kept.hold(as_keys(numbers)).all()
    assert (np.diff(kept.fingerprints.astype(object)) > 0).all()
    assert len(kept.fingerprints) <= len(numbers)
    assert 8 <= kept.bits <= 62


@given(key_lists, key_lists, st.floats(1e-18, 0.5))
@example([0], [0, 1, 2**62, 2**63, 2**64 - 1], 0.5)
def test_another_value_passes_for_a_kept_one_only_where_fingerprints_are_equal(numbers, others, error):
    kept = KeptValues.of(as_keys(numbers), [], error)
    known = {number >> (64 - kept.bits) for number in numbers}
    expected = [other >> (64 - kept.bits) in known for other in others]
    assert kept.hold(as_keys(others)).tolist() == expected


@given(st.integers(0, 256), st.floats(1e-8, 0.5))
@example(0, FILTER_ERROR)
@example(256, 0.5)
def test_bits_are_the_fewest_that_keep_to_the_error_but_never_below_eight(count, error):
    kept = KeptValues.of(np.arange(count, dtype=np.uint64) << np.uint64(56), [], error)
    assert len(kept.fingerprints) == count
    assert kept.error_rate == count / 2**kept.bits <= error * (1 + 1e-9)
    assert kept.bits == 8 or max(1, count) / 2 ** (kept.bits - 1) > error


@pytest.mark.parametrize(("count", "error"), [(200_000, FILTER_ERROR), (20_000, 1e-3), (300, 0.05)])
def test_the_stated_share_of_other_values_passes_for_kept_ones(count, error):
    kept = KeptValues.of(random_keys(count, 1), [], error)
    assert error / 2 <= kept.error_rate <= error
    tried = 500_000
    found = int(kept.hold(random_keys(tried, 2)).sum())
    expected = tried * kept.error_rate
    assert abs(found - expected) < 4.5 * expected**0.5
    assert kept.hold(random_keys(count, 1)).all()


def test_keys_of_real_values_are_told_apart_as_well_as_random_ones():
    kept = KeptValues.of(users(*range(10_000)), [], 1e-3)
    others = value_keys("user", pl.Series("any", [f"u{n}" for n in range(10_000, 210_000)]))
    expected = 200_000 * kept.error_rate
    assert abs(int(kept.hold(others).sum()) - expected) < 4.5 * expected**0.5


def test_the_answer_has_the_shape_of_the_question():
    kept = KeptValues.of(users(1, 2), [])
    assert kept.hold(users(1, 2, 3, 4).reshape(2, 2)).tolist() == [[True, True], [False, False]]
    assert kept.hold(users(1)[:0]).shape == (0,)
    nothing = KeptValues.of(users(1)[:0], [])
    assert nothing.hold(users(1, 2, 3, 4).reshape(2, 2)).tolist() == [[False] * 2] * 2
    assert nothing.error_rate == 0.0


# On disk


@pytest.mark.parametrize("error", [FILTER_ERROR, 1e-2])
def test_a_value_takes_little_more_than_the_bits_of_its_error_rate(tmp_path, error):
    count = 100_000
    kept = KeptValues.of(random_keys(count, 1), [], error)
    kept.write(tmp_path / "kept.parquet")
    bits = log2(1 / kept.error_rate)  # 13.4 of an error of 9e-5: 1.7 bytes
    size = (tmp_path / "kept.parquet").stat().st_size
    assert bits < size * 8 / count < bits + 3


def test_a_small_set_is_a_small_file(tmp_path):
    KeptValues.of(users(1, 2, 3), []).write(tmp_path / "kept.parquet")
    assert (tmp_path / "kept.parquet").stat().st_size < 1000


@pytest.mark.parametrize("numbers", [[], [0], [2**64 - 1], [0, 1, 2**63, 2**64 - 1]])
@pytest.mark.parametrize("error", [FILTER_ERROR, 1e-18])
def test_what_was_written_is_read_again(tmp_path, numbers, error):
    kept = KeptValues.of(as_keys(numbers), ["user"], error, ["item", "ad"])
    again = read_again(kept, tmp_path / "kept.parquet")
    assert again.fingerprints.dtype == np.uint64
    assert again.fingerprints.tolist() == kept.fingerprints.tolist()
    assert (again.bits, again.whole, again.unknown) == (kept.bits, {"user"}, {"item", "ad"})
    assert again.hold(as_keys(numbers)).all()


def test_the_same_values_in_any_order_are_the_same_bytes(tmp_path):
    keys = users(*range(100))
    KeptValues.of(keys, ["b", "a"]).write(tmp_path / "one")
    KeptValues.of(keys[::-1], ["a", "b"]).write(tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert KeptValues.of(keys, ["b", "a"]).entry() == KeptValues.of(keys[::-1], ["a", "b"]).entry()


def test_an_entry_says_all_but_the_fingerprints():
    kept = KeptValues.of(users(1, 2, 3), ["item", "ad"], unknown=["user"])
    assert kept.entry() == {
        "bits": 15,
        "values": 3,
        "error_rate": 3 / 2**15,
        "whole": ["ad", "item"],
        "unknown": ["user"],
    }


def column_of(values, type=None, name: str = "fingerprint") -> pa.Table:
    return pa.table({name: pa.array(values, type or pa.int64())})


ALTERED = {
    "a value is missing": column_of([3, 9]),
    "a value too many": column_of([3, 9, 11, 200]),
    "another order": column_of([9, 3, 200]),
    "a value twice": column_of([3, 3, 200]),
    "a negative value": column_of([-3, 9, 200]),
    "more bits": column_of([3, 9, 256]),
    "differences that run over": column_of([0, 2**63 - 1, 5]),
    "a null": column_of([3, None, 200]),
    "text": column_of(["3", "9", "a"], pa.string()),
    "fractions": column_of([3.0, 9.0, 200.0], pa.float64()),
    "another column": column_of([3, 9, 200], name="key"),
}


@pytest.mark.parametrize("damage", ALTERED)
def test_an_altered_file_is_refused(tmp_path, damage):
    path = tmp_path / "kept.parquet"
    said = {"bits": 8, "values": 3, "whole": [], "unknown": []}
    pq.write_table(column_of([3, 9, 200]), path)
    assert KeptValues.read(path, **said).fingerprints.tolist() == [3, 9, 200]
    pq.write_table(ALTERED[damage], path)
    with pytest.raises(ValueError, match=r"expected|cannot be read"):
        KeptValues.read(path, **said)


def test_numbers_that_ascend_only_in_64_bits_are_refused(tmp_path):
    # Each difference is positive in 64 bits, as they run over, and the last number is small again.
    around = [0, 2**63 - 1, -(2**63), -1, 5]
    pq.write_table(column_of(around), tmp_path / "kept.parquet")
    with pytest.raises(ValueError, match="expected ascending numbers of 8 bits"):
        KeptValues.read(tmp_path / "kept.parquet", bits=8, values=5, whole=[], unknown=[])


@pytest.mark.parametrize("content", [None, b"", b"PAR1", b"no parquet at all", "half"])
def test_a_file_that_is_none_is_refused(tmp_path, content):
    path = tmp_path / "kept.parquet"
    kept = KeptValues.of(users(*range(100)), [])
    if content == "half":
        kept.write(path)
        content = path.read_bytes()[: path.stat().st_size // 2]
    if content is not None:
        path.write_bytes(content)
    else:
        path.unlink(missing_ok=True)
    with pytest.raises(ValueError, match="cannot be read"):
        KeptValues.read(path, bits=kept.bits, values=100, whole=[], unknown=[])


# What a network reads


def reader(kept: KeptValues | None, *owners: str) -> PlacedKeys:
    placement = place(dict.fromkeys(owners, 100), shared=True, dim=4, linear=0, rows=1000)
    return PlacedKeys(placement, list(owners), kept)


def read(reader: PlacedKeys, *keys: int) -> tuple[list[int], list[list[int]]]:
    """Numbers and places of one row with a key for each field."""
    ids = as_keys([keys]).view(np.int64)
    numbers, places, _, _ = reader.read(ids, np.zeros(0, np.int64), np.zeros(0, np.int64))
    return numbers[0].tolist(), places[0].tolist()


def test_dropped_values_read_nothing_and_kept_ones_their_own_rows():
    kept = KeptValues.of(users(1, 2), [])
    _, all_places = read(reader(None, "user"), users(1)[0])
    assert read(reader(kept, "user"), users(1)[0]) == ([1], all_places)
    assert all(row > 0 for row in all_places[0])
    assert read(reader(kept, "user"), users(3)[0]) == ([0], [[0, 0]])


def test_a_whole_field_keeps_what_train_has_never_seen():
    kept = KeptValues.of(users(1), ["item"])
    both = reader(kept, "user", "item")
    new = value_keys("item", pl.Series("any", ["never seen", None]))
    for key in new:
        numbers, places = read(both, users(3)[0], key)
        assert numbers == [0, 1]
        assert places == [[0, 0], read(reader(None, "user", "item"), users(3)[0], key)[1][1]]


def test_a_dropped_value_reads_its_fields_unknown_where_that_is_said():
    kept = KeptValues.of(users(1), [], unknown=["item"])
    both = reader(kept, "user", "item")
    dropped = value_keys("item", pl.Series("any", ["a", "b"]))
    unknown = read(reader(None, "user", "item"), users(1)[0], role_key("item", "unknown"))[1]
    for key in dropped:
        assert read(both, users(1)[0], key) == ([1, 1], unknown)
    assert read(both, users(2)[0], dropped[0]) == ([0, 1], [[0, 0], unknown[1]])


def test_everything_is_kept_of_whole_fields_alone():
    kept = KeptValues.everything(["user", "item"])
    assert (len(kept.fingerprints), kept.error_rate) == (0, 0.0)
    keys = (users(77)[0], users(78)[0])
    assert read(reader(kept, "user", "item"), *keys) == read(reader(None, "user", "item"), *keys)


def test_lists_follow_the_same_rules_as_single_values():
    kept = KeptValues.of(users(1), [], unknown=["tags"])
    names = ["user", "tags", "words"]  # a single-valued field and two lists
    placement = place(dict.fromkeys(names, 100), shared=False, dim=4, linear=0, rows=900)
    found = PlacedKeys(placement, names, kept)
    everything = PlacedKeys(placement, names)
    ids = users(1, 2).reshape(2, 1).view(np.int64)
    tags, words = (value_keys(name, pl.Series("any", ["x", "y"])) for name in ("tags", "words"))
    # Row 0 has tags x and words x, y; row 1 has tags y.
    flat = np.concatenate([tags[:1], words, tags[1:]]).view(np.int64)
    slots = np.array([0, 1, 1, 2])
    numbers, places, list_numbers, list_places = found.read(ids, flat, slots)
    assert numbers.tolist() == [[1], [0]]
    assert list_numbers.tolist() == [1, 0, 0, 1]
    unknown = as_keys([role_key("tags", "unknown")])
    own = placement.places(unknown, placement.of("tags"))[0]
    assert list_places.tolist() == [own.tolist(), [0, 0], [0, 0], own.tolist()]
    _, _, all_numbers, all_places = everything.read(ids, flat, slots)
    assert all_numbers.tolist() == [1] * 4
    fields = [placement.of(name) for name in ("tags", "words", "words", "tags")]
    assert all_places.tolist() == placement.places(flat.view(np.uint64), np.array(fields)).tolist()
    assert places[0].tolist() == placement.places(users(1), placement.of("user")).tolist()
