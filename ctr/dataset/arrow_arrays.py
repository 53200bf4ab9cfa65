"""PyArrow's arrays as NumPy's and back, by way of Polars.

PyArrow's own conversions import pandas where it is installed, and keep the interpreter meanwhile: a quarter of a second
and 40 MB that every ingest would pay, and the first request of every bundle.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl


def as_numpy(array: Any) -> npt.NDArray[Any]:
    """An array or a chunked array without nulls; numbers that lie in one chunk are not copied."""
    return pl.Series(array).to_numpy()


def lengths_of(lists: pl.Series) -> npt.NDArray[np.int64]:
    """How many items each list has: none where it is null."""
    return lists.list.len().fill_null(0).cast(pl.Int64).to_numpy()


def as_arrow(array: npt.NDArray[Any]) -> Any:
    """The array of the same type; numbers are not copied."""
    return pl.Series(array).to_arrow()
