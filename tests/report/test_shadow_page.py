"""What shadow fields say stands in the page and in the terminal, and nothing where there were none."""

from rich.console import Console

from ctr.report.html import write_report
from ctr.report.shadow import shadow_sentence
from ctr.report.show import show

SHADOW = {
    "fields": {"user": {"kept": 3, "total": 100}, "<b>": {"kept": 0, "total": 100}},
    "kept": 3,
    "total": 200,
    "share": {"value": 0.015, "low": 0.005, "high": 0.043},
    "of_kept": {"value": 0.06, "low": 0.02, "high": 0.17},
}


def test_the_sentence_says_how_many_and_what_follows(report):
    assert shadow_sentence(report) == ""
    report["feature_set"]["shadow"] = SHADOW
    assert shadow_sentence(report) == (
        'Of the 200 values of shuffled copies of "user" and "<b>", which mean nothing, the search kept 3: 1.5 % (95 % '
        "interval 0.5 % to 4.3 %). So about 6.0 % (2.0 % to 17.0 %) of the kept values, or fewer, are there by chance."
    )


def test_the_page_holds_it_escaped(report, tmp_path):
    report["feature_set"]["shadow"] = SHADOW
    page = write_report(report, tmp_path, features=None).read_text()
    assert "shuffled copies of &#34;user&#34; and &#34;&lt;b&gt;&#34;" in page


def test_the_terminal_shows_it(report, tmp_path):
    import json

    report["feature_set"]["shadow"] = SHADOW
    (tmp_path / "report.json").write_text(json.dumps(report))
    console = Console(record=True, width=400)
    console.print(show(tmp_path))
    assert "the search kept 3: 1.5 %" in console.export_text()
