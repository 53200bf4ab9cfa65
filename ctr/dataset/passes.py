"""The passes of an ingest: read and code, assign parts, count, decide ids, encode."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ctr.dataset import splitting
from ctr.dataset.arrow_arrays import as_numpy
from ctr.dataset.bad_rows import describe, no_bad_rows
from ctr.dataset.count_store import prepared_by
from ctr.dataset.counted_files import CountedFiles
from ctr.dataset.counting import Bools, FieldCounts
from ctr.dataset.inputs import Source
from ctr.dataset.keyed_fields import KeyedField
from ctr.dataset.parallel import ahead, in_threads, threaded
from ctr.dataset.part_files import PartWriter
from ctr.dataset.part_weights import PartWeights
from ctr.dataset.personal import Personal
from ctr.dataset.preparation import Preparation, Prepared, side_table_path
from ctr.dataset.reading import chunks
from ctr.dataset.schema import Read, Schema
from ctr.dataset.scratch import Arrays, Chunks
from ctr.dataset.side_tables import Partners
from ctr.dataset.split_keys import TimeKey
from ctr.dataset.split_spec import FilesSplit, RandomSplit, TimeSplit
from ctr.dataset.splitting import AFTER, GAP, IMMATURE, PARTS, TRAIN, Codes, Cuts
from ctr.dataset.train_statistics import Floats
from ctr.dataset.vocabulary import vocabulary_writer
from ctr.errors import DataError

# Dictionaries of fields that are decided before their turn; a vocabulary takes up to nine times as much.
_BYTES_AHEAD = 32 << 20
Progress = Callable[[str, float], None]


class Passes:
    """One run: state shared by the passes.

    Args:
        schema: the schema.
        scratch: a folder for temporary files.
        built: the dataset's folder, empty.
        progress: see `ingest`.
        as_of: see `ingest`.
        hashed: whether ids are keys.
        files: where files are counted one by one; None counts them together.
    """

    def __init__(
        self,
        schema: Schema,
        scratch: Path,
        built: Path,
        progress: Progress,
        as_of: str | int | None = None,
        hashed: bool = False,
        files: CountedFiles | None = None,
    ) -> None:
        self.schema, self.scratch, self.built, self.progress = schema, scratch, built, progress
        self.as_of, self.personal, self.hashed, self.files = as_of, Personal.of(schema), hashed, files
        field_kind = KeyedField if hashed else FieldCounts
        self.fields = [
            field_kind(field, scratch / f"field-{number}") for number, field in enumerate(schema.fields)
        ]
        self.coded = Chunks(scratch / "coded")
        self.parts = Arrays(scratch / "parts", pa.uint8())
        by_name = {field.spec.name: field for field in self.fields}
        for field in self.fields:
            if field.spec.shares is not None:
                by_name[field.spec.shares].sharers.append(field)
        counted = ("read", "filtered", "set_aside", "after_as_of", "immature", "gap", *PARTS)
        self.rows = dict.fromkeys(counted, 0)
        self.weights = PartWeights()
        self.truncated = {spec.name: 0 for spec in schema.fields if spec.max_length}
        self.positives = dict.fromkeys(PARTS, 0)
        self.features: dict[str, int] = {}
        self.window: dict[str, Any] | None = None
        self.joined = 0  # rows that came to the joins: those that the reader set aside do not
        # Of each chunk: number of its file, rows in the files before, and the part that its file is.
        self._chunk_files: list[int] = []
        self._offsets: list[int] = []
        self._chunk_parts: list[str | None] = []
        self._aside = pq.ParquetWriter(built / "set_aside.parquet", no_bad_rows().to_arrow().schema)

    def run(self, parted: Sequence[tuple[Source, str | None]], sides: Sequence[Source]) -> None:
        """All passes."""
        self.read(parted, sides)
        self.assign_parts()
        self.count()
        if self.hashed:
            for field in self.fields:
                field.decide()
        else:
            self.write_vocabulary()
        self.write_parts()

    def read(self, parted: Sequence[tuple[Source, str | None]], sides: Sequence[Source]) -> None:
        """First pass: prepare and code every row."""
        schema = self.schema
        sources, part_of = [source for source, _ in parted], {source.name: part for source, part in parted}
        number_of = {source.name: number for number, source in enumerate(sources)}
        tables = [self._side_table(side, join.read) for side, join in zip(sides, schema.joins, strict=True)]
        columns = self.personal.columns(sources[0], schema.read)
        self.preparation = Preparation(schema, columns, side_tables=tables)
        self.unmatched = [Partners()] * len(tables)
        bad = no_bad_rows()
        read = chunks(sources, schema.read, self.preparation.raw_columns)
        for number, chunk in enumerate(ahead(self.personal.chunks(read))):
            if number == 0:
                self.preparation.check_expressions(chunk)
            prepared = self.preparation(chunk)
            self.joined += chunk.frame.height
            bad = pl.concat([bad, prepared.bad.head(5 - bad.height)]) if bad.height < 5 else bad
            self._tally(prepared)
            self._check_budget(bad, chunk.fraction)
            self.coded.append(self._coded(prepared.frame))
            self._chunk_files.append(number_of[chunk.file])
            self._offsets.append(chunk.offset)
            self._chunk_parts.append(part_of[chunk.file])
            self.progress("read", chunk.fraction)
        self._check_budget(bad, 1.0)
        self._aside.close()
        self.preparation.check_joins(self.unmatched, self.joined)

    def _side_table(self, source: Source, read: Read) -> pl.DataFrame:
        table, bad = self.personal.side_table(source, read)
        self._set_aside(bad)
        if bad.height > read.max_bad_rows * (table.height + bad.height):
            raise _too_many(bad, bad.height, table.height + bad.height, read.max_bad_rows)
        return table

    def _set_aside(self, bad: pl.DataFrame) -> None:
        if bad.height:
            self._aside.write_table(bad.to_arrow())

    def _tally(self, prepared: Prepared) -> None:
        self.rows["read"] += prepared.count
        self.rows["filtered"] += prepared.filtered
        self.rows["set_aside"] += prepared.bad.height
        self.unmatched = [a.plus(b) for a, b in zip(self.unmatched, prepared.unmatched, strict=True)]
        for name, count in prepared.truncated.items():
            self.truncated[name] += count
        self._set_aside(prepared.bad)

    def _check_budget(self, bad: pl.DataFrame, fraction: float) -> None:
        """Stop as soon as the bad rows are too many for the whole input, as far as its length can be told."""
        limit = self.schema.read.max_bad_rows
        expected = self.rows["read"] / max(fraction, 1e-9)
        if self.rows["set_aside"] > limit * expected:
            raise _too_many(bad, self.rows["set_aside"], self.rows["read"], limit)

    def _coded(self, frame: pl.DataFrame) -> pl.DataFrame:
        extra = [column for column in frame.get_columns() if column.name.startswith("@")]
        return pl.DataFrame(
            [*extra, *in_threads(lambda field: field.code(frame[field.spec.name]), self.fields)]
        )

    def assign_parts(self) -> None:
        """Second pass: a part for every row, before anything is counted."""
        key, cuts = self.preparation.split_key, None
        if self.rows["read"] == self.rows["filtered"] + self.rows["set_aside"]:
            raise DataError(
                f'no rows left: schema where = "{self.schema.where}" filters all {self.rows["read"]}'
            )
        if isinstance(key, TimeKey) and isinstance(self.schema.split, TimeSplit):
            cuts = splitting.time_cuts(self._keys, key, self.as_of)
        kinds = len(PARTS) + 3
        counts = np.zeros((kinds, 2), np.int64)
        columns = ["@row", "@label", *(["@key"] if key else []), *self._weight_columns]
        for number, frame in enumerate(self.coded.read(columns)):
            parts = self._parts(frame, number, cuts)
            self.parts.append(parts)
            if self.files is not None:
                rows = frame["@row"].to_numpy()[parts == TRAIN] - self._offsets[number]
                self.files.add(self._chunk_files[number], rows)
            counts += np.bincount(parts * 2 + frame["@label"].to_numpy(), minlength=2 * kinds).reshape(-1, 2)
            if self.schema.weight is not None:
                self.weights.add(parts, frame["@label"].to_numpy(), frame["@weight"].to_numpy())
        self.parts.close()
        for part, name in enumerate(PARTS):
            self.rows[name], self.positives[name] = int(counts[part].sum()), int(counts[part, 1])
        for code, name in ((GAP, "gap"), (IMMATURE, "immature"), (AFTER, "after_as_of")):
            self.rows[name] = int(counts[code].sum())
        _check_parts(self.schema, self.rows, self.positives)
        if self.schema.weight is not None:
            self.weights.check(self.schema.weight)
        if isinstance(key, TimeKey):
            self.window = splitting.windows(zip(self._keys(), self._all_parts(), strict=True), key)

    def _keys(self) -> Iterator[splitting.Ints]:
        for frame in self.coded.read(["@key"]):
            yield frame["@key"].to_numpy()

    def _all_parts(self) -> Iterator[Codes]:
        for parts in self.parts.read():
            yield as_numpy(parts)

    def _parts(self, frame: pl.DataFrame, chunk: int, cuts: Cuts | None) -> Codes:
        split = self.schema.split
        if isinstance(split, FilesSplit):
            part = self._chunk_parts[chunk]
            assert part is not None, "each file has its part"
            return np.full(frame.height, PARTS.index(part), np.uint8)
        if isinstance(split, TimeSplit):
            assert cuts is not None, "a time split has cuts"
            return cuts.parts(frame["@key"].to_numpy())
        if isinstance(split, RandomSplit):
            return splitting.random_parts(frame["@row"].to_numpy(), split)
        return splitting.by_share(frame["@key"].to_numpy().view(np.uint64), split.valid, split.test)

    def count(self) -> None:
        """Third pass: count train rows; where ids are keys, nothing but numbers that need statistics of them."""
        quantiles = [field for field in self.fields if field.spec.transform == "quantile"]
        if quantiles:
            columns = ["@row", *(field.spec.name for field in quantiles)]
            for frame, parts in zip(self.coded.read(columns), self._all_parts(), strict=True):
                for field in quantiles:
                    field.sampled(
                        frame[field.spec.name], frame["@row"].to_numpy(), parts == TRAIN, self.rows["train"]
                    )
            for field in quantiles:
                field.fix_edges()
        counted = [field for field in self.fields if field.measured or not self.hashed]
        if self.files is not None:
            self.files.fetch(prepared_by(self.schema, self.preparation, self.personal, self.files.sides))
        for number, parts in enumerate(self._all_parts()):
            fields = counted
            if self.files is not None and self._chunk_files[number] not in self.files.fresh:
                fields = [field for field in counted if not field.addable]
            if fields:
                self._count_chunk(number, parts == TRAIN, fields)
                self.progress("count", (number + 1) / len(self.coded))
        for field in counted:
            field.close()
        if self.files is not None:
            addable = [field for field in counted if field.addable]
            for file in self.files.fresh:
                found = threaded(partial(FieldCounts.partial, file=file), addable)
                self.files.write(file, found, self.schema.weighted)
            self.files.prune()
            self.progress("count", 1.0)

    def _count_chunk(self, number: int, train: Bools, fields: Sequence[FieldCounts]) -> None:
        names = ["@label", *self._weight_columns, *(field.spec.name for field in fields)]
        frame = self.coded.one(number, names).filter(pl.Series(train))
        file, weights = self._chunk_files[number], self._row_weights(frame)
        in_threads(lambda field: field.count(frame[field.spec.name], file, number, weights), fields)

    @property
    def _weight_columns(self) -> list[str]:
        return [] if self.schema.weight is None else ["@weight"]

    def _row_weights(self, frame: pl.DataFrame) -> Floats | None:
        """How many impressions each train row stands for; None where each stands for itself."""
        rate = self.schema.keep_rate
        if not self.schema.weighted:
            return None
        negative = frame["@label"].to_numpy() == 0
        weights = np.where(negative, 1.0 / rate, 1.0)
        return weights if self.schema.weight is None else weights * frame["@weight"].to_numpy()

    def write_vocabulary(self) -> None:
        """Decide every field's ids, as many fields in memory at a time as there are cores."""
        constant = []
        decide = partial(FieldCounts.decide, partials=self.files.partials() if self.files else ())
        with vocabulary_writer(self.built / "vocabulary.parquet") as writer:
            owners = [field for field in self.fields if field.spec.shares is None]
            decided = threaded(decide, owners, lambda field: field.coded_bytes, _BYTES_AHEAD)
            for field, own in zip(owners, decided, strict=True):
                for member in (field, *field.sharers):
                    self.features[member.spec.name] = own.height
                writer.write_table(own.to_arrow())
                if field.constant:
                    constant.append(f'  field "{field.spec.name}": {field.constant} in all train rows')
        if constant:
            raise DataError(
                f"{len(constant)} field{'s' * (len(constant) > 1)} without information; remove from the schema:\n"
                + "\n".join(constant)
            )

    def write_parts(self) -> None:
        """Last pass: encode, and write each part in input order."""
        writers = [PartWriter(self.built / name) for name in PARTS]
        names = [field.spec.name for field in self.fields]
        timed = isinstance(self.preparation.split_key, TimeKey)
        extra = [name for name in self.row_columns if name != "@time"]
        whole = self.coded.read(["@row", "@label", *extra, *(["@key"] if timed else []), *names])
        for number, (frame, parts) in enumerate(zip(ahead(whole), self._all_parts(), strict=True)):
            columns = in_threads(partial(_encode, frame=frame), self.fields)
            encoded = pl.DataFrame(
                [
                    *frame.select("@row", "@label", *extra),
                    *([frame["@key"].alias("@time")] if timed else []),
                    *(column for group in columns for column in group),
                ]
            )
            for part, writer in enumerate(writers):
                writer.append(encoded.filter(pl.Series(parts == part)))
            self.progress("encode", (number + 1) / len(self.coded))
        for writer in writers:
            writer.close()
        for number, table in enumerate(self.preparation.side_tables()):
            path = self.built / side_table_path(number)
            path.parent.mkdir(exist_ok=True)
            table.write_parquet(path, compression="zstd")

    @property
    def row_columns(self) -> list[str]:
        """What the parts hold of each row besides its number, its label and its fields."""
        schema = self.schema
        there = {
            "@true_probability": schema.true_probability is not None,
            "@weight": schema.weight is not None,
            "@row_id": schema.row_id is not None,
            "@time": schema.time_column is not None,
        }
        return [name for name, is_there in there.items() if is_there]

    @property
    def summary(self) -> dict[str, Any]:
        """What the manifest says about the rows and fields."""
        kept = self.rows["read"]
        return {
            "columns": self.preparation.stored_types,
            "rows": self.rows,
            "positives": self.positives,
            "row_columns": self.row_columns,
            "weights": self.weights.entry() if self.schema.weight is not None else None,
            "as_of": self.as_of,
            "personal": self.personal.entry,
            "fields": [
                field.entry(self.features.get(field.spec.name))
                | {"truncated": self.truncated.get(field.spec.name, 0)}
                for field in self.fields
            ],
            "joins": [
                {
                    "input": Path(join.input).name,
                    "on": join.on,
                    "time": join.time,
                    "max_age": join.max_age,
                    "point_in_time": join.time is not None,
                    "unmatched": partners.alone / max(kept, 1),
                    "too_old": partners.too_old / max(kept, 1) if join.max_age else None,
                }
                for join, partners in zip(self.schema.joins, self.unmatched, strict=True)
            ],
            "window": self.window,
        }


def _encode(field: FieldCounts, frame: pl.DataFrame) -> list[pl.Series]:
    return field.encode(frame[field.spec.name])


def _too_many(bad: pl.DataFrame, count: int, read: int, limit: float) -> DataError:
    return DataError(
        f"{count} of {read} rows ({count / max(read, 1):.2%}) break the schema, read.max_bad_rows = {limit:g} allows "
        f"{limit:.2%}; the first:\n{describe(bad)}"
    )


def _check_parts(schema: Schema, rows: dict[str, int], positives: dict[str, int]) -> None:
    """Every part needs rows of both classes.

    Raises:
        DataError: one has not.
    """
    total, ones = sum(rows[part] for part in PARTS), sum(positives.values())
    if total and ones in (0, total):
        raise DataError(
            f'label "{schema.label}": expected both 0 and 1, found {1 if ones else 0} alone in {total} rows'
        )
    for part in PARTS:
        found = ", ".join(f"{name} {rows[name]}" for name in PARTS)
        if rows[part] == 0:
            advice = "change the shares, the instants or the split's column"
            raise DataError(f'split.by = "{schema.split.by}" leaves no rows for {part} ({found}); {advice}')
        if positives[part] in (0, rows[part]):
            lacking = "positive" if positives[part] == 0 else "negative"
            raise DataError(
                f'split.by = "{schema.split.by}" leaves {part} without {lacking} rows ({found}); '
                f"give {part} a larger share, or split otherwise"
            )
