"""What a frame's columns are as fields: by their types, unless stated."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from ctr.dataset.field_cells import Cells, prepare
from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.transforms import log_square, quantile_bin, quantile_edges
from ctr.errors import ConfigError, DataError, nearest
from ctr.settings import check

BINS = 50  # of a column of fractions


def field_specs(
    frame: pl.DataFrame, stated: Mapping[str, Mapping[str, Any]] | None, min_count: int
) -> list[FieldSpec]:
    """A field for each column, in their order.

    Text, categories, booleans, dates, whole numbers, and floats that are all whole numbers are categories; other floats
    are numbers, cut into bins of equal size; lists are lists, and arrays of a fixed size are vectors.

    Args:
        stated: keys of a field (`ctr.dataset.field_spec`) by column, in place of these.
        min_count: of categories and lists.

    Raises:
        ConfigError: a stated column that there is not, keys that a field does not have, or a name it cannot have.
    """
    stated = stated or {}
    for name in stated:
        if name not in frame.columns:
            raise ConfigError(f'fields: "{name}" is no column of X{nearest(name, frame.columns)}')
    specs = []
    for column in frame.get_columns():
        if column.name.startswith("@"):
            raise ConfigError(f'column "{column.name}": names that begin with "@" are reserved; rename it')
        own = dict(stated.get(column.name, {}))
        keys = own if "kind" in own else {**by_type(column), **own}
        if keys.get("kind", "categorical") in ("categorical", "list") and "shares" not in keys:
            keys = {"min_count": min_count, **keys}
        specs.append(check({"name": column.name, **keys}, FieldSpec, f'fields: column "{column.name}"'))
    return specs


def by_type(column: pl.Series) -> dict[str, Any]:
    """The keys of the field that a column is by its type."""
    dtype = column.dtype
    if isinstance(dtype, pl.Array) and isinstance(dtype.inner, pl.DataType) and dtype.inner.is_numeric():
        return {"kind": "vector", "size": dtype.size}
    if isinstance(dtype, (pl.List, pl.Array)):
        return {"kind": "list"}
    if (dtype.is_float() or isinstance(dtype, pl.Decimal)) and not _whole(column):
        return {"kind": "numeric", "transform": "quantile", "bins": BINS}
    return {"kind": "categorical"}


def _whole(column: pl.Series) -> bool:
    numbers = column.cast(pl.Float64)
    return bool((numbers.is_nan() | (numbers == numbers.floor())).fill_null(True).all())


def misfit(column: pl.Series, prepared: Cells) -> DataError:
    """What to say of cells that are no such thing as their field holds."""
    assert prepared.broken is not None
    shown = ", ".join(map(repr, column.filter(prepared.broken).head(3).to_list()))
    return DataError(f'column "{column.name}": {prepared.expected}, found {shown}')


def is_constant(spec: FieldSpec, column: pl.Series) -> bool:
    """Whether all rows of a column say the same, so that no field can be made of it.

    Raises:
        DataError: a cell is no such thing as the field holds, or the column has a type that it cannot have.
    """
    prepared = prepare(spec, column)
    if prepared.broken is not None and prepared.broken.any():
        raise misfit(column, prepared)
    cells = prepared.values
    if spec.kind == "vector":
        return cells.null_count() == len(cells)
    missing = cells.null_count()
    if spec.kind == "list":
        cells = cells.explode()
    elif spec.transform == "log_square":
        cells = log_square(cells)
    elif spec.transform == "quantile":
        assert spec.bins is not None
        cells = quantile_bin(
            cells, quantile_edges(cells.drop_nulls().to_numpy().astype(np.float64), spec.bins)
        )
    distinct = cells.drop_nulls().n_unique()
    return distinct == 0 or (distinct == 1 and missing == 0)
