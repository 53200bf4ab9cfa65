"""Rows of the scores on disk, all or some of them, as metrics read them: in memory where they fit, else in batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ctr.dataset.encoding import coded
from ctr.evaluation.estimates import Codes
from ctr.evaluation.metrics import Floats
from ctr.evaluation.paired import Batch, ScoredRows

BATCH = 1_000_000
_CELLS = 120_000_000  # rows times columns that are worked on at once: ten of eight bytes each for two models
_CLUSTERS = 1 << 20  # to which those of a log that does not fit are put together; more of them change nothing


@dataclass(frozen=True)
class ScoreFile:
    """Scores on disk, with what metrics need to know of them.

    models: columns of probabilities, the baseline first. keep_rate: share of negatives that the log holds. cluster,
    group: columns, or None. exact_rows: how many rows are taken into memory at most.
    """

    path: Path
    models: Sequence[str]
    keep_rate: float
    weighted: bool
    cluster: str | None
    group: str | None
    exact_rows: int

    def lazy(self) -> pl.LazyFrame:
        """All columns of all rows."""
        return pl.scan_parquet(self.path, glob=False)

    def rows(self, number: int, condition: pl.Expr | None = None) -> ScoredRows:
        """The `number` rows for which `condition` holds; by default all."""
        if number <= self.exact_rows:
            frame = self.lazy() if condition is None else self.lazy().filter(condition)
            return HeldRows(self, frame.select(self.columns).collect())
        return FileRows(self, number, condition)

    @property
    def columns(self) -> list[str]:
        """What metrics read."""
        named = ["label", *self.models, *(["weight"] if self.weighted else []), self.cluster, self.group]
        return list(dict.fromkeys(name for name in named if name is not None))

    def batch(self, frame: pl.DataFrame, codes: Codes | None) -> Batch:
        """Rows as arrays."""
        labels = frame["label"].cast(pl.Float64).to_numpy()
        mass = frame["weight"].to_numpy() if self.weighted else np.ones(frame.height)
        if self.keep_rate != 1.0:
            mass = mass * np.where(labels == 1.0, 1.0, 1.0 / self.keep_rate)
        return Batch(labels, mass, codes, {name: frame[name].to_numpy() for name in self.models})


def exact_rows_for(models: int) -> int:
    """How many rows of so many models fit."""
    return _CELLS // (models + 8)


class HeldRows:
    """Rows that fit into memory."""

    def __init__(self, file: ScoreFile, frame: pl.DataFrame) -> None:
        self._file, self._frame = file, frame
        codes = None if file.cluster is None else _codes(frame[file.cluster])
        self.models = file.models
        self.clusters = None if codes is None else int(codes.max(initial=-1)) + 1
        self._batch = file.batch(frame, codes)

    def whole(self) -> Batch:
        """See `ScoredRows.whole`."""
        return self._batch

    def batches(self) -> Iterator[Batch]:
        """See `ScoredRows.batches`."""
        whole = self._batch
        for start in range(0, len(whole.labels), BATCH):
            some = slice(start, start + BATCH)
            codes = None if whole.clusters is None else whole.clusters[some]
            scores = {name: values[some] for name, values in whole.scores.items()}
            yield Batch(whole.labels[some], whole.mass[some], codes, scores)

    def groups(self) -> Iterator[Batch] | None:
        """See `ScoredRows.groups`."""
        group = self._file.group
        if group is None:
            return None
        there = self._frame.filter(pl.col(group).is_not_null())
        return iter([self._file.batch(there, _codes(there[group]))])

    @property
    def own_weights(self) -> Floats | None:
        """The log's own, without what undoes the sampling of negatives; None where all count alike."""
        return self._frame["weight"].to_numpy() if self._file.weighted else None


class FileRows:
    """Rows that do not fit into memory."""

    def __init__(self, file: ScoreFile, number: int, condition: pl.Expr | None) -> None:
        self._file, self._number, self._condition = file, number, condition
        self.models = file.models
        self.clusters = None if file.cluster is None else _CLUSTERS

    def whole(self) -> None:
        """See `ScoredRows.whole`."""

    def batches(self) -> Iterator[Batch]:
        """See `ScoredRows.batches`."""
        file = self._file
        needed = {*file.columns, *(self._condition.meta.root_names() if self._condition is not None else ())}
        for read in pq.ParquetFile(file.path).iter_batches(BATCH, columns=sorted(needed)):
            frame = pl.DataFrame(pa.Table.from_batches([read]))
            if self._condition is not None:
                frame = frame.filter(self._condition)
            codes = None
            if file.cluster is not None:
                codes = (frame[file.cluster].hash(0) % _CLUSTERS).cast(pl.Int64).to_numpy()
            if frame.height:
                yield file.batch(frame, codes)

    def groups(self) -> Iterator[Batch] | None:
        """See `ScoredRows.groups`."""
        return None if self._file.group is None else self._grouped(self._file.group)

    def _grouped(self, group: str) -> Iterator[Batch]:
        """Parts by hash of the group, each small enough."""
        file = self._file
        parts = self._number // max(file.exact_rows, 1) + 1
        there = pl.col(group).is_not_null()
        condition = there if self._condition is None else there & self._condition
        for part in range(parts):
            own = condition & (pl.col(group).hash(0) % parts == part)
            frame = file.lazy().filter(own).select(file.columns).collect(engine="streaming")
            yield file.batch(frame, _codes(frame[group]))


def _codes(column: pl.Series) -> Codes:
    """Numbers (B,) from 0, equal where the cells are."""
    return coded(column)[0].astype(np.int64)
