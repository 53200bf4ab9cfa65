"""Polars SQL expressions of the schema, and the types that text columns take in them."""

import re
from collections.abc import Iterable

import polars as pl

from ctr.dataset.bad_rows import QuotingError
from ctr.dataset.expression_limits import CELL, Growth, growth
from ctr.errors import DataError, nearest

_TEXT = (pl.String, pl.Binary)
_AT_ONCE = 128 << 20  # bytes of text that may come of rows that are evaluated together
_SHOWN = 300  # characters of an expression, and of what Polars says of it, in messages


class Expression:
    """One column or expression of the schema, such as `label`, `where` or an entry of `derive`.

    Args:
        key: the schema's key, for messages.
        text: a column's name, or a Polars SQL expression.
        columns: the columns that it may name.

    Raises:
        DataError: no valid SQL, it names an unknown column or function, or it asks for more than
            `ctr.dataset.expression_limits` allows.
    """

    def __init__(self, key: str, text: str, columns: Iterable[str]) -> None:
        known = list(columns)
        self.key, self.text = key, text
        self.is_column = text in known
        if self.is_column:
            self._expression, self.roots, self._growth = pl.col(text), [text], Growth(1, 1, 0)
            return
        self._growth = growth(f"schema {key} = {_shown(text)}", text)
        try:
            self._expression = pl.sql_expr(text)
            self.roots = roots(text)
        except pl.exceptions.PolarsError as error:
            raise DataError(f"{self}: {one_line(error)}{_hint(text, error, known)}") from None
        for name in self.roots:
            if name not in known:
                raise DataError(
                    f'{self}: "{name}" is no column of the input and not derived{nearest(name, known)}'
                )

    def __str__(self) -> str:
        return f"schema {self.key} = {_shown(self.text)}"

    def evaluate(self, frame: pl.DataFrame) -> pl.Series:
        """Its value for each row, shape (rows,).

        Raises:
            DataError: Polars cannot evaluate it, or a cell of text is too long.
        """
        if self.is_column:
            return frame[self.text]
        bound = max(1, self._growth.bytes(_longest(frame.select(self.roots))))
        if bound > _AT_ONCE:
            raise DataError(
                f"{self}: text of up to {bound} bytes in a cell could come of it, at most {_AT_ONCE} may"
            )
        rows = max(1, _AT_ONCE // bound)
        parts = [self._evaluated(frame.slice(at, rows)) for at in range(0, max(1, frame.height), rows)]
        return parts[0] if len(parts) == 1 else pl.concat(parts)

    def _evaluated(self, frame: pl.DataFrame) -> pl.Series:
        try:
            found = frame.with_columns(self._expression.alias("@value"))["@value"]
        except pl.exceptions.PolarsError as error:
            reason = one_line(error)
            # Polars lists the cells that do not convert.
            raise QuotingError(f"{self}: {reason}", f"{self}: {reason.partition(': [')[0]}") from None
        longest = _longest(found.to_frame()) if found.dtype in _TEXT else 0
        if longest > CELL:
            raise DataError(f"{self}: expected at most {CELL} bytes of text in a cell, found {longest}")
        return found

    def check_row_wise(self, frame: pl.DataFrame) -> None:
        """Refuses what depends on other rows, as AVG(x) does: a chunk is no meaningful set of rows.

        Raises:
            DataError: a row's value changes with the rows beside it.
        """
        half = frame.height // 2
        if half == 0:
            return
        parts = pl.concat([self.evaluate(frame.head(half)), self.evaluate(frame.tail(frame.height - half))])
        if not self.evaluate(frame).equals(parts):
            raise DataError(
                f"{self}: a row must be computed from its own columns, without aggregates or windows"
            )


def roots(text: str) -> list[str]:
    """The columns that a column name or valid SQL expression names; a name that is no SQL names itself."""
    try:
        growth("expression", text)
        return sorted(set(pl.sql_expr(text).meta.root_names()))
    except (DataError, pl.exceptions.PolarsError):
        return [text]


def _longest(frame: pl.DataFrame) -> int:
    """Bytes of the longest cell of text."""
    text = [column.cast(pl.Binary).bin.size().max() for column in frame if column.dtype in _TEXT]
    return max((size for size in text if isinstance(size, int)), default=0)


def _shown(text: str) -> str:
    return f'"{text}"' if len(text) <= _SHOWN else f'"{text[:_SHOWN]}..."'


def one_line(error: BaseException) -> str:
    """The first line of an error's message, without an end that nobody reads."""
    return (str(error).splitlines() or [type(error).__name__])[0].strip()[:_SHOWN]


def _hint(text: str, error: BaseException, known: list[str]) -> str:
    function = re.search(r"unsupported function '(.+?)'", str(error))
    if function and function[1] in known:
        return f"; the column of that name is written '\"{function[1]}\"', in double quotes"
    # A wrong name with blanks or dashes fails as SQL before it fails as a name.
    hint = "" if re.search(r"[<>=()+*/']", text) else nearest(text, known)
    return hint if "nearest" in hint else ""


def inferred(values: pl.Series, tolerance: float) -> pl.DataType:
    """The type that a text column has in expressions: Int64, else Float64, else Boolean, else String.

    Up to a share `tolerance` of the cells may not fit; they are bad rows then, and not the type's fault.
    """
    if values.dtype != pl.String:
        return values.dtype
    cells = values.drop_nulls()
    if len(cells) == 0:
        return pl.String()
    for dtype in (pl.Int64(), pl.Float64(), pl.Boolean()):
        fitting = typed(cells, dtype).count()
        if fitting > 0 and fitting >= (1 - tolerance) * len(cells):
            return dtype
    return pl.String()


def typed(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    """`values` as `dtype`; null where a cell does not fit."""
    if values.dtype == dtype:
        return values
    if values.dtype == pl.String and dtype != pl.String:
        values = values.str.strip_chars()
        if dtype == pl.Boolean:
            return values.replace_strict(
                ["true", "false"], [True, False], default=None, return_dtype=pl.Boolean
            )
        if isinstance(dtype, pl.Datetime):
            return values.str.to_datetime(time_unit=dtype.time_unit, time_zone=dtype.time_zone, strict=False)
    return values.cast(dtype, strict=False)


def dtype_text(dtype: pl.DataType) -> str:
    """A type's name for the manifest; `parse_dtype` reads it back."""
    if isinstance(dtype, pl.Datetime):
        return (
            f"Datetime({dtype.time_unit}, {dtype.time_zone})"
            if dtype.time_zone
            else f"Datetime({dtype.time_unit})"
        )
    if isinstance(dtype, pl.List):
        return f"List({dtype_text(dtype.inner)})"  # type: ignore[arg-type]  # the inner type of an instance is an instance
    return str(dtype)


def parse_dtype(text: str) -> pl.DataType:
    """The type that `dtype_text` wrote.

    Raises:
        DataError: no type that an expression's column can have.
    """
    match = re.fullmatch(r"(\w+)(?:\((.*)\))?", text)
    name, inner = (match[1], match[2]) if match else ("", None)
    if name == "Datetime" and inner:
        unit, _, zone = inner.partition(", ")
        return pl.Datetime(unit, zone or None)  # type: ignore[arg-type]  # "us", "ms" or "ns"
    if name == "List" and inner:
        return pl.List(parse_dtype(inner))
    if name == "Duration":
        return pl.Duration("us")
    found = getattr(pl, name, None)
    if not (isinstance(found, type) and issubclass(found, pl.DataType)):
        raise DataError(f'unknown column type "{text}"')
    return found()
