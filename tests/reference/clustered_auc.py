"""Obuchowski, "Nonparametric Analysis of Clustered ROC Curve Data", Biometrics 1997, by nested loops."""

import math
from collections import defaultdict
from collections.abc import Sequence

from tests.reference.auc import wins


def clustered_error(
    labels: Sequence[int], scores: Sequence[Sequence[float]], clusters: Sequence[object]
) -> float:
    """Standard error of the AUC of one model, or of the difference of two (second minus first)."""
    sums: dict[object, float] = defaultdict(float)
    for sign, model in zip((1.0,) if len(scores) == 1 else (-1.0, 1.0), scores, strict=True):
        positives = [s for s, y in zip(model, labels, strict=True) if y == 1]
        negatives = [s for s, y in zip(model, labels, strict=True) if y == 0]
        auc = sum(wins(p, n) for p in positives for n in negatives) / len(positives) / len(negatives)
        for score, label, cluster in zip(model, labels, clusters, strict=True):
            if label == 1:
                share = sum(wins(score, n) for n in negatives) / len(negatives)
                sums[cluster] += sign * (share - auc) / len(positives)
            else:
                share = sum(wins(p, score) for p in positives) / len(positives)
                sums[cluster] += sign * (share - auc) / len(negatives)
    count = len(sums)
    return math.sqrt(count / (count - 1) * sum(value**2 for value in sums.values()))
