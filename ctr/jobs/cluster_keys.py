"""Which rows belong together: the value of a column of the raw log, by the number of the row in the input."""

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.inputs import located
from ctr.dataset.reading import chunks, column_names
from ctr.dataset.schema import Schema
from ctr.dataset.split_spec import FilesSplit
from ctr.errors import ConfigError, nearest


def cluster_numbers(
    schema: Schema, source: str, column: str, rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """A number from 0 for each row (B,), equal where the column is; null is a value like any other.

    Args:
        schema: how the log is read.
        source: the log, as it was given to ingest.
        column: of the raw log.
        rows: numbers of rows in the input.

    Raises:
        ConfigError: the log has no such column, or its parts are files of their own.
    """
    if isinstance(schema.split, FilesSplit):
        raise ConfigError(
            f'compare.cluster = "{column}": expected a log in one input, found a schema that splits by files; '
            "leave compare.cluster out"
        )
    with located(source) as sources:
        names = column_names(sources[0], schema.read)
        if column not in names:
            raise ConfigError(
                f'compare.cluster = "{column}": the log has no such column{nearest(column, names)}'
            )
        found = [
            pl.DataFrame({"row": chunk.offset + chunk.rows, "key": chunk.frame[column].cast(pl.String)})
            for chunk in chunks(sources, schema.read, [column])
        ]
    keys = pl.DataFrame({"row": rows}).join(pl.concat(found), on="row", how="left", maintain_order="left")
    return keys["key"].fill_null("\x00").rank("dense").to_numpy().astype(np.int64) - 1
