import copy

import pytest

from ctr.report.collisions import collisions_plot, collisions_table
from ctr.report.html import write_report


def _field(own_noise, values=10, angle=89.0):
    return {
        "values": values,
        "rows": 40,
        "load": 2.5,
        "merged": 0.1,
        "within": 0.3,
        "across": 1.0,
        "own_noise": own_noise,
        "other_noise": 0.5,
        "squared_norm": 0.0123,
        "angle": angle,
    }


@pytest.fixture
def found():
    return {
        "composition": "lookup",
        "shared": True,
        "values": 100,
        "rows": 40,
        "load": 2.5,
        "squared_norm": 0.01,
        "fields": {"calm": _field(0.0), "crowded": _field(0.4), "<b>": _field(0.1, angle=None)},
        "worst": ["crowded", "<b>"],
        "by_load": [
            {"values": 1.0, "rows": 10, "squared_norm": 0.01},
            {"values": 3.5, "rows": 30, "squared_norm": 0.02},
        ],
        "angles": {
            "fields": ["calm", "crowded", "<b>"],
            "mean": 88.0,
            "mean_at_start": 89.0,
            "smallest": {"angle": 85.0, "fields": ["calm", "crowded"]},
            "trained": [[0.0, 85.0, 89.0], [85.0, 0.0, 90.0], [89.0, 90.0, 0.0]],
            "at_start": [[0.0, 89.0, 89.0], [89.0, 0.0, 89.0], [89.0, 89.0, 0.0]],
        },
    }


def test_the_worst_hit_field_stands_on_top(found):
    report = {"collisions": {"baseline": found, "selected": None}}
    assert [row[0].text for row in collisions_table(report).rows] == ["crowded", "<b>", "calm"]
    assert [row[0].text for row in collisions_table(report, 1).rows] == ["crowded"]


def test_the_collisions_shown_are_those_of_the_model_in_the_bundle(found):
    other = copy.deepcopy(found) | {"shared": False}
    assert (
        "separate tables" in collisions_table({"collisions": {"baseline": found, "selected": other}}).caption
    )


def test_a_table_with_a_row_for_each_feature_has_no_section(report, tmp_path):
    plain = report | {"collisions": {"baseline": None, "selected": None}}
    assert collisions_table(plain) is collisions_plot(plain) is None
    page = write_report(plain, tmp_path, features=None).read_text()
    assert "Who shares rows?" not in page


def test_the_page_shows_table_and_both_pictures(report, found, tmp_path):
    report = report | {"collisions": {"baseline": found, "selected": None}}
    page = write_report(report, tmp_path, features=None).read_text()
    assert "Who shares rows?" in page
    assert "values on the row" in page
    assert "angle between" in page
    assert '<th scope="row">&lt;b&gt;</th>' in page


def test_a_backbone_without_first_layer_still_shows_norms(report, found):
    lone = {"collisions": {"baseline": found | {"angles": None}, "selected": None}}
    assert "degrees" not in collisions_plot(lone).caption
    assert "0.02000 with 3.5 values" in collisions_plot(lone).label
