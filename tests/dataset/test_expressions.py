"""Expressions of a schema: how much they may ask for, and that what is evaluated in parts is what it is as a whole."""

import polars as pl
import pytest

from ctr.dataset import expressions
from ctr.dataset.expression_limits import growth
from ctr.dataset.expressions import Expression, roots
from ctr.errors import DataError

FRAME = pl.DataFrame({"a": ["x", "yy", None, "", "\u00df"], "n": [1, 2, None, 4, 5]})


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("a", 1), ("n + 1", 1), ("REPLACE(a, '-', '')", 1), ("REPLACE(a, 'and', '&')", 1),
        ("REPLACE(a, 'x', 'four')", 4), ("REPLACE(a, 'xy', 'three')", 3), ("REPLACE(a, '', 'x')", 2),
        ("REGEXP_REPLACE(a, '(x)', '$1$1')", 5), ("UPPER(REPLACE(a, 'x', 'yy'))", 6), ("NORMALIZE(a, NFKD)", 18),
        ("REPLACE(REPLACE(a, 'x', 'yy'), 'y', 'xx')", 4), ("'REPLACE(a, 1, 2)'", 1), ('"REPLACE"', 1),
    ],
)  # fmt: skip
def test_how_much_longer_a_cell_may_become(text, times):
    assert growth("here", text).times == times


@pytest.mark.parametrize(
    ("text", "cells"),
    [
        ("a", 1), ("CONCAT(a, a, a)", 3), ("REPLACE(a, '', '123')", 1), ("UPPER(a)", 1), ("LPAD(a, 30, 'z')", 1),
        ("REGEXP_REPLACE(a, '(.)', '$1$1$1')", 1), ("NORMALIZE(a, NFKD)", 1), ("a || a || 'long text'", 1),
    ],
)  # fmt: skip
def test_no_cell_becomes_longer_than_it_is_said(text, cells):
    frame = pl.DataFrame({"a": ["x" * 200, "\u00df" * 100, "\ufdfa" * 66, "\u0390" * 100, "1"]})
    found = Expression("k", text, frame.columns).evaluate(frame)
    assert found.str.len_bytes().max() <= growth("here", text).bytes(200)


def test_lists_of_many_constants_and_cases_are_within_the_limits():
    many = ", ".join(map(str, range(1_500)))
    assert Expression("where", f"n IN ({many})", FRAME.columns).evaluate(FRAME).to_list()[0] is True
    cases = " ".join(f"WHEN n = {number} THEN 'case {number}'" for number in range(90))
    assert Expression("derive.x", f"CASE {cases} END", FRAME.columns).evaluate(FRAME).to_list()[1] == "case 2"


def test_rows_that_could_become_long_are_evaluated_in_parts(monkeypatch):
    text = "CONCAT(REPLACE(a, '', 'ab'), n)"
    whole = Expression("k", text, FRAME.columns).evaluate(FRAME)
    monkeypatch.setattr(expressions, "_AT_ONCE", 2 * growth("k", text).bytes(2))
    seen = []
    evaluated = Expression._evaluated
    monkeypatch.setattr(
        Expression, "_evaluated", lambda self, part: seen.append(part.height) or evaluated(self, part)
    )
    parts = Expression("k", text, FRAME.columns).evaluate(FRAME)
    assert seen == [2, 2, 1]
    assert parts.to_list() == whole.to_list()
    assert Expression("k", text, FRAME.columns).evaluate(FRAME.clear()).to_list() == []


def test_cells_that_are_too_long_already_are_told_before_anything_is_evaluated():
    frame = pl.DataFrame({"a": ["x" * 1_000_000]})
    with pytest.raises(DataError, match=r"text of up to \d+ bytes in a cell could come of it"):
        Expression("k", "REPLACE(a, 'x', '" + "y" * 500 + "')", frame.columns).evaluate(frame)


def test_a_name_that_is_no_expression_names_itself():
    for name in ("#clicks", "it's", "a--b", "x" * 20_000, "user id"):
        assert roots(name) == [name]
        assert Expression("label", name, [name]).roots == [name]
