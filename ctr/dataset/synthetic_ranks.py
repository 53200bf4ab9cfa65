"""Planted fields whose values are ranks: categories and lists. A rank below 0 is a missing value.

`draw`, `logit`, `column` and `effect` are those of `PlantedField` in `synthetic_fields`.
"""

import numpy as np
import polars as pl
import pyarrow as pa

from ctr.dataset.synthetic_draws import Floats, Integers, Names, Words, key_of, uniforms, words, zipf_ranks
from ctr.dataset.synthetic_spec import Categorical, Listed, Values

DAY = 86_400
REDRAWS = 4


class _Ranked:
    """What categorical and list fields share: texts, and effects by rank."""

    def __init__(self, field: Values, seed: int) -> None:
        self.field = field
        self.keys = {part: key_of(seed, field.name, part) for part in ("draw", "effect", "missing", "late")}
        self.names = Names(field.name, field.cardinality, field.text, key_of(seed, field.name, "names"))

    def effects(self, ranks: Integers) -> Floats:
        """Effects of ranks.

        Two neighbours in rank matter together, with effects of one size and opposite signs: the mean effect
        of a field stays near zero whatever its Zipf exponent, and a value without effect is an average one.
        """
        field = self.field
        if not field.matters:
            return np.zeros(ranks.shape)
        word = words(self.keys["effect"], ranks >> 1)
        matters = (word >> np.uint64(32)).astype(np.float64) * 2.0**-32 < field.matters
        size = (word & np.uint64(0x7FFFFFFF)).astype(np.float64) * 2.0**-31
        low, high = field.effect
        size *= high - low
        size += low
        upward = ((word >> np.uint64(31)) & np.uint64(1)).astype(np.int64) == (ranks & 1)
        signed: Floats = np.where(upward, size, -size) * (matters & (ranks >= 0))
        return signed

    def effect(self, texts: pl.Series) -> Floats:
        """Give effects of texts, NaN for a text that is none of the field's."""
        ranks = self.names.ranks(texts)
        return np.where(ranks == -2, np.nan, self.effects(ranks))

    def with_missing(self, ranks: Integers, index: Words) -> Integers:
        """Set the ranks of some rows to -1."""
        if self.field.missing:
            ranks[uniforms(self.keys["missing"], index) < self.field.missing] = -1
        return ranks


class PlantedCategorical(_Ranked):
    """One rank per row."""

    def __init__(self, field: Categorical, seed: int, days: int) -> None:
        super().__init__(field, seed)
        self.late, self.days = field.late, days

    def birthdays(self, ranks: Integers) -> Integers:
        """Give the day, counted from 0, on which ranks may first be drawn, (N,)."""
        word = words(self.keys["late"], ranks)
        late = ((word >> np.uint64(11)).astype(np.float64) * 2.0**-53 < self.late) & (ranks >= 2)
        return np.where(late, 1 + (word & np.uint64(0xFFFF)).astype(np.int64) % max(self.days - 1, 1), 0)

    def draw(self, index: Words, seconds: Integers) -> Integers:
        """Draw ranks, (N,); values that are not born yet are drawn again."""
        field = self.field
        ranks = zipf_ranks(uniforms(self.keys["draw"], index), field.cardinality, field.zipf)
        if self.late:
            unborn = np.arange(len(index))
            for attempt in range(1, REDRAWS + 1):
                unborn = unborn[self.birthdays(ranks[unborn]) > seconds[unborn] // DAY]
                # The last resort is the most frequent value, which is there from the first day.
                again = (
                    uniforms(key_of(self.keys["draw"], attempt), index[unborn]) if attempt < REDRAWS else None
                )
                ranks[unborn] = 0 if again is None else zipf_ranks(again, field.cardinality, field.zipf)
        return self.with_missing(ranks, index)

    def logit(self, drawn: Integers) -> Floats:
        """Give the effects."""
        return self.effects(drawn)

    def column(self, drawn: Integers) -> pa.Array:
        """Give texts."""
        return self.names.texts(drawn)


class PlantedList(_Ranked):
    """1 to `longest` ranks per row, (N, longest), filled up with -1.

    Item j of row i is drawn among the ranks (turn of i + j) modulo `longest`, so no row holds a value twice.
    """

    def __init__(self, field: Listed, seed: int) -> None:
        super().__init__(field, seed)
        self.longest = field.longest

    def draw(self, index: Words, seconds: Integers) -> Integers:
        """Draw ranks, (N, longest)."""
        longest, exponent = self.longest, self.field.zipf
        word = words(key_of(self.keys["draw"], "length"), index)
        length = 1 + (word >> np.uint64(32)).astype(np.int64) % longest
        turn = (word & np.uint64(0xFFFFFFFF)).astype(np.int64) % longest
        ranks = np.full((len(index), longest), -1, dtype=np.int64)
        for item in range(longest):
            uniform = uniforms(key_of(self.keys["draw"], item), index)
            group = zipf_ranks(uniform, self.field.cardinality // longest, exponent)
            ranks[:, item] = np.where(item < length, group * longest + (turn + item) % longest, -1)
        return self.with_missing(ranks, index)

    def logit(self, drawn: Integers) -> Floats:
        """Give the mean effect of each list; an empty one has none."""
        mean: Floats = self.effects(drawn).sum(axis=1) / np.maximum((drawn >= 0).sum(axis=1), 1)
        return mean

    def column(self, drawn: Integers) -> pa.Array:
        """Give joined texts; null for an empty list."""
        items = pl.DataFrame([pl.Series(str(i), self.names.texts(drawn[:, i])) for i in range(self.longest)])
        joined = pl.concat_str(pl.all(), separator="|", ignore_nulls=True)
        return items.select(pl.when(pl.col("0").is_not_null()).then(joined))["0"].to_arrow().cast(pa.string())

    def effect(self, texts: pl.Series) -> Floats:
        """Give the effect of being in the list: a list of L values passes on a share 1 / L of each.

        A value sits in lists in proportion to their length: the mean share is 1 / E[L] = 2 / (longest + 1).
        """
        return super().effect(texts) * (2.0 / (self.longest + 1.0))
