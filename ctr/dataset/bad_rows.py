"""Rows that break the schema: one line each, with what was found and why it cannot be used."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.odd_cells import told
from ctr.errors import DataError

BAD_ROWS = {"file": pl.String, "row": pl.Int64, "column": pl.String, "found": pl.String, "reason": pl.String}
_SHOWN = 100
WITHHELD = "withheld: the schema has personal data"


def bad_rows(
    file: str, rows: Sequence[int], column: str, found: Sequence[str | None], reason: str
) -> pl.DataFrame:
    """A frame of `BAD_ROWS` for data rows `rows` (counted from 1) of one file, found text cut at 100 characters."""
    shown = [
        None if text is None else text if len(text) <= _SHOWN else text[:_SHOWN] + "..." for text in found
    ]
    same = {"file": file, "column": column, "reason": reason}
    columns = {name: [same[name]] * len(rows) for name in same}
    return pl.DataFrame({**columns, "row": list(rows), "found": shown}, schema_overrides=BAD_ROWS).select(
        list(BAD_ROWS)
    )


def no_bad_rows() -> pl.DataFrame:
    """The same frame with no rows."""
    return pl.DataFrame(schema=BAD_ROWS)


class QuotingError(DataError):
    """A message that quotes what was found in a file; `plain` says the same and quotes nothing."""

    def __init__(self, message: str, plain: str) -> None:
        super().__init__(message)
        self.plain = plain


@contextmanager
def quoting(allowed: bool) -> Iterator[None]:
    """Where quoting is not allowed, a `QuotingError` becomes a `DataError` with the plain message."""
    try:
        yield
    except QuotingError as error:
        if allowed:
            raise
        raise DataError(error.plain) from None


def describe(bad: pl.DataFrame, limit: int = 5) -> str:
    """The first few bad rows, one indented line each, for an error message."""
    lines = []
    for file, row, column, found, reason in bad.head(limit).iter_rows():
        where = f', column "{column}"' if column else ""
        shown = "nothing" if found is None else f'"{found}"'
        lines.append(f'  file "{file}", row {row}{where}: found {shown}; {reason}')
    return "\n".join(lines)


class Faults:
    """Collects rows that break the schema; a row is listed once, with the first thing wrong with it.

    Where the rows hold personal data, what was found is not listed: a shifted line puts a person into any column.
    """

    def __init__(self, file: str, rows: npt.NDArray[np.int64], personal: bool = False) -> None:
        self._file, self._rows, self._personal = file, rows, personal
        self.kept = np.ones(len(rows), np.bool_)
        self.frames: list[pl.DataFrame] = []

    def add(self, broken: pl.Series, column: str, found: pl.Series, reason: str) -> None:
        """List the rows where `broken` holds."""
        if not broken.any():
            return
        at = np.flatnonzero(broken.to_numpy() & self.kept)
        if len(at):
            with told(f'column "{column}"', found.dtype):
                cells = [WITHHELD] * len(at) if self._personal else found.gather(at).to_list()
                shown = [
                    None if value is None else str(value).encode(errors="replace").decode() for value in cells
                ]
            self.frames.append(bad_rows(self._file, (self._rows[at] + 1).tolist(), column, shown, reason))
            self.kept[at] = False

    def drop(self, unwanted: pl.Series) -> int:
        """Leave rows out without listing them; returns how many."""
        before = int(self.kept.sum())
        self.kept &= ~unwanted.to_numpy()
        return before - int(self.kept.sum())
