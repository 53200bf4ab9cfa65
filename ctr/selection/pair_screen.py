"""Which pairs a search looks at: a screen of one pass over train rows per pair, and no network.

Shapes: N train rows, P pairs, J crosses of one pair that occur.

The rows are drawn into two halves. On one, a logistic model that adds up an effect of each value of each field is
fitted, which gives each row of both a probability p; with label y and weight w of a row, each cross c of a pair has

    g_c = sum of w (y - p),    h_c = sum of w p (1 - p)      over its rows in that half,
    v_c = g_c / (h_c + SHRINK)                               what it would add to the logit: one Newton step, shrunken.

The other half, which neither p nor v has seen, judges the v of all crosses of a pair at once, to second order, at their
best common scale t >= 0 (the test of `ctr.selection.evidence`):

    S = sum of w (y - p) v,    H = sum of w p (1 - p) v^2,      max(0, S)^2 / (2 H)      nats of log loss.

Both ways round are added up. Where a pair means nothing, the 2 * nats of each way are about chi-squared with one degree
of freedom, whatever the number of its crosses, or 0.

That p is not the baseline's is on purpose. A baseline with an MLP learns pairs too, the smooth products first; what it
leaves on the rows that it was trained on hides them, and those are pairs that a search finds worth a term. p is of
one half alone because a fit leaves rows of its own with residuals that add up to nothing for each value: where one half
has too many clicks the other has too few, and the rarer the values, the more of a pair's effect is taken with them.

Memorizing and factorizing are not told apart: a product of two vectors is a table of crosses as well, and shows here
where its values have rows enough. What it gives up: effects of lists and numbers are not in p, and pairs of fields that
tell the same (a user and his city) stand beside each other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.batches import shuffled
from ctr.dataset.crosses import FeatureColumn, compacted, joint_sums
from ctr.dataset.hashing import Ints
from ctr.dataset.pairs import PairNames
from ctr.selection.pair_space import PairSpace

SHRINK = 5.0  # of crosses, as if effects had a deviation of 5^-0.5 = 0.45; from 0.1 to 20 it hardly matters
PRIOR = 0.5  # of values: where they are held back as much as crosses, what is left of strong ones looks like pairs
SWEEPS = 5  # over the fields; the steps of the fifth are below a thousandth on planted logs
FURTHEST = 2.0  # logits of one step: Newton's would overshoot where a rare click turns out to be the rule
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Screen:
    """What a screen found. pairs: all P, in schema order. nats: (P,). kept: those to search, in schema order."""

    pairs: list[PairNames]
    nats: Floats
    kept: list[PairNames]

    def with_all(self, interactions: pl.DataFrame) -> pl.DataFrame:
        """A row for each pair, with `screened_nats`; `interactions` says how those that were kept interact.

        The others are naive with a weight of 1, and have no strength: nothing was measured but the screen's nats.
        """
        every = pl.DataFrame(
            {
                "field_a": [a for a, _ in self.pairs],
                "field_b": [b for _, b in self.pairs],
                "screened_nats": self.nats,
            }
        )
        joined = every.join(interactions, on=["field_a", "field_b"], how="left", maintain_order="left")
        return joined.select(*interactions.columns, "screened_nats").with_columns(
            pl.col("method").fill_null("naive"),
            pl.col("memorize", "factorize").fill_null(0.0),
            pl.col("naive").fill_null(1.0),
        )


def screen(
    space: PairSpace,
    labels: npt.NDArray[np.uint8],
    weights: npt.NDArray[np.float32] | None,
    number: int,
    seed: int,
) -> Screen:
    """Keep the pairs whose crosses say most; of equals, those that come first in the schema.

    Args:
        space: the pairs, and the values of their fields in train rows. No other rows are read.
        labels, weights: (N,) of train rows; no weights means that all rows count alike.
        number: of pairs to keep.
        seed: of the halves.
    """
    half = shuffled(np.arange(len(labels)), len(labels), seed, epoch=2_000) % 2 == 0
    nats = pair_nats(space.columns(space.pairs), space.pairs, labels, weights, half)
    best = np.sort(np.argsort(-nats, kind="stable")[:number])
    return Screen(space.pairs, nats, [space.pairs[place] for place in best])


def pair_nats(
    columns: Mapping[str, FeatureColumn],
    pairs: Sequence[PairNames],
    labels: npt.NDArray[np.uint8],
    weights: npt.NDArray[np.float32] | None,
    half: Bools,
) -> Floats:
    """(P,) nats that the crosses of each pair save, each half's judged by the other.

    Args:
        columns: of each field. Crosses with a dropped feature are none.
        labels: (N,) 0 or 1.
        weights: (N,), or None where all rows count alike.
        half: (N,) which of the two halves a row is in.
    """
    local = {name: compacted(column[:]) for name, column in columns.items()}
    own = np.ones(len(labels)) if weights is None else weights.astype(np.float64)
    sums: list[Floats] = []
    for learns in (~half, half):
        chances = _additive([place for _, place in local.values()], labels, own * learns)
        sums += [own * (labels - chances), own * chances * (1.0 - chances)]
    found = np.zeros(len(pairs))
    for number, (a, b) in enumerate(pairs):
        (numbers_a, first), (numbers_b, second) = local[a], local[b]
        seconds = 2 * len(numbers_b)
        joint, _, totals = joint_sums(first, 2 * second + half, seconds, len(numbers_a), sums)
        there = (numbers_a[joint // seconds] > 0) & (numbers_b[joint % seconds // 2] > 0)
        table = _by_half(joint[there], [total[there] for total in totals])  # (4, J, 2)
        found[number] = _judged(*table[:2]) + _judged(*table[2:, :, ::-1])
    return found


def _additive(places: Sequence[Ints], labels: npt.NDArray[np.uint8], weights: Floats) -> Floats:
    """(N,) probabilities of a logistic model with an effect of each value, fitted to the rows that have a weight.

    Args:
        places: (N,) of each field's values, from 0.
    """
    clicks, all_ = float(weights @ labels), float(weights.sum())
    logits = np.full(len(labels), np.log((clicks + 0.5) / (all_ - clicks + 0.5)))
    effects = [np.zeros(int(place.max(initial=-1)) + 1) for place in places]
    for _ in range(SWEEPS):
        for place, effect in zip(places, effects, strict=True):
            chances = _sigmoid(logits)
            slope = np.bincount(place, weights * (labels - chances)) - PRIOR * effect
            step = _step(slope, np.bincount(place, weights * chances * (1.0 - chances)), PRIOR)
            effect += step
            logits += step[place]
    return _sigmoid(logits)


def _sigmoid(logits: Floats) -> Floats:
    chances: Floats = 0.5 + 0.5 * np.tanh(0.5 * logits)  # never overflows
    return chances


def _step(slope: Floats, curvature: npt.NDArray[Any], shrink: float) -> Floats:
    return np.clip(slope / (curvature + shrink), -FURTHEST, FURTHEST)


def _by_half(joint: Ints, totals: Sequence[Floats]) -> Floats:
    """(len(totals), J, 2) sums of each cross in each half, from those of ascending 2 * cross + half."""
    cross = joint // 2
    place = np.cumsum(np.diff(cross, prepend=-1) > 0) - 1
    table = np.zeros((len(totals), int(place.max(initial=-1)) + 1, 2))
    table[:, place, joint % 2] = totals
    return table


def _judged(slopes: Floats, curvatures: Floats) -> float:
    """Nats that the second half gives to what the first one learned; both are (J, 2)."""
    adds = _step(slopes[:, 0], curvatures[:, 0], SHRINK)
    slope, curvature = float(slopes[:, 1] @ adds), float(curvatures[:, 1] @ adds**2)
    return max(0.0, slope) ** 2 / (2.0 * curvature) if curvature > 0.0 else 0.0
