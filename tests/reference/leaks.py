"""Where a text occurs below a folder, looking into what is compressed: parquet, Arrow and SQLite files."""

import contextlib
import sqlite3
from pathlib import Path

import polars as pl
import pyarrow as pa
from polars.exceptions import PolarsError


def leaks(folder: Path, text: str, inputs: Path | None = None) -> list[str]:
    """The files below `folder` whose bytes or cells hold `text`; what lies below `inputs` is left out."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not (inputs and path.is_relative_to(inputs)):
            name = path.relative_to(folder).as_posix()
            everything = name.encode() + path.read_bytes() + "\n".join(_cells(path)).encode()
            if text.encode().lower() in everything.lower():
                found.append(name)
    return found


def _cells(path: Path) -> list[str]:
    start = path.read_bytes()[:16]
    if start.startswith(b"PAR1"):
        return _rows(pl.read_parquet(path))
    if start.startswith(b"SQLite format 3"):
        with contextlib.closing(sqlite3.connect(path)) as database:
            return list(database.iterdump())
    if start.startswith(b"ARROW1"):
        return _rows(pl.read_ipc(path))
    if start.startswith(b"\xff\xff\xff\xff"):
        with contextlib.suppress(pa.ArrowException), pa.ipc.open_stream(path.read_bytes()) as stream:
            return [
                str(value) for batch in stream for column in batch.columns for value in column.to_pylist()
            ]
    return []


def _rows(frame: pl.DataFrame) -> list[str]:
    with contextlib.suppress(PolarsError):
        return [str(row) for row in frame.rows()]
    return []
