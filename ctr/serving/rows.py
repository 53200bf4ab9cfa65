"""Encoded columns -> the arrays that a network reads. Needs no PyTorch.

Shapes: B rows, S single-valued fields, M list fields, L values over all lists.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.placed import PlacedFeatures, PlacedKeys


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
    single = [field for field in fields if field.kind != "list"]
    lists = [field for field in fields if field.kind == "list"]
    ids = np.empty((encoded.height, len(single)), np.int64)
    values = np.ones(ids.shape, np.float32) if any(field.scaled for field in single) else None
    for slot, field in enumerate(single):
        ids[:, slot] = encoded[field.name].to_numpy()
        if values is not None and field.scaled:
            values[:, slot] = encoded[f"@value:{field.name}"].to_numpy()
    lengths = np.empty((encoded.height, len(lists)), np.float32)
    list_ids, slots = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for number, field in enumerate(lists):
        column = encoded[field.name]
        length = column.list.len().to_numpy()
        lengths[:, number] = length
        list_ids.append(column.explode().to_numpy().astype(np.int64))
        slots.append(np.repeat(np.arange(encoded.height) * len(lists) + number, length))
    numbers = [encoded[f"@vector:{field.name}"].to_numpy() for field in single if field.kind == "vector"]
    vectors = np.hstack(numbers).astype(np.float32) if numbers else None
    flat, flat_slots = np.concatenate(list_ids), np.concatenate(slots)
    if reader is None:
        return EncodedRows(ids, values, flat, flat_slots, lengths, vectors)
    found, places, found_in_lists, list_places = reader.read(ids, flat, flat_slots)
    return EncodedRows(found, values, found_in_lists, flat_slots, lengths, vectors, places, list_places)
