"""What may be read of a bundle that somebody else may have written: sizes are bounded before anything is read.

Digests find accidental damage; whoever means harm computes them anew. So each file is looked at as if its content were
a lie: what reading it takes is bounded by a multiple of its size on disk, whatever it says of itself.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from ctr.errors import CtrError, out_of_memory, printable
from ctr.serving.manifest import broken, first_line
from ctr.serving.parquet_footer import check_footer
from ctr.serving.parquet_pages import unpacked

_COLUMNS, _DEPTH = 10_000, 8
_CELLS_PER_BYTE = 128  # over all columns
_BYTES_PER_BYTE = 256  # unpacked, as they stand in pages
_TEXT_PER_BYTE = 64  # once each cell has its own; vocabularies of addresses that begin alike have up to 40
_SLACK_CELLS, _SLACK_BYTES = 2_000_000, 16 << 20
_PAGES, _BYTES_PER_PAGE = 40_000, 4096  # many pages are of many bytes
_MESSAGE = 900  # characters of a refusal
_HEADER = 8 << 20  # bytes of the header of a safetensors file: of about 50,000 tensors


class Rows(NamedTuple):
    """How many rows a file may have: so many for each of its bytes, and so many whatever its size."""

    per_byte: int
    free: int

    def of(self, size: int) -> int:
        """The most rows of a file of so many bytes."""
        return self.per_byte * size + self.free


ANY = Rows(64, 10_000)  # a side table of many days, each like the one before, has up to 25
DISTINCT = Rows(8, 10_000)  # each of rows that all differ takes a bit; vocabularies have less than one a byte
GOLDEN_ROWS = Rows(0, 10_000)  # each is scored whenever a bundle is loaded
SKETCH = Rows(64, 1_000_000)  # bytes of a sketch: it may be almost empty


def check_parquet(path: Path, rows: Rows = ANY) -> list[str]:
    """Refuse a parquet file whose content may be too large, or nested too deep, for its size.

    Args:
        path: the file.
        rows: how many it may have.

    Returns:
        Columns of text by dictionary that may be too long once each cell has its own: nobody has looked at it yet.

    Raises:
        ValueError: says what is too large, or that it is no parquet file.
    """
    check_footer(path, _COLUMNS, _DEPTH)
    size = path.stat().st_size
    try:
        footer = pq.read_metadata(path)
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        chunks = [group.column(place) for group in groups for place in range(group.num_columns)]
    except (pa.ArrowException, OSError, OverflowError) as error:
        raise ValueError(first_line(error)) from None
    if sum(group.num_rows for group in groups) != footer.num_rows or footer.num_rows < 0:
        raise ValueError("its groups of rows do not add up")
    counts = [chunk.num_values for chunk in chunks]
    if footer.num_rows > rows.of(size):
        raise ValueError(f"it says that it holds {footer.num_rows} rows in {size} bytes")
    if min(counts, default=0) < 0 or max(counts, default=0) > max(rows.of(size), ANY.of(size)):
        raise ValueError(f"it says that it holds {max(counts)} values in {size} bytes")
    if sum(counts) > _CELLS_PER_BYTE * size + _SLACK_CELLS:
        raise ValueError(f"it says that it holds {sum(counts)} cells in {size} bytes")
    if sum(chunk.total_compressed_size for chunk in chunks) > size:
        raise ValueError("its columns take more bytes than it has")
    return _check_pages(path, size, footer, chunks)


def _check_pages(path: Path, size: int, footer: pq.FileMetaData, chunks: list[Any]) -> list[str]:
    unpacking = text = fixed = 0
    pages, growing = _PAGES + size // _BYTES_PER_PAGE, set[str]()
    with path.open("rb") as stream:
        for number, chunk in enumerate(chunks):
            found = unpacked(stream, chunk, pages)
            pages -= found.pages
            unpacking += found.bytes
            if unpacking > _BYTES_PER_BYTE * size + _SLACK_BYTES:
                raise ValueError(f"it says that it unpacks to {unpacking} bytes from {size}")
            if chunk.physical_type == "FIXED_LEN_BYTE_ARRAY":
                fixed += found.values * footer.schema.column(number % footer.num_columns).length
            elif chunk.physical_type == "BYTE_ARRAY" and found.dictionary:
                growing.add(chunk.path_in_schema)
                text += found.values * found.dictionary  # at most: no entry is longer than all of them
    if fixed > _text_limit(size):
        raise ValueError(f"it says that it holds {fixed} bytes of text in {size}")
    return sorted(growing) if text > _text_limit(size) else []


def _text_limit(size: int) -> int:
    return _TEXT_PER_BYTE * size + _SLACK_BYTES


def read_parquet(path: Path, columns: Collection[str], rows: Rows = ANY) -> pl.DataFrame:
    """Those of the given columns that a parquet file has, as a frame; text is made sure to be UTF-8.

    Args:
        path: the file.
        columns: others are not read.
        rows: how many it may have.

    Raises:
        ValueError: it is beyond a limit, or damaged.
    """
    growing = check_parquet(path, rows)
    try:
        if growing:
            # Codes and dictionaries as they are in the file: no cell has text of its own yet.
            text = sum(map(_text_bytes, _read(path, columns, growing).columns))
            if text > _text_limit(path.stat().st_size):
                raise ValueError(f"it holds {text} bytes of text in {path.stat().st_size}")
        table = _read(path, columns, [])
        table.validate(full=True)
        found = pl.from_arrow(table)
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError, OverflowError, KeyError) as error:
        raise ValueError(first_line(error)) from None
    assert isinstance(found, pl.DataFrame), "a table is a frame"
    return found


def _read(path: Path, columns: Collection[str], by_dictionary: list[str]) -> pa.Table:
    with pq.ParquetFile(path, read_dictionary=by_dictionary) as file:
        there = [name for name in file.schema_arrow.names if name in columns]
        return file.read(columns=there, use_threads=False)


def _text_bytes(column: pa.ChunkedArray) -> int:
    """Bytes of text once each cell has its own; of what is coded by a dictionary alone."""
    total = 0
    for part in column.chunks:
        while pa.types.is_list(part.type) or pa.types.is_large_list(part.type):
            part = part.flatten()  # the items of its lists
        if pa.types.is_dictionary(part.type):
            lengths = pc.binary_length(part.dictionary).cast(pa.int64())
            total += pc.sum(lengths.take(part.indices)).as_py() or 0
        elif pa.types.is_nested(part.type):
            raise ValueError("it holds long text in columns within columns")
    return total


def check_tensors(path: Path) -> None:
    """Refuse a safetensors file whose header is longer than headers are, or than the file.

    Raises:
        ValueError: says so.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        header = int.from_bytes(stream.read(8), "little")
    if size < 8 or header > size - 8:
        raise ValueError(f"its header claims {header} bytes, the file has {size}")
    if header > _HEADER:
        raise ValueError(f"its header claims {header} bytes, expected at most {_HEADER}")


def _short(told: str) -> str:
    """What a bundle made of a message: it may quote what has no end, or what a terminal would obey."""
    told = printable(told)
    return told if len(told) <= _MESSAGE else f"{told[: _MESSAGE - 400]} ... {told[-400:]}"


@contextmanager
def refusing(folder: Path) -> Iterator[None]:
    """Whatever goes wrong while a bundle is made ready is the bundle's fault, and said in one line.

    Everything that has a name of its own is refused where it is read. This is for what libraries make of content that
    nobody has thought of: an expression, a time zone, a column type.

    Raises:
        DataError: something went wrong. Mistakes of the user keep their class; lack of memory passes as it is.
    """
    try:
        yield
    except CtrError as error:
        told, name = " ".join(str(error).split()), f'bundle "{folder}"'
        error.args = (_short(told if told.startswith(name) else f"{name}: {told}"),)
        raise
    except (Exception, pl.exceptions.PanicException) as error:
        if out_of_memory(error):
            raise
        detail = first_line(error) if isinstance(error, ValidationError) else " ".join(str(error).split())
        raise broken(
            folder, f"it cannot be used: {type(error).__name__}: {printable(detail[:300])}"
        ) from None
