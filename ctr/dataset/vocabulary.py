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
    *,
    in_text_order: bool = False,
) -> tuple[pl.DataFrame, Ids]:
    """A field's features: unknown 0, missing 1, then values by count descending, then by value ascending.

    Args:
        field: the field's name.
        counts: value (null where missing, each once), count and, where rows have weights, weighted_count.
        min_count: values in fewer train rows, weights and sampling counted, are unknown; so is what is in none.
        texts: what makes texts of values, where they are none; asked for those that get an id.
        in_text_order: whether values are numbers that sort as their texts do, which is cheaper to do.

    Returns:
        The features, and the local id of each row of `counts`. The features: field, role (unknown, missing or value),
        value, id (local), count (train rows; in lists, occurrences) and weighted_count (the same where rows have no
        weights).
    """
    count = counts["count"].to_numpy()
    heavy = (
        counts["weighted_count"].to_numpy()
        if "weighted_count" in counts.columns
        else count.astype(np.float64)
    )
    missing = counts["value"].is_null().to_numpy()
    there = ~missing & (count > 0)
    admitted = there & (heavy >= min_count)
    rare = there & ~admitted
    places = np.flatnonzero(admitted)
    values = counts["value"].gather(places)
    values = values if in_text_order else texts(values)
    by_text = values.to_numpy().argsort() if in_text_order else values.arg_sort().to_numpy()
    order = by_text[_descending(count[places][by_text])]
    places, values = places[order], values.gather(order)
    ids = np.full(counts.height, UNKNOWN, np.int32)
    ids[missing] = MISSING
    ids[places] = np.arange(FIRST_VALUE, FIRST_VALUE + len(places), dtype=np.int32)
    size = FIRST_VALUE + len(places)
    own = pl.DataFrame(
        {
            "field": pl.repeat(field, size, eager=True),
            "role": pl.Series(["unknown", "missing"]).extend(pl.repeat("value", len(places), eager=True)),
            "value": pl.Series([None, None], dtype=pl.String).extend(
                texts(values) if in_text_order else values
            ),
            "id": np.arange(size, dtype=np.int32),
            "count": np.concatenate(([count[rare].sum(), count[missing].sum()], count[places])),
            "weighted_count": np.concatenate(([heavy[rare].sum(), heavy[missing].sum()], heavy[places])),
        },
        schema_overrides=SCHEMA,
    )
    return own, ids


def _descending(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The order of descending counts; what is equal stays in its order."""
    most = np.iinfo(np.uint16).max  # NumPy sorts numbers of 16 bits by their digits; few counts are larger
    order = np.argsort((most - np.minimum(counts, most)).astype(np.uint16), kind="stable")
    large = order[: np.count_nonzero(counts >= most)]
    large[:] = large[np.argsort(-counts[large], kind="stable")]
    return order


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
