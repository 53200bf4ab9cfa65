"""What a network reads of a dataset's rows: the fields it is fed, numbers of features, and where they are read."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from ctr.dataset.encoding import Numbers
from ctr.dataset.hashing import Ints, Keys
from ctr.dataset.kept_values import KeptValues
from ctr.dataset.placed import PlacedFeatures, PlacedKeys
from ctr.dataset.placement import Placement
from ctr.dataset.store import UNKNOWN, Dataset, Part
from ctr.errors import ConfigError


@dataclass(frozen=True)
class Batch:
    """One batch, as NumPy arrays.

    Shapes (B rows, S single-valued fields, M list fields, L values over all lists of the batch):
        ids: (B, S) numbers of features, 0 for dropped ones; the rows of a table that has one for each.
        values: (B, S) factors of scaled fields (1 elsewhere), or None.
        list_ids: (L,) numbers of features.
        list_slots: (L,) row in the batch * M + number of the list field.
        list_lengths: (B, M) float32.
        labels: (B,) float32.
        rows: (B,) numbers of the rows in the input.
        weights: (B,) float32, how much each row counts, or None where all count alike.
        vectors: (B, T) float32, numbers of the vector fields side by side, or None where there are none.
        places, list_places: (B, S, R) and (L, R), where hashed features are read (`ctr.dataset.placement`), or None.
    """

    ids: Ints
    values: npt.NDArray[np.float32] | None
    list_ids: Ints
    list_slots: Ints
    list_lengths: npt.NDArray[np.float32]
    labels: npt.NDArray[np.float32]
    rows: Ints
    weights: npt.NDArray[np.float32] | None = None
    vectors: npt.NDArray[np.float32] | None = None
    places: Ints | None = None
    list_places: Ints | None = None

    def __len__(self) -> int:
        return len(self.labels)


class Column(NamedTuple):
    """Something of all N rows of a part. array: (N,) or (N, T). picked: of the T; None where all are wanted."""

    array: npt.NDArray[Any]
    picked: Ints | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what is wanted."""
        return self.array.shape if self.picked is None else (len(self.array), len(self.picked))

    def rows(self, start: int, end: int) -> npt.NDArray[Any]:
        """A stretch of rows, in memory."""
        found = np.ascontiguousarray(self.array[start:end])
        return found if self.picked is None else np.ascontiguousarray(found[:, self.picked])


class Layout:
    """What a network reads of each row of a dataset: which fields, which number and which rows of a table.

    Args:
        dataset: where the ids come from.
        numbers: (V,) number of each global feature id, 0 for dropped ones; by default every feature has a number of its
            own (id + 1). Of a dataset without vocabulary, what `kept` says stands in its place where it is given.
        fields: names of the fields to feed; by default all.
        serving: whether bias fields have the values that they have at scoring, instead of those of the log.
        placement: of hashed features; None where the number of a feature is its row.
        kept: which values are kept, where there is no vocabulary: they all have the number 1.

    Raises:
        ConfigError: a dataset without vocabulary, and no placement, or one with fields that are free of collisions.
    """

    def __init__(
        self,
        dataset: Dataset,
        numbers: Ints | None = None,
        fields: list[str] | None = None,
        *,
        serving: bool = False,
        placement: Placement | None = None,
        kept: KeptValues | None = None,
    ) -> None:
        if dataset.hashed and placement is None:
            raise ConfigError(
                f'dataset "{dataset.name}" has no vocabulary (data.encoding = "hashed"), so no table can have a row '
                'for each feature; use embedding.kind = "unified" or "hashed", or ingest with a vocabulary'
            )
        names = [field.name for field in dataset.fields] if fields is None else fields
        single = [field for field in dataset.fields if field.kind != "list"]
        lists = [field for field in dataset.fields if field.kind == "list"]
        self.numbers = np.arange(1, dataset.features + 1) if numbers is None else numbers
        self.placement, self.kept = placement, kept
        if placement is not None and not dataset.hashed and numbers is None:
            # What no train row holds has nothing to read in a shared table but what others have learned.
            self.numbers = np.where(dataset.vocabulary["count"].to_numpy() > 0, self.numbers, 0)
        self.rows = int(self.numbers.max(initial=0)) + 1
        self.single = [slot for slot, field in enumerate(single) if field.name in names]
        self.lists = [number for number, field in enumerate(lists) if field.name in names]
        here = [*(single[slot] for slot in self.single), *(lists[number] for number in self.lists)]
        self.fields = [field.name for field in here]
        self.owners = [field.shares or field.name for field in here]  # whose features each field has
        self.scaled = any(single[slot].scaled for slot in self.single)
        self._all_single = len(self.single) == len(single)
        self.pooling = tuple(lists[number].pooling for number in self.lists)
        # (slot among the fields fed, numbers) of each vector field, and where its numbers stand in a part's.
        ends = np.cumsum([field.size for field in single])
        vectors = [(at, single[slot], ends[slot]) for at, slot in enumerate(self.single) if single[slot].size]
        self.vectors = tuple((at, field.size) for at, field, _ in vectors)
        columns = [np.arange(end - field.size, end) for _, field, end in vectors]
        self._columns = np.concatenate(columns) if columns else None
        self._served = [
            (at, *serve) for at, slot in enumerate(self.single) if serving and (serve := single[slot].serve)
        ]
        self._dataset = dataset
        # From numbers, or from keys, to numbers and places.
        self.reader: PlacedFeatures | PlacedKeys | None = None
        if placement is not None:
            if dataset.hashed:
                unknown = np.array([field.offset + UNKNOWN for field in here])
                self.reader = PlacedKeys(
                    placement, self.owners, kept, None if kept else partial(self._numbered, unknown=unknown)
                )
            else:
                self.reader = PlacedFeatures(placement, self.features())

    @property
    def digest(self) -> str:
        """Of the dataset."""
        return self._dataset.digest

    @property
    def hashed(self) -> bool:
        """Whether ids are hashes, which mean the same in every dataset."""
        return self._dataset.hashed

    def numbers_of(self, field: str) -> Ints:
        """Numbers of a field's features, by their ids; 0 for dropped ones."""
        info = next(info for info in self._dataset.fields if info.name == field)
        return self.numbers[info.offset : info.offset + info.features]

    def never_read(self) -> Ints:
        """Numbers of features that no train row holds, nor one that reads the same."""
        held = np.zeros(self.rows, np.bool_)
        held[self.numbers[self._dataset.vocabulary["count"].to_numpy() > 0]] = True
        held[0] = True
        found: Ints = np.flatnonzero(~held)
        return found

    def features(self) -> pl.DataFrame:
        """Field, number and key of every feature that has a number of its own."""
        frame = self._dataset.vocabulary.select("field", "role", "value").with_columns(
            pl.Series("number", self.numbers), pl.Series("key", self._dataset.keys)
        )
        # A dropped value that reads its field's unknown comes after it.
        return frame.filter(pl.col("number") > 0).unique("number", keep="first", maintain_order=True)

    def _numbered(self, keys: Keys, slots: Ints, unknown: Ints) -> Ints:
        return self.numbers[self._dataset.numbered(keys, unknown[slots])]

    def placed(self) -> pl.DataFrame:
        """The hashed features that train rows read and that are not dropped: field, count (of train rows), places.

        Raises:
            ValueError: features are not hashed: the number of each is its row.
        """
        if self.reader is None:
            raise ValueError("placed: expected hashed features")
        dataset = self._dataset
        frame = dataset.vocabulary.select("field", "count").with_columns(
            pl.Series("number", self.numbers), pl.Series("key", dataset.keys)
        )
        frame = frame.filter(pl.col("count") > 0, pl.col("field").is_in(list(set(self.owners))))
        if isinstance(self.reader, PlacedKeys):
            slot_of = {owner: slot for slot, owner in enumerate(self.owners)}
            slots = frame["field"].replace_strict(slot_of, return_dtype=pl.Int64)
            numbers, places = self.reader.placed(frame["key"].to_numpy(), slots.to_numpy())
        else:
            numbers = frame["number"].to_numpy()
            places = self.reader.places[numbers]
        found = pl.Series("places", places, dtype=pl.Array(pl.Int64, places.shape[1]))
        return frame.select("field", "count", found).filter(pl.Series(numbers > 0))

    def at_serving(self) -> "Layout":
        """The same, with bias fields as they are at scoring."""
        return Layout(
            self._dataset,
            self.numbers,
            self.fields,
            serving=True,
            placement=self.placement,
            kept=self.kept,
        )

    @property
    def holdable(self) -> bool:
        """Whether a batch is nothing but rows of `columns`, with their features numbered."""
        numbered = self.reader is None or isinstance(self.reader, PlacedFeatures)
        return numbered and not (self.lists or self._served or self.hashed)

    def columns(self, part: Part) -> dict[str, Column]:
        """What a batch is gathered from, by its name, of all N rows; ids are those of the dataset."""
        single = None if self._all_single else np.array(self.single)
        there = {
            "ids": Column(part.ids, single),
            "values": Column(part.values, single) if self.scaled and part.values is not None else None,
            "vectors": None
            if self._columns is None or part.vectors is None
            else Column(part.vectors, self._columns),
            "labels": Column(part.labels),
            "weights": None if part.weights is None else Column(part.weights),
        }
        return {name: column for name, column in there.items() if column is not None}

    def gather(self, part: Part, index: Ints) -> Batch:
        """The rows `index` of `part`, in that order."""
        ids, values = self._gather_single(part, index)
        if not self._all_single:
            ids = ids[:, self.single]
            values = None if values is None else values[:, self.single]
        for at, identity, factor in self._served:
            ids[:, at] = identity
            if values is not None:
                values[:, at] = factor
        list_ids, list_slots, list_lengths = self._gather_lists(part, index)
        numbers, places, list_numbers, list_places = self._read(ids, list_ids, list_slots)
        return Batch(
            ids=numbers,
            values=values,
            list_ids=list_numbers,
            list_slots=list_slots,
            list_lengths=list_lengths,
            labels=part.labels[index].astype(np.float32),
            rows=np.asarray(part.rows[index]),
            weights=None if part.weights is None else part.weights[index],
            vectors=self._gather_vectors(part, index),
            places=places,
            list_places=list_places,
        )

    def _read(
        self, ids: Numbers, list_ids: Numbers, slots: Ints
    ) -> tuple[Ints, Ints | None, Ints, Ints | None]:
        """Numbers and places of single-valued fields and of lists."""
        if not self.hashed:
            ids, list_ids = self.numbers[ids], self.numbers[list_ids]
        if self.reader is None:
            return ids.astype(np.int64), None, list_ids.astype(np.int64), None
        return self.reader.read(ids, list_ids, slots)

    def _gather_single(self, part: Part, index: Ints) -> tuple[Numbers, npt.NDArray[np.float32] | None]:
        """Ids, and factors where there are scaled fields, of all single-valued fields of the dataset."""
        return part.ids[index], part.values[index] if self.scaled and part.values is not None else None

    def _gather_vectors(self, part: Part, index: Ints) -> npt.NDArray[np.float32] | None:
        if self._columns is None or part.vectors is None:
            return None
        found = part.vectors[index]
        return found if len(self._columns) == found.shape[1] else found[:, self._columns]

    def _gather_lists(self, part: Part, index: Ints) -> tuple[Numbers, Ints, npt.NDArray[np.float32]]:
        count = len(self.lists)
        lengths = np.zeros((len(index), count), np.float32)
        ids: list[Numbers] = [np.zeros(0, np.int64)]
        slots = [np.zeros(0, np.int64)]
        for column, number in enumerate(self.lists):
            flat, offsets = part.lists[number]
            start, length = offsets[index], offsets[index + 1] - offsets[index]
            lengths[:, column] = length
            within = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length, length)
            ids.append(flat[np.repeat(start, length) + within])
            slots.append(np.repeat(np.arange(len(index)) * count + column, length))
        return np.concatenate(ids), np.concatenate(slots), lengths
