"""Counts of train rows -> the vocabulary: which values of a field get an id, and which id."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow.parquet as pq

Ids = npt.NDArray[np.int32]
UNKNOWN, MISSING, FIRST_VALUE = 0, 1, 2
SCHEMA = {
    "field": pl.String,
    "role": pl.String,
    "value": pl.String,
    "id": pl.Int32,
    "count": pl.Int64,
    "weighted_count": pl.Float64,
}


def vocabulary(
    field: str,
    counts: pl.DataFrame,
    min_count: int = 1,
    texts: Callable[[pl.Series], pl.Series] = lambda values: values,
) -> tuple[pl.DataFrame, Ids]:
    """A field's features: unknown 0, missing 1, then values by count descending, then by value ascending.

    Args:
        field: the field's name.
        counts: value (null where missing, each once), count and, where rows have weights, weighted_count.
        min_count: values in fewer train rows, weights and sampling counted, are unknown; so is what is in none.
        texts: what makes texts of values, where they are none; asked for those that get an id.

    Returns:
        The features, and the local id of each row of `counts`. The features: field, role (unknown, missing or value),
        value, id (local), count (train rows; in lists, occurrences) and weighted_count (the same where rows have no
        weights).
    """
    if "weighted_count" not in counts.columns:
        counts = counts.with_columns(pl.col("count").cast(pl.Float64).alias("weighted_count"))
    counts = counts.with_row_index("place")
    values = counts.filter(pl.col("value").is_not_null() & (pl.col("count") > 0))
    admitted = pl.col("weighted_count") >= min_count
    frequent = values.filter(admitted)
    frequent = frequent.with_columns(texts(frequent["value"]).alias("value"))
    frequent = frequent.sort(["count", "value"], descending=[True, False])
    sums = ("count", "weighted_count")
    rare = values.filter(~admitted).select(pl.col(sums).sum())
    missing = counts.filter(pl.col("value").is_null()).select(pl.col(sums).sum())
    own = pl.concat([rare, missing]).select(
        pl.Series("role", ["unknown", "missing"]), pl.lit(None, pl.String).alias("value"), *sums
    )
    both = pl.concat([own, frequent.select(pl.lit("value").alias("role"), "value", *sums)])
    numbered = both.with_row_index("id").with_columns(pl.lit(field).alias("field"))
    ids = np.full(counts.height, UNKNOWN, np.int32)
    ids[counts["value"].is_null().to_numpy()] = MISSING
    ids[frequent["place"].to_numpy()] = FIRST_VALUE + np.arange(frequent.height, dtype=np.int32)
    return numbered.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items()), ids


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


def vocabulary_writer(path: Path) -> pq.ParquetWriter:
    """A writer of frames of `SCHEMA`. No dictionary where all values differ, and none but differences of ids."""
    return pq.ParquetWriter(
        path,
        pl.DataFrame(schema=SCHEMA).to_arrow().schema,
        compression="zstd",
        use_dictionary=["field", "role", "count", "weighted_count"],
        column_encoding={"id": "DELTA_BINARY_PACKED"},
        write_statistics=["field", "role"],
    )
