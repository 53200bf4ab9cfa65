"""How fast a feature set ages: its difference to one that is selected anew, over windows of ever later rows.

At age 0 both are the same set, so the difference is zero; its pace is the slope of the line through that origin,

    pace = sum over windows of n a d / sum over windows of n a^2

with n rows, age a and difference d of each window: least squares weighted by rows, which are known before anything is
measured. A slope is a sum of differences, so what single rows add to it is known as well (`ctr.evaluation.influence`),
and its interval covers other rows and other training seeds as that of any paired difference does: seeds are paired over
all windows, and a cluster's rows are added up over all of them.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ctr.evaluation.influence import Influence
from ctr.evaluation.paired_seeds import Difference, paired_difference


def pace(
    frozen: Sequence[Sequence[Influence]],
    anew: Sequence[Sequence[Influence]],
    ages: Sequence[float],
    clusters: Sequence[npt.NDArray[np.int64]] | None = None,
) -> Difference:
    """By how much `frozen` minus `anew` changes with each unit of age.

    Args:
        frozen, anew: by window, in the order of age, one entry per seed, in the order of the same seeds.
        ages: of each window.
        clusters: of each window (B,) the number of each row's cluster, the same in all windows.

    Raises:
        ValueError: every window has age 0, or not as many of one as of the other.
    """
    rows = [len(each[0].rows) for each in frozen]
    spread = sum(n * age**2 for n, age in zip(rows, ages, strict=True))
    if not spread:
        raise ValueError(f"pace: expected a window of an age above 0, found ages {list(ages)}")
    factors = [n * age / spread for n, age in zip(rows, ages, strict=True)]
    together = None if clusters is None else np.concatenate(clusters)
    return paired_difference(_slopes(frozen, factors), _slopes(anew, factors), together)


def _slopes(windows: Sequence[Sequence[Influence]], factors: Sequence[float]) -> list[Influence]:
    """Of each seed, the sum over windows of its metric times a factor."""
    return [
        Influence(
            sum(factor * each.value for factor, each in zip(factors, seed, strict=True)),
            np.concatenate([factor * each.rows for factor, each in zip(factors, seed, strict=True)]),
        )
        for seed in zip(*windows, strict=True)
    ]
