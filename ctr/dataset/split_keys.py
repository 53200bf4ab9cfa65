"""What a split goes by: times, or hashes of a key, as one int64 per row."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import polars as pl
import polars_hash as plh

from ctr.dataset import canonical
from ctr.dataset.expressions import inferred
from ctr.dataset.schema import Schema
from ctr.dataset.split_spec import FilesSplit, HashSplit, TimeSplit, parse_duration
from ctr.errors import ConfigError, DataError

_MICROSECOND = timedelta(microseconds=1)
_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d")


class SplitKey(Protocol):
    """What the split goes by, or the time beside it: a column, and how its cells become int64."""

    @property
    def column(self) -> str | None:
        """The column that holds it."""
        ...

    @property
    def reason(self) -> str:
        """What a cell should have been."""
        ...

    def parse(self, values: pl.Series) -> tuple[pl.Series, pl.Series | None]:
        """Int64 keys without nulls, and which cells cannot be one (None: all can)."""
        ...


def split_key(schema: Schema) -> SplitKey | None:
    """The key of a schema's split; None where rows are split by number, or by file and have no time."""
    split = schema.split
    if isinstance(split, TimeSplit | FilesSplit):
        return TimeKey(split, schema.read.max_bad_rows) if split.column is not None else None
    return HashKey(split) if isinstance(split, HashSplit) else None


@dataclass
class HashKey:
    """The seeded 64-bit hash of a key's canonical text; missing keys are one key."""

    split: HashSplit

    @property
    def reason(self) -> str:
        """Never used: every cell has a hash."""
        return ""

    @property
    def column(self) -> str | None:
        """The column that holds the key."""
        return self.split.column

    def parse(self, values: pl.Series) -> tuple[pl.Series, pl.Series | None]:
        """See `SplitKey.parse`."""
        texts = canonical.text(values).fill_null("").to_frame("key")
        hashes = texts.select(plh.col("key").nchash.xxhash64()).to_series().to_numpy()
        return pl.Series("@key", mixed(hashes, self.split.seed).view(np.int64)), None


@dataclass
class TimeKey:
    """Times as integers that sort alike: the number itself, or microseconds since 1970 UTC.

    What the column holds is decided by its first chunk; text is parsed, never compared. `kind` says what was found.
    `split` names the column.
    """

    split: TimeSplit | FilesSplit
    tolerance: float = 0.0
    kind: Literal["integer", "float", "datetime"] | None = field(default=None)

    @property
    def column(self) -> str:
        """The column that holds the time."""
        assert self.split.column is not None, "only a split that names one has a key of time"
        return self.split.column

    @property
    def reason(self) -> str:
        """What a cell should have been."""
        expected = {"integer": "an integer", "float": "a number", "datetime": "an ISO date or time"}
        use = "to split by time" if isinstance(self.split, TimeSplit) else "as the time of the row"
        return f"expected {expected[self.kind or 'datetime']} {use}"

    def parse(self, values: pl.Series) -> tuple[pl.Series, pl.Series | None]:
        """See `SplitKey.parse`.

        Raises:
            DataError: the column holds neither numbers nor times.
        """
        if self.kind is None:
            self.kind = self._kind_of(values)
        if self.kind == "datetime":
            keys = _microseconds(values, self.split.timezone)
        elif self.kind == "integer":
            text = values.dtype == pl.String
            keys = (values.str.strip_chars() if text else values).cast(pl.Int64, strict=False)
        else:
            found, _ = canonical.numbers(values)
            keys = _sortable(found)
        broken = keys.is_null() if keys.null_count() else None
        return keys.fill_null(0).alias("@key"), broken

    def shown(self, key: int) -> str | int | float:
        """A key as the manifest shows it: ISO text in UTC, or the number."""
        if self.kind == "datetime":
            return (datetime(1970, 1, 1, tzinfo=UTC) + key * _MICROSECOND).isoformat()
        return key if self.kind == "integer" else _number(key)

    def instant(self, value: str | int | float) -> int:
        """The key of an instant that the schema names.

        Raises:
            ConfigError: a date for a column of numbers, or the other way round.
        """
        if isinstance(value, int | float):
            if self.kind == "datetime":
                raise ConfigError(f'schema split: "{self.column}" holds times, found the instant {value}')
            return int(value) if self.kind == "integer" else int(_sortable(pl.Series([float(value)]))[0])
        if self.kind != "datetime":
            raise ConfigError(f'schema split: "{value}" is a date, but {self._unitless()}')
        return _as_microseconds(value, self.split.timezone)

    def duration(self, text: str) -> int:
        """Microseconds of a duration.

        Raises:
            ConfigError: the column holds numbers, which have no unit.
        """
        found = parse_duration(text)
        assert found is not None, "the schema has checked it"
        if self.kind != "datetime":
            raise ConfigError(f'schema split: "{text}" is a duration, but {self._unitless()}')
        return found // _MICROSECOND

    def _unitless(self) -> str:
        name = self.column
        return (
            f'"{name}" holds numbers, which have no unit; derive a time and split by it, for seconds since 1970: '
            f"[derive] when = 'CAST({name} * 1000000 AS TIMESTAMP)' and split.column = \"when\""
        )

    def _kind_of(self, values: pl.Series) -> Literal["integer", "float", "datetime"]:
        dtype = inferred(values, self.tolerance)
        if dtype.is_integer():
            return "integer"
        if dtype.is_float() or isinstance(dtype, pl.Decimal):
            return "float"
        if dtype in (pl.String, pl.Date) or isinstance(dtype, pl.Datetime):
            return "datetime"
        raise DataError(
            f'schema split.column = "{self.column}": expected numbers, dates or ISO text, found {dtype}'
        )


def _microseconds(values: pl.Series, timezone: str) -> pl.Series:
    """Times as microseconds since 1970 UTC; naive ones are in `timezone`; null where there is none."""
    dtype = values.dtype
    if dtype == pl.String:
        return _parsed_text(values, timezone)
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        return values.dt.convert_time_zone("UTC").dt.epoch("us")
    return _from_naive(values.cast(pl.Datetime("us")), timezone)


def _from_naive(times: pl.Series, timezone: str) -> pl.Series:
    # A time that a clock change skips counts from the offset before it, as Python does.
    zoned = times.dt.replace_time_zone(timezone, ambiguous="earliest", non_existent="null")
    skipped = zoned.is_null() & times.is_not_null()
    result = zoned.dt.convert_time_zone("UTC").dt.epoch("us")
    if not skipped.any():
        return result
    repaired = [
        None if t is None else _as_microseconds(t.isoformat(), timezone) for t in times.set(~skipped, None)
    ]
    return result.zip_with(~skipped, pl.Series(repaired, dtype=pl.Int64))


def _parsed_text(values: pl.Series, timezone: str) -> pl.Series:
    texts = values.str.strip_chars()
    naive = pl.DataFrame([texts.alias("t")]).select(
        pl.coalesce(pl.col("t").str.strptime(pl.Datetime("us"), form, strict=False) for form in _FORMATS)
    )
    result = _from_naive(naive.to_series(), timezone)
    rest = texts.set(result.is_not_null(), None)
    distinct = rest.drop_nulls().unique()
    if len(distinct) == 0:
        return result
    parsed: list[int | None] = []
    for text in distinct:
        try:
            parsed.append(_as_microseconds(text, timezone))
        except ValueError:
            parsed.append(None)
    others = rest.replace_strict(
        distinct, pl.Series(parsed, dtype=pl.Int64), default=None, return_dtype=pl.Int64
    )
    return result.zip_with(result.is_not_null(), others)


def _as_microseconds(text: str, timezone: str) -> int:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        found = found.replace(tzinfo=ZoneInfo(timezone))
    return (found - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROSECOND


def _sortable(values: pl.Series) -> pl.Series:
    """Floats as integers in the same order; -0.0 is 0.0; nulls stay."""
    bits = (values.fill_null(0.0).to_numpy() + 0.0).view(np.int64)
    keys = bits ^ ((bits >> 63) & np.int64(0x7FFF_FFFF_FFFF_FFFF))
    return pl.Series(keys).set(values.is_null(), None)


def _number(key: int) -> float:
    bits = np.array([key], np.int64)
    return float((bits ^ ((bits >> 63) & np.int64(0x7FFF_FFFF_FFFF_FFFF))).view(np.float64)[0])


def mixed(values: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.uint64]:
    """splitmix64 (Steele, Lea, Flood 2014) of each value, `seed` mixed in first; the same on every platform."""
    with np.errstate(over="ignore"):
        return _splitmix(values ^ _splitmix(np.array([seed & (2**64 - 1)], np.uint64)))


def _splitmix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
