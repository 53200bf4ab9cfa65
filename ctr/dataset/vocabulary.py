"""Counts of train rows -> the vocabulary: which values of a field get an id, and which id."""

from collections.abc import Iterable

import polars as pl

UNKNOWN, MISSING, FIRST_VALUE = 0, 1, 2
SCHEMA = {
    "field": pl.String,
    "role": pl.String,
    "value": pl.String,
    "id": pl.Int32,
    "count": pl.Int64,
    "weighted_count": pl.Float64,
}
_PENDING_ROWS = 4_000_000


def merged(counts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Sums counts per value over chunks; memory grows with the number of distinct values, not of chunks.

    Args:
        counts: frames of `value` (String, null where missing, each once), `count` (Int64) and, where rows have
            weights, `weighted_count` (Float64).
    """
    total = pl.DataFrame()
    pending: list[pl.DataFrame] = []
    rows = 0
    for frame in counts:
        pending.append(frame.filter(pl.col("count") > 0))
        rows += frame.height
        if rows > _PENDING_ROWS:
            total, pending, rows = _sum([total, *pending]), [], 0
    return _sum([total, *pending])


def _sum(frames: list[pl.DataFrame]) -> pl.DataFrame:
    there = [frame for frame in frames if frame.width]
    if len(there) == 1:
        return there[0]
    # In order, so that sums of floats are the same in every run, and files of counts as well.
    return pl.concat(there).group_by("value", maintain_order=True).agg(pl.all().sum())


def vocabulary(field: str, counts: pl.DataFrame, min_count: int = 1) -> pl.DataFrame:
    """A field's features: unknown 0, missing 1, then values by count descending, then by value ascending.

    Args:
        field: the field's name.
        counts: what `merged` returns.
        min_count: values in fewer train rows, weights and sampling counted, are unknown.

    Returns:
        field, role (unknown, missing or value), value, id (local), count (train rows; in lists, occurrences) and
        weighted_count (the same where rows have no weights).
    """
    if "weighted_count" not in counts.columns:
        counts = counts.with_columns(pl.col("count").cast(pl.Float64).alias("weighted_count"))
    values = counts.filter(pl.col("value").is_not_null())
    admitted = pl.col("weighted_count") >= min_count
    frequent = values.filter(admitted).sort(["count", "value"], descending=[True, False])
    sums = ("count", "weighted_count")
    rare = values.filter(~admitted).select(pl.col(sums).sum())
    missing = counts.filter(pl.col("value").is_null()).select(pl.col(sums).sum())
    own = pl.concat([rare, missing]).select(
        pl.Series("role", ["unknown", "missing"]), pl.lit(None, pl.String).alias("value"), *sums
    )
    both = pl.concat([own, frequent.select(pl.lit("value").alias("role"), "value", *sums)])
    numbered = both.with_row_index("id").with_columns(pl.lit(field).alias("field"))
    return numbered.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items())


def scaled_vocabulary(
    field: str, present: int, missing: int, weights: tuple[float, float] | None = None
) -> pl.DataFrame:
    """The three features of a scaled numeric or a vector field: unknown (never used), missing, the value itself.

    Args:
        weights: sums of the weights of the rows where it is present, and missing.
    """
    heavy, light = (present, missing) if weights is None else weights
    return pl.DataFrame(
        {
            "field": [field] * 3,
            "role": ["unknown", "missing", "value"],
            "value": [None] * 3,
            "id": [UNKNOWN, MISSING, FIRST_VALUE],
            "count": [0, missing, present],
            "weighted_count": [0.0, float(light), float(heavy)],
        },
        schema=SCHEMA,
    )
