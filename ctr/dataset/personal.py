"""Personal data: the cells of `pii` fields become pseudonyms as soon as they are read (see `personal_key`).

Nothing after reading sees a raw cell: neither joins nor expressions, `where`, split, row ids or vocabulary. What means
"missing" is told by the raw value; missing stays missing. What was found in broken rows is not told at all.

Given up: an expression cannot look into a personal value (the domain of an address), and no literal in one matches it;
messages about a log with personal data name file, row and column, but quote no cell and no column of a file that the
schema does not name (in a file without a header those would be data).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import polars as pl
import pyarrow as pa

from ctr.dataset import canonical
from ctr.dataset.arrow_arrays import as_arrow, lengths_of
from ctr.dataset.bad_rows import WITHHELD, quoting
from ctr.dataset.inputs import Source
from ctr.dataset.personal_fields import PersonalField, mentioned, personal_fields
from ctr.dataset.personal_key import KEY, KEY_FILE, Key, load_key
from ctr.dataset.reading import Chunk, chunks, column_names
from ctr.dataset.schema import Read, Schema
from ctr.errors import ConfigError, DataError


@dataclass(frozen=True)
class Personal:
    """The personal columns of a schema, perhaps none, and the key by which they are replaced.

    fields: which columns. mentioned: all columns that the schema names. key: None where no personal column is read.
    """

    fields: Sequence[PersonalField]
    mentioned: frozenset[str]
    key: Key | None

    @classmethod
    def of(cls, schema: Schema) -> Self:
        """What a schema says, with the key.

        Raises:
            ConfigError: no key, or a personal column where its raw value would be needed.
        """
        fields = personal_fields(schema)
        return cls(fields, mentioned(schema), load_key(field.name for field in fields) if fields else None)

    @classmethod
    def with_key(
        cls, id: str, fields: Sequence[PersonalField], schema: Schema, read: Iterable[str], where: str
    ) -> Self:
        """What a bundle says; its key is asked for where a personal column is among those `read`.

        Args:
            id: of the key.
            fields: the personal fields, also those that `schema` has no more.
            schema: the bundle's.
            read: the columns that scoring reads.
            where: the bundle, for messages.

        Raises:
            ConfigError: no key, or another one.
        """
        needed = {field.name for field in fields} & set(read)
        key = load_key(needed) if needed else None
        if key is not None and key.id != id:
            raise ConfigError(
                f'{where}: its personal data were replaced with the key of id "{id}", found the key of id '
                f'"{key.id}"; set "{KEY}" or "{KEY_FILE}" to the key of the training'
            )
        return cls(fields, mentioned(schema), key)

    @property
    def entry(self) -> dict[str, Any] | None:
        """What a dataset's manifest says: the fields and the key's id; None where nothing is personal."""
        if self.key is None:
            return None
        return {"fields": [field.name for field in self.fields], "key": self.key.id}

    def columns(self, source: Source, read: Read) -> list[str]:
        """A file's columns; where there are personal data, only those that the schema names.

        Raises:
            DataError: see `column_names`.
        """
        with quoting(not self.fields):
            return self.known(column_names(source, read))

    def chunks(self, read: Iterator[Chunk]) -> Iterator[Chunk]:
        """The chunks of a log with personal cells replaced.

        Raises:
            DataError: the log cannot be read, or a column has a type that its field cannot have.
        """
        if not self.fields:
            yield from read
            return
        try:
            with quoting(False):
                yield from map(self.chunk, read)
        except (pl.exceptions.PolarsError, pa.ArrowException) as error:
            raise DataError(
                f"the log cannot be read: {type(error).__name__}; what it says is {WITHHELD}"
            ) from None

    def chunk(self, read: Chunk) -> Chunk:
        """A chunk with personal cells replaced; one whose cells have been replaced before stays as it is.

        Raises:
            DataError: a column has a type that its field cannot have.
        """
        if read.personal or not self.fields:
            return read
        return replace(read, frame=self.replaced(read.frame), bad=self._withheld(read.bad), personal=True)

    def side_table(self, source: Source, read: Read) -> tuple[pl.DataFrame, pl.DataFrame]:
        """A whole side table likewise: its good rows, and those set aside as `BAD_ROWS`.

        Raises:
            DataError: see `chunks`.
        """
        found = list(self.chunks(chunks([source], read)))
        table = pl.concat([chunk.frame for chunk in found])
        return table.select(self.known(table.columns)), pl.concat([chunk.bad for chunk in found])

    def replaced(self, frame: pl.DataFrame) -> pl.DataFrame:
        """`frame` with the cells of its personal columns replaced: String, or List(String) for a list field.

        Raises:
            DataError: a column has a type that its field cannot have.
        """
        there = [field for field in self.fields if field.name in frame.columns]
        return frame.with_columns(self._pseudonyms(field, frame[field.name]) for field in there)

    def known(self, names: Iterable[str]) -> list[str]:
        """Those of a file's columns that may be named in a message."""
        return [name for name in names if not self.fields or name in self.mentioned]

    def _withheld(self, bad: pl.DataFrame) -> pl.DataFrame:
        """`BAD_ROWS` without what was found: a broken line holds its whole row."""
        return bad.with_columns(pl.lit(WITHHELD).alias("found"))

    def _pseudonyms(self, field: PersonalField, values: pl.Series) -> pl.Series:
        key = self.key
        assert key is not None, f'"{field.name}" is read, so the key was asked for'
        if field.kind == "categorical":
            return key.pseudonyms(canonical.without(canonical.text(values), field.missing_values))
        lists = canonical.lists(values, field.separator, field.name, field.missing_values)
        array = lists.rechunk().to_arrow()
        items = key.pseudonyms(pl.Series("item", array.flatten(), dtype=pl.String)).to_arrow()
        lengths = lengths_of(lists)
        offsets = as_arrow(np.concatenate(([0], np.cumsum(lengths))))
        grouped = pa.LargeListArray.from_arrays(offsets, items, mask=array.is_null())
        # As in `canonical.lists`: from a table, not from an array.
        return pl.DataFrame(pa.table({"lists": grouped}))["lists"].rename(values.name)
