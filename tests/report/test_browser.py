"""The page in a real headless Chromium; skipped where there is none."""

from tests.report.browser import needs_chromium, opened, probed

pytestmark = needs_chromium
STEPS = """
for (const [name, column] of [["down", 1], ["up", 1], ["names", 0]]) {
  press("table-fields", column);
  found.orders[name] = order("table-fields", column);
  found.states[name] = states("table-fields");
}
press("table-runs", 3);
press("table-runs", 3);
found.orders.penalty = order("table-runs", 3);
"""


def test_the_page_opens_without_a_word_on_the_console(page, tmp_path):
    dom, console = opened(page, tmp_path / "profile")
    assert console == []
    assert "No loss beyond noise" in dom


def test_the_policy_of_the_page_forbids_a_request_and_a_foreign_script(page, tmp_path):
    text = page.read_text(encoding="utf-8")
    foreign = '<img src="http://example.invalid/x.png"><script>document.title = "taken over"</script></body>'
    changed = tmp_path / "changed.html"
    changed.write_text(text.replace("</body>", foreign), encoding="utf-8")
    dom, console = opened(changed, tmp_path / "profile")
    assert len(console) == 2
    assert all("Content Security Policy" in line for line in console)
    assert "<title>demo: report</title>" in dom


def test_on_a_desktop_every_plot_shows_and_tables_sort_by_their_buttons(page, tmp_path):
    found = probed(page, tmp_path, STEPS, "--window-size=1200,900")
    assert found["requests"] == []
    assert found["overflow"] == 0
    shown = [drawing for drawing in found["drawings"] if drawing["shown"]]
    names = ["counts", "curve", "difference", "fields-kept", "gates", "learning"]
    assert sorted(drawing["name"] for drawing in shown) == [f"plot-{name}" for name in names]
    for drawing in shown:
        assert drawing["width"] > 350, drawing
        assert drawing["shapes"] > 3, drawing
        assert drawing["outside"] == [], drawing
        assert len(drawing["label"]) > 40
    values = ["3,200", "1,400", "300", "180", "60", "40", "31", "24", "18", "7"]
    assert found["orders"]["down"] == values
    assert found["orders"]["up"] == values[::-1]
    assert found["orders"]["names"] == sorted(found["orders"]["names"])
    assert found["states"]["down"] == [None, "descending", None, None, None, None]
    assert found["states"]["up"] == [None, "ascending", None, None, None, None]
    assert found["states"]["names"] == ["ascending", None, None, None, None, None]
    assert found["orders"]["penalty"] == ["0.62", "0.996", "1.55", "3.1", "6.2", *["-"] * 11]


def test_on_a_small_screen_the_narrow_plots_show_and_nothing_is_wider_than_the_screen(page, tmp_path):
    found = probed(page, tmp_path, STEPS, "--window-size=500,900")  # the smallest window that Chromium opens
    assert found["overflow"] == 0
    shown = [drawing for drawing in found["drawings"] if drawing["shown"]]
    assert len(shown) == 6
    for drawing in shown:
        assert drawing["width"] == 340
        assert drawing["outside"] == [], drawing


def test_dark_mode_turns_page_and_plots(page, tmp_path):
    light = probed(page, tmp_path, STEPS, "--blink-settings=preferredColorScheme=1")
    dark = probed(page, tmp_path, STEPS, "--blink-settings=preferredColorScheme=0")
    assert (light["paper"], dark["paper"]) == ("rgb(245, 246, 248)", "rgb(20, 23, 26)")
    assert light["ink"] != dark["ink"]
