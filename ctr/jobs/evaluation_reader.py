"""A labelled log as a bundle reads it: rows prepared as in training, and the fields that an evaluation asks for."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from ctr.dataset.field_cells import served
from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.inputs import Source
from ctr.dataset.personal import Personal
from ctr.dataset.preparation import Preparation, Prepared
from ctr.dataset.reading import Chunk, chunks
from ctr.dataset.schema import Schema
from ctr.dataset.split_spec import RandomSplit
from ctr.errors import ConfigError, nearest
from ctr.serving.joins import table_at_path
from ctr.serving.reading_keys import reading_keys
from ctr.serving.scorer import Scorer


def key_column(name: str) -> str:
    """The column of the scores that holds a field of the log."""
    return f"@{name}"


class LogReader:
    """One input, prepared as the bundle's training has prepared its log.

    Args:
        scorer: of the bundle.
        sources: the files of the input.
        keys: fields to keep beside the scores.

    Attributes:
        preparation: of the rows, with label, weight and time.
        logs_bias: whether the log has the bundle's bias fields; without, they are as they are served.

    Raises:
        ConfigError: there is no such key, or personal data lack theirs.
        DataError: the log lacks the label or another column, or an expression is wrong.
    """

    def __init__(self, scorer: Scorer, sources: Sequence[Source], keys: Sequence[str]) -> None:
        bundle = scorer.bundle
        entry, schema = bundle.manifest.personal, bundle.schema
        self._sources, self._keys = sources, list(keys)
        self._read = reading_keys(sources[0], schema, scorer.columns)
        self._personal = scorer.personal
        columns = self._personal.columns(sources[0], self._read)
        scorer.require(columns, f'file "{sources[0].name}"')
        bias = [spec for spec in schema.fields if spec.role == "bias"]
        self.logs_bias = all(_there(spec.name, schema, columns) for spec in bias)
        self._served = [] if self.logs_bias else bias
        if schema.time_column is not None and not _there(schema.time_column, schema, columns):
            schema = schema.model_copy(update={"split": RandomSplit(by="random")})
        sides = self._side_tables(scorer)
        as_served = {spec.name for spec in self._served}
        self.preparation = Preparation(
            schema,
            columns,
            types=bundle.manifest.columns,
            side_tables=sides,
            fields=[spec.name for spec in schema.fields if spec.name not in as_served],
        )
        extra = [name for frame in sides for name in frame.columns]
        self._preparation_of_keys = self._of_keys(scorer, schema, columns, sides, [*columns, *extra])
        wanted = {*self.preparation.raw_columns}
        if self._preparation_of_keys is not None:
            wanted |= {*self._preparation_of_keys.raw_columns}
        self._wanted = [name for name in columns if name in wanted]
        if (
            entry is not None
        ):  # the key of personal data is needed for columns that only evaluation reads, too
            self._personal = Personal.with_key(
                entry.key, entry.fields, schema, self._wanted, f'bundle "{bundle.folder}"'
            )

    def chunks(self) -> Iterator[Chunk]:
        """The rows of the input, personal cells replaced."""
        return self._personal.chunks(chunks(self._sources, self._read, self._wanted))

    def prepared(self, chunk: Chunk) -> Prepared:
        """As training prepares them; bias fields that the log does not have are as they are served."""
        found = self.preparation(chunk)
        return replace(
            found, frame=found.frame.with_columns(served(spec, found.frame.height) for spec in self._served)
        )

    def key_columns(self, chunk: Chunk, prepared: Prepared) -> list[pl.Series]:
        """The keys of the rows that were prepared, as text or numbers."""
        if self._preparation_of_keys is None:
            return []
        frame = self._preparation_of_keys(chunk).frame
        rows = np.searchsorted(frame["@row"].to_numpy(), prepared.frame["@row"].to_numpy())
        found = []
        for name in self._keys:
            column = frame[name].gather(rows)
            if isinstance(column.dtype, pl.List):
                column = column.list.join("|")
            found.append(column.alias(key_column(name)))
        return found

    @staticmethod
    def _side_tables(scorer: Scorer) -> list[pl.DataFrame]:
        bundle = scorer.bundle
        embedded = iter(bundle.side_tables())
        return [
            next(embedded)
            if join.at_scoring == "bundle"
            else table_at_path(join, scorer.personal, bundle.folder)
            for join in bundle.schema.joins
        ]

    def _of_keys(
        self,
        scorer: Scorer,
        schema: Schema,
        columns: Sequence[str],
        sides: Sequence[pl.DataFrame],
        known: Sequence[str],
    ) -> Preparation | None:
        """What prepares the keys: fields as the schema has them, other columns as text."""
        if not self._keys:
            return None
        own = {spec.name: spec for spec in schema.fields}
        for name in self._keys:
            if name not in known and name not in schema.derive:
                raise ConfigError(
                    f'"{name}" is no column of the log{nearest(name, [*known, *schema.derive])}'
                )
        fields = [own.get(name) or FieldSpec(name=name) for name in self._keys]
        if vectors := [spec.name for spec in fields if spec.kind == "vector"]:
            raise ConfigError(f'"{vectors[0]}" is a vector, whose values cannot be told apart')
        plain = [spec.model_copy(update={"role": None, "shares": None}) for spec in fields]
        return Preparation(
            schema.model_copy(update={"fields": plain}),
            columns,
            types=scorer.bundle.manifest.columns,
            side_tables=sides,
        )


def _there(name: str, schema: Schema, columns: Sequence[str]) -> bool:
    """Whether a column is read or derived from such as are."""
    return name in columns or name in schema.derive
