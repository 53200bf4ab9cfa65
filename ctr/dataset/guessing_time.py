"""The time of an unknown log's rows: which column holds it, and what hour and weekday it means."""

import re
from dataclasses import dataclass, field

import polars as pl

from ctr.dataset.expressions import inferred, typed
from ctr.dataset.split_keys import TimeKey
from ctr.dataset.split_spec import TimeSplit

_NAME = re.compile(r"time|date|hour|day|stamp|epoch|(^|_)(ts|at|dt)($|_)", re.IGNORECASE)
_NAMELESS = re.compile(r"column_\d+")
_OF_SOMETHING_ELSE = re.compile(r"birth|dob|release|expir|conver|since|click|install|purchase", re.IGNORECASE)
_YEARS = (1990, 2060)
_SECONDS = (631_152_000, 2_840_140_800)  # the same years since 1970
_TICKS = {1: "* 1000000", 1000: "* 1000", 10**6: "", 10**9: "// 1000"}  # to microseconds
_DIGITS = ("%Y%m%d%H%M%S", "%Y%m%d%H", "%y%m%d%H", "%Y%m%d")
_LENGTHS = {"%Y%m%d%H%M%S": 14, "%Y%m%d%H": 10, "%y%m%d%H": 8, "%Y%m%d": 8}
_DAY = 86_400


@dataclass(frozen=True)
class Time:
    """A column of times.

    Attributes:
        column: its name.
        says: what it holds, in words.
        derive: SQL of `hour` and `weekday`, where they vary enough to be learned.
        distinct: number of instants.
    """

    column: str
    says: str
    derive: dict[str, str] = field(default_factory=dict)
    distinct: int = 0


def guess_time(column: pl.Series) -> Time | None:
    """What a column of times holds; None where it holds none, or too many rows lack one."""
    if column.null_count() > 0.001 * len(column) or len(column) == 0:
        return None
    if column.dtype == pl.Date or isinstance(column.dtype, pl.Datetime):
        name = _quoted(column.name)
        hour = {} if column.dtype == pl.Date else {"hour": f"DATE_PART('hour', {name})"}
        parts = hour | {"weekday": f"DATE_PART('isodow', {name})"}
        return _time(column, column.cast(pl.Datetime("us")), "dates" if not hour else "times", parts)
    kind = inferred(column, 0.0)
    if kind == pl.String:
        return _text(column)
    if not kind.is_integer():
        return None
    values = typed(column, kind)
    if _NAME.search(column.name):
        return _digits(column, values) or _epoch(column, values)
    if _NAMELESS.fullmatch(column.name) and _is_recent(values):
        return _epoch(column, values)
    return None


def best(times: list[Time]) -> Time | None:
    """The column to split by: when the row was shown, not when something else happened."""
    own = [time for time in times if not _OF_SOMETHING_ELSE.search(time.column)]
    return max(own, key=lambda time: time.distinct, default=None)


def _time(column: pl.Series, instants: pl.Series, says: str, parts: dict[str, str]) -> Time:
    """Hour is worth a field from two days on, weekday from two weeks on."""
    low, high = instants.dt.epoch("s").min(), instants.dt.epoch("s").max()
    assert isinstance(low, int), "the column has no nulls"
    assert isinstance(high, int), "the column has no nulls"
    enough = {"hour": 2 * _DAY, "weekday": 14 * _DAY}
    derive = {name: text for name, text in parts.items() if high - low >= enough[name]}
    if "hour" in derive and instants.dt.hour().n_unique() < 2:
        del derive["hour"]
    return Time(column.name, says, derive, column.n_unique())


def _text(column: pl.Series) -> Time | None:
    """ISO dates and times. Their weekday would take a conversion that stops at the first bad cell: it is left out."""
    key = TimeKey(TimeSplit(by="time", column=column.name))
    looks = column.str.contains(r"^\s*\d{4}-?\d\d-?\d\d")
    if not looks.all() or key.parse(column.head(1000))[1] is not None:
        return None
    keys, broken = key.parse(column)
    if broken is not None:
        return None
    hour = column.str.contains(r"^\d{4}-\d\d-\d\d[T ]\d\d:").all()
    parts = {"hour": f"SUBSTR({_quoted(column.name)}, 12, 2)"} if hour else {}
    return _time(column, keys.cast(pl.Datetime("us")), "ISO text", parts)


def _digits(column: pl.Series, values: pl.Series) -> Time | None:
    """Dates written as one number, such as 14102100 (YYMMDDHH)."""
    texts = values.cast(pl.String)
    for form in _DIGITS:
        if not (texts.str.len_chars() == _LENGTHS[form]).all():
            continue
        # strptime refuses an hour without minutes.
        padded, full = (texts + "00", form + "%M") if form.endswith("%H") else (texts, form)
        instants = padded.str.strptime(pl.Datetime("us"), full, strict=False)
        if instants.null_count() or not instants.dt.year().is_between(*_YEARS).all():
            continue
        name, day = _quoted(column.name), form[:6]
        date = f"SUBSTR(CAST({name} AS VARCHAR), 1, {6 if day == '%y%m%d' else 8})"
        parts = {"weekday": f"DATE_PART('isodow', STRPTIME({date}, '{day}'))"}
        if form.endswith("%H"):
            parts["hour"] = f"{name} % 100"
        elif form.endswith("%S"):
            parts["hour"] = f"{name} // 10000 % 100"
        return _time(column, instants, "dates as " + re.sub(r"%(.)", _spelled, form), parts)
    return None


def _spelled(match: re.Match[str]) -> str:
    return {"Y": "YYYY", "y": "YY", "m": "MM", "d": "DD", "H": "HH", "M": "MM", "S": "SS"}[match[1]]


def _is_recent(values: pl.Series) -> bool:
    """Whether integers without a name are seconds of a few years: codes would be scattered more widely."""
    low, high = values.min(), values.max()
    if not (isinstance(low, int) and isinstance(high, int)) or len(values) < 100:
        return False
    return 0 < high - low < 5 * 365 * _DAY


def _epoch(column: pl.Series, values: pl.Series) -> Time | None:
    """Seconds, or thousandths down to billionths of them, since 1970."""
    for ticks, factor in _TICKS.items():
        if values.is_between(_SECONDS[0] * ticks, _SECONDS[1] * ticks).all():
            instants = (values // ticks * 10**6).cast(pl.Datetime("us"))
            moment = f"CAST({' '.join([_quoted(column.name), factor]).strip()} AS TIMESTAMP)"
            parts = {"hour": f"DATE_PART('hour', {moment})", "weekday": f"DATE_PART('isodow', {moment})"}
            unit = {1: "seconds", 1000: "milliseconds", 10**6: "microseconds", 10**9: "nanoseconds"}[ticks]
            return _time(column, instants, f"{unit} since 1970", parts)
    return None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
