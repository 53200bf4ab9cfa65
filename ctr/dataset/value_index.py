"""Values -> ids without a table of Python objects."""

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.hashing import hashes

Ids = npt.NDArray[np.int32]


class ValueIndex:
    """Text -> id by binary search over sorted 64-bit hashes; a hit is confirmed by the text itself.

    Cheap to build, and a look-up of few values costs nothing that grows with the vocabulary but its logarithm.
    """

    def __init__(self, values: pl.Series, ids: Ids) -> None:
        found = hashes(values)
        order = np.argsort(found, kind="stable")
        self._hashes, self._values, self._ids = found[order], values.gather(order), ids[order]

    def __len__(self) -> int:
        return len(self._ids)

    def look_up(self, values: pl.Series, default: int) -> Ids:
        """Id of each text without nulls, `default` where it has none."""
        result = np.full(len(values), default, np.int32)
        if len(self) == 0 or len(values) == 0:
            return result
        wanted = hashes(values)
        # Sorted look-ups walk through memory in one direction.
        todo = np.argsort(wanted)
        at = np.searchsorted(self._hashes, wanted[todo])
        while len(todo):
            inside = at < len(self)
            todo, at = todo[inside], at[inside]
            same = self._hashes[at] == wanted[todo]
            todo, at = todo[same], at[same]
            equal = (self._values.gather(at) == values.gather(todo)).to_numpy()
            result[todo[equal]] = self._ids[at[equal]]
            todo, at = todo[~equal], at[~equal] + 1  # another text with the same hash
        return result
