"""A trained network -> a bundle, proven on its golden rows before it appears under its name."""

import errno
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import torch

import ctr
from ctr.dataset.crosses import CrossKeys
from ctr.dataset.encoding import Encoder
from ctr.dataset.expressions import roots
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.inputs import located
from ctr.dataset.kept_values import KeptValues
from ctr.dataset.layout import Layout
from ctr.dataset.personal import Personal
from ctr.dataset.personal_fields import personal_fields
from ctr.dataset.preparation import Preparation, side_table_path
from ctr.dataset.reading import Chunk, chunks
from ctr.dataset.schema import Join, Schema
from ctr.dataset.split_spec import FilesSplit
from ctr.dataset.store import FIRST_VALUE, UNKNOWN, Dataset
from ctr.errors import CtrError, DataError
from ctr.network.network import Architecture, Network
from ctr.serving import manifest as parts
from ctr.serving.bundle import GOLDEN_PROBABILITY, VOCABULARY_COLUMNS
from ctr.serving.costs import cost_entry, size_entry
from ctr.serving.encoding_file import describe_encoding, write_encoding
from ctr.serving.forward import probabilities
from ctr.serving.golden_pairs import write_pairs
from ctr.serving.joins import attributes, embedded, joined_from
from ctr.serving.network_files import as_stored, write_network
from ctr.serving.rows import EncodedRows, encoded_rows
from ctr.serving.scorer import Scorer
from ctr.serving.storage import Dtype

_GOLDEN_ROWS = 200
_GOLDEN_BYTES = 1 << 20
_PACKAGES = ("polars", "polars-hash", "numpy", "safetensors", "torch", "onnx", "onnxruntime")


def export_bundle(
    folder: Path,
    *,
    dataset: Dataset,
    source: str | Path,
    network: Network,
    architecture: Architecture,
    layout: Layout,
    feature_set: FeatureSet | None,
    metrics: Mapping[str, Any],
    model: Mapping[str, Any],
    provenance: Mapping[str, Any],
    crosses: CrossKeys | None = None,
    dtype: Dtype = "float32",
    rounding: Mapping[str, float] | None = None,
    keep_all: Architecture | None = None,
) -> int:
    """Write a bundle; an earlier one in the same folder is replaced. It appears whole or not at all.

    Args:
        folder: of the bundle.
        dataset: what the network was trained on.
        source: the raw input as it was given to ingest; its first rows become the golden rows.
        network: keep-all or compact, its gate hardened into the tables.
        architecture: what `build` needs for a network with these weights.
        layout: which row of the table each feature reads.
        feature_set: what was kept; None where everything was.
        metrics: of the network that was evaluated, as JSON.
        model: that network and this one, as `ctr.serving.manifest.ModelEntry`.
        provenance: where it comes from, as JSON.
        crosses: by which those of memorized pairs are found, where pairs are modelled.
        dtype: in which weights are stored (`ctr.serving.storage`).
        rounding: what that changes on valid, as `ctr.serving.manifest.RoundingEntry`; nothing in float32.
        keep_all: architecture of the network before selection, where it is known.

    Returns:
        Bytes of all files together.

    Raises:
        CtrError: the network is no one that a bundle can hold, the folder cannot be written, or the disk is full.
        DataError: the bundle gives golden rows other probabilities than the network (never, unless there is a fault).
    """
    _check(network, dataset, layout)
    network = network.eval()
    personal = _personal(dataset)
    with _raw_rows(dataset.schema, source, personal) as (columns, sample):
        preparation = Preparation.from_dataset(dataset.folder, columns, layout.fields)
        raw = _with_good_rows(sample(preparation.raw_columns), preparation)
    entries = _field_entries(dataset, layout, columns)
    with _appearing(folder) as built:
        schema = _write_schema(built, dataset.schema, layout.fields, preparation.side_tables())
        kept_values = _write_features(built, dataset, layout)
        cross_entry = _write_crosses(built, crosses)
        _write_description(built, schema, entries, dataset, personal)
        # With the whole vocabulary and the network itself: another way than the one that the bundle will go.
        whole = dataset.vocabulary.with_columns(pl.Series("id", layout.numbers, dtype=pl.Int32))
        encoder = Encoder(
            dataset.schema, dataset.manifest["fields"], None if dataset.hashed else whole, layout.fields
        )
        golden = _Golden.of(raw, preparation, encoder, layout, dataset.schema)
        entry, tensors = write_network(
            built, network, architecture, golden.encoded, dtype=dtype, keep_rate=dataset.schema.keep_rate
        )
        golden.write(
            built, probabilities(as_stored(network, dtype), golden.encoded, dataset.schema.keep_rate)
        )
        files = {path.relative_to(built).as_posix(): path for path in built.rglob("*") if path.is_file()}
        content = {
            "format_version": parts.FORMAT_VERSION,
            "name": schema.name,
            "dataset": dataset.digest,
            "feature_set": feature_set.digest() if feature_set else None,
            "features": (feature_set or _everything(dataset)).counts(),
            "architecture": asdict(architecture),
            "encoding": dataset.manifest["encoding"],
            "placement": None if layout.placement is None else layout.placement.entry(),
            "kept_values": kept_values,
            "crosses": cross_entry,
            "fields": entries,
            "columns": dataset.manifest["columns"],
            "sampling": _sampling(dataset.schema, network),
            "personal": personal.entry
            and {**personal.entry, "fields": [f.model_dump() for f in personal.fields]},
            "metrics": dict(metrics),
            "model": dict(model),
            "provenance": dict(provenance),
            "versions": {"ctr": ctr.__version__, **{name: version(name) for name in _PACKAGES}},
            "network": entry.model_dump(),
            "rounding": None if rounding is None else dict(rounding),
            "sizes": size_entry(network, dtype, keep_all),
            "costs": cost_entry(layout, architecture.pairs, crosses, tensors),
            "files": {name: parts.file_entry(files[name]).model_dump() for name in sorted(files)},
        }
        plain = json.loads(json.dumps(content))
        (built / parts.MANIFEST).write_text(parts.render_manifest(plain), encoding="utf-8")
        return Scorer(built, allow_paths=True).bundle.bytes  # they were read to train it


def _check(network: Network, dataset: Dataset, layout: Layout) -> None:
    """Refuse what no bundle can hold.

    Raises:
        CtrError: a gate, weights that are not finite, or a field whose unknown is kept though a value is dropped.
    """
    if network.gate is not None:
        raise CtrError("export: the network still has a gate; compact it first")
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CtrError(f'export: the weights "{name}" hold NaN or infinity')
    for info in dataset.fields if layout.kept is None else []:
        rows = layout.numbers[info.offset : info.offset + info.features]
        # A bundle cannot tell a dropped value from one that was never seen (see `FeatureSet.of`).
        if rows[0] > 0 and (rows[FIRST_VALUE:] == 0).any():
            raise CtrError(f'export: field "{info.name}" keeps its unknown but drops values')


def _write_features(built: Path, dataset: Dataset, layout: Layout) -> dict[str, Any] | None:
    """Write which features there are: the vocabulary or, where values are hashed, which of them are kept.

    Returns:
        What the manifest says of kept hashes.
    """
    if dataset.hashed:
        kept = layout.kept or KeptValues.everything(set(layout.owners))
        kept.write(built / parts.KEPT_VALUES)
        return kept.entry()
    vocabulary = _compact_vocabulary(dataset, layout)
    if layout.placement is not None:  # numbers that nobody needs: features of no train row have none
        vocabulary = vocabulary.with_columns(pl.col("id").rank("dense").cast(pl.Int32))
    vocabulary.select(list(VOCABULARY_COLUMNS)).write_parquet(built / parts.VOCABULARY, compression="zstd")
    return None


def _write_description(
    built: Path, schema: Schema, entries: Sequence[Mapping[str, Any]], dataset: Dataset, personal: Personal
) -> None:
    """Say how cells become ids, and prove it by golden pairs."""
    described = describe_encoding(
        schema,
        entries,
        dataset.manifest["encoding"],
        [field.name for field in personal.fields],
        dataset.manifest["columns"],
    )
    write_encoding(built / parts.ENCODING, described)
    vocabulary = None if dataset.hashed else pl.read_parquet(built / parts.VOCABULARY)
    write_pairs(built / parts.PAIRS, schema, Encoder(schema, entries, vocabulary), vocabulary)


def _write_crosses(built: Path, crosses: CrossKeys | None) -> dict[str, Any] | None:
    """Write by what admitted crosses are known; what the manifest says of them."""
    if crosses is None or not crosses.pairs:
        return None
    crosses.write(built / parts.CROSSES)
    pairs = [list(pair) for pair in crosses.pairs]
    if crosses.sketch is not None:
        return {"pairs": pairs, "sketch": crosses.sketch.shape[1]}
    return {"pairs": pairs, "admitted": len(crosses.admitted)}


def _compact_vocabulary(dataset: Dataset, layout: Layout) -> pl.DataFrame:
    """Field, role, value and table row of every feature that has a row of its own.

    A dropped value that reads its field's unknown is simply not there, like a value that was never seen.
    """
    frame = dataset.vocabulary.with_columns(pl.Series("id", layout.numbers, dtype=pl.Int32))
    own = (pl.col("role") != "value") | ~pl.col("id").is_in(_unknown_rows(dataset, layout))
    return frame.filter((pl.col("id") > 0) & own)


def _unknown_rows(dataset: Dataset, layout: Layout) -> list[int]:
    rows = (int(layout.numbers[info.offset + UNKNOWN]) for info in dataset.fields)
    return [row for row in rows if row > 0]


def _sampling(schema: Schema, network: Network) -> dict[str, Any] | None:
    if schema.negative_keep_rate is None:
        return None
    return {
        "negative_keep_rate": schema.keep_rate,
        "correction": "p = q / (q + (1 - q) / negative_keep_rate)",
        "applied_by": "scorer",
        "slope": float(network.slope),
        "intercept": float(network.intercept),
    }


def _personal(dataset: Dataset) -> Personal:
    """What is personal in the dataset, with the key that it was ingested with.

    Raises:
        ConfigError: no key, or another one.
    """
    entry, fields = dataset.manifest["personal"], personal_fields(dataset.schema)
    names = [field.name for field in fields]
    return Personal.with_key(
        entry["key"] if entry else "", fields, dataset.schema, names, f'dataset "{dataset.name}"'
    )


def _everything(dataset: Dataset) -> FeatureSet:
    return FeatureSet.of(dataset, np.ones(dataset.features, np.bool_), np.ones(dataset.features), {})


@contextmanager
def _raw_rows(schema: Schema, source: str | Path, personal: Personal) -> Iterator[tuple[list[str], Any]]:
    """The input's columns, and a function from wanted columns to chunks of raw rows, personal cells replaced."""
    if isinstance(schema.split, FilesSplit):
        source = Path(source) / schema.split.train
    with located(source) as sources:
        columns = personal.columns(sources[0], schema.read)
        yield columns, lambda wanted: personal.chunks(chunks(sources, schema.read, wanted, _GOLDEN_BYTES))


def _with_good_rows(read: Iterator[Chunk], preparation: Preparation) -> Chunk:
    """The first rows, unless all of them break the schema: then the next ones, for probabilities prove a bundle.

    Raises:
        DataError: there are none.
    """
    for raw in read:
        for start in range(0, raw.frame.height, _GOLDEN_ROWS):
            end = start + _GOLDEN_ROWS
            some = replace(raw, frame=raw.frame[start:end], rows=raw.rows[start:end])
            if preparation(some).bad["row"].n_unique() < some.frame.height:
                return some
    raise DataError("export: expected rows that do not break the schema, to prove the bundle by, found none")


class _Golden(NamedTuple):
    """The first raw rows, as they will stand in the bundle and as a network reads them; which of them break the schema.

    Attributes of side tables that are not in the bundle stand beside them: such a table may change, golden rows not.
    """

    frame: pl.DataFrame
    encoded: EncodedRows
    bad: pl.Series

    @classmethod
    def of(
        cls, raw: Chunk, preparation: Preparation, encoder: Encoder, layout: Layout, schema: Schema
    ) -> Self:
        frame = raw.frame.head(_GOLDEN_ROWS)
        rows = raw.rows[: frame.height]
        joined = preparation.joined(frame)
        outside = [
            name
            for join, table in zip(schema.joins, preparation.side_tables(), strict=True)
            if join.at_scoring != "bundle"
            for name in attributes(join, table.columns)
            if name in joined.columns
        ]
        prepared = preparation(replace(raw, frame=frame, rows=rows))
        encoded = encoded_rows(encoder.encode(prepared.frame), encoder.fields, layout.reader)
        bad = pl.Series(np.isin(rows + 1, prepared.bad["row"].to_numpy()))
        return cls(joined.select(*frame.columns, *outside), encoded, bad)

    def write(self, built: Path, scores: npt.NDArray[np.float64]) -> None:
        """With the network's probabilities; null where a row breaks the schema."""
        found = pl.Series(GOLDEN_PROBABILITY, scores).set(self.bad, None)
        self.frame.with_columns(found).write_parquet(built / parts.GOLDEN, compression="zstd")


def _write_schema(built: Path, schema: Schema, kept: Sequence[str], tables: Sequence[pl.DataFrame]) -> Schema:
    """The schema without what the kept fields do not need, and the side tables that they need.

    Label, `where`, weight, row id and the time that the split names stay, with what they are derived from, so that a
    bundle can be evaluated on other rows.
    """
    expressions = (schema.label, schema.where, schema.weight, schema.row_id, schema.time_column)
    needed = [*kept, *(root for text in expressions if text for root in roots(text))]
    for name in needed:  # grows while it is read
        if name in schema.derive:
            needed += [root for root in roots(schema.derive[name]) if root not in needed]
    joins: list[Join] = []
    for join, table in zip(schema.joins, tables, strict=True):
        if not attributes(join, table.columns) or join.at_scoring == "row":
            continue
        if join.at_scoring == "path":
            joins.append(join.model_copy(update={"log_time": schema.log_time(join)}))
            continue
        kept_join = embedded(schema, join, sum(other.at_scoring == "bundle" for other in joins))
        (built / kept_join.input).parent.mkdir(exist_ok=True)
        table.write_parquet(built / kept_join.input, compression="zstd")
        joins.append(kept_join)
    reduced = schema.model_copy(
        update={
            "fields": [field for field in schema.fields if field.name in kept],
            "derive": {name: text for name, text in schema.derive.items() if name in needed},
            "true_probability": None,
            "joins": joins,
        }
    )
    text = json.dumps(reduced.model_dump(mode="json"), indent=1, ensure_ascii=False)
    (built / parts.SCHEMA).write_text(text + "\n", encoding="utf-8")
    return reduced


def _field_entries(dataset: Dataset, layout: Layout, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Per kept field, in schema order, its encoding and the raw columns it is made of."""
    tables = [
        pl.read_parquet_schema(dataset.folder / side_table_path(number))
        for number in range(len(dataset.schema.joins))
    ]
    joins = dataset.schema.joins
    outside = [
        name
        for join, table in zip(joins, tables, strict=True)
        if join.at_scoring == "row"
        for name in attributes(join, list(table))
    ]
    empty = [
        pl.DataFrame(schema=table)
        for join, table in zip(joins, tables, strict=True)
        if join.at_scoring != "row"
    ]
    entries = []
    for entry in dataset.manifest["fields"]:
        if entry["name"] not in layout.fields:
            continue
        alone = Preparation(
            joined_from(dataset.schema, ("bundle", "path")),
            [*columns, *outside],
            types=dataset.manifest["columns"],
            side_tables=empty,
            fields=[entry["name"]],
            training=False,
        )
        encoding = {key: entry[key] for key in ("name", "kind", "features", "shares", "scale", "edges")}
        entries.append({**encoding, "columns": alone.raw_columns})
    return entries


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """An empty folder that takes the place of `folder` in the end, or vanishes on failure.

    Raises:
        CtrError: it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
            built = Path(scratch) / folder.name
            built.mkdir()
            yield built
            if folder.exists():
                folder.rename(Path(scratch) / "old")
            built.rename(folder)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise CtrError(f'bundle "{folder}": cannot be written: {reason}') from None
