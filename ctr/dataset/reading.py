"""Files -> chunks of raw rows in input order, in constant memory, whatever the format.

Text formats (csv, ndjson) give text columns, parquet keeps its types. What cannot be a row (a ragged line, bytes
that are no UTF-8, broken JSON) is not guessed at: it is set aside with its row number.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.bad_rows import bad_rows, no_bad_rows
from ctr.dataset.byte_streams import FileBytes, as_utf8
from ctr.dataset.csv_chunks import csv_blocks, csv_header
from ctr.dataset.csv_lines import BLOCK_BYTES
from ctr.dataset.file_block import FileBlock
from ctr.dataset.inputs import Source
from ctr.dataset.json_lines import json_blocks
from ctr.dataset.parquet_chunks import parquet_blocks, parquet_file
from ctr.dataset.schema import Read
from ctr.errors import DataError


@dataclass(frozen=True)
class Chunk:
    """Some consecutive rows of one file.

    Attributes:
        file: the file's name in messages and manifests.
        frame: the good rows; columns are those asked for.
        rows: (n,) number of each row of `frame` among the data rows of its file, from 0.
        offset: data rows in the files before this one.
        count: data rows read, those set aside included.
        bad: rows set aside, as `BAD_ROWS`.
        fraction: share of the input's bytes read so far.
        personal: whether there are personal columns; their cells have been replaced (see `ctr.dataset.personal`).
    """

    file: str
    frame: pl.DataFrame
    rows: npt.NDArray[np.int64]
    offset: int
    count: int
    bad: pl.DataFrame
    fraction: float
    personal: bool = False


def chunks(
    sources: Sequence[Source],
    read: Read,
    wanted: Collection[str] | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[Chunk]:
    """Reads `sources` in order.

    Args:
        sources: the files.
        read: how they are read.
        wanted: columns to keep; None keeps all.
        block_bytes: bytes of text per chunk, about.

    Raises:
        DataError: a file is empty, damaged or no such format, has two columns of one name or lacks one of `wanted`,
            or there is no row at all.
    """
    total = sum(source.path.stat().st_size for source in sources) or 1
    done = offset = 0
    for source in sources:
        size, count = source.path.stat().st_size, 0
        if size == 0:
            raise DataError(f'file "{source.name}": the file is empty')
        for block, position in _file_blocks(source, read, wanted, block_bytes):
            first, count = count, count + block.count
            rows = np.arange(block.count) if block.numbers is None else block.numbers
            bad = _numbered(block, source.name, first)
            share = (done + position * size) / total
            yield Chunk(source.name, block.frame, first + rows, offset, block.count, bad, share)
        done, offset = done + size, offset + count
    if offset == 0:
        raise DataError(f"{_named(sources)}: expected rows, found none" + _header_hint(read))


def column_names(source: Source, read: Read) -> list[str]:
    """The columns of a file; for ndjson, the keys found in its first block.

    Raises:
        DataError: the file is empty, or has two columns of one name.
    """
    if source.path.stat().st_size == 0:
        raise DataError(f'file "{source.name}": the file is empty')
    if read.format == "parquet":
        return list(parquet_file(source).schema_arrow.names)
    if read.format == "csv":
        with FileBytes(source) as stream:
            header, _ = csv_header(as_utf8(stream, read.encoding, source.name), read, source.name)
            return header
    for block, _ in _file_blocks(source, read, None, BLOCK_BYTES):
        return block.frame.columns
    raise DataError(f'file "{source.name}": expected rows, found none')


def _numbered(block: FileBlock, file: str, first: int) -> pl.DataFrame:
    if not block.bad:
        return no_bad_rows()
    return pl.concat(
        bad_rows(file, [first + record.number + 1], "", [record.found], record.reason)
        for record in sorted(block.bad)
    )


def _file_blocks(
    source: Source, read: Read, wanted: Collection[str] | None, block_bytes: int
) -> Iterator[tuple[FileBlock, float]]:
    """Each block of a file, with the share of the file that has been read."""
    if read.format == "parquet":
        for block in parquet_blocks(source, wanted):
            yield block, block.position or 0.0
        return
    with FileBytes(source) as stream:
        text = as_utf8(stream, read.encoding, source.name)
        if read.format == "csv":
            found = csv_blocks(text, read, source.name, wanted, block_bytes)
        else:
            found = json_blocks(text, source.name, wanted, block_bytes)
        for block in found:
            yield block, stream.fraction()


def _named(sources: Sequence[Source]) -> str:
    return f'file "{sources[0].name}"' if len(sources) == 1 else f"the {len(sources)} input files"


def _header_hint(read: Read) -> str:
    if read.format == "csv" and read.has_header:
        return " below the header; a file without a header needs has_header = false and columns = [...]"
    return ""
