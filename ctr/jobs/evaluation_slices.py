"""The parts of a log that are looked at one by one: the values of a field, and days."""

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from itertools import pairwise
from typing import NamedTuple

import polars as pl

from ctr.dataset import canonical
from ctr.dataset.split_keys import TimeKey
from ctr.jobs.evaluation_pass import TIME
from ctr.jobs.evaluation_reader import key_column
from ctr.jobs.evaluation_settings import DAY
from ctr.jobs.score_file import ScoreFile

MOST = 30  # values of a field that are looked at, the most frequent ones
_RANGES, _WINDOWS = 10, 10
_SAMPLE = 1_000_000
_YEARS = (631_152_000, 2_840_140_800)  # 1990 to 2060 in seconds since 1970
_TICKS = {"seconds": 1, "milliseconds": 1000, "microseconds": 10**6}


class Slice(NamedTuple):
    """Some rows: those for which `condition` holds."""

    field: str
    value: str
    rows: int
    condition: pl.Expr


class Times(NamedTuple):
    """What the log's times are, in words; the first and last one; and the days, or windows, that they fall into."""

    column: str
    unit: str
    first: str
    last: str
    slices: list[Slice]


def field_slices(file: ScoreFile, name: str, asked: Collection[str] = ()) -> list[Slice]:
    """By the most frequent values of a field; by ten ranges of as many rows each where it is a number.

    Every row is in one of them: all rarer values are one slice, and so are rows without a value.

    Args:
        asked: values that are looked at however rare they are; a number that is asked for is also in its range.
    """
    column = pl.col(key_column(name))
    if file.lazy().collect_schema()[key_column(name)].is_float():
        single = [(text, column == number) for text in asked if (number := _number(text)) is not None]
        parts = [("missing", column.is_null()), *single]
        return [*_ranges(file, name, column), *_counted(file, name, parts)]
    counts = file.lazy().group_by(column).len().collect(engine="streaming")
    ranked = counts.drop_nulls().sort("len", key_column(name), descending=[True, False])
    frequent = pl.concat([ranked.head(MOST), ranked[MOST:].filter(column.cast(pl.String).is_in(list(asked)))])
    found = [Slice(name, str(value), rows, column == value) for value, rows in frequent.iter_rows()]
    numbers, broken = canonical.numbers(pl.Series([part.value for part in found], dtype=pl.String))
    if not broken.any():  # hours are looked for in the order of the day
        found = [found[place] for place in numbers.arg_sort()]
    if rest := int(ranked["len"].sum()) - int(frequent["len"].sum()):
        label = f"all {ranked.height - frequent.height:,} others"
        rarer = ~column.is_in(frequent[key_column(name)].to_list()) & column.is_not_null()
        found.append(Slice(name, label, rest, rarer))
    if missing := int(counts.filter(column.is_null())["len"].sum()):
        found.append(Slice(name, "missing", missing, column.is_null()))
    return found


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _ranges(file: ScoreFile, name: str, column: pl.Expr) -> list[Slice]:
    rows = int(file.lazy().select(pl.len()).collect().item())
    sample = file.lazy().select(column).gather_every(rows // _SAMPLE + 1).collect().to_series().drop_nulls()
    quantiles = (sample.quantile(number / _RANGES, "lower") for number in range(1, _RANGES))
    bounds = [None, *sorted({edge for edge in quantiles if edge is not None}), None]
    parts: list[tuple[str, pl.Expr]] = []
    for low, high in pairwise(bounds):
        above = pl.lit(True) if low is None else column > low
        below = pl.lit(True) if high is None else column <= high
        label = (
            f"up to {high:.4g}"
            if low is None
            else f"above {low:.4g}"
            if high is None
            else f"{low:.4g} to {high:.4g}"
        )
        if low is None and high is None:
            label = "all numbers"
        parts.append((label, column.is_not_null() & above & below))
    return _counted(file, name, parts)


def _counted(file: ScoreFile, name: str, parts: list[tuple[str, pl.Expr]]) -> list[Slice]:
    """Those parts that have rows."""
    counts = file.lazy().select(
        condition.sum().alias(str(number)) for number, (_, condition) in enumerate(parts)
    )
    found = counts.collect(engine="streaming").row(0)
    return [
        Slice(name, label, int(rows), condition)
        for (label, condition), rows in zip(parts, found, strict=True)
        if rows
    ]


def time_slices(file: ScoreFile, key: TimeKey) -> Times:
    """By day in the schema's time zone; by ten windows of equal length where times are numbers without a known unit."""
    low, high = file.lazy().select(pl.col(TIME).min(), pl.col(TIME).max().alias("high")).collect().row(0)
    shown = key.shown
    ticks = 10**6 if key.kind == "datetime" else None
    unit = f"times in {key.split.timezone}" if ticks else "numbers"
    if key.kind == "integer":
        for name, factor in _TICKS.items():
            if _YEARS[0] * factor <= low <= high <= _YEARS[1] * factor:
                ticks, unit = factor, f"{name} since 1970, as their size suggests"
    if ticks is None:
        return Times(key.column, unit, str(shown(low)), str(shown(high)), _windows(file, key, low, high))
    moment = (pl.col(TIME) * (10**6 // ticks)).cast(pl.Datetime("us", "UTC"))
    day = moment.dt.convert_time_zone(key.split.timezone).dt.date()
    counts = file.lazy().group_by(day.alias(DAY)).len().sort(DAY).collect(engine="streaming")
    slices = [Slice(DAY, value.isoformat(), rows, day == value) for value, rows in counts.iter_rows()]
    first, last = (
        datetime.fromtimestamp(end / ticks, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") for end in (low, high)
    )
    return Times(key.column, unit, first, last, slices)


def _windows(file: ScoreFile, key: TimeKey, low: int, high: int) -> list[Slice]:
    # Of floats the key is no number of its own, but sorts alike: windows are then of equal rows, more or less.
    column = pl.col(TIME)
    if low == high:
        return []
    step: Callable[[int], int] = lambda number: low + (high - low) * number // _WINDOWS  # noqa: E731
    parts = []
    for number in range(_WINDOWS):
        start, end = step(number), step(number + 1)
        last = number == _WINDOWS - 1
        inside = (column >= start) & (column <= end if last else column < end)
        parts.append((f"{key.shown(start)} to {key.shown(end)}", inside))
    return _counted(file, DAY, parts)
