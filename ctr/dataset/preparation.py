"""Raw rows -> prepared rows: join, derive, where, label, and every field's cells in canonical form.

The same class serves training and scoring. In training, rows that break the schema leave the frame and are listed; in
scoring no label is read, no row is filtered, and rows that break the schema stay in the frame but are listed too.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset import canonical
from ctr.dataset.bad_rows import Faults, quoting
from ctr.dataset.expressions import Expression, dtype_text, inferred, parse_dtype, typed
from ctr.dataset.field_cells import prepare, served
from ctr.dataset.odd_cells import told
from ctr.dataset.parallel import in_threads
from ctr.dataset.plan import Plan
from ctr.dataset.reading import Chunk
from ctr.dataset.schema import Schema
from ctr.dataset.side_tables import Partners, SideTables
from ctr.dataset.split_keys import SplitKey, split_key
from ctr.errors import DataError

_DERIVED_BYTES, _DERIVED_ROW_BYTES = 64 << 20, 8192  # of all derived columns


@dataclass(frozen=True)
class Prepared:
    """A chunk's rows after preparation.

    Attributes:
        frame: per field String (categorical), Float64 (numeric), List(String) or Array(Float32) (vector), null where
            missing; in training also `@row`, `@label`, and where they apply `@true_probability`, `@weight`, `@row_id`
            and `@key` (what the split goes by, or the time beside it).
        rows: (n,) number of each row of `frame` in its file, from 0.
        bad: rows that break the schema, as `BAD_ROWS`, those that the reader set aside included.
        count: rows read.
        filtered: rows that `where` left out.
        truncated: rows whose list was longer than `max_length`, by field.
        unmatched: per join, how many rows found no partner, and why.
    """

    frame: pl.DataFrame
    rows: npt.NDArray[np.int64]
    bad: pl.DataFrame
    count: int
    filtered: int
    unmatched: list[Partners]
    truncated: dict[str, int]


class Preparation:
    """Turns chunks of raw rows into prepared rows.

    Args:
        schema: the schema.
        columns: names of the input's columns.
        types: the types of columns in expressions, as stored in a manifest; None learns them from the first chunk.
        side_tables: one frame per `[[joins]]` entry, its key column and its attributes.
        fields: names of the fields to prepare; by default all.
        training: whether label, `where` and split apply.

    Attributes:
        raw_columns: the input's columns that are needed, to be read.

    Raises:
        DataError: the schema names a column that does not exist, an expression is wrong, or a side table has a
            duplicate key or shares a column name with the input.
    """

    def __init__(
        self,
        schema: Schema,
        columns: Sequence[str],
        *,
        types: Mapping[str, str] | None = None,
        side_tables: Sequence[pl.DataFrame] = (),
        fields: Collection[str] | None = None,
        training: bool = True,
    ) -> None:
        self.training = training
        self.fields = [field for field in schema.fields if fields is None or field.name in fields]
        # At scoring, bias fields have the value that the schema states, whatever the rows say.
        self._read = [field for field in self.fields if training or field.role != "bias"]
        self._served = [field for field in self.fields if not training and field.role == "bias"]
        self._missing = schema.missing_values
        self._personal = any(field.pii for field in schema.fields)
        self.split_key: SplitKey | None = split_key(schema) if training else None
        self._tolerance = schema.read.max_bad_rows
        self._types = None if types is None else {name: parse_dtype(text) for name, text in types.items()}
        with quoting(not self._personal):
            self._sides = SideTables(
                schema.joins,
                side_tables,
                columns,
                [schema.log_time(join) for join in schema.joins],
                schema.timezone,
            )
        split_column = self.split_key.column if self.split_key else None
        self._plan = Plan(schema, self._sides.names, self._read, training, split_column)
        self._joins = list(range(len(schema.joins))) if training else self._sides.needed(self._plan.used)
        self._used = self._plan.used | self._sides.keys(self._joins)
        self.raw_columns = [name for name in columns if name in self._used]

    @classmethod
    def from_dataset(
        cls, folder: str | Path, columns: Sequence[str], fields: Collection[str] | None = None
    ) -> Self:
        """The preparation for scoring that a dataset was made with: its schema, types and side tables."""
        folder = Path(folder)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        schema = Schema.model_validate(manifest["schema"])
        sides = [pl.read_parquet(folder / side_table_path(number)) for number in range(len(schema.joins))]
        return cls(
            schema, columns, types=manifest["columns"], side_tables=sides, fields=fields, training=False
        )

    @property
    def stored_types(self) -> dict[str, str]:
        """`types` for a manifest."""
        return {name: dtype_text(dtype) for name, dtype in sorted((self._types or {}).items())}

    def side_tables(self) -> list[pl.DataFrame]:
        """The side tables with what is needed of them, for a dataset or bundle to keep."""
        return self._sides.frames(self._used)

    def check_joins(self, unmatched: Sequence[Partners], rows: int) -> None:
        """Refuse joins by which no row of the log found a partner; see `SideTables.check`."""
        with quoting(not self._personal):
            self._sides.check(unmatched, rows)

    def joined(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Raw rows with the attributes of the side tables."""
        return self._sides.join(frame, self._joins)[0]

    def check_expressions(self, chunk: Chunk) -> None:
        """Refuse expressions that mix rows; `chunk` is a sample to try them on.

        Raises:
            DataError: see `Expression.check_row_wise`.
        """
        frame, _ = self._sides.join(chunk.frame, self._joins)
        worked = self._typed(frame, Faults(chunk.file, chunk.rows)).head(1000)
        with quoting(not chunk.personal):
            most = _most(worked)
            for name, expression in self._plan.derived.items():
                expression.check_row_wise(worked)
                worked = _with(worked, name, expression, most)
            for expression in self._plan.checked:
                expression.check_row_wise(worked)

    def __call__(self, chunk: Chunk) -> Prepared:
        """Prepare one chunk.

        Raises:
            DataError: an expression cannot be evaluated, or a column has a type that its field cannot have.
        """
        # Only what somebody has forgotten to replace gets here raw.
        assert chunk.personal or not self._personal, "personal cells are replaced on reading"
        with quoting(not chunk.personal):
            return self._prepared(chunk)

    def _prepared(self, chunk: Chunk) -> Prepared:
        frame, unmatched = self._sides.join(chunk.frame, self._joins)
        faults = Faults(chunk.file, chunk.rows, chunk.personal)
        worked = self._typed(frame, faults)
        most = _most(worked)
        for name, expression in self._plan.derived.items():
            worked = _with(worked, name, expression, most)
        filtered = self._filter(worked, faults)
        extra = self._training_columns(frame, worked, chunk, faults)
        sources = {field.name: self._source(field.name, frame, worked) for field in self._read}
        prepared = in_threads(lambda field: prepare(field, sources[field.name], self._missing), self._read)
        for field, cells in zip(self._read, prepared, strict=True):
            if cells.broken is not None:
                faults.add(cells.broken, field.name, sources[field.name], cells.expected)
        columns = [cells.values for cells in prepared]
        columns += [served(field, frame.height) for field in self._served]
        result, rows = pl.DataFrame([*extra, *columns]), chunk.rows
        truncated = {
            field.name: cells.truncated
            for field, cells in zip(self._read, prepared, strict=True)
            if field.max_length
        }
        if self.training and not faults.kept.all():
            result, rows = result.filter(pl.Series(faults.kept)), rows[faults.kept]
        bad = pl.concat([chunk.bad, *faults.frames]).sort("row") if faults.frames else chunk.bad
        return Prepared(result, rows, bad, chunk.count, filtered, unmatched, truncated)

    def _source(self, name: str, frame: pl.DataFrame, worked: pl.DataFrame) -> pl.Series:
        """A column as the schema names it: derived, or raw as it was read."""
        return (worked if name in self._plan.derived else frame)[name]

    def _typed(self, frame: pl.DataFrame, faults: Faults) -> pl.DataFrame:
        """The columns that expressions name, in their types; cells that do not fit are faults."""
        names = self._plan.in_expressions
        if self._types is None:
            self._types = {name: inferred(frame[name], self._tolerance) for name in names}
        columns = []
        for name in names:
            dtype = self._types.get(name, frame[name].dtype)
            with told(f'column "{name}"', frame[name].dtype):
                column = typed(frame[name], dtype)
                if column.dtype != dtype:  # of a struct Polars casts what is inside
                    raise TypeError
            if column.null_count() > frame[name].null_count():
                misfit = column.is_null() & frame[name].is_not_null()
                faults.add(
                    misfit, name, frame[name], f"expected {dtype_text(dtype)}, as in the rest of the column"
                )
            columns.append(column)
        # A column of its own keeps the height where no expression names a column, as in label = "1".
        return pl.DataFrame([pl.Series("@height", np.zeros(frame.height, np.int8)), *columns])

    def _filter(self, worked: pl.DataFrame, faults: Faults) -> int:
        where = self._plan.where
        if where is None:
            return 0
        keep = where.evaluate(worked)
        if keep.dtype not in (pl.Boolean, pl.Null):
            raise DataError(f"{where}: expected true or false for each row, found {keep.dtype}")
        return faults.drop(~keep.cast(pl.Boolean).fill_null(False))

    def _training_columns(
        self, frame: pl.DataFrame, worked: pl.DataFrame, chunk: Chunk, faults: Faults
    ) -> list[pl.Series]:
        """`@row`, `@label` and, where they apply, `@true_probability`, `@weight`, `@row_id` and `@key`."""
        if not self.training:
            return []

        def value(expression: Expression) -> pl.Series:
            plain = expression.is_column
            return self._source(expression.text, frame, worked) if plain else expression.evaluate(worked)

        label, truth = self._plan.label, self._plan.true_probability
        assert label is not None, "training has a label"
        found = value(label)
        numbers, _ = canonical.numbers(found)
        if numbers.null_count() > found.null_count():
            numbers, _ = canonical.numbers(_true_as_one(found))
        faults.add(
            ~numbers.is_in([0.0, 1.0]).fill_null(False), label.text, found, "expected a label of 0 or 1"
        )
        columns = [
            pl.Series("@row", chunk.offset + chunk.rows, dtype=pl.Int64),
            (numbers == 1.0).fill_null(False).cast(pl.UInt8).alias("@label"),
        ]
        if truth is not None:
            found = value(truth)
            numbers, _ = canonical.numbers(found)
            faults.add(
                ~numbers.is_between(0.0, 1.0).fill_null(False), truth.text, found, "expected a probability"
            )
            columns.append(numbers.alias("@true_probability"))
        if self._plan.weight is not None:
            found = value(self._plan.weight)
            numbers, _ = canonical.numbers(found)
            usable = (numbers >= 0.0).fill_null(False)
            faults.add(~usable, self._plan.weight.text, found, "expected a finite weight of 0 or more")
            columns.append(numbers.alias("@weight"))
        if self._plan.row_id is not None:
            found = self._source(self._plan.row_id, frame, worked)
            columns.append(canonical.text(found).alias("@row_id"))
        if self.split_key is not None and self.split_key.column is not None:
            found = self._source(self.split_key.column, frame, worked)
            key, broken = self.split_key.parse(found)
            if broken is not None:
                faults.add(broken, self.split_key.column, found, self.split_key.reason)
            columns.append(key.alias("@key"))
        return columns


def side_table_path(number: int) -> str:
    """Where a dataset keeps the side table of a join, relative to its folder."""
    return f"side_tables/{number:05d}.parquet"


def _most(frame: pl.DataFrame) -> int:
    """Bytes that a frame may take with all its derived columns."""
    return int(frame.estimated_size()) + _DERIVED_BYTES + _DERIVED_ROW_BYTES * frame.height


def _with(frame: pl.DataFrame, name: str, expression: Expression, most: int) -> pl.DataFrame:
    """The frame with one more derived column.

    Raises:
        DataError: see `Expression.evaluate`; or the frame takes more than `most` bytes then.
    """
    found = frame.with_columns(expression.evaluate(frame).alias(name))
    if found.estimated_size() > most:
        raise DataError(f"{expression}: derived columns of {frame.height} rows take more than {most} bytes")
    return found


def _true_as_one(values: pl.Series) -> pl.Series:
    if values.dtype != pl.String:
        return values
    lowered = values.str.to_lowercase()
    return values.set(lowered == "true", "1").set(lowered == "false", "0")
