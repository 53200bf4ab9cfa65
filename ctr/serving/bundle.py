"""A bundle: the folder that scoring needs, nothing more. Opening one verifies it, and needs no PyTorch.

    manifest.json         what the folder holds, with the digest of every other file and of itself
    schema.json           the schema of the kept fields; its joins read the side tables below
    vocabulary.parquet    field, role, value, id: the row of the embedding table that each kept feature reads, or its
                          number, where rows follow from hashes
    kept_values.parquet   instead of a vocabulary where values are hashed: which of them are kept
    crosses.parquet       which crosses of memorized pairs have a row (keys, or a sketch), where there are such pairs
    network.onnx          the network without its weights
    weights.safetensors   the weights, as they are stored
    side_tables/*.parquet what the kept fields need of the schema's joins
    encoding.json         how raw cells become ids, without reference to Python (docs/encoding.md)
    golden_pairs.parquet  200 raw cells of each field with their ids
    golden.parquet        a few raw rows (personal cells replaced) with the probability that the exported network
                          gave them

Nothing in it is ever run as code. No time and no absolute path is in it: the same run gives the same bytes.
"""

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl
from safetensors import SafetensorError
from safetensors.numpy import load_file

from ctr.dataset.crosses import CrossKeys, feature_words, read_admitted, read_sketch
from ctr.dataset.expressions import roots
from ctr.dataset.hashing import vocabulary_keys
from ctr.dataset.kept_values import KeptValues
from ctr.dataset.placed import PlacedFeatures, PlacedKeys
from ctr.dataset.placement import Placement
from ctr.dataset.preparation import side_table_path
from ctr.dataset.schema import Schema
from ctr.serving.golden_cells import CELLS
from ctr.serving.golden_pairs import COLUMNS
from ctr.serving.limits import (
    ANY,
    DISTINCT,
    GOLDEN_ROWS,
    SKETCH,
    Rows,
    check_parquet,
    check_tensors,
    read_parquet,
    refusing,
)
from ctr.serving.manifest import (
    CROSSES,
    DESCRIBED,
    ENCODING,
    GOLDEN,
    KEPT_VALUES,
    MANIFEST,
    PAIRS,
    SCHEMA,
    VOCABULARY,
    WEIGHTS,
    Manifest,
    broken,
    file_entry,
    first_line,
    read_json,
    read_manifest,
    require_short,
)

GOLDEN_PROBABILITY = "@probability"  # "@" keeps it apart from the raw columns
VOCABULARY_COLUMNS = {"field": pl.String, "role": pl.String, "value": pl.String, "id": pl.Int32}

_SIDE_TABLE = re.compile(r"side_tables/\d{5}\.parquet")


@dataclass(frozen=True)
class Bundle:
    """A verified bundle. `schema` holds the kept fields alone."""

    folder: Path
    manifest: Manifest
    schema: Schema

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Verify a folder: nothing is missing, no byte has changed, no file lies elsewhere.

        Raises:
            ConfigError: there is no bundle, or it was written by a newer version.
            DataError: the bundle is damaged or was altered; the message names the file.
        """
        with refusing(Path(folder)):
            return cls._opened(Path(folder))

    @classmethod
    def _opened(cls, folder: Path) -> Self:
        manifest = read_manifest(folder)
        _check_files(folder, manifest)
        schema = _read_schema(folder, len(manifest.fields))
        if [field.name for field in schema.fields] != [entry.name for entry in manifest.fields]:
            raise broken(folder, f'"{SCHEMA}" and "{MANIFEST}" name different fields')
        for field, entry in zip(schema.fields, manifest.fields, strict=True):
            if (field.scaled or field.kind == "vector") != (entry.scale is not None):
                raise broken(folder, f'"{MANIFEST}": field "{field.name}" and its scale do not fit')
        embedded = [join for join in schema.joins if join.at_scoring == "bundle"]
        sides = {side_table_path(number) for number in range(len(embedded))}
        if sides != manifest.files.keys() - set(manifest.required):
            raise broken(folder, f'"{SCHEMA}" and "{MANIFEST}" name different side tables')
        personal = {field.name for field in manifest.personal.fields} if manifest.personal else set[str]()
        for field in schema.fields:
            if field.pii and field.name not in personal:
                raise broken(folder, f'"{MANIFEST}": field "{field.name}" is personal, but not said to be')
        if manifest.encoding == "hashed" and (manifest.placement is None or manifest.kept_values is None):
            raise broken(folder, f'"{MANIFEST}": hashed values without placement or kept_values')
        return cls(folder, manifest, schema)

    @property
    def columns(self) -> list[str]:
        """The raw columns that scoring reads."""
        return list(dict.fromkeys(column for entry in self.manifest.fields for column in entry.columns))

    @property
    def bytes(self) -> int:
        """All of it on disk."""
        files = self.manifest.files.values()
        return sum(entry.bytes for entry in files) + (self.folder / MANIFEST).stat().st_size

    def vocabulary(self) -> pl.DataFrame:
        """field, role, value, id; ids are 1, 2, 3 ... up to the last row of the table, unless rows follow from hashes.

        Raises:
            DataError: they are not.
        """
        frame = self._parquet(VOCABULARY, VOCABULARY_COLUMNS, DISTINCT)
        if dict(frame.schema) != VOCABULARY_COLUMNS:
            raise broken(self.folder, f'"{VOCABULARY}": expected the columns {", ".join(VOCABULARY_COLUMNS)}')
        ids, rows = frame["id"].fill_null(0).to_numpy(), self.manifest.architecture.get("rows")
        if self.manifest.placement is not None:
            rows = len(ids) + 1
        if rows != len(ids) + 1 or not np.array_equal(np.sort(ids), np.arange(1, rows)):
            raise broken(self.folder, f'"{VOCABULARY}": expected each row of the table once, 1 to {rows} - 1')
        _check_roles(self.folder, frame, {spec.shares or spec.name for spec in self.schema.fields})
        return frame

    def reader(
        self, vocabulary: pl.DataFrame | None, weights: Mapping[str, npt.NDArray[Any]]
    ) -> PlacedFeatures | PlacedKeys | None:
        """From numbers, or hashes, to places in the table; None where numbers are rows.

        Args:
            vocabulary: what `vocabulary` returned, None where values are hashed.
            weights: what `weights` returned, whose tables are read.

        Raises:
            DataError: placement and table, or the fingerprints of kept values and what is said of them, do not fit.
        """
        manifest = self.manifest
        if manifest.placement is None:
            if manifest.architecture.get("composition"):
                raise broken(self.folder, f'"{MANIFEST}": rows are put together, but there is no placement')
            return None
        specs = sorted(self.schema.fields, key=lambda spec: spec.kind == "list")
        owners = [spec.shares or spec.name for spec in specs]
        try:
            placement = Placement.from_entry(manifest.placement.model_dump())
            _check_placement(placement, owners, vocabulary, manifest.architecture, weights)
            if vocabulary is not None:
                return PlacedFeatures.of_vocabulary(placement, vocabulary)
        except (KeyError, TypeError, ValueError) as error:
            raise broken(
                self.folder, f'"{MANIFEST}": the placement does not fit: {first_line(error)}'
            ) from None
        entry = manifest.kept_values
        assert entry is not None
        try:
            self._check_size(KEPT_VALUES, DISTINCT)
            kept = KeptValues.read(
                self.folder / KEPT_VALUES,
                bits=entry.bits,
                values=entry.values,
                whole=entry.whole,
                unknown=entry.unknown,
            )
        except ValueError as error:
            raise broken(self.folder, f'"{KEPT_VALUES}": {error}') from None
        if not math.isclose(kept.error_rate, entry.error_rate):
            raise broken(self.folder, f'"{MANIFEST}": expected error_rate = {kept.error_rate}')
        return PlacedKeys(placement, owners, kept)

    def crosses(self, vocabulary: pl.DataFrame | None) -> CrossKeys | None:
        """What the crosses of memorized pairs are found by; None where no pair is memorized.

        Args:
            vocabulary: what `vocabulary` returned.

        Raises:
            DataError: the file of crosses and what is said of it do not fit, or there is no vocabulary.
        """
        entry = self.manifest.crosses
        if entry is None:
            return None
        if vocabulary is None:
            raise broken(self.folder, f'"{MANIFEST}": crosses without a vocabulary')
        admitted, sketch = np.zeros(0, np.int64), None
        try:
            self._check_size(CROSSES, DISTINCT if entry.sketch is None else SKETCH)
            if entry.sketch is None:
                admitted = read_admitted(self.folder / CROSSES)
                if len(admitted) != entry.admitted:
                    raise ValueError(f"expected {entry.admitted} keys, found {len(admitted)}")
            else:
                sketch = read_sketch(self.folder / CROSSES)
                if sketch.shape[1] != entry.sketch:
                    raise ValueError(f"expected {entry.sketch} bytes a column, found {sketch.shape[1]}")
        except ValueError as error:
            raise broken(self.folder, f'"{CROSSES}": {error}') from None
        words = feature_words(vocabulary_keys(vocabulary), vocabulary["id"].to_numpy().astype(np.int64))
        return CrossKeys(tuple((first, second) for first, second in entry.pairs), words, admitted, sketch)

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """The network's tensors by name.

        Raises:
            DataError: the file is no safetensors file, or holds NaN or infinity.
        """
        try:
            check_tensors(self.folder / WEIGHTS)
            weights: dict[str, npt.NDArray[Any]] = load_file(self.folder / WEIGHTS)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise broken(self.folder, f'"{WEIGHTS}" cannot be read: {error}') from None
        for name, array in weights.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise broken(self.folder, f'"{WEIGHTS}": "{name}" holds NaN or infinity')
        return weights

    def side_tables(self) -> list[pl.DataFrame]:
        """One frame per join of `schema` whose table is embedded."""
        embedded, named = [join for join in self.schema.joins if join.at_scoring == "bundle"], self._named()
        return [self._parquet(side_table_path(number), named) for number in range(len(embedded))]

    def _named(self) -> set[str]:
        """All columns of rows and side tables that the schema names; others are not read."""
        schema = self.schema
        texts = [*schema.derive.values(), schema.label, schema.where, schema.weight, schema.row_id]
        names = {*self.columns, *(field.name for field in schema.fields)}
        names |= {root for text in texts if text for root in roots(text)}
        if schema.time_column is not None:
            names.add(schema.time_column)
        for join in schema.joins:
            names |= {name for name in (join.on, join.time, schema.log_time(join)) if name}
        return names

    def pairs(self) -> pl.DataFrame | None:
        """Golden pairs (`ctr.serving.golden_pairs`); None in the formats before they were."""
        if self.manifest.format_version < DESCRIBED:
            return None
        frame = self._parquet(PAIRS, COLUMNS, Rows(0, CELLS * len(self.schema.fields)))
        if dict(frame.schema) != COLUMNS:
            raise broken(self.folder, f'"{PAIRS}": expected the columns {", ".join(COLUMNS)}')
        return frame

    def encoding(self) -> Any:
        """What `encoding.json` says.

        Raises:
            DataError: it is longer than such a file can be, or no JSON.
        """
        require_short(self.folder, ENCODING)
        try:
            return read_json((self.folder / ENCODING).read_bytes())
        except (ValueError, RecursionError) as error:
            raise broken(self.folder, f'"{ENCODING}" is no valid JSON: {first_line(error)}') from None

    def golden(self) -> pl.DataFrame:
        """Raw rows with the probability they had at export, null where a row broke the schema.

        Raises:
            DataError: not even one has a probability, or one has none from 0 to 1.
        """
        frame = self._parquet(GOLDEN, {GOLDEN_PROBABILITY, *self._named()}, GOLDEN_ROWS)
        if frame.schema.get(GOLDEN_PROBABILITY) != pl.Float64:
            raise broken(self.folder, f'"{GOLDEN}": expected a column "{GOLDEN_PROBABILITY}" of type Float64')
        there = frame[GOLDEN_PROBABILITY].drop_nulls()
        if there.is_empty():
            raise broken(self.folder, f'"{GOLDEN}": expected at least one row with a probability, found none')
        wrong = there.filter(~there.is_between(0.0, 1.0))
        if len(wrong):
            raise broken(self.folder, f'"{GOLDEN}": expected probabilities from 0 to 1, found {wrong[0]:g}')
        return frame

    def _check_size(self, name: str, rows: Rows) -> None:
        try:
            if check_parquet(self.folder / name, rows):
                raise ValueError("it holds long text, expected numbers")
        except ValueError as error:
            raise ValueError(f"cannot be read: {error}") from None

    def _parquet(self, name: str, columns: Collection[str], rows: Rows = ANY) -> pl.DataFrame:
        try:
            return read_parquet(self.folder / name, columns, rows)
        except ValueError as error:
            raise broken(self.folder, f'"{name}" cannot be read: {error}') from None


def _read_schema(folder: Path, fields: int) -> Schema:
    """The schema of a bundle of so many fields.

    Raises:
        DataError: the file is none.
    """
    require_short(folder, SCHEMA)
    content = (folder / SCHEMA).read_bytes()
    try:
        # Fields are counted first: what is checked of each takes far longer than to read it.
        read = read_json(content)
        found = len(read["fields"])
        if found != fields:
            raise ValueError(f'expected {fields} fields as in "{MANIFEST}", found {found}')
        return Schema.model_validate_json(content)
    except (ValueError, TypeError, LookupError, RecursionError) as error:  # a ValidationError is a ValueError
        raise broken(folder, f'"{SCHEMA}" is no schema: {first_line(error)}') from None


def _check_roles(folder: Path, vocabulary: pl.DataFrame, owners: Collection[str]) -> None:
    """Make sure that there are no features but those of fields, and none of a role twice; values are looked at later.

    Raises:
        DataError: there are.
    """
    for name in vocabulary["field"].unique().to_list():
        if name not in owners:
            raise broken(folder, f'"{VOCABULARY}": there is no field "{name}"')
    if not vocabulary["role"].is_in(["value", "unknown", "missing"]).all():
        raise broken(folder, f'"{VOCABULARY}": expected the roles value, unknown and missing')
    own = vocabulary.filter((pl.col("role") != "value") | pl.col("value").is_null()).select("field", "role")
    if own.is_duplicated().any():
        raise broken(folder, f'"{VOCABULARY}": a field has two features of one role')


def _check_placement(
    placement: Placement,
    owners: Sequence[str],
    vocabulary: pl.DataFrame | None,
    architecture: Mapping[str, Any],
    weights: Mapping[str, npt.NDArray[Any]],
) -> None:
    """Make sure that every place is within the tables, and read as the network reads it.

    Raises:
        ValueError: it is not.
    """
    counts = {} if vocabulary is None else dict(vocabulary.group_by("field").len().iter_rows())
    there = {stretch.field for stretch in placement.stretches}
    for owner in [*owners, *counts]:
        if owner not in there:
            raise ValueError(f'it has no stretch for "{owner}"')
    tables = {"table.weight": (placement.rows, placement.width)}
    if placement.second_rows:
        tables["table.second.weight"] = (placement.second_rows, placement.second_width)
    for name, shape in tables.items():
        found = weights[name].shape if name in weights else None
        if found != shape:
            raise ValueError(f'"{name}": expected the shape {shape}, found {found}')
    odd, multi = placement.odd_lookups, placement.composition == "multi_hash"
    stated = {
        "composition": placement.composition,
        "rows": placement.rows,
        "second_rows": placement.second_rows,
        "lookups": placement.second_width if multi else placement.lookups,
        "odd_lookups": [[slot, odd[owner]] for slot, owner in enumerate(owners) if owner in odd],
    }
    for key, value in stated.items():
        if architecture.get(key) != value:
            raise ValueError(f"architecture.{key}: expected {value}, found {architecture.get(key)}")
    side_by_side = placement.composition in ("lookup", "robe")
    for own in placement.stretches:
        if own.exact and vocabulary is None:
            raise ValueError(f'"{own.field}" cannot be free of collisions without a vocabulary')
        if own.exact and counts.get(own.field, 0) * (own.lookups if side_by_side else 1) > own.rows:
            raise ValueError(f'the stretch of "{own.field}" has too few rows for its features')


def _check_files(folder: Path, manifest: Manifest) -> None:
    for name in manifest.required:
        if name not in manifest.files:
            raise broken(folder, f'"{MANIFEST}" does not list "{name}"')
    inside = folder.resolve()
    for name, entry in manifest.files.items():
        # Names are matched, not cleaned: no other name can be in a bundle, whatever it would lead to.
        if name not in manifest.required and not _SIDE_TABLE.fullmatch(name):
            raise broken(folder, f'"{MANIFEST}" lists "{name}", which is no file of a bundle')
        path = folder / name
        if not path.is_file():
            raise broken(folder, f'the file "{name}" is missing')
        if path.resolve() != inside / name:
            raise broken(folder, f'"{name}" is a link; a bundle\'s files lie in its folder')
        if path.stat().st_size != entry.bytes or file_entry(path) != entry:
            raise broken(folder, f'"{name}" is not the file that was exported, its bytes differ')
