"""How deep and wide the columns of a parquet file are nested, told before any library builds anything of them.

Libraries read the schema of a parquet file by recursion: a few hundred kilobytes of footer can hold a column nested so
deep that the stack runs out, which ends the process. So the footer's list of columns is walked here first, in a loop.

Source: Apache Parquet's `parquet.thrift` (FileMetaData, SchemaElement) in Thrift's compact protocol.
"""

from collections.abc import Iterator
from pathlib import Path

_MAGIC = b"PAR1"
_LARGEST = 4 << 20  # bytes of a footer: of about 10,000 columns
_SCHEMA, _CHILDREN = 2, 5  # numbers of fields in FileMetaData and in SchemaElement
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 0, 1, 2, 3, 7, 8, 9, 10, 11, 12
_NUMBERS = (4, 5, 6)  # i16, i32, i64
_NESTED = 16  # of Thrift's own values, far more than a footer has


def check_footer(path: Path, columns: int, depth: int) -> None:
    """Refuse a parquet file with more columns, or columns nested deeper.

    Raises:
        ValueError: there is more, or the file is no parquet file.
    """
    elements = _children(_footer(path))
    if len(elements) > columns + 1:
        raise ValueError(f"expected at most {columns} columns, found {len(elements) - 1}")
    open_: list[int] = []  # children that are still to come, of each element above
    for count in elements:
        while open_ and open_[-1] == 0:
            open_.pop()
        if open_:
            open_[-1] -= 1
        open_.append(count)
        if len(open_) > depth + 1:
            raise ValueError(f"expected columns nested at most {depth} deep, found deeper ones")
    if any(open_):
        raise ValueError("its footer names columns that are not there")


def _footer(path: Path) -> bytes:
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(max(0, size - 8))
        tail = stream.read(8)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != _MAGIC or length > size - 12:
            raise ValueError("it is no parquet file, or was cut short")
        if length > _LARGEST:
            raise ValueError(f"its footer has {length} bytes, expected at most {_LARGEST}")
        stream.seek(size - 8 - length)
        return stream.read(length)


def _children(footer: bytes) -> list[int]:
    """Number of children of each schema element, in their order: a tree, parents first."""
    reader = _Compact(footer)
    found: list[int] = []
    try:
        for number, kind in reader.fields():
            if number != _SCHEMA or kind != _LIST:
                reader.skip(kind)
                continue
            item, count = reader.list_head()
            if item != _STRUCT:
                break
            for _ in range(count):
                found.append(0)
                for inner, inner_kind in reader.fields():
                    if inner == _CHILDREN and inner_kind in _NUMBERS:
                        found[-1] = reader.number()
                    else:
                        reader.skip(inner_kind)
            break
    except IndexError:
        raise ValueError("its footer ends in the middle") from None
    if not found or min(found) < 0:
        raise ValueError("its footer has no columns")
    return found


class _Compact:
    """Reads values of Thrift's compact protocol; an IndexError says that they ended."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def fields(self) -> Iterator[tuple[int, int]]:
        """Number and type of each field of a struct, whose value is to be read or skipped before the next."""
        number = 0
        while True:
            head = self._byte()
            kind = head & 15
            if kind == _STOP:
                return
            number = number + (head >> 4) if head >> 4 else self.number()
            yield number, kind

    def list_head(self) -> tuple[int, int]:
        """Type and number of a list's items."""
        head = self._byte()
        return head & 15, head >> 4 if head >> 4 < 15 else self._varint()

    def number(self) -> int:
        """A signed number."""
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def skip(self, kind: int, nested: int = 0) -> None:
        """Go past a value of a field."""
        if nested > _NESTED:
            raise ValueError("its footer is nested too deep")
        if kind in _NUMBERS:
            self._varint()
        elif kind == _BINARY:
            self._past(self._varint())
        elif kind in (_BYTE, _DOUBLE):
            self._past(1 if kind == _BYTE else 8)
        elif kind in (_LIST, _SET):
            item, count = self.list_head()
            for _ in range(count):
                self._skip_item(item, nested)
        elif kind == _MAP:
            count = self._varint()
            kinds = self._byte() if count else 0
            for _ in range(count):
                self._skip_item(kinds >> 4, nested)
                self._skip_item(kinds & 15, nested)
        elif kind == _STRUCT:
            for _, inner in self.fields():
                self.skip(inner, nested + 1)
        elif kind not in (_TRUE, _FALSE):
            raise ValueError("its footer has a value of no type")

    def _skip_item(self, kind: int, nested: int) -> None:
        if kind in (_TRUE, _FALSE):
            self._byte()  # within lists a truth takes a byte, elsewhere its type says it
        else:
            self.skip(kind, nested + 1)

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _past(self, count: int) -> None:
        self._at += count
        if self._at > len(self._data):
            raise IndexError

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128 or shift > 63:
                return value
