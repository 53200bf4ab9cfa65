"""Golden pairs: raw cells of every field with the ids that a network reads of them, for every implementation to meet.

A parquet file with the columns field, type and raw (`ctr.serving.golden_cells`), ids, numbers (of scaled and vector
fields) and broken (whether the cell breaks the schema). Ids are those of the vocabulary or, where values are hashed,
keys read as signed numbers. Cells of personal fields are pseudonyms already.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from ctr.dataset.encoding import Encoder, FieldEncoder
from ctr.dataset.field_cells import prepare, served
from ctr.dataset.field_spec import Cell
from ctr.dataset.personal import Personal
from ctr.dataset.schema import Schema
from ctr.serving.cell_encoder import CellEncoder, CellRows
from ctr.serving.golden_cells import TypedCell, golden_cells, read_cell
from ctr.serving.rows import field_rows

COLUMNS: dict[str, pl.DataType | type[pl.DataType]] = {
    "field": pl.String,
    "type": pl.String,
    "raw": pl.String,
    "ids": pl.List(pl.Int64),
    "numbers": pl.List(pl.Float32),
    "broken": pl.Boolean,
}
_NOBODY = Personal((), frozenset(), None)


class EncodedCell(NamedTuple):
    """What a network reads of one cell: ids (one, or as many as a list has items), numbers, whether it is broken."""

    ids: list[int]
    numbers: list[float]
    broken: bool


class Mismatch(NamedTuple):
    """A cell that is encoded otherwise than it was at export. way: which encoding differs."""

    field: str
    cell: TypedCell
    expected: EncodedCell
    found: EncodedCell
    way: str


def write_pairs(path: Path, schema: Schema, encoder: Encoder, vocabulary: pl.DataFrame | None) -> None:
    """Write the golden pairs of a bundle.

    Args:
        schema, encoder, vocabulary: of the bundle; no vocabulary where values are hashed.
    """
    rows = [row for own in encoder.encoders for row in _pairs(own, schema.missing_values, vocabulary)]
    frame = pl.DataFrame(rows, schema=COLUMNS, orient="row")
    frame.write_parquet(path, compression="zstd", compression_level=12, statistics=False)


def mismatches(pairs: pl.DataFrame, schema: Schema, encoder: Encoder) -> Iterator[Mismatch]:
    """Golden pairs that are encoded otherwise, by columns or cell by cell.

    Args:
        pairs: with the columns `COLUMNS`.
        schema, encoder: of the bundle.

    Raises:
        ValueError: a cell is none.
    """
    groups = {str(name): group for (name,), group in pairs.group_by("field", maintain_order=True)}
    for own in encoder.encoders:
        group = groups.get(own.spec.name, pairs.clear())
        cells = [
            TypedCell(type, read_cell(type, raw)) for type, raw in group.select("type", "raw").iter_rows()
        ]
        expected = [
            EncodedCell(*row) for row in group.select("ids", "numbers", "broken").fill_null(False).iter_rows()
        ]
        by_cell = CellEncoder(own, schema.missing_values, _NOBODY)
        ways = {"by columns": _by_columns(own, schema.missing_values, cells)}
        if own.spec.role != "bias":
            alone = [_apart(by_cell.cells([cell.value]), own, 1)[0] for cell in cells]
            ways["cell by cell"] = alone
        for way, found in ways.items():
            for cell, there, here in zip(cells, expected, found, strict=True):
                if there != here:
                    yield Mismatch(own.spec.name, cell, there, here, way)


def _pairs(
    own: FieldEncoder, missing_values: Sequence[Cell], vocabulary: pl.DataFrame | None
) -> list[tuple[object, ...]]:
    values: list[str] = []
    if vocabulary is not None:
        owner = own.spec.shares or own.spec.name
        mine = vocabulary.filter((pl.col("field") == owner) & (pl.col("role") == "value"))
        values = mine["value"].drop_nulls().to_list()
    cells = golden_cells(own.spec, values, own.edges or [])
    found = _by_columns(own, missing_values, cells)
    return [
        (own.spec.name, cell.type, cell.text, *encoded) for cell, encoded in zip(cells, found, strict=True)
    ]


def _by_columns(
    own: FieldEncoder, missing_values: Sequence[Cell], cells: Sequence[TypedCell]
) -> list[EncodedCell]:
    """Cells encoded in columns of one type each, in their order."""
    result: dict[int, EncodedCell] = {}
    order = sorted(range(len(cells)), key=lambda at: cells[at].type)
    for _, group in groupby(order, key=lambda at: cells[at].type):
        places = list(group)
        values = pl.Series(own.spec.name, [cells[at].value for at in places])
        if own.spec.role == "bias":
            prepared, broken = served(own.spec, len(places)), None
        else:
            prepared, broken, *_ = prepare(own.spec, values, missing_values)
        rows = field_rows(pl.DataFrame(own.encode(prepared)), own.spec)
        wrong = () if broken is None else np.flatnonzero(broken.to_numpy())
        result |= dict(zip(places, _apart(CellRows(rows, wrong), own, len(places)), strict=True))
    return [result[at] for at in range(len(cells))]


def _apart(encoded: CellRows, own: FieldEncoder, count: int) -> list[EncodedCell]:
    """The rows of one field, each alone."""
    rows, broken = encoded.rows, set(np.asarray(encoded.broken).tolist())
    ids = np.asarray(rows.ids, np.int64)
    ends = np.arange(1, count) if rows.lengths is None else np.cumsum(np.asarray(rows.lengths))[:-1]
    lists = np.split(ids, ends)
    with np.errstate(over="ignore"):
        numbers = np.zeros((count, 0)) if rows.numbers is None else np.asarray(rows.numbers, np.float32)
    numbers = numbers.reshape(count, -1)
    return [EncodedCell(lists[row].tolist(), numbers[row].tolist(), row in broken) for row in range(count)]
