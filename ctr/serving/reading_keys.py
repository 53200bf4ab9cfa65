"""How a file to be scored is read: with the schema's keys, unless its name says that it has another format."""

from collections import Counter
from collections.abc import Collection
from pathlib import PurePath

from ctr.dataset.byte_streams import FileBytes, as_utf8
from ctr.dataset.csv_dialect import Dialect
from ctr.dataset.expressions import roots
from ctr.dataset.inputs import Source
from ctr.dataset.schema import Read, Schema
from ctr.errors import DataError

_COMPRESSED = {".gz", ".zst", ".bz2", ".lz4"}
_PARQUET = {".parquet", ".pq"}
_NDJSON = {".ndjson", ".jsonl"}
_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}
_HEAD_BYTES = 1 << 16
_LINES = 100


def reading_keys(source: Source, schema: Schema, needed: Collection[str]) -> Read:
    """The keys to read a file to be scored with.

    A bundle trained on csv scores parquet and ndjson with the same column names, and the other way round. Where the
    schema names the columns of a csv, those of the label alone may be absent.

    Args:
        source: the file; `.parquet`, `.ndjson`, `.jsonl`, `.csv` and `.tsv` tell its format, with or without `.gz`.
        schema: the bundle's.
        needed: columns that scoring reads.

    Raises:
        DataError: the file's lines fit neither all of the schema's columns nor those without the label.
    """
    read = schema.read
    suffixes = [suffix.lower() for suffix in PurePath(source.name).suffixes]
    if suffixes and suffixes[-1] in _COMPRESSED:
        suffixes.pop()
    suffix = suffixes[-1] if suffixes else ""
    if suffix in _PARQUET:
        return Read(format="parquet")
    if suffix in _NDJSON:
        return Read(format="ndjson")
    if suffix in _SEPARATORS and read.format != "csv":
        return Read(format="csv", separator=_SEPARATORS[suffix])
    if read.format == "csv" and read.columns:
        return read.model_copy(update={"columns": _columns(source, schema, read.columns, needed)})
    return read


def _columns(source: Source, schema: Schema, named: list[str], needed: Collection[str]) -> list[str]:
    """The names of the file's columns: all that the schema names, or those without the label."""
    without = [name for name in named if name in needed or name not in _label_columns(schema, named)]
    width = _width(source, schema.read)
    if width in (len(named), None):
        return named
    if width == len(without):
        return without
    raise DataError(
        f'file "{source.name}": expected {len(named)} columns as in the schema, '
        f"or {len(without)} without the label, found {width}"
    )


def _label_columns(schema: Schema, named: Collection[str]) -> set[str]:
    """The columns that the label is, or is computed from."""
    if schema.label in named:
        return {schema.label}
    found: set[str] = set()
    todo = [schema.label]
    while todo:
        for name in roots(todo.pop()):
            if name not in found and name in schema.derive:
                todo.append(schema.derive[name])
            found.add(name)
    return found


def _width(source: Source, read: Read) -> int | None:
    """How many columns most of the first lines have; None where there is no line."""
    dialect = Dialect(read.separator.encode(), read.quote.encode() if read.quote else None)
    with FileBytes(source) as stream:
        head = as_utf8(stream, read.encoding, source.name).read(_HEAD_BYTES).removeprefix(b"\xef\xbb\xbf")
    whole = head[: head.rfind(b"\n") + 1] or head
    widths = Counter(len(dialect.raw_values(line)) for line in whole.splitlines()[:_LINES] if line)
    return widths.most_common(1)[0][0] if widths else None
