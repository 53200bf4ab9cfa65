"""Expressions of a foreign bundle that would end the process, hang, or fill the memory."""

import pytest

from tests.serving.attacks import fresh, opened, refused, rewritten

CHAIN = {"d0": "CONCAT('aaaaaaaaaa', seconds)"} | {
    f"d{n}": f"CONCAT(d{n - 1}, d{n - 1})" for n in range(1, 23)
}
NESTED = "CONCAT('a', seconds)"
for _ in range(7):
    NESTED = f"REPLACE({NESTED}, 'a', 'aaaaaaaaaa')"
WORDS = "expected at most 400 names, words and signs"


def derived(folder, hour, **others):
    """The bundle with another expression of its field `hour`, and others that it may name."""
    bundle = fresh(folder)
    rewritten(bundle, "schema.json", lambda content: content.update(derive={**others, "hour": hour}))
    return bundle


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seconds" + "+1" * 50_000, "expected at most 10000 characters, found 100007"),
        ("seconds" + "::int" * 50_000, "expected at most 10000 characters"),
        ("seconds" + "+1" * 3_000, WORDS),
        (" OR ".join(["seconds = 1"] * 400), WORDS),
        ("seconds" + " IS NULL" * 400, WORDS),
        ("NOT " * 300 + "(seconds > 1)", "hour"),
        ("(" * 4_000 + "seconds" + ")" * 4_000, "hour"),
        (NESTED, "text may grow 10000000 times as long, at most 10000 times is allowed"),
        ("LPAD(seconds, 1000000000, 'x')", "LPAD takes a length of at most 1000"),
        ("LPAD(seconds, seconds * 1000000000, 'x')", "LPAD takes a length of at most 1000"),
        ("REPLACE(seconds, '', CONCAT(seconds, seconds))", "REPLACE takes a column and two texts"),
        ("GENERATE_SERIES(1, 1000000000)", "GENERATE_SERIES is not for rows"),
        ("ARRAY_AGG(seconds)", "ARRAY_AGG is not for rows"),
        ('"array_agg"(seconds)', "ARRAY_AGG is not for rows"),
        ("seconds /* ' */ || LPAD(seconds, 1000000000, 'x') /* ' */", "no comments and no other quotes"),
        ("E'\\'' || LPAD(seconds, 1000000000, 'x') || '", "no comments and no other quotes"),
    ],
    ids=range(16),
)
def test_an_expression_without_bounds_is_refused(tmp_path, text, message):
    assert message in refused(derived(tmp_path, text))


def test_a_chain_of_columns_that_double_is_refused_when_cells_are_long(tmp_path):
    assert "expected at most 65536 bytes of text in a cell, found" in refused(
        derived(tmp_path, "d22", **CHAIN)
    )


def test_columns_that_are_many_and_long_are_refused_together(tmp_path):
    long = "CONCAT(" + ", ".join(["CAST(seconds AS VARCHAR)", *(["d"] * 60)]) + ")"
    start = "RPAD(CAST(seconds AS VARCHAR), 1000, 'x')"
    many = {f"e{number}": long for number in range(300)}
    all_of_them = "CONCAT(" + ", ".join(f"LEFT(e{number}, 1)" for number in range(120)) + ")"
    assert "derived columns of 200 rows take more than" in refused(
        derived(tmp_path, all_of_them, d=start, **many)
    )


def test_a_thousand_derived_columns_are_the_most(tmp_path):
    message = refused(derived(tmp_path, "seconds", **{f"d{number}": "seconds" for number in range(1_001)}))
    assert "derive: expected at most 1000" in message or "at most 1000 items" in message


def test_what_the_rows_of_others_do_not_change_scores(tmp_path):
    """The same hour, said in many words."""
    usual = opened(fresh(tmp_path / "usual")).scores
    text = "CAST(REPLACE(REPLACE(LPAD(CAST(seconds AS VARCHAR), 20, '0'), '', ''), 'x', 'yy') AS BIGINT) / 3600 % 24"
    outcome = opened(derived(tmp_path, text))
    assert (outcome.told, outcome.scores) == ("", usual)
