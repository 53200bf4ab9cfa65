"""Prepared rows -> ids: the one encoding of training and scoring. Needs no PyTorch."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ctr.dataset.arrow_arrays import as_arrow, as_numpy, lengths_of
from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.hashing import role_key, value_key, value_keys
from ctr.dataset.parallel import in_threads
from ctr.dataset.schema import Schema
from ctr.dataset.transforms import Scale, log_square, quantile_bin, scaled, scaled_vectors
from ctr.dataset.value_index import ValueIndex

Numbers = npt.NDArray[np.signedinteger[Any]]


class FieldEncoder:
    """The encoding of one field by its vocabulary.

    Args:
        spec: the field.
        vocabulary: its features: role, value, id. Unknown or missing may be absent; they are id 0 then.
        scale: of a scaled or a vector field.
        edges: of a quantile field.
        index: of its values, where another field that shares them has one already.
    """

    def __init__(
        self,
        spec: FieldSpec,
        vocabulary: pl.DataFrame,
        scale: Scale | None = None,
        edges: Sequence[float] | None = None,
        index: ValueIndex | None = None,
    ) -> None:
        self.spec, self.scale, self.edges = spec, scale, edges
        own = {
            role: identity
            for role, value, identity in vocabulary.filter(
                (pl.col("role") != "value") | pl.col("value").is_null()
            )
            .select("role", "value", "id")
            .iter_rows()
        }
        self.unknown, self.missing = own.get("unknown", 0), own.get("missing", 0)
        self.present = own.get("value", 0)  # of a scaled or vector field that is not missing
        self._index = value_index(vocabulary) if index is None else index

    kind: type[np.signedinteger[Any]] = np.int32  # of ids

    def look_up(self, texts: pl.Series) -> Numbers:
        """Id of each canonical text; null is missing."""
        if texts.null_count() == 0:
            return self._index.look_up(texts, self.unknown)
        result = np.full(len(texts), self.missing, np.int32)
        present = texts.is_not_null().to_numpy()
        result[present] = self._index.look_up(texts.drop_nulls(), self.unknown)
        return result

    def repeated(self) -> str | None:
        """A value that the vocabulary holds twice; None where all are different."""
        return self._index.repeated()

    @property
    def index_bytes(self) -> int:
        """What looking values up takes in memory; fields that share values share it."""
        return self._index.nbytes

    def find(self, text: str) -> int:
        """Id of one canonical text.

        Raises:
            UnicodeEncodeError: the text holds a lone surrogate.
        """
        return self._index.find(text, self.unknown)

    def find_all(self, texts: Sequence[str]) -> list[int]:
        """Ids of canonical texts.

        Raises:
            UnicodeEncodeError: a text holds a lone surrogate.
        """
        return self._index.find_all(texts, self.unknown)

    def category(self, values: pl.Series) -> pl.Series:
        """What is counted and looked up, as text or Int64: the value itself, its bin, or its log square."""
        if self.spec.transform == "log_square":
            return log_square(values)
        if self.spec.transform == "quantile":
            return quantile_bin(values, self.edges or [])
        return values

    def encode(self, values: pl.Series) -> list[pl.Series]:
        """The columns of a dataset for a prepared column: ids, and the number where the field is scaled."""
        name = self.spec.name
        if self.spec.scaled:
            assert self.scale is not None, "a scaled field has a scale"
            ids = np.where(values.is_null().to_numpy(), self.missing, self.present).astype(self.kind)
            return [pl.Series(name, ids), scaled(values, self.scale).alias(f"@value:{name}")]
        if self.spec.kind == "vector":
            assert self.scale is not None, "a vector field has a scale"
            ids = np.where(values.is_null().to_numpy(), self.missing, self.present).astype(self.kind)
            return [pl.Series(name, ids), scaled_vectors(values, self.scale).alias(f"@vector:{name}")]
        if self.spec.kind == "list":
            array = values.rechunk().to_arrow()
            codes, distinct = coded(pl.Series("item", array.flatten()))
            ids = self.look_up(distinct)[codes]
            return [listed(name, ids, lengths_of(values), self.missing)]
        codes, distinct = coded(self.category(values))
        return [pl.Series(name, self.look_up(distinct.cast(pl.String))[codes])]


class KeyEncoder(FieldEncoder):
    """The encoding of one field without a vocabulary: ids are 64-bit keys (`ctr.dataset.hashing`), read as signed."""

    kind = np.int64

    def __init__(
        self, spec: FieldSpec, scale: Scale | None = None, edges: Sequence[float] | None = None
    ) -> None:
        self.spec, self.scale, self.edges = spec, scale, edges
        self._owner = spec.shares or spec.name
        roles = ("unknown", "missing", "number")
        self.unknown, self.missing, self.present = (signed(role_key(self._owner, role)) for role in roles)

    def look_up(self, texts: pl.Series) -> Numbers:
        """Key of each canonical text; null is missing."""
        return value_keys(self._owner, texts).view(np.int64)

    def repeated(self) -> str | None:
        """There is no vocabulary."""
        return None

    @property
    def index_bytes(self) -> int:
        """There is no vocabulary."""
        return 0

    def find(self, text: str) -> int:
        """Key of one canonical text."""
        return signed(value_key(self._owner, text))

    def find_all(self, texts: Sequence[str]) -> list[int]:
        """Keys of canonical texts."""
        return [self.find(text) for text in texts]


def value_index(vocabulary: pl.DataFrame) -> ValueIndex:
    """Of the values of one field's vocabulary."""
    listed = vocabulary.filter((pl.col("role") == "value") & pl.col("value").is_not_null())
    return ValueIndex(listed["value"], listed["id"].cast(pl.Int32).to_numpy())


def signed(key: int) -> int:
    """The signed number of the same 64 bits."""
    return key - (key >> 63 << 64)


def coded(values: pl.Series) -> tuple[npt.NDArray[np.int32], pl.Series]:
    """Codes into the distinct values, which hold a null where `values` do."""
    array = values.rechunk().to_arrow().dictionary_encode(null_encoding="encode")
    return as_numpy(array.indices), pl.Series(values.name, array.dictionary, dtype=values.dtype)


def listed(name: str, ids: Numbers, lengths: npt.NDArray[np.int64], missing: int) -> pl.Series:
    """Lists of ids from flat ids and lengths; an empty list holds the missing id alone."""
    full = np.maximum(lengths, 1)
    offsets = np.concatenate(([0], np.cumsum(full)))
    flat = np.full(int(offsets[-1]), missing, ids.dtype)
    flat[np.repeat(lengths > 0, full)] = ids
    return pl.Series(name, pa.LargeListArray.from_arrays(as_arrow(offsets), as_arrow(flat)))


class Encoder:
    """Encodes prepared frames.

    Args:
        schema: the schema.
        fields: per field what a manifest's `fields` says: name, scale (shift, factor) and edges. Fields of the schema
            that are not listed are left out.
        vocabulary: columns field, role, value, id. A compact one has table rows as ids and leaves out what was dropped;
            whatever has no row then maps to 0. None where ids are keys.
        only: names of the fields to encode; by default all that are listed.
    """

    def __init__(
        self,
        schema: Schema,
        fields: Sequence[Mapping[str, Any]],
        vocabulary: pl.DataFrame | None,
        only: Collection[str] | None = None,
    ) -> None:
        entries = {entry["name"]: entry for entry in fields if only is None or entry["name"] in only}
        chosen = [spec for spec in schema.fields if spec.name in entries]
        groups = {} if vocabulary is None else vocabulary.partition_by("field", as_dict=True)

        none = vocabulary.clear() if vocabulary is not None else pl.DataFrame()
        owners = dict.fromkeys(spec.shares or spec.name for spec in chosen) if vocabulary is not None else {}
        indices = in_threads(lambda owner: value_index(groups.get((owner,), none)), owners)
        index = dict(zip(owners, indices, strict=True))  # fields that share values share it

        def build(spec: FieldSpec) -> FieldEncoder:
            entry = entries[spec.name]
            scale = Scale(**entry["scale"]) if entry.get("scale") else None
            if vocabulary is None:
                return KeyEncoder(spec, scale, entry.get("edges"))
            owner = spec.shares or spec.name
            return FieldEncoder(spec, groups.get((owner,), none), scale, entry.get("edges"), index[owner])

        self.encoders = in_threads(build, chosen)

    @classmethod
    def from_dataset(cls, folder: str | Path, only: Collection[str] | None = None) -> Self:
        """The encoding that a dataset folder was written with."""
        folder = Path(folder)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        schema = Schema.model_validate(manifest["schema"])
        hashed = manifest["encoding"] == "hashed"
        vocabulary = None if hashed else pl.read_parquet(folder / "vocabulary.parquet")
        return cls(schema, manifest["fields"], vocabulary, only)

    @property
    def fields(self) -> list[FieldSpec]:
        """The fields that are encoded, in schema order."""
        return [encoder.spec for encoder in self.encoders]

    def encode(self, prepared: pl.DataFrame) -> pl.DataFrame:
        """Ids per field as in a dataset's part files; other columns of `prepared` are left out.

        Args:
            prepared: the `frame` of `Prepared`.
        """
        columns = in_threads(lambda encoder: encoder.encode(prepared[encoder.spec.name]), self.encoders)
        return pl.DataFrame([column for group in columns for column in group])
