"""Counts of train rows -> the vocabulary: which values of a field get an id, and which id."""

from collections.abc import Iterable

import polars as pl

UNKNOWN, MISSING, FIRST_VALUE = 0, 1, 2
SCHEMA = {"field": pl.String, "role": pl.String, "value": pl.String, "id": pl.Int32, "count": pl.Int64}
_PENDING_ROWS = 4_000_000


def merged(counts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Sums counts per value over chunks; memory grows with the number of distinct values, not of chunks.

    Args:
        counts: frames of `value` (String, null where missing) and `count` (Int64).
    """
    total = pl.DataFrame(schema={"value": pl.String, "count": pl.Int64})
    pending: list[pl.DataFrame] = []
    rows = 0
    for frame in counts:
        pending.append(frame.filter(pl.col("count") > 0))
        rows += frame.height
        if rows > _PENDING_ROWS:
            total, pending, rows = _sum([total, *pending]), [], 0
    return _sum([total, *pending])


def _sum(frames: list[pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(frames).group_by("value").agg(pl.col("count").sum())


def vocabulary(field: str, counts: pl.DataFrame, min_count: int = 1) -> pl.DataFrame:
    """A field's features: unknown 0, missing 1, then values by count descending, then by value ascending.

    Args:
        field: the field's name.
        counts: what `merged` returns.
        min_count: values in fewer train rows are unknown.

    Returns:
        field, role (unknown, missing or value), value, id (local) and count (train rows; in lists, occurrences).
    """
    values = counts.filter(pl.col("value").is_not_null())
    frequent = values.filter(pl.col("count") >= min_count).sort(["count", "value"], descending=[True, False])
    rare = int(values["count"].sum()) - int(frequent["count"].sum())
    missing = int(counts.filter(pl.col("value").is_null())["count"].sum())
    own = pl.DataFrame(
        {"role": ["unknown", "missing"], "value": [None, None], "count": [rare, missing]},
        schema={"role": pl.String, "value": pl.String, "count": pl.Int64},
    )
    both = pl.concat([own, frequent.select(pl.lit("value").alias("role"), "value", "count")])
    numbered = both.with_row_index("id").with_columns(pl.lit(field).alias("field"))
    return numbered.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())


def scaled_vocabulary(field: str, present: int, missing: int) -> pl.DataFrame:
    """The three features of a scaled numeric field: unknown (never used), missing, and the value itself."""
    return pl.DataFrame(
        {
            "field": [field] * 3,
            "role": ["unknown", "missing", "value"],
            "value": [None] * 3,
            "id": [UNKNOWN, MISSING, FIRST_VALUE],
            "count": [0, missing, present],
        },
        schema=SCHEMA,
    )
