import polars as pl
import pytest

from ctr.dataset import vocabulary as module
from ctr.dataset.vocabulary import merged, scaled_vocabulary, vocabulary


def counts(**values):
    return pl.DataFrame({"value": list(values), "count": list(values.values())})


def test_values_come_by_count_descending_then_by_value():
    found = vocabulary("x", counts(b=3, a=3, c=5, d=1))
    assert found["value"].to_list() == [None, None, "c", "a", "b", "d"]
    assert found["id"].to_list() == [0, 1, 2, 3, 4, 5]
    assert found["role"].to_list() == ["unknown", "missing", *["value"] * 4]


def test_values_sort_by_their_characters_not_by_language():
    found = vocabulary("x", counts(**{"b": 1, "B": 1, "é": 1, "10": 1, "9": 1}))
    assert found["value"].to_list()[2:] == ["10", "9", "B", "b", "é"]


def test_rare_values_are_unknown_and_nulls_missing():
    found = vocabulary(
        "x",
        pl.concat(
            [counts(a=5, b=2, c=1), pl.DataFrame({"value": [None], "count": [7]}).cast({"value": pl.String})]
        ),
        min_count=2,
    )
    assert found.select("value", "count").rows() == [(None, 1), (None, 7), ("a", 5), ("b", 2)]


def test_a_scaled_field_has_three_features():
    assert scaled_vocabulary("x", 9, 1).rows() == [
        ("x", "unknown", None, 0, 0, 0.0),
        ("x", "missing", None, 1, 1, 1.0),
        ("x", "value", None, 2, 9, 9.0),
    ]


@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_chunks_add_up_however_they_are_merged(monkeypatch, limit):
    monkeypatch.setattr(module, "_PENDING_ROWS", limit)
    found = merged([counts(a=1, b=2), counts(b=3, c=0), counts(a=4)])
    assert sorted(found.rows()) == [("a", 5), ("b", 5)]
