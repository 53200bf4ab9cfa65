"""Parquet files -> blocks of columns in their own types."""

from collections.abc import Collection, Iterator
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ctr.dataset.file_block import FileBlock, kept_columns
from ctr.dataset.inputs import Source
from ctr.errors import DataError

_ROWS = 65_536


def parquet_file(source: Source) -> Any:
    """The open file, as PyArrow's `ParquetFile`.

    Raises:
        DataError: no parquet file, or two columns of one name.
    """
    try:
        file = pq.ParquetFile(source.path)
    except (pa.ArrowException, OSError) as error:
        reason = (str(error).splitlines() or ["damaged"])[0]
        raise DataError(f'file "{source.name}": expected a parquet file: {reason}') from None
    names = file.schema_arrow.names
    if twice := sorted({column for column in names if names.count(column) > 1}):
        raise DataError(f'file "{source.name}": two columns have the same name: "{twice[0]}"')
    return file


def parquet_blocks(source: Source, wanted: Collection[str] | None) -> Iterator[FileBlock]:
    """Blocks of columns in their own types.

    Raises:
        DataError: the file is damaged, or lacks a wanted column.
    """
    file = parquet_file(source)
    names = file.schema_arrow.names
    columns = kept_columns(names, wanted, source.name)
    done, total = 0, max(file.metadata.num_rows, 1)
    try:
        for batch in file.iter_batches(batch_size=_ROWS, columns=columns):
            frame = pl.DataFrame(pl.from_arrow(pa.Table.from_batches([batch])))
            done += batch.num_rows
            yield FileBlock(frame, batch.num_rows, position=done / total)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f'file "{source.name}": damaged: {(str(error).splitlines() or ["?"])[0]}') from None
