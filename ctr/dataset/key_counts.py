"""The features of a dataset without a vocabulary: the distinct keys of its train rows.

They are counted when the dataset is first opened. Training and scoring do without; budgets are sized by them, and
selectors judge values one by one, so they need them numbered and counted.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.hashing import role_key
from ctr.dataset.row_arrays import Part
from ctr.dataset.vocabulary import FIRST_VALUE, SCHEMA

KEYED_SCHEMA = {**SCHEMA, "key": pl.UInt64}


def counted_keys(
    specs: Sequence[FieldSpec],
    columns: Mapping[str, int],
    lists: Mapping[str, int],
    train: Part,
    mean_weight: float = 1.0,
) -> pl.DataFrame:
    """A vocabulary with hexadecimal keys as values: field, role, value, id, count, weighted_count, key.

    Unknown (0) stands for whatever no train row holds, missing is 1, then come keys by count descending, then by key.

    Args:
        specs: the fields, in schema order.
        columns, lists: slot of each single-valued field, and number of each list field.
        train: its rows, with keys as ids.
        mean_weight: what their weights have been divided by.
    """
    weights = None
    if train.weights is not None or train.keep_rate < 1.0:
        rate = np.where(train.labels == 0, 1.0 / train.keep_rate, 1.0)
        weights = rate if train.weights is None else rate * mean_weight * train.weights
    frames = []
    for spec in specs:
        if spec.shares is not None:
            continue
        found: list[npt.NDArray[np.uint64]] = []
        heavy: list[npt.NDArray[np.floating[Any]]] = []
        for member in specs:
            if (member.shares or member.name) != spec.name:
                continue
            if member.name in columns:
                keys, each = np.asarray(train.ids[:, columns[member.name]]), weights
            else:
                flat, offsets = train.lists[lists[member.name]]
                keys = np.asarray(flat)
                each = None if weights is None else np.repeat(weights, np.diff(offsets))
            found.append(keys.view(np.uint64))
            if each is not None:
                heavy.append(each)
        frames.append(_counted(spec, np.concatenate(found), np.concatenate(heavy) if heavy else None))
    return pl.concat(frames)


def _counted(
    spec: FieldSpec, keys: npt.NDArray[np.uint64], weights: npt.NDArray[np.floating[Any]] | None
) -> pl.DataFrame:
    rows = pl.DataFrame({"key": keys})
    rows = rows.with_columns((pl.lit(1.0) if weights is None else pl.Series(weights)).alias("weight"))
    counts = rows.group_by("key").agg(
        pl.len().cast(pl.Int64).alias("count"), pl.col("weight").sum().alias("weighted_count")
    )
    roles = [("unknown", role_key(spec.name, "unknown")), ("missing", role_key(spec.name, "missing"))]
    own = pl.DataFrame(roles, schema={"role": pl.String, "key": pl.UInt64}, orient="row")
    own = own.join(counts, on="key", how="left", maintain_order="left").with_columns(
        pl.col("count").fill_null(0), pl.col("weighted_count").fill_null(0.0)
    )
    values = counts.filter(~pl.col("key").is_in([key for _, key in roles]))
    if (spec.scaled or spec.kind == "vector") and values.height == 0:
        number = pl.DataFrame({"key": [role_key(spec.name, "number")]}, schema={"key": pl.UInt64})
        values = number.with_columns(pl.lit(0, pl.Int64).alias("count"), pl.lit(0.0).alias("weighted_count"))
    values = values.sort(["count", "key"], descending=[True, False])
    both = pl.concat([own, values.select(pl.lit("value").alias("role"), "key", "count", "weighted_count")])
    shown = pl.Series("value", [f"{key:016x}" for key in both["key"].to_list()])
    frame = both.with_row_index("id").with_columns(pl.lit(spec.name).alias("field"), shown)
    frame = frame.with_columns(pl.when(pl.col("id") >= FIRST_VALUE).then("value").alias("value"))
    return frame.select(pl.col(name).cast(dtype) for name, dtype in KEYED_SCHEMA.items())
