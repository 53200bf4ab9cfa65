"""How a schema says that rows are split: by time, by hash of a key, at random, or by file."""

import re
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AfterValidator,
    BeforeValidator,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic import Field as Key

from ctr.settings import Strict, as_text

_DURATION = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(s|m|h|d|w)\s*$")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


Parts = TypeVar("Parts", "TimeSplit", "HashSplit", "RandomSplit")


def _check_share(value: float) -> float:
    if not 0.0 < value < 1.0:
        raise ValueError(f"expected a share above 0 and below 1, found {value}")
    return value


def _check_sum(split: Parts) -> Parts:
    shares = [share for share in (split.valid, split.test) if isinstance(share, float)]
    if len(shares) == 2 and sum(shares) >= 1.0:
        raise ValueError(
            f"valid and test together must leave rows to train on, found {sum(shares):g} of all rows"
        )
    return split


def parse_duration(text: str) -> timedelta | None:
    """`"36h"` -> 36 hours; units s, m, h, d, w. None where the text is no duration."""
    match = _DURATION.match(text)
    return timedelta(seconds=float(match[1]) * _SECONDS[match[2]]) if match else None


def _check_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f'no such time zone: "{value}" (expected a name such as "Europe/Paris")') from None
    return value


Zone = Annotated[str, AfterValidator(_check_zone)]


class TimeSplit(Strict):
    """Oldest rows train, newest rows test; rows of one instant stay on one side of a cut."""

    by: Literal["time"]
    column: str
    valid: Annotated[float | int | str, BeforeValidator(as_text)] = 0.1
    test: Annotated[float | int | str, BeforeValidator(as_text)] = 0.1
    gap: str | None = None
    label_matures_after: str | None = None
    timezone: Zone = "UTC"

    @field_validator("valid", "test")
    @classmethod
    def _boundary(cls, value: float | int | str) -> float | int | str:
        if isinstance(value, float):
            _check_share(value)
        elif isinstance(value, str) and parse_duration(value) is None:
            try:
                datetime.fromisoformat(value)
            except ValueError:
                raise ValueError(
                    f'expected a share (0.1), a duration ("1d") or an instant ("2014-10-30"), found "{value}"'
                ) from None
        return value

    @field_validator("gap", "label_matures_after")
    @classmethod
    def _duration(cls, value: str | None) -> str | None:
        if value is not None and parse_duration(value) is None:
            raise ValueError(f'expected a duration such as "6h" (units s, m, h, d, w), found "{value}"')
        return value

    @model_validator(mode="after")
    def _shares_leave_train(self) -> "TimeSplit":
        return _check_sum(self)


class HashSplit(Strict):
    """All rows of one value of `column` fall into one part."""

    by: Literal["hash"]
    column: str
    valid: float = 0.1
    test: float = 0.1
    seed: int = 0

    _shares = field_validator("valid", "test")(lambda value: _check_share(value))

    @model_validator(mode="after")
    def _shares_leave_train(self) -> "HashSplit":
        return _check_sum(self)


class RandomSplit(Strict):
    """Each row falls into a part by a seeded hash of its row number."""

    by: Literal["random"]
    valid: float = 0.1
    test: float = 0.1
    seed: int = 0

    _shares = field_validator("valid", "test")(lambda value: _check_share(value))

    @model_validator(mode="after")
    def _shares_leave_train(self) -> "RandomSplit":
        return _check_sum(self)


class FilesSplit(Strict):
    """The parts are given as files; the patterns are relative to the folder `data.input`.

    column: of times, where the log has one; it moves no row, and says what the parts cover.
    timezone: of times that do not say theirs.
    """

    by: Literal["files"]
    train: str
    valid: str
    test: str
    column: str | None = None
    timezone: Zone = "UTC"

    @model_validator(mode="after")
    def _zone_of_a_column(self) -> "FilesSplit":
        if self.column is None and "timezone" in self.model_fields_set:
            raise ValueError("timezone needs column, the one that says when a row was shown")
        return self

    @model_serializer(mode="wrap")
    def _timed_if_said(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Without a column a schema is written, and told by its digest, as before there was the key.
        content: dict[str, Any] = dump(self)
        if self.column is None:
            del content["column"], content["timezone"]
        return content


Split = Annotated[TimeSplit | HashSplit | RandomSplit | FilesSplit, Key(discriminator="by")]
