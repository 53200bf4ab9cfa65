"""Lines of JSON objects -> columns of text (nested lists: lists of text); lines that are no object are set aside."""

import json
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import polars as pl

from ctr.dataset import csv_lines
from ctr.dataset.byte_streams import ByteStream
from ctr.dataset.csv_dialect import Dialect
from ctr.dataset.file_block import BadRecord, FileBlock

_BLOCK_BYTES = 8 << 20  # as Python objects it is ten times that
_LINES = Dialect(b",", None)
_CONSTANTS = {"Infinity": "inf", "-Infinity": "-inf"}  # NaN is missing
_REASON = "expected one JSON object per line"


def json_blocks(
    stream: ByteStream, name: str, wanted: Collection[str] | None, size: int
) -> Iterator[FileBlock]:
    """Blocks of text columns; keys that a line lacks are missing values.

    Raises:
        DataError: no line end within several blocks.
    """
    for block in csv_lines.blocks(stream, _LINES, name, min(size, _BLOCK_BYTES)):
        yield _parsed(block.data, wanted)


def _parsed(data: bytes, wanted: Collection[str] | None) -> FileBlock:
    """Objects of `data`, one per line; blank lines are no rows."""
    objects: list[dict[str, Any]] = []
    numbers: list[int] = []
    bad: list[BadRecord] = []
    count = 0
    for line in data.split(b"\n"):
        if not line.strip():
            continue
        try:
            found = json.loads(line, parse_constant=_CONSTANTS.get)
            if not isinstance(found, dict):
                raise TypeError
            objects.append(found)
            numbers.append(count)
        except UnicodeDecodeError:
            bad.append(BadRecord(count, line.decode("utf-8", "backslashreplace"), "expected UTF-8 text"))
        except (ValueError, TypeError, RecursionError):
            bad.append(BadRecord(count, line.decode("utf-8", "replace"), _REASON))
        count += 1
    names = list(dict.fromkeys(key for row in objects for key in row)) if wanted is None else list(wanted)
    frame = pl.DataFrame([_column(name, [row.get(name) for row in objects]) for name in names])
    return FileBlock(frame, count, np.array(numbers, dtype=np.int64), bad)


def _column(name: str, values: list[Any]) -> pl.Series:
    if any(isinstance(value, list) for value in values):
        lists = [value if isinstance(value, list) or value is None else [value] for value in values]
        texts = [None if items is None else [_text(item) for item in items] for items in lists]
        return pl.Series(name, texts, dtype=pl.List(pl.String))
    return pl.Series(name, [_text(value) for value in values], dtype=pl.String)


def _text(value: Any) -> str | None:
    """Canonical text of a JSON value, as `canonical.text` writes it; empty text is missing."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 2**63 else repr(value)
    if isinstance(value, int):
        return str(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
