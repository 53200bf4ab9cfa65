"""A slow and obvious version of the evidence of pairs: one row, one way at a time."""

import math
from collections.abc import Sequence


def evidence(
    contributions: Sequence[Sequence[float]], weight: float, logits: Sequence[float], labels: Sequence[int]
) -> list[float]:
    """Nats that each way alone saves, to second order.

    Args:
        contributions: of each row, what each way adds to the logit at weight 1.
        weight: that both have now.
        logits: of each row, with these.
    """
    found = []
    for way in (0, 1):
        slope = curvature = 0.0
        for adds, logit, label in zip(contributions, logits, labels, strict=True):
            chance = 1.0 / (1.0 + math.exp(-logit))
            spread = chance * (1.0 - chance)
            # The slope of the loss in this way's weight, extrapolated to where neither way adds anything.
            slope += (chance - label) * adds[way] - spread * adds[way] * weight * (adds[0] + adds[1])
            curvature += spread * adds[way] ** 2
        found.append(max(0.0, -slope) ** 2 / (2.0 * curvature) if curvature else 0.0)
    return found
