"""One model over a labelled log that may be larger than memory: its probability of each row, on disk."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ctr.dataset.bad_rows import describe, no_bad_rows
from ctr.dataset.inputs import located
from ctr.dataset.parallel import ahead
from ctr.dataset.preparation import Preparation, Prepared
from ctr.dataset.reading import Chunk
from ctr.dataset.schema import Schema
from ctr.dataset.split_keys import TimeKey
from ctr.errors import ConfigError, CtrError, DataError
from ctr.evaluation.metrics import Floats
from ctr.jobs.evaluated_models import NamedBundle
from ctr.jobs.evaluation_reader import LogReader
from ctr.serving.scorer import Scorer
from ctr.serving.unseen import UnseenValues

TIME, SERVED, SCORE = "@time", "@at_serving", "@score"
Progress = Callable[[float], None]


@dataclass
class ScoredLog:
    """What a model made of a log.

    scores: parquet with row (number in the log, from 0), label, SCORE, and where they apply weight, row_id, TIME,
        SERVED and the key columns. columns: their names.
    bad: numbers of rows that break the schema. files: each with the number of its first row.
    rows, filtered: read, and left out by `where`. time: how the TIME column is to be read.
    window: the time that the model was trained on. inside: rows that lie in it; None where that is not known.
    unseen: by field. bundle: which one it is.
    """

    name: str
    schema: Schema
    scores: Path
    columns: list[str] = field(default_factory=list)
    bad: list[int] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    rows: int = 0
    filtered: int = 0
    time: TimeKey | None = None
    window: list[str | int | float] | None = None
    inside: int | None = None
    unseen: dict[str, dict[str, float | None]] = field(default_factory=dict)
    bundle: dict[str, Any] = field(default_factory=dict)


def score_log(
    model: NamedBundle,
    data: Sequence[str],
    keys: Sequence[str],
    path: Path,
    progress: Progress | None = None,
    *,
    allow_paths: bool = False,
) -> ScoredLog:
    """Score a log with a bundle: labels, `where` and weights by the bundle's own schema.

    Bias fields have the values of the log, as in the evaluation of a training run; scores with the values that they are
    served with are a column of their own.

    Args:
        model: the bundle.
        data: paths, globs or URLs, read one after the other.
        keys: fields of the log to keep beside the scores.
        path: the parquet file to write.
        progress: called with the share of the log that is done.
        allow_paths: whether a bundle that was given by its own folder may read side tables from a path.

    Raises:
        ConfigError: there is no such bundle, log, or key.
        DataError: the bundle is damaged, the log lacks the label or a column, or too many rows break the schema.
    """
    try:
        return _Pass(model, keys, path, allow_paths).run(data, progress)
    except CtrError as error:
        raise type(error)(f'model "{model.name}": {error}') from None


class _Pass:
    def __init__(self, model: NamedBundle, keys: Sequence[str], path: Path, allow_paths: bool) -> None:
        ours = model.folder != Path(model.given)  # a run's, or from the registry
        self._scorer = Scorer(model.folder, allow_paths=ours or allow_paths)
        self._keys = list(keys)
        bundle = self._scorer.bundle
        shipped = bundle.manifest.model.shipped
        self.found = ScoredLog(model.name, bundle.schema, path, window=shipped.window)
        self.found.bundle = {
            "given": model.given,
            "path": str(model.folder),
            "bytes": bundle.bytes,
            "digest": bundle.manifest.checksum,
            "dataset": bundle.manifest.dataset,
            "provenance": bundle.manifest.provenance,
            "trained_on": list(shipped.trained_on),
            "window": shipped.window,
            "kept": bundle.manifest.features.get("kept"),
            "fields": len(bundle.manifest.fields),
        }
        self._unseen = UnseenValues(self._scorer)
        self._limit = bundle.schema.read.max_bad_rows
        self._shown = no_bad_rows()
        self._writer: pq.ParquetWriter | None = None

    def run(self, data: Sequence[str], progress: Progress | None) -> ScoredLog:
        with ExitStack() as stack:
            inputs = [(given, stack.enter_context(located(given, "--data"))) for given in data]
            for number, (given, sources) in enumerate(inputs):
                reader = LogReader(self._scorer, sources, self._keys)
                self._time(reader.preparation)
                for chunk in ahead(reader.chunks()):
                    self._add(given, chunk, reader)
                    if progress:
                        progress((number + chunk.fraction) / len(inputs))
                self._first = self.found.rows
        if self._writer is not None:
            self._writer.close()
        if len(self.found.bad) > self._limit * self.found.rows:
            raise self._too_many()
        if self._writer is None:
            raise DataError(
                f"no row of the log is left: {self.found.filtered:,} of {self.found.rows:,} are left out by "
                f'where = "{self.found.schema.where or ""}", the rest break the schema'
            )
        self.found.unseen = self._unseen.entry()
        return self.found

    _first = 0  # number of the first row of the current input

    def _time(self, preparation: Preparation) -> None:
        """One way to read times for all inputs."""
        if self.found.time is not None and preparation.split_key is not None:
            preparation.split_key = self.found.time
        elif isinstance(preparation.split_key, TimeKey):
            self.found.time = preparation.split_key

    def _add(self, given: str, chunk: Chunk, reader: LogReader) -> None:
        found, scorer = self.found, self._scorer
        start = self._first + chunk.offset
        if not found.files or found.files[-1]["first_row"] != start:
            found.files.append({"input": given, "name": chunk.file, "first_row": start})
        first = found.rows - start  # number of the chunk's first row in its file
        found.rows += chunk.count
        prepared = reader.prepared(chunk)
        found.filtered += prepared.filtered
        found.bad += (prepared.bad["row"] - 1 + start).to_list()
        self._shown = pl.concat([self._shown, prepared.bad.head(5 - self._shown.height)])
        if len(found.bad) > self._limit * found.rows / max(chunk.fraction, 1e-9):
            raise self._too_many()
        if not prepared.frame.height:
            return
        encoded = scorer.encoder.encode(prepared.frame)
        self._unseen.add(prepared.frame, encoded)
        columns = self._columns(prepared, scorer.probabilities(encoded))
        if any(spec.role == "bias" for spec in scorer.encoder.fields) and reader.logs_bias:
            as_served, _ = scorer.score_chunk(chunk, first)
            columns.append(pl.Series(SERVED, as_served[prepared.rows - first]))
        columns += reader.key_columns(chunk, prepared)
        self._write(pl.DataFrame(columns))

    def _columns(self, prepared: Prepared, scores: Floats) -> list[pl.Series]:
        frame = prepared.frame
        rows = (frame["@row"] + self._first).alias("row")
        if not np.isfinite(scores).all():
            at = int(np.argmin(np.isfinite(scores)))
            raise DataError(f"expected probabilities, found {scores[at]} for row {rows[at] + 1:,} of the log")
        columns = [rows, frame["@label"].alias("label"), pl.Series(SCORE, scores)]
        if "@weight" in frame.columns:
            columns.append(frame["@weight"].alias("weight"))
        if "@row_id" in frame.columns:
            columns.append(frame["@row_id"].alias("row_id"))
        if self.found.time is not None:
            columns.append(frame["@key"].alias(TIME))
            self._count_inside(frame["@key"])
        return columns

    def _count_inside(self, keys: pl.Series) -> None:
        """Rows in the time that the model was trained on."""
        if self.found.window is None or self.found.time is None:
            return
        try:
            low, high = (self.found.time.instant(end) for end in self.found.window)
        except ConfigError:
            return  # the log's times are none of the kind that the model was trained on: nothing is known
        self.found.inside = (self.found.inside or 0) + int(keys.is_between(low, high).sum())

    def _write(self, frame: pl.DataFrame) -> None:
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
        if self._writer is None:
            self.found.columns = frame.columns
            self._writer = pq.ParquetWriter(self.found.scores, table.schema, compression="zstd")
        try:
            self._writer.write_table(table.cast(self._writer.schema))
        except (pa.ArrowInvalid, ValueError) as error:
            raise DataError(f"the inputs do not hold the same columns: {error}") from None

    def _too_many(self) -> DataError:
        bad, rows = len(self.found.bad), self.found.rows
        return DataError(
            f"{bad:,} of {rows:,} rows ({bad / rows:.2%}) break the schema, max_bad_rows = {self._limit:g} allows "
            f"{self._limit:.2%}; the first:\n{describe(self._shown)}"
        )
