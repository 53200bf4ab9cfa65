"""Temporary files of an ingest: coded chunks, and per field one array per chunk, all read back in the order written."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl
import pyarrow as pa

from ctr.dataset.arrow_arrays import as_arrow

# Fields are worked on in threads already: threads of PyArrow's own would only be waited for.
_WRITE = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_READ = pa.ipc.IpcReadOptions(use_threads=False)


class Chunks:
    """Frames of one layout, one file each."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder, self._count = folder, 0

    def append(self, frame: pl.DataFrame) -> None:
        """Write a frame; codes are as narrow as they can be, and not compressed: that would cost more than it saves."""
        frame.write_ipc(self._path(self._count), compression="uncompressed")
        self._count += 1

    def __len__(self) -> int:
        return self._count

    def read(self, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """The given columns of each frame."""
        for number in range(self._count):
            yield self.one(number, columns)

    def one(self, number: int, columns: Sequence[str]) -> pl.DataFrame:
        """The given columns of the frame that was written as the `number`th, from 0."""
        return pl.read_ipc(self._path(number), columns=list(columns))

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:06d}.arrow"


class Arrays:
    """Arrays of one type, appended to one file, which is there from the first array on.

    A field without a vocabulary writes none: hundreds of them hold no open file.
    """

    def __init__(self, path: Path, dtype: Any) -> None:
        self._path = path
        self._schema = pa.schema([("array", dtype)])
        self._sink: BinaryIO | None = None
        self._writer: Any = None
        self.nbytes = 0  # of all arrays in memory

    @property
    def there(self) -> bool:
        """Whether anything was written."""
        return self._sink is not None

    def append(self, array: Any) -> None:
        """Write a PyArrow array or a NumPy one of the file's type."""
        if self._sink is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._sink = self._path.open("wb")
            self._writer = pa.ipc.new_file(self._sink, self._schema, options=_WRITE)
        if not isinstance(array, pa.Array):
            array = as_arrow(array)
        self.nbytes += array.nbytes
        self._writer.write_batch(pa.record_batch([array], schema=self._schema))

    def close(self) -> None:
        """End writing."""
        if self._sink is not None and not self._sink.closed:
            self._writer.close()
            self._sink.close()

    def read(self, numbers: Iterable[int] | None = None) -> Iterator[Any]:
        """Each PyArrow array, or those that were written at the given places, from 0; after `close`."""
        if self._sink is None:
            return
        with self._path.open("rb") as source, pa.ipc.open_file(source, options=_READ) as reader:
            for number in range(reader.num_record_batches) if numbers is None else numbers:
                yield reader.get_batch(number).column(0)

    def delete(self) -> None:
        """Give its disk space back."""
        self._path.unlink(missing_ok=True)
