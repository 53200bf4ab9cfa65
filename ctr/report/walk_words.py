"""What a walk forward comes to, in plain words."""

from collections.abc import Mapping
from typing import Any

from ctr.report.comparison_words import margin_words, setting_words
from ctr.report.units import decimal, share

LINES = {
    "drop": "as it was, new values dropped",
    "keep": "as it was, new values kept",
    "anew": "selected anew",
}


def age_words(age: float, unit: str) -> str:
    """`5 days`, `1 week`, `2.5 steps`."""
    text = f"{age:.2g}" if age < 10 else f"{age:.0f}"
    return f"{text} {unit}" if text == "1" else f"{text} {unit}s"


def walk_words(walk: Mapping[str, Any], one: Mapping[str, Any], margin: float) -> str:
    """How one set does as it ages: beside keep-all, beside itself selected anew, and what it has never judged."""
    line, *others = walk["new_values"]
    windows, unit = walk["windows"], walk["age_unit"]
    after = age_words(windows[-1]["age"], unit)
    fresh, now = (share(windows[number]["unjudged"]["any"]) for number in (0, -1))
    sentences = [
        f"{setting_words(one)}, selected on rows before {_instant(windows[0]['first'])}: trained again {after} later, "
        f"beside keep-all it {_beside(one, line, margin)}.",
        _ageing(one["pace"][line], margin, after, unit),
        f"{now} of impressions then show a value that it never judged, {fresh} at the start.",
    ]
    sentences += [f"With new values {_TREATED[other]}, it {_beside(one, other, margin)}." for other in others]
    return " ".join(sentences)


_TREATED = {"drop": "dropped", "keep": "kept"}


def _beside(one: Mapping[str, Any], line: str, margin: float) -> str:
    """What the difference to keep-all says about the margin, at the last window, as a verb."""
    found = one["points"][line][-1]["minus_keep_all"]
    return _verb(margin_words({"auc": found, "auc_corrected": found, **found}, margin))


def _instant(time: str | int) -> str:
    """`2024-01-08`, `2024-01-08 12:30:00 UTC`, or the number."""
    return str(time).removesuffix("T00:00:00+00:00").replace("T", " ").replace("+00:00", " UTC")


def _verb(words: str) -> str:
    """What is no verb is put behind one."""
    if words.startswith("no loss"):
        return f"shows {words}"
    return f"is {words}" if words.startswith("not decided") else words


def _ageing(pace: Mapping[str, Any], margin: float, after: str, unit: str) -> str:
    value, low, high = (pace[key] for key in ("value", "low", "high"))
    only = "" if pace["seeds_known"] else " (these models only)"
    if pace["outcome"] == "ages":
        reached = pace["margin_after"]
        return (
            f"Age costs it {decimal(-value, 5)} of AUC a {unit} ({decimal(-high, 5)} to {decimal(-low, 5)}), beside a "
            f"set selected anew{only}: {margin:g} is reached after {age_words(reached['value'], unit)} "
            f"({reached['low']:.2g} to {reached['high']:.2g})."
        )
    if pace["outcome"] == "gains":
        return (
            f"Selecting anew is no better{only}: that costs {decimal(value, 5)} of AUC a {unit} ({decimal(low, 5)} to "
            f"{decimal(high, 5)})."
        )
    if pace["outcome"] == "none_seen":
        return (
            f"Age costs it no more than {margin:g} of AUC within {after}, beside a set selected anew{only}."
        )
    return (
        f"Whether it ages is not decided: a {unit} costs {decimal(-value, 5)} of AUC ({decimal(-high, 5)} to "
        f"{decimal(-low, 5)}), beside a set selected anew{only}."
    )
