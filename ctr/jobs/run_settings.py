"""Finished runs as settings of a comparison: what was asked of each, and in what it differs from the others."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from ctr.jobs.comparison_config import PAIRED, UNSIZED
from ctr.jobs.entries import Setting
from ctr.selection.optfs import DEFAULT_PRICE

# Sizes, which have a place of their own; what the set is beside; and the budget, which must be equal.
_NO_NAME = {"kind", "ratio", "penalty", "referees", "compare_dropped_reads", "epochs"}
_OF_SEARCH = {"final_temperature", "rewind_epoch", "gate_learning_rate", "shadow"}
_LONGEST = 40  # characters of a setting that is told as it is
Section = Mapping[str, Any]


class RunSettings:
    """The setting of each run, named so that runs of one setting differ in nothing but their seed.

    Args:
        configs: of the runs, as resolved. reports: theirs, in the same order.
    """

    def __init__(self, configs: Sequence[Section], reports: Sequence[Section]) -> None:
        self._configs, self._reports = configs, reports
        self._data = _data_names(configs, reports)

    def of(self, number: int) -> Setting:
        """Of a run by its number. A vocabulary is part of the embedding, so data that differ are named there."""
        kind, asked = self._reports[number]["selector"], self._section(number, "selector").get("ratio")
        return Setting(
            "selector",
            self._chooser(number),
            float(asked[0]) if asked and kind not in UNSIZED else None,
            self._named(number, "backbone"),
            ", ".join([self._named(number, "embedding"), *self._data[number]]),
        )

    def _chooser(self, number: int) -> str:
        """The kind of selector, with what its runs differ in: first, as in a grid, how pairs were chosen."""
        kind, own = str(self._reports[number]["selector"]), self._selector(number)
        alike = [self._selector(other) for other in self._alike(number, "selector")]
        name = kind
        if kind in PAIRED:
            if len({other.get("choice") for other in alike}) > 1 and "choice" in own:
                name = f"{kind} {own['choice']}"
            alike = [other for other in alike if other.get("choice") == own.get("choice")]
        if kind in ("optfs", "optfs+optinter") and not own.get("ratio"):
            name += f" penalty {(own.get('penalty') or [DEFAULT_PRICE])[0]:g}"
        idle = {key for key in own if not _applies(key, own)}
        return ", ".join([name, *_differing(own, alike, _NO_NAME | idle)])

    def _selector(self, number: int) -> dict[str, Any]:
        """What a run's selector was asked for, and the numbers that its weights are stored as."""
        stored = self._section(number, "export").get("dtype", "float32")
        return {**self._section(number, "selector"), "dtype": stored}

    def _named(self, number: int, section: str) -> str:
        """The kind, with the settings in which runs of that kind differ."""
        own = self._section(number, section)
        kind = str(own.get("kind", self._reports[number][section]))
        alike = [self._section(other, section) for other in self._alike(number, section)]
        return ", ".join([kind, *_differing(own, alike, {"kind"})])

    def _section(self, number: int, name: str) -> Section:
        found: Section = self._configs[number].get(name, {})
        return found

    def _alike(self, number: int, section: str) -> list[int]:
        """All runs of the same kind in a section."""
        kind = self._reports[number][section]
        return [other for other, report in enumerate(self._reports) if report[section] == kind]


def searches(selector: Section) -> bool:
    """Whether a selector trains a search, so that `epochs` is a budget of it."""
    kind, choice = selector.get("kind"), selector.get("choice", "search")
    whole = kind in ("optfs", "optfs+optinter", "field_gates")
    return whole or (kind == "optinter" and choice in ("search", "best"))


def _applies(key: str, selector: Section) -> bool:
    """Whether a setting says anything of that kind of selector: a configuration as resolved holds all of them."""
    if key in ("dropped_reads", "dtype"):
        return True
    if key == "saliency":
        return selector.get("kind") == "saliency"
    return searches(selector) if key in _OF_SEARCH else selector.get("kind") in PAIRED


def _data_names(configs: Sequence[Section], reports: Sequence[Section]) -> list[list[str]]:
    """What tells the data of each run from those of the others: keys of `[data]`, else a digest."""
    digests = [str(report["dataset"]["digest"]) for report in reports]
    stated = dict[str, Section]()
    for digest, config in zip(digests, configs, strict=True):
        own = {key: _file_name(value) for key, value in config.get("data", {}).items()}
        stated.setdefault(digest, own)
    names = {digest: _differing(own, list(stated.values()), {"folder"}) for digest, own in stated.items()}
    if len(set(map(tuple, names.values()))) < len(names):  # such as one schema file, changed between runs
        names = {digest: [*found, f"data {digest[:6]}"] for digest, found in names.items()}
    return [names[digest] for digest in digests]


def _file_name(value: Any) -> Any:
    return value.rpartition("/")[2] if isinstance(value, str) else value


def _differing(own: Section, alike: Sequence[Section], without: set[str]) -> list[str]:
    """The settings that others have otherwise, by name."""
    keys = sorted(key for key in own if any(other.get(key) != own[key] for other in alike))
    return [f"{key} {_short(own[key])}" for key in keys if key not in without]


def _short(value: Any) -> str:
    """A setting as it is; a long list by its length and a digest."""
    text = str(value)
    if not isinstance(value, list) or len(text) <= _LONGEST:
        return text
    return f"{len(value)} ({hashlib.sha256(text.encode()).hexdigest()[:6]})"
