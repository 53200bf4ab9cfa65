"""What ingesting a log takes by a short Polars script, as one writes it where there is no pipeline.

It gives the ids that `ctr.dataset.ingest` gives for the presets' logs: numbers by their log squares, values by their
counts in train, rare ones together. It checks no cell, keeps all rows in memory and cannot be asked twice.
"""

import math
from pathlib import Path

import polars as pl

from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.schema import Schema

_UNKNOWN, _MISSING, _FIRST = 0, 1, 2


def by_script(schema: Schema, log: Path, folder: Path, valid: float = 0.1, test: float = 0.1) -> None:
    """Write `train`, `valid`, `test` and `vocabulary` as parquet files into `folder`."""
    folder.mkdir()
    rows = pl.read_csv(log, separator=schema.read.separator, has_header=False, infer_schema=False)
    rows.columns = list(schema.read.columns or rows.columns)
    rows = rows.with_columns(_log_square(field.name) for field in schema.fields if field.kind == "numeric")
    bounds = [0, *(math.floor(rows.height * share) for share in (1 - valid - test, 1 - test)), rows.height]
    rows = rows.sample(fraction=1.0, shuffle=True, seed=0)
    train = rows.slice(0, bounds[1])
    vocabulary = []
    for field in schema.fields:
        known = _counted(train[field.name], field)
        values = rows.select(field.name)
        ids = values.join(known, left_on=field.name, right_on="value", how="left", maintain_order="left")[
            "id"
        ]
        ids = ids.fill_null(_UNKNOWN).set(values[field.name].is_null(), _MISSING)
        rows = rows.with_columns(ids.alias(field.name))
        vocabulary.append(known.select(pl.lit(field.name).alias("field"), "value", "id", "count"))
    pl.concat(vocabulary).write_parquet(folder / "vocabulary.parquet")
    for part, start, end in zip(("train", "valid", "test"), bounds, bounds[1:], strict=False):
        rows.slice(start, end - start).write_parquet(folder / f"{part}.parquet")


def _log_square(name: str) -> pl.Expr:
    number = pl.col(name).cast(pl.Float64)
    squared = pl.when(number > 2).then((number.log() ** 2).floor()).otherwise(number)
    return squared.cast(pl.Int64).cast(pl.String).alias(name)


def _counted(values: pl.Series, field: FieldSpec) -> pl.DataFrame:
    """value, count and id of the values that are frequent enough, by count descending, then by value."""
    counts = values.drop_nulls().alias("value").value_counts()
    frequent = counts.filter(pl.col("count") >= field.min_count)
    ordered = frequent.sort(["count", "value"], descending=[True, False])
    return ordered.with_row_index("id", offset=_FIRST).with_columns(pl.col("id").cast(pl.Int32))
