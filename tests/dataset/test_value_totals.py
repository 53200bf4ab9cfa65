from collections import Counter

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctr.dataset import value_totals as module
from ctr.dataset.scratch import Arrays
from ctr.dataset.value_totals import NO_PLACE, ValueTotals

TEXT = st.text(alphabet="abé🙂", max_size=3)
NUMBER = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)


def chunks_of(values):
    chunk = st.dictionaries(st.none() | values, st.tuples(st.integers(0, 9), st.floats(0, 9)), max_size=6)
    return st.lists(chunk, min_size=1, max_size=6)


def frame_of(chunk, dtype):
    columns = {"value": list(chunk), "count": [c for c, _ in chunk.values()]}
    schema = {"value": dtype, "count": pl.Int64, "weighted_count": pl.Float64}
    return pl.DataFrame({**columns, "weighted_count": [w for _, w in chunk.values()]}, schema=schema)


def check(folder, dtype, chunks):
    expected, heavy = Counter(), Counter()
    added, places = ValueTotals(), Arrays(folder / "places", pa.int32())
    for chunk in chunks:
        for value, (count, weight) in chunk.items():
            expected[value] += count
            heavy[value] += weight if count else 0.0
        added.add(frame_of(chunk, dtype), places)
    found = added.totals()
    places.close()
    values = found["value"].to_list()
    assert values[:1] in ([], [None])  # the place of null is there even where no null is
    assert len(set(values)) == len(values)
    assert set(values) - {None} == {value for value, count in expected.items() if count} - {None}
    for value, count, weight in found.rows():
        assert (count, weight) == (expected[value], heavy[value])  # added up in order, so to the last bit
    find = added.finder()
    for chunk, written in zip(chunks, places.read(), strict=True):
        for value, place in zip(chunk, written.to_pylist(), strict=True):
            if place != NO_PLACE:
                assert values[place] == value
            elif added.settled:
                assert not expected[value]
        wanted = [value for value in chunk if value is not None]
        for value, place in zip(wanted, find(pl.Series(wanted, dtype=dtype)).tolist(), strict=True):
            assert values[place] == value if expected[value] else place == NO_PLACE
    places.delete()


@pytest.mark.parametrize("limit", [0, 4, 1000])
@pytest.mark.parametrize(
    ("dtype", "values"), [(pl.Int64, NUMBER), (pl.String, TEXT)], ids=["numbers", "texts"]
)
def test_counts_add_up_and_every_value_finds_its_place(tmp_path, monkeypatch, limit, dtype, values):
    monkeypatch.setattr(module, "_PENDING_ROWS", limit)

    @given(chunks_of(values))
    def checked(chunks):
        check(tmp_path, dtype, chunks)

    checked()


def test_what_is_only_placed_counts_nothing(tmp_path):
    added, places = ValueTotals(), Arrays(tmp_path / "places", pa.int32())
    added.add(pl.DataFrame({"value": ["a", "b"], "count": [2, 1]}))
    added.add(pl.DataFrame({"value": ["c", None, "b"]}, schema={"value": pl.String}), places)
    assert added.totals().rows() == [(None, 0), ("a", 2), ("b", 1)]
    places.close()
    assert [each.to_pylist() for each in places.read()] == [[NO_PLACE, 0, 2]]


def test_memory_does_not_grow_with_what_is_added(monkeypatch):
    monkeypatch.setattr(module, "_PENDING_ROWS", 100)
    added = ValueTotals()
    for _ in range(50):
        added.add(pl.DataFrame({"value": np.arange(60), "count": np.ones(60, np.int64)}))
        assert added._rows <= 100
    assert added.totals()["count"].to_list() == [0, *[50] * 60]


def test_memory_does_not_grow_with_values_that_are_not_counted(monkeypatch):
    monkeypatch.setattr(module, "_PENDING_ROWS", 100)
    added = ValueTotals()
    for number in range(50):
        values = np.arange(60) + 60 * number
        added.add(pl.DataFrame({"value": values, "count": (values < 90).astype(np.int64)}))
    assert not added.settled
    assert added.totals()["value"].to_list() == [None, *range(90)]
