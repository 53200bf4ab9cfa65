"""DeLong by nested loops over every pair of a positive and a negative: slow and obvious."""

import math
from collections.abc import Sequence


def wins(positive: float, negative: float) -> float:
    return 1.0 if positive > negative else 0.5 if positive == negative else 0.0


def delong(labels: Sequence[int], scores: Sequence[Sequence[float]]) -> tuple[list[float], list[list[float]]]:
    """AUC of each model and their covariance matrix, as written in the paper of 1988."""
    aucs, by_positive, by_negative = [], [], []
    for model in scores:
        positives = [s for s, y in zip(model, labels, strict=True) if y == 1]
        negatives = [s for s, y in zip(model, labels, strict=True) if y == 0]
        by_positive.append([sum(wins(p, n) for n in negatives) / len(negatives) for p in positives])
        by_negative.append([sum(wins(p, n) for p in positives) / len(positives) for n in negatives])
        aucs.append(sum(by_positive[-1]) / len(positives))

    def covariance(a: list[float], b: list[float]) -> float:
        mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
        return sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True)) / (len(a) - 1)

    matrix = [
        [
            covariance(by_positive[r], by_positive[s]) / len(by_positive[r])
            + covariance(by_negative[r], by_negative[s]) / len(by_negative[r])
            for s in range(len(scores))
        ]
        for r in range(len(scores))
    ]
    return aucs, matrix


def interval(value: float, variance: float, lowest: float, highest: float) -> tuple[float, float, float]:
    half = 1.959963984540054 * math.sqrt(max(variance, 0.0))
    return value, max(lowest, value - half), min(highest, value + half)
