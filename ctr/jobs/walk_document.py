"""What a walk forward comes to: differences by age, how fast they grow, and what the sets have never judged."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ctr.evaluation.ageing import pace
from ctr.evaluation.influence import Influence
from ctr.evaluation.margins import decide, seeds_known
from ctr.evaluation.paired_seeds import Difference, paired_difference
from ctr.jobs.comparison_config import WalkForward
from ctr.jobs.entries import Rows, Setting, keep_all_of
from ctr.jobs.report_facts import test_reads
from ctr.jobs.walk_forward import Line, ScoredStep
from ctr.report.walk_words import walk_words

_UNITS = (("week", 604_800.0), ("day", 86_400.0), ("hour", 3_600.0), ("minute", 60.0), ("second", 1.0))


def walk_document(
    config: WalkForward,
    settings: Sequence[Setting],
    steps: Sequence[ScoredStep],
    rows: Sequence[Rows],
    margin: float,
) -> dict[str, Any]:
    """Everything that `comparison.json` says of a walk forward.

    Args:
        settings: that were walked with.
        steps: every window, scored. rows: of each.
        margin: the loss of AUC that may be had.
    """
    unit = _unit(steps)
    ages = [
        float(step.window.number) if step.window.age is None else step.window.age / unit[1] for step in steps
    ]
    influences = _Influences(steps, rows)
    lines: list[Line] = [*config.new_values, "anew"]
    # To keep-all at every window; to a set selected anew at every later one.
    level = 1.0 - 0.05 / (
        len(settings) * (len(lines) * len(steps) + len(config.new_values) * (len(steps) - 1))
    )
    sets = []
    for setting in settings:
        points = {line: _points(setting, line, influences, margin, level) for line in lines}
        paces = {line: _pace(setting, line, influences, ages, margin) for line in lines if line != "anew"}
        found: dict[str, Any] = {**setting._asdict(), "points": points, "pace": paces}
        sets.append(found)
    split = steps[0].dataset.manifest["schema"]["split"]
    document = {
        "column": split["column"],
        "age_unit": unit[0],
        "new_values": list(config.new_values),
        "level": level,
        "windows": [_window(*each) for each in zip(steps, rows, ages, strict=True)],
        "sets": sets,
    }
    for found in sets:
        found["sentence"] = walk_words(document, found, margin)
    return document


class _Influences:
    """AUCs of the models of every window, row by row; computed when first asked for."""

    def __init__(self, steps: Sequence[ScoredStep], rows: Sequence[Rows]) -> None:
        self.steps, self.rows = steps, rows
        self._known: dict[tuple[int, Line, Setting], list[Influence]] = {}

    def of(self, number: int, line: Line, setting: Setting) -> list[Influence]:
        """At a window, one for each seed."""
        place = (number, line, setting)
        if place not in self._known:
            entries = self.steps[number].lines[line][setting]
            self._known[place] = [self.rows[number].auc(entry.test) for entry in entries]
        return self._known[place]

    def along(self, line: Line, setting: Setting) -> list[list[Influence]]:
        """At every window."""
        return [self.of(number, line, setting) for number in range(len(self.steps))]

    def difference(self, number: int, line: Line, setting: Setting, other: Line) -> Difference:
        """At a window, of two lines; keep-all is that of the setting's network."""
        against = keep_all_of(setting) if other == "keep_all" else setting
        both = self.of(number, line, setting), self.of(number, other, against)
        return paired_difference(*both, self.rows[number].clusters)


def _points(
    setting: Setting, line: Line, influences: _Influences, margin: float, level: float
) -> list[dict[str, Any]]:
    """By window: AUC, and what it is beside keep-all and beside a set selected anew."""
    found = []
    for number in range(len(influences.steps)):
        others: Iterable[Line] = ("keep_all",) if line == "anew" else ("keep_all", "anew")
        differences = {
            f"minus_{other}": _plain(
                influences.difference(number, line, setting, other), influences.rows[number], margin, level
            )
            for other in others
        }
        aucs = {
            "auc": influences.of(number, line, setting),
            "keep_all_auc": influences.of(number, "keep_all", keep_all_of(setting)),
        }
        means = {name: float(np.mean([each.value for each in own])) for name, own in aucs.items()}
        found.append({"window": number, **means, **differences})
    return found


def _plain(found: Difference, rows: Rows, margin: float, level: float) -> dict[str, Any]:
    low, high = found.interval(level)[1:]
    decision = decide(found, margin, len(rows))
    return {
        **found.interval()._asdict(),
        "low_corrected": low,
        "high_corrected": high,
        "by_seed": list(found.by_seed),
        "outcome": decision.outcome,
        "provable": decision.provable,
        "more_rows": decision.more_rows,
        "seeds_known": seeds_known(found),
    }


def _pace(
    setting: Setting, line: Line, influences: _Influences, ages: Sequence[float], margin: float
) -> dict[str, Any]:
    """What a unit of age adds to AUC beside a set selected anew, and at what age that comes to the margin.

    outcome: `ages`: the whole interval is below zero. `gains`: above it. `none_seen`: by the age of the last window it
    costs no more than the margin. `undecided`: none of these.
    """
    clusters = [each.clusters for each in influences.rows]
    known = [each for each in clusters if each is not None]
    found = pace(
        influences.along(line, setting),
        influences.along("anew", setting),
        ages,
        known if len(known) == len(clusters) else None,
    )
    value, low, high = found.interval()
    outcome = "undecided"
    if high < 0.0:
        outcome = "ages"
    elif low > 0.0:
        outcome = "gains"
    elif low * ages[-1] >= -margin:
        outcome = "none_seen"
    return {
        "value": value,
        "low": low,
        "high": high,
        "by_seed": list(found.by_seed),
        "outcome": outcome,
        "seeds_known": seeds_known(found),
        "margin_after": _reached(margin, value, low, high) if outcome == "ages" else None,
    }


def _reached(margin: float, value: float, low: float, high: float) -> dict[str, float]:
    """The age at which the cost comes to the margin, by the pace and by its bounds, all below zero."""
    return {"value": -margin / value, "low": -margin / low, "high": -margin / high}


def _window(step: ScoredStep, rows: Rows, age: float) -> dict[str, Any]:
    parts = step.dataset.manifest["rows"]
    return {
        "age": age,
        "first": step.window.first,
        "end": step.window.end,
        "rows": len(rows),
        "positives": int(rows.labels.sum()),
        "trained_on": {part: parts[part] for part in ("train", "valid")},
        "features": step.dataset.features,
        "dataset": step.dataset.digest,
        "unjudged": {"any": step.unjudged.any, "fields": step.unjudged.fields},
        "test_reads": test_reads(step.dataset)["look"],
    }


def _unit(steps: Sequence[ScoredStep]) -> tuple[str, float]:
    """What ages are told in: the largest unit that a step is at least as long as."""
    age = steps[1].window.age
    if age is None:
        return "step", 1.0
    return next((unit for unit in _UNITS if age >= unit[1]), _UNITS[-1])


def walk_rows(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The rows of `walk_forward.parquet`: one for each set, line and window."""
    found = []
    for one in document["sets"]:
        setting = {key: one[key] for key in Setting._fields}
        for line, points in one["points"].items():
            for point in points:
                window = document["windows"][point["window"]]
                row = {**setting, "line": line, "window": point["window"], "age": window["age"]}
                row |= {"age_unit": document["age_unit"], "first": str(window["first"])}
                row |= {"end": str(window["end"]), "rows": window["rows"]}
                row |= {"auc": point["auc"], "keep_all_auc": point["keep_all_auc"]}
                for other in ("keep_all", "anew"):
                    difference = point.get(f"minus_{other}") or {}
                    for key in ("value", "low", "high", "low_corrected", "high_corrected"):
                        row[f"minus_{other}_{key}"] = difference.get(key)
                found.append({**row, "unjudged": window["unjudged"]["any"]})
    return found
