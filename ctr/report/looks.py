"""How often the test rows have been looked at, in words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ctr.report.units import Report, count, pick

_NAMED = 5  # runs, the latest ones
WHY = (
    "Whoever picks the best of several looks picks luck as well: test numbers then come out too good, and no interval "
    "here knows of it. Rows that nobody has looked at would settle it."
)


def looks_sentence(report: Report) -> str:
    """Which look at its test rows a report is; a second one says what that means. Empty where nobody counted."""
    reads, look = (
        pick(report, "dataset", "test_reads", "reads"),
        pick(report, "dataset", "test_reads", "look"),
    )
    if not reads:
        return ""
    if look == 1:
        return "Test read once."
    if {read["run"] for read in reads} == {pick(report, "run")}:
        return (
            f"This is look {count(look)} at these test rows, each by this very run, which was resumed or redone. "
            "As long as nothing was changed in between, that is as good as one."
        )
    return f"This is look {count(look)} at these test rows, by {_runs(reads)}. {WHY}"


def reads_fact(reads: Sequence[Mapping[str, Any]]) -> str:
    """The same of a dataset: how often its test rows were read, by whom, and when last."""
    if not reads:
        return "never read"
    times = "once" if len(reads) == 1 else f"{count(len(reads))} times"
    last = reads[-1]
    return f"read {times}, by {_runs(reads)}; last on {last['at']} for {last['purpose']}"


def _runs(reads: Sequence[Mapping[str, Any]]) -> str:
    """Who read, in the order of first reads; of many runs the latest."""
    times = Counter(read["run"] for read in reads)
    named = [name if number == 1 else f"{name} ({number} times)" for name, number in times.items()]
    more = len(named) - _NAMED
    names = named[-_NAMED:] if more <= 0 else [f"{count(more)} other runs", *named[-_NAMED:]]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
