"""The page of an evaluation: what it says in words, its tables, and that nothing of it can break the page."""

import pytest

from ctr.report.evaluation import evaluation_outcome, evaluation_verdict, write_evaluation
from ctr.report.evaluation_tables import differences_table, guardrails_table, models_table, unseen_table
from tests.report.evaluation_content import evaluation


@pytest.fixture
def report():
    found = evaluation()
    found["verdict"] = evaluation_verdict(found)
    return found


def page_of(report, folder):
    report["verdict"] = evaluation_verdict(report)
    return write_evaluation(report, folder).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("value", "half", "words", "outcome"),
    [
        (
            0.01,
            0.002,
            "candidate is better than champion, AUC +0.0100 (95 % interval +0.0080 to +0.0120)",
            "gain",
        ),
        (-0.01, 0.002, "candidate is worse than champion, AUC -0.0100", "loss"),
        (0.001, 0.002, "candidate cannot be told from champion, AUC +0.0010", "even"),
        (0.0, 0.0, "candidate ranks exactly as champion does", "even"),
    ],
)
def test_the_verdict_says_what_the_interval_says(report, value, half, words, outcome):
    report["differences"][0]["auc"] = {"value": value, "low": value - half, "high": value + half}
    assert words in evaluation_verdict(report)
    assert evaluation_outcome(report) == outcome


def test_a_missed_bound_is_a_loss_whatever_the_difference(report):
    assert evaluation_verdict(report).endswith("All stated bounds are kept.")
    report["guardrails"].append(report["guardrails"][0] | {"kept": None, "why": "fewer than 10 rows"})
    assert "not all could be judged" in evaluation_verdict(report)
    report["guardrails"].append(report["guardrails"][0] | {"kept": False})
    assert evaluation_verdict(report).endswith("1 of 3 bounds missed.")
    assert evaluation_outcome(report) == "loss"
    outcomes = [row[-1].text for row in guardrails_table(report).rows]
    assert outcomes == ["kept", "not judged: fewer than 10 rows", "MISSED"]


def test_tables_hold_values_with_their_intervals(report):
    table = models_table(report)
    assert table.columns == ["measure", "champion", "candidate"]
    assert [cell.text for cell in table.rows[0]] == [
        "AUC",
        "0.7610 (0.7570 to 0.7650)",
        "0.7710 (0.7670 to 0.7750)",
    ]
    assert differences_table(report).rows[0][1].text == "+0.0100 (+0.0080 to +0.0120)"
    assert [cell.text for cell in unseen_table(report).rows[0]][:4] == ["user", "60,000", "12,000", "20.0 %"]


def test_a_page_of_one_model_has_no_differences(tmp_path):
    page = page_of(evaluation(["only"]), tmp_path)
    assert "Is one better?" not in page
    assert "only: AUC 0.7610 (95 % interval 0.7570 to 0.7650) on 60,000 rows, 1.04 clicks promised" in page


def test_a_page_of_the_least_that_there_can_be_is_written(tmp_path):
    report = evaluation(["only"])
    report |= {"slices": [], "days": None, "guardrails": [], "warnings": [], "command": ""}
    report["log"]["time"] = None
    report["models"][0] |= {"unseen": {}, "gauc": None}
    page = page_of(report, tmp_path)
    for words in (
        "Does it last?",
        "What has it never seen?",
        "Are the bounds kept?",
        "Before you believe it",
    ):
        assert words not in page


def test_names_are_text_and_never_markup(tmp_path, report):
    report["slices"][0]["value"] = "<script>alert(1)</script> & $x$"
    report["models"][1]["name"] = report["differences"][0]["name"] = "<b>bold</b>"
    page = page_of(report, tmp_path)
    assert "<script>alert" not in page
    assert "<b>bold" not in page


def test_the_same_evaluation_gives_the_same_page(tmp_path, report):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    assert page_of(report, tmp_path / "one") == page_of(report, tmp_path / "other")
