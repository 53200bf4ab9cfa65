"""What the weights of a log's rows come to, part by part."""

from typing import Any

import numpy as np
import numpy.typing as npt

from ctr.dataset.splitting import PARTS, Codes
from ctr.errors import DataError


class PartWeights:
    """Running sums of the weights of each part and class."""

    def __init__(self) -> None:
        self._sums = np.zeros((len(PARTS), 2))
        self._rows = np.zeros(len(PARTS), np.int64)
        self._zero, self._low, self._high = 0, np.inf, 0.0

    def add(self, parts: Codes, labels: npt.NDArray[np.uint8], weights: npt.NDArray[np.float64]) -> None:
        """Take in the rows of a chunk: part, label and weight of each."""
        for part in range(len(PARTS)):
            here = parts == part
            own = weights[here]
            if len(own):
                self._sums[part] += np.bincount(labels[here], weights=own, minlength=2)
                self._rows[part] += len(own)
                self._zero += int((own == 0.0).sum())
                self._low, self._high = min(self._low, float(own.min())), max(self._high, float(own.max()))

    def check(self, weight: str) -> None:
        """Refuse a part whose rows of one class all weigh nothing.

        Raises:
            DataError: names the part and the class.
        """
        for part, name in enumerate(PARTS):
            for label, total in enumerate(self._sums[part]):
                if total <= 0.0:
                    raise DataError(
                        f'weight "{weight}": expected weights above 0 in {name}, found that all rows with label '
                        f"{label} there weigh 0; correct the column, or leave such rows out by where"
                    )

    def entry(self) -> dict[str, Any]:
        """What a manifest says: the mean over train rows, extremes, rows of weight 0, and sums per part."""
        return {
            "mean": float(self._sums[0].sum() / self._rows[0]),
            "min": float(self._low),
            "max": float(self._high),
            "zero_rows": self._zero,
            "sums": {name: float(self._sums[part].sum()) for part, name in enumerate(PARTS)},
            "positives": {name: float(self._sums[part, 1]) for part, name in enumerate(PARTS)},
        }
