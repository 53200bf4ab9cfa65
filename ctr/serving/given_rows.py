"""Rows as a program holds them - a dict, dicts, a Polars or pandas frame - as columns of cells."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ctr.dataset.odd_cells import UNUSABLE
from ctr.dataset.plain_cells import ABSENT
from ctr.errors import DataError, out_of_memory
from ctr.serving.python_cells import is_deep, series

Cells = pl.Series | Sequence[object]
Given = Any  # a dict, a sequence of dicts, a Polars frame or a pandas frame


class GivenRows(NamedTuple):
    """Rows by column: a Polars column, or Python values. height: how many there are."""

    columns: Mapping[str, Cells]
    height: int

    def part(self, start: int, rows: int) -> "GivenRows":
        """Up to `rows` of them from `start` on."""
        if start == 0 and rows >= self.height:
            return self
        columns = {name: cells[start : start + rows] for name, cells in self.columns.items()}
        return GivenRows(columns, min(rows, self.height - start))


def given_rows(given: Given, wanted: Sequence[str]) -> GivenRows:
    """Those of the columns `wanted` that are there; of dicts, those of the first one.

    Raises:
        DataError: rows of another kind, two columns of one name, or a dict without a key that the first one has.
    """
    if isinstance(given, pl.DataFrame):
        return GivenRows({name: given[name] for name in wanted if name in given.columns}, given.height)
    if isinstance(given, Mapping):
        return _of_dicts([given], wanted)
    if type(given).__module__.partition(".")[0] == "pandas" and hasattr(given, "columns"):
        return _of_pandas(given, wanted)
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        return _of_dicts(given, wanted)
    raise DataError(
        f"expected rows as a dict, a list of dicts, a Polars or a pandas frame, found {type(given).__name__}"
    )


def _of_dicts(rows: Sequence[Any], wanted: Sequence[str]) -> GivenRows:
    for number, row in enumerate(rows, 1):
        if not isinstance(row, Mapping):
            raise DataError(f"expected a dict for each row, found {type(row).__name__} as row {number}")
    there = [name for name in wanted if not rows or name in rows[0]]
    columns = {}
    for name in there:
        try:
            columns[name] = [row[name] for row in rows]
        except KeyError:
            number = next(number for number, row in enumerate(rows, 1) if name not in row)
            raise DataError(
                f'row {number} has no key "{name}", which row 1 has; state None where a value is missing'
            ) from None
    return GivenRows(columns, len(rows))


def _of_pandas(frame: Any, wanted: Sequence[str]) -> GivenRows:
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f'the frame has several columns of the name "{twice}"')
    return GivenRows(
        {name: _of_pandas_column(frame[name]) for name in wanted if name in frame.columns}, len(frame)
    )


def _of_pandas_column(column: Any) -> Cells:
    try:
        if column.dtype == object and any(map(is_deep, column)):
            raise TypeError
        return pl.Series(column.name, pl.from_pandas(column))
    except UNUSABLE as error:
        if out_of_memory(error):
            raise
        return [_plain(cell) for cell in column.tolist()]  # of several types: each counts alone


def _plain(cell: object) -> object:
    """A cell without what pandas and NumPy wrap around it."""
    if isinstance(cell, np.number | np.bool_):
        return cell.item()
    return None if type(cell).__name__ in ABSENT else cell


def as_frame(rows: GivenRows) -> pl.DataFrame | None:
    """The rows as one frame; None where a column has cells of several types, which no frame can hold as they are.

    Raises:
        DataError: a single row has a cell that no column can hold.
    """
    columns = []
    for name, cells in rows.columns.items():
        if isinstance(cells, pl.Series):
            columns.append(cells.alias(name))
            continue
        if rows.height > 1 and len(set(map(type, cells)) - {type(None)}) > 1:
            return None
        try:
            columns.append(series(f'column "{name}"', name, cells))
        except DataError:
            if rows.height > 1:
                return None
            raise
    return pl.DataFrame(columns)
