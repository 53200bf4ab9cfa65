"""Planted fields: how values are drawn row by row, and what each adds to the logit.

`index` (N,) numbers the rows of the log, `seconds` (N,) counts from its first instant. What `draw` gives is
handed to `logit` (N,) and to `column`, the Arrow array that is written.
"""

from typing import Any, Protocol

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from ctr.dataset.synthetic_draws import Floats, Integers, Words, key_of, uniforms
from ctr.dataset.synthetic_ranks import DAY, PlantedCategorical, PlantedList
from ctr.dataset.synthetic_spec import Categorical, Hour, Listed, Numeric, Planted


class PlantedField(Protocol):
    """A field that knows how to draw itself and what its values are worth."""

    def draw(self, index: Words, seconds: Integers) -> NDArray[Any]:
        """Draw the values of rows."""

    def logit(self, drawn: NDArray[Any]) -> Floats:
        """Give what drawn values add to the logit, (N,)."""

    def column(self, drawn: NDArray[Any]) -> pa.Array | None:
        """Give the column to be written; None where the schema derives the field."""

    def effect(self, texts: pl.Series) -> Floats:
        """Give the planted effect of values of the vocabulary; null is missing, NaN marks a foreign text."""


class PlantedNumeric:
    """A number per row, NaN where missing; its effect depends on the feature its transform makes of it."""

    def __init__(self, field: Numeric, seed: int) -> None:
        self.field = field
        self.keys = {part: key_of(seed, field.name, part) for part in ("draw", "missing")}

    def draw(self, index: Words, seconds: Integers) -> Floats:
        """Draw numbers, (N,)."""
        field = self.field
        number = (1.0 - uniforms(self.keys["draw"], index)) ** (-1.0 / field.tail)
        number -= 1.0
        number *= field.scale
        if field.transform == "log_square":
            number = np.minimum(np.floor(number + field.lowest), 2.0**31 - 1.0)
        else:
            number = np.round(number + field.lowest, 6)
        if field.missing:
            number[uniforms(self.keys["missing"], index) < field.missing] = np.nan
        return number

    def logit(self, drawn: Floats) -> Floats:
        """Give effects by feature, (N,)."""
        if self.field.transform == "quantile":
            return self._shaped(self._share_below(drawn))
        # METHODS' log_square: v > 2 -> floor(ln(v) ** 2), else int(v)
        return self._of_log_square(
            np.where(drawn > 2.0, np.floor(np.log(np.maximum(drawn, 1.0)) ** 2), drawn)
        )

    def column(self, drawn: Floats) -> pa.Array:
        """Give integers for `log_square`, else real numbers; null where missing."""
        column = pa.array(drawn, from_pandas=True)
        return column.cast(pa.int64()) if self.field.transform == "log_square" else column

    def effect(self, texts: pl.Series) -> Floats:
        """Give effects of `log_square` numbers, or of bin numbers "0" (lowest) .. of a `quantile` field."""
        number = texts.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
        if self.field.transform == "quantile":
            effects = self._shaped((number + 0.5) / self.field.bins)
        else:
            effects = self._of_log_square(number)
        foreign = np.isnan(number) & texts.is_not_null().to_numpy()
        return np.where(foreign & (self.field.effect > 0.0), np.nan, effects)

    def _of_log_square(self, feature: Floats) -> Floats:
        # Any number that falls into the feature stands for it: here exp(sqrt(feature)).
        return self._shaped(self._share_below(np.exp(np.sqrt(np.maximum(feature, 0.0)))))

    def _share_below(self, number: Floats) -> Floats:
        above = np.maximum(number - self.field.lowest, 0.0) / self.field.scale
        share: Floats = 1.0 - (1.0 + above) ** -self.field.tail
        return share

    def _shaped(self, share: Floats) -> Floats:
        wave = 2.0 * share - 1.0 if self.field.shape == "rising" else -np.cos(2.0 * np.pi * share)
        return np.where(np.isnan(share), self.field.missing_effect, self.field.effect * wave)


class PlantedHour:
    """The hour of the timestamp, 0 .. 23."""

    def __init__(self, field: Hour) -> None:
        self.field = field

    def draw(self, index: Words, seconds: Integers) -> Integers:
        """Take the hour from the time."""
        return seconds % DAY // 3600

    def logit(self, drawn: NDArray[Any]) -> Floats:
        """Give one wave over the day, lowest at midnight."""
        wave: Floats = -self.field.effect * np.cos(2.0 * np.pi * drawn / 24.0)
        return wave

    def column(self, drawn: Integers) -> None:
        """Give none: the schema derives it."""

    def effect(self, texts: pl.Series) -> Floats:
        """Give effects of the hours "0" .. "23"."""
        return self.logit(texts.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy())


def planted_field(field: Planted, seed: int, days: int) -> PlantedField:
    """Plant a field; the same field and seed give the same values and effects."""
    if isinstance(field, Categorical):
        return PlantedCategorical(field, seed, days)
    if isinstance(field, Listed):
        return PlantedList(field, seed)
    return PlantedNumeric(field, seed) if isinstance(field, Numeric) else PlantedHour(field)
