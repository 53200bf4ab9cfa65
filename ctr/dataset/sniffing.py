"""How an unknown file is best read: format, separator, header, quotes and encoding, from its first bytes."""

import re
from collections import Counter
from pathlib import PurePath

from ctr.dataset.byte_streams import FileBytes
from ctr.dataset.csv_dialect import Dialect
from ctr.dataset.inputs import Source
from ctr.dataset.schema import Read
from ctr.errors import DataError

_HEAD_BYTES = 1 << 20
_ROWS = 200
_SEPARATORS = "\t,;|\x01"
_PLACE = re.compile(r"\bcolumn_\d+\b")


def sniff(source: Source, label: str) -> Read:
    """The reading keys of a schema for a file.

    Columns of a csv file without a header are called `column_1`, `column_2`, ...

    Args:
        source: the file; its bytes decide, its name only tells the compression.
        label: what the user calls the label; the first line that names it is a header.

    Raises:
        DataError: the file is empty or damaged.
    """
    with FileBytes(source) as stream:
        head = stream.read(_HEAD_BYTES).removeprefix(b"\xef\xbb\xbf")
    if not head.strip():
        raise DataError(f'file "{source.name}": the file is empty')
    if head.startswith(b"PAR1"):
        return Read(format="parquet")
    if head.lstrip().startswith(b"{"):
        return Read(format="ndjson")
    if head.lstrip().startswith((b"[{", b"[\n")):
        raise DataError(
            f'file "{source.name}": expected one JSON object per line (ndjson), found a JSON array; '
            f"`jq -c '.[]' FILE` turns one into the other"
        )
    return _csv(head, label)


def stem(name: str) -> str:
    """A file's name without folder and suffixes, in the characters that a schema's name may have."""
    cleaned = re.sub(r"[^A-Za-z0-9_-]+", "_", PurePath(name).name.split(".")[0]).strip("_-")
    return cleaned or "log"


def _csv(head: bytes, label: str) -> Read:
    encoding = _encoding(head)
    whole = head[: head.rfind(b"\n") + 1] or head
    quote, separator = _best_dialect(whole)
    dialect = Dialect(separator.encode(), quote.encode() if quote else None)
    first, *rest = ([cell.decode(encoding) for cell in row] for row in _rows(whole, dialect) if row)
    read = Read(format="csv", separator=separator, quote=quote, encoding=encoding)
    if _is_header(first, rest, label):
        return read
    names = [f"column_{number}" for number in range(1, len(first) + 1)]
    return read.model_copy(update={"has_header": False, "columns": names})


def _encoding(head: bytes) -> str:
    whole = head[: head.rfind(b"\n") + 1] or head  # a character may be cut in two at the end
    try:
        whole.decode("utf-8")
    except UnicodeDecodeError as error:
        # A broken row or two is set aside by the reader; a file of another encoding has them all over.
        broken = sum(not _is_utf8(line) for line in whole.splitlines())
        return "latin-1" if broken > 0.01 * whole.count(b"\n") or error.start == 0 else "utf-8"
    return "utf-8"


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _best_dialect(head: bytes) -> tuple[str | None, str]:
    """Quote and separator under which most rows have the same number of columns, and as many as possible."""
    found = []
    for quote in ('"', None):
        for separator in _SEPARATORS:
            rows = _rows(head, Dialect(separator.encode(), quote.encode() if quote else None))
            widths = Counter(len(row) for row in rows if row)
            width, count = max(widths.items(), key=lambda entry: entry[1], default=(0, 0))
            found.append((width > 1, count / len(rows), quote is not None, width, separator))
    several, _, quoted, _, separator = max(found)
    return ('"' if quoted else None, separator) if several else ('"', ",")


def _rows(head: bytes, dialect: Dialect) -> list[list[bytes]]:
    """The first rows, blank lines left out; a line whose quotes do not close is an empty row."""
    rows: list[list[bytes]] = []
    at = 0
    while at < len(head) and len(rows) < _ROWS:
        match = dialect.record.match(head, at)
        end = match.end() if match else (head.find(b"\n", at) + 1 or len(head))
        if head[at:end].strip():
            rows.append(dialect.values(head[at:end]) if match else [])
        at = end
    return rows


def _is_header(first: list[str], rest: list[list[str]], label: str) -> bool:
    """Whether the first line names the columns."""
    if label in first:
        return True
    if len(set(first)) < len(first) or any(cell.strip() == "" or _is_number(cell) for cell in first):
        return False
    if _PLACE.search(label):
        return False
    # Words all over: names where no later line repeats any of them in its place.
    return not any(a == b for row in rest for a, b in zip(first, row, strict=False))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
