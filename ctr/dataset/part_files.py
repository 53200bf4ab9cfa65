"""Encoded rows -> parquet files of fixed numbers of rows, so that the same rows always give the same bytes."""

from pathlib import Path

import polars as pl

ROW_GROUP = 131_072
FILE_ROWS = 4 * ROW_GROUP


class PartWriter:
    """Writes `part-00000.parquet`, `part-00001.parquet`, ... into a folder; holds at most one file's rows in memory."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder, self._pending, self._rows, self._files = folder, list[pl.DataFrame](), 0, 0
        self.rows = 0

    def append(self, frame: pl.DataFrame) -> None:
        """Add rows."""
        if frame.height:
            self._pending.append(frame)
            self._rows += frame.height
            self.rows += frame.height
        while self._rows >= FILE_ROWS:
            whole = pl.concat(self._pending)
            self._write(whole.head(FILE_ROWS))
            rest = whole.tail(whole.height - FILE_ROWS)
            self._pending, self._rows = ([rest] if rest.height else []), rest.height

    def close(self) -> None:
        """Write what is left."""
        if self._pending:
            self._write(pl.concat(self._pending))

    def _write(self, frame: pl.DataFrame) -> None:
        path = self._folder / f"part-{self._files:05d}.parquet"
        # Statistics of ids tell nobody anything, and cost a fifth of the writing.
        frame.write_parquet(
            path, compression="zstd", compression_level=1, row_group_size=ROW_GROUP, statistics=False
        )
        self._files += 1
