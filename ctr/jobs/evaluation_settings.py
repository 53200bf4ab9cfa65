"""What an evaluation is asked for: models, logs, slices, and the bounds that they must keep."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field as Key
from pydantic import field_validator, model_validator

from ctr.settings import Strict, check, load_toml

DAY = "day"  # the slice that is a window of time, whatever the log's columns are called
Number = Annotated[float | int, Key(allow_inf_nan=False)]
NotNegative = Annotated[float | int, Key(ge=0.0, allow_inf_nan=False)]
MetricName = Literal["auc", "logloss", "normalised_entropy", "ece", "calibration_ratio", "gauc"]
_FALLING = ("auc", "gauc")  # more is better
_RISING = ("logloss", "normalised_entropy", "ece")  # less is better


class Guardrail(Strict):
    """A bound on a metric of all rows, or of a slice.

    slice, value: a field (or "day"), and one value of it; without `value`, each of its values. model: the name of the
        one that is judged; by default every model but the first, or the only one.
    min, max: of the metric. max_drop (auc, gauc), max_rise (logloss, normalised_entropy, ece): how much worse than the
        first model it may be.
    judged_by: `value`: what was measured. `interval`: the bound holds for the whole 95 % interval, so that a log that
        cannot tell misses it.
    min_rows: smaller slices are not judged.
    """

    metric: MetricName = "auc"
    slice: str | None = None
    value: str | int | float | None = None
    model: str | None = None
    min: Number | None = None
    max: Number | None = None
    max_drop: NotNegative | None = None
    max_rise: NotNegative | None = None
    judged_by: Literal["value", "interval"] = "value"
    min_rows: Annotated[int, Key(ge=1)] = 1

    @model_validator(mode="after")
    def _a_bound(self) -> "Guardrail":
        if all(bound is None for bound in (self.min, self.max, self.max_drop, self.max_rise)):
            raise ValueError("needs a bound: min, max, max_drop or max_rise")
        if self.max_drop is not None and self.metric not in _FALLING:
            raise ValueError(f'max_drop applies to "auc" and "gauc", found metric = "{self.metric}"')
        if self.max_rise is not None and self.metric not in _RISING:
            names = ", ".join(f'"{name}"' for name in _RISING)
            raise ValueError(f'max_rise applies to {names}, found metric = "{self.metric}"')
        if self.value is not None and self.slice is None:
            raise ValueError("value needs slice, the field that it is a value of")
        if self.judged_by == "interval" and self.metric == "ece" and self.max_rise is not None:
            raise ValueError(
                'judged_by = "interval": the difference of two calibration errors ("ece") has no interval; state max'
            )
        return self


class EvaluationSettings(Strict):
    """An evaluation; the keys of the TOML file, and the options of the command line.

    models: bundle folders, run folders, or MLflow references (`models:/NAME@ALIAS`, `models:/NAME/VERSION`,
        `runs:/ID`); the first is what the others are compared with.
    names: of the models, by default told from where they lie.
    data: labelled logs: paths, globs or URLs. out: the folder to write.
    slices: fields whose values are looked at one by one. group_by: the key of gAUC. cluster: the key whose values are
        independent of each other, by default each row is.
    min_auc, max_drop: of every model but the first, or of the only one.
    exact_rows: rows up to which AUC is exact; unset, as many as fit into memory.
    allow_paths: whether bundles that are given by their own folder may read side tables from a path; runs and
        registered models are ours, and may.
    tracking: an MLflow URI, or "none"; unset, the SQLite file beside the runs.
    """

    models: Annotated[list[str], Key(min_length=1)]
    names: list[str] = []
    data: Annotated[list[str], Key(min_length=1)]
    out: Annotated[str, Key(min_length=1)]
    slices: list[str] = []
    group_by: str | None = None
    cluster: str | None = None
    min_auc: Annotated[Number, Key(ge=0.0, le=1.0)] | None = None
    max_drop: NotNegative | None = None
    guardrails: list[Guardrail] = Key(default=[], alias="guardrail")
    exact_rows: Annotated[int, Key(ge=0)] | None = None
    allow_paths: bool = False
    tracking: str | None = None
    experiment: str = Key(default="ctr", min_length=1)
    seed: int = 0

    @field_validator("models", "data", "slices", mode="before")
    @classmethod
    def _many(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @model_validator(mode="after")
    def _consistent(self) -> "EvaluationSettings":
        if self.names and len(self.names) != len(self.models):
            raise ValueError(f"names: expected one per model ({len(self.models)}), found {len(self.names)}")
        compared = self.max_drop is not None or any(
            bound is not None for rail in self.guardrails for bound in (rail.max_drop, rail.max_rise)
        )
        if compared and len(self.models) < 2:
            raise ValueError("max_drop and max_rise compare with the first model: name at least two models")
        return self

    @property
    def bounds(self) -> list[Guardrail]:
        """All guardrails, those of `min_auc` and `max_drop` first."""
        own = []
        if self.min_auc is not None:
            own.append(Guardrail(min=self.min_auc))
        if self.max_drop is not None:
            own.append(Guardrail(max_drop=self.max_drop))
        return [*own, *self.guardrails]

    @property
    def sliced(self) -> list[str]:
        """Fields to look at value by value, those of guardrails included; days are looked at anyway."""
        named = [*self.slices, *(rail.slice for rail in self.guardrails if rail.slice)]
        return [name for name in dict.fromkeys(named) if name != DAY]

    def named(self, field: str) -> list[str]:
        """The values of a field that guardrails are about."""
        return [str(rail.value) for rail in self.guardrails if rail.slice == field and rail.value is not None]


def evaluation_settings(file: Path | None, given: Mapping[str, Any]) -> EvaluationSettings:
    """The settings of a TOML file with those of the command line, which count where both say something.

    Args:
        file: the TOML file, or None.
        given: keys of `EvaluationSettings`; None and empty lists are not given.

    Raises:
        ConfigError: there is no such file, or it breaks rules; all broken rules are reported together.
    """
    content = {} if file is None else load_toml(file, "evaluation config")
    stated = {key: value for key, value in given.items() if value not in (None, [])}
    origin = "the arguments" if file is None else f'evaluation config "{file}"'
    return check({**content, **stated}, EvaluationSettings, origin)
