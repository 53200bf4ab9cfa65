"""The rows of a part as arrays on disk, mapped for training: what the parquet files say, row by row."""

from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.field_spec import Pooling


@dataclass(frozen=True)
class FieldInfo:
    """One field of a dataset: its features occupy global ids `offset` to `offset + features - 1`.

    shares: the field whose features these are; both have the same offset. size: numbers of a vector field.
    always, never: whether selectors must keep all of it, or drop all of it. serve: the global id and the factor that a
    bias field has at scoring.
    """

    name: str
    kind: str
    features: int
    offset: int
    scaled: bool
    shares: str | None = None
    pooling: Pooling = "mean"
    size: int = 0
    always: bool = False
    never: bool = False
    serve: tuple[int, float] | None = None


@dataclass(frozen=True)
class Part:
    """The rows of one part, as arrays mapped from disk (nothing is read until it is asked for).

    Shapes (N rows, S single-valued fields, L values over all lists and rows):
        ids: (N, S) int32, global feature ids; int64 keys (`ctr.dataset.hashing`) where there is no vocabulary.
        values: (N, S) float32 factors of the scaled fields (1 elsewhere), or None where no field is scaled.
        lists: per list field the ids (L,), like those of single-valued fields, and offsets (N + 1,) int64.
        labels: (N,) uint8.
        rows: (N,) int64, number of the row in the input.
        weights: (N,) float32, how much each row counts, 1 on average over train; None where all count alike.
        times: (N,) int64, sortable keys of the time that the split names; None where it names none.
        vectors: (N, T) float32, the numbers of all vector fields side by side; None where there are none.
        true_probability: (N,) float64, synthetic logs only.
        keep_rate: share of the rows with label 0 that the log holds; 1 where it was not sampled.
    """

    ids: npt.NDArray[np.signedinteger[Any]]
    values: npt.NDArray[np.float32] | None
    lists: list[tuple[npt.NDArray[np.signedinteger[Any]], npt.NDArray[np.int64]]]
    labels: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.int64]
    true_probability: npt.NDArray[np.float64] | None
    weights: npt.NDArray[np.float32] | None = None
    times: npt.NDArray[np.int64] | None = None
    vectors: npt.NDArray[np.float32] | None = None
    keep_rate: float = 1.0

    def __len__(self) -> int:
        return len(self.labels)


def read_arrays(folder: Path, fields: Sequence[FieldInfo], keep_rate: float = 1.0) -> Part:
    """Map what `write_arrays` wrote; only labels, weights and true probabilities are read.

    Raises:
        OSError, ValueError: a file is missing or broken.
    """

    def mapped(name: str) -> npt.NDArray[Any]:
        array: npt.NDArray[Any] = np.load(folder / f"{name}.npy", mmap_mode="r")
        return array

    def loaded(name: str) -> npt.NDArray[Any] | None:
        path = folder / f"{name}.npy"
        return np.load(path) if path.exists() else None

    lists = sum(field.kind == "list" for field in fields)
    return Part(
        ids=mapped("ids"),
        values=mapped("values") if (folder / "values.npy").exists() else None,
        lists=[(mapped(f"list{n}"), mapped(f"offsets{n}")) for n in range(lists)],
        labels=np.load(folder / "labels.npy"),
        rows=mapped("rows"),
        true_probability=loaded("true_probability"),
        weights=loaded("weights"),
        times=mapped("times") if (folder / "times.npy").exists() else None,
        vectors=mapped("vectors") if (folder / "vectors.npy").exists() else None,
        keep_rate=keep_rate,
    )


def write_arrays(
    folder: Path,
    frames: Iterable[pl.DataFrame],
    fields: Sequence[FieldInfo],
    *,
    extra: Collection[str] = (),
    mean_weight: float = 1.0,
    hashed: bool = False,
) -> None:
    """Lay encoded rows out as arrays, so that a shuffled batch is one gather per array.

    Args:
        folder: empty; `read_arrays` reads it.
        frames: rows as a part's parquet files hold them.
        fields: in slot order.
        extra: which of "@true_probability", "@weight" and "@time" the rows have.
        mean_weight: of the train rows; weights are divided by it.
        hashed: whether ids are keys.
    """
    single = [field for field in fields if field.kind != "list"]
    with ExitStack() as stack:

        def array(file: str, dtype: type, *tail: int) -> _ArrayFile:
            return stack.enter_context(_ArrayFile(folder / f"{file}.npy", dtype, tail))

        kind: type = np.int64 if hashed else np.int32
        ids = array("ids", kind, len(single))
        scaled = any(field.scaled for field in single)
        values = array("values", np.float32, len(single)) if scaled else None
        truth = array("true_probability", np.float64) if "@true_probability" in extra else None
        weights = array("weights", np.float32) if "@weight" in extra else None
        times = array("times", np.int64) if "@time" in extra else None
        sizes = [(field.name, field.size) for field in single if field.kind == "vector"]
        vectors = array("vectors", np.float32, sum(size for _, size in sizes)) if sizes else None
        labels, numbers = array("labels", np.uint8), array("rows", np.int64)
        lists = [
            _ListFiles(
                field, array(f"list{n}", kind), array(f"offsets{n}", np.int64), 0 if hashed else field.offset
            )
            for n, field in enumerate(fields[len(single) :])
        ]
        for frame in frames:
            block: npt.NDArray[Any] = np.empty((frame.height, len(single)), kind)
            factors = np.ones((frame.height, len(single)), np.float32)
            for slot, field in enumerate(single):
                block[:, slot] = frame[field.name].to_numpy() + (0 if hashed else field.offset)
                if field.scaled:
                    factors[:, slot] = frame[f"@value:{field.name}"].to_numpy()
            ids.add(block)
            if values is not None:
                values.add(factors)
            if truth is not None:
                truth.add(frame["@true_probability"].to_numpy())
            if weights is not None:
                weights.add(frame["@weight"].to_numpy() / mean_weight)
            if times is not None:
                times.add(frame["@time"].to_numpy())
            if vectors is not None:
                vectors.add(np.hstack([frame[f"@vector:{name}"].to_numpy() for name, _ in sizes]))
            labels.add(frame["@label"].to_numpy())
            numbers.add(frame["@row"].to_numpy())
            for files in lists:
                files.add(frame[files.field.name])


class _ArrayFile:
    """A `.npy` file that grows row by row; written, not mapped: on a full disk a mapped write kills the process."""

    def __init__(self, path: Path, kind: type, tail: tuple[int, ...]) -> None:
        self._kind, self._tail, self._rows = np.dtype(kind), tail, 0
        self._file = path.open("wb")
        self._write_header()

    def __enter__(self) -> "_ArrayFile":
        return self

    def __exit__(self, *error: object) -> None:
        with self._file:
            self._file.seek(0)
            self._write_header()

    def add(self, rows: npt.NDArray[Any]) -> None:
        """Append rows (N, *tail)."""
        self._file.write(np.ascontiguousarray(rows, self._kind).data)
        self._rows += len(rows)

    def _write_header(self) -> None:
        # NumPy pads headers, so that one with more rows is as long as one with fewer.
        header = {"descr": self._kind.str, "fortran_order": False, "shape": (self._rows, *self._tail)}
        np.lib.format.write_array_header_1_0(self._file, header)


class _ListFiles:
    """One list field as flat ids and, per row, where its values start."""

    def __init__(self, field: FieldInfo, ids: _ArrayFile, offsets: _ArrayFile, offset: int) -> None:
        self.field, self._ids, self._offsets, self._offset = field, ids, offsets, offset
        self._end = 0
        offsets.add(np.zeros(1, np.int64))

    def add(self, column: pl.Series) -> None:
        """Append the lists of some rows."""
        ends = self._end + np.cumsum(column.list.len().to_numpy(), dtype=np.int64)
        self._offsets.add(ends)
        self._end = int(ends[-1])
        self._ids.add(column.explode(empty_as_null=False).to_numpy() + self._offset)
