"""Coded chunks -> vocabulary, scales and bins from train rows; and the ids of every chunk's distinct values.

Chunks are coded against dictionaries of their own, so the first pass needs no global table, and one field's values are
in memory at a time. Of a log in several files, chunks are added up to the counts of files, and those to the log's.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from ctr.dataset.arrow_arrays import as_arrow, as_numpy, lengths_of
from ctr.dataset.dictionaries import Codes, Dictionaries, Kind
from ctr.dataset.encoding import FieldEncoder, listed
from ctr.dataset.field_cells import served
from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.partial_counts import Counted, PartialCounts
from ctr.dataset.scratch import Arrays
from ctr.dataset.split_keys import mixed
from ctr.dataset.train_statistics import Floats, Statistics
from ctr.dataset.transforms import Scale, quantile_bin, quantile_edges, scale_of
from ctr.dataset.value_totals import NO_PLACE, ValueTotals
from ctr.dataset.vocabulary import UNKNOWN, Ids, scaled_vocabulary, vocabulary

SAMPLE_ROWS = 1_000_000
_SAMPLE_SEED = 0x5EED
Bools = npt.NDArray[np.bool_]


class FieldCounts:
    """One field on its way from prepared cells to ids: code, count, decide, encode.

    Args:
        spec: the field.
        folder: where its temporary files go.
    """

    def __init__(self, spec: FieldSpec, folder: Path) -> None:
        self.spec = spec
        self.statistics = Statistics()  # of all files, once the field is decided
        self.scale: Scale | None = None
        self.edges: list[float] | None = None
        self._sample: list[npt.NDArray[np.float64]] = []
        self._folder = folder
        self._dictionaries = Dictionaries(folder, spec.kind == "numeric")
        self._counts = Arrays(folder / "counts", pa.uint32())  # of a chunk, which has fewer rows
        self._weighted = Arrays(folder / "weighted", pa.float64())
        self._places = Arrays(folder / "places", pa.int32())  # of each chunk's values among all of the field
        # Per file what is gathered of its numbers, and its chunks in the order in which they were counted.
        self._gathered: dict[int, Statistics] = {}
        self._chunks: dict[int, list[int]] = {}
        self._counted_at: dict[int, int] = {}  # the place of each chunk among the counts
        self.constant: str | None = None
        self.serve: dict[str, Any] | None = None
        self.sharers: list[FieldCounts] = []

    @property
    def _numbers(self) -> bool:
        """Whether chunks keep the numbers themselves, for want of train statistics."""
        return self.spec.scaled or self.spec.transform == "quantile" or self.spec.kind == "vector"

    @property
    def measured(self) -> bool:
        """Whether the field has no values to count, but numbers to scale."""
        return self.spec.scaled or self.spec.kind == "vector"

    @property
    def addable(self) -> bool:
        """Whether counts of files add up to those of the log; bins are known only when all train rows are."""
        return self.spec.transform != "quantile"

    @property
    def coded_bytes(self) -> int:
        """What the dictionaries of the field's chunks hold, those of fields that share its values too."""
        return sum(member._dictionaries.nbytes for member in (self, *self.sharers))

    def code(self, values: pl.Series) -> pl.Series:
        """What a chunk keeps of a prepared column: codes into a dictionary that is written aside, or the number."""
        if self._numbers:
            return values
        if self.spec.kind == "list":
            array = values.rechunk().to_arrow()
            codes = self._dictionaries.code(pl.Series("item", array.flatten(), dtype=pl.String))
            offsets = np.concatenate(([0], np.cumsum(lengths_of(values))))
            return pl.Series(
                self.spec.name, pa.LargeListArray.from_arrays(as_arrow(offsets), as_arrow(codes))
            )
        if self.spec.kind == "numeric":
            return pl.Series(self.spec.name, self._dictionaries.code_log_squares(values))
        return pl.Series(self.spec.name, self._dictionaries.code(values))

    def sampled(self, values: pl.Series, rows: npt.NDArray[np.int64], train: Bools, train_rows: int) -> None:
        """Take train rows of a quantile field into the sample: all, or a seeded share of them."""
        numbers = values.to_numpy()
        chosen = train & ~np.isnan(numbers)
        if train_rows > SAMPLE_ROWS:
            limit = np.uint64(int(SAMPLE_ROWS / train_rows * 2.0**64))
            chosen &= mixed(rows.astype(np.uint64), _SAMPLE_SEED) < limit
        self._sample.append(numbers[chosen])

    def fix_edges(self) -> None:
        """Decide the bins of a quantile field from its sample."""
        assert self.spec.bins is not None, "the schema has checked it"
        self.edges = quantile_edges(np.concatenate(self._sample), self.spec.bins)
        self._sample = []

    def count(self, coded_values: pl.Series, file: int, chunk: int, weights: Floats | None) -> None:
        """Count one chunk's train rows.

        Args:
            coded_values: (train rows,) of what `code` gave for the chunk.
            file: the number of its file.
            chunk: its number in the log.
            weights: (train rows,) how much each counts; None where all count alike.
        """
        statistics = self._gathered.setdefault(file, Statistics())
        self._chunks.setdefault(file, []).append(chunk)
        self._counted_at[chunk] = len(self._counted_at)
        if self.measured:
            statistics.add(self._sizes_of(coded_values), weights)
        elif self.edges is not None:
            codes = self._dictionaries.code(quantile_bin(coded_values, self.edges))
            self._tally(codes, self._dictionaries.sizes[-1], weights)
        elif self.spec.kind == "list":
            array = coded_values.rechunk().to_arrow()
            lengths = lengths_of(coded_values)
            each = None if weights is None else np.repeat(weights, lengths)
            self._tally(as_numpy(array.flatten()), self._dictionaries.sizes[chunk], each)
            statistics.missing += int((lengths == 0).sum())
            if weights is not None:
                statistics.missing_weight += float(weights[lengths == 0].sum())
        else:
            self._tally(coded_values.to_numpy(), self._dictionaries.sizes[chunk], weights)

    def _sizes_of(self, values: pl.Series) -> Floats:
        """The numbers to gather statistics of, NaN where missing: of vectors their root mean square."""
        if self.spec.kind != "vector":
            return values.to_numpy().astype(np.float64)
        found = np.full(len(values), np.nan)
        present = values.is_not_null().to_numpy()
        numbers = values.drop_nulls().to_numpy().astype(np.float64)
        found[present] = np.sqrt((numbers**2).mean(axis=1)) if len(numbers) else 0.0
        return found

    def _tally(self, codes: Codes, size: int, weights: Floats | None) -> None:
        self._counts.append(np.bincount(codes, minlength=size).astype(np.uint32))
        if weights is not None:
            self._weighted.append(np.bincount(codes, weights=weights, minlength=size))

    def close(self) -> None:
        """End counting."""
        for arrays in (self._dictionaries, self._counts, self._weighted):
            arrays.close()

    def partial(self, file: int) -> Counted:
        """The counts of one file, after `close`."""
        if self.measured:
            return Counted(self.spec.name, None, self._gathered[file])
        added = ValueTotals()
        self._add_counts(added, [file], self._dictionaries.kind)
        there = added.totals().filter(pl.col("count") > 0)
        texts = self._dictionaries.texts(there["value"])
        return Counted(self.spec.name, there.with_columns(texts.alias("value")), self._gathered[file])

    def decide(self, partials: Sequence[PartialCounts] = ()) -> pl.DataFrame:
        """The vocabulary, also of the fields that share it; afterwards `encode` works, theirs as well.

        Args:
            partials: the counts of the log's files, in order; none where they are what has been counted here.
        """
        members = [self, *self.sharers]
        self.statistics = self._all_statistics(partials)
        spec, statistics = self.spec, self.statistics
        if self.measured:
            weights = (statistics.weight, statistics.missing_weight) if statistics.weight else None
            own = scaled_vocabulary(spec.name, statistics.count, statistics.missing, weights)
            self.scale = scale_of(
                spec.transform or "vector",
                statistics.count,
                statistics.mean,
                statistics.square,
                statistics.low,
                statistics.high,
            )
        else:
            own = self._counted_vocabulary(partials, members)
        self.constant = self._constancy(own)
        if self._numbers or spec.role == "bias":
            self._encoder = FieldEncoder(spec, own, self.scale, self.edges)
        if spec.role == "bias":
            self.serve = self._served()
        return own

    def _served(self) -> dict[str, Any]:
        """Local id and factor that the field has at scoring."""
        columns = self._encoder.encode(served(self.spec, 1))
        factor = float(columns[1][0]) if self.spec.scaled else 1.0
        return {"id": int(columns[0][0]), "factor": factor}

    def _constancy(self, own: pl.DataFrame) -> str | None:
        """What all train rows have in common, None where they differ."""
        missing = int(own["count"][1])
        if self.spec.kind == "vector":
            return None if self.statistics.count else "missing"
        if self.spec.scaled:
            distinct, shown = int(self.statistics.low < self.statistics.high) + 1, f"{self.statistics.low:g}"
            distinct = distinct if self.statistics.count else 0
        else:
            distinct, shown = self._distinct, str(own["value"][-1])
        if distinct == 0:
            return "missing"
        return f'"{shown}"' if distinct == 1 and missing == 0 else None

    def _all_statistics(self, partials: Sequence[PartialCounts]) -> Statistics:
        if self.measured and partials:
            return reduce(Statistics.plus, (each.statistics(self.spec.name) for each in partials))
        return reduce(Statistics.plus, self._gathered.values(), Statistics())

    def _counted_vocabulary(
        self, partials: Sequence[PartialCounts], members: Sequence["FieldCounts"]
    ) -> pl.DataFrame:
        """The vocabulary of counted values, by which the chunks of all members can be encoded then."""
        kinds = {member._dictionaries.kind for member in members}
        kind = kinds.pop() if len(kinds) == 1 else "text"  # what is of two kinds meets as text
        added = ValueTotals()
        if self.addable and partials:
            for member in members:
                for each in partials:
                    counts = each.counts(member.spec.name)
                    if kind != "text":
                        counts = counts.with_columns(member._dictionaries.like_read(counts["value"]))
                    added.add(counts)
                for values in member._distinct_values(kind):
                    added.add(pl.DataFrame({"value": values}), member._places)
        else:
            for member in members:
                # Rows of bins are coded anew.
                places = member._places if member.edges is None else None
                member._add_counts(added, member._chunks, kind, places)
        counts = added.totals()
        self._distinct = counts.filter(pl.col("count") > 0)["value"].drop_nulls().len()
        texts = (lambda values: values) if kind == "text" else self._dictionaries.texts
        own, ids = vocabulary(
            self.spec.name, counts, self.spec.min_count, texts, in_text_order=kind == "short text"
        )
        if not self._numbers:
            find = None if added.settled else added.finder()
            for member in members:
                member._map_dictionaries(ids, kind, find)
        return own

    def _distinct_values(self, kind: Kind, chunks: Sequence[int] | None = None) -> Iterator[pl.Series]:
        """The distinct values of each chunk, or of some, as text or as they are."""
        found = self._dictionaries.read(chunks)
        return map(self._dictionaries.texts, found) if kind == "text" else found

    def _add_counts(
        self, added: ValueTotals, files: Iterable[int], kind: Kind, places: Arrays | None = None
    ) -> None:
        """Add the counts of each chunk of some files; the places of its values are written to `places`."""
        for file in files:
            at = [self._counted_at[chunk] for chunk in self._chunks[file]]
            # Bins have their dictionaries from counting, everything else from coding.
            dictionaries = self._distinct_values(kind, self._chunks[file] if self.edges is None else at)
            heavy = self._weighted.read(at)
            for values, counts in zip(dictionaries, self._counts.read(at), strict=True):
                frame = _frame(values, pl.Series(counts, dtype=pl.Int64), next(heavy, None))
                added.add(frame, places)
            if self.spec.kind == "list":
                found, weighted = self._gathered[file], self._weighted.there
                missing = [found.missing_weight] if weighted else None
                none = pl.Series([None], dtype=pl.String if kind == "text" else pl.Int64)
                added.add(_frame(none, pl.Series([found.missing]), missing))

    def _map_dictionaries(
        self, id_of_place: Ids, kind: Kind, find: Callable[[pl.Series], Ids] | None
    ) -> None:
        """The id of each chunk's distinct values, so that encoding is a gather.

        Args:
            id_of_place: of each value that is counted.
            kind: what was counted.
            find: gives the places of values; None where those that were written down are the last word.
        """
        ids = Arrays(self._folder / "ids", pa.int32())
        self._places.close()
        id_or_unknown = np.append(id_of_place, np.int32(UNKNOWN))  # `NO_PLACE` is the last
        written = map(as_numpy, self._places.read())
        for places in written if find is None else self._found_since(written, kind, find):
            ids.append(id_or_unknown.take(places))
        ids.close()
        self._dictionaries.delete()
        self._places.delete()
        self._ids = ids.read()

    def _found_since(
        self, written: Iterable[Ids], kind: Kind, find: Callable[[pl.Series], Ids]
    ) -> Iterator[Ids]:
        """Places of each chunk's values, of which some had none when they were added, and have been counted since."""
        for values, places in zip(self._distinct_values(kind), written, strict=True):
            late = np.flatnonzero(places == NO_PLACE)
            if len(late):
                places = places.copy()
                places[late] = find(values.gather(late))
            yield places

    def encode(self, coded_values: pl.Series) -> list[pl.Series]:
        """The dataset's columns for the next chunk; chunks come in the order in which they were coded."""
        if self._numbers:
            return self._encoder.encode(coded_values)
        ids = as_numpy(next(self._ids))
        if self.spec.kind == "list":
            array = coded_values.rechunk().to_arrow()
            return [listed(self.spec.name, ids.take(as_numpy(array.flatten())), lengths_of(coded_values), 1)]
        return [pl.Series(self.spec.name, ids.take(coded_values.to_numpy()))]

    def entry(self, features: int | None) -> dict[str, Any]:
        """What the manifest says about the field."""
        return {
            "name": self.spec.name,
            "kind": self.spec.kind,
            "features": features,
            "shares": self.spec.shares,
            "serve": self.serve,
            "scale": None if self.scale is None else self.scale._asdict(),
            "edges": self.edges,
        }


def _frame(values: pl.Series, counts: pl.Series, weighted: Any) -> pl.DataFrame:
    columns = {"value": values, "count": counts}
    return pl.DataFrame(
        columns if weighted is None else {**columns, "weighted_count": pl.Series(weighted, dtype=pl.Float64)}
    )
