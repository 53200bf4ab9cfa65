"""Mean, standard deviation and interval over seeds, as tables show them."""

from collections.abc import Sequence

import numpy as np
from scipy import stats


def mean_and_spread(values: Sequence[float], sign: str = "") -> str:
    """`0.7461 (0.0076)`.

    Args:
        sign: "+" shows the sign of the mean always.
    """
    spread = np.std(values, ddof=1) if len(values) > 1 else float("nan")
    return f"{np.mean(values):{sign}.4f} ({spread:.4f})"


def half_of_interval(values: Sequence[float], level: float = 0.95) -> float:
    """Half of Student's interval of their mean; NaN of one value."""
    if len(values) < 2:
        return float("nan")
    return float(
        stats.t.ppf((1 + level) / 2, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    )


def paired_gain(values: Sequence[float], others: Sequence[float]) -> str:
    """The differences, seed by seed."""
    return mean_and_spread([one - other for one, other in zip(values, others, strict=True)], "+")
