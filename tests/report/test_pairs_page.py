from itertools import pairwise

import pytest

from ctr.report.headline import verdict
from ctr.report.html import write_report
from ctr.report.pairs import pairs_plot, pairs_png, pairs_table

PAIRS = [
    {"field_a": "a", "field_b": "b", "method": "memorize", "strength": 300.0},
    {"field_a": "a", "field_b": "c<", "method": "factorize", "strength": 20.0},
    {"field_a": "b", "field_b": "c<", "method": "naive", "strength": -2.0},
]
LOST = [
    PAIRS[0] | {"auc_lost": {"value": 0.02, "low": 0.01, "high": 0.03}},
    PAIRS[1] | {"auc_lost": {"value": 0.0001, "low": -0.001, "high": 0.002}},
]


@pytest.fixture
def with_pairs(report):
    report["interactions"] = {"pairs": PAIRS, "valid_rows": 20_000, "switched_off": LOST}
    report["feature_set"]["interactions"] = {"memorize": 1, "factorize": 1, "naive": 1}
    report["selector"] = "optinter"
    return report


def test_a_report_without_pairs_says_nothing_of_them(report):
    assert pairs_plot(report) is None
    assert pairs_table(report) is None


def test_the_map_is_a_picture_of_its_own_where_there_are_pairs(with_pairs, tmp_path):
    path = tmp_path / "map.png"
    assert pairs_png(with_pairs, path) == path
    assert path.read_bytes().startswith(b"\x89PNG")
    with_pairs["interactions"] = None
    assert pairs_png(with_pairs, tmp_path / "none.png") is None
    assert [file.name for file in tmp_path.iterdir()] == ["map.png"]


def test_pairs_that_were_screened_out_are_dots_without_a_strength(with_pairs):
    assert "screened out" not in pairs_plot(with_pairs).caption
    with_pairs["interactions"]["pairs"] = [*PAIRS[:2], PAIRS[2] | {"strength": None}]
    assert "Dots: 1 pairs that were screened out" in pairs_plot(with_pairs).caption


def test_the_map_counts_methods_in_words(with_pairs):
    plot = pairs_plot(with_pairs)
    assert plot.label == "Pairs of 3 fields by method: 1 memorize, 1 factorize, 1 naive."
    assert "c&lt;" in plot.wide


def test_a_pair_pays_where_its_interval_is_above_zero(with_pairs):
    table = pairs_table(with_pairs)
    assert [[cell.text for cell in row] for row in table.rows] == [
        ["a x b", "memorize", "300.00", "+0.0200 (+0.0100 to +0.0300)", "yes"],
        ["a x c<", "factorize", "20.00", "+0.0001 (-0.0010 to +0.0020)", "not shown"],
    ]
    assert "20,000 rows of valid" in table.caption
    assert "interval); 2 of 2 pairs in use. Valid" in table.caption


def test_of_how_many_pairs_in_use_the_strongest_were_switched_off_is_told(with_pairs):
    with_pairs["interactions"]["switched_off"] = LOST[:1]
    assert "interval); 1 of 2 pairs in use, the strongest. Valid" in pairs_table(with_pairs).caption


def test_all_naive_has_a_map_and_no_table(with_pairs):
    with_pairs["interactions"] = {
        "pairs": [pair | {"method": "naive", "strength": 0.0} for pair in PAIRS],
        "valid_rows": 9,
        "switched_off": [],
    }
    assert pairs_plot(with_pairs) is not None
    assert pairs_table(with_pairs) is None


def test_the_page_shows_both_and_the_verdict_names_pairs(with_pairs, features, tmp_path):
    text = write_report(with_pairs, tmp_path, features=features).read_text()
    assert "Which pairs interact?" in text
    assert 'id="table-pairs"' in text
    assert "memorizing 1 and factorizing 1 pairs" in verdict(with_pairs)


def test_many_fields_show_those_that_take_part(with_pairs):
    names = [f"f{number}" for number in range(80)]
    pairs = [{"field_a": "f3", "field_b": "f70", "method": "memorize", "strength": 1.0}]
    pairs += [{"field_a": a, "field_b": b, "method": "naive", "strength": 0.0} for a, b in pairwise(names)]
    with_pairs["interactions"]["pairs"] = pairs
    assert pairs_plot(with_pairs).label.startswith("Pairs of 2 fields")
