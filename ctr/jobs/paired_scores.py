"""The scores of all models in one file: the same rows with the same labels, or a message that says what differs."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ctr.errors import DataError
from ctr.jobs.evaluation_pass import SCORE, SERVED, ScoredLog

AT_SERVING = "_at_serving"  # after a model's name: the column of its probabilities with bias fields as served
_ROWS = 131_072
Rows = npt.NDArray[np.int64]


@dataclass
class PairedScores:
    """What was put together.

    path: parquet with row, label, where they apply weight and row_id, a column by model (and one at serving), and the
        key columns of the first model's pass. digest: of rows and labels. constant: models that give one probability to
        all rows. weights_differ: models whose weights are not those of the first one.
    """

    path: Path
    rows: int = 0
    positives: int = 0
    excluded: int = 0
    digest: str = ""
    served: list[str] = field(default_factory=list)
    constant: list[str] = field(default_factory=list)
    weights_differ: list[str] = field(default_factory=list)


def paired(logs: Sequence[ScoredLog], path: Path) -> PairedScores:
    """Put the scores of all models side by side, in constant memory.

    A row that breaks the schema of one model is left out for all.

    Raises:
        DataError: a model keeps a row that another one leaves out, or they disagree about a label.
    """
    excluded = np.unique(np.concatenate([np.array(log.bad, np.int64) for log in logs]))
    result = PairedScores(path, excluded=len(excluded))
    digest = hashlib.sha256()
    lowest, highest = (
        dict.fromkeys((log.name for log in logs), 2.0),
        dict.fromkeys((log.name for log in logs), -1.0),
    )
    different: set[str] = set()
    writer: pq.ParquetWriter | None = None
    try:
        for frames in _aligned(logs, excluded):
            first = frames[0]
            columns = [first[name] for name in ("row", "label", "row_id", "weight") if name in first.columns]
            for log, frame in zip(logs, frames, strict=True):
                scores = frame[SCORE]
                columns.append(scores.alias(log.name))
                if SERVED in frame.columns:
                    columns.append(frame[SERVED].alias(log.name + AT_SERVING))
                lowest[log.name] = min(lowest[log.name], float(scores.min()))  # type: ignore[arg-type]  # no nulls
                highest[log.name] = max(highest[log.name], float(scores.max()))  # type: ignore[arg-type]
                if not _weights(frame).equals(_weights(first)):
                    different.add(log.name)
            columns += [
                first[name] for name in first.columns if name.startswith("@") and name not in (SCORE, SERVED)
            ]
            table = pl.DataFrame(columns).to_arrow(compat_level=pl.CompatLevel.oldest())
            writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
            writer.write_table(table, row_group_size=_ROWS)
            result.rows += first.height
            result.positives += int(first["label"].sum())
            digest.update(first["row"].to_numpy().tobytes() + first["label"].to_numpy().tobytes())
    finally:
        if writer is not None:
            writer.close()
    result.digest = digest.hexdigest()[:36]
    result.served = [log.name for log in logs if SERVED in log.columns]
    result.constant = [log.name for log in logs if result.rows and lowest[log.name] == highest[log.name]]
    result.weights_differ = [log.name for log in logs if log.name in different]
    return result


def _weights(frame: pl.DataFrame) -> pl.Series:
    return frame["weight"] if "weight" in frame.columns else pl.Series("weight", [], pl.Float64)


def _aligned(logs: Sequence[ScoredLog], excluded: Rows) -> Iterator[list[pl.DataFrame]]:
    """Pieces of the scores of all models with the same rows."""
    pieces = [_pieces(log.scores, excluded) for log in logs]
    held = [next(own, None) for own in pieces]
    while all(frame is not None for frame in held):
        there = [frame for frame in held if frame is not None]
        height = min(frame.height for frame in there)
        heads = [frame.head(height) for frame in there]
        _check(logs, heads)
        yield heads
        for number, (own, frame) in enumerate(zip(pieces, there, strict=True)):
            held[number] = frame.slice(height) if frame.height > height else next(own, None)
    ended = next(log for log, left in zip(logs, held, strict=True) if left is None)
    for log, left in zip(logs, held, strict=True):
        if left is not None:
            raise _differ(logs, int(left["row"][0]), log, ended)


def _pieces(path: Path, excluded: Rows) -> Iterator[pl.DataFrame]:
    for batch in pq.ParquetFile(path).iter_batches(_ROWS):
        frame = pl.DataFrame(pa.Table.from_batches([batch]))
        frame = frame.filter(~pl.Series(np.isin(frame["row"].to_numpy(), excluded, assume_unique=True)))
        if frame.height:
            yield frame


def _check(logs: Sequence[ScoredLog], frames: Sequence[pl.DataFrame]) -> None:
    """Refuse other rows or labels than those of the first model."""
    rows, labels = frames[0]["row"].to_numpy(), frames[0]["label"].to_numpy()
    for log, frame in zip(logs[1:], frames[1:], strict=True):
        other = frame["row"].to_numpy()
        if not np.array_equal(rows, other):
            at = int(np.argmin(rows == other))
            keeps, leaves = (logs[0], log) if rows[at] < other[at] else (log, logs[0])
            raise _differ(logs, int(min(rows[at], other[at])), keeps, leaves)
        if not np.array_equal(labels, frame["label"].to_numpy()):
            at = int(np.argmin(labels == frame["label"].to_numpy()))
            raise DataError(
                f"the models do not have the same labels: {_place(logs, int(rows[at]))} has the label {labels[at]} by "
                f'"{logs[0].name}" (label = "{logs[0].schema.label}") and {frame["label"][at]} by "{log.name}" '
                f'(label = "{log.schema.label}"); only models of one label can be compared'
            )


def _differ(logs: Sequence[ScoredLog], row: int, keeps: ScoredLog, leaves: ScoredLog) -> DataError:
    def where(log: ScoredLog) -> str:
        return f'where = "{log.schema.where}"' if log.schema.where else "without where"

    return DataError(
        f'the models do not keep the same rows: "{keeps.name}" ({where(keeps)}) keeps {_place(logs, row)}, '
        f'"{leaves.name}" ({where(leaves)}) leaves it out; only models that keep the same rows can be compared'
    )


def _place(logs: Sequence[ScoredLog], row: int) -> str:
    """A row of the log as a user counts it."""
    file = [entry for entry in logs[0].files if entry["first_row"] <= row][-1]
    return f'row {row - file["first_row"] + 1:,} of file "{file["name"]}"'
