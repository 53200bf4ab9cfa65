"""How many values of other rows a bundle has no feature for: never seen in training, too rare, or dropped."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.encoding import FieldEncoder
from ctr.dataset.placed import PlacedKeys
from ctr.serving.scorer import Scorer


@dataclass
class _Counts:
    values: int = 0
    unseen: int = 0
    missing: int = 0


class UnseenValues:
    """Counts, by field, over the rows of a log.

    Scaled numbers and vectors have no values that could be unseen, and of a field with hashed values that are all kept
    nobody knows which ones training saw: these fields are left out.

    Args:
        scorer: of the bundle.
    """

    def __init__(self, scorer: Scorer) -> None:
        reader = scorer.reader
        self._kept = reader.kept if isinstance(reader, PlacedKeys) else None
        self._hashed = scorer.bundle.manifest.encoding == "hashed"
        whole = self._kept.whole if self._kept is not None else frozenset()
        self._encoders = [
            encoder
            for encoder in scorer.encoder.encoders
            if not encoder.spec.scaled
            and encoder.spec.kind != "vector"
            and not (self._hashed and (encoder.spec.shares or encoder.spec.name) in whole)
        ]
        self._counts = {encoder.spec.name: _Counts() for encoder in self._encoders}

    def add(self, prepared: pl.DataFrame, encoded: pl.DataFrame) -> None:
        """Take in rows: as they were prepared, and as they were encoded."""
        for encoder in self._encoders:
            name = encoder.spec.name
            cells, ids = prepared[name], encoded[name]
            if encoder.spec.kind == "list":
                there = cells.list.len().fill_null(0) > 0
                flat = ids.filter(there).explode().to_numpy()
            else:
                there = cells.is_not_null()
                flat = ids.filter(there).to_numpy()
            counts = self._counts[name]
            counts.values += len(flat)
            counts.unseen += len(flat) - int(self._has_feature(encoder, flat).sum())
            counts.missing += len(there) - int(there.sum())

    def _has_feature(self, encoder: FieldEncoder, ids: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        if self._kept is not None:
            return self._kept.hold(np.ascontiguousarray(ids).view(np.uint64))
        return np.asarray((ids != 0) & (ids != encoder.unknown))

    def entry(self) -> dict[str, dict[str, float | None]]:
        """By field: values (items of lists), how many are unseen, their share, and rows without a value."""
        return {
            name: {
                "values": counts.values,
                "unseen": counts.unseen,
                "share": counts.unseen / counts.values if counts.values else None,
                "missing": counts.missing,
            }
            for name, counts in self._counts.items()
        }
