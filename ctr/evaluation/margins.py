"""Whether a loss of AUC stays within a stated margin, and how many rows it takes to tell.

A margin is stated before anything is measured: "no more than 0.001 of AUC may be lost". What an interval says about it
is decided as in trials of non-inferiority (Piaggio et al., "Reporting of Noninferiority and Equivalence Randomized
Trials", JAMA 2012): nothing is proven by the absence of a significant loss.

What a log can prove, and how many rows it takes, is meant with a power of 80 %: of logs like it, on which nothing is
lost, four in five prove it. An interval just as wide as the margin would do so in one of two.
"""

import math
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

from ctr.evaluation.intervals import Z95
from ctr.evaluation.paired_seeds import FEWEST_SEEDS, Difference

Outcome = Literal["gain", "no_loss", "loss", "undecided"]
# What is assumed before anything is trained: a usual AUC of click logs, and the correlation of the AUCs of a keep-all
# network and one over a mildly pruned feature set.
ASSUMED_AUC, ASSUMED_CORRELATION = 0.75, 0.95
_POWER = NormalDist().inv_cdf(0.8)


@dataclass(frozen=True)
class Decision:
    """What an interval says about a margin.

    outcome: `gain`: the whole interval is above zero. `no_loss`: all of it is above -margin. `loss`: all of it is below
        zero, and not above -margin. `undecided`: anything else.
    provable: the smallest margin that such a log proves where nothing is lost, with a power of 80 %.
    more_rows: so many more rows would prove the margin where nothing is lost, with that power; 0 where these do, None
        where no number of rows does, because training seeds differ too much.
    """

    outcome: Outcome
    provable: float
    more_rows: int | None


def decide(difference: Difference, margin: float, rows: int, level: float = 0.95) -> Decision:
    """What the interval of `difference`, on so many rows, says about a loss of at most `margin`."""
    _, low, high = difference.interval(level)
    outcome: Outcome = "undecided"
    if low > 0.0:
        outcome = "gain"
    elif low >= -margin:
        outcome = "no_loss"
    elif high < 0.0:
        outcome = "loss"
    return Decision(outcome, _provable(difference, level), _more_rows(difference, margin, rows, level))


def _provable(difference: Difference, level: float) -> float:
    """Half of the interval, and how far its middle may come to lie below zero by chance."""
    variance = difference.rows_variance + (difference.excess or 0.0) / difference.seeds
    return difference.half_width(level) + _POWER * math.sqrt(max(0.0, variance))


def _more_rows(difference: Difference, margin: float, rows: int, level: float) -> int | None:
    """Variance over rows falls with their number, that over seeds does not."""

    def provable(times: float) -> float:
        of_rows, interplay = difference.rows_variance / times, difference.interplay / times
        return _provable(replace(difference, rows_variance=of_rows, interplay=interplay), level)

    if provable(1.0) <= margin:
        return 0
    if provable(math.inf) >= margin:
        return None
    low, high = 0.0, 1.0  # of the binary logarithm of times
    while provable(math.pow(2.0, high)) > margin:
        low, high = high, 2.0 * high
    while high - low > 1e-9:
        middle = (low + high) / 2.0
        low, high = (middle, high) if provable(math.pow(2.0, middle)) > margin else (low, middle)
    return math.ceil(rows * (math.pow(2.0, high) - 1.0))


def seeds_known(difference: Difference) -> bool:
    """Whether an interval speaks about other training seeds, or about these very models alone."""
    return difference.seeds >= FEWEST_SEEDS


def provable_margin(
    positives: int, negatives: int, auc: float = ASSUMED_AUC, correlation: float = ASSUMED_CORRELATION
) -> float:
    """The smallest loss of AUC that so many test rows can rule out, of two models that are equally good, at 80 % power.

        (1.96 + 0.84) sqrt(2 (1 - correlation) V),
        V = (A (1 - A) + (positives - 1) (A / (2 - A) - A^2) + (negatives - 1) (2 A^2 / (1 + A) - A^2))
            / (positives negatives)

    The spread over training seeds comes on top. Infinite where a class has no row.

    Args:
        auc: A, of both models. correlation: of their AUCs over rows.

    Source: V is equation 2 of Hanley and McNeil, Radiology 1982; paired areas, equation 1 of the same, Radiology 1983.
    """
    if not positives or not negatives:
        return math.inf
    by_positive = (positives - 1) * (auc / (2.0 - auc) - auc**2)
    by_negative = (negatives - 1) * (2.0 * auc**2 / (1.0 + auc) - auc**2)
    variance = (auc * (1.0 - auc) + by_positive + by_negative) / (positives * negatives)
    return (Z95 + _POWER) * math.sqrt(2.0 * (1.0 - correlation) * variance)
