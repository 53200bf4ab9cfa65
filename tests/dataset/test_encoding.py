import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.dataset import value_index
from ctr.dataset.encoding import Encoder
from ctr.dataset.train_statistics import Statistics
from ctr.dataset.transforms import Scale, log_square, quantile_bin, quantile_edges, scale_of, scaled
from ctr.dataset.value_index import ValueIndex


def features(field, values, ids, roles=None):
    return pl.DataFrame(
        {"field": field, "role": roles or ["value"] * len(values), "value": values, "id": ids},
        schema={"field": pl.String, "role": pl.String, "value": pl.String, "id": pl.Int32},
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 1),
        (2, 2),
        (1, 1),
        (0, 0),
        (-1, -1),
        (-2.9, -2),
        (0.9, 0),
        (100, 21),
        (20000, 98),
        (1e300, 477170),
        (2.5, 0),
    ],
)
def test_log_square_as_published(value, expected):
    reference = math.floor(math.log(value) ** 2) if value > 2 else int(value)
    assert log_square(pl.Series([float(value)])).to_list() == [expected] == [reference]


def test_log_square_keeps_missing_and_survives_huge_negative_numbers():
    assert log_square(pl.Series([None, -1e300])).to_list() == [None, -(2**63)]


def test_quantile_bins_hold_equal_shares():
    edges = quantile_edges(np.arange(1.0, 11.0), 5)
    assert edges == [2.0, 4.0, 6.0, 8.0]
    assert quantile_bin(pl.Series([1.0, 2.0, 2.5, 10.0, 99.0, -5.0, None]), edges).to_list() == [
        0,
        0,
        1,
        4,
        4,
        0,
        None,
    ]


def test_quantile_edges_that_fall_together_are_one():
    assert quantile_edges(np.array([0.0] * 9 + [5.0]), 4) == [0.0]
    assert quantile_edges(np.array([3.0, 3.0]), 4) == []
    assert quantile_edges(np.array([]), 4) == []


def test_scales_by_hand_and_a_constant_field_is_not_divided_by_zero():
    assert scale_of("minmax", 3, 2.0, 8.0, 0.0, 4.0) == Scale(0.0, 0.25)
    assert scale_of("standard", 2, 2.0, 8.0, 0.0, 4.0) == Scale(2.0, 0.5)
    assert scale_of("standard", 2, 2.0, 0.0, 2.0, 2.0) == Scale(2.0, 1.0)
    assert scaled(pl.Series([1.0, None]), Scale(0.0, 0.25)).to_list() == [0.25, 1.0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(-1e6, 1e6), max_size=5), min_size=1, max_size=5))
def test_running_statistics_equal_those_of_all_rows(chunks):
    running = Statistics()
    for chunk in chunks:
        running.add(np.array(chunk, float), None)
    together = np.array([value for chunk in chunks for value in chunk])
    assert running.count == len(together)
    if len(together):
        assert running.mean == pytest.approx(together.mean(), abs=1e-6)
        assert running.square == pytest.approx(((together - together.mean()) ** 2).sum(), rel=1e-9, abs=1e-3)
        assert (running.low, running.high) == (together.min(), together.max())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=4), unique=True, max_size=30), st.lists(st.text(max_size=4), max_size=30))
def test_the_index_finds_what_a_dictionary_finds(known, asked):
    table = {value: number + 7 for number, value in enumerate(known)}
    index = ValueIndex(pl.Series(known, dtype=pl.String), np.array(list(table.values()), np.int32))
    found = index.look_up(pl.Series(asked, dtype=pl.String), 3)
    assert found.tolist() == [table.get(value, 3) for value in asked]


def test_texts_whose_hashes_collide_are_told_apart(monkeypatch):
    monkeypatch.setattr(value_index, "hashes", lambda values: np.array([len(v) for v in values], np.uint64))
    index = ValueIndex(pl.Series(["a", "b", "cc", "d"]), np.array([10, 11, 12, 13], np.int32))
    assert index.look_up(pl.Series(["d", "b", "zz", "cc", "x", ""]), 0).tolist() == [13, 11, 0, 12, 0, 0]


FIELDS = [
    {"name": "user"},
    {"name": "count", "kind": "numeric", "transform": "log_square"},
    {"name": "price", "kind": "numeric", "transform": "standard"},
    {"name": "age", "kind": "numeric", "transform": "quantile", "bins": 2},
    {"name": "tags", "kind": "list", "separator": "|"},
]
ENTRIES = [
    {"name": "user", "scale": None, "edges": None},
    {"name": "count", "scale": None, "edges": None},
    {"name": "price", "scale": {"shift": 2.0, "factor": 0.5}, "edges": None},
    {"name": "age", "scale": None, "edges": [30.0]},
    {"name": "tags", "scale": None, "edges": None},
]
OWN = ["unknown", "missing"]
VOCABULARY = pl.concat(
    [
        features("user", [None, None, "a", "b"], [0, 1, 2, 3], [*OWN, "value", "value"]),
        features("count", [None, None, "0", "5"], [0, 1, 2, 3], [*OWN, "value", "value"]),
        features("price", [None, None, None], [0, 1, 2], [*OWN, "value"]),
        features("age", [None, None, "1", "0"], [0, 1, 2, 3], [*OWN, "value", "value"]),
        features("tags", [None, None, "x", "y"], [0, 1, 2, 3], [*OWN, "value", "value"]),
    ]
)
PREPARED = pl.DataFrame(
    {
        "user": ["b", None, "z"],
        "count": [10.0, None, 7.0],
        "price": [4.0, None, 2.0],
        "age": [31.0, None, 30.0],
        "tags": [["y", "q", "x"], None, ["x"]],
    }
)


def test_every_kind_of_field_is_encoded_as_its_vocabulary_says(make_schema):
    found = Encoder(make_schema(fields=FIELDS), ENTRIES, VOCABULARY).encode(PREPARED)
    assert found.rows(named=True) == [
        {"user": 3, "count": 3, "price": 2, "@value:price": 1.0, "age": 2, "tags": [3, 0, 2]},
        {"user": 1, "count": 1, "price": 1, "@value:price": 1.0, "age": 1, "tags": [1]},
        {"user": 0, "count": 0, "price": 2, "@value:price": 0.0, "age": 3, "tags": [2]},
    ]
    assert found.dtypes == [pl.Int32, pl.Int32, pl.Int32, pl.Float32, pl.Int32, pl.List(pl.Int32)]


def test_a_compact_vocabulary_has_rows_as_ids_and_drops_to_zero(make_schema):
    compact = pl.concat(
        [features("user", ["b"], [77]), features("tags", [None, "x"], [5, 6], ["unknown", "value"])]
    )
    found = Encoder(make_schema(fields=FIELDS), ENTRIES, compact, only=["tags", "user"]).encode(PREPARED)
    assert found.rows(named=True) == [
        {"user": 77, "tags": [5, 5, 6]},
        {"user": 0, "tags": [0]},
        {"user": 0, "tags": [6]},
    ]


def test_fields_that_are_not_listed_are_left_out(make_schema):
    encoder = Encoder(make_schema(fields=FIELDS), ENTRIES[:1], VOCABULARY)
    assert [field.name for field in encoder.fields] == ["user"]
    assert encoder.encode(PREPARED).columns == ["user"]


def test_no_rows_give_no_ids(make_schema):
    found = Encoder(make_schema(fields=FIELDS), ENTRIES, VOCABULARY).encode(PREPARED.clear())
    assert found.height == 0
    assert found.width == 6
