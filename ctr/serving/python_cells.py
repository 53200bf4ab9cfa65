"""Python values as a Polars column, or one line that says which of them cannot stand in one."""

from collections.abc import Sequence

import numpy as np
import polars as pl

from ctr.dataset.odd_cells import UNUSABLE
from ctr.dataset.plain_cells import ABSENT
from ctr.errors import DataError, out_of_memory

_USUAL = {type(None), str, int, float, bool}
_HOLDERS = (list, tuple, dict)
_DEPTH = 8


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
        if any(map(is_deep, plain)):
            raise TypeError
        found = pl.Series(name, plain)
        if not _is_odd(found.dtype):
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


def is_deep(cell: object) -> bool:
    """Whether lists stand in lists deeper than in cells: Polars and Arrow go down by recursion till the stack ends."""
    layer = [cell]
    for _ in range(_DEPTH):
        inside = (each for each in layer if isinstance(each, _HOLDERS))
        layer = [inner for each in inside for inner in (each.values() if isinstance(each, dict) else each)]
    return any(isinstance(each, _HOLDERS) for each in layer)


def _is_odd(dtype: pl.DataType, depth: int = 0) -> bool:
    """Whether a column holds Python's own objects, or is nested deeper than cells are."""
    if dtype == pl.Object or depth > _DEPTH:
        return True
    if isinstance(dtype, pl.List | pl.Array):
        return _is_odd(dtype.inner, depth + 1)  # type: ignore[arg-type]  # the inner type of an instance is an instance
    if isinstance(dtype, pl.Struct):
        return any(_is_odd(field.dtype, depth + 1) for field in dtype.fields)  # type: ignore[arg-type]  # as above
    return False
