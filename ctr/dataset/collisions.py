"""Which hashed features share rows: within a field, where two values are confused, and across fields.

Coleman et al. 2023 (section 4) tell the two apart: a collision within a field confuses two values for good, one across
fields can be undone by what reads the vectors, for it has other weights for each field.
"""

import polars as pl

from ctr.dataset.layout import Layout
from ctr.dataset.placement import Placement

_SECOND_TABLE = 1 << 48  # added to row numbers of a second table, to tell them from those of the first


def reads(features: pl.DataFrame, placement: Placement) -> pl.DataFrame:
    """One line for each row that a feature reads: feature (number), field, count, row.

    Args:
        features: field, count and places, as `Layout.placed` gives them.
        placement: of the features.

    A block of ROBE counts as the row that it starts in: blocks that start in one row overlap, but they are not the only
    ones that do. The weights that `multi_hash` adds rows up by are no rows.
    """
    columns = [pl.col("places").arr.get(number).alias(str(number)) for number in range(placement.numbers)]
    wide = features.with_row_index("feature").select("feature", "field", "count", *columns)
    used = [str(number) for number in range(placement.numbers)]
    if placement.composition == "multi_hash":
        used.pop()
    if placement.composition == "quotient_remainder":
        wide = wide.with_columns(pl.col("1") + _SECOND_TABLE)
    if placement.composition == "robe":
        wide = wide.with_columns(pl.col(used) // placement.width)
    long = wide.unpivot(used, index=["feature", "field", "count"], value_name="row").drop("variable")
    return long.filter(pl.col("row") > 0).unique(["feature", "row"], maintain_order=True)


def field_collisions(layout: Layout, features: pl.DataFrame, long: pl.DataFrame) -> pl.DataFrame:
    """Per field, in the order of the layout, what its values share.

    values: features that train rows read, missing among them. rows: of the table that they are placed in. load: values
        on a row, those of other fields included. merged: share of the values that read just what another value of the
        field reads, and so cannot be told from it. within, across: share of the values of which a row is also read by
        another value of the field, by another field. own_noise, other_noise: of the train rows that a table row of the
        field learns from, the share with another value of the field, with another field; mean over train rows and
        lookups. The worst-hit fields have the largest own_noise.

    Args:
        features: of the layout, as `Layout.placed` gives them.
        long: what they read, as `reads` gives it.
    """
    placement = layout.placement
    assert placement is not None
    total, mine = pl.col("count").sum().over("row"), pl.col("count").sum().over("row", "field")
    everyone, own = pl.len().over("row"), pl.len().over("row", "field")
    shared = long.with_columns(
        (own > 1).alias("within"),
        (everyone > own).alias("across"),
        ((mine - pl.col("count")) / total).alias("own_noise"),
        ((total - mine) / total).alias("other_noise"),
    )
    by_feature = shared.group_by("feature", "field").agg(pl.col("within", "across").any())
    collided = by_feature.group_by("field").agg(pl.col("within", "across").mean())
    weight = pl.col("count").cast(pl.Float64)
    noise = shared.group_by("field", maintain_order=True).agg(
        (pl.col(name) * weight).sum() / weight.sum() for name in ("own_noise", "other_noise")
    )
    alike = features.select("field", (pl.len().over("field", "places") > 1).alias("merged"))
    merged = alike.group_by("field").agg(pl.len().alias("values"), pl.col("merged").mean())
    order = list(dict.fromkeys(layout.owners))
    stretches = [placement.stretches[placement.of(name)] for name in order]
    found = pl.DataFrame({"field": order, "rows": [own.rows for own in stretches]})
    found = found.join(merged, on="field", how="left", maintain_order="left")
    # Fields that share a stretch share its rows: what stands on them is all of theirs.
    start = pl.Series("start", [own.start for own in stretches])
    found = found.with_columns(start, pl.col("values").fill_null(0)).with_columns(
        (pl.col("values").sum().over("start") / pl.col("rows")).alias("load")
    )
    found = found.join(collided, on="field", how="left", maintain_order="left").join(
        noise, on="field", how="left", maintain_order="left"
    )
    names = ("merged", "within", "across", "own_noise", "other_noise")
    return found.select("field", "values", "rows", "load", pl.col(names).fill_null(0.0))
