"""The interval of the expected calibration error: what gaps could be, given those that chance makes.

The error is the sum over bins of |gap|, each weighted by its mass, and so it never falls to zero: a perfect model on
few rows has one too, of pure chance. The usual interval, a value with something on both sides, would lie above the
truth. This one inverts a test instead. True gaps are taken to be c times those that were found, smoothed; for each c,
gaps are drawn around them with the covariance that rows (or clusters) give them, and the error is computed as it is of
the log. In the interval is every c of which an error as low, and as high, as the one found comes in 2.5 % of draws.
At c = 0 the model is perfect: where that explains what was found, the lower bound is 0.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ctr.evaluation.metrics import Floats

Codes = npt.NDArray[np.int64]
MOST_SUMS = 100_000_000  # clusters times bins whose sums are held: 800 MB
_DRAWS, _TAIL, _STEPS = 2000, 0.025, 16
_NEIGHBOURS = 5  # bins whose gaps are taken for one


class Gaps:
    """Gaps (K,) between promised and observed clicks by bin, and their covariance; rows come in batches.

    Args:
        promised, observed: (K,) mean probability and share of clicks of each bin. mass: (K,) of it.
        clusters: number of clusters; None where each row is its own.
    """

    def __init__(self, promised: Floats, observed: Floats, mass: Floats, clusters: int | None = None) -> None:
        bins = len(mass)
        self._total = mass.sum()
        self.gaps = (promised - observed) * mass / self._total
        self._moments = np.zeros((3, bins))  # by bin, of rows: squared weights times 1, gap, and squared gap
        self._sums = None if clusters is None else np.zeros((clusters, bins))
        self._masses = np.zeros(clusters or 0)

    def add(
        self, labels: Floats, probabilities: Floats, mass: Floats, bins: Codes, clusters: Codes | None
    ) -> None:
        """Take in rows (B,): labels 0 or 1, probabilities, weights, and numbers of bins and clusters."""
        gap, share = probabilities - labels, mass / self._total
        width = len(self.gaps)
        if self._sums is None:
            for power, moment in enumerate(self._moments):
                moment += np.bincount(bins, share**2 * gap**power, width)
            return
        assert clusters is not None, "the spread is one of clusters"
        cells = np.bincount(clusters * width + bins, share * gap, self._sums.size)
        self._sums += cells.reshape(self._sums.shape)
        self._masses += np.bincount(clusters, share, len(self._masses))

    def bounds(self) -> tuple[float, float]:
        """95 % bounds of the expected calibration error, in which chance alone is no error."""
        spread = self._spread()
        found = float(np.abs(self.gaps).sum())
        if found == 0.0 or not spread.any():
            return found, found
        noise = np.random.default_rng(0).normal(size=(_DRAWS, len(self.gaps))) @ spread.T
        pattern = _smoothed(self.gaps)
        size = float(np.abs(pattern).sum())

        def share(factor: float, *, above: bool) -> float:
            drawn = np.abs(factor * pattern + noise).sum(1)
            return float(np.mean(drawn >= found if above else drawn <= found))

        if share(0.0, above=False) < _TAIL:
            return 0.0, 0.0  # even a perfect model seldom comes so close
        highest = 1.0
        while share(highest, above=False) >= _TAIL:
            highest *= 2.0
        high = _crossing(lambda c: share(c, above=False) >= _TAIL, highest)
        if share(0.0, above=True) >= _TAIL:
            return 0.0, high * size
        return _crossing(lambda c: share(c, above=True) < _TAIL, highest) * size, high * size

    def _spread(self) -> Floats:
        """(K, K) whose product with itself, transposed, is the covariance of the gaps.

        A row moves the gap of its own bin by its share of the mass times its gap, and all of them as the mass grows.
        """
        if self._sums is None:
            weight, first, second = self._moments
            crossed = np.outer(first, self.gaps)
            covariance = np.diag(second) - crossed - crossed.T
            covariance += weight.sum() * np.outer(self.gaps, self.gaps)
        else:
            moved = self._sums - np.outer(self._masses, self.gaps)
            there = int((self._masses > 0.0).sum())
            covariance = moved.T @ moved * (there / max(there - 1, 1))
        values, vectors = np.linalg.eigh(covariance)
        found: Floats = vectors * np.sqrt(np.maximum(values, 0.0))
        return found


def _smoothed(gaps: Floats) -> Floats:
    """Means over neighbours: what is wrong with a model changes slowly with its promise, and what chance adds does not.

    Where chance is left in a pattern, gaps drawn around it are folded at zero more often than true ones.
    """
    window = np.ones(min(_NEIGHBOURS, len(gaps)))
    found: Floats = np.convolve(gaps, window, "same") / np.convolve(np.ones(len(gaps)), window, "same")
    return found


def _crossing(holds: Callable[[float], bool], highest: float) -> float:
    """The largest factor up to `highest` for which something holds that holds at 0, and once it ends never again."""
    low, high = 0.0, highest
    for _ in range(_STEPS):
        middle = (low + high) / 2.0
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
