"""What may be read of a bundle that somebody else may have written: sizes are bounded before anything is read.

Digests find accidental damage; whoever means harm computes them anew. So each file is looked at as if its content were
a lie: what reading it takes is bounded by a multiple of its size on disk, whatever it says of itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from ctr.errors import CtrError, out_of_memory
from ctr.serving.manifest import broken, first_line
from ctr.serving.parquet_footer import check_footer

_COLUMNS, _DEPTH = 10_000, 8
_ROWS_PER_BYTE = 64  # vocabularies have less than one
_BYTES_PER_BYTE = 256  # uncompressed
_SLACK_ROWS, _SLACK_BYTES = 10_000, 16 << 20
_HEADER = 8 << 20  # bytes of the header of a safetensors file: of about 50,000 tensors


def check_parquet(path: Path) -> None:
    """Refuse a parquet file whose content may be too large, or nested too deep, for its size.

    Raises:
        ValueError: says what is too large, or that it is no parquet file.
    """
    check_footer(path, _COLUMNS, _DEPTH)
    size = path.stat().st_size
    try:
        footer = pq.read_metadata(path)
        groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
        chunks = [group.column(place) for group in groups for place in range(group.num_columns)]
        values = max([footer.num_rows, *(chunk.num_values for chunk in chunks)])
        stated = sum(chunk.total_uncompressed_size for chunk in chunks)
    except (pa.ArrowException, OSError, OverflowError) as error:
        raise ValueError(first_line(error)) from None
    if sum(group.num_rows for group in groups) != footer.num_rows or footer.num_rows < 0:
        raise ValueError("its groups of rows do not add up")
    if values > _ROWS_PER_BYTE * size + _SLACK_ROWS:
        raise ValueError(f"it says that it holds {values} rows or values in {size} bytes")
    if stated > _BYTES_PER_BYTE * size + _SLACK_BYTES or any(
        chunk.total_uncompressed_size < 0 for chunk in chunks
    ):
        raise ValueError(f"it says that it unpacks to {stated} bytes from {size}")


def read_parquet(path: Path) -> pl.DataFrame:
    """A parquet file as a frame, within the limits; text is made sure to be UTF-8.

    Raises:
        ValueError: it is beyond a limit, or damaged.
    """
    check_parquet(path)
    try:
        table = pq.read_table(path, use_threads=False, memory_map=False)
        table.validate(full=True)
        found = pl.from_arrow(table)
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError, OverflowError, KeyError) as error:
        raise ValueError(first_line(error)) from None
    assert isinstance(found, pl.DataFrame), "a table is a frame"
    return found


def check_tensors(path: Path) -> None:
    """Refuse a safetensors file whose header is longer than headers are, or than the file.

    Raises:
        ValueError: says so.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        header = int.from_bytes(stream.read(8), "little")
    if size < 8 or header > size - 8:
        raise ValueError(f"its header claims {header} bytes, the file has {size}")
    if header > _HEADER:
        raise ValueError(f"its header claims {header} bytes, expected at most {_HEADER}")


@contextmanager
def refusing(folder: Path) -> Iterator[None]:
    """Whatever goes wrong while a bundle is made ready is the bundle's fault, and said in one line.

    Everything that has a name of its own is refused where it is read. This is for what libraries make of content that
    nobody has thought of: an expression, a time zone, a column type.

    Raises:
        DataError: something went wrong. Mistakes of the user keep their class; lack of memory passes as it is.
    """
    try:
        yield
    except CtrError as error:
        told, name = " ".join(str(error).split()), f'bundle "{folder}"'
        error.args = (told if told.startswith(name) else f"{name}: {told}",)
        raise
    except (Exception, pl.exceptions.PanicException) as error:
        if out_of_memory(error):
            raise
        detail = first_line(error) if isinstance(error, ValidationError) else " ".join(str(error).split())
        raise broken(folder, f"it cannot be used: {type(error).__name__}: {detail[:300]}") from None
