"""The difference between two models, each trained with several seeds, on the same rows: with what both vary over.

Each seed s gives a paired difference d(s): same rows, same seed, same budget. Their mean varies over other rows from
the same source, and over other training seeds:

    rows        variance over rows of the mean over seeds: sum over rows of squared contributions (`influence`)
    interplay   how much one seed's difference is expected to vary only because seeds rank single rows differently; it
                is part of `rows` already, divided by the number of seeds
    excess      what the differences vary over seeds beyond that: their sample variance - interplay, with S - 1 degrees
                of freedom, or pooled over settings that are alike, with the sum of theirs

So the mean has two independent parts: a = rows - interplay / S, what rows do to all seeds alike, and
b = (interplay + excess) / S, what seeds vary by for either reason, S - 1 degrees of freedom. (Rows in clusters have
one less degree than there are clusters.) Two ways to bound their sum: each at its own quantile, added up in squares,
z^2 a + t^2 b (Howe, "Approximate Confidence Limits on the Mean of X + Y", JASA 1974), which covers too often where
both parts matter; and Student's quantile at the degrees of freedom that the sum has (Satterthwaite, "An Approximate
Distribution of Estimates of Variance Components", Biometrics 1946), which covers too rarely with three seeds. The
mean of both squares covers 93 to 97 % in all that `tests/evaluation/test_paired_seeds.py` draws, and is either of
them where one part is all there is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ctr.evaluation.influence import Influence, clustered
from ctr.evaluation.intervals import Interval, quantile
from ctr.evaluation.metrics import Floats

FEWEST_SEEDS = 3  # below, the spread over seeds is not known, and an interval speaks about these very models


@dataclass(frozen=True)
class Difference:
    """A metric of one configuration minus that of another, paired by row and seed.

    value: mean over seeds. by_seed: of each. rows_variance: of the mean, over rows. excess: the variance of one seed's
    difference beyond what single rows explain, which by chance may come out below zero; None with fewer than three
    seeds. freedom: its degrees of freedom. interplay: the variance of one seed's difference that single rows explain.
    clusters: of rows; None where these stand for themselves.
    """

    value: float
    by_seed: tuple[float, ...]
    rows_variance: float
    excess: float | None = None
    freedom: int = 0
    interplay: float = 0.0
    clusters: int | None = None

    @property
    def seeds(self) -> int:
        """How many were paired."""
        return len(self.by_seed)

    @property
    def seeds_variance(self) -> float:
        """The variance of one seed's difference, beyond what single rows explain; 0 where it is not known."""
        return max(0.0, self.excess or 0.0)

    def half_width(self, level: float = 0.95) -> float:
        """How far the bounds lie from the value, at a confidence level."""
        tail = (1.0 - level) / 2.0
        row_freedom = float("inf") if self.clusters is None else self.clusters - 1.0
        if self.excess is None:
            return quantile(tail, row_freedom) * float(np.sqrt(self.rows_variance))
        alike = max(0.0, self.rows_variance - self.interplay / self.seeds)
        apart = max(0.0, self.interplay + self.excess) / self.seeds
        if alike + apart == 0.0:
            return 0.0
        in_squares = quantile(tail, row_freedom) ** 2 * alike + quantile(tail, self.freedom) ** 2 * apart
        # Shares, so that variances far below one do not vanish in their squares.
        uncertain = (alike / (alike + apart)) ** 2 / row_freedom + (
            apart / (alike + apart)
        ) ** 2 / self.freedom
        together = quantile(tail, 1.0 / uncertain if uncertain else None) ** 2 * (alike + apart)
        return float(np.sqrt((in_squares + together) / 2.0))

    def interval(self, level: float = 0.95) -> Interval:
        """The value with its bounds at a confidence level."""
        half = self.half_width(level)
        return Interval(self.value, self.value - half, self.value + half)

    @property
    def p_value(self) -> float:
        """The smallest 1 - level whose interval leaves zero out; 1 where both configurations are the same."""
        from scipy.optimize import brentq

        size = abs(self.value)
        if size == 0.0:
            return 1.0
        if self.half_width(1.0 - _SMALLEST_P) <= size:
            return _SMALLEST_P
        if self.half_width(1.0 - _LARGEST_P) >= size:  # zero but for rounding
            return 1.0
        # The width grows without a bound as the level nears 1, and shrinks to nothing at level 0.
        found = brentq(
            lambda log: self.half_width(1.0 - np.exp(log)) - size, np.log(_SMALLEST_P), np.log(_LARGEST_P)
        )
        return float(np.exp(found))


_SMALLEST_P, _LARGEST_P = 1e-12, 1.0 - 1e-9


def paired_difference(
    selected: Sequence[Influence],
    baseline: Sequence[Influence],
    clusters: npt.NDArray[np.int64] | None = None,
) -> Difference:
    """`selected` minus `baseline`, one of each per seed, in the order of the same seeds, on the same rows.

    Equal models give exactly zero, with an interval of no width.

    Args:
        clusters: (B,) number of each row's cluster, from 0; None where rows stand for themselves.

    Raises:
        ValueError: not as many of both, or none.
    """
    if len(selected) != len(baseline) or not selected:
        raise ValueError(f"paired_difference: {len(selected)} seeds of one, {len(baseline)} of the other")
    values = np.array([new.value - old.value for new, old in zip(selected, baseline, strict=True)])
    rows = np.stack([new.rows - old.rows for new, old in zip(selected, baseline, strict=True)])  # (S, B)
    summed = clustered(rows, clusters)
    seeds, excess, interplay = len(values), None, 0.0
    if seeds >= FEWEST_SEEDS:
        interplay = _sum_of_squares(summed - summed.mean(0)) / (seeds - 1.0)
        excess = float(values.var(ddof=1)) - interplay
    return Difference(
        float(values.mean()),
        tuple(values.tolist()),
        _sum_of_squares(summed.mean(0)),
        excess,
        seeds - 1,
        interplay,
        None if clusters is None else summed.shape[1],
    )


def pooled(differences: Sequence[Difference]) -> list[Difference]:
    """The differences of settings that are alike, such as the sizes of one selector, with one spread over seeds.

    With three seeds, each spread has two degrees of freedom, and Student's distribution with two has tails in which
    intervals that are to hold for dozens of comparisons at once lose all meaning. Analysis of variance pools what it
    compares; where the spreads differ, the quieter settings get wider intervals than they need, the others narrower.
    """
    known = [each for each in differences if each.excess is not None]
    freedom = sum(each.freedom for each in known)
    if not freedom:
        return list(differences)
    excess = sum(each.freedom * each.excess for each in known if each.excess is not None) / freedom
    return [
        each if each.excess is None else replace(each, excess=excess, freedom=freedom) for each in differences
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number.

    Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    corrected = np.minimum(np.maximum.accumulate(np.asarray(p_values, np.float64)[order] * factors), 1.0)
    found = np.empty(len(p_values))
    found[order] = corrected
    return [float(value) for value in found]


def _sum_of_squares(values: Floats) -> float:
    return float(np.square(values).sum())
