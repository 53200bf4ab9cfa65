"""Scores on disk: a parquet file with the column `probability`, whole or not there."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ctr.dataset.inputs import Source
from ctr.errors import ConfigError, CtrError

_ROW_GROUP = 131_072
_LAYOUT = pa.schema([("probability", pa.float64())])


class ProbabilityFile:
    """A context that takes probabilities and puts the file in its place at the end; on failure nothing is left.

    Args:
        path: the file; an existing one is replaced.
        sources: what is being read, which it must not replace.

    Raises:
        ConfigError: `path` is a folder, in no folder, or one of `sources`.
        CtrError: it cannot be written, or the disk is full.
    """

    def __init__(self, path: Path, sources: Sequence[Source]) -> None:
        if path.is_dir():
            raise ConfigError(f'--out "{path}": expected a file to write, found a folder')
        if not path.parent.is_dir():
            raise ConfigError(f'--out "{path}": there is no folder "{path.parent}"')
        if path.exists() and any(path.samefile(source.path) for source in sources):
            raise ConfigError(f'--out "{path}": is the input itself')
        self._path, self._scratch = path, path.with_name(f".{path.name}-{os.getpid()}")
        self._pending: list[npt.NDArray[np.float64]] = []

    def __enter__(self) -> Self:
        try:
            self._writer = pq.ParquetWriter(self._scratch, _LAYOUT, compression="zstd")
        except OSError as error:
            raise self._failed(error) from None
        return self

    def append(self, probabilities: npt.NDArray[np.float64]) -> None:
        """Add rows; NaN becomes null."""
        self._pending.append(probabilities)
        if sum(map(len, self._pending)) >= _ROW_GROUP:
            self._flush()

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        try:
            if failure is None and self._pending:
                self._flush()
            self._writer.close()
            if failure is None:
                self._scratch.replace(self._path)
        except OSError as error:
            if failure is None:
                raise self._failed(error) from None
        finally:
            self._scratch.unlink(missing_ok=True)

    def _flush(self) -> None:
        values = np.concatenate(self._pending)
        self._pending.clear()
        table = pa.table([pl.Series(values).fill_nan(None).to_arrow()], schema=_LAYOUT)
        try:
            self._writer.write_table(table, row_group_size=_ROW_GROUP)
        except OSError as error:
            raise self._failed(error) from None

    def _failed(self, error: OSError) -> CtrError:
        return CtrError(f'--out "{self._path}": cannot be written: {error.strerror or error}')
