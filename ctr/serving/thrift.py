"""Values of Thrift's compact protocol, in which parquet files describe themselves, read without recursion that grows.

Source: Apache Thrift's `thrift-compact-protocol.md`.
"""

from collections.abc import Iterator

STRUCT, LIST = 12, 9
NUMBERS = (4, 5, 6)  # i16, i32, i64
_STOP, _TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _SET, _MAP = 0, 1, 2, 3, 7, 8, 10, 11
_FIELDS = 1 << 15
_NESTED = 16  # far more than parquet has


class Compact:
    """Reads values of Thrift's compact protocol; an IndexError says that they ended."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def read(self) -> int:
        """Bytes read so far."""
        return self._at

    def fields(self) -> Iterator[tuple[int, int]]:
        """Number and type of each field of a struct, whose value is to be read or skipped before the next."""
        number = 0
        while True:
            head = self._byte()
            kind = head & 15
            if kind == _STOP:
                return
            number = number + (head >> 4) if head >> 4 else self.number()
            if not 0 < number < _FIELDS:
                raise ValueError("it has a field of no number")  # others would take it for another field
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
            raise ValueError("it is nested too deep")
        if kind in NUMBERS:
            self._varint()
        elif kind == _BINARY:
            self._past(self._varint())
        elif kind in (_BYTE, _DOUBLE):
            self._past(1 if kind == _BYTE else 8)
        elif kind in (LIST, _SET):
            item, count = self.list_head()
            for _ in range(count):
                self._skip_item(item, nested)
        elif kind == _MAP:
            count = self._varint()
            kinds = self._byte() if count else 0
            for _ in range(count):
                self._skip_item(kinds >> 4, nested)
                self._skip_item(kinds & 15, nested)
        elif kind == STRUCT:
            for _, inner in self.fields():
                self.skip(inner, nested + 1)
        elif kind not in (_TRUE, _FALSE):
            raise ValueError("it has a value of no type")

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
