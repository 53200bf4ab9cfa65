"""docs/scikit-learn.md prints what it says it prints."""

import contextlib
import io
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "scikit-learn.md"


def test_the_example_prints_what_the_page_says():
    code, printed = re.findall(r"^```(?:python)?\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.S | re.M)[
        :2
    ]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(code, {})
    found, expected = out.getvalue().strip().splitlines(), printed.strip().splitlines()
    assert found[0] == expected[0]
    assert len(found) == len(expected)
    assert float(found[-1].split()[1]) == pytest.approx(float(expected[-1].split()[1]), abs=0.03)
