"""Which crosses are frequent, in bounded memory: a count-min sketch.

Cormode & Muthukrishnan, "An Improved Data Stream Summary: the Count-Min Sketch", 2005, with the conservative update of
Estan & Varghese, 2002: a cross has two counters, at the two words of its key (`ctr.dataset.crosses`), and the smaller
one says how often it was seen. Counters are shared, so a count may be too high and is never too low: a rare cross may
be taken for a frequent one, and then reads a row that frequent ones share instead of its pair's unknown cross.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ctr.dataset.crosses import Bits, compacted, joint_keys, pair_salts
from ctr.dataset.hashing import PRIME, Ints
from ctr.dataset.pairs import PairNames

_FULL = 255  # what a counter stops at
CHUNK = 1 << 18  # rows


class CrossSketch:
    """Counts the crosses of pairs.

    Attributes:
        frequent: of each pair, how many different crosses reached `min_count`, about.

    Args:
        columns: (N,) numbers of features of each field in train rows, 0 where it is dropped; may be memory-mapped.
        pairs: whose crosses are counted.
        words: (V + 1, 4) of features.
        min_count: rows that a cross needs, at most 255.
        size: bytes of the counters, one each.
    """

    def __init__(
        self,
        columns: Mapping[str, Ints],
        pairs: Sequence[PairNames],
        words: npt.NDArray[np.int32],
        min_count: int,
        size: int,
    ) -> None:
        # A multiple of eight, so that the bits of a row of counters fill whole bytes.
        self._counters = np.zeros((2, max(8, size // 16 * 8)), np.uint8)
        self._min_count = min_count
        self.frequent = dict.fromkeys(pairs, 0)
        salts = dict(zip(pairs, pair_salts(pairs), strict=True))
        rows = len(next(iter(columns.values()))) if columns else 0
        for start in range(0, rows, CHUNK):
            chunk = {name: compacted(column[start : start + CHUNK]) for name, column in columns.items()}
            for a, b in pairs:
                keys, counts = joint_keys(chunk[a], chunk[b], words, salts[a, b])
                self.frequent[a, b] += self._add(keys, counts)

    def _add(self, keys: Ints, counts: Ints) -> int:
        """Add counts of different keys; how many of them became frequent by it."""
        width = self._counters.shape[1]
        places = (keys >> 31) % width, (keys & PRIME) % width
        before = np.minimum(*(counters[at] for counters, at in zip(self._counters, places, strict=True)))
        after = np.minimum(before + counts, _FULL).astype(np.uint8)
        for counters, at in zip(self._counters, places, strict=True):
            np.maximum.at(counters, at, after)
        return int(((before < self._min_count) & (after >= self._min_count)).sum())

    def bits(self) -> Bits:
        """(2, W) bytes of 8 bits: whether each counter reached `min_count`; both of a frequent cross did."""
        return np.packbits(self._counters >= self._min_count, axis=1, bitorder="little")
