import re
from xml.etree import ElementTree

import polars as pl
import pytest

from ctr.report import figure_png
from ctr.report.canvas import VARIABLES, spread
from ctr.report.curve import curve_plot, difference_plot
from ctr.report.learning import learning_plot
from ctr.report.plots import _by_count, counts_plot, fields_plot, gates_plot


def written(svg):
    """All texts of a drawing; fails where it is no well-formed XML."""
    return [
        element.text
        for element in ElementTree.fromstring(svg).iter()
        if element.text and element.text.strip()
    ]


def test_the_curve_names_each_selector_and_keep_all_and_the_choice(report):
    plot = curve_plot(report)
    for svg in (plot.wide, plot.narrow):
        assert {"optfs", "frequency", "random", "keep all", "0.7812", "chosen"} <= set(written(svg))
    assert "optfs 0.7698 at 5.0 %" in plot.label


def test_drawings_take_every_colour_from_the_page(report, features):
    plots = [curve_plot(report), difference_plot(report), learning_plot(report), fields_plot(report)]
    for plot in [*plots, gates_plot(report), counts_plot(features)]:
        assert not re.findall(r"(?:fill|stroke): #", plot.wide + plot.narrow), plot.id
        names = set(re.findall(r"var\(--([a-z0-9-]+)\)", plot.wide))
        assert names <= {*VARIABLES.values(), "font"}


def test_ids_of_two_drawings_never_meet(report):
    ids = []
    for plot in (curve_plot(report), learning_plot(report)):
        ids += re.findall(r'\bid="([^"]+)"', plot.wide + plot.narrow)
        for target in re.findall(r'(?:href="#|url\(#)([^")]+)', plot.wide + plot.narrow):
            assert target in ids
    assert len(ids) == len(set(ids))


def test_the_same_report_draws_the_same_bytes(report):
    assert curve_plot(report).wide == curve_plot(report).wide


def test_field_names_are_drawn_as_they_are_whatever_they_hold(report):
    counts = {"kept": 1, "total": 2}
    names = ["<script>", "$x^2$", "a & b", "a_very_long_name_of_some_field_here", "\u6f22", "tab\there"]
    report["feature_set"]["fields"] = dict.fromkeys(names, counts)
    shown = written(fields_plot(report).wide)
    assert {"<script>", "$x^2$", "a & b", "a_very_long_name_of_som\u2026", "\u6f22", "tab?here"} <= set(shown)


def test_many_fields_are_cut_to_the_largest_and_the_caption_says_so(report):
    report["feature_set"]["fields"] = {f"f{n:03}": {"kept": 1, "total": n + 1} for n in range(90)}
    plot = fields_plot(report)
    assert "The 60 largest of 90 fields" in plot.caption
    assert "f089" in written(plot.wide)
    assert "f010" not in written(plot.wide)


def test_values_are_binned_by_powers_of_ten_in_halves_and_fifths():
    counts = [1, 1, 2, 4, 5, 9, 10, 1_000]
    kept = [False, True, False, True, True, True, True, True]
    features = pl.DataFrame({"field": "f", "role": "value", "count": counts, "kept": kept})
    features = pl.concat([features, features.head(1).with_columns(role=pl.lit("missing"))])
    assert _by_count(features).rows() == [
        (1, 0.5, 2),
        (2, 0.5, 2),
        (5, 1.0, 2),
        (10, 1.0, 1),
        (1_000, 1.0, 1),
    ]


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([], []),
        ([0.2, 0.8], [0.2, 0.8]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.5, 0.52, 0.9], [0.46, 0.56, 0.9]),
        ([0.99, 0.99], [0.9, 1.0]),
        ([0.0, 0.01, 0.02], [0.0, 0.1, 0.2]),
    ],
)
def test_labels_are_moved_apart_as_little_as_needed_and_stay_inside(heights, expected):
    assert spread(heights, 0.1) == pytest.approx(expected)


def test_pictures_without_data_are_not_drawn(report):
    empty = report | {"curve": None, "history": None, "gates": None, "difference": None, "feature_set": None}
    for draw in (curve_plot, difference_plot, learning_plot, fields_plot, gates_plot):
        assert draw(empty) is None
    assert counts_plot(None) is None
    assert (
        counts_plot(pl.DataFrame(schema={"role": pl.String, "count": pl.Int64, "kept": pl.Boolean})) is None
    )
    assert curve_plot(report | {"curve": report["curve"][-1:]}) is None  # keep-all alone


def test_a_single_point_and_a_single_epoch_can_be_drawn(report):
    report["curve"] = report["curve"][:1]
    report["history"] = {"baseline": report["history"]["baseline"][:1], "search": [], "retrain": None}
    assert "optfs" in written(curve_plot(report).wide)
    assert "baseline" in written(learning_plot(report).wide)


def test_the_curve_is_written_as_a_png_of_a_readable_size(report, tmp_path):
    path = figure_png(report, tmp_path / "curve.png")
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG")
    assert int.from_bytes(content[16:20]) == 1520
    assert [file.name for file in tmp_path.iterdir()] == ["curve.png"]
