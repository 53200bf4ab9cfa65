"""Fields without a vocabulary on their way through an ingest: every value is its key as soon as it is read.

Nothing is counted. Numbers that are scaled or cut into bins wait for the statistics of the train rows; everything else
is a key from the first pass on.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ctr.dataset.counting import FieldCounts
from ctr.dataset.encoding import KeyEncoder
from ctr.dataset.field_cells import served
from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.partial_counts import PartialCounts
from ctr.dataset.transforms import scale_of


class KeyedField(FieldCounts):
    """One field: `FieldCounts` without counts; only the numbers of measured fields are taken in.

    Args:
        spec: the field.
        folder: not written to; the fields of a vocabulary keep their dictionaries there.
    """

    def __init__(self, spec: FieldSpec, folder: Path) -> None:
        super().__init__(spec, folder)
        self._encoder = KeyEncoder(spec)

    def code(self, values: pl.Series) -> pl.Series:
        """Keys, or the number."""
        return values if self._numbers else self._encoder.encode(values)[0]

    def decide(self, partials: Sequence[PartialCounts] = ()) -> pl.DataFrame:
        """Fix scale and bins; there is no vocabulary."""
        if self.measured:
            found = self.statistics = self._all_statistics(partials)
            kind = self.spec.transform or "vector"
            self.scale = scale_of(kind, found.count, found.mean, found.square, found.low, found.high)
        self._encoder = KeyEncoder(self.spec, self.scale, self.edges)
        if self.spec.role == "bias":
            self.serve = self._served()
        return pl.DataFrame()

    def encode(self, coded_values: pl.Series) -> list[pl.Series]:
        """The dataset's columns for the next chunk."""
        return self._encoder.encode(coded_values) if self._numbers else [coded_values]

    def _served(self) -> dict[str, Any]:
        columns = self._encoder.encode(served(self.spec, 1))
        factor = float(columns[1][0]) if self.spec.scaled else 1.0
        return {"id": int(np.asarray(columns[0])[0]), "factor": factor}
