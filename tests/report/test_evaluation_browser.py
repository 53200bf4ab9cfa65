"""The page of an evaluation in a real headless Chromium; skipped where there is none."""

import re

import pytest

from ctr.report.evaluation import evaluation_verdict, write_evaluation
from tests.report.browser import needs_chromium, opened, probed
from tests.report.evaluation_content import evaluation

pytestmark = needs_chromium
PLOTS = ["days", "differences", "reliability", "slices-0", "unseen"]

STEPS = """
press("table-slices-0", 1);
found.orders.down = order("table-slices-0", 1);
press("table-slices-0", 1);
found.orders.up = order("table-slices-0", 1);
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    report = evaluation()
    report["verdict"] = evaluation_verdict(report)
    return write_evaluation(report, tmp_path_factory.mktemp("page"))


def test_the_page_opens_without_a_word_on_the_console(page, tmp_path):
    dom, console = opened(page, tmp_path / "profile")
    assert console == []
    assert "candidate is better than champion" in dom
    assert re.search(r"<title>evaluation: champion, candidate</title>", dom)


def test_every_plot_shows_nothing_is_fetched_and_tables_sort(page, tmp_path):
    found = probed(page, tmp_path, STEPS, "--window-size=1200,900")
    assert found["requests"] == []
    assert found["overflow"] == 0
    shown = [drawing for drawing in found["drawings"] if drawing["shown"]]
    assert sorted(drawing["name"] for drawing in shown) == [f"plot-{name}" for name in PLOTS]
    for drawing in shown:
        assert drawing["width"] > 350, drawing
        assert drawing["shapes"] > 2, drawing
        assert drawing["outside"] == [], drawing
        assert len(drawing["label"]) > 40
    assert found["orders"]["down"] == ["41,000", "12,000", "7,000"]
    assert found["orders"]["up"] == ["7,000", "12,000", "41,000"]


def test_on_a_small_screen_nothing_is_wider_than_the_screen(page, tmp_path):
    found = probed(page, tmp_path, STEPS, "--window-size=500,900")
    assert found["overflow"] == 0
    for drawing in (drawing for drawing in found["drawings"] if drawing["shown"]):
        assert drawing["width"] == 340
        assert drawing["outside"] == [], drawing


def test_dark_mode_turns_the_plots(page, tmp_path):
    light = probed(page, tmp_path, STEPS, "--blink-settings=preferredColorScheme=1")
    dark = probed(page, tmp_path, STEPS, "--blink-settings=preferredColorScheme=0")
    assert light["ink"] != dark["ink"]
