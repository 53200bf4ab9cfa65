"""Rows of any container as one frame, and back."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from scipy import sparse

from ctr.dataset.field_spec import FieldSpec
from ctr.errors import ConfigError
from ctr.estimators.field_specs import by_type, field_specs, is_constant
from ctr.estimators.frames import returned, to_table

ROWS = [{"a": "x", "b": 1}, {"a": None, "b": 2}, {"a": "y", "b": 2}]
FRAME = pl.DataFrame(ROWS)


@pytest.mark.parametrize(
    "given",
    [FRAME, FRAME.lazy(), pd.DataFrame(ROWS), FRAME.to_arrow(), pa.table(FRAME), ROWS],
    ids=["polars", "lazy", "pandas", "arrow", "pyarrow", "dicts"],
)
def test_every_container_with_names_is_the_same_frame(given):
    table = to_table(given, "who")
    assert table.named
    assert table.frame.equals(FRAME)


def test_arrays_have_columns_by_number():
    for given in (np.array([["x", 1], [None, 2]], dtype=object), [["x", 1], [None, 2]]):
        table = to_table(np.array(given, dtype=object), "who")
        assert not table.named
        assert table.frame.equals(pl.DataFrame({"x0": ["x", None], "x1": [1, 2]}))
    found = to_table(np.array([[1.5, np.nan]]), "who").frame
    assert found.rows() == [(1.5, None)]


def test_a_key_that_a_dict_lacks_is_missing():
    assert to_table([{"a": 1}, {"b": 2}], "who").frame.rows() == [(1, None), (None, 2)]


def test_pandas_columns_without_names_are_numbered_and_come_back_with_their_index():
    given = pd.DataFrame([["x", 1.0], ["y", 2.0]], index=[7, 9])
    table = to_table(given, "who")
    assert (table.named, table.frame.columns) == (False, ["x0", "x1"])
    found = returned(table.frame.select("x1"), [], table, "default")
    assert found.equals(pd.DataFrame({"x1": [1.0, 2.0]}, index=[7, 9]))


def test_untouched_pandas_columns_keep_their_type():
    given = pd.DataFrame(
        {"a": pd.Categorical(["x", "y"]), "b": pd.array([1, None], dtype="Int64")}, index=["p", "q"]
    )
    table = to_table(given, "who")
    changed = table.frame.with_columns(a=pl.Series(["x", None]))
    found = returned(changed, ["a"], table, "default")
    assert found["b"].dtype == "Int64"
    assert found["a"].isna().tolist() == [False, True]
    assert found.index.tolist() == ["p", "q"]


@pytest.mark.parametrize(
    ("container", "kind"), [("default", pl.DataFrame), ("pandas", pd.DataFrame), ("polars", pl.DataFrame)]
)
def test_rows_come_back_in_what_is_asked_for(container, kind):
    assert isinstance(returned(FRAME, [], to_table(FRAME, "who"), container), kind)


def test_arrays_of_numbers_come_back_as_numbers_and_others_as_objects():
    numbers = to_table(np.array([[1.5, 2.0], [3.0, 4.0]], np.float32), "who")
    assert returned(numbers.frame, [], numbers, "default").dtype == np.float32
    whole = to_table(np.array([[1, 2], [3, 4]]), "who")
    holed = whole.frame.with_columns(x0=pl.Series([None, 3]))
    assert np.isnan(returned(holed, ["x0"], whole, "default")[0, 0])
    texts = to_table(np.array([["x", 1]], dtype=object), "who")
    assert returned(texts.frame, [], texts, "default").tolist() == [["x", 1]]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (pl.DataFrame(), ValueError, r"0 feature\(s\) \(shape=\(0, 0\)\)"),
        (pl.DataFrame({"a": []}), ValueError, r"0 sample\(s\)"),
        ([], ValueError, "Expected 2D array"),
        (pl.Series([1]), ValueError, "Expected 2D array"),
        (np.zeros((2, 2, 2)), ValueError, "dim 3"),
        (sparse.csr_matrix(np.eye(2)), TypeError, "[Ss]parse data was passed"),
        ("abc", ValueError, "Expected 2D array"),
        (None, ValueError, "Expected 2D array|NoneType"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), ValueError, "several columns of the name 'a'"),
        (pd.DataFrame([[1, 2]], columns=["a", 1]), TypeError, "string names"),
        (pd.DataFrame({"a": [1, "x"]}), ValueError, 'column "a" holds values that are not of one type'),
        ([{"a": 1}, {"a": "x"}], ValueError, 'column "a" holds values that are not of one type'),
        ([{1: 1}], TypeError, "string names"),
        (np.array([[object()]]), ValueError, 'column "x0" holds values that are not of one type'),
    ],
)
def test_what_cannot_be_rows_is_refused_in_plain_words(given, error, message):
    with pytest.raises(error, match=message):
        to_table(given, "who")


def test_columns_are_found_by_name_in_any_order_and_missing_ones_are_named():
    table = to_table(pl.DataFrame({"b": [1], "extra": [2], "a": ["x"]}), "who")
    assert table.columns(["a", "b"], "who").frame.columns == ["a", "b"]
    with pytest.raises(
        ValueError, match=r'who: X lacks 1 of the columns.*"extr"; the nearest name is "extra"'
    ):
        table.columns(["a", "extr"], "who")
    with pytest.raises(ValueError, match="X has 1 features, but who is expecting 2 features as input"):
        to_table(np.array([[1]]), "who").columns(["x0", "x1"], "who")


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["a", None], "categorical"),
        ([True, False], "categorical"),
        ([1, 2], "categorical"),
        ([1.0, None], "categorical"),  # numbers of things, with holes: pandas makes floats of them
        ([1.5, 2.0], "numeric"),
        ([["a"], []], "list"),
        (pl.Series([[1.0, 2.0]], dtype=pl.Array(pl.Float64, 2)), "vector"),
        (pl.Series(["a"], dtype=pl.Categorical), "categorical"),
    ],
)
def test_a_column_is_what_its_type_says(cells, kind):
    assert by_type(pl.Series("a", cells))["kind"] == kind


def test_what_is_stated_of_a_column_goes_first():
    frame = pl.DataFrame({"a": [1.5, 2.5], "b": ["x|y", "z"], "c": ["x", "y"]})
    stated = {
        "a": {"bins": 3},
        "b": {"kind": "list", "separator": "|"},
        "c": {"min_count": 5, "keep": "always"},
    }
    a, b, c = field_specs(frame, stated, 2)
    assert (a.kind, a.transform, a.bins, a.min_count) == ("numeric", "quantile", 3, 1)
    assert (b.kind, b.separator, b.min_count) == ("list", "|", 2)
    assert (c.min_count, c.keep) == (5, "always")
    with pytest.raises(ConfigError, match='fields: "aa" is no column of X; the nearest name is "a"'):
        field_specs(frame, {"aa": {}}, 1)
    with pytest.raises(
        ConfigError, match='fields: column "a": 1 mistake\n  bin: unknown key; the nearest name is "bins"'
    ):
        field_specs(frame, {"a": {"bin": 3}}, 1)
    with pytest.raises(ConfigError, match="reserved"):
        field_specs(pl.DataFrame({"@a": [1]}), None, 1)


@pytest.mark.parametrize(
    ("keys", "cells", "constant"),
    [
        ({}, ["k", "k"], True),
        ({}, ["k", None], False),
        ({}, [None, None], True),
        ({"kind": "list"}, [["a"], ["a"]], True),
        ({"kind": "list"}, [["a"], []], False),
        ({"kind": "numeric", "transform": "quantile", "bins": 4}, [0.0] + [1.0] * 99, True),
        ({"kind": "numeric", "transform": "log_square"}, [0.1, 0.2], True),
        ({"kind": "numeric", "transform": "standard"}, [0.1, 0.2], False),
    ],
)
def test_columns_that_say_nothing_are_told_as_ingest_would(keys, cells, constant):
    assert is_constant(FieldSpec(name="a", **keys), pl.Series("a", cells)) is constant
