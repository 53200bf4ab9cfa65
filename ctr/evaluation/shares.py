"""A 95 % interval of a share."""

import math

from ctr.evaluation.intervals import Z95, Interval


def share_interval(part: int, whole: int) -> Interval:
    """Of `part` out of `whole` > 0 independent trials; it never leaves [0, 1], and is no point where `part` is 0.

    Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    value, weight = part / whole, Z95**2 / whole
    middle = (value + weight / 2.0) / (1.0 + weight)
    half = Z95 * math.sqrt(value * (1.0 - value) / whole + weight / (4.0 * whole)) / (1.0 + weight)
    return Interval(value, max(0.0, middle - half), min(1.0, middle + half))
