"""What a model promised and what came, by bins of equal mass: the reliability diagram behind the calibration error."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctr.evaluation.intervals import Z95
from ctr.evaluation.metrics import BINS, Floats, equal_mass_bins


class Reliability(NamedTuple):
    """Bins (K,), ascending: mean probability, share of clicks with its 95 % bounds, mass, and the first group of ties.

    Bounds by Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", Journal of the American
    Statistical Association 1927, as if `mass` were a number of rows.
    """

    promised: Floats
    observed: Floats
    low: Floats
    high: Floats
    mass: Floats
    first: NDArray[np.int64]

    @property
    def error(self) -> float:
        """The expected calibration error: see `ctr.evaluation.metrics.calibration_error`."""
        return float(np.abs(self.promised - self.observed) @ self.mass / self.mass.sum())


def reliability(clicks: Floats, expected: Floats, mass: Floats, bins: int = BINS) -> Reliability:
    """Cut into bins of as equal a mass as ties allow.

    Args:
        clicks: (T,) mass of positives of rows with one probability, ascending by it.
        expected: (T,) sum of their probabilities, each times its weight.
        mass: (T,) of them.
        bins: how many at most.
    """
    chosen = equal_mass_bins(mass, bins)
    sums = [np.bincount(chosen, values, bins).astype(np.float64) for values in (clicks, expected, mass)]
    there = sums[2] > 0.0
    first = np.searchsorted(chosen, np.flatnonzero(there))  # ties are ascending, and so are their bins
    positives, promised, total = (values[there] for values in sums)
    share = positives / total
    square = Z95**2 / total
    centre, half = share + square / 2.0, np.sqrt(square * (share * (1.0 - share) + square / 4.0))
    low, high = (centre - half) / (1.0 + square), (centre + half) / (1.0 + square)
    return Reliability(promised / total, share, low, high, total, first)
