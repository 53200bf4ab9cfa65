"""What is gathered of a field's numbers over train rows, chunk by chunk and file by file."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass
class Statistics:
    """Running count, mean and squared distances (Chan, Golub, LeVeque 1979), minimum, maximum, of train rows.

    weight, missing_weight: sums of the weights of the rows counted in `count` and `missing`, where rows have weights.
    """

    count: int = 0
    missing: int = 0
    weight: float = 0.0
    missing_weight: float = 0.0
    mean: float = 0.0
    square: float = 0.0
    low: float = np.inf
    high: float = -np.inf

    def add(self, values: Floats, weights: Floats | None) -> None:
        """Take in a chunk's numbers, NaN where missing, and the weights of its rows."""
        absent = np.isnan(values)
        self.missing += int(absent.sum())
        if weights is not None:
            self.missing_weight += float(weights[absent].sum())
            self.weight += float(weights[~absent].sum())
        values = values[~absent]
        if len(values) == 0:
            return
        count, mean = len(values), float(values.mean())
        square = float(((values - mean) ** 2).sum())
        both, step = self.count + count, mean - self.mean
        self.square += square + step * step * self.count * count / both
        self.mean += step * count / both
        self.count = both
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    def plus(self, other: "Statistics") -> "Statistics":
        """Of the rows of both; the order matters in the last bits."""
        missing, missing_weight = self.missing + other.missing, self.missing_weight + other.missing_weight
        if self.count == 0 or other.count == 0:
            there = self if other.count == 0 else other
            return replace(there, missing=missing, missing_weight=missing_weight)
        count, step = self.count + other.count, other.mean - self.mean
        return Statistics(
            count,
            missing,
            self.weight + other.weight,
            missing_weight,
            self.mean + step * other.count / count,
            self.square + other.square + step * step * self.count * other.count / count,
            min(self.low, other.low),
            max(self.high, other.high),
        )
