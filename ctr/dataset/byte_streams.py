"""Bytes of a file, decompressed and in UTF-8, read piece by piece."""

import codecs
import os
from typing import Any, Protocol, Self

import pyarrow as pa

from ctr.dataset.inputs import Source
from ctr.errors import ConfigError, DataError

_CODECS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".lz4": "lz4"}


_LINE = 1 << 16  # bytes that hardly a line is longer than


class ByteStream(Protocol):
    """Anything with `read(size)`, which may know how to stop at the end of a line."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, none at the end."""
        ...

    def read_lines(self, size: int, /) -> bytes:
        """The same; where it costs nothing, they end where a line does, so that nobody has to copy them."""
        ...


class FileBytes:
    """A file's bytes, decompressed by what its name ends in (.gz, .zst, .bz2, .lz4); a context.

    Raises:
        ConfigError: on entering, the file cannot be opened.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def __enter__(self) -> Self:
        try:
            self._raw = self._source.path.open("rb", buffering=0)
        except OSError as error:
            raise ConfigError(f'file "{self._source.name}": cannot be read: {error.strerror}') from None
        self._size = self._source.path.stat().st_size or 1
        self._stream: Any = self._raw
        if codec := _CODECS.get(self._source.path.suffix.lower()):
            self._stream = pa.CompressedInputStream(self._raw, codec)
        return self

    def __exit__(self, *_: object) -> None:
        self._raw.close()

    def read(self, size: int, /) -> bytes:
        """`size` bytes, fewer at the end.

        Raises:
            DataError: the compressed bytes are damaged or cut short.
        """
        try:
            piece: bytes = self._stream.read(size)
            while 0 < len(piece) < size and (more := self._stream.read(size - len(piece))):
                piece += more
            return piece
        except OSError as error:
            reason = (str(error).splitlines() or ["damaged"])[0]
            raise DataError(f'file "{self._source.name}": damaged or cut short: {reason}') from None

    def read_lines(self, size: int, /) -> bytes:
        """At most `size` bytes, of a file that is not compressed up to the last line end among them, if there is one.

        Raises:
            DataError: see `read`.
        """
        if self._stream is self._raw and size > _LINE:
            try:
                last = os.pread(self._raw.fileno(), _LINE, self._raw.tell() + size - _LINE)
            except OSError:
                last = b""  # no file on a disk, as it seems
            if (end := last.rfind(b"\n") + 1) and len(last) == _LINE:
                size -= _LINE - end
        return self.read(size)

    def fraction(self) -> float:
        """Share of the file's bytes that have been read."""
        return min(self._raw.tell() / self._size, 1.0)


class Resumed:
    """A stream with its first bytes put back."""

    def __init__(self, start: bytes, stream: ByteStream) -> None:
        self._start, self._stream = memoryview(start), stream

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, none at the end."""
        piece, self._start = bytes(self._start[:size]), self._start[size:]
        return piece + self._stream.read(size - len(piece)) if len(piece) < size else piece

    def read_lines(self, size: int, /) -> bytes:
        """The same; see `ByteStream`."""
        return self.read(size) if self._start else self._stream.read_lines(size)


class Transcoded:
    """A byte stream in another text encoding, read as UTF-8; bytes that do not decode stay as they are."""

    def __init__(self, stream: ByteStream, encoding: str, name: str) -> None:
        self._stream, self._name, self._encoding = stream, name, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")

    def read(self, size: int, /) -> bytes:
        """About `size` bytes of UTF-8.

        Raises:
            DataError: the bytes cannot be decoded at all.
        """
        while True:
            piece = self._stream.read(size)
            try:
                text = self._decoder.decode(piece, final=not piece)
            except UnicodeDecodeError as error:
                raise DataError(
                    f'file "{self._name}": expected {self._encoding} text: {error.reason}'
                ) from None
            if text or not piece:
                return text.encode("utf-8", "surrogateescape")

    def read_lines(self, size: int, /) -> bytes:
        """The same; see `ByteStream`."""
        return self.read(size)


def as_utf8(stream: ByteStream, encoding: str, name: str) -> ByteStream:
    """The stream itself where it is UTF-8 already, else transcoded."""
    if encoding.lower().replace("_", "-") in ("utf-8", "utf8", "ascii", "us-ascii"):
        return stream
    return Transcoded(stream, encoding, name)
