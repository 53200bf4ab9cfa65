"""Rows as a program holds them -> what a network reads, field by field; also candidates that share a context.

Proven equal to the way of frames (`Preparation`, `Encoder`, `encoded_rows`) by a property test. It takes bundles whose
fields are columns of the rows; where fields are derived or joined, the way of frames is the only one.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.encoding import Encoder
from ctr.dataset.personal import Personal
from ctr.dataset.placed import PlacedFeatures, PlacedKeys
from ctr.dataset.schema import Schema
from ctr.errors import DataError
from ctr.serving.cell_encoder import CellEncoder, CellRows
from ctr.serving.given_rows import Cells, GivenRows
from ctr.serving.manifest import Manifest
from ctr.serving.rows import EncodedRows, side_by_side


class EncodedBatch(NamedTuple):
    """Rows as the network reads them, and the numbers of those that break the schema."""

    rows: EncodedRows
    broken: npt.NDArray[np.int64]


class RowEncoder:
    """Encodes rows of a bundle. Safe to use from several threads.

    Args:
        encoder: of its fields, by columns.
        schema: the bundle's.
        personal: by what personal cells are replaced.
        reader: from ids to places, where features are hashed.
    """

    def __init__(
        self,
        encoder: Encoder,
        schema: Schema,
        personal: Personal,
        reader: PlacedFeatures | PlacedKeys | None,
    ) -> None:
        self._fields, self._reader = encoder.fields, reader
        self._encoders = [CellEncoder(own, schema.missing_values, personal) for own in encoder.encoders]
        self._constant = {own.spec.name: own.constant() for own in self._encoders if own.spec.role == "bias"}

    def encode(self, given: GivenRows) -> EncodedBatch:
        """Encode rows that have all columns.

        Raises:
            ConfigError, DataError: a cell or column is of a type that its field cannot have.
        """
        return self._joined([self._field(own, given) for own in self._encoders], given.height)

    def context(self, given: GivenRows) -> dict[str, CellRows]:
        """Encode the fields of one row that it has; `candidates` takes them.

        Raises:
            ConfigError, DataError: as `encode`.
        """
        there = [own for own in self._encoders if own.spec.name in given.columns]
        return {own.spec.name: self._field(own, given) for own in there}

    def candidates(self, context: dict[str, CellRows], given: GivenRows) -> EncodedBatch:
        """Encode rows that have the columns that `context` has not.

        Raises:
            ConfigError, DataError: as `encode`.
        """
        parts = [context.get(own.spec.name) or self._field(own, given) for own in self._encoders]
        everyone = np.arange(given.height)
        # What breaks the schema in the context does so in each of its rows.
        parts = [
            part._replace(broken=everyone) if len(part.broken) and own.spec.name in context else part
            for own, part in zip(self._encoders, parts, strict=True)
        ]
        return self._joined(parts, given.height)

    def _field(self, own: CellEncoder, given: GivenRows) -> CellRows:
        if own.spec.name in self._constant:
            return self._constant[own.spec.name]
        cells: Cells = given.columns[own.spec.name]
        try:
            return own.column(cells) if isinstance(cells, pl.Series) else own.cells(cells)
        except DataError as error:
            named = f'"{own.spec.name}"' in str(error)
            raise error if named else DataError(f'field "{own.spec.name}": {error}') from None

    def _joined(self, parts: list[CellRows], height: int) -> EncodedBatch:
        rows = side_by_side([part.rows for part in parts], self._fields, height, self._reader)
        broken = [np.asarray(part.broken, np.int64) for part in parts if len(part.broken)]
        return EncodedBatch(rows, np.concatenate(broken) if broken else np.zeros(0, np.int64))


def reads_columns(schema: Schema, manifest: Manifest) -> bool:
    """Whether every field is a column of the rows, so that a `RowEncoder` can be made."""
    biased = {spec.name for spec in schema.fields if spec.role == "bias"}
    return all(
        (entry.columns == [entry.name] and entry.name not in schema.derive) or entry.name in biased
        for entry in manifest.fields
    )
