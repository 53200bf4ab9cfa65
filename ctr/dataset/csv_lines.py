"""Bytes of a CSV file -> blocks of whole, well-formed records; what is malformed is set aside by record number.

Polars fills short lines with nulls in silence and gives up on a whole file for one stray quote, so the structure is
checked here, vectorised, before it parses a block. Quoting follows RFC 4180 and Python's `csv`: a quote means
something only where a value starts; elsewhere it is text.
"""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ctr.dataset.byte_streams import ByteStream
from ctr.dataset.csv_dialect import Dialect
from ctr.dataset.file_block import BadRecord
from ctr.errors import DataError

# A little less than the 32 MB up to which glibc hands freed memory out again, instead of pages that it has to ask for.
BLOCK_BYTES = 30 << 20
_LONGEST_RECORD = 1 << 20
_PIECE = 1 << 17
_NEWLINE, _RETURN = 10, 13

Bytes = npt.NDArray[np.uint8]
Positions = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Block:
    """Whole records: `data` holds the good ones, each ended by a newline.

    `numbers`: the number within the block of each record in `data`; None where all `count` records are good.
    """

    data: bytes
    count: int
    numbers: Positions | None = None
    bad: list[BadRecord] = field(default_factory=list)


class Records(NamedTuple):
    """Where the records of a well-quoted block lie: `data[start:end]` without the newline, and their columns."""

    starts: Positions
    ends: Positions
    columns: Positions


def records(data: bytes, dialect: Dialect) -> Records:
    """Positions and number of columns of each record of `data`, which ends with a newline."""
    bytes_ = np.frombuffer(data, np.uint8)
    newlines, separators = bytes_ == _NEWLINE, bytes_ == dialect.separator[0]
    if dialect.quote is not None and dialect.quote in data:
        outside = (
            np.cumsum(bytes_ == dialect.quote[0], dtype=np.uint8) & 1 == 0
        )  # parity survives the wrap-around
        newlines &= outside
        separators &= outside
    ends = np.flatnonzero(newlines)
    before = np.searchsorted(np.flatnonzero(separators), ends)
    return Records(np.concatenate(([0], ends[:-1] + 1)), ends, np.diff(before, prepend=0) + 1)


def count(data: bytes, byte: bytes) -> int:
    """`data.count(byte)`, faster where the byte is frequent."""
    bytes_ = np.frombuffer(data, np.uint8)
    # In pieces that stay in the processor's cache, so that no memory of the size of `data` is touched.
    return sum(
        int(np.count_nonzero(bytes_[start : start + _PIECE] == byte[0]))
        for start in range(0, len(bytes_), _PIECE)
    )


def blocks(stream: ByteStream, dialect: Dialect, name: str, size: int = BLOCK_BYTES) -> Iterator[Block]:
    """Cuts a stream of UTF-8 bytes into blocks of whole records of about `size` bytes, in constant memory.

    Raises:
        DataError: no line end within four blocks.
    """
    rest = b""
    while True:
        piece = stream.read_lines(size)
        end = piece.rfind(b"\n") + 1
        if end and not (dialect.quote and (dialect.quote in rest or dialect.quote in piece)):
            # Without a quote a newline ends a record, so whole records are copied once at most, and nothing else is.
            whole = not rest and end == len(piece)
            data, rest = piece if whole else b"".join((rest, memoryview(piece)[:end])), piece[end:]
            yield Block(data, count(data, b"\n"))
            continue
        buffer = rest + piece
        if not piece and buffer and not buffer.endswith(b"\n"):
            buffer += b"\n"
        block, used = _take(buffer, dialect, final=not piece)
        rest = buffer[used:]
        if block.count:
            yield block
        if not piece:
            return
        if len(rest) > 4 * size + _LONGEST_RECORD:
            raise DataError(f'file "{name}": no line end within {len(rest) >> 20} MB; expected lines of text')


def _take(buffer: bytes, dialect: Dialect, final: bool) -> tuple[Block, int]:
    """The whole records at the start of `buffer`, and how many bytes they take."""
    if dialect.quote is None or dialect.quote not in buffer:
        used = buffer.rfind(b"\n") + 1
        data = buffer[:used]
        return Block(data, count(data, b"\n")), used
    bytes_ = np.frombuffer(buffer, np.uint8)
    quotes = np.flatnonzero(bytes_ == dialect.quote[0])
    if _well_quoted(bytes_, quotes, dialect):
        outside = np.cumsum(bytes_ == dialect.quote[0], dtype=np.uint8) & 1 == 0
        ends = np.flatnonzero((bytes_ == _NEWLINE) & outside)
        used = int(ends[-1]) + 1 if len(ends) else 0
        if used == len(buffer) or (not final and len(buffer) - used <= _LONGEST_RECORD):
            return Block(buffer[:used], len(ends)), used
    return _repair(buffer, dialect, final)


def _well_quoted(bytes_: Bytes, quotes: Positions, dialect: Dialect) -> bool:
    """Whether every quote opens a value, closes one, or is doubled inside one."""
    padded = np.concatenate((np.array([_NEWLINE], np.uint8), bytes_, np.array([_NEWLINE], np.uint8)))
    before, after = padded[quotes], padded[quotes + 2]
    limits = (dialect.separator[0], _NEWLINE)
    opens = (before == limits[0]) | (before == limits[1])
    closes = (after == limits[0]) | (after == limits[1]) | (after == _RETURN)
    doubled = quotes[1:] == quotes[:-1] + 1
    opens[1:] |= doubled
    closes[:-1] |= doubled
    return bool(opens[0::2].all() and closes[1::2].all())


def _repair(buffer: bytes, dialect: Dialect, final: bool) -> tuple[Block, int]:
    """Record by record: values with stray quotes are requoted, lines whose quotes do not close are set aside."""
    good: list[bytes] = []
    numbers: list[int] = []
    bad: list[BadRecord] = []
    count = at = 0
    while at < len(buffer):
        match = dialect.record.match(buffer, at)
        if match is not None and (final or match.group().endswith(b"\n")):
            good.append(dialect.requoted(match.group()))
            numbers.append(count)
            count += 1
            at = match.end()
            continue
        end = buffer.find(b"\n", at) + 1
        if not final and (end == 0 or len(buffer) - at < _LONGEST_RECORD):
            break  # the bytes to come may complete it
        line = buffer[at : end or len(buffer)].decode("utf-8", "replace").strip("\r\n")
        bad.append(BadRecord(count, line, "expected a closing quote before the next separator or line end"))
        count += 1
        at = end or len(buffer)
    return Block(b"".join(good), count, np.array(numbers, dtype=np.int64), bad), at


def broken_text(data: bytes, ends: Positions) -> Positions:
    """Numbers of the records that are no UTF-8, given where records end; linear in the bytes."""
    if data.isascii():
        return np.empty(0, np.int64)
    found, start, view = [], 0, memoryview(data)
    while start < len(data):
        try:
            codecs.utf_8_decode(view[start:], "strict", True)
            break
        except UnicodeDecodeError as error:
            number = int(np.searchsorted(ends, start + error.start))
            found.append(number)
            start = int(ends[number]) + 1
    return np.array(found, dtype=np.int64)
