"""Which crosses are frequent, in bounded memory: a count-min sketch.

Cormode & Muthukrishnan, "An Improved Data Stream Summary: the Count-Min Sketch", 2005, with the conservative update of
Estan & Varghese, 2002: a cross has two counters, at the two words of its key (`ctr.dataset.crosses`), and the smaller
one says how often it was seen. Counters are shared, so a count may be too high and is never too low: a rare cross may
be taken for a frequent one, and then reads a row that frequent ones share instead of its pair's unknown cross.

How many crosses of a pair are frequent is not told by the counters, which pairs share: it is estimated from a sample of
its crosses, by their keys, that is counted exactly.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from ctr.dataset.crosses import Bits, FeatureColumn, compacted, joint_keys, pair_salts
from ctr.dataset.hashing import PRIME, Ints
from ctr.dataset.pairs import PairNames

LARGEST_COUNT = 255  # what a counter stops at
_SAMPLED = 256  # crosses of a pair, at least, whose rows are counted exactly
CHUNK = 1 << 18  # rows


class CrossSketch:
    """Counts the crosses of pairs.

    Attributes:
        frequent: of each pair, how many different crosses `min_count` rows hold: exact where it has few, else about.

    Args:
        columns: of each field.
        pairs: whose crosses are counted.
        words: (V + 1, 4) of features.
        min_count: rows that a cross needs, at most 255.
        size: bytes of the counters, one each. Samples take a quarter of it more, or 4 kB for each pair.
    """

    def __init__(
        self,
        columns: Mapping[str, FeatureColumn],
        pairs: Sequence[PairNames],
        words: npt.NDArray[np.int32],
        min_count: int,
        size: int,
    ) -> None:
        # A multiple of eight, so that the bits of a row of counters fill whole bytes.
        self._counters = np.zeros((2, max(8, size // 16 * 8)), np.uint8)
        self._min_count = min_count
        samples = {pair: _Sample(max(_SAMPLED, size // (64 * len(pairs)))) for pair in pairs}
        salts = dict(zip(pairs, pair_salts(pairs), strict=True))
        rows = len(next(iter(columns.values()))) if columns else 0
        for start in range(0, rows, CHUNK):
            chunk = {name: compacted(column[start : start + CHUNK]) for name, column in columns.items()}
            for a, b in pairs:
                keys, counts = joint_keys(chunk[a], chunk[b], words, salts[a, b])
                self._add(keys, counts)
                samples[a, b].add(keys, counts)
        self.frequent = {pair: sample.frequent(min_count) for pair, sample in samples.items()}

    def _add(self, keys: Ints, counts: Ints) -> None:
        """Add counts of different keys."""
        width = self._counters.shape[1]
        places = (keys >> 31) % width, (keys & PRIME) % width
        before = np.minimum(*(counters[at] for counters, at in zip(self._counters, places, strict=True)))
        after = np.minimum(before + counts, LARGEST_COUNT).astype(np.uint8)
        for counters, at in zip(self._counters, places, strict=True):
            np.maximum.at(counters, at, after)

    def bits(self) -> Bits:
        """(2, W) bytes of 8 bits: whether each counter reached `min_count`; both of a frequent cross did."""
        return np.packbits(self._counters >= self._min_count, axis=1, bitorder="little")


class _Sample:
    """Some of the crosses of a pair, drawn by a word of their keys, and how many rows hold each of them.

    Args:
        size: crosses that it holds at most; where there are more, the share that is drawn is halved.
    """

    def __init__(self, size: int) -> None:
        self._size, self._limit = size, PRIME
        self._keys, self._counts = np.zeros(0, np.int64), np.zeros(0, np.int64)

    def add(self, keys: Ints, counts: Ints) -> None:
        """Add counts of different keys."""
        drawn = (keys >> 31) < self._limit
        together = np.concatenate([self._keys, keys[drawn]])
        self._keys, places = np.unique(together, return_inverse=True)
        weights = np.concatenate([self._counts, counts[drawn]])
        self._counts = np.bincount(places, weights, len(self._keys)).astype(np.int64)
        while len(self._keys) > self._size:
            self._limit //= 2
            left = (self._keys >> 31) < self._limit
            self._keys, self._counts = self._keys[left], self._counts[left]

    def frequent(self, min_count: int) -> int:
        """How many crosses of the pair so many rows hold, about."""
        return round(int((self._counts >= min_count).sum()) * PRIME / self._limit)
