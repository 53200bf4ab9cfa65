"""What every format's reader yields: some rows of one file, and what was wrong in them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.bad_rows import QuotingError
from ctr.errors import nearest


class BadRecord(NamedTuple):
    """A row that cannot be read: its number in the block, what was found, why it is wrong."""

    number: int
    found: str
    reason: str


@dataclass(frozen=True)
class FileBlock:
    """Some consecutive rows, numbered from the first of them.

    Attributes:
        frame: the good rows.
        count: all rows.
        numbers: (n,) number of each good row; None where all rows are good.
        bad: what was set aside.
        position: share of the file's rows read so far, where the format tells.
    """

    frame: pl.DataFrame
    count: int
    numbers: npt.NDArray[np.int64] | None = None
    bad: Sequence[BadRecord] = ()
    position: float | None = None


def kept_columns(names: list[str], wanted: Collection[str] | None, file: str) -> list[str]:
    """The columns of `names` to read, in the file's order.

    Raises:
        QuotingError: a wanted column is missing; the hint names columns, and without a header those are data.
    """
    if wanted is None:
        return names
    for column in wanted:
        if column not in names:
            plain = f'file "{file}": has no column "{column}"'
            raise QuotingError(plain + nearest(column, names), plain)
    return [column for column in names if column in set(wanted)]
