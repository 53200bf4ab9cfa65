"""What a comparison compares: one TOML file over the configuration of a run.

name = "ml100k"
run = "pipelines/configs/ml100k.toml"   # or [run] with the sections of a run
[grid]
selectors = ["optfs", "frequency"]
sizes = [0.5, 0.2, 0.1]
seeds = [0, 1, 2]
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from ctr.config import (
    BackboneConfig,
    Budget,
    Config,
    Embedding,
    NotNegative,
    SelectorConfig,
    Share,
    Whole,
    apply_change,
    path_safe,
)
from ctr.dataset.carried_set import NewValues
from ctr.dataset.split_spec import parse_duration
from ctr.errors import ConfigError, nearest
from ctr.settings import Strict, as_text, check, load_toml

Alternative = Literal["dim", "min_count", "unified", "int8"]
UNSIZED = ("none", "all", "optinter")  # selectors that keep every feature: sizes do not apply
PAIRED = ("optinter", "optfs+optinter")  # selectors that choose how pairs of fields interact


def _known(what: str, kinds: Sequence[str]) -> Any:
    def known(names: list[str]) -> list[str]:
        for name in names:
            if name not in kinds:
                raise ValueError(f'"{name}" is no {what}{nearest(name, kinds)}')
        return _different(names)

    return AfterValidator(known)


def _different(entries: list[Any]) -> list[Any]:
    for entry in entries:
        if entries.count(entry) > 1:
            raise ValueError(f"expected entries that differ, found {json.dumps(entry)} more than once")
    return entries


def _kinds(model: type[Strict]) -> list[str]:
    return list(get_args(model.model_fields["kind"].annotation))


SELECTORS = [kind for kind in _kinds(SelectorConfig) if kind != "none"]
CHOICES = list(get_args(SelectorConfig.model_fields["choice"].annotation))
Names = Annotated[list[str], Field(min_length=1)]


class Grid(Strict):
    """Every combination of these is trained; keep-all beside them, once for each backbone, embedding and seed.

    sizes: shares of the vocabulary values to keep. choices: how pairs of fields are chosen (`selector.choice`); unset,
    as the run says. backbones, embeddings: unset, those of the run.
    """

    selectors: Annotated[Names, _known("selector", SELECTORS)]
    choices: Annotated[Names, _known("choice", CHOICES)] | None = None
    sizes: Annotated[list[Share], Field(min_length=1), AfterValidator(_different)] = [0.5, 0.2, 0.1]
    seeds: Annotated[
        list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1), AfterValidator(_different)
    ] = [0, 1, 2]
    backbones: Annotated[Names, _known("backbone", _kinds(BackboneConfig))] | None = None
    embeddings: Annotated[Names, _known("embedding", _kinds(Embedding))] | None = None

    @model_validator(mode="after")
    def _choices_apply(self) -> "Grid":
        if self.choices is not None and not set(self.selectors) & set(PAIRED):
            kinds, found = (" and ".join(f'"{kind}"' for kind in own) for own in (PAIRED, self.selectors))
            raise ValueError(f"choices are of selectors that choose pairs, {kinds}; found {found} alone")
        return self

    def choosers(self) -> dict[str, dict[str, str]]:
        """What is compared, by name: the settings of the selector. Each choice of pairs has a name of its own."""
        found: dict[str, dict[str, str]] = {}
        for kind in self.selectors:
            if self.choices is None or kind not in PAIRED:
                found[kind] = {"kind": kind}
            else:
                found |= {f"{kind} {choice}": {"kind": kind, "choice": choice} for choice in self.choices}
        return found


class Rules(Strict):
    """By which differences are judged, and a set is chosen on valid.

    max_auc_loss: the loss of AUC that may be had. cluster: a column of the log; rows that agree in it (the impressions
    of a user) are drawn together. alternatives: what costs as many bytes without any selection: `dim`: keep-all at
    widths of a quarter and a half of the run's; `min_count`: the most frequent values, dropped ones read as unknown;
    `unified`: keep-all in one hashed table; `int8`: keep-all with the same weights, stored in a quarter of the bytes.
    max_bytes (of the bundle), max_fields, max_cost (the sum of `cost` of fields that keep anything): a budget that the
    chosen set must fit. jobs: cells trained at a time, each in a process with `training.threads` threads (unset: 1);
    0 takes one for each core, and one alone on a GPU.
    """

    max_auc_loss: NotNegative = 0.001
    cluster: str | None = None
    alternatives: Annotated[list[Alternative], AfterValidator(_different)] = [
        "dim",
        "min_count",
        "unified",
        "int8",
    ]
    max_bytes: Budget = None
    max_fields: Whole | None = None
    max_cost: NotNegative | None = None
    jobs: Annotated[int, Field(ge=0)] = 0

    @property
    def budget(self) -> dict[str, float]:
        """The limits that are stated, by name."""
        limits = {"max_bytes": self.max_bytes, "max_fields": self.max_fields, "max_cost": self.max_cost}
        return {name: float(limit) for name, limit in limits.items() if limit is not None}


Stretch = Annotated[float | int | str, BeforeValidator(as_text)]


class WalkForward(Strict):
    """Sets are selected on the rows before `start`, and judged on one window of later rows after another.

    At each window everything is trained again on all rows before it: keep-all, the set as it was selected before
    `start`, and one that is selected anew.

    start: an instant of the schema's time column, or a share of the rows. step: how long a window is: a duration, a
    share of the rows or, of a column of numbers, a number. windows: how many there are, the first one right after
    `start`. unit: of a time column that holds numbers since 1970, so that it may be walked in durations.
    new_values: what becomes of values that a set has never judged: `drop`, `keep`, or both, one beside the other.
    sets: `chosen` walks with the set that valid chooses, `all` with each set of the grid.
    """

    start: Stretch = 0.5
    step: Stretch
    windows: Annotated[int, Field(ge=2, le=100)] = 6
    unit: Literal["s", "ms", "us", "ns"] | None = None
    new_values: Annotated[list[NewValues], Field(min_length=1), AfterValidator(_different)] = ["drop"]
    sets: Literal["chosen", "all"] = "chosen"

    @field_validator("start", "step")
    @classmethod
    def _below_one(cls, value: float | int | str) -> float | int | str:
        if isinstance(value, float) and not 0.0 < value < 1.0:
            raise ValueError(f"expected a share of the rows above 0 and below 1, found {value:g}")
        return value

    @field_validator("step")
    @classmethod
    def _ahead(cls, value: float | int | str) -> float | int | str:
        found = parse_duration(value) if isinstance(value, str) else value
        if found is None:
            raise ValueError(f'expected a duration ("1d"), a share of the rows or a number, found "{value}"')
        if not found:
            raise ValueError(f"expected a step ahead, found {value}")
        return value


class Comparison(Strict):
    """A whole comparison. `run`: the run whose settings all share. `walk_forward`: unset, nothing is walked."""

    name: str
    run: Config
    grid: Grid
    compare: Rules = Rules()
    walk_forward: WalkForward | None = None

    @model_validator(mode="after")
    def _drawn_in_stated_numbers(self) -> "Comparison":
        if "random" in (self.grid.choices or []) and self.run.selector.random_counts is None:
            raise ValueError(
                'grid.choices: "random" needs run.selector.random_counts = [memorized, factorized], beside '
                'run.selector.choice = "random"; found none'
            )
        return self

    @field_validator("name")
    @classmethod
    def _path_safe(cls, value: str) -> str:
        return path_safe(value)

    def digest(self, cells: Sequence[str]) -> str:
        """12 characters that change with the cells, with the rules and with what is walked."""
        content: list[Any] = [
            self.name,
            self.compare.model_dump(mode="json", exclude={"jobs"}),
            sorted(cells),
        ]
        if self.walk_forward is not None:
            content.append(self.walk_forward.model_dump(mode="json"))
        text = json.dumps(content, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def load_comparison(path: Path, changes: Sequence[str] = ()) -> Comparison:
    """Read a comparison, and apply `section.key=value` changes to it (`run.training.epochs=2` to its run).

    Raises:
        ConfigError: a file is missing, no TOML, or breaks its rules, all of them.
    """
    values = load_toml(path, "comparison")
    run = values.get("run")
    if isinstance(run, str):
        values["run"] = load_toml(Path(run), f'comparison "{path}": run')
    elif run is None and "data" in values:
        raise ConfigError(
            f'comparison "{path}": expected run and [grid], found the configuration of a single run; state '
            f'run = "{path}" and [grid] in a file of its own, or train it with `ctr train {path}`'
        )
    for change in changes:
        apply_change(values, change)
    return check(values, Comparison, f'comparison "{path}"')
