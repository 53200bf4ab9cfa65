"""What a server logged beside raw rows - ids, numbers, scores - against what the bundle makes of the same rows.

    probability     the score
    @id:FIELD       the id of a field; of a list field a list of ids
    @value:FIELD    the number of a scaled field; @vector:FIELD those of a vector

Any of them may be left out. Ids are those of docs/encoding.md.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from ctr.dataset.bad_rows import WITHHELD
from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.preparation import Prepared
from ctr.errors import DataError, nearest

PROBABILITY = "probability"
_NUMBERS = {"value": 1e-6, "vector": 1e-6}  # by how much numbers may differ, relative to one


class Logged(NamedTuple):
    """A logged column: what it holds of which field ("id", "value", "vector")."""

    column: str
    what: str
    field: FieldSpec


class Difference(NamedTuple):
    """The first cell of a column that differs. row: from 0, in its chunk."""

    row: int
    field: str
    cell: Any
    expected: Any
    found: Any

    def told(self, file: str, first: int) -> str:
        """In words. first: number of the chunk's first row in `file`, from 0."""
        shown = "" if self.cell is None else f' (its cell is "{self.cell}")'
        return (
            f'file "{file}", row {first + self.row + 1}, {self.field}{shown}: expected {self.expected} as the bundle '
            f"has it, found {self.found} in the log"
        )


def logged_columns(names: Iterable[str], fields: Iterable[FieldSpec]) -> list[Logged]:
    """The logged columns of fields among the columns of a file.

    Raises:
        DataError: there is neither one nor a probability, or one is of no field.
    """
    names, own = list(names), {field.name: field for field in fields}
    order, found = list(own), []
    for name in names:
        what, _, field = name.removeprefix("@").partition(":")
        if not name.startswith("@") or what not in ("id", "value", "vector"):
            continue
        if field not in own:
            raise DataError(f'column "{name}": the bundle has no field "{field}"{nearest(field, own)}')
        found.append(Logged(name, what, own[field]))
    if not found and PROBABILITY not in names:
        raise DataError(f'expected a column "{PROBABILITY}" or columns such as "@id:FIELD", found neither')
    return sorted(found, key=lambda logged: order.index(logged.field.name))


def differences(
    logged: Iterable[Logged], frame: pl.DataFrame, prepared: Prepared, encoded: pl.DataFrame, personal: bool
) -> Iterator[Difference]:
    """The first difference of each logged column.

    Args:
        logged: the columns. frame: that holds them.
        prepared, encoded: the same rows, by the bundle.
        personal: whether cells must not be shown.
    """
    for column in logged:
        key = column.field.name if column.what == "id" else f"@{column.what}:{column.field.name}"
        if key not in encoded.columns:
            continue
        expected, found = _alike(encoded[key], frame[column.column])
        at = _first(expected, found, _NUMBERS.get(column.what))
        if at is not None:
            cell = WITHHELD if personal else prepared.frame[column.field.name][at]
            shown = cell.to_list() if isinstance(cell, pl.Series) else cell
            what = f'field "{column.field.name}"' + ("" if column.what == "id" else f", {column.what}")
            yield Difference(at, what, shown, _plain(expected[at]), _plain(found[at]))


def _alike(expected: pl.Series, found: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Both in one type; what the log holds is null where it is no such thing.

    Raises:
        DataError: a list where there should be none, or the other way round.
    """
    kind: pl.DataType = pl.Float64() if expected.name.startswith("@") else pl.Int64()
    if isinstance(expected.dtype, pl.List | pl.Array):
        kind = pl.List(kind)
    try:
        return expected.cast(kind), found.cast(kind, strict=False)
    except pl.exceptions.PolarsError:
        raise DataError(f'column "{found.name}": expected {kind}, found {found.dtype}') from None


def _first(expected: pl.Series, found: pl.Series, tolerance: float | None) -> int | None:
    """The first row in which they differ; None where they are alike."""
    if tolerance is None:
        wanted, there = expected.to_list(), found.to_list()
        return next((row for row, (a, b) in enumerate(zip(wanted, there, strict=True)) if a != b), None)
    for row, (one, other) in enumerate(zip(expected.to_list(), found.to_list(), strict=True)):
        if other is None or np.shape(one) != np.shape(other):
            return row
        if not np.allclose(np.asarray(other, np.float64), one, rtol=tolerance, atol=tolerance):
            return row
    return None


def _plain(value: Any) -> Any:
    return value.to_list() if isinstance(value, pl.Series) else value
