"""A planted log: fields, pairs and an intercept; any stretch of its rows can be drawn alone."""

import numpy as np
import pyarrow as pa

from ctr.dataset.synthetic_draws import Floats, Integers, Words, key_of, uniforms, words, zipf_shares
from ctr.dataset.synthetic_fields import planted_field
from ctr.dataset.synthetic_production import AT_FIRST, POSITION, ShownPositions
from ctr.dataset.synthetic_ranks import DAY
from ctr.dataset.synthetic_spec import Categorical, Pair, SyntheticSpec

START = np.datetime64("2024-01-01T00:00:00", "us")  # a Monday
PILOT_ROWS = 65_536
_PILOT_START = 1 << 62  # no log is as long, so pilot rows share no random number with rows that are written


class PlantedLog:
    """All that is planted under one seed; rows depend on seed, row number and length of the log alone."""

    def __init__(self, spec: SyntheticSpec, seed: int, positions: int | None = None) -> None:
        self.spec = spec
        self.shown = ShownPositions(positions, seed) if positions else None
        self.label_key, self.time_key = key_of(seed, "", "label"), key_of(seed, "", "time")
        self.fields = {field.name: planted_field(field, seed, spec.days) for field in spec.fields}
        self.joint = [(pair, joint_effects(pair, *_ends(spec, pair), seed)) for pair in spec.pairs]
        self.intercept = 0.0
        self.intercept = self._meet_base_rate()

    def rows(self, first: int, last: int, rows: int) -> pa.Table:
        """Draw the rows first .. last - 1 of a log of `rows` rows, as they are written."""
        index = np.arange(first, last, dtype=np.uint64)
        seconds = self._seconds(index, first, rows)
        drawn = {name: field.draw(index, seconds) for name, field in self.fields.items()}
        logit = self._logit(drawn)
        extra: dict[str, pa.Array] = {}
        if self.shown is not None:
            positions = self.shown.draw(index, logit - self.intercept)
            at_first = self.shown.logit(np.ones_like(positions))
            extra = {POSITION: pa.array(positions), AT_FIRST: pa.array(_probability(logit + at_first))}
            logit += self.shown.logit(positions)
        probability = _probability(logit)
        columns = {self.spec.label: pa.array((uniforms(self.label_key, index) < probability).astype(np.int8))}
        if self.spec.days:
            columns["timestamp"] = pa.array(START + seconds.astype("timedelta64[s]"))
        for name, field in self.fields.items():
            if (column := field.column(drawn[name])) is not None:
                columns[name] = column
        return pa.table({**columns, "true_probability": pa.array(probability), **extra})

    def newest(self, rows: int) -> np.datetime64:
        """Time of the last row of a log of `rows` rows."""
        seconds = self._seconds(np.array([rows - 1], dtype=np.uint64), rows - 1, rows)[0]
        return START + np.timedelta64(int(seconds), "s")

    def _seconds(self, index: Words, first: int, rows: int) -> Integers:
        """Spread rows evenly over the days, in order, each at a random place of its stretch."""
        place = np.arange(first, first + len(index)) + uniforms(self.time_key, index)
        return (place * (self.spec.days * DAY / rows)).astype(np.int64)

    def _logit(self, drawn: dict[str, Integers]) -> Floats:
        logit: Floats = np.full(len(next(iter(drawn.values()))), self.intercept)
        for name, field in self.fields.items():
            logit += field.logit(drawn[name])
        for pair, effects in self.joint:
            logit += effects[drawn[pair.field_a], drawn[pair.field_b]]
        return logit

    def _meet_base_rate(self) -> float:
        """Find the intercept that gives pilot rows the expected share of clicks, by bisection."""
        index = np.arange(_PILOT_START, _PILOT_START + PILOT_ROWS, dtype=np.uint64)
        seconds = self._seconds(index, 0, PILOT_ROWS)
        logit = self._logit({name: field.draw(index, seconds) for name, field in self.fields.items()})
        if self.shown is not None:
            self.shown.fit(index, logit)
            logit += self.shown.logit(self.shown.draw(index, logit))
        low, high = -50.0, 50.0
        for _ in range(60):
            middle = (low + high) / 2.0
            rate = float(np.mean(_probability(logit + middle)))
            low, high = (middle, high) if rate < self.spec.base_rate else (low, middle)
        return low


def _probability(logit: Floats) -> Floats:
    probability: Floats = 1.0 / (1.0 + np.exp(-logit))
    return probability


def _ends(spec: SyntheticSpec, pair: Pair) -> tuple[Categorical, Categorical]:
    fields = {field.name: field for field in spec.fields if isinstance(field, Categorical)}
    return fields[pair.field_a], fields[pair.field_b]


def joint_effects(pair: Pair, field_a: Categorical, field_b: Categorical, seed: int) -> Floats:
    """Give the joint effect of each two ranks, (cardinality of a, cardinality of b).

    Weighted by how often values occur, every row and column has mean 0 and the whole has standard deviation
    `strength`: neither field alone, nor any sum over the two, tells anything about it.
    """
    shares_a = zipf_shares(field_a.cardinality, field_a.zipf)
    shares_b = zipf_shares(field_b.cardinality, field_b.zipf)
    shape = (field_a.cardinality, field_b.cardinality)
    key = key_of(seed, "pair", pair.field_a, pair.field_b)
    if pair.kind == "memorize":
        coin = words(key, np.arange(shape[0] * shape[1])) >> np.uint64(63)
        table = coin.astype(np.float64).reshape(shape) * 2.0 - 1.0
    else:
        latent = [
            uniforms(key_of(key, side), np.arange(size * pair.rank)).reshape(size, pair.rank) * 2.0 - 1.0
            for side, size in enumerate(shape)
        ]
        # Centring the latent vectors keeps the rank; centring their product alone would add to it.
        vectors_a, vectors_b = (v - w @ v for v, w in zip(latent, (shares_a, shares_b), strict=True))
        table = vectors_a @ vectors_b.T
    table = table - shares_a @ table  # (A, B) - (B,)
    table = table - (table @ shares_b)[:, None]  # (A, B) - (A, 1)
    spread = float(np.sqrt(shares_a @ table**2 @ shares_b))
    return table * (pair.strength / spread) if spread > 0.0 else table
