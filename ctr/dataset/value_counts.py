"""How often each value of a field occurs in each part, and what it weighs and how it was clicked in train and valid."""

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.hashing import role_key
from ctr.dataset.store import MISSING, Dataset, FieldInfo, PartName

_BINS = 20  # of a scaled number, for each unit of its scale
NO_NUMBER = -(1 << 40)  # the bin of a number that is missing


def value_counts(dataset: Dataset, field: FieldInfo) -> pl.DataFrame:
    """One row per value: value; train, valid, test; train_weight, valid_weight; train_clicks, valid_clicks.

    The first three are numbers of rows (of lists, of items); the others what these rows, and the clicked ones of them,
    count by `row_weight`. Read column by column, so that memory grows with the values of one field, not with the rows.
    Labels and weights of test are not read.

    Args:
        field: not a vector field. A scaled number is counted in bins.
    """
    counted = pl.len().cast(pl.Int64)
    weight, clicked = pl.col("@weight"), pl.col("@label") == 1
    labelled: tuple[PartName, ...] = ("train", "valid")
    frames = [
        _values(dataset, part, field)
        .group_by("value")
        .agg(
            counted.alias(part),
            weight.sum().alias(f"{part}_weight"),
            weight.filter(clicked).sum().alias(f"{part}_clicks"),
        )
        for part in labelled
    ]
    frames.append(_values(dataset, "test", field).group_by("value").agg(counted.alias("test")))
    whole, *others = [frame.collect(engine="streaming") for frame in frames]
    for other in others:
        whole = whole.join(other, on="value", how="full", coalesce=True)
    columns = ("train", "valid", "test", "train_weight", "valid_weight", "train_clicks", "valid_clicks")
    return whole.select("value", *(pl.col(name).fill_null(0) for name in columns)).sort("value")


def row_weight(dataset: Dataset) -> pl.Expr:
    """How much a row of train or valid counts, 1 on average over train: its weight, and the negatives it stands for."""
    rate, manifest = dataset.schema.keep_rate, dataset.manifest
    sums = manifest["weights"] or {"sums": manifest["rows"], "positives": manifest["positives"]}
    total, clicks = float(sums["sums"]["train"]), float(sums["positives"]["train"])
    mean = (clicks + (total - clicks) / rate) / int(manifest["rows"]["train"])
    own = pl.lit(1.0) if dataset.schema.weight is None else pl.col("@weight").cast(pl.Float64)
    return (own * pl.when(pl.col("@label") == 0).then(1.0 / rate).otherwise(1.0) / mean).alias("@weight")


def value_of(dataset: Dataset, field: FieldInfo) -> pl.Expr:
    """What stands for a row's value of a field: its id or key, a list of them, or the bin of its number."""
    if not field.scaled:
        return pl.col(field.name)
    number = (pl.col(f"@value:{field.name}") * _BINS).round().cast(pl.Int64)
    return pl.when(pl.col(field.name) == missing_of(dataset, field)).then(NO_NUMBER).otherwise(number)


def bin_of(numbers: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """The bin (N,) of scaled numbers (N,), as `value_of` has it."""
    return np.rint(numbers.astype(np.float64) * _BINS).astype(np.int64)


def missing_of(dataset: Dataset, field: FieldInfo) -> int:
    """What stands for a missing value in the rows of a dataset."""
    if not dataset.hashed:
        return MISSING
    return int(np.uint64(role_key(field.shares or field.name, "missing")).view(np.int64))


def _values(dataset: Dataset, part: PartName, field: FieldInfo) -> pl.LazyFrame:
    told = [] if part == "test" else [pl.col("@label"), row_weight(dataset)]
    found = dataset.scanned(part, labels=bool(told)).select(value_of(dataset, field).alias("value"), *told)
    # A row without any item says nothing of items.
    return found.explode("value").drop_nulls("value") if field.kind == "list" else found
