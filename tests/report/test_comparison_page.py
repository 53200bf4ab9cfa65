"""The page of a comparison: its words, and the whole of it in a real headless Chromium."""

import pytest

from ctr.report import comparison_tables as tables
from ctr.report.comparison import write_comparison
from ctr.report.comparison_curves import curve_plots
from ctr.report.comparison_plots import swarm
from ctr.report.comparison_walk import unjudged_table, walked_sets, windows_table
from ctr.report.comparison_words import (
    margin_words,
    more_words,
    rival_words,
    setting_words,
    verdict_words,
)
from ctr.report.walk_words import walk_words
from tests.report.browser import needs_chromium, opened, probed
from tests.report.comparison_documents import document

STEPS = """
press("table-keep-all", 2);
found.orders.down = order("table-keep-all", 2);
press("table-keep-all", 1);
found.orders.words = order("table-keep-all", 1);
"""
PLOTS = [
    "ageing-0",
    "curve-bundle-bytes",
    "curve-kept",
    "curve-parameters",
    "differences",
    "fields-kept",
    "gates",
]
PLOTS += ["importance", "pair-importance", "stability"]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_comparison(document(), tmp_path_factory.mktemp("comparison"), None)


def difference(outcome, value, low, high, **keys):
    bounds = {"low": low, "high": high}
    rest = {"provable": 0.004, "more_rows": 123_456, "seeds_known": True, **keys}
    return {"outcome": outcome, "auc": {"value": value, **bounds}, "auc_corrected": bounds, **rest}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (difference("no_loss", 0.0, -0.0005, 0.0005), "no loss beyond 0.001"),
        (difference("gain", 0.0021, 0.0009, 0.0033), "gains 0.0021 (0.0009 to 0.0033)"),
        (difference("loss", -0.0021, -0.0033, -0.0009), "loses 0.0021 (0.0009 to 0.0033)"),
        (
            difference("undecided", 0.0, -0.004, 0.004),
            "not decided: this log can prove no margin under 0.004; about 120,000 more rows would",
        ),
        (
            difference("undecided", 0.0, -0.004, 0.004, more_rows=None),
            "not decided: this log can prove no margin under 0.004; seeds differ by more than 0.001: more seeds would, "
            "more rows alone would not",
        ),
        (
            difference("no_loss", 0.0, -0.0005, 0.0005, seeds_known=False),
            "no loss beyond 0.001 (this model only)",
        ),
    ],
)
def test_a_difference_becomes_a_plain_sentence_against_the_margin(found, words):
    assert margin_words(found, 0.001) == words


def rival(label, low, high):
    return {
        "other": {"label": label, "size": 0.2},
        "auc": {"value": (low + high) / 2, "low": low, "high": high},
        "seeds_known": True,
        "others": [],
    }


def test_a_cheap_alternative_is_better_as_good_cannot_be_told_or_is_beaten():
    for low, high, words in (
        (
            -0.002,
            0.0005,
            "A cheap alternative is as good at about as many bytes: unified at 20 % (difference -0.0008, ",
        ),
        (
            -0.004,
            -0.001,
            "A cheap alternative is better at about as many bytes: unified at 20 % (difference -0.0025, ",
        ),
        (-0.002, 0.002, "It cannot be told from a cheap alternative of about as many bytes: unified at 20 %"),
        (
            0.001,
            0.002,
            "It is better than every cheap alternative of about as many bytes (next: unified at 20 %",
        ),
    ):
        assert rival_words(rival("unified", low, high), 0.001).startswith(words)


def test_a_set_is_better_than_every_alternative_only_where_it_is_better_than_each():
    best, beaten = rival("unified", 0.001, 0.002), rival("min count", 0.003, 0.004)
    assert "better than every" in rival_words({**best, "others": [beaten]}, 0.001)
    told = rival_words({**best, "others": [beaten, rival("width 4", -0.001, 0.004)]}, 0.001)
    assert told.startswith("It cannot be told from a cheap alternative of about as many bytes: width 4")
    assert rival_words({**best, "others": [rival("width 4", -0.001, 0.0005)]}, 0.001).startswith(
        "A cheap alternative is"
    )


def test_every_alternative_in_reach_of_the_chosen_set_is_told_apart():
    found = next(each for each in document()["settings"] if each["chosen"])["differences"]
    assert found["alternative"]["other"]["label"] == "unified"
    assert [(each["other"]["label"], each["other"]["size"]) for each in found["alternative"]["others"]] == [
        ("width 8", None),
        ("unified", 0.1),
    ]
    assert found["keep_all"]["others"] == []


@pytest.mark.parametrize(
    ("known", "within", "words"),
    [
        ("known", ["keep_all"], "No set came within one standard error of keep-all on valid."),
        (
            "rows",
            ["keep_all"],
            "No set came within one standard error (over rows: with so few seeds theirs is unknown) of",
        ),
        (
            "known",
            ["keep_all", "selector"],
            "Keep-all is the cheapest of all within one standard error of the best",
        ),
        ("unknown", ["keep_all"], "The standard error on valid is unknown, with fewer than three seeds"),
        ("unknown", ["selector"], "The standard error on valid is unknown, with fewer than three seeds"),
        ("known", ["selector"], None),
    ],
)
def test_what_came_near_keep_all_on_valid_is_told_as_it_was(known, within, words):
    built = document()
    cheapest = {**built["choice"]["chosen"], "role": within[0]}
    choice = {**built["choice"], "standard_error": known, "cheapest": cheapest}
    choice["within_one_standard_error"] = [{"role": role} for role in within]
    told = verdict_words({**built, "choice": choice})
    assert words in told if words else told == built["verdict"]
    assert ("No set came within" in told) == (words is not None and words.startswith("No set"))


def test_settings_are_named_by_who_chose_and_how_much():
    setting = {"label": "optfs", "size": 0.2, "backbone": "fm", "embedding": "table"}
    assert setting_words(setting) == "optfs at 20 %"
    assert setting_words(setting, where=True) == "optfs at 20 %, fm, table"
    assert setting_words({**setting, "size": None}) == "optfs"
    assert more_words(0, 0.001).startswith("rows are enough")


def test_dots_of_a_swarm_stay_in_their_row_and_apart_where_they_would_touch():
    heights = swarm([0.5] * 5 + [0.9])
    assert sorted(heights[:5].round(2)) == [-0.22, -0.11, 0.0, 0.11, 0.22]
    assert heights[5] == 0.0
    assert abs(swarm([0.5] * 99)).max() < 0.45


def test_every_table_names_its_settings_and_units():
    built = document()
    found = tables.settings_table(built)
    assert len(found.rows) == 8
    assert {len(row) for row in found.rows} == {len(found.columns)}
    assert found.rows[0][0].text == "optfs at 50\u00a0% (chosen)"
    against = tables.rivals_table(built)
    assert {len(row) for row in against.rows} == {len(against.columns)}
    assert any("minus frequency" in row[0].text for row in against.rows)
    assert any("minus unified" in row[0].text for row in against.rows)
    assert tables.areas_table(built).rows[0][0].text == "optfs"
    assert "user_id=<u7>" in tables.stability_table(built).rows[0][-1].text
    methods = tables.methods_table(built)
    assert {len(row) for row in methods.rows} == {len(methods.columns)}
    assert [cell.text for cell in methods.rows[0][1:]] == ["0.40", "3", "user_id x noise <b>", "2", "0", "1"]


def test_where_pairs_were_chosen_the_settings_tell_how_many_and_what_they_take():
    built = document()
    settings = [
        {**each, "memorized": 2.5, "factorized": 1.0, "cross_rows": 1203.0} for each in built["settings"]
    ]
    settings[0] |= dict.fromkeys(("memorized", "factorized", "cross_rows"))
    found = tables.settings_table({**built, "settings": settings})
    assert list(found.columns[4:7]) == ["pairs memorized", "factorized", "rows of crosses"]
    assert [[cell.text for cell in row[4:7]] for row in found.rows[:2]] == [["-"] * 3, ["2.5", "1", "1,203"]]
    assert {len(row) for row in found.rows} == {len(found.columns)}
    assert "rows of crosses" not in tables.settings_table(built).columns


def test_what_a_search_kept_of_shuffled_copies_is_told_for_each_set_and_seed(tmp_path):
    built = document()
    assert tables.shadow_table(built) is None
    ends = {"value": 0.1, "low": 0.05, "high": 0.2}
    fields = {name: {"kept": 4, "total": 42} for name in ("hour", "noise <b>")}
    shadow = {"fields": fields, "total": 84, "kept": 8, "share": ends}
    shadow |= {"of_kept": {"value": 0.2, "low": 0.1, "high": 0.4}}
    some = {
        **built,
        "settings": [{**built["settings"][0], "shadow": [None, shadow, shadow]}, *built["settings"][1:]],
    }
    rows = [[cell.text for cell in row] for row in tables.shadow_table(some).rows]
    told = ["hour, noise <b>", "84", "8", "10.0 % (5.0 % to 20.0 %)", "20.0 % (10.0 % to 40.0 %)"]
    assert [row[1:] for row in rows] == [["1", *told], ["2", *told]]
    text = write_comparison(some, tmp_path, None).read_text(encoding="utf-8")
    assert "How much is kept by chance?" in text


def test_one_seed_has_no_spread_and_says_so_everywhere(tmp_path):
    built = document(seeds=(0,))
    first, second, *_ = built["verdict"].split(". ")
    assert "(this model only)" in first
    assert "(this model only)" in second, "the sentence about the cheap alternative"
    assert "(" not in tables.settings_table(built).rows[0][7].text
    assert tables.settings_table(built).caption.startswith("Of 1 seed, so nothing is known of the spread")
    for table in (tables.keep_all_table(built), tables.rivals_table(built)):
        assert all(row[1].text.endswith("(this model only)") for row in table.rows)
        assert "of these models only: fewer than three seeds tell nothing about others" in table.caption
    walk = built["walk_forward"]
    assert (
        walk["sets"][0]["sentence"].count("model only") + walk["sets"][0]["sentence"].count("models only")
        == 3
    )
    text = write_comparison(built, tmp_path, None).read_text(encoding="utf-8")
    assert "other training seeds" not in text
    assert "mean over seeds" not in text
    assert (
        text.count("fewer than three seeds tell nothing about others") == 5
    )  # tables, and plots of differences


def test_three_seeds_speak_about_others_and_where_some_settings_have_fewer_that_is_told(page):
    assert "other training seeds" in page.read_text(encoding="utf-8")
    assert "tell nothing about others" not in page.read_text(encoding="utf-8")
    assert tables.settings_table(document()).caption.startswith("Means over 3 seeds;")
    built = document()
    settings = [{**each} for each in built["settings"]]
    settings[0]["seeds"] = [0]
    settings[0]["differences"] = {
        against: {**each, "seeds_known": False} for against, each in settings[0]["differences"].items()
    }
    some = {**built, "settings": settings}
    assert tables.settings_table(some).caption.startswith("Means over 1 to 3 seeds;")
    assert 'but where it says "this model only", other training seeds' in tables.keep_all_table(some).caption


def test_how_a_set_ages_is_told_in_plain_words():
    (one,) = document()["walk_forward"]["sets"]
    assert one["sentence"] == (
        "optfs at 50 %, selected on rows before 2024-01-01: trained again 3 days later, beside keep-all it loses "
        "0.0140 (0.0110 to 0.0170). Age costs it 0.00400 of AUC a day (0.00300 to 0.00500), beside a set selected "
        "anew: 0.001 is reached after 0.25 days (0.2 to 0.33). 40.0 % of impressions then show a value that it never "
        "judged, 10.0 % at the start. With new values kept, it loses 0.0050 (0.0020 to 0.0080)."
    )


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("none_seen", "Age costs it no more than 0.001 of AUC within 3 days, beside a set selected anew."),
        ("undecided", "Whether it ages is not decided: a day costs 0.00400 of AUC (0.00300 to 0.00500)"),
        ("gains", "Selecting anew is no better: that costs -0.00400 of AUC a day"),
    ],
)
def test_ageing_is_claimed_only_where_it_was_found(outcome, words):
    walk = document()["walk_forward"]
    one = {**walk["sets"][0]}
    one["pace"] = {"drop": {**one["pace"]["drop"], "outcome": outcome}}
    assert words in walk_words(walk, one, 0.001)


def test_a_walk_has_a_table_by_age_one_of_its_windows_and_one_of_what_was_never_judged():
    built = document()
    ((_, _, by_age),) = walked_sets(built)
    assert [row[0].text for row in by_age.rows] == ["0 days", "1 day", "2 days", "3 days"]
    found = [by_age, windows_table(built), unjudged_table(built)]
    assert all({len(row) for row in table.rows} == {len(table.columns)} for table in found)
    assert unjudged_table(built).rows[0][2].text == "15.0 %"
    assert walked_sets({**built, "walk_forward": None}) == []
    assert windows_table({**built, "walk_forward": None}) is None


def test_names_from_the_log_are_escaped(page):
    text = page.read_text(encoding="utf-8")
    assert "<u7>" not in text
    assert "noise <b>" not in text
    assert "&lt;u7&gt;" in text


@needs_chromium
def test_the_page_opens_without_a_word_on_the_console_and_with_its_verdict(page, tmp_path):
    dom, console = opened(page, tmp_path / "profile")
    assert console == []
    assert "Chosen on valid, optfs at 50 %" in dom
    assert "ctr compare made-up.toml --out out" in dom


@needs_chromium
@pytest.mark.parametrize("width", [1200, 500])
def test_every_plot_shows_nothing_is_cut_off_and_tables_sort(page, tmp_path, width):
    found = probed(page, tmp_path, STEPS, f"--window-size={width},900")
    assert found["requests"] == []
    assert found["overflow"] == 0
    shown = [drawing for drawing in found["drawings"] if drawing["shown"]]
    assert sorted(drawing["name"] for drawing in shown) == [f"plot-{name}" for name in PLOTS]
    for drawing in shown:
        assert drawing["shapes"] > 3, drawing
        assert drawing["outside"] == [], drawing
        assert len(drawing["label"]) > 40
    numbers = [float(text) for text in found["orders"]["down"]]
    assert numbers == sorted(numbers, reverse=True)
    assert found["orders"]["words"] == sorted(found["orders"]["words"], key=str.lower)


def test_a_set_that_keeps_nothing_has_a_place_beside_a_logarithm(tmp_path):
    built = document()
    settings = [{**each} for each in built["settings"]]
    next(each for each in settings if each["role"] == "selector")["kept"] = 0
    drawn = {found.id: found for found in curve_plots({**built, "settings": settings})}
    assert drawn["curve-kept"].wide
