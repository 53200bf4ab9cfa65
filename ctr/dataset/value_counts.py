"""How often each value of a field occurs in each part, and how often it was clicked in train and valid."""

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.hashing import role_key
from ctr.dataset.store import MISSING, Dataset, FieldInfo, PartName

_BINS = 20  # of a scaled number, for each unit of its scale
NO_NUMBER = -(1 << 40)  # the bin of a number that is missing


def value_counts(dataset: Dataset, field: FieldInfo) -> pl.DataFrame:
    """One row per value: value, train, valid, test (rows; of lists, items), train_clicks, valid_clicks.

    Read column by column, so that memory grows with the values of one field, not with the rows. The labels of test are
    not read.

    Args:
        field: not a vector field. A scaled number is counted in bins.
    """
    counted = pl.len().cast(pl.Int64)
    clicked = pl.col("@label").cast(pl.Int64).sum()
    labelled: tuple[PartName, ...] = ("train", "valid")
    frames = [
        _values(dataset, part, field)
        .group_by("value")
        .agg(counted.alias(part), clicked.alias(f"{part}_clicks"))
        for part in labelled
    ]
    frames.append(_values(dataset, "test", field).group_by("value").agg(counted.alias("test")))
    whole, *others = [frame.collect(engine="streaming") for frame in frames]
    for other in others:
        whole = whole.join(other, on="value", how="full", coalesce=True)
    columns = ("train", "valid", "test", "train_clicks", "valid_clicks")
    return whole.select("value", *(pl.col(name).fill_null(0) for name in columns)).sort("value")


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
    labels = [] if part == "test" else ["@label"]
    found = dataset.scanned(part, labels=bool(labels)).select(
        value_of(dataset, field).alias("value"), *labels
    )
    # A row without any item says nothing of items.
    return found.explode("value").drop_nulls("value") if field.kind == "list" else found
