import re
from html.parser import HTMLParser

from ctr.report import write_report

NOT_NESTED = {"meta", "link", "br", "img", "input", "hr"}


class Balanced(HTMLParser):
    """Fails on a tag that is closed in the wrong place; collects attributes that could cause a request."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.scripts = [], [], 0

    def handle_starttag(self, tag, attributes):
        self.scripts += tag == "script"
        self.links += [
            value for name, value in attributes if name in ("src", "href", "xlink:href", "action", "data")
        ]
        if tag not in NOT_NESTED:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in NOT_NESTED:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def parsed(path):
    page = Balanced()
    page.feed(path.read_text(encoding="utf-8"))
    assert page.open == []
    return page


def test_the_page_is_one_well_formed_file_that_links_to_nothing_outside(page):
    assert [file.name for file in page.parent.iterdir()] == ["report.html"]
    assert [link for link in parsed(page).links if not link.startswith(("#", "data:,"))] == []
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"\w+://[^\s\"<]+", text)) <= {"http://www.w3.org/1999/xlink"}
    assert "url(http" not in text
    assert "@import" not in text
    assert len(text) < 600_000


def test_the_page_tells_verdict_tiles_plots_tables_and_origin(report, page):
    text = page.read_text(encoding="utf-8")
    assert "No loss beyond noise: keeping 31.1 % of the features" in text
    for name in ("difference", "curve", "fields-kept", "gates", "counts", "learning"):
        assert f'id="plot-{name}"' in text
    for name in ("quality", "runs", "fields", "planted", "sizes", "seconds"):
        assert f'id="table-{name}"' in text
    assert report["command"] in text
    assert report["dataset"]["digest"] in text


def test_markup_in_names_stays_text(report, features, tmp_path):
    evil = '<script>alert("1")</script>'
    report["feature_set"]["fields"][evil] = {"kept": 1, "total": 2}
    report["feature_set"]["fields"] |= {"</svg><img src=x onerror=alert(1)>": {"kept": 0, "total": 3}}
    report |= {"name": evil, "command": f"run {evil}", "versions": {evil: evil}, "seconds": {evil: 1.0}}
    report["curve"].append(report["curve"][0] | {"selector": evil})
    report["backbone"] = {evil: evil}
    path = write_report(report, tmp_path, features=features)
    assert parsed(path).scripts == 1
    assert "<img" not in path.read_text(encoding="utf-8")


def test_a_baseline_run_with_nulls_everywhere_else_still_has_a_page(report, tmp_path):
    nothing = dict.fromkeys(report)
    nothing |= {"name": "demo", "baseline": report["baseline"], "dataset": report["dataset"]}
    path = write_report(nothing, tmp_path, features=None)
    parsed(path)
    text = path.read_text(encoding="utf-8")
    assert "Keep-all baseline only: test AUC 0.7812" in text
    assert "None" not in text
    assert "nan" not in text.lower().replace("nano", "")


def test_null_leaves_instead_of_null_branches_are_dashes_too(report, features, tmp_path):
    report["selected"] = {"valid": None, "test": None, "parameters": None, "bytes": None, "table_bytes": None}
    report["difference"] = {"test_auc": {"value": None, "low": None, "high": None}}
    report["feature_set"] = {"kept": None, "total": None, "ratio": None, "fields": None, "interactions": None}
    report["bundle"] = {"path": None, "bytes": None}
    text = write_report(report, tmp_path, features=features).read_text(encoding="utf-8")
    assert "None" not in text


def test_nothing_kept_at_all_has_a_page(report, features, tmp_path):
    for counts in report["feature_set"]["fields"].values():
        counts["kept"] = 0
    report["feature_set"] |= {"kept": 0, "ratio": 0.0}
    report["curve"][0] |= {"kept": 0, "ratio": 0.0}
    report["gates"]["kept"] = [0] * len(report["gates"]["kept"])
    write_report(report, tmp_path, features=features.with_columns(kept=False))


def test_the_same_report_gives_the_same_page_and_a_stated_verdict_is_shown(report, features, page, tmp_path):
    report["verdict"] = "As decided."
    again = write_report(report, tmp_path, features=features).read_text(encoding="utf-8")
    assert ">As decided.</h1>" in again
    headline = re.compile(r"<h1.*?</h1>")
    assert headline.sub("", again) == headline.sub("", page.read_text(encoding="utf-8"))
