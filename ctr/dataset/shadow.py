"""Shadow fields: copies of fields whose values were shuffled among the rows, so that they mean nothing.

A copy has the values of its field, as often, but says nothing of the row that it stands in. What a search keeps of it,
it keeps falsely: permutation as in Kursa and Rudnicki, "Feature Selection with the Boruta Package", JSS 2010; here in
one search, and value by value.
"""

import copy
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from ctr.dataset.batches import Ints, shuffled
from ctr.dataset.layout import Batch, Layout
from ctr.dataset.row_arrays import FieldInfo
from ctr.dataset.store import Dataset, Part
from ctr.errors import ConfigError

_SHUFFLES = 1 << 20  # rounds of the row shuffle that no epoch of a training reaches


@dataclass(frozen=True)
class Shadows:
    """Copies of some fields of a dataset.

    dataset: the same dataset with the copies as further fields, after its single-valued ones; its first `features`
    features are those of the real fields. copied: the fields copied, and copies: the copies, in the same order.
    """

    dataset: Dataset
    features: int
    copied: tuple[FieldInfo, ...]
    copies: tuple[FieldInfo, ...]
    seed: int


def shadows(dataset: Dataset, share: float, seed: int) -> Shadows:
    """Copy a share of the fields, at least one.

    Fields are drawn by their number of values, so that the values of the copies are like those of the log.

    Args:
        dataset: with a vocabulary.

    Raises:
        ConfigError: no field can be copied.
    """
    vocabulary = dataset.vocabulary
    held = dict(
        vocabulary.filter(pl.col("role") == "value", pl.col("count") > 0).group_by("field").len().iter_rows()
    )
    able = [
        field
        for field in dataset.fields
        if field.kind not in ("list", "vector")
        and not (field.scaled or field.shares or field.always or field.never)
        and held.get(field.name)
    ]
    if not able:
        raise ConfigError(
            f'selector.shadow: no field of "{dataset.name}" can be copied; expected one that is categorical, or '
            "numeric with log_square or quantile, and whose values selectors may drop"
        )
    number = min(len(able), max(1, round(share * len(dataset.fields))))
    sizes = np.array([held[field.name] for field in able], np.float64)
    drawn = np.random.default_rng(seed).choice(len(able), number, replace=False, p=sizes / sizes.sum())
    copied = tuple(able[place] for place in sorted(drawn))
    copies, offset = [], dataset.features
    for field in copied:
        copies.append(replace(field, name=f"{field.name} (shuffled)", offset=offset, serve=None))
        offset += field.features
    return Shadows(_with(dataset, copied, copies, offset), dataset.features, copied, tuple(copies), seed)


def _with(dataset: Dataset, copied: tuple[FieldInfo, ...], copies: list[FieldInfo], features: int) -> Dataset:
    names = zip(copied, copies, strict=True)
    own = [
        dataset.vocabulary.filter(pl.col("field") == field.name).with_columns(
            pl.lit(other.name).alias("field")
        )
        for field, other in names
    ]
    found = copy.copy(dataset)
    singles = [field for field in dataset.fields if field.kind != "list"]
    found.fields = [*singles, *copies, *(field for field in dataset.fields if field.kind == "list")]
    found.features = features
    found.__dict__.pop("keys", None)  # counted anew with the vocabulary, where they are asked for
    found.__dict__["vocabulary"] = pl.concat([dataset.vocabulary, *own])
    return found


class ShadowLayout(Layout):
    """What a search reads of each row: every feature, and those of the copies, from another row of the same part.

    The rows are shuffled anew for each field, part and seed, in constant memory; labels stay where they are.
    """

    def __init__(self, shadows: Shadows) -> None:
        super().__init__(shadows.dataset)
        self._shadows = shadows
        names = [field.name for field in shadows.dataset.fields]
        self._slots = [names.index(field.name) for field in shadows.copied]

    def gather(self, part: Part, index: Ints) -> Batch:
        """The rows `index` of `part`, in that order, with what the copies say in them."""
        batch = super().gather(part, index)
        columns = [np.asarray(batch.ids)]
        for slot, field, other in zip(self._slots, self._shadows.copied, self._shadows.copies, strict=True):
            rows = shuffled(index, len(part), self._shadows.seed, _SHUFFLES + slot)
            columns.append(self.numbers[part.ids[rows, slot] - field.offset + other.offset][:, None])
        values = batch.values
        if values is not None:
            values = np.hstack([values, np.ones((len(index), len(self._slots)), np.float32)])
        return replace(batch, ids=np.hstack(columns), values=values)
