"""A field's cells in canonical form: what is counted, looked up or scaled, and which cells are no such thing."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import polars as pl

from ctr.dataset import canonical
from ctr.dataset.field_spec import Cell, FieldSpec
from ctr.dataset.odd_cells import told
from ctr.errors import DataError


class Cells(NamedTuple):
    """A prepared column.

    values: String (categorical), Float64 (numeric), List(String) or Array(Float32) (vector), null where missing.
    broken: which cells break the schema; None where none can. expected: what they should have been.
    truncated: lists that were cut off at `max_length`.
    """

    values: pl.Series
    broken: pl.Series | None = None
    expected: str = ""
    truncated: int = 0


def prepare(field: FieldSpec, values: pl.Series, missing_values: Sequence[Cell] = ()) -> Cells:
    """Prepare a column.

    Args:
        field: what the schema says of it.
        values: its cells, raw or derived.
        missing_values: what means "missing" in every field of the schema.

    Raises:
        ConfigError, DataError: the column has a type that the field cannot have.
    """
    with told(f'field "{field.name}"', values.dtype):
        return _prepared(field, values, canonical.texts([*missing_values, *field.missing_values]))


def _prepared(field: FieldSpec, values: pl.Series, missing: Collection[str]) -> Cells:
    if field.kind == "vector":
        assert field.size is not None, "the schema has checked it"
        found, broken = canonical.vectors(values, field.size, field.separator, field.name)
        return Cells(found.alias(field.name), broken, f"expected {field.size} finite numbers")
    if field.kind == "numeric":
        if missing and values.dtype == pl.String:
            values = canonical.without(values.str.strip_chars(), missing)
        found, broken = canonical.numbers(values)
        if missing:
            found = found.set(canonical.text(found).is_in(list(missing)).fill_null(False), None)
        return Cells(found.alias(field.name), broken, "expected a finite number")
    if field.kind == "list":
        found = canonical.lists(values, field.separator, field.name, missing).alias(field.name)
        if field.max_length is None:
            return Cells(found)
        longer = int((found.list.len() > field.max_length).sum())
        return Cells(found.list.head(field.max_length) if longer else found, truncated=longer)
    if isinstance(values.dtype, (pl.List, pl.Array)):
        raise DataError(f'field "{field.name}": found lists; kind = "list" takes them')
    return Cells(canonical.without(canonical.text(values), missing).alias(field.name))


def served(field: FieldSpec, rows: int) -> pl.Series:
    """The column of a bias field at scoring: its `serve_value` in every row.

    Raises:
        DataError: the value is no number, and the field is numeric.
    """
    cells = prepare(field, pl.Series(field.name, [field.serve_value]))
    if cells.broken is not None and cells.broken[0]:
        raise DataError(
            f'field "{field.name}": serve_value = "{field.serve_value}": {cells.expected}, as in the log'
        )
    return cells.values.new_from_index(0, rows)
