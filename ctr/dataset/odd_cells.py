"""Cells of types that nobody has thought of: what libraries make of them becomes one line that names the column."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import polars as pl
import pyarrow as pa

from ctr.errors import DataError, out_of_memory

# What Polars, Arrow and NumPy raise for cells that they cannot hold, cast or compare.
UNUSABLE: tuple[type[BaseException], ...] = (
    *(TypeError, ValueError, ArithmeticError, AttributeError, LookupError, RuntimeError),
    *(pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException),
)


@contextmanager
def told(where: str, dtype: Any) -> Iterator[None]:
    """Cells of the type `dtype` are worked on.

    Args:
        where: 'field "x"', say.

    Raises:
        DataError: they cannot be.
    """
    try:
        yield
    except UNUSABLE as error:
        if out_of_memory(error):
            raise
        raise DataError(
            f"{where}: expected text, numbers, booleans, dates or lists of them, found {str(dtype)[:100]}"
        ) from error
