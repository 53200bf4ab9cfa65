"""The cells of a column without the values that were dropped; needs neither the dataset nor a network."""

from collections.abc import Mapping
from typing import Any

import polars as pl

from ctr.dataset.encoding import FieldEncoder
from ctr.dataset.field_cells import prepare
from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.transforms import Scale
from ctr.estimators.field_specs import misfit

NO_FEATURES = pl.DataFrame(schema={"role": pl.String, "value": pl.String, "id": pl.Int32})


def kept_cells(
    spec: FieldSpec, entry: Mapping[str, Any], features: pl.DataFrame, column: pl.Series, dropped_value: Any
) -> pl.Series:
    """A column with `dropped_value` (null where it is None) for values that are dropped or were never seen.

    Values that were never seen stay where the field's unknown is among what is kept. Lists lose items instead; what is
    missing stays missing, and scaled numbers and vectors are kept or dropped as a whole.

    Args:
        spec: the field. entry: what the manifest says of it.
        features: kept features of the field whose values these are: role, value.

    Raises:
        DataError: a cell is no such thing as the field holds, or a column has a type that it cannot have.
    """
    cells = prepare(spec, column)
    if cells.broken is not None and cells.broken.any():
        raise misfit(column, cells)
    if spec.scaled or spec.kind == "vector":
        return column
    scale = Scale(**entry["scale"]) if entry.get("scale") else None
    numbered = features.with_columns(id=pl.int_range(1, pl.len() + 1, dtype=pl.Int32))
    encoder = FieldEncoder(spec, numbered, scale, entry.get("edges"))
    if spec.kind == "list":
        return _kept_items(spec, encoder, cells.values, column)
    dropped = pl.Series(encoder.encode(cells.values)[0] == 0) & cells.values.is_not_null()
    if not dropped.any():
        return column
    if isinstance(dropped_value, str) and column.dtype != pl.String:
        column = cells.values.cast(pl.String) if spec.kind == "categorical" else column.cast(pl.String)
    frame = pl.DataFrame([column, dropped.alias("@dropped")])
    token = pl.lit(dropped_value)
    return frame.select(pl.when("@dropped").then(token).otherwise(pl.col(column.name)).alias(column.name))[
        column.name
    ]


def _kept_items(spec: FieldSpec, encoder: FieldEncoder, lists: pl.Series, column: pl.Series) -> pl.Series:
    """Lists of canonical text, or text with the same separator; a list that loses all of its items is missing."""
    rows = pl.DataFrame([lists.alias("item")]).with_row_index("row").explode("item").drop_nulls("item")
    kept = rows.filter(pl.Series(encoder.look_up(rows["item"])) > 0)
    if kept.height == rows.height:
        return column
    found = pl.DataFrame({"row": pl.int_range(len(lists), eager=True).cast(pl.UInt32)}).join(
        kept.group_by("row", maintain_order=True).agg("item"), on="row", how="left", maintain_order="left"
    )["item"]
    if isinstance(column.dtype, (pl.List, pl.Array)):
        inner = column.dtype.inner
        return found.cast(pl.List(inner), strict=False).alias(column.name)
    assert spec.separator is not None, "text was cut at it"
    return found.list.join(spec.separator).alias(column.name)


def joint_cells(
    first: tuple[FieldSpec, Mapping[str, Any], pl.Series],
    second: tuple[FieldSpec, Mapping[str, Any], pl.Series],
) -> pl.Series:
    """The joint value of two columns as text, "a|b"; null where either is missing.

    Args:
        first, second: a field of single values out of a vocabulary, what the manifest says of it, and its cells.
    """
    texts = []
    for spec, entry, column in (first, second):
        encoder = FieldEncoder(spec, NO_FEATURES, None, entry.get("edges"))
        values = encoder.category(prepare(spec, column).values).cast(pl.String)
        # A value may hold what stands between the two.
        texts.append(
            values.str.replace_all("\\", "\\\\", literal=True).str.replace_all("|", "\\|", literal=True)
        )
    return texts[0] + "|" + texts[1]
