"""Whether a disk holds what an ingest will write, told before anything is written.

It is an estimate, from the first rows of the log and the bytes of all of it, and rather a bit high (1.1 to 1.8 times
what real logs take). Temporary files count, and so do the arrays that the first training lays the rows out in.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.inputs import Source
from ctr.dataset.reading import chunks, column_names
from ctr.dataset.schema import Schema
from ctr.errors import ConfigError, CtrError, shown_bytes

_ROWS, _BYTES = (
    20_000,
    1 << 20,
)  # of the sample, at least: compressed files are read 64 kB ahead of their rows
_BLOCK = 1 << 20  # bytes of text at a time
_PER_ROW = 8 + 8 + 1  # number of the row, key of the split, label
_COMPRESSED = 0.5  # of their bytes in memory: ids in compressed files, where they compress badly
_PAST_WHERE = 0.1  # of the rows, taken to pass a filter: a log is not refused for rows that may be left out
_PER_VALUE = 8 + 4  # count and id of a chunk's distinct value


class Estimate(NamedTuple):
    """Rows of a log that are encoded, and the bytes that its dataset takes at the worst moment."""

    rows: int
    bytes: int


def require_space(
    schema: Schema, sources: Sequence[Source], sides: Sequence[Source], folder: Path, *, hashed: bool
) -> None:
    """Refuse a log that is too large for the disk.

    A file system that does not tell its size, and a log whose first rows cannot be read, are let through: reading it
    says what is wrong.

    Args:
        sources: files of the log. sides: files of the side tables, which datasets hold as they are.
        folder: where datasets are kept; it exists.
        hashed: whether ids are keys.

    Raises:
        ConfigError: less is free than the ingest takes, about.
    """
    disk = shutil.disk_usage(folder)
    if not disk.total:
        return
    try:
        rows, needed = estimated(schema, sources, hashed=hashed)
    except (CtrError, pl.exceptions.PolarsError):
        return
    needed += sum(side.path.stat().st_size for side in sides)
    if needed > disk.free:
        past = " if where keeps a tenth," if schema.where is not None else ""
        log = f'"{sources[0].name}"' if len(sources) == 1 else f"{len(sources)} files"
        raise ConfigError(
            f'data.folder "{folder}": expected about {shown_bytes(needed)} of free disk for the log {log} '
            f"(an estimate: about {rows:,} rows{past} of {len(schema.fields)} fields, temporary files included), "
            f"found {shown_bytes(disk.free)}; make room there, or state a data.folder on another disk"
        )


def estimated(schema: Schema, sources: Sequence[Source], *, hashed: bool) -> Estimate:
    """Rows and bytes, from the first rows.

    Raises:
        CtrError: they cannot be read.
    """
    there = column_names(sources[0], schema.read)
    specs = [spec for spec in schema.fields if spec.name in there]
    size = sum(source.path.stat().st_size for source in sources)
    frames, rows, share = list[pl.DataFrame](), 0, 0.0
    for chunk in chunks(sources, schema.read, [spec.name for spec in specs] or there[:1], _BLOCK):
        frames.append(chunk.frame)
        rows, share = rows + chunk.count, chunk.fraction
        if rows >= _ROWS and share * size >= _BYTES:
            break
    sample, total = pl.concat(frames), rows / max(share, 1e-9)
    if schema.where is not None:
        total *= _PAST_WHERE
    cells = {spec.name: sample[spec.name] for spec in specs}
    extra = sum(key is not None for key in (schema.weight, schema.true_probability, schema.row_id))
    array = _PER_ROW + 8.0 * extra
    array += sum(_layout(spec, cells.get(spec.name), 8 if hashed else 4) for spec in schema.fields)
    compressed = _COMPRESSED * array
    coded = compressed
    if not hashed:
        coded += sum(_dictionary(spec, cells[spec.name]) for spec in specs) / max(rows, 1)
    if any(spec.scaled for spec in schema.fields):  # then all single-valued fields have factors
        array += 4.0 * sum(spec.kind != "list" for spec in schema.fields)
    # Beside the parquet files lie first the coded rows, which go, and then the arrays.
    return Estimate(round(total), round(total * (compressed + max(coded, array))))


def _layout(spec: FieldSpec, cells: pl.Series | None, id_bytes: int) -> float:
    """Bytes of a field in an average row, uncompressed."""
    if spec.kind == "vector":
        return id_bytes + 4 * (spec.size or 0)
    if spec.kind == "list":
        return 8 + id_bytes * _items(spec, cells)
    return id_bytes + (8 if spec.scaled or spec.transform == "quantile" else 0)


def _items(spec: FieldSpec, cells: pl.Series | None) -> float:
    """Values of a list field in an average row."""
    if cells is None:
        return 1.0
    if isinstance(cells.dtype, pl.List):
        lengths = cells.list.len()
    else:
        lengths = cells.cast(pl.String).str.count_matches(spec.separator or ",", literal=True) + 1
    return float(lengths.fill_null(1).clip(1).sum()) / max(len(cells), 1)


def _dictionary(spec: FieldSpec, cells: pl.Series) -> float:
    """Bytes of the distinct values that are written aside for the sampled rows."""
    if spec.kind == "vector" or spec.scaled:
        return 0.0
    distinct = (cells.explode() if isinstance(cells.dtype, pl.List) else cells).unique()
    return float(distinct.estimated_size() + _PER_VALUE * len(distinct))
