"""What production does to a click log: negatives are sampled, clicks come late, places bias them, rows have weights.

Each of it is optional, and whatever is drawn for it is a hash of seed and row under keys of its own: the impressions
are those of the log without it.
"""

import math
from typing import Annotated, Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field as Key

from ctr.dataset.synthetic_draws import Floats, Integers, Words, key_of, normals, uniforms
from ctr.dataset.synthetic_spec import SyntheticSpec
from ctr.errors import ConfigError
from ctr.settings import Strict, check

TIMELESS_DAYS = 14  # what a log without a time column spans once its clicks come late
POSITION_STRENGTH = 1.0  # the odds of a click fall as position ** -POSITION_STRENGTH
POSITION_CORRELATION = 0.6  # of what ranks the impressions with their own logits
WEIGHT_SPREAD = 0.5  # standard deviation of a weight's logarithm

POSITION, AT_FIRST, TRUE_LABEL, WEIGHT = "position", "true_probability_at_1", "true_label", "weight"
REAL_COLUMNS = ("true_probability", AT_FIRST, WEIGHT)  # hardly a number in them comes twice


class Production(Strict):
    """How a synthetic log differs from a complete, matured and unbiased one.

    Args:
        negative_keep_rate: share of the rows with label 0 that the log holds.
        delay_hours: the longest time between an impression and its click; a click that was still to come when the log
            was taken, at the time of its newest impression, is missing in the label. `true_label` has it.
        delayed_share: share of the clicks that come late, uniformly within `delay_hours`.
        positions: impressions are shown at a position 1 .. N, better ones higher, and higher ones are clicked more.
        weights: a weight per row, log-normal with mean 1.
    """

    negative_keep_rate: Annotated[float, Key(gt=0.0, le=1.0)] | None = None
    delay_hours: Annotated[float, Key(gt=0.0, allow_inf_nan=False)] | None = None
    delayed_share: Annotated[float, Key(ge=0.0, le=1.0)] = 0.3
    positions: Annotated[int, Key(ge=2, le=1000)] | None = None
    weights: bool = False

    @property
    def stated(self) -> bool:
        """Whether anything was asked for."""
        return bool(self.negative_keep_rate or self.delay_hours or self.positions or self.weights)

    @property
    def columns(self) -> list[str]:
        """The columns that come behind `true_probability`, in order."""
        found = [POSITION, AT_FIRST] if self.positions else []
        return found + [TRUE_LABEL] * (self.delay_hours is not None) + [WEIGHT] * self.weights

    @property
    def delay_seconds(self) -> int:
        """The longest delay, rounded up; 0 where clicks come at once."""
        return math.ceil((self.delay_hours or 0.0) * 3600.0)

    def schema_keys(self) -> dict[str, Any]:
        """What the schema says of it at its top level."""
        rate = {} if self.negative_keep_rate is None else {"negative_keep_rate": self.negative_keep_rate}
        return {**rate, **({"weight": WEIGHT} if self.weights else {})}

    def split_keys(self) -> dict[str, Any]:
        """What the schema's split says of it."""
        seconds = self.delay_seconds
        text = f"{seconds}s" if seconds % 3600 else f"{seconds // 3600}h"
        return {"label_matures_after": text} if seconds else {}

    def schema_fields(self) -> list[dict[str, Any]]:
        """Fields that the schema has besides the planted ones."""
        field = {"name": POSITION, "kind": "categorical", "role": "bias", "serve_value": 1}
        return [field] if self.positions else []

    def fitted(self, spec: SyntheticSpec, base_rate: float | None) -> SyntheticSpec:
        """Give `spec` the share of clicks that is asked for, and a time column where one is needed.

        Raises:
            ConfigError: a rate out of range, a delay as long as the log, or a field with the name of a column.
        """
        changed: dict[str, Any] = {} if base_rate is None else {"base_rate": base_rate}
        if self.delay_hours is not None and spec.days == 0:
            changed["days"] = TIMELESS_DAYS
        if changed:
            spec = check({**dict(spec), **changed}, SyntheticSpec, f'synthetic log "{spec.name}"')
        if self.delay_hours is not None and self.delay_hours >= spec.days * 24:
            raise ConfigError(
                f"delay_hours: expected less than the {spec.days * 24} hours that the log spans, "
                f"found {self.delay_hours:g}"
            )
        taken = {spec.label, *(field.name for field in spec.fields)}
        if twice := [name for name in self.columns if name in taken]:
            raise ConfigError(f'synthetic log "{spec.name}": the column "{twice[0]}" is named more than once')
        return spec


class ShownPositions:
    """Positions 1 .. `positions`, each of about as many rows; better rows are shown higher.

    A row is ranked by its own logit and noise, with a correlation of POSITION_CORRELATION. The effect of position k is
    -POSITION_STRENGTH ln(k), shifted to mean 0: a click at position 1 has k times the odds of one at position k.
    """

    def __init__(self, positions: int, seed: int) -> None:
        self.key = key_of(seed, "", POSITION)
        effects = -POSITION_STRENGTH * np.log(np.arange(1.0, positions + 1.0))
        self.effects: Floats = effects - effects.mean()  # (positions,)
        self.mean, self.spread, self.limits = 0.0, 1.0, np.zeros(0)

    def fit(self, index: Words, logit: Floats) -> None:
        """Learn from pilot rows what logits there are."""
        self.mean, self.spread = float(logit.mean()), float(logit.std()) or 1.0
        share = np.arange(1, len(self.effects)) / len(self.effects)
        self.limits = np.quantile(self._scores(index, logit), share)

    def draw(self, index: Words, logit: Floats) -> Integers:
        """Give positions by the rows' own logits, without intercept, (N,) -> (N,)."""
        place = np.searchsorted(self.limits, self._scores(index, logit), side="right")
        positions: Integers = len(self.effects) - place.astype(np.int64)
        return positions

    def logit(self, drawn: Integers) -> Floats:
        """Give what positions add to the logit, (N,)."""
        effects: Floats = self.effects[drawn - 1]
        return effects

    def effect(self, texts: pl.Series) -> Floats:
        """Give effects of the positions "1" .., NaN for a text that is none."""
        number = texts.cast(pl.Int64, strict=False).fill_null(0).to_numpy()
        known = (number >= 1) & (number <= len(self.effects))
        return np.where(known, self.effects[np.where(known, number, 1) - 1], np.nan)

    def _scores(self, index: Words, logit: Floats) -> Floats:
        noise = normals(self.key, index)
        own = POSITION_CORRELATION * (logit - self.mean) / self.spread
        scores: Floats = own + math.sqrt(1.0 - POSITION_CORRELATION**2) * noise
        return scores


class LogKeeper:
    """Turns impressions into the rows of the log: late clicks are not in it yet, negatives only in part."""

    def __init__(self, production: Production, seed: int, label: str, newest: np.datetime64) -> None:
        self.production, self.label, self.newest = production, label, newest
        self.keys = {part: key_of(seed, "", part) for part in ("kept", "delayed", "delay", "weight")}
        self.seen = self.kept = 0

    def log(self, impressions: pa.Table) -> pa.Table:
        """Give what the log holds of the next impressions."""
        index = np.arange(self.seen, self.seen + len(impressions), dtype=np.uint64)
        self.seen += len(impressions)
        table = impressions
        if self.production.delay_hours is not None:
            table = self._with_late_clicks(table, index)
        if self.production.weights:
            weight = np.exp(WEIGHT_SPREAD * normals(self.keys["weight"], index) - WEIGHT_SPREAD**2 / 2.0)
            table = table.append_column(WEIGHT, pa.array(weight))
        if self.production.negative_keep_rate is not None:
            kept = uniforms(self.keys["kept"], index) < self.production.negative_keep_rate
            table = table.filter(pa.array(kept | self._clicked(table)))
        self.kept += len(table)
        return table

    def _clicked(self, table: pa.Table) -> NDArray[np.bool_]:
        clicked: NDArray[np.bool_] = table[self.label].to_numpy() == 1
        return clicked

    def _with_late_clicks(self, table: pa.Table, index: Words) -> pa.Table:
        late = uniforms(self.keys["delayed"], index) < self.production.delayed_share
        delay = uniforms(self.keys["delay"], index) * self.production.delay_seconds
        age = (self.newest - table["timestamp"].to_numpy()) / np.timedelta64(1, "s")
        seen = self._clicked(table) & ~(late & (delay > age))
        true_label = table[self.label]
        place = table.column_names.index(self.label)
        table = table.set_column(place, self.label, pa.array(seen.astype(np.int8)))
        return table.append_column(TRUE_LABEL, true_label)
