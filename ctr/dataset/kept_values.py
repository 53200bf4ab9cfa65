"""Which values a feature set keeps, where no vocabulary says so: sorted fingerprints of their keys.

A fingerprint is the upper `bits` bits of a key. A kept value is always found; a value that is not kept is taken for one
with a probability of `values / 2 ** bits`, which is what `bits` is chosen by. Sorted and written as differences they
take little more than log2(1 / error) bits each.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, log2
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ctr.dataset.hashing import Keys

FILTER_ERROR = 1e-4  # largest share of dropped values that may pass for kept ones


@dataclass(frozen=True)
class KeptValues:
    """Fingerprints of kept values of all fields, and the fields whose every value is kept, seen in train or not.

    fingerprints: ascending, each once. bits: of each. unknown: fields whose dropped values read their unknown.
    """

    fingerprints: Keys
    bits: int
    whole: frozenset[str]
    unknown: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, keys: Keys, whole: Iterable[str], error: float = FILTER_ERROR, unknown: Iterable[str] = ()
    ) -> "KeptValues":
        """The kept values with the given keys, in fields that do not keep all of theirs."""
        bits = min(62, max(8, ceil(log2(max(1, len(keys)) / error))))
        return cls(np.unique(keys >> np.uint64(64 - bits)), bits, frozenset(whole), frozenset(unknown))

    @classmethod
    def everything(cls, fields: Iterable[str]) -> "KeptValues":
        """Whatever the given fields hold."""
        return cls.of(np.zeros(0, np.uint64), fields)

    def write(self, path: Path) -> None:
        """The fingerprints as parquet: sorted numbers as differences, a few bits more than log2(1 / error) each."""
        table = pa.table({"fingerprint": self.fingerprints.astype(np.int64)})
        encoding = {"fingerprint": "DELTA_BINARY_PACKED"}
        pq.write_table(table, path, use_dictionary=False, column_encoding=encoding, compression="zstd")

    def entry(self) -> dict[str, Any]:
        """As JSON, all but the fingerprints."""
        return {
            "bits": self.bits,
            "values": len(self.fingerprints),
            "error_rate": self.error_rate,
            "whole": sorted(self.whole),
            "unknown": sorted(self.unknown),
        }

    @classmethod
    def read(
        cls, path: Path, *, bits: int, values: int, whole: Iterable[str], unknown: Iterable[str]
    ) -> "KeptValues":
        """What `write` and `entry` gave.

        Raises:
            ValueError: the file does not hold as many fingerprints of so many bits, in order.
        """
        try:
            column = pq.read_table(path, columns=["fingerprint"]).column(0).to_numpy()
        except (pa.ArrowException, KeyError, OSError) as error:
            raise ValueError(f"cannot be read: {error}") from None
        if column.dtype != np.int64 or len(column) != values:
            raise ValueError(f"expected {values} whole numbers, found {len(column)} of type {column.dtype}")
        if values and (column[0] < 0 or column[-1] >> bits or (column[1:] <= column[:-1]).any()):
            raise ValueError(f"expected ascending numbers of {bits} bits")
        return cls(column.astype(np.uint64), bits, frozenset(whole), frozenset(unknown))

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
