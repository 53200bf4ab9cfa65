"""Which values a feature set keeps, where no vocabulary says so: sorted fingerprints of their keys.

A fingerprint is the upper `bits` bits of a key. A kept value is always found; a value that is not kept is taken for one
with a probability of `values / 2 ** bits`, which is what `bits` is chosen by. Sorted and written as differences they
take little more than log2(1 / error) bits each.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, log2

import numpy as np
import numpy.typing as npt

from ctr.dataset.hashing import Keys

FILTER_ERROR = 1e-4  # largest share of dropped values that may pass for kept ones


@dataclass(frozen=True)
class KeptValues:
    """Fingerprints of kept values of all fields, and the fields whose every value is kept, seen in train or not.

    fingerprints: ascending, each once. bits: of each.
    """

    fingerprints: Keys
    bits: int
    whole: frozenset[str]

    @classmethod
    def of(cls, keys: Keys, whole: Iterable[str], error: float = FILTER_ERROR) -> "KeptValues":
        """The kept values with the given keys, in fields that do not keep all of theirs."""
        bits = min(64, max(8, ceil(log2(max(1, len(keys)) / error))))
        return cls(np.unique(keys >> np.uint64(64 - bits)), bits, frozenset(whole))

    @classmethod
    def everything(cls, fields: Iterable[str]) -> "KeptValues":
        """Whatever the given fields hold."""
        return cls.of(np.zeros(0, np.uint64), fields)

    @property
    def error_rate(self) -> float:
        """The share of values that are not kept, but taken for kept ones."""
        return len(self.fingerprints) / 2.0**self.bits

    def hold(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Whether each key is one of a kept value, of any field."""
        if not len(self.fingerprints):
            return np.zeros(keys.shape, np.bool_)
        wanted = keys >> np.uint64(64 - self.bits)
        at = np.searchsorted(self.fingerprints, wanted)
        found: npt.NDArray[np.bool_] = self.fingerprints[np.minimum(at, len(self.fingerprints) - 1)] == wanted
        return found
