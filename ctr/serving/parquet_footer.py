"""How deep and wide the columns of a parquet file are nested, told before any library builds anything of them.

Libraries read the schema of a parquet file by recursion: a few hundred kilobytes of footer can hold a column nested so
deep that the stack runs out, which ends the process. So the footer's list of columns is walked here first, in a loop.

Source: Apache Parquet's `parquet.thrift` (FileMetaData, SchemaElement) in Thrift's compact protocol.
"""

from pathlib import Path

from ctr.serving.thrift import LIST, NUMBERS, STRUCT, Compact

_MAGIC = b"PAR1"
_LARGEST = 4 << 20  # bytes of a footer: of about 10,000 columns
_SCHEMA, _CHILDREN = 2, 5  # numbers of fields in FileMetaData and in SchemaElement


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
    reader = Compact(footer)
    found: list[int] = []
    try:
        for number, kind in reader.fields():
            if number != _SCHEMA or kind != LIST:
                reader.skip(kind)
                continue
            item, count = reader.list_head()
            if item != STRUCT:
                break
            for _ in range(count):
                found.append(0)
                for inner, inner_kind in reader.fields():
                    if inner == _CHILDREN and inner_kind in NUMBERS:
                        found[-1] = reader.number()
                    else:
                        reader.skip(inner_kind)
            break
    except IndexError:
        raise ValueError("its footer ends in the middle") from None
    if not found or min(found) < 0:
        raise ValueError("its footer has no columns")
    return found
