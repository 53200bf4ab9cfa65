from datetime import date, datetime

import numpy as np
import polars as pl
import pytest

from ctr.dataset import canonical
from ctr.dataset.bad_rows import no_bad_rows
from ctr.dataset.expressions import dtype_text, inferred, parse_dtype
from ctr.dataset.preparation import Preparation
from ctr.dataset.reading import Chunk
from ctr.errors import ConfigError, DataError


def chunk_of(frame: pl.DataFrame, offset: int = 0) -> Chunk:
    return Chunk("log.csv", frame, np.arange(frame.height), offset, frame.height, no_bad_rows(), 1.0)


def prepared(schema, frame, **keys):
    return Preparation(schema, frame.columns, **keys)(chunk_of(frame))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a", "", None, " 1"], ["a", None, None, " 1"]),
        ([1, -20, None], ["1", "-20", None]),
        ([1.0, -0.0, 2.5, 1e-7, 1e300, float("nan"), None], ["1", "0", "2.5", "1e-07", "1e+300", None, None]),
        ([0.1 + 0.2], ["0.30000000000000004"]),
        ([True, False, None], ["true", "false", None]),
        ([date(2024, 2, 29)], ["2024-02-29"]),
        ([datetime(2024, 2, 29, 1, 2, 3)], ["2024-02-29T01:02:03"]),
    ],
)
def test_one_value_has_one_text(values, expected):
    assert canonical.text(pl.Series("x", values)).to_list() == expected


def test_the_same_number_is_the_same_value_from_text_integer_and_float_columns():
    columns = [
        pl.Series("x", ["7"]),
        pl.Series("x", [7]),
        pl.Series("x", [7.0]),
        pl.Series("x", [7], dtype=pl.UInt8),
    ]
    assert {canonical.text(column)[0] for column in columns} == {"7"}


def test_zoned_times_become_utc_text_and_categories_their_names():
    zoned = pl.Series("x", [datetime(2024, 1, 1)]).dt.replace_time_zone("Europe/Paris")
    assert canonical.text(zoned).to_list() == ["2023-12-31T23:00:00Z"]
    assert canonical.text(pl.Series("x", ["b", "a"], dtype=pl.Enum(["a", "b"]))).to_list() == ["b", "a"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["a|b", "a", "", "|", "a||b", None], [["a", "b"], ["a"], None, None, ["a", "b"], None]),
        ([[1, 2], [], None, [None, 3]], [["1", "2"], None, None, ["3"]]),
        ([["x", ""], [""]], [["x"], None]),
        ([None, None], [None, None]),
    ],
)
def test_lists_lose_empty_items_and_empty_lists_are_missing(values, expected):
    assert canonical.lists(pl.Series("x", values), "|", "x").to_list() == expected


def test_a_sliced_list_column_keeps_its_own_rows():
    column = pl.Series("x", [["a"], ["b", "c"], None, ["d"]])[1:]
    assert canonical.lists(column, None, "x").to_list() == [["b", "c"], None, ["d"]]


def test_a_list_of_text_needs_a_separator():
    with pytest.raises(ConfigError, match=r'field "tags" is a list of text: it needs separator = "..."'):
        canonical.lists(pl.Series("x", ["a|b"]), None, "tags")


@pytest.mark.parametrize(
    ("values", "numbers", "broken"),
    [
        (["1", "-2.5", "1e3", None], [1.0, -2.5, 1000.0, None], [False] * 4),
        ([" 7 ", "nan", "inf", "x", "1_0"], [7.0, None, None, None, None], [False, False, True, True, True]),
        (["99999999999999999999999", "-5"], [1e23, -5.0], [False, False]),
        ([1, None], [1.0, None], [False, False]),
        ([float("inf"), float("nan"), -1.5], [None, None, -1.5], [True, False, False]),
        ([True, False], [1.0, 0.0], [False, False]),
    ],
)
def test_numbers_are_finite_or_missing_or_broken(values, numbers, broken):
    found, bad = canonical.numbers(pl.Series("x", values))
    assert found.to_list() == numbers
    assert bad.to_list() == broken


def test_a_text_column_takes_the_type_that_nearly_all_its_cells_have():
    assert inferred(pl.Series(["1", "2", None]), 0.0) == pl.Int64
    assert inferred(pl.Series(["1", "2.5"]), 0.0) == pl.Float64
    assert inferred(pl.Series(["false", "true"]), 0.0) == pl.Boolean
    assert inferred(pl.Series(["1", "x"]), 0.01) == pl.String
    assert inferred(pl.Series(["1"] * 99 + ["x"]), 0.01) == pl.Int64
    assert inferred(pl.Series([None, None], dtype=pl.String), 0.0) == pl.String


@pytest.mark.parametrize(
    "dtype",
    [
        pl.Int64(),
        pl.String(),
        pl.Date(),
        pl.Datetime("us"),
        pl.Datetime("ms", "Europe/Paris"),
        pl.List(pl.Int8()),
    ],
)
def test_types_survive_the_manifest(dtype):
    assert parse_dtype(dtype_text(dtype)) == dtype


def test_derived_columns_serve_fields_where_and_label(make_schema):
    schema = make_schema(
        label="score >= 6",
        where="double <> 8",
        derive={"double": "rating * 2", "score": "double + 1"},
        fields=[{"name": "double"}, {"name": "rating"}],
    )
    result = prepared(schema, pl.DataFrame({"rating": ["1", "3", "4", "5", None]}))
    assert result.frame.rows(named=True) == [
        {"@row": 0, "@label": 0, "double": "2", "rating": "1"},
        {"@row": 1, "@label": 1, "double": "6", "rating": "3"},
        {"@row": 3, "@label": 1, "double": "10", "rating": "5"},
    ]
    # 4 * 2 = 8 is filtered; a null comparison is no true one.
    assert (result.filtered, result.bad.height) == (2, 0)


def test_a_field_keeps_its_raw_text_where_an_expression_sees_a_number(make_schema):
    schema = make_schema(label='"user" > 5', fields=[{"name": "user"}])
    result = prepared(schema, pl.DataFrame({"user": ["007", "04"]}))
    assert result.frame["user"].to_list() == ["007", "04"]
    assert result.frame["@label"].to_list() == [1, 0]


def test_rows_that_break_the_schema_are_listed_once_with_the_first_reason(make_schema):
    schema = make_schema(
        where="day > 0",
        fields=[{"name": "price", "kind": "numeric", "transform": "minmax"}],
        read={"max_bad_rows": 0.5},
    )
    frame = pl.DataFrame(
        {
            "click": ["1", "2", None, "0", "x", "0"],
            "day": ["1", "1", "1", "1", "0", "later"],
            "price": ["1", "z", "1", "inf", "z", "1"],
        }
    )
    result = prepared(schema, frame)
    assert result.rows.tolist() == [0]
    assert result.filtered == 1
    assert result.bad.select("row", "column", "found", "reason").rows() == [
        (2, "click", "2", "expected a label of 0 or 1"),
        (3, "click", None, "expected a label of 0 or 1"),
        (4, "price", "inf", "expected a finite number"),
        (6, "day", "later", "expected Int64, as in the rest of the column"),
    ]


@pytest.mark.parametrize(
    "labels", [["1", "0"], ["1.0", "0.0"], ["true", "False"], [1, 0], [1.0, 0.0], [True, False]]
)
def test_labels_are_zeros_and_ones_however_they_are_written(make_schema, labels):
    result = prepared(make_schema(), pl.DataFrame({"click": labels, "user": ["a", "b"]}))
    assert result.frame["@label"].to_list() == [1, 0]


def test_a_true_probability_must_be_one(make_schema):
    schema = make_schema(true_probability="p")
    result = prepared(schema, pl.DataFrame({"click": ["1", "0"], "user": ["a", "b"], "p": ["0.25", "1.5"]}))
    assert result.frame["@true_probability"].to_list() == [0.25]
    assert result.bad["column"].to_list() == ["p"]


def test_in_scoring_every_row_stays_and_neither_label_nor_where_is_needed(make_schema):
    schema = make_schema(
        where="rating <> 3",
        derive={"age": "2024 - born", "unused": "rating * 2"},
        fields=[{"name": "age"}, {"name": "price", "kind": "numeric", "transform": "minmax"}],
    )
    frame = pl.DataFrame({"price": ["1", "x", None], "born": ["2000", "2001", "?"], "other": ["", "", ""]})
    preparation = Preparation(schema, frame.columns, types={"born": "Int64"}, training=False)
    assert preparation.raw_columns == ["price", "born"]
    result = preparation(chunk_of(frame))
    assert result.frame.rows() == [("24", 1.0), ("23", None), (None, None)]
    assert result.bad.select("row", "column").rows() == [(2, "price"), (3, "born")]


def test_scoring_some_fields_needs_only_their_columns(make_schema):
    schema = make_schema(derive={"age": "2024 - born"}, fields=[{"name": "age"}, {"name": "user"}])
    preparation = Preparation(schema, ["user"], types={}, fields=["user"], training=False)
    assert preparation.raw_columns == ["user"]


def test_an_expression_without_columns_has_a_value_in_each_row(make_schema):
    result = prepared(make_schema(label="1"), pl.DataFrame({"user": ["a", "b"]}))
    assert result.frame["@label"].to_list() == [1, 1]


JOIN = {"input": "users.csv", "on": "user"}


def test_a_side_table_adds_attributes_by_canonical_key_and_order_stays(make_schema):
    schema = make_schema(fields=[{"name": "user"}, {"name": "age"}], joins=[JOIN])
    side = pl.DataFrame({"user": [2, 1, None], "age": ["33", "44", "55"]})
    frame = pl.DataFrame({"click": ["1", "0", "1", "0"], "user": ["1", "3", "2", None]})
    result = prepared(schema, frame, side_tables=[side])
    assert result.frame["age"].to_list() == ["44", None, "33", None]
    assert [partners.alone for partners in result.unmatched] == [2]


def test_a_join_may_go_through_the_attribute_of_another(make_schema):
    schema = make_schema(fields=[{"name": "country"}], joins=[JOIN, {"input": "cities.csv", "on": "city"}])
    sides = [
        pl.DataFrame({"user": ["a"], "city": ["Lyon"]}),
        pl.DataFrame({"city": ["Lyon"], "country": ["France"]}),
    ]
    frame = pl.DataFrame({"user": ["a", "b"]})
    preparation = Preparation(schema, frame.columns, types={}, side_tables=sides, training=False)
    assert preparation(chunk_of(frame)).frame["country"].to_list() == ["France", None]
    assert [table.columns for table in preparation.side_tables()] == [["user", "city"], ["city", "country"]]


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (
            {"user": ["a", "a"], "age": ["1", "2"]},
            'expected one row per "user", found several, for example of "a"',
        ),
        ({"user": ["a"], "click": ["1"]}, 'its column "click" is also a column of the input'),
        ({"usr": ["a"], "age": ["1"]}, 'has no key column "user"; the nearest name is "usr"'),
    ],
)
def test_a_side_table_that_cannot_be_joined_is_refused(make_schema, side, expected):
    with pytest.raises(DataError, match=expected):
        Preparation(make_schema(joins=[JOIN]), ["click", "user"], side_tables=[pl.DataFrame(side)])


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (
            {"label": "clik"},
            r'schema label = "clik": "clik" is no column of the input and not derived; the nearest',
        ),
        ({"label": "rating >= "}, r'schema label = "rating >= ": .*parse'),
        (
            {"label": "user > 5"},
            r"unsupported function 'user'; the column of that name is written '\"user\"'",
        ),
        ({"label": "clic k"}, r'schema label = "clic k": .*; the nearest name is "click"'),
        ({"where": "foo(click) > 1"}, r'schema where = "foo\(click\) > 1": unsupported function \'foo\''),
        (
            {"derive": {"x": "usr + 1"}},
            r'schema derive.x = "usr \+ 1": "usr" is no column .*nearest name is "user"',
        ),
        (
            {"fields": [{"name": "uzer"}]},
            r'field "uzer" is no column of the input and not derived; the nearest',
        ),
        (
            {"split": {"by": "hash", "column": "usr"}},
            r'schema split.column = "usr" is no column of the input and not derived; the nearest name is "user"',
        ),
        ({"joins": [{"input": "u.csv", "on": "usr"}]}, r'join "u.csv": the key "usr" is no column'),
    ],
)
def test_a_wrong_name_or_expression_is_named_with_its_schema_key(make_schema, keys, expected):
    sides = [pl.DataFrame({"usr": ["a"]})] if "joins" in keys else []
    with pytest.raises(DataError, match=expected):
        Preparation(make_schema(**keys), ["click", "user", "rating"], side_tables=sides)


def test_an_expression_that_cannot_be_computed_is_named(make_schema):
    frame = pl.DataFrame({"click": ["1", "0"], "user": ["a", "b"], "x": [["a"], []]})
    with pytest.raises(DataError, match=r'schema where = "x \* 2 > 1": '):
        prepared(make_schema(where="x * 2 > 1"), frame)


def test_a_filter_must_say_true_or_false(make_schema):
    frame = pl.DataFrame({"click": ["1", "0"], "user": ["a", "b"], "age": ["1", "2"]})
    with pytest.raises(
        DataError, match=r'where = "age \+ 1": expected true or false for each row, found Int64'
    ):
        prepared(make_schema(where="age + 1"), frame)


@pytest.mark.parametrize("text", ["x - AVG(x)", "SUM(x) > 3", "ROW_NUMBER() OVER (ORDER BY x)"])
def test_an_expression_that_mixes_rows_is_refused(make_schema, text):
    frame = pl.DataFrame({"click": ["1", "0", "1", "0"], "user": list("abcd"), "x": ["1", "2", "4", "9"]})
    preparation = Preparation(make_schema(derive={"y": text}), frame.columns)
    with pytest.raises(DataError, match=r"schema derive.y = .*: a row must be computed from its own columns"):
        preparation.check_expressions(chunk_of(frame))
