"""The first rows of a log's files, as a sample of all of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.bad_rows import describe
from ctr.dataset.expressions import inferred
from ctr.dataset.inputs import Source
from ctr.dataset.reading import chunks
from ctr.dataset.schema import Read
from ctr.errors import DataError

ROWS = 200_000
_FILES = 20
_BLOCK_BYTES = 4 << 20
_NULLS = ("NULL", "null", "\\N", "NA", "N/A", "#N/A", "None", "nan", "NaN", "?", "-")


@dataclass(frozen=True)
class Sample:
    """Rows of a log.

    Attributes:
        frame: the rows, null where missing.
        rows: (n,) number of each row in the input, where the sample is complete.
        read: how they were read, and what is missing in them.
        complete: whether these are all rows.
        origin: what it was taken of, in words.
    """

    frame: pl.DataFrame
    rows: npt.NDArray[np.int64]
    read: Read
    complete: bool
    origin: str


def take_sample(sources: Sequence[Source], read: Read) -> Sample:
    """The first rows of every file, or of some files where there are many: about `ROWS` of them all.

    Args:
        sources: the files.
        read: how they are read.

    Raises:
        DataError: a file cannot be read, or too many of its rows do not fit the others.
    """
    step = -(-len(sources) // _FILES)
    chosen = sources[::step]
    frames, numbers, bad, count, complete = [], [], [], 0, step == 1
    for source in chosen:
        of_file = 0
        for chunk in chunks([source], read, block_bytes=_BLOCK_BYTES):
            if of_file >= ROWS / len(chosen):
                complete = False
                break
            frames.append(chunk.frame)
            numbers.append(count + chunk.rows)
            bad.append(chunk.bad)
            of_file += chunk.count
        count += of_file
    broken = pl.concat(bad)
    if broken.height > read.max_bad_rows * count:
        raise DataError(
            f"{broken.height} of {count} rows cannot be read; the first:\n{describe(broken.head(5))}"
        )
    frame = pl.concat(_of_one_type(frames), how="diagonal_relaxed")
    if nulls := _null_texts(frame) if read.format == "csv" else []:
        texts = pl.col(pl.String)
        frame = frame.with_columns(pl.when(~texts.is_in(nulls)).then(texts))
        read = read.model_copy(update={"null_values": nulls})
    shown = f'"{sources[0].name}"' if len(sources) == 1 else f"{len(sources)} files"
    origin = f"{'all' if complete else 'the first'} {frame.height:,} rows of {shown}"
    return Sample(frame, np.concatenate(numbers), read, complete, origin)


def _of_one_type(frames: list[pl.DataFrame]) -> list[pl.DataFrame]:
    """A key of ndjson may be a list in one block and empty in the next: a list in all of them."""
    lists = {name for frame in frames for name, dtype in frame.schema.items() if isinstance(dtype, pl.List)}
    return [
        frame.with_columns(
            pl.concat_list(name) for name in lists & set(frame.columns) if frame.schema[name] == pl.String
        )
        for frame in frames
    ]


def _null_texts(frame: pl.DataFrame) -> list[str]:
    """The words for "missing" that stand among numbers."""
    found = set()
    for column in frame.select(pl.col(pl.String)).get_columns():
        words = column.is_in(_NULLS)
        if words.any() and inferred(column.filter(~words), 0.001).is_numeric():
            found |= set(column.filter(words).unique())
    return [word for word in _NULLS if word in found]
