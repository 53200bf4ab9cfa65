"""Encoded columns -> the arrays that a network reads. Needs no PyTorch.

Shapes: B rows, S single-valued fields, M list fields, L values over all lists, T numbers of all vectors.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.placed import PlacedFeatures, PlacedKeys

PER_VALUE = ("list_ids", "list_slots", "list_places")  # arrays over list values, all others are over rows


class EncodedRows(NamedTuple):
    """What a network reads of some rows, as NumPy arrays; see `ctr.network.embeddings.Inputs`.

    ids: (B, S) int64. values: (B, S) float32, or None where no field is scaled. list_ids, list_slots: (L,) int64.
    list_lengths: (B, M) float32. vectors: (B, T) float32, or None where there are no vector fields. places,
    list_places: (B, S, R) and (L, R) int64, or None where ids are rows.
    """

    ids: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32] | None
    list_ids: npt.NDArray[np.int64]
    list_slots: npt.NDArray[np.int64]
    list_lengths: npt.NDArray[np.float32]
    vectors: npt.NDArray[np.float32] | None
    places: npt.NDArray[np.int64] | None = None
    list_places: npt.NDArray[np.int64] | None = None

    def pieces(self, size: int) -> Iterator["EncodedRows"]:
        """The same rows, `size` at a time; all at once where they are no more."""
        count, lists = self.list_lengths.shape
        if count <= size:
            yield self
            return
        owner = self.list_slots // max(lists, 1)  # (L,) the row of each list value
        for start in range(0, count, size):
            own = (owner >= start) & (owner < start + size)
            parts: dict[str, npt.NDArray[Any] | None] = {
                name: None
                if array is None
                else array[own]
                if name in PER_VALUE
                else array[start : start + size]
                for name, array in self._asdict().items()
            }
            yield EncodedRows(**{**parts, "list_slots": self.list_slots[own] - start * lists})


class FieldRows(NamedTuple):
    """One field of B rows, encoded; of a single row it stands for as many rows as there are.

    ids: (B,), or of a list field those of all rows one after the other. lengths: (B,) of a list field.
    numbers: (B,) of a scaled field, (B, size) float32 of a vector.
    """

    ids: Sequence[int] | npt.NDArray[np.signedinteger]
    numbers: Sequence[float] | npt.NDArray[np.float32] | None = None
    lengths: Sequence[int] | npt.NDArray[np.integer] | None = None


def field_rows(encoded: pl.DataFrame, field: FieldSpec) -> FieldRows:
    """What `ctr.dataset.encoding.FieldEncoder.encode` returned of a field."""
    column = encoded[field.name]
    if field.kind == "list":
        return FieldRows(column.explode().to_numpy(), None, column.list.len().to_numpy())
    if field.kind == "vector":
        return FieldRows(column.to_numpy(), encoded[f"@vector:{field.name}"].to_numpy())
    numbers = encoded[f"@value:{field.name}"].to_numpy() if field.scaled else None
    return FieldRows(column.to_numpy(), numbers)


def encoded_rows(
    encoded: pl.DataFrame, fields: Sequence[FieldSpec], reader: PlacedFeatures | PlacedKeys | None = None
) -> EncodedRows:
    """Single-valued fields and list fields, each in the order of `fields`.

    Args:
        encoded: what `ctr.dataset.encoding.Encoder.encode` returns, with rows of the embedding table as ids, or
            what `reader` reads.
        fields: its fields.
        reader: from the ids of `encoded` to places, where features are hashed.
    """
    return side_by_side([field_rows(encoded, field) for field in fields], fields, encoded.height, reader)


def side_by_side(
    parts: Sequence[FieldRows],
    fields: Sequence[FieldSpec],
    rows: int,
    reader: PlacedFeatures | PlacedKeys | None = None,
) -> EncodedRows:
    """The same of fields that were encoded one by one.

    Args:
        parts: of each field, of `rows` rows or of one that stands for all.
        fields: single-valued fields and list fields, each in the order of `parts`.
        rows: B.
        reader: see `encoded_rows`.
    """
    single = [(spec, part) for spec, part in zip(fields, parts, strict=True) if spec.kind != "list"]
    lists = [part for spec, part in zip(fields, parts, strict=True) if spec.kind == "list"]
    ids = np.empty((rows, len(single)), np.int64)
    values = np.ones(ids.shape, np.float32) if any(spec.scaled for spec, _ in single) else None
    with np.errstate(over="ignore"):  # as in a column, a number beyond float32 is infinite
        for slot, (spec, part) in enumerate(single):
            ids[:, slot] = part.ids
            if values is not None and spec.scaled:
                values[:, slot] = part.numbers
    lengths = np.empty((rows, len(lists)), np.float32)
    list_ids, slots = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for number, part in enumerate(lists):
        assert part.lengths is not None, "a list field has lengths"
        lengths[:, number] = part.lengths
        own = np.asarray(part.ids, np.int64)
        repeated = rows if len(part.lengths) == 1 else 1
        list_ids.append(np.tile(own, repeated) if repeated > 1 else own if rows else own[:0])
        slots.append(np.repeat(np.arange(rows) * len(lists) + number, part.lengths))
    vectors = [_tall(part.numbers, rows) for spec, part in single if spec.kind == "vector"]
    together = np.hstack(vectors).astype(np.float32) if vectors else None
    flat, flat_slots = np.concatenate(list_ids), np.concatenate(slots)
    if reader is None:
        return EncodedRows(ids, values, flat, flat_slots, lengths, together)
    found, places, found_in_lists, list_places = reader.read(ids, flat, flat_slots)
    return EncodedRows(found, values, found_in_lists, flat_slots, lengths, together, places, list_places)


def _tall(numbers: Sequence[float] | npt.NDArray[np.float32] | None, rows: int) -> npt.NDArray[np.float32]:
    found = np.asarray(numbers, np.float32)
    return np.broadcast_to(found, (rows, found.shape[1]))
