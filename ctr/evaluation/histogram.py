"""AUC of rows that do not fit into memory: masses of both classes by bins of probability, in constant memory.

Bins follow the bits of a probability, or of what it lacks to 1 where it is above one half: they are as fine for small
probabilities as for large ones (6e-5 of the value, from 2e-10 on), and never put a larger probability into a lower bin.
So the order of rows in different bins is right, and what is unknown is the order of the pairs (positive, negative)
within a bin. These count one half, the truth lies between none and all of them: the AUC of a histogram differs from the
exact one by no more than half the share of such pairs, which the histogram knows.
"""

from typing import Self

import numpy as np
import numpy.typing as npt

from ctr.evaluation.metrics import Floats, area

_MANTISSA = 14  # bits of it that tell bins apart
_LOWEST = -32  # exponent of the smallest probability that has a bin of its own
_SHIFT = 52 - _MANTISSA
_OFFSET = int(np.array([2.0**_LOWEST]).view(np.int64)[0]) >> _SHIFT
_HALF = (int(np.array([0.5]).view(np.int64)[0]) >> _SHIFT) - _OFFSET + 1  # bins up to one half
BINS = 2 * _HALF


def bins_of(probabilities: Floats) -> npt.NDArray[np.int64]:
    """The bin (B,) of each probability (B,), from 0 to BINS - 1, in the same order."""
    rest = np.minimum(probabilities, 1.0 - probabilities)  # exact from one half on (Sterbenz)
    found = np.maximum((rest.view(np.int64) >> _SHIFT) - _OFFSET, 0)
    return np.asarray(np.where(probabilities < 0.5, found, BINS - 1 - found))


class Histogram:
    """Mass of positives, mass of negatives and sum of probabilities (each times the row's weight) by bin."""

    def __init__(self) -> None:
        self.positives, self.negatives, self.expected = np.zeros(BINS), np.zeros(BINS), np.zeros(BINS)

    def add(self, labels: Floats, probabilities: Floats, mass: Floats) -> None:
        """Take in rows: labels (B,) 0 or 1, probabilities (B,) from 0 to 1, mass (B,) how much each counts."""
        bins = bins_of(probabilities)
        self.positives += np.bincount(bins, labels * mass, BINS)
        self.negatives += np.bincount(bins, (1.0 - labels) * mass, BINS)
        self.expected += np.bincount(bins, probabilities * mass, BINS)

    def merge(self, other: Self) -> None:
        """Take in what another histogram has taken in."""
        self.positives += other.positives
        self.negatives += other.negatives
        self.expected += other.expected

    @property
    def auc(self) -> float:
        """Pairs in one bin count one half. NaN where a class has no mass."""
        return area(self.positives, self.negatives)

    @property
    def auc_error(self) -> float:
        """How far `auc` can be from the exact one at most: half the share of pairs in one bin."""
        pairs = self.positives.sum() * self.negatives.sum()
        return float(self.positives @ self.negatives / pairs / 2.0) if pairs > 0.0 else float("nan")

    def influence(self, labels: Floats, probabilities: Floats, mass: Floats) -> Floats:
        """What each of some rows (B,) moves `auc` by; as `ctr.evaluation.estimates.ranked` says of exact ranks."""
        positive, negative = self.positives.sum(), self.negatives.sum()
        below = (np.cumsum(self.negatives) - self.negatives / 2.0) / negative
        above = 1.0 - (np.cumsum(self.positives) - self.positives / 2.0) / positive
        bins, auc = bins_of(probabilities), self.auc
        moved = np.where(labels == 1.0, (below[bins] - auc) / positive, (above[bins] - auc) / negative)
        return np.asarray(mass * moved)
