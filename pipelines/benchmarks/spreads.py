"""Mean and standard deviation over seeds, as tables show them."""

from collections.abc import Sequence

import numpy as np


def mean_and_spread(values: Sequence[float], sign: str = "") -> str:
    """`0.7461 (0.0076)`.

    Args:
        sign: "+" shows the sign of the mean always.
    """
    spread = np.std(values, ddof=1) if len(values) > 1 else float("nan")
    return f"{np.mean(values):{sign}.4f} ({spread:.4f})"


def paired_gain(values: Sequence[float], others: Sequence[float]) -> str:
    """The differences, seed by seed."""
    return mean_and_spread([one - other for one, other in zip(values, others, strict=True)], "+")
