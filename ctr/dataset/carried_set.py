"""A feature set that was selected on an earlier dataset, carried onto a later one of the same fields.

The later vocabulary holds values that the set has never judged: they were rare or unseen when it was selected. What
becomes of them is stated, not guessed, and how many impressions show one is counted.
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.hashing import Keys
from ctr.dataset.row_arrays import FieldInfo
from ctr.dataset.store import Dataset

NewValues = Literal["drop", "keep"]
Bools = npt.NDArray[np.bool_]


class Unjudged(NamedTuple):
    """Shares of impressions that show a value which had no feature when a set was selected: any field, and each."""

    any: float
    fields: dict[str, float]


def carried(feature_set: FeatureSet, dataset: Dataset, new_values: NewValues) -> FeatureSet:
    """The set over the features of a later dataset; pairs interact as they did.

    What was judged stays as it was judged. Of a field that was kept whole, new values are kept as well: nothing in it
    was found to be worthless. Of all other fields they are kept or dropped, as stated.
    """
    key = ["key"] if dataset.hashed else ["field", "role", "value"]
    before = feature_set.features.select(*key, "gate", "kept")
    found = dataset.vocabulary.join(before, on=key, how="left", nulls_equal=True, maintain_order="left")
    new = found["kept"].is_null().to_numpy()
    kept = found["kept"].fill_null(False).to_numpy().copy()
    stays = np.ones(len(new), np.bool_) if new_values == "keep" else _whole(feature_set, dataset)
    kept[new & stays] = True
    provenance = {
        **{k: v for k, v in feature_set.provenance.items() if k not in ("dataset", "dropped_reads")},
        "selected_on": feature_set.provenance["dataset"],
        "new_values": new_values,
    }
    later = FeatureSet.of(
        dataset, kept, found["gate"].fill_null(0.0).to_numpy(), provenance, feature_set.dropped_reads
    )
    if feature_set.interactions is None:
        return later
    return later.with_interactions(feature_set.interactions)


def _whole(feature_set: FeatureSet, dataset: Dataset) -> Bools:
    """Which features (V,) of the later dataset belong to a field of which the set keeps every value."""
    counts = feature_set.counts()["fields"]
    names = [name for name, field in counts.items() if 0 < field["total"] == field["kept"]]
    return dataset.vocabulary["field"].is_in(names).to_numpy()


def unjudged(
    rows: pl.LazyFrame, dataset: Dataset, earlier: Dataset, weights: npt.NDArray[np.float64] | None = None
) -> Unjudged:
    """How many impressions of a later dataset show what an earlier one had no feature for.

    Missing values and scaled numbers always had one. Of a list, one such item is enough.

    Args:
        rows: of `dataset`, as `Dataset.scanned` gives them (N rows).
        weights: (N,) how many impressions each row stands for; None where all count alike.
    """
    known = None if dataset.hashed else _known_features(dataset, earlier)
    shares, together = dict[str, float](), np.zeros(0, np.bool_)
    for field in dataset.fields:
        if field.scaled or field.size:
            continue
        column = rows.select(field.name).collect()[field.name]
        found = _any_new(column, field, earlier, known)
        shares[field.name] = _share(found, weights)
        together = found | together if len(together) else found
    return Unjudged(_share(together, weights), shares)


def _any_new(column: pl.Series, field: FieldInfo, earlier: Dataset, known: Bools | None) -> Bools:
    """Of each row (N,), whether a field shows what the earlier dataset had no feature for."""
    flat = column.explode() if field.kind == "list" else column
    there = flat.is_not_null().to_numpy()
    ids, new = flat.drop_nulls().to_numpy(), np.zeros(len(flat), np.bool_)
    if known is None:
        new[there] = ~_has(earlier, ids.view(np.uint64))
    else:
        new[there] = ~known[ids + field.offset]
    if field.kind != "list":
        return new
    # Exploded, an empty list is one null, as a missing one is.
    lengths = column.list.len().fill_null(1).clip(lower_bound=1).to_numpy().astype(np.int64)
    return np.logical_or.reduceat(new, np.cumsum(lengths) - lengths) if len(new) else new


def _known_features(dataset: Dataset, earlier: Dataset) -> Bools:
    """Which features (V,) of a vocabulary the earlier dataset had as well; an unknown stands for values of neither."""
    named: Bools = (dataset.vocabulary["role"] != "unknown").to_numpy()
    return named & _has(earlier, dataset.keys)


def _has(dataset: Dataset, keys: Keys) -> Bools:
    found: Bools = dataset.numbered(keys, np.array(-1)) >= 0
    return found


def _share(found: Bools, weights: npt.NDArray[np.float64] | None) -> float:
    return float(np.average(found, weights=weights)) if len(found) else 0.0
