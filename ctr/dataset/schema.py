"""The schema: a TOML file that names the label and the fields of a click log, and how its rows are split."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field as Key
from pydantic import field_validator, model_validator

from ctr.settings import Strict, check, load_toml

Kind = Literal["categorical", "numeric", "list"]
Transform = Literal["log_square", "quantile", "minmax", "standard"]
SCALED: frozenset[str] = frozenset({"minmax", "standard"})

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


def _duplicates(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in sorted(names))


def parse_duration(text: str) -> timedelta | None:
    """`"36h"` -> 36 hours; units s, m, h, d, w. None where the text is no duration."""
    match = _DURATION.match(text)
    return timedelta(seconds=float(match[1]) * _SECONDS[match[2]]) if match else None


class Read(Strict):
    """How a file becomes columns. The csv keys are refused for other formats."""

    format: Literal["csv", "parquet", "ndjson"] = "csv"
    separator: str = ","
    has_header: bool = True
    columns: list[str] | None = None
    null_values: list[str] = []
    quote: str | None = '"'
    encoding: str = "utf-8"
    max_bad_rows: Annotated[float, Key(ge=0.0, le=1.0)] = 0.01

    @field_validator("separator")
    @classmethod
    def _one_byte(cls, value: str) -> str:
        if len(value.encode()) != 1 or value in "\r\n":
            raise ValueError(f'expected a single ASCII character, found "{value}"')
        return value

    @field_validator("quote")
    @classmethod
    def _one_byte_or_none(cls, value: str | None) -> str | None:
        if value in (None, ""):
            return None
        return cls._one_byte(value)

    @field_validator("encoding")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            "".encode(value)
        except LookupError:
            raise ValueError(f'no such text encoding: "{value}" (try "utf-8" or "latin-1")') from None
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "Read":
        if self.format != "csv":
            keys = ("separator", "has_header", "columns", "null_values", "quote", "encoding")
            given = [key for key in keys if getattr(self, key) != type(self).model_fields[key].default]
            if given:
                raise ValueError(
                    f'{_quoted(given)} only apply to format = "csv", found format = "{self.format}"'
                )
        elif not self.has_header and not self.columns:
            raise ValueError("has_header = false needs columns = [...], one name per column of the file")
        if self.columns and (twice := _duplicates(self.columns)):
            raise ValueError(f"columns names {_quoted(twice)} more than once")
        return self


class TimeSplit(Strict):
    """Oldest rows train, newest rows test; rows of one instant stay on one side of a cut."""

    by: Literal["time"]
    column: str
    valid: float | int | str = 0.1
    test: float | int | str = 0.1
    gap: str | None = None
    label_matures_after: str | None = None
    timezone: str = "UTC"

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

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError):
            raise ValueError(
                f'no such time zone: "{value}" (expected a name such as "Europe/Paris")'
            ) from None
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
    """The parts are given as files; the patterns are relative to the folder `data.input`."""

    by: Literal["files"]
    train: str
    valid: str
    test: str


Split = Annotated[TimeSplit | HashSplit | RandomSplit | FilesSplit, Key(discriminator="by")]


class FieldSpec(Strict):
    """One field of the log.

    `categorical`: each frequent value is a feature. `list`: text cut at `separator` (or a list column); the
    embeddings of its values are averaged. `numeric`: `log_square` and `quantile` turn a number into a category;
    `minmax` and `standard` scale it with train statistics, and the field enters as value times one embedding.
    """

    name: str
    kind: Kind = "categorical"
    min_count: Annotated[int, Key(ge=1)] = 1
    transform: Transform | None = None
    bins: Annotated[int, Key(ge=2, le=100_000)] | None = None
    separator: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> "FieldSpec":
        if self.kind == "numeric" and self.transform is None:
            raise ValueError("a numeric field needs transform = log_square, quantile, minmax or standard")
        if self.kind != "numeric" and self.transform is not None:
            raise ValueError(f'transform applies to kind = "numeric", found kind = "{self.kind}"')
        if (self.bins is not None) != (self.transform == "quantile"):
            raise ValueError('transform = "quantile" needs bins = N, and nothing else takes it')
        if self.kind != "list" and self.separator is not None:
            raise ValueError(f'separator applies to kind = "list", found kind = "{self.kind}"')
        if self.kind == "numeric" and self.min_count != 1:
            # METHODS: numeric features are exempt from the frequency cut.
            raise ValueError("min_count does not apply to a numeric field")
        return self

    @property
    def scaled(self) -> bool:
        """Whether the field enters the network as value times embedding."""
        return self.transform in SCALED


class Join(Strict):
    """A side table: attributes of the key `on`, one row per key. Takes every `[read]` key."""

    input: str
    on: str
    format: Literal["csv", "parquet", "ndjson"] = "csv"
    separator: str = ","
    has_header: bool = True
    columns: list[str] | None = None
    null_values: list[str] = []
    quote: str | None = '"'
    encoding: str = "utf-8"
    max_bad_rows: Annotated[float, Key(ge=0.0, le=1.0)] = 0.01

    @model_validator(mode="after")
    def _readable(self) -> "Join":
        self.read  # noqa: B018  validates the reading keys together
        return self

    @property
    def read(self) -> Read:
        """The reading keys alone."""
        return Read(**{key: getattr(self, key) for key in self.model_fields_set - {"input", "on"}})


class Schema(Strict):
    """A click log's schema: label, rows to keep, derived columns, reading, split, fields (in order) and joins."""

    name: str
    label: str
    where: str | None = None
    true_probability: str | None = None
    derive: dict[str, str] = {}
    read: Read = Read()
    split: Split = RandomSplit(by="random")
    fields: Annotated[list[FieldSpec], Key(min_length=1)]
    joins: list[Join] = []

    @field_validator("name")
    @classmethod
    def _path_safe(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
            raise ValueError(f'expected letters, digits, ".", "_" or "-", found "{value}"')
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "Schema":
        if twice := _duplicates([field.name for field in self.fields]):
            raise ValueError(f"fields names {_quoted(twice)} more than once")
        if reserved := [field.name for field in self.fields if field.name.startswith("@")]:
            raise ValueError(f'field names must not start with "@", found {_quoted(reserved)}')
        if self.label in {field.name for field in self.fields}:
            raise ValueError(f'the label "{self.label}" is also a field: the model would read the answer')
        if self.true_probability in {field.name for field in self.fields}:
            raise ValueError(f'true_probability "{self.true_probability}" is also a field')
        return self

    def digest(self) -> str:
        """36 hexadecimal characters that change with anything the schema says."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:36]


def load_schema(path: str | Path) -> Schema:
    """Read and check a schema file.

    Raises:
        ConfigError: the file is missing, is no TOML, or breaks rules; all broken rules are reported together.
    """
    return check(load_toml(Path(path), "schema"), Schema, f'schema "{path}"')
