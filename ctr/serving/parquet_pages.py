"""What the pages of a parquet file unpack to, told by their own headers: readers go by these, whatever the footer says.

Source: Apache Parquet's `parquet.thrift` (PageHeader) in Thrift's compact protocol.
"""

from typing import Any, BinaryIO, NamedTuple

from ctr.serving.thrift import STRUCT, Compact

_I32 = 5
_TYPE, _UNPACKED, _PACKED = 1, 2, 3  # numbers of fields in PageHeader
_DATA, _DICTIONARY, _DATA_2 = 0, 2, 3  # types of pages
_OWN = {_DATA: 5, _DICTIONARY: 7, _DATA_2: 8}  # number of the field that holds the header of each type
_VALUES, _ENCODING, _ENCODING_2 = (
    1,
    2,
    4,
)  # numbers of fields in that; of a data page of version 2 another one
_PLAIN, _BY_DICTIONARY = 0, (2, 8)
_CODED = (_PLAIN, *_BY_DICTIONARY, 3, 5, 9)  # run lengths, differences of numbers, bytes in streams
_HEADERS = (1 << 10, 1 << 16)  # bytes in which a header is looked for; almost all are short


class Unpacked(NamedTuple):
    """A column chunk. values: of its data pages. bytes: of all its pages. dictionary: bytes of its dictionary."""

    values: int
    bytes: int
    dictionary: int
    pages: int


def unpacked(stream: BinaryIO, chunk: Any, limit: int) -> Unpacked:
    """Add up the pages of a column chunk.

    Args:
        stream: the file.
        chunk: PyArrow's ColumnChunkMetaData.
        limit: of pages.

    Raises:
        ValueError: they are no pages, too many, or coded in a way in which a few bytes become many.
    """
    start, first = chunk.data_page_offset, chunk.dictionary_page_offset
    at = first if first is not None and 0 < first < start else start  # as Arrow does
    end = at + chunk.total_compressed_size
    values = total = dictionary = pages = 0
    while at < end and values < chunk.num_values:
        page = _header(stream, at)
        pages += 1
        if pages > limit:
            raise ValueError("it has too many pages")
        if page.type == _DICTIONARY:
            if page.encoding not in (_PLAIN, *_BY_DICTIONARY) or page.values > page.unpacked:
                raise ValueError(
                    f"a dictionary says that it holds {page.values} values in {page.unpacked} bytes"
                )
            dictionary = max(dictionary, page.unpacked)
        elif page.type in _OWN:
            if page.encoding not in _CODED:
                raise ValueError(
                    f"a page is coded in a way that no bundle is (parquet's number {page.encoding})"
                )
            values += page.values
        total += page.unpacked
        at += page.length + page.packed
    if values != chunk.num_values:
        raise ValueError(f"it says that a column holds {chunk.num_values} values, its pages hold {values}")
    return Unpacked(values, total, dictionary, pages)


class _Page(NamedTuple):
    """A page. length: bytes of its header."""

    type: int
    unpacked: int
    packed: int
    values: int
    encoding: int
    length: int


def _header(stream: BinaryIO, at: int) -> _Page:
    for size in _HEADERS:
        stream.seek(at)
        try:
            return _read(Compact(stream.read(size)))
        except IndexError:
            continue
    raise ValueError("a page has no header")


def _read(reader: Compact) -> _Page:
    found: dict[int, int] = {}
    own: dict[int, dict[int, int]] = {}
    for number, kind in reader.fields():
        if kind == _I32:
            found[number] = reader.number()
        elif kind == STRUCT:
            inside = own.setdefault(number, {})
            for inner, inner_kind in reader.fields():
                if inner_kind == _I32:
                    inside[inner] = reader.number()
                else:
                    reader.skip(inner_kind)
        else:
            reader.skip(kind)
    type_ = found.get(_TYPE, -1)
    inside = own.get(_OWN.get(type_, 0), {})
    encoding = inside.get(_ENCODING_2 if type_ == _DATA_2 else _ENCODING, -1)
    page = _Page(
        type_, found.get(_UNPACKED, -1), found.get(_PACKED, -1), inside.get(_VALUES, 0), encoding, reader.read
    )
    if not all(0 <= size < 1 << 31 for size in (page.type, page.unpacked, page.packed, page.values)):
        raise ValueError("a page has no size")
    return page
