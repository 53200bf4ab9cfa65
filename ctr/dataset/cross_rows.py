"""Where crosses are in their table, found by NumPy: what `ctr.network.crosses` finds by PyTorch, row for row.

Shapes: B rows, S single-valued fields, M memorized pairs, A admitted crosses.

Row 0 is what a cross with a dropped feature reads; 1 to M are the unknown crosses of the pairs; then come admitted
crosses, each at its place among the admitted keys, or hashed to one of the rows that a budget has left.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ctr.dataset.crosses import CrossKeys, cuckoo_places
from ctr.dataset.hashing import PRIME, Ints

_Truths = npt.NDArray[np.bool_]


class CrossRows:
    """(B, S) numbers of features -> (B, M) rows of crosses.

    Args:
        keys: what crosses are found by.
        slots: of the two fields of each pair.
        rows: of the table, row 0 included.
        hashed: whether admitted crosses share the rows that are left.

    Raises:
        ValueError: pairs, rows and keys do not fit.
    """

    def __init__(self, keys: CrossKeys, slots: Sequence[tuple[int, int]], rows: int, hashed: bool) -> None:
        if len(keys.pairs) != len(slots):
            raise ValueError(f"expected crosses of {len(slots)} pairs, found {len(keys.pairs)}")
        if keys.sketch is not None and not hashed:
            raise ValueError("a sketch of crosses needs rows that they share")
        self._own = rows - 1 - len(slots)  # rows that admitted crosses have
        found = len(keys.admitted) if keys.sketch is None else 1
        if self._own < (min(found, 1) if hashed else found):
            raise ValueError(f"{rows} rows are too few for the crosses of {len(slots)} pairs")
        pairs = np.array(slots, np.int64).reshape(-1, 2)
        self._first, self._second = pairs[:, 0], pairs[:, 1]
        self._keys, self._salts, self._hashed = keys, keys.salts, hashed
        self._places = cuckoo_places(keys.admitted)

    def __call__(self, ids: Ints) -> Ints:
        """(B, S) numbers -> (B, M) rows."""
        words = self._keys.words[ids].astype(np.int64)  # (B, S, 4)
        one, two = (
            (words[:, self._first, word] + words[:, self._second, 2 + word] + self._salts[:, word]) % PRIME
            for word in (0, 1)
        )  # (B, M)
        pairs = len(self._first)
        at, there = self._placed(one, two) if self._keys.sketch is None else (one, self._sketched(one, two))
        if self._hashed and self._own:
            at = (one * (two + 1)) % PRIME % self._own
        rows = np.where(there, at + pairs + 1, np.arange(1, pairs + 1))
        present = ids > 0
        found: Ints = rows * (present[:, self._first] & present[:, self._second])
        return found

    def _placed(self, one: Ints, two: Ints) -> tuple[Ints, _Truths]:
        """Places among the admitted keys, and whether they are there, for the words of keys (B, M)."""
        admitted, keys = self._keys.admitted, one * (PRIME + 1) + two
        at, there = np.zeros_like(keys), np.zeros(keys.shape, np.bool_)
        if not len(admitted):
            return at, there
        for word in (one, two):
            place = self._places[word & (len(self._places) - 1)]
            match = admitted[place] == keys
            at, there = np.where(match, place, at), there | match
        return at, there

    def _sketched(self, one: Ints, two: Ints) -> _Truths:
        """Whether both bits of crosses are set, for the words of keys (B, M)."""
        assert self._keys.sketch is not None
        found = np.ones(one.shape, np.bool_)
        for bits, word in zip(self._keys.sketch, (one, two), strict=True):
            at = word % (8 * len(bits))
            found &= (bits[at >> 3] >> (at & 7).astype(np.uint8)) & 1 > 0
        return found
