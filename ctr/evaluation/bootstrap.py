"""How an AUC, or the difference of two, varies over other rows from the same source, where rows have weights.

Efron and Tibshirani, "An Introduction to the Bootstrap", 1993: rows are drawn again with replacement, each with its
weight, and the spread of the AUC over such draws is its standard error. Draws are Poisson with mean 1 per row, which
for many rows is the same as drawing as many rows as there are (Chamandy et al., "Estimating Uncertainty for Massive
Data Streams", Google 2012).
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ctr.evaluation.metrics import Floats, area

# A standard error from R draws is right to about 1 / sqrt(2 R): 2 % for small logs, 5 % for large ones.
_MOST, _FEWEST, _ROW_DRAWS = 1000, 200, 100_000_000


def _poisson_table() -> npt.NDArray[np.uint8]:
    """(65536,) counts whose shares are those of a Poisson variable with mean 1, as nearly as 16 bits can say."""
    total = np.cumsum(np.exp(-1.0) / np.cumprod(np.concatenate(([1.0], np.arange(1.0, 12.0)))))
    return np.searchsorted(total, (np.arange(65536) + 0.5) / 65536).astype(np.uint8)


class WeightedRanking:
    """Rows in the order of a score, ready for the AUC under any weights.

    Args:
        labels: (B,) 0 or 1.
        scores: (B,).
    """

    def __init__(self, labels: Floats, scores: Floats) -> None:
        self._order = np.argsort(scores, kind="stable")
        ordered = scores[self._order]
        self._starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
        self._labels = labels[self._order]

    def auc(self, weights: Floats) -> float:
        """The share of pairs (positive, negative) in the right order, each weighing the product of its rows' weights.

        Ties count one half. NaN where a class has no weight.
        """
        mass = weights[self._order]
        positive = np.add.reduceat(mass * self._labels, self._starts)  # per group of ties
        negative = np.add.reduceat(mass, self._starts) - positive
        return area(positive, negative)


def draws(weights: Floats, seed: int, clusters: npt.NDArray[np.int64] | None = None) -> Iterator[Floats]:
    """Weights (B,) of the rows in each bootstrap draw.

    Args:
        weights: (B,) of the rows themselves.
        seed: of the draws.
        clusters: (B,) number of each row's cluster, from 0; all rows of a cluster are drawn together.
    """
    rows = len(weights)
    drawn = rows if clusters is None else int(clusters.max(initial=-1)) + 1
    table, random = _poisson_table(), np.random.default_rng(seed)
    for _ in range(int(np.clip(_ROW_DRAWS // max(rows, 1), _FEWEST, _MOST))):
        counts = table[random.integers(0, 65536, drawn, dtype=np.uint16)]
        yield weights * (counts if clusters is None else counts[clusters])
