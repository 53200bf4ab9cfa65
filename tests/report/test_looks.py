"""One look at the test rows is said in four words; more of them in words that say why it matters."""

import pytest

from ctr.report.html import write_report
from ctr.report.looks import looks_sentence, reads_fact


def read(run, at="2024-05-01T00:00:00+00:00"):
    return {"at": at, "run": run, "purpose": "final evaluation", "dataset": "log-1"}


@pytest.fixture
def looked(report):
    def with_reads(*runs):
        reads = [read(run) for run in runs]
        report["dataset"]["test_reads"] = {"look": len(reads), "runs": len(set(runs)), "reads": reads}
        return report | {"run": "mine-1"}

    return with_reads


def test_a_report_that_counted_nothing_says_nothing(report):
    assert looks_sentence(report) == ""


def test_the_first_look_is_said_shortly(looked):
    assert looks_sentence(looked("mine-1")) == "Test read once."


def test_a_second_look_names_the_runs_and_says_why_it_matters(looked):
    text = looks_sentence(looked("other-1", "other-1", "mine-1"))
    assert text.startswith("This is look 3 at these test rows, by other-1 (2 times) and mine-1. ")
    assert "picks luck as well" in text


def test_a_run_that_is_redone_is_counted_and_said_to_be_the_same(looked):
    text = looks_sentence(looked("mine-1", "mine-1"))
    assert text.startswith("This is look 2 at these test rows, each by this very run")


def test_of_many_runs_the_latest_are_named(looked):
    text = looks_sentence(looked(*[f"run-{number}" for number in range(8)]))
    assert "by 3 other runs, run-3, run-4, run-5, run-6 and run-7." in text


def test_a_dataset_says_who_read_it_and_when_last():
    assert reads_fact([]) == "never read"
    found = reads_fact([read("a", "2024-05-01"), read("b", "2024-05-02")])
    assert found == "read 2 times, by a and b; last on 2024-05-02 for final evaluation"


@pytest.mark.parametrize(("runs", "shown"), [(("mine-1",), False), (("other-1", "mine-1"), True)])
def test_a_second_look_stands_under_the_verdict_of_the_page(looked, tmp_path, runs, shown):
    page = write_report(looked(*runs), tmp_path, features=None).read_text()
    assert ('<p class="looks">' in page) == shown
    assert ("Test read once." in page) != shown  # among the facts of the log
