"""A dataset: the encoded parts of a click log on disk, with vocabulary and manifest, opened for training."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ctr.dataset.hashing import Keys, vocabulary_keys
from ctr.dataset.key_counts import counted_keys
from ctr.dataset.manifest import FORMAT
from ctr.dataset.row_arrays import FieldInfo, Part, read_arrays, write_arrays
from ctr.dataset.schema import Schema
from ctr.dataset.unsealing import SealedRead, record_read, rows_digest, sealed_reads
from ctr.errors import CtrError, DataError

__all__ = ["FIRST_VALUE", "MISSING", "UNKNOWN", "Dataset", "FieldInfo", "Part"]

PartName = Literal["train", "valid", "test"]
UNKNOWN, MISSING, FIRST_VALUE = 0, 1, 2  # local ids, the same in every field
_CHUNK = 131_072  # rows laid out at a time


class Dataset:
    """An encoded click log.

    Args:
        folder: what `ctr.dataset.ingest.ingest` returned.

    Raises:
        DataError: the folder holds no dataset, an altered one, or one of a newer format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = _read_manifest(folder)
        try:
            self.schema = Schema.model_validate(self.manifest["schema"])
            self.digest: str = self.manifest["digest"]
            self.hashed: bool = self.manifest["encoding"] == "hashed"
            fields = _fields(self.schema, self.manifest["fields"], self.hashed)
        except (KeyError, TypeError, ValueError) as error:
            raise _altered(folder / "manifest.json", f"{type(error).__name__}: {error}") from None
        # Slot order: single-valued fields in schema order, then list fields.
        self.fields: list[FieldInfo] = sorted(fields, key=lambda field: field.kind == "list")
        if self.hashed:
            # What the log holds of each field is known only now: train rows have to be read for it.
            counts = dict(self.vocabulary.group_by("field").len().iter_rows())
            entries = [
                {**entry, "features": counts[entry["shares"] or entry["name"]]}
                for entry in self.manifest["fields"]
            ]
            fields = _fields(self.schema, entries, True)
            self.fields = sorted(fields, key=lambda field: field.kind == "list")
        self.features: int = sum(field.features for field in fields if field.shares is None)

    @property
    def name(self) -> str:
        """The schema's name."""
        return self.schema.name

    @cached_property
    def vocabulary(self) -> pl.DataFrame:
        """All features, sorted by global id: field, role, value, id (local), count and weighted_count (train rows).

        A field that shares another's features has none of its own here. Where there is no vocabulary, the values are
        the keys of the train rows, and the column key holds them as numbers (`ctr.dataset.key_counts`).
        """
        if self.hashed:
            return self._counted_keys()
        owners = [entry["name"] for entry in self.manifest["fields"] if entry["shares"] is None]
        order = pl.DataFrame({"field": owners}).with_row_index("@")
        frame = pl.read_parquet(self.folder / "vocabulary.parquet").join(
            order, on="field", maintain_order="left"
        )
        return frame.sort("@", "id").drop("@")

    def _counted_keys(self) -> pl.DataFrame:
        path = self.folder / "cache" / "keys.parquet"
        if path.is_file():
            try:
                return pl.read_parquet(path)
            except (OSError, pl.exceptions.PolarsError) as error:
                raise _altered(path, str(error)) from None
        single = [field.name for field in self.fields if field.kind != "list"]
        lists = [field.name for field in self.fields if field.kind == "list"]
        columns = {name: slot for slot, name in enumerate(single)}
        numbers = {name: number for number, name in enumerate(lists)}
        found = counted_keys(self.schema.fields, columns, numbers, self.part("train"), self._mean_weight)
        scratch = path.with_name(f".{os.getpid()}-{path.name}")
        try:
            found.write_parquet(scratch)
            scratch.replace(path)
        except (OSError, pl.exceptions.PolarsError) as error:
            scratch.unlink(missing_ok=True)
            raise CtrError(
                f'"{path}": the values of train cannot be written ({error}); '
                "make room or allow writing there, and run the same command again"
            ) from None
        return found

    @property
    def _mean_weight(self) -> float:
        """Of the train rows, as the log has them."""
        weights = self.manifest["weights"]
        return float(weights["mean"]) if weights else 1.0

    @cached_property
    def keys(self) -> Keys:
        """(V,) key of each feature, by global id."""
        if self.hashed:
            return self.vocabulary["key"].to_numpy()
        return vocabulary_keys(self.vocabulary)

    @cached_property
    def _order(self) -> tuple[Keys, npt.NDArray[np.int64]]:
        order = np.argsort(self.keys, kind="stable")
        return self.keys[order], order

    def numbered(self, keys: Keys, unknown: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Global feature ids of keys, of their shape.

        Args:
            unknown: the id of keys that no train row holds; broadcast against `keys`.
        """
        ordered, order = self._order
        at = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
        return np.where(ordered[at] == keys, order[at], unknown)

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

    def scanned(self, name: PartName, *, labels: bool = False) -> pl.LazyFrame:
        """The encoded rows of a part, to be read a stretch at a time: ids, numbers and time; of test nothing more.

        Args:
            labels: whether `@label` is there too, and `@weight` where rows have weights.

        Raises:
            CtrError: labels of test were asked for.
        """
        if labels and name == "test":
            raise CtrError('the labels of "test" are sealed: expected "train" or "valid"')
        frame = pl.scan_parquet(self.folder / name / "part-*.parquet")
        own = {"@label", "@weight"} if labels else set()
        told = ("@label", "@true_probability", "@weight", "@row_id")  # all that may say how a row ended
        return frame.drop([column for column in told if column not in own], strict=False)

    def row_ids(self, name: PartName) -> pl.Series | None:
        """(N,) what the schema's `row_id` says of each row of a part; None where it names no column."""
        if self.schema.row_id is None:
            return None
        return pl.read_parquet(self.folder / name / "part-*.parquet", columns=["@row_id"])["@row_id"]

    def sealed_test(self, run: str = "a program that gave no name", purpose: str = "evaluation") -> Part:
        """The rows of test, for the one evaluation that writes the report. Each call counts as a read.

        Args:
            run: the name of who reads, with its digest.
            purpose: what for.

        Raises:
            DataError: the count of reads was altered.
            CtrError: it cannot be written.
        """
        part = self._open("test")
        inputs = self.manifest["inputs"]
        digest = rows_digest(inputs[: len(inputs) - len(self.schema.joins)], part.rows)
        record_read(self.folder, digest, run, purpose)
        return part

    def sealed_reads(self) -> list[SealedRead]:
        """Every read of these test rows so far, oldest first (`ctr.dataset.unsealing`)."""
        return sealed_reads(self.folder)

    def _open(self, name: PartName) -> Part:
        cache = self.folder / "cache" / name
        if not cache.is_dir():
            self._map(name, cache)
        try:
            part = read_arrays(cache, self.fields, self.schema.keep_rate)
        except (OSError, ValueError) as error:
            raise _altered(cache, str(error)) from None
        if len(part) != self.manifest["rows"][name]:
            raise _altered(cache, f"expected {self.manifest['rows'][name]} rows, found {len(part)}")
        return part

    def _map(self, name: PartName, target: Path) -> None:
        """Lay the parquet files of one part out row by row, once; the folder appears whole or not at all."""
        try:
            target.parent.mkdir(exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
            try:
                write_arrays(
                    scratch,
                    self._frames(name),
                    self.fields,
                    extra=self.manifest["row_columns"],
                    mean_weight=self._mean_weight,
                    hashed=self.hashed,
                )
                scratch.rename(target)
            except BaseException:
                shutil.rmtree(scratch, ignore_errors=True)
                raise
        except OSError as error:
            if not target.is_dir():  # otherwise another process was faster, with the same arrays
                raise CtrError(
                    f'"{target}": the rows of {name} cannot be laid out ({error}); '
                    "make room or allow writing there, and run the same command again"
                ) from None

    def _frames(self, name: PartName) -> Iterator[pl.DataFrame]:
        """The rows of one part in order, as many at a time as memory does not mind."""
        folder, expected = self.folder / name, self.manifest["rows"][name]
        try:
            files = [pq.ParquetFile(file) for file in sorted(folder.glob("part-*.parquet"))]
            rows = sum(file.metadata.num_rows for file in files)
            if rows != expected:
                raise _altered(folder, f"expected {expected} rows, found {rows}")
            for file in files:
                with file:
                    for batch in file.iter_batches(batch_size=_CHUNK):
                        frame = pl.from_arrow(batch)
                        assert isinstance(frame, pl.DataFrame)
                        yield frame
        except pa.ArrowException as error:
            raise _altered(folder, str(error)) from None


def _fields(schema: Schema, entries: Sequence[Mapping[str, Any]], hashed: bool) -> list[FieldInfo]:
    """The fields in schema order, with the global ids that they occupy."""
    entries = [{**entry, "features": entry["features"] or 0} for entry in entries]
    specs, found = {spec.name: spec for spec in schema.fields}, dict[str, FieldInfo]()
    offset = 0
    for entry in sorted(entries, key=lambda entry: entry["shares"] is not None):  # owners first
        spec, shares = specs[entry["name"]], entry["shares"]
        own = offset if shares is None else found[shares].offset
        owner = spec if shares is None else specs[shares]
        serve = entry["serve"]
        found[spec.name] = FieldInfo(
            spec.name,
            spec.kind,
            entry["features"],
            own,
            spec.scaled,
            shares=shares,
            pooling=spec.pooling,
            size=spec.size or 0,
            always=owner.protected,
            never=owner.keep == "never",
            serve=None if serve is None else (serve["id"] + (0 if hashed else own), serve["factor"]),
        )
        offset += entry["features"] if shares is None else 0
    return [found[entry["name"]] for entry in entries]


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f'"{folder}": no dataset here (expected a file "manifest.json")') from None
    except ValueError as error:
        raise DataError(f'"{path}": no valid JSON: {error}') from None
    if not isinstance(manifest, dict):
        raise _altered(path, f"expected an object, found {type(manifest).__name__}")
    if manifest.get("format") != FORMAT:
        raise DataError(
            f'"{folder}": expected dataset format {FORMAT}, found {manifest.get("format")}; '
            "ingest the log again with this version"
        )
    return manifest


def _altered(path: Path, found: str) -> DataError:
    return DataError(f'"{path}": {found}; the dataset was altered: delete its folder and ingest again')
