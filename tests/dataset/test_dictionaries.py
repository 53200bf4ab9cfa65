"""Dictionaries of chunks: whatever form values are kept in, they come back as they were."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctr.dataset import short_texts, value_totals
from ctr.dataset.counting import FieldCounts
from ctr.dataset.dictionaries import Dictionaries
from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.short_texts import packed, unpacked

SHORT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(
    lambda text: len(text.encode()) <= 8
)


def texts(*values):
    return pl.Series("value", values, dtype=pl.String)


@given(st.lists(st.none() | SHORT, max_size=40))
def test_short_texts_are_their_numbers(values):
    numbers = packed(texts(*values))
    assert unpacked(pl.Series("value", numbers, dtype=pl.Int64)).to_list() == values
    assert len(set(numbers.to_pylist())) == len(set(values))
    in_order = pl.DataFrame({"text": texts(*values), "number": numbers}).drop_nulls().sort("text")
    assert in_order["number"].is_sorted()


def test_texts_that_differ_in_zeros_or_length_alone_have_different_numbers_in_their_order():
    seven = ["\0" * 7, "a" * 7]
    eight = [text + end for text in seven for end in "\0ab"]
    values = sorted(["", "\0", "\0\0", "a", "a\0", "é" * 4, "\U0010ffff" * 2, *seven, *eight])
    numbers = packed(texts(*values)).to_pylist()
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == len(values)


def test_a_slice_of_a_column_has_the_numbers_of_its_own_rows(monkeypatch):
    monkeypatch.setattr(short_texts, "_SLICE", 3)
    values = ["a", None, "bb", "ccc", "dddddddd", None, "é"]
    for start in range(len(values)):
        part = texts(*values)[start:]
        assert unpacked(pl.Series(packed(part))).to_list() == values[start:]


@pytest.mark.parametrize("limit", [1, 3, 1000])
def test_long_texts_that_are_not_there_do_not_count(monkeypatch, limit):
    monkeypatch.setattr(short_texts, "_SLICE", limit)
    column = texts("longer than eight", "a", "longer than twelve bytes", None, "b")
    hidden = column.set(column.str.len_bytes() > 8, None)
    assert packed(column) is None
    assert unpacked(pl.Series(packed(hidden))).to_list() == [None, "a", None, None, "b"]
    assert unpacked(pl.Series(packed(column[3:]))).to_list() == [None, "b"]
    assert packed(hidden[1:]).null_count == 2


@pytest.mark.parametrize("long", ["é" * 4 + "x", "a" * 9, "a" * 13])
def test_a_long_text_has_no_number(long):
    assert packed(texts("a", long)) is None


def test_chunks_of_short_and_long_texts_are_read_as_texts(tmp_path):
    found = Dictionaries(tmp_path, numeric=False)
    chunks = [["b", None, "b"], ["a", "long enough to be long"], [None, "c"], ["longer than eight", "b"]]
    coded = [found.code(texts(*chunk)) for chunk in chunks]
    found.close()
    assert found.kind == "text"
    for order in (None, [3, 0, 2]):
        for place, values in zip(order or range(4), found.read(order), strict=True):
            assert [values[int(code)] for code in coded[place]] == chunks[place]


def test_codes_are_as_narrow_as_they_can_be(tmp_path):
    found = Dictionaries(tmp_path, numeric=True)
    for size, dtype in ((255, np.uint8), (1000, np.uint16), (70_000, np.uint32)):
        values = pl.Series(np.arange(size))
        codes = found.code(values)
        assert codes.dtype == dtype
        assert np.array_equal(codes, np.arange(size))


@pytest.mark.parametrize("pending", [0, 1000])
@pytest.mark.parametrize("last", ["y", "a value of more than eight bytes"])
def test_one_long_value_changes_no_other_value_or_id(tmp_path, monkeypatch, last, pending):
    # "z" is in a row that is not train first, and in train rows later.
    monkeypatch.setattr(value_totals, "_PENDING_ROWS", pending)
    chunks = [["x", "y", None, "x"], ["z", "unseen", last, "x"], ["y", None, "z", "z"]]
    train = np.array([True, True, True, True]), np.array([False, False, True, True]), np.ones(4, np.bool_)
    field = FieldCounts(FieldSpec(name="f"), tmp_path)
    coded = [field.code(texts(*chunk).alias("f")) for chunk in chunks]
    for number, (codes, chosen) in enumerate(zip(coded, train, strict=True)):
        field.count(codes.filter(pl.Series(chosen)), 0, number, None)
    field.close()
    own = field.decide()
    counted = pl.Series(
        [v for c, t in zip(chunks, train, strict=True) for v, k in zip(c, t, strict=True) if k]
    )
    expected = counted.drop_nulls().value_counts().sort(["count", ""], descending=[True, False])
    assert own["value"][2:].to_list() == expected[""].to_list()
    assert own["count"][2:].to_list() == expected["count"].to_list()
    ids = {None: 1, **dict(zip(own["value"][2:], own["id"][2:], strict=True))}
    for chunk, codes in zip(chunks, coded, strict=True):
        assert field.encode(codes)[0].to_list() == [ids.get(value, 0) for value in chunk]
