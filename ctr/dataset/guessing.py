"""What a column of an unknown log is good for: a field of some kind, the time to split by, or nothing."""

import re
from dataclasses import dataclass

import numpy as np
import polars as pl

from ctr.dataset import canonical
from ctr.dataset.expressions import inferred, typed

FEW = 50  # a column with no more distinct values is a category, whatever its type
BINS = 50
_TOLERANCE = 0.001  # share of cells that may be no number in a column of numbers
_CODE_NAME = re.compile(
    r"(^|[^a-z])(id|ids|ip|zip|code|hash|key|uuid|cat|index)([^a-z]|$)|_?id$", re.IGNORECASE
)
_CODE_FROM = 10**9  # amounts are smaller, hashes and row numbers of long logs are not


@dataclass(frozen=True)
class Guess:
    """What becomes of a column: the keys of its field, or None where it is left out; and why."""

    name: str
    keys: dict[str, str | int] | None
    why: str


def guess_field(column: pl.Series, clicked: pl.Series, *, complete: bool) -> Guess:
    """Judge one column.

    Args:
        column: its cells in train rows, as read.
        clicked: their labels, Boolean.
        complete: whether these are all train rows, and not a sample of them.
    """
    name, dtype = column.name, column.dtype
    if name.startswith("@"):
        return Guess(name, None, 'names that begin with "@" are reserved; give the column another name')
    if column.null_count() == len(column):
        return Guess(name, None, "empty in all rows")
    if isinstance(dtype, (pl.List, pl.Array)):
        if isinstance(dtype.inner, pl.DataType) and dtype.inner.is_nested():
            return Guess(name, None, "lists of lists or structs; derive what matters")
        return _list(column, None)
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object) or dtype.is_temporal():
        return Guess(name, None, f"{dtype}; derive what matters")
    text = canonical.text(column)
    if text.null_count() == len(text):
        return Guess(name, None, "empty in all rows")
    distinct = text.drop_nulls().n_unique()
    if distinct == 1 and text.null_count() == 0:
        return Guess(name, None, f"{shown(str(text[0]))} in all rows")
    if leak := _leak(text, clicked, distinct):
        return Guess(name, None, leak)
    if dtype == pl.String and text.str.contains("|", literal=True).sum() > 0.05 * text.count():
        return _list(column, "|")
    kind = inferred(column, _TOLERANCE)
    if kind.is_numeric() and distinct > FEW and not _is_code(name, text):
        return _numeric(typed(column, kind), text, distinct, complete)
    return _categorical(text, distinct, complete)


def shown(text: str) -> str:
    """A value in quotes, on one line and not too long."""
    line = " ".join(text.split())
    return f'"{line if len(line) <= 40 else line[:37] + "..."}"'


def _leak(text: pl.Series, clicked: pl.Series, distinct: int) -> str | None:
    """Why a column gives the answer away: known only after the click, it would be worthless in scoring."""
    if len(text) < 100 or clicked.all() or not clicked.any():
        return None
    for where, filled in (("1", clicked), ("0", ~clicked)):
        if (text.is_not_null() == filled).all():
            return f"filled exactly where the label is {where}: it gives the answer away"
    if distinct <= 0.1 * len(text):
        groups = pl.DataFrame([text.alias("value"), clicked.alias("clicked")]).group_by("value")
        rates = groups.agg(pl.col("clicked").mean())["clicked"]
        if rates.is_in([0.0, 1.0]).all():
            return "its values decide the label: it gives the answer away"
    return None


def _is_code(name: str, text: pl.Series) -> bool:
    """Whether integers are names of things: by the column's name, leading zeros, or sheer size."""
    zeros = text.str.contains(r"^0\d")
    return bool(_CODE_NAME.search(name)) or bool(zeros.any())


def _numeric(values: pl.Series, text: pl.Series, distinct: int, complete: bool) -> Guess:
    numbers = values.cast(pl.Float64).drop_nulls()
    numbers = numbers.filter(numbers.is_finite())
    low, middle, upper, high = (float(x) for x in np.quantile(numbers.to_numpy(), [0.0, 0.5, 0.9, 1.0]))
    name = values.name
    if values.dtype.is_integer():
        if high >= _CODE_FROM or distinct >= 0.99 * len(numbers):
            return _categorical(text, distinct, complete)
        if low >= -1000 and high > 0 and middle <= 0.1 * high and upper <= 0.5 * high:
            keys: dict[str, str | int] = {"kind": "numeric", "transform": "log_square"}
            return Guess(name, keys, f"amounts with a long tail, {low:g} to {high:g}")
        if len(numbers) >= 20 * distinct:
            return _categorical(text, distinct, complete)
    if (numbers == high).sum() > (1 - 2 / BINS) * len(numbers):
        # All inner bin edges would be the largest value, which leaves a single bin.
        return Guess(name, {"kind": "numeric", "transform": "standard"}, f"nearly always {high:g}")
    keys = {"kind": "numeric", "transform": "quantile", "bins": BINS}
    return Guess(name, keys, f"numbers from {low:g} to {high:g}")


def _categorical(text: pl.Series, distinct: int, complete: bool) -> Guess:
    name, rows = text.name, text.count()
    if distinct <= FEW and rows >= 2 * distinct:
        return Guess(name, {"kind": "categorical"}, f"{distinct} values")
    repeated = text.drop_nulls().value_counts()["count"]
    repeated = repeated.filter(repeated >= 2)
    # In a sample, values of a long log seem rarer than they are.
    if len(repeated) < 2 or (complete and repeated.sum() < 0.05 * rows):
        why = f"{distinct:,} values in {rows:,} rows: it names rows and says nothing of others"
        if (
            distinct == rows
            and text.str.contains(r"^\d+$").all()
            and text.cast(pl.Int128, strict=False).is_sorted()
        ):
            why += "; it ascends with the rows, and could order a split by time"
        return Guess(name, None, why)
    return Guess(name, {"kind": "categorical", "min_count": 2}, f"{distinct:,} values")


def _list(column: pl.Series, separator: str | None) -> Guess:
    lists = canonical.lists(column, separator, column.name)
    items = lists.explode().drop_nulls()
    distinct = items.n_unique()
    if distinct < 1 or (distinct == 1 and lists.null_count() == 0):
        return Guess(column.name, None, "the same list in all rows" if distinct else "empty in all rows")
    keys: dict[str, str | int] = {"kind": "list"}
    if separator is not None:
        keys["separator"] = separator
    if distinct > FEW:
        keys["min_count"] = 2
    per_row = len(items) / max(len(lists), 1)
    return Guess(column.name, keys, f"lists of {distinct:,} values, {per_row:.1f} per row")
