"""Nogueira's index and its variance, term by term as the paper writes them."""

import math
from collections.abc import Sequence


def nogueira(choices: Sequence[Sequence[bool]]) -> tuple[float, float, float]:
    runs, things = len(choices), len(choices[0])
    shares = [sum(run[f] for run in choices) / runs for f in range(things)]
    sizes = [sum(run) for run in choices]
    mean = sum(sizes) / runs
    spread = sum(runs / (runs - 1) * p * (1 - p) for p in shares) / things
    chance = mean / things * (1 - mean / things)
    value = 1 - spread / chance
    terms = []
    for run, size in zip(choices, sizes, strict=True):
        agreement = sum(chosen * p for chosen, p in zip(run, shares, strict=True)) / things
        correction = 2 * mean * size / things**2 - size / things - mean / things + 1
        terms.append((agreement - size * mean / things**2 + value / 2 * correction) / chance)
    average = sum(terms) / runs
    variance = 4 / runs**2 * sum((term - average) ** 2 for term in terms)
    half = 1.959963984540054 * math.sqrt(variance)
    return value, value - half, min(1.0, value + half)
