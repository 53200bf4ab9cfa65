"""Rows that a program holds, or candidates in one context -> click probabilities, by the shortest way there is."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.errors import DataError
from ctr.serving.given_rows import Given, GivenRows, as_frame, given_rows
from ctr.serving.row_encoder import EncodedBatch, RowEncoder
from ctr.serving.rows import EncodedRows

Floats = npt.NDArray[np.float64]

_FRAME = 4096  # rows from which columns are worth being worked on by several threads


class RequestScorer:
    """Scores requests. Safe to use from several threads.

    Args:
        columns: the raw columns that rows must have.
        encoder: None where fields are derived or joined; rows then go the way of frames.
        network: from encoded rows to probabilities.
        frames: from a frame of raw rows to probabilities.
        require: refuses names without a needed column; takes where they are from, for its message.
        batch_size: rows that are encoded and scored at once.
    """

    def __init__(
        self,
        columns: Sequence[str],
        encoder: RowEncoder | None,
        network: Callable[[EncodedRows], Floats],
        frames: Callable[[pl.DataFrame], Floats],
        require: Callable[[Iterable[str], str], None],
        batch_size: int,
    ) -> None:
        self._columns, self._encoder, self._network, self._frames = columns, encoder, network, frames
        self._require, self._batch_size = require, batch_size

    def rows(self, given: Given) -> Floats:
        """Probabilities (rows,), NaN where a row breaks the schema.

        Raises:
            ConfigError, DataError: a column is missing, a cell is of a type that its field cannot have, or these are
                no rows.
        """
        found = given_rows(given, self._columns)
        if len(found.columns) < len(self._columns):
            self._require(_names(given), "the frame" if hasattr(given, "columns") else "the row")
        large = found.height >= _FRAME and all(
            isinstance(cells, pl.Series) for cells in found.columns.values()
        )
        if self._encoder is None or large:
            return self._by_frames(found)
        return self._scored(found, self._encoder.encode)

    def candidates(self, context: Given, given: Given) -> Floats:
        """Probabilities (rows,) of candidates, each with the columns of the context beside its own.

        Raises:
            ConfigError, DataError: as `rows`, or the context is no dict, or a column is in both.
        """
        if not isinstance(context, Mapping):
            raise DataError(f"expected the context as a dict, found {type(context).__name__}")
        shared, found = given_rows(context, self._columns), given_rows(given, self._columns)
        if twice := [name for name in shared.columns if name in found.columns and found.height]:
            raise DataError(
                f'"{twice[0]}" is in the context and in the candidates; leave it in the one where it belongs'
            )
        if len({*shared.columns, *found.columns}) < len(self._columns):
            self._require([*context, *_names(given)], "the context with its candidates")
        if self._encoder is None:
            return self._by_frames(_beside(shared, found))
        encoder, once = self._encoder, self._encoder.context(shared)
        return self._scored(found, lambda part: encoder.candidates(once, part))

    def _scored(self, given: GivenRows, encode: Callable[[GivenRows], EncodedBatch]) -> Floats:
        result = np.empty(given.height)
        for start in range(0, given.height, self._batch_size):
            rows, broken = encode(given.part(start, self._batch_size))
            found = self._network(rows)
            found[broken] = np.nan
            result[start : start + len(found)] = found
        return result

    def _by_frames(self, given: GivenRows) -> Floats:
        if given.height == 0:
            return np.zeros(0)
        frame = as_frame(given)
        if frame is not None:
            return self._frames(frame)
        alone = [self._by_frames(given.part(row, 1)) for row in range(given.height)]
        return np.concatenate(alone)


def _names(given: Any) -> list[str]:
    """The columns that rows have; of dicts, those of the first one."""
    if isinstance(given, Mapping):
        return list(given)
    return list(given.columns) if hasattr(given, "columns") else list(given[0]) if len(given) else []


def _beside(context: GivenRows, candidates: GivenRows) -> GivenRows:
    """The context's cells in every row."""
    repeated = {name: list(cells) * candidates.height for name, cells in context.columns.items()}
    return GivenRows({**repeated, **candidates.columns}, candidates.height)
