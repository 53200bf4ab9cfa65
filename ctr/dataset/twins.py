"""Rows that say the same in every field, within and across parts."""

from dataclasses import dataclass

import polars as pl

from ctr.dataset.store import Dataset

_KEYS = 4_000_000  # of train rows, looked at; of a longer log those whose keys fall into a share of all keys
_SMALL = 2  # train rows


@dataclass(frozen=True)
class Twins:
    """Shares of rows that have a twin: another row with the same value in every field.

    train: of train rows, in train. valid, test: of their rows, in train. test_in_valid: of test rows, in valid.
    clicked: clicked valid rows that have one or two twins in train. agreement: mean share of these twins that are
    clicked as well; None where there are none.
    rate: share of train rows that are clicked.
    """

    train: float
    valid: float
    test: float
    test_in_valid: float
    clicked: int
    agreement: float | None
    rate: float


def twins(dataset: Dataset) -> Twins:
    """Compare the rows of all parts by 64-bit keys of what they say; the labels of test are not read."""
    step = -(-dataset.manifest["rows"]["train"] // _KEYS)
    clicks = pl.col("@label").cast(pl.Int64).sum().alias("clicks")
    train = _keyed(dataset.scanned("train", labels=True), dataset, step).group_by("key").agg(pl.len(), clicks)
    groups = train.collect(engine="streaming")
    valid = _keyed(dataset.scanned("valid", labels=True), dataset, step).collect(engine="streaming")
    test = _keyed(dataset.scanned("test"), dataset, step).collect(engine="streaming")
    sizes = groups["len"].cast(pl.Int64)
    close = valid.filter(pl.col("@label") == 1).join(groups.filter(pl.col("len") <= _SMALL), on="key")
    return Twins(
        train=_share(int(sizes.filter(sizes > 1).sum()), int(sizes.sum())),
        valid=_found(valid, groups),
        test=_found(test, groups),
        test_in_valid=_found(test, valid),
        clicked=close.height,
        agreement=float((close["clicks"] / close["len"]).sum() / close.height) if close.height else None,
        rate=_share(int(groups["clicks"].sum()), int(sizes.sum())),
    )


def _keyed(frame: pl.LazyFrame, dataset: Dataset, step: int) -> pl.LazyFrame:
    """key, and @label where there are labels; of the rows whose keys `step` divides."""
    names = frame.collect_schema()
    columns = [name for name in names if not name.startswith("@") or name.startswith(("@value:", "@vector:"))]
    parts = []
    for number, name in enumerate(columns):
        value = pl.col(name)
        if isinstance(names[name], pl.List | pl.Array):
            items = value.list if isinstance(names[name], pl.List) else value.arr.to_list().list
            value = items.eval(pl.element().hash(0) // 2**20).list.sum()
        parts.append(value.hash(number + 1) // 2**12)  # so that sums of a thousand fields stay below 2^64
    key = pl.sum_horizontal(parts).hash(0).alias("key")
    labels = [name for name in names if name == "@label"]
    return frame.select(key, *labels).filter(pl.col("key") % step == 0)


def _found(rows: pl.DataFrame, among: pl.DataFrame) -> float:
    return _share(rows.join(among, on="key", how="semi").height, rows.height)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
