"""Nogueira's index, term by term as the paper writes it, and its jackknife."""

import math
from collections.abc import Sequence

Choices = Sequence[Sequence[bool]]


def nogueira(choices: Choices) -> float:
    runs, things = len(choices), len(choices[0])
    shares = [sum(run[f] for run in choices) / runs for f in range(things)]
    mean = sum(sum(run) for run in choices) / runs
    spread = sum(runs / (runs - 1) * p * (1 - p) for p in shares) / things
    return 1 - spread / (mean / things * (1 - mean / things))


def jackknife_error(choices: Choices) -> float:
    runs = len(choices)
    without = [
        nogueira([run for number, run in enumerate(choices) if number != left]) for left in range(runs)
    ]
    average = sum(without) / runs
    return math.sqrt((runs - 1) / runs * sum((value - average) ** 2 for value in without))
