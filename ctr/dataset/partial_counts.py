"""The counts of one file's train rows, field by field, in one parquet file: what is added up over files.

A field with values has row groups of value (null where missing), count and, where rows have weights, weighted_count; a
field with numbers to scale has its statistics among the file's metadata. One field of one file is in memory at a time.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ctr.dataset.train_statistics import Statistics

_ROW_GROUP = 1 << 20
_METADATA = "ctr.counts"


class Counted(NamedTuple):
    """One field's part. counts: of its values, each once; None where it has none."""

    field: str
    counts: pl.DataFrame | None
    statistics: Statistics


class PartialCounts:
    """What `write` wrote.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # The footer is read again with every field: those of hundreds of files would fill memory.
        metadata = json.loads(pq.read_metadata(path).metadata[_METADATA.encode()])
        self._groups: dict[str, tuple[int, int]] = metadata["groups"]
        self._statistics: dict[str, dict[str, float]] = metadata["statistics"]

    def counts(self, field: str) -> pl.DataFrame:
        """value, count and, where rows have weights, weighted_count; each value once."""
        first, end = self._groups[field]
        with pq.ParquetFile(self._path) as file:
            return pl.DataFrame(pl.from_arrow(file.read_row_groups(range(first, end), use_threads=False)))

    def statistics(self, field: str) -> Statistics:
        """Of the field's numbers."""
        return Statistics(**self._statistics[field])  # type: ignore[arg-type]  # JSON keeps integers apart from floats


def write(path: Path, counted: Iterable[Counted], weighted: bool) -> None:
    """Write the counts of a file.

    Args:
        path: a new file.
        counted: its fields.
        weighted: whether rows have weights.
    """
    columns = [("value", pa.large_string()), ("count", pa.int64())]
    layout = pa.schema([*columns, ("weighted_count", pa.float64())] if weighted else columns)
    groups: dict[str, tuple[int, int]] = {}
    statistics: dict[str, dict[str, float]] = {}
    done = 0
    with pq.ParquetWriter(
        path, layout, compression="zstd", compression_level=1, use_dictionary=False, write_statistics=False
    ) as writer:
        for field, counts, found in counted:
            if counts is None:
                statistics[field] = asdict(found)
                continue
            if counts.height:  # no rows would be a row group all the same
                table = counts.select(layout.names).to_arrow().cast(layout)
                writer.write_table(table, row_group_size=_ROW_GROUP)
            end = done + -(-counts.height // _ROW_GROUP)
            groups[field], done = (done, end), end
        writer.add_key_value_metadata({_METADATA: json.dumps({"groups": groups, "statistics": statistics})})
