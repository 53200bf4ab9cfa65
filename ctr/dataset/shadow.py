"""Shadow fields: copies of fields whose values were shuffled among the rows, so that they mean nothing.

A copy has the values of its field, as often, but says nothing of the row that it stands in. What a search keeps of it,
it keeps falsely: permutation as in Kursa and Rudnicki, "Feature Selection with the Boruta Package", JSS 2010; here in
one search, and value by value.
"""

import copy
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.batches import Ints, shuffled
from ctr.dataset.encoding import Numbers
from ctr.dataset.hashing import Keys, role_key
from ctr.dataset.layout import Layout
from ctr.dataset.placement import Placement
from ctr.dataset.row_arrays import FieldInfo
from ctr.dataset.split_keys import mixed
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
    own = []
    for field, other in zip(copied, copies, strict=True):
        same = dataset.vocabulary.filter(pl.col("field") == field.name)
        if dataset.hashed:
            same = same.with_columns(pl.Series("key", _keys_of_copy(same["key"].to_numpy(), other)))
        own.append(same.with_columns(pl.lit(other.name).alias("field")))
    found = copy.copy(dataset)
    singles = [field for field in dataset.fields if field.kind != "list"]
    found.fields = [*singles, *copies, *(field for field in dataset.fields if field.kind == "list")]
    found.features = features
    for name in ("keys", "_order"):  # made anew of the vocabulary, where they are asked for
        found.__dict__.pop(name, None)
    found.__dict__["vocabulary"] = pl.concat([dataset.vocabulary, *own])
    return found


def _keys_of_copy(keys: Keys, other: FieldInfo) -> Keys:
    """Keys of the features of a copy, by those of its field: others, so that they are read in other rows."""
    return mixed(keys, role_key(other.name, "number"))


class ShadowLayout(Layout):
    """What a search reads of each row: every feature, and those of the copies, from another row of the same part.

    The rows are shuffled anew for each field, part and seed, in constant memory; labels stay where they are.

    Args:
        shadows: which fields are copied.
        placement: of fields and copies, where features are hashed.
    """

    def __init__(self, shadows: Shadows, placement: Placement | None = None) -> None:
        super().__init__(shadows.dataset, placement=placement)
        self._shadows = shadows
        names = [field.name for field in shadows.dataset.fields]
        self._slots = [names.index(field.name) for field in shadows.copied]

    @property
    def holdable(self) -> bool:
        """Never: what the copies say is in no column."""
        return False

    def _gather_single(self, part: Part, index: Ints) -> tuple[Numbers, npt.NDArray[np.float32] | None]:
        ids, values = super()._gather_single(part, index)
        columns = [ids]
        for slot, field, other in zip(self._slots, self._shadows.copied, self._shadows.copies, strict=True):
            rows = shuffled(index, len(part), self._shadows.seed, _SHUFFLES + slot)
            own = part.ids[rows, slot]
            if self.hashed:
                own = _keys_of_copy(own.view(np.uint64), other).view(np.int64)
            else:
                own = own - field.offset + other.offset
            columns.append(own[:, None])
        if values is not None:
            values = np.hstack([values, np.ones((len(index), len(self._slots)), np.float32)])
        return np.hstack(columns), values
