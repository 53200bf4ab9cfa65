"""A slow and obvious version of the screen of pairs: one row, one cross at a time, plain Python numbers."""

import math
from collections.abc import Mapping, Sequence

Row = Mapping[str, int]


def nats(
    rows: Sequence[Row],
    pair: tuple[str, str],
    labels: Sequence[int],
    weights: Sequence[float],
    half: Sequence[bool],
    *,
    shrink: float,
    prior: float,
    sweeps: int,
    furthest: float,
) -> float:
    """Nats that the crosses of a pair save.

    Args:
        rows: the number of each field's feature, 0 where it is dropped.
        half: which half each row is in.
        shrink, prior, sweeps, furthest: the constants of the screen.
    """

    def step(slope: float, curvature: float, held: float) -> float:
        return max(-furthest, min(furthest, slope / (curvature + held)))

    total = 0.0
    for learns in (False, True):
        learners = [number for number, side in enumerate(half) if side == learns]
        judges = [number for number, side in enumerate(half) if side != learns]
        clicks = sum(weights[number] * labels[number] for number in learners)
        others = sum(weights[number] for number in learners) - clicks
        start = math.log((clicks + 0.5) / (others + 0.5))
        effects: dict[tuple[str, int], float] = {}

        def chance(
            row: Row, start: float = start, effects: Mapping[tuple[str, int], float] = effects
        ) -> float:
            return 1.0 / (1.0 + math.exp(-start - sum(effects.get(value, 0.0) for value in row.items())))

        for _ in range(sweeps):
            for field in rows[0]:
                moves = {}
                for value in {rows[number][field] for number in learners}:
                    slope = -prior * effects.get((field, value), 0.0)
                    curvature = 0.0
                    for number in learners:
                        if rows[number][field] == value:
                            p = chance(rows[number])
                            slope += weights[number] * (labels[number] - p)
                            curvature += weights[number] * p * (1.0 - p)
                    moves[field, value] = step(slope, curvature, prior)
                for key, move in moves.items():
                    effects[key] = effects.get(key, 0.0) + move

        def sums(cross: tuple[int, int], of: Sequence[int]) -> tuple[float, float]:
            slope = curvature = 0.0
            for number in of:
                if (rows[number][pair[0]], rows[number][pair[1]]) == cross:
                    p = chance(rows[number])
                    slope += weights[number] * (labels[number] - p)
                    curvature += weights[number] * p * (1.0 - p)
            return slope, curvature

        slope = curvature = 0.0
        for cross in {(row[pair[0]], row[pair[1]]) for row in rows}:
            if 0 in cross:
                continue
            adds = step(*sums(cross, learners), shrink)
            here = sums(cross, judges)
            slope += here[0] * adds
            curvature += here[1] * adds**2
        if curvature > 0.0:
            total += max(0.0, slope) ** 2 / (2.0 * curvature)
    return total
