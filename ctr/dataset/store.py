"""A dataset: the encoded parts of a click log on disk, with vocabulary and manifest, opened for training."""

import json
import shutil
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow.parquet as pq

from ctr.dataset.schema import Schema
from ctr.errors import CtrError, DataError

PartName = Literal["train", "valid", "test"]
UNKNOWN, MISSING, FIRST_VALUE = 0, 1, 2  # local ids, the same in every field


@dataclass(frozen=True)
class FieldInfo:
    """One field of a dataset: its features occupy global ids `offset` to `offset + features - 1`."""

    name: str
    kind: str
    features: int
    offset: int
    scaled: bool


@dataclass(frozen=True)
class Part:
    """The rows of one part, as arrays mapped from disk (nothing is read until it is asked for).

    Shapes (N rows, S single-valued fields, L values over all lists and rows):
        ids: (N, S) int32, global feature ids.
        values: (N, S) float32 factors of the scaled fields (1 elsewhere), or None where no field is scaled.
        lists: per list field the global ids (L,) int32 and offsets (N + 1,) int64.
        labels: (N,) uint8.
        rows: (N,) int64, number of the row in the input.
        true_probability: (N,) float64, synthetic logs only.
    """

    ids: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32] | None
    lists: list[tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]]
    labels: npt.NDArray[np.uint8]
    rows: npt.NDArray[np.int64]
    true_probability: npt.NDArray[np.float64] | None

    def __len__(self) -> int:
        return len(self.labels)


class Dataset:
    """An encoded click log.

    Args:
        folder: what `ctr.dataset.ingest.ingest` returned.

    Raises:
        DataError: the folder holds no dataset, an altered one, or one of a newer format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise DataError(f'"{folder}": no dataset here (expected a file "manifest.json")') from None
        except json.JSONDecodeError as error:
            raise DataError(f'"{folder / "manifest.json"}": no valid JSON: {error}') from None
        if self.manifest.get("format") != 1:
            raise DataError(
                f'"{folder}": expected dataset format 1, found {self.manifest.get("format")}; '
                "ingest the log again with this version"
            )
        self.schema = Schema.model_validate(self.manifest["schema"])
        self.digest: str = self.manifest["digest"]
        scaled = {field.name for field in self.schema.fields if field.scaled}
        offset, fields = 0, []
        for entry in self.manifest["fields"]:
            name = entry["name"]
            fields.append(FieldInfo(name, entry["kind"], entry["features"], offset, name in scaled))
            offset += entry["features"]
        # Slot order: single-valued fields in schema order, then list fields.
        self.fields: list[FieldInfo] = sorted(fields, key=lambda field: field.kind == "list")
        self.features: int = offset

    @property
    def name(self) -> str:
        """The schema's name."""
        return self.schema.name

    @cached_property
    def vocabulary(self) -> pl.DataFrame:
        """All features, sorted by global id: field, role, value, id (local), count (train rows)."""
        order = pl.DataFrame({"field": [entry["name"] for entry in self.manifest["fields"]]}).with_row_index(
            "@"
        )
        frame = pl.read_parquet(self.folder / "vocabulary.parquet").join(
            order, on="field", maintain_order="left"
        )
        return frame.sort("@", "id").drop("@")

    def part(self, name: Literal["train", "valid"]) -> Part:
        """The rows of train or valid.

        Raises:
            CtrError: test was asked for. Only the final evaluation reads it, through `sealed_test`.
        """
        if name not in ("train", "valid"):
            raise CtrError(
                f'part "{name}" is sealed: expected "train" or "valid"; '
                "test rows are read once, by the final evaluation, and steer nothing"
            )
        return self._open(name)

    def sealed_test(self) -> Part:
        """The rows of test, for the one evaluation that writes the report."""
        return self._open("test")

    def _open(self, name: PartName) -> Part:
        cache = self.folder / "cache" / name
        if not cache.is_dir():
            self._map(name, cache)
        values, truth = cache / "values.npy", cache / "true_probability.npy"
        return Part(
            ids=np.load(cache / "ids.npy", mmap_mode="r"),
            values=np.load(values, mmap_mode="r") if values.exists() else None,
            lists=[
                (
                    np.load(cache / f"list{n}.npy", mmap_mode="r"),
                    np.load(cache / f"offsets{n}.npy", mmap_mode="r"),
                )
                for n in range(sum(field.kind == "list" for field in self.fields))
            ],
            labels=np.load(cache / "labels.npy"),
            rows=np.load(cache / "rows.npy", mmap_mode="r"),
            true_probability=np.load(truth) if truth.exists() else None,
        )

    def _map(self, name: PartName, target: Path) -> None:
        """Lay the parquet files of one part out row by row, so that a shuffled batch is one gather per array."""
        target.parent.mkdir(exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
        try:
            self._write_arrays(name, scratch)
            scratch.rename(target)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise

    def _write_arrays(self, name: PartName, folder: Path) -> None:
        files = sorted((self.folder / name).glob("part-*.parquet"))
        rows = sum(pq.read_metadata(file).num_rows for file in files)
        if rows != self.manifest["rows"][name]:
            raise DataError(
                f'"{self.folder / name}": expected {self.manifest["rows"][name]} rows, found {rows}; '
                "the dataset was altered: delete the folder and ingest again"
            )
        single = [field for field in self.fields if field.kind != "list"]
        ids = _array(folder / "ids.npy", np.int32, (rows, len(single)))
        scaled = any(field.scaled for field in single)
        values = _array(folder / "values.npy", np.float32, (rows, len(single))) if scaled else None
        truth = (
            _array(folder / "true_probability.npy", np.float64, (rows,))
            if self.schema.true_probability
            else None
        )
        labels = _array(folder / "labels.npy", np.uint8, (rows,))
        numbers = _array(folder / "rows.npy", np.int64, (rows,))
        lists = [_ListWriter(folder, n, field) for n, field in enumerate(self.fields[len(single) :])]
        start = 0
        for file in files:
            for batch in pq.ParquetFile(file).iter_batches(batch_size=131_072):
                frame = pl.from_arrow(batch)
                assert isinstance(frame, pl.DataFrame)
                chunk = slice(start, start + frame.height)
                for slot, field in enumerate(single):
                    ids[chunk, slot] = frame[field.name].to_numpy() + field.offset
                    if values is not None:
                        values[chunk, slot] = (
                            frame[f"@value:{field.name}"].to_numpy() if field.scaled else 1.0
                        )
                if truth is not None:
                    truth[chunk] = frame["@true_probability"].to_numpy()
                labels[chunk] = frame["@label"].to_numpy()
                numbers[chunk] = frame["@row"].to_numpy()
                for writer in lists:
                    writer.add(frame[writer.field.name])
                start += frame.height
        for writer in lists:
            writer.close()


class _ListWriter:
    """Writes one list field as flat ids and offsets, chunk by chunk."""

    def __init__(self, folder: Path, number: int, field: FieldInfo) -> None:
        self.field = field
        self._ids = (folder / f"list{number}.bin").open("wb")
        self._path = folder / f"list{number}.npy"
        self._offsets_path = folder / f"offsets{number}.npy"
        self._lengths: list[npt.NDArray[np.int64]] = []

    def add(self, column: pl.Series) -> None:
        self._lengths.append(column.list.len().to_numpy().astype(np.int64))
        flat = column.explode(empty_as_null=False).to_numpy().astype(np.int32) + self.field.offset
        self._ids.write(flat.astype(np.int32).tobytes())

    def close(self) -> None:
        self._ids.close()
        lengths = np.concatenate([np.zeros(1, np.int64), *self._lengths])
        np.save(self._offsets_path, np.cumsum(lengths))
        binary = Path(self._ids.name)
        flat = np.memmap(binary, np.int32, "r") if binary.stat().st_size else np.zeros(0, np.int32)
        np.save(self._path, flat)
        binary.unlink()


def _array(path: Path, kind: type, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    if 0 in shape:
        np.save(path, np.zeros(shape, kind))
        return np.zeros(shape, kind)
    return np.lib.format.open_memmap(path, mode="w+", dtype=kind, shape=shape)
