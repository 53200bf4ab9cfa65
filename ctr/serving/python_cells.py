"""Python values as a Polars column, or one line that says which of them cannot stand in one."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from ctr.dataset.odd_cells import UNUSABLE
from ctr.dataset.plain_cells import ABSENT
from ctr.errors import DataError, out_of_memory

_USUAL = {type(None), str, int, float, bool}


def series(where: str, name: str, cells: Sequence[object]) -> pl.Series:
    """A column of the cells; arrays are lists.

    Args:
        where: 'field "x"', say.

    Raises:
        DataError: no column can hold them.
    """
    plain = [
        None if type(cell).__name__ in ABSENT else cell.tolist() if isinstance(cell, np.ndarray) else cell
        for cell in cells
    ]
    try:
        found = pl.Series(name, plain)
        if not _holds_objects(found.dtype):
            return found
        reason: BaseException | None = None
    except UNUSABLE as error:
        if out_of_memory(error):
            raise
        reason = error
    odd = next((cell for cell in cells if type(cell) not in _USUAL), cells[0] if cells else None)
    found_text = (
        "text that UTF-8 cannot say (a lone surrogate)"
        if isinstance(reason, UnicodeEncodeError)
        else f"a value of type {type(odd).__name__} that no column can hold"
    )
    raise DataError(
        f"{where}: expected text, numbers, booleans, dates or lists of them, found {found_text}"
    ) from None


def _holds_objects(dtype: pl.DataType) -> bool:
    if isinstance(dtype, pl.List | pl.Array):
        return _holds_objects(dtype.inner)  # type: ignore[arg-type]  # the inner type of an instance is an instance
    return dtype == pl.Object
