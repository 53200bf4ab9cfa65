"""How alike the choices of several runs are."""

from itertools import combinations

import numpy as np
import numpy.typing as npt

from ctr.evaluation.intervals import Interval, quantile

Choices = npt.NDArray[np.bool_]


def nogueira(choices: Choices) -> Interval | None:
    """How stable choices (M runs, d things) are, corrected for chance: 1 where all are equal, about 0 where drawn.

    With its 95 % interval: the jackknife over runs (Tukey, "Bias and Confidence in Not-quite Large Samples", 1958),
    with Student's bounds. Two runs cannot say how much runs vary, so that their interval is all that the index can be.
    None where stability means nothing: fewer than two runs, or all runs choose everything, or nothing.

    Source: Nogueira, Sechidis and Brown, "On the Stability of Feature Selection Algorithms", JMLR 18 (2018),
    equation 5.

    NOTE[DIFF] The paper's variance (theorem 7) is that of many runs: with three its interval covers every other time.
    """
    value, runs = _index(choices), len(choices)
    if value is None:
        return None
    lowest = -1.0 / (runs - 1.0)  # of any choices
    without = [_index(np.delete(choices, run, axis=0)) for run in range(runs)] if runs > 2 else [None]
    if None in without:
        return Interval(value, lowest, 1.0)
    error = float(np.sqrt((runs - 1.0) ** 2 / runs * np.var(np.array(without, np.float64), ddof=1)))
    half = quantile(0.025, runs - 1) * error
    return Interval(value, max(lowest, value - half), min(1.0, value + half))


def _index(choices: Choices) -> float | None:
    """Equation 5; None where it means nothing."""
    runs, shares = len(choices), choices.mean(0)
    mean = float(shares.mean()) if runs else 0.0
    if runs < 2 or mean in (0.0, 1.0):
        return None
    return 1.0 - runs / (runs - 1.0) * float((shares * (1.0 - shares)).mean()) / (mean * (1.0 - mean))


def jaccard(choices: Choices) -> float | None:
    """Things that both of two runs choose over things that either does, as a mean over pairs of runs.

    None with fewer than two runs. Two runs that choose nothing are alike.
    """
    pairs = list(combinations(choices, 2))
    if not pairs:
        return None
    alike = []
    for one, other in pairs:
        either = int((one | other).sum())
        alike.append(int((one & other).sum()) / either if either else 1.0)
    return float(np.mean(alike))


def coin_flips(choices: Choices) -> npt.NDArray[np.int64]:
    """The things that about half of the runs (a third to two thirds) choose, by number."""
    share = choices.mean(0)
    return np.flatnonzero((share >= 1.0 / 3.0 - 1e-9) & (share <= 2.0 / 3.0 + 1e-9))


def agreement(kinds: npt.NDArray[np.int64]) -> float | None:
    """How far runs agree on what each thing is, corrected for chance: 1 where always, about 0 where drawn.

    Args:
        kinds: (M runs, d things) the number of a kind, from 0.

    Returns:
        None with fewer than two runs, or where all things are of one kind.

    Source: Fleiss, "Measuring Nominal Scale Agreement among Many Raters", Psychological Bulletin 76 (1971): runs are
    the raters.
    """
    runs = len(kinds)
    counts = np.stack([(kinds == kind).sum(0) for kind in range(int(kinds.max()) + 1)], axis=1)  # (d, kinds)
    chance = float(np.square(counts.sum(0) / kinds.size).sum())
    if runs < 2 or chance == 1.0:
        return None
    alike = float((np.square(counts).sum(1) - runs).mean()) / (runs * (runs - 1.0))
    return (alike - chance) / (1.0 - chance)
