"""The schema: a TOML file that names the label and the fields of a click log, and how its rows are split."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field as Key
from pydantic import field_validator, model_validator

from ctr.dataset.expression_limits import DERIVED
from ctr.dataset.field_spec import FieldSpec, MissingValues, sharing_mistakes
from ctr.dataset.split_spec import FilesSplit, RandomSplit, Split, TimeSplit, parse_duration
from ctr.settings import Strict, check, load_toml


def _duplicates(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in sorted(names))


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


class Join(Strict):
    """A side table: attributes of the key `on`. Takes every `[read]` key.

    Without `time` it holds one row per key. With it, each row of the log gets the latest row of its key that is
    strictly older than the impression, and no older than `max_age`.

    time: the side table's column. log_time: the log's, by default the one that the split names.
    at_scoring: where scoring finds the attributes: in the `bundle`, at the `path` that `input` names, or as columns of
        the `row` itself.
    """

    input: str
    on: str
    time: str | None = None
    log_time: str | None = None
    max_age: str | None = None
    at_scoring: Literal["bundle", "path", "row"] = "bundle"
    format: Literal["csv", "parquet", "ndjson"] = "csv"
    separator: str = ","
    has_header: bool = True
    columns: list[str] | None = None
    null_values: list[str] = []
    quote: str | None = '"'
    encoding: str = "utf-8"
    max_bad_rows: Annotated[float, Key(ge=0.0, le=1.0)] = 0.01

    @field_validator("max_age")
    @classmethod
    def _duration(cls, value: str | None) -> str | None:
        if value is not None and parse_duration(value) is None:
            raise ValueError(f'expected a duration such as "6h" (units s, m, h, d, w), found "{value}"')
        return value

    @model_validator(mode="after")
    def _readable(self) -> "Join":
        self.read  # noqa: B018  validates the reading keys together
        if self.time is None and (self.max_age is not None or self.log_time is not None):
            raise ValueError("max_age and log_time need time, the side table's column of times")
        return self

    @property
    def read(self) -> Read:
        """The reading keys alone."""
        return Read(**{key: getattr(self, key) for key in self.model_fields_set & Read.model_fields.keys()})


class Schema(Strict):
    """A click log's schema: label, rows to keep, derived columns, reading, split, fields (in order) and joins.

    weight: a column or expression, how much a row counts. negative_keep_rate: the share of rows with label 0 that
    was kept when the log was sampled. row_id: a column that names rows in score files. missing_values: values that
    mean "missing" in every field.
    """

    name: str
    label: str
    where: str | None = None
    weight: str | None = None
    negative_keep_rate: Annotated[float | int, Key(gt=0.0, le=1.0)] | None = None
    row_id: str | None = None
    missing_values: MissingValues = []
    true_probability: str | None = None
    derive: Annotated[dict[str, str], Key(max_length=DERIVED)] = {}
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
        names = {field.name for field in self.fields}
        if twice := _duplicates([field.name for field in self.fields]):
            raise ValueError(f"fields names {_quoted(twice)} more than once")
        if reserved := [field.name for field in self.fields if field.name.startswith("@")]:
            raise ValueError(f'field names must not start with "@", found {_quoted(reserved)}')
        if self.label in names:
            raise ValueError(f'the label "{self.label}" is also a field: the model would read the answer')
        for key in ("true_probability", "weight"):
            if getattr(self, key) in names:
                raise ValueError(f'{key} "{getattr(self, key)}" is also a field')
        if mistakes := sharing_mistakes(self.fields):
            raise ValueError("; ".join(mistakes))
        if derived := [field.name for field in self.fields if field.pii and field.name in self.derive]:
            raise ValueError(
                f"pii applies to columns of the input, which are hashed before anything is derived: {_quoted(derived)}"
            )
        for join in self.joins:
            if join.time is not None and join.log_time is None and self.time_column is None:
                raise ValueError(
                    f'join "{join.input}": time needs log_time, the log\'s column of times (the split has none)'
                )
        return self

    @property
    def keep_rate(self) -> float:
        """Share of negatives in the log; 1 where it was not sampled."""
        return float(self.negative_keep_rate or 1.0)

    @property
    def weighted(self) -> bool:
        """Whether rows do not all count alike."""
        return self.weight is not None or self.keep_rate != 1.0

    @property
    def time_column(self) -> str | None:
        """The column of times that the split names; None where it names none."""
        return self.split.column if isinstance(self.split, TimeSplit | FilesSplit) else None

    @property
    def timezone(self) -> str:
        """Of times that do not say theirs."""
        return self.split.timezone if isinstance(self.split, TimeSplit | FilesSplit) else "UTC"

    def log_time(self, join: Join) -> str | None:
        """The log's column of times that a join in time goes by; None for any other join."""
        if join.time is None or join.log_time is not None:
            return join.log_time
        return self.time_column

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
