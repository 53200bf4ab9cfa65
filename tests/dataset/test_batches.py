"""Batches: every row once per epoch, in an order that seed and epoch determine, from any batch on."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.dataset.batches import Batches, shuffled
from ctr.dataset.layout import Layout
from ctr.dataset.store import FieldInfo, Part

# Features 0..9 of "a", 10..14 of "x" (scaled), 15..24 of list "l", 25..34 of list "m".
FIELDS = [
    FieldInfo("a", "categorical", 10, 0, False),
    FieldInfo("x", "numeric", 5, 10, True),
    FieldInfo("l", "list", 10, 15, False),
    FieldInfo("m", "list", 10, 25, False),
]
DATASET = SimpleNamespace(fields=FIELDS, features=35, hashed=False, digest="")


def ragged(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    flat = np.array([value for row in lists for value in row], np.int32)
    return flat, np.cumsum([0, *map(len, lists)])


def part_of(rows: int, lists_l=None, lists_m=None) -> Part:
    """Row r holds a = r % 10, x = 12 with factor r / 2, lists of r % 4 and r % 3 values."""
    numbers = np.arange(rows)
    lists_l = lists_l or [[15 + (r + k) % 10 for k in range(r % 4)] for r in range(rows)]
    lists_m = lists_m or [[25 + (r * k) % 10 for k in range(r % 3)] for r in range(rows)]
    return Part(
        ids=np.stack([numbers % 10, np.full(rows, 12)], 1).astype(np.int32),
        values=np.stack([np.ones(rows), numbers / 2], 1).astype(np.float32),
        lists=[ragged(lists_l), ragged(lists_m)],
        labels=(numbers % 2).astype(np.uint8),
        rows=numbers * 3,
        true_probability=None,
    )


def lists_of(batch, fields: int) -> list[list[list[int]]]:
    """Row by row and field by field the values of the lists: a nested loop over slots."""
    found = [[[] for _ in range(fields)] for _ in range(len(batch))]
    for value, slot in zip(batch.list_ids, batch.list_slots, strict=True):
        found[slot // fields][slot % fields].append(int(value))
    return found


@given(size=st.integers(1, 5000), seed=st.integers(0, 2**31 - 1), epoch=st.integers(0, 1000))
@settings(max_examples=150, deadline=None)
def test_the_shuffle_is_a_bijection_for_every_size(size, seed, epoch):
    order = shuffled(np.arange(size), size, seed, epoch)
    assert np.array_equal(np.sort(order), np.arange(size))


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 15, 16, 17, 63, 64, 65, 1023, 1024, 1025])
def test_the_shuffle_is_a_bijection_on_both_sides_of_powers_of_two(size):
    assert sorted(shuffled(np.arange(size), size, 0, 0).tolist()) == list(range(size))


@given(size=st.integers(1, 2**40), seed=st.integers(0, 2**31 - 1), position=st.integers(0, 2**40 - 1))
@settings(deadline=None)
def test_a_position_of_a_log_too_large_to_list_goes_to_a_row_of_it(size, seed, position):
    (row,) = shuffled(np.array([position % size]), size, seed, 0)
    assert 0 <= row < size


def test_positions_can_be_asked_for_in_any_pieces():
    whole = shuffled(np.arange(1000), 1000, 5, 2)
    pieces = [shuffled(np.arange(start, start + 125), 1000, 5, 2) for start in range(0, 1000, 125)]
    assert np.array_equal(whole, np.concatenate(pieces))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {tuple(shuffled(np.arange(50), 50, seed, epoch)) for seed in range(20) for epoch in range(20)}
    assert len(orders) == 400


@pytest.mark.parametrize("size", [4096, 10_000, 16_385])
def test_no_order_of_the_input_is_left(size):
    order = shuffled(np.arange(size), size, 1, 0)
    assert abs(np.corrcoef(np.arange(size), order)[0, 1]) < 4 / size**0.5
    steps = np.diff(order)
    assert np.mean(np.abs(steps) <= 10) < 0.01  # 0.002 to 0.005 by chance
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 4 / size**0.5
    assert abs(np.mean((order % 2) == (np.arange(size) % 2)) - 0.5) < 2 / size**0.5
    assert len(np.unique(steps)) > size / 4


@pytest.mark.parametrize("size", [3, 5, 8])
def test_over_many_epochs_every_row_comes_first_equally_often(size):
    epochs = 3000
    first = [int(shuffled(np.zeros(1, np.int64), size, 9, epoch)[0]) for epoch in range(epochs)]
    expected, spread = epochs / size, (epochs / size * (1 - 1 / size)) ** 0.5
    assert np.all(np.abs(np.bincount(first, minlength=size) - expected) < 4.5 * spread)


@pytest.mark.parametrize("seed", [None, 0, 7])
@pytest.mark.parametrize(("rows", "size"), [(1, 1), (1, 10), (10, 1), (10, 3), (10, 5), (10, 100)])
def test_every_row_comes_exactly_once_per_epoch(rows, size, seed):
    batches = Batches(part_of(rows), Layout(DATASET), size, seed)
    found = list(batches.epoch(3))
    assert len(found) == len(batches) == -(-rows // size)
    assert all(len(batch) == size for batch in found[:-1])
    numbers = np.concatenate([batch.rows for batch in found])
    assert np.array_equal(np.sort(numbers), np.arange(rows) * 3)
    if seed is None:
        assert np.array_equal(numbers, np.arange(rows) * 3)


def test_a_part_without_rows_has_no_batches():
    batches = Batches(part_of(0), Layout(DATASET), 8, 0)
    assert len(batches) == 0
    assert list(batches.epoch()) == []


@pytest.mark.parametrize("start", [0, 1, 5, 7, 8, 20])
def test_an_epoch_can_be_entered_at_any_batch(start):
    batches = Batches(part_of(30), Layout(DATASET), 4, 11)
    whole, tail = list(batches.epoch(2))[start:], list(batches.epoch(2, start))
    assert len(whole) == len(tail)
    for left, right in zip(whole, tail, strict=True):
        for name in ("ids", "values", "list_ids", "list_slots", "list_lengths", "labels", "rows"):
            assert np.array_equal(getattr(left, name), getattr(right, name))


def test_a_batch_holds_what_its_rows_hold():
    part = part_of(40)
    layout = Layout(DATASET)
    assert layout.fields == ["a", "x", "l", "m"]
    assert layout.rows == 36
    for batch in Batches(part, layout, 7, 5).epoch():
        lists = lists_of(batch, 2)
        for place, number in enumerate(batch.rows // 3):
            assert batch.ids[place].tolist() == [number % 10 + 1, 13]  # row of the table = id + 1
            assert batch.values[place].tolist() == [1.0, number / 2]
            assert batch.labels[place] == number % 2
            expected_l = [15 + (number + k) % 10 + 1 for k in range(number % 4)]
            expected_m = [25 + (number * k) % 10 + 1 for k in range(number % 3)]
            assert lists[place] == [expected_l, expected_m]
            assert batch.list_lengths[place].tolist() == [number % 4, number % 3]


ROWS = st.lists(st.lists(st.integers(15, 24), max_size=5), min_size=1, max_size=12)


@given(lists=ROWS, seed=st.integers(0, 99), size=st.integers(1, 15))
@settings(deadline=None, max_examples=60)
def test_ragged_lists_survive_the_shuffle(lists, seed, size):
    part = part_of(len(lists), lists, [[25]] * len(lists))
    seen = 0
    for batch in Batches(part, Layout(DATASET), size, seed).epoch(1):
        for place, (first, second) in enumerate(lists_of(batch, 2)):
            assert first == [value + 1 for value in lists[batch.rows[place] // 3]]
            assert second == [26]
            seen += 1
    assert seen == len(lists)


def test_types_are_those_that_the_network_reads():
    batch = next(Batches(part_of(9), Layout(DATASET), 4, 0).epoch())
    kinds = {name: str(getattr(batch, name).dtype) for name in ("ids", "list_ids", "list_slots", "rows")}
    assert set(kinds.values()) == {"int64"}
    assert {str(array.dtype) for array in (batch.values, batch.list_lengths, batch.labels)} == {"float32"}


def test_dropped_features_read_row_zero_and_kept_ones_their_new_row():
    numbers = np.zeros(35, np.int64)
    numbers[[3, 12, 17, 30]] = [1, 2, 3, 4]
    layout = Layout(DATASET, numbers)
    assert layout.rows == 5
    for batch in Batches(part_of(40), layout, 40).epoch():
        lists = lists_of(batch, 2)
        for place, number in enumerate(batch.rows // 3):
            assert batch.ids[place].tolist() == [int(number % 10 == 3), 2]
            expected = [3 if (number + k) % 10 == 2 else 0 for k in range(number % 4)]
            assert lists[place][0] == expected
            assert batch.list_lengths[place, 0] == number % 4  # dropped values still count


@pytest.mark.parametrize("kept", [["a"], ["x"], ["m"], ["m", "a"], ["l", "x"], ["l", "m"]])
def test_fields_left_out_are_not_fed(kept):
    layout = Layout(DATASET, fields=kept)
    assert layout.fields == [name for name in ("a", "x", "l", "m") if name in kept]
    everything = next(Batches(part_of(12), Layout(DATASET), 12).epoch())
    batch = next(Batches(part_of(12), layout, 12).epoch())
    single = [slot for slot, name in enumerate("ax") if name in kept]
    assert np.array_equal(batch.ids, everything.ids[:, single])
    if "x" in kept:
        assert np.array_equal(batch.values, everything.values[:, single])
    else:
        assert batch.values is None
    lists = [number for number, name in enumerate("lm") if name in kept]
    assert np.array_equal(batch.list_lengths, everything.list_lengths[:, lists])
    if lists:
        expected = [[row[number] for number in lists] for row in lists_of(everything, 2)]
        assert lists_of(batch, len(lists)) == expected
    else:
        assert batch.list_ids.shape == batch.list_slots.shape == (0,)
        assert batch.list_lengths.shape == (12, 0)


def test_memory_is_that_of_a_batch_whatever_the_number_of_rows(tmp_path):
    def peak(rows: int) -> int:
        np.save(tmp_path / "ids.npy", np.zeros((rows, 2), np.int32))
        np.save(tmp_path / "rows.npy", np.arange(rows))
        ids, numbers = (np.load(tmp_path / name, mmap_mode="r") for name in ("ids.npy", "rows.npy"))
        part = Part(ids, None, [], np.zeros(rows, np.uint8), numbers, None)
        dataset = SimpleNamespace(fields=FIELDS[:1] * 2, features=10, hashed=False)
        batches = Batches(part, Layout(dataset), 64, 3)
        tracemalloc.start()
        for number, _ in enumerate(batches.epoch()):
            if number == 50:
                break
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    assert peak(500_000) < 1.5 * peak(5_000) < 100_000
