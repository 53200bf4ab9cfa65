"""Slow and obvious versions of the optimizers: plain Python numbers, a pass over the whole table in every step."""

Vector = list[float]


class SlowLazyAdam:
    """Adam on the rows that a batch reads; all rows decay in every step."""

    def __init__(self, table: list[Vector], rate: float, decay: float) -> None:
        self.table = [list(row) for row in table]
        self.means = [[0.0 for _ in row] for row in table]
        self.squares = [[0.0 for _ in row] for row in table]
        self.rate, self.decay, self.steps = rate, decay, 0

    def step(self, gradients: list[tuple[int, Vector]]) -> None:
        """One step; `gradients` may name a row several times."""
        self.steps += 1
        for row in self.table:
            for column in range(len(row)):
                row[column] *= 1.0 - self.rate * self.decay
        totals: dict[int, Vector] = {}
        for number, gradient in gradients:
            total = totals.setdefault(number, [0.0] * len(gradient))
            for column, value in enumerate(gradient):
                total[column] += value
        for number, total in totals.items():
            for column, value in enumerate(total):
                mean = 0.9 * self.means[number][column] + 0.1 * value
                square = 0.999 * self.squares[number][column] + 0.001 * value * value
                self.means[number][column], self.squares[number][column] = mean, square
                corrected_mean = mean / (1.0 - 0.9**self.steps)
                corrected_square = square / (1.0 - 0.999**self.steps)
                self.table[number][column] -= self.rate * corrected_mean / (corrected_square**0.5 + 1e-8)
