"""CSV files -> blocks of text columns; ragged lines, broken quotes and broken text are set aside."""

import contextlib
from collections.abc import Collection, Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset import csv_lines
from ctr.dataset.bad_rows import QuotingError
from ctr.dataset.byte_streams import ByteStream, Resumed
from ctr.dataset.csv_dialect import Dialect
from ctr.dataset.csv_lines import Block
from ctr.dataset.file_block import BadRecord, FileBlock, kept_columns
from ctr.dataset.schema import Read
from ctr.errors import DataError

_PEEK = 512  # little, as what is read for the header counts as read when progress is told


def csv_blocks(
    stream: ByteStream, read: Read, name: str, wanted: Collection[str] | None, block_bytes: int
) -> Iterator[FileBlock]:
    """Blocks of text columns of one csv file.

    Raises:
        DataError: the file is empty, or its header is wrong or lacks a wanted column.
    """
    header, rest = csv_header(stream, read, name)
    kept = kept_columns(header, wanted, name)
    dialect = _dialect(read)
    for block in csv_lines.blocks(rest, dialect, name, block_bytes):
        yield _parsed(block, dialect, header, kept, read)


def _parsed(block: Block, dialect: Dialect, header: list[str], kept: list[str], read: Read) -> FileBlock:
    """A block of records as text columns. The fast path trusts counts; the careful one looks at each record."""
    data, width = block.data, len(header)
    quoted = dialect.quote is not None and dialect.quote in data
    plain = block.numbers is None and not quoted and data.isascii()
    # No record is longer, or Polars raises; together with the count, none is shorter or blank.
    if plain and csv_lines.count(data, dialect.separator) == block.count * (width - 1):
        with contextlib.suppress(pl.exceptions.PolarsError):
            return FileBlock(_table(data, dialect, header, kept, read), block.count)
    found = csv_lines.records(data, dialect)
    lengths = found.ends - found.starts
    carriage = np.frombuffer(data, np.uint8)[found.ends - 1] == ord("\r")
    # A single column's blank line is a missing value; elsewhere a blank line is no row.
    blank = (lengths == 0) | ((lengths == 1) & carriage) if width > 1 else np.zeros(len(lengths), np.bool_)
    lines = np.arange(len(lengths)) if block.numbers is None else block.numbers
    numbers = lines - np.cumsum(blank)
    ragged = (found.columns != width) & ~blank
    broken = np.zeros(len(lengths), np.bool_)
    broken[csv_lines.broken_text(data, found.ends)] = True
    blanks_before = np.searchsorted(lines[blank], [record.number for record in block.bad])
    bad = [
        record._replace(number=record.number - int(before))
        for record, before in zip(block.bad, blanks_before, strict=True)
    ]
    for at in np.flatnonzero(ragged | broken):
        line = data[found.starts[at] : found.ends[at]]
        bad.append(
            BadRecord(int(numbers[at]), *_complaint(line, int(found.columns[at]), width, bool(broken[at])))
        )
    good = ~(ragged | blank | broken)
    frame = _table(_joined(data, found, good), dialect, header, kept, read)
    if quoted:
        # Quoted empty text is as missing as unquoted.
        frame = frame.with_columns(pl.when(pl.all() != "").then(pl.all()).name.keep())
    return FileBlock(frame, block.count - int(blank.sum()), numbers[good], bad)


def _complaint(line: bytes, columns: int, width: int, broken: bool) -> tuple[str, str]:
    if broken:
        return line.decode("utf-8", "backslashreplace"), "expected UTF-8 text"
    return f"{columns} column{'s' * (columns != 1)}", f"expected {width} columns"


def _joined(data: bytes, found: csv_lines.Records, good: npt.NDArray[np.bool_]) -> bytes:
    """The good records alone, copied run by run."""
    if good.all():
        return data
    edges = np.diff(np.concatenate(([False], good, [False])).astype(np.int8))
    first, last = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    view = memoryview(data)
    return b"".join(view[found.starts[a] : found.ends[b] + 1] for a, b in zip(first, last, strict=True))


def _table(data: bytes, dialect: Dialect, header: list[str], kept: list[str], read: Read) -> pl.DataFrame:
    schema = dict.fromkeys(header, pl.String)
    if not data:
        return pl.DataFrame(schema=schema).select(kept)
    return pl.read_csv(
        data,
        has_header=False,
        schema=schema,
        columns=[header.index(column) for column in kept] if len(kept) < len(header) else None,
        separator=read.separator,
        quote_char=read.quote if dialect.quote is not None and dialect.quote in data else None,
        null_values=read.null_values or None,
    )


def _dialect(read: Read) -> Dialect:
    return Dialect(read.separator.encode(), read.quote.encode() if read.quote else None)


def csv_header(stream: ByteStream, read: Read, name: str) -> tuple[list[str], ByteStream]:
    """The column names, and the stream after them.

    Raises:
        DataError: the file is empty, a quote does not close, or two columns have the same name.
    """
    dialect = _dialect(read)
    start = b""
    while not (start.strip(b"\r\n") and b"\n" in start.lstrip(b"\r\n")):
        piece = stream.read(_PEEK)
        if not piece:
            break
        start = start.lstrip(b"\r\n") + piece
    start = start.removeprefix(b"\xef\xbb\xbf")
    if not start.strip(b"\r\n"):
        raise DataError(f'file "{name}": the file is empty')
    if not read.has_header:
        return list(read.columns or []), Resumed(start, stream)
    match = dialect.record.match(start)
    if match is None:
        raise DataError(f'file "{name}": the header has a quote that does not close')
    header = [value.decode("utf-8", "backslashreplace") for value in dialect.values(match.group())]
    if read.columns and len(read.columns) != len(header):
        raise DataError(f'file "{name}": read.columns names {len(read.columns)} columns, found {len(header)}')
    header = list(read.columns or header)
    if twice := sorted({column for column in header if header.count(column) > 1}):
        shown = ", ".join(f'"{column}"' for column in twice)
        advice = "give read.columns = [...] instead"
        plain = f'file "{name}": two columns have the same name'
        raise QuotingError(f"{plain}: {shown}; {advice}", f"{plain}; {advice}")
    return header, Resumed(start[match.end() :], stream)
