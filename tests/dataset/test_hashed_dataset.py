"""Datasets without a vocabulary: ids are keys of canonical values, and networks read the same rows either way."""

import json
from collections import Counter
from itertools import product
from typing import get_args

import numpy as np
import polars as pl
import pytest
import xxhash

from ctr.dataset import counting, passes
from ctr.dataset import reading as reading_module
from ctr.dataset.batches import Batches
from ctr.dataset.encoding import Encoder
from ctr.dataset.ingest import ingest
from ctr.dataset.inputs import find_files
from ctr.dataset.kept_values import KeptValues
from ctr.dataset.key_counts import KEYED_SCHEMA
from ctr.dataset.layout import Layout
from ctr.dataset.placement import Composition, place
from ctr.dataset.preparation import Preparation
from ctr.dataset.reading import chunks, column_names
from ctr.dataset.schema import Schema
from ctr.dataset.store import MISSING, UNKNOWN, Dataset
from ctr.errors import ConfigError, CtrError, DataError
from ctr.settings import check

COMPOSITIONS = get_args(Composition)
PARTS = ("train", "valid", "test")
SPLIT = {"by": "time", "column": "t", "valid": 0.2, "test": 0.2}
FIELDS = [
    {"name": "user", "min_count": 2},
    {"name": "price", "kind": "numeric", "transform": "log_square"},
    {"name": "tags", "kind": "list", "separator": "|"},
]
ALL_KINDS = [
    {"name": "tags", "kind": "list"},
    {"name": "user"},
    {"name": "friend", "shares": "user"},
    {"name": "price", "kind": "numeric", "transform": "log_square"},
    {"name": "age", "kind": "numeric", "transform": "quantile", "bins": 3},
    {"name": "rate", "kind": "numeric", "transform": "minmax"},
    {"name": "taste", "kind": "vector", "size": 2},
    {"name": "position", "role": "bias", "serve_value": 1},
    {"name": "words", "kind": "list", "separator": " ", "shares": "tags", "missing_values": ["-"]},
]


def columns_of_all_kinds(rows: int) -> dict:
    """Every value of every field comes up in the train rows; every eleventh cell is missing."""

    def cells(values: list, shift: int) -> list:
        return [None if (n + shift) % 11 == 0 else values[n % len(values)] for n in range(rows)]

    return {
        "user": cells(["a", "b", "c", "ü"], 0),
        "friend": cells(["b", "a", "d"], 3),
        "price": cells([0.0, 2.0, 3.5, 900.0, -1.0], 1),
        "age": cells([10.0, 20.0, 30.0, 41.5], 2),
        "rate": cells([0.0, 0.5, 1.0], 4),
        "taste": cells([[1.0, 2.0], [3.0, 4.0]], 5),
        "position": cells([1, 2, 3], 6),
        "tags": [["x", "y"][: n % 3] for n in range(rows)],
        "words": cells(["x", "x z", "-", "y  z x"], 7),
    }


@pytest.fixture
def make(tmp_path):
    """A dataset of columns given as a dict; `click` alternates and `t` counts unless they are given."""

    def build(columns: dict, fields: list[dict], encoding: str = "hashed", **keys) -> Dataset:
        rows = len(next(iter(columns.values())))
        given = {"t": range(rows), "click": [n % 2 for n in range(rows)], **columns}
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.parquet"
        pl.DataFrame(given, strict=False).write_parquet(path)
        content = {"name": "log", "label": "click", "read": {"format": "parquet"}, "split": SPLIT, **keys}
        schema = check({**content, "fields": fields}, Schema, "schema")
        return Dataset(ingest(schema, path, tmp_path / "data", encoding=encoding))

    return build


@pytest.fixture
def hashed_log(write, tmp_path, make_schema, small_log):
    """The small log without a vocabulary: a folder."""

    def build(text: str = small_log, encoding: str = "hashed", name: str = "log.csv", **keys):
        schema = make_schema(**{"fields": FIELDS, **keys})
        return ingest(schema, write(name, text), tmp_path / "datasets", encoding=encoding)

    return build


def key_of(field: str, value: str = "", mark: str = "\x00") -> int:
    """The signed number of a value's key; missing where it is empty."""
    return int(np.array(xxhash.xxh64(f"{field}{mark}{value}".encode()).intdigest(), np.uint64).view(np.int64))


def placed(dataset: Dataset, **keys):
    """A placement of a dataset's fields, and the layout of what train rows hold."""
    features = dict(
        dataset.vocabulary.filter(pl.col("count") > 0)
        .group_by("field", maintain_order=True)
        .len()
        .iter_rows()
    )
    placement = place(features, **{"dim": 4, "linear": 1, "rows": 60, **keys})
    return placement, Layout(dataset, placement=placement)


# One pass


def test_a_hashed_dataset_has_no_vocabulary_and_the_same_rows(hashed_log, rows_of):
    hashed, counted = hashed_log(), hashed_log(encoding="vocabulary")
    assert not (hashed / "vocabulary.parquet").exists()
    assert (counted / "vocabulary.parquet").exists()
    manifests = [json.loads((folder / "manifest.json").read_text()) for folder in (hashed, counted)]
    assert [manifest["encoding"] for manifest in manifests] == ["hashed", "vocabulary"]
    assert [entry["features"] for entry in manifests[0]["fields"]] == [None] * 3
    for name in ("rows", "positives", "columns", "window", "inputs", "schema"):
        assert manifests[0][name] == manifests[1][name]
    for part in PARTS:
        found, expected = rows_of(hashed, part), rows_of(counted, part)
        assert found.columns == expected.columns
        assert found.select("@row", "@label").equals(expected.select("@row", "@label"))
        assert found["tags"].list.len().to_list() == expected["tags"].list.len().to_list()


def test_nothing_is_counted(write, tmp_path, make_schema, small_log, monkeypatch):
    monkeypatch.setattr(counting.FieldCounts, "_tally", None)
    monkeypatch.setattr(passes.Passes, "write_vocabulary", None)
    seen = []
    ingest(
        make_schema(fields=FIELDS),
        write("log.csv", small_log),
        tmp_path / "datasets",
        encoding="hashed",
        progress=lambda stage, share: seen.append((stage, share)),
    )
    assert [stage for stage, share in seen if share == 1.0] == ["read", "encode"]
    assert {stage for stage, _ in seen} == {"read", "encode"}


def test_numbers_that_are_scaled_are_still_measured_in_train_rows(make):
    fields = [
        {"name": "x", "kind": "numeric", "transform": "minmax"},
        {"name": "bin", "kind": "numeric", "transform": "quantile", "bins": 2},
    ]
    x = [1.0, 3.0, 5.0, 3.0, 1.0, 5.0, None, 200.0, 100.0, 9.0]
    hashed, counted = (make({"x": x, "bin": x}, fields, name) for name in ("hashed", "vocabulary"))
    entries = hashed.manifest["fields"]
    assert entries[0]["scale"] == {"shift": 1.0, "factor": 0.25}
    assert entries[1]["edges"] == [3.0]
    for key in ("scale", "edges"):
        assert [entry[key] for entry in entries] == [entry[key] for entry in counted.manifest["fields"]]


def bytes_of(folder) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_same_log_is_the_same_dataset_and_another_one_than_with_a_vocabulary(hashed_log):
    folder = hashed_log()
    content = bytes_of(folder)
    (folder / "manifest.json").write_text("{}")
    assert hashed_log() == folder  # built again
    assert bytes_of(folder) == content
    digests = {Dataset(path).digest for path in (folder, hashed_log(encoding="vocabulary"))}
    assert len(digests) == 2


def test_chunks_of_any_size_give_the_same_keys(hashed_log, rows_of, monkeypatch):
    whole = {part: rows_of(hashed_log(), part) for part in PARTS}
    monkeypatch.setattr(
        passes, "chunks", lambda sources, read, wanted: reading_module.chunks(sources, read, wanted, 400)
    )
    small = hashed_log(name="again/log.csv", where="click >= 0")
    for part in PARTS:
        assert rows_of(small, part).equals(whole[part])


def test_the_order_of_columns_does_not_matter(hashed_log, rows_of, small_log):
    table = [line.split(",") for line in small_log.splitlines()]
    turned = "\n".join(",".join(reversed(row)) for row in table) + "\n"
    one, two = hashed_log(), hashed_log(turned, name="turned/log.csv")
    for part in PARTS:
        assert rows_of(one, part).equals(rows_of(two, part))


def test_adding_and_reordering_fields_leaves_the_keys_of_others(hashed_log, rows_of):
    one = hashed_log()
    two = hashed_log(fields=[{"name": "day"}, *reversed(FIELDS)])
    for part in PARTS:
        assert (
            rows_of(two, part)
            .select("user", "price", "tags")
            .equals(rows_of(one, part).select("user", "price", "tags"))
        )
    assert rows_of(one, "train")["user"].to_list() != rows_of(two, "train")["day"].to_list()


# Keys of values


def test_keys_are_those_of_canonical_values(hashed_log, rows_of, small_log):
    folder = hashed_log()
    lines = [line.split(",") for line in small_log.splitlines()[1:]]
    # log_square leaves 0, 1, 2 as they are; 3 and 4 become 1, 5 becomes 2, 6 becomes 3.
    square = {"": "", "0": "0", "1": "1", "2": "2", "3": "1", "4": "1", "5": "2", "6": "3"}
    for part in PARTS:
        found = rows_of(folder, part)
        rows = [lines[number] for number in found["@row"]]
        assert found["user"].to_list() == [key_of("user", row[1]) for row in rows]
        assert found["price"].to_list() == [key_of("price", square[row[2]]) for row in rows]
        assert found["tags"].to_list() == [[key_of("tags", tag) for tag in row[3].split("|")] for row in rows]


@pytest.mark.parametrize(
    ("cells", "texts"),
    [
        ([1, 2, 1, None], ["1", "2", "1", ""]),
        ([1.0, 2.5, 1.0, None], ["1", "2.5", "1", ""]),
        ([1.0, -0.0, 1e20, float("nan")], ["1", "0", "1e+20", ""]),
        (["1", "01", "1.0", ""], ["1", "01", "1.0", ""]),
        ([True, False, True, None], ["true", "false", "true", ""]),
        (["ü", "u\u0308", " a", "a"], ["ü", "u\u0308", " a", "a"]),
    ],
)
def test_a_value_has_one_key_whatever_its_type_is_in_the_file(make, cells, texts):
    found = make({"x": cells * 5}, [{"name": "x"}]).part("train")
    assert found.ids[:, 0].tolist() == [key_of("x", text) for text in texts * 3]


def test_missing_is_a_value_of_its_own_and_missing_values_are_missing(make):
    columns = {"x": ["a", None, "?", "-1"] * 5, "y": ["a", None, "?", "-1"] * 5}
    fields = [{"name": "x"}, {"name": "y", "missing_values": [-1]}]
    ids = make(columns, fields, missing_values=["?"]).part("train").ids
    assert ids[:4, 0].tolist() == [key_of("x", "a"), key_of("x"), key_of("x"), key_of("x", "-1")]
    assert ids[:4, 1].tolist() == [key_of("y", "a"), key_of("y"), key_of("y"), key_of("y")]


def test_fields_of_all_kinds_have_the_keys_of_what_a_network_sees(make):
    columns = columns_of_all_kinds(110)
    dataset = make(columns, ALL_KINDS)
    names = ["user", "friend", "price", "age", "rate", "taste", "position"]
    square = {None: "", 0.0: "0", 2.0: "2", 3.5: "1", 900.0: "46", -1.0: "-1"}  # ln(900)^2 = 46.3
    bins = {None: "", 10.0: "0", 20.0: "0", 30.0: "1", 41.5: "2"}
    assert dataset.manifest["fields"][4]["edges"] == [20.0, 30.0]
    seen = []
    for part in (dataset.part("train"), dataset.part("valid"), dataset.sealed_test()):
        assert part.ids.dtype == part.lists[0][0].dtype == np.int64
        for row, number in enumerate(part.rows.tolist()):
            seen.append(number)
            cell = {name: columns[name][number] for name in columns}
            marks = {name: "\x00" if cell[name] is None else "\x02" for name in ("rate", "taste")}
            expected = [
                key_of("user", cell["user"] or ""),
                key_of("user", cell["friend"] or ""),
                key_of("price", square[cell["price"]]),
                key_of("age", bins[cell["age"]]),
                key_of("rate", mark=marks["rate"]),
                key_of("taste", mark=marks["taste"]),
                key_of("position", "" if cell["position"] is None else str(cell["position"])),
            ]
            found = dict(zip(names, part.ids[row].tolist(), strict=True))
            assert found == dict(zip(names, expected, strict=True))
            lists = [flat[starts[row] : starts[row + 1]].tolist() for flat, starts in part.lists]
            words = [word for word in (cell["words"] or "").split(" ") if word not in ("", "-")]
            assert lists == [
                [key_of("tags", tag) for tag in items or [""]] for items in (cell["tags"], words)
            ]
    assert seen == list(range(110))


def test_values_and_vectors_are_scaled_as_with_a_vocabulary(make):
    columns = columns_of_all_kinds(110)
    hashed, counted = (make(columns, ALL_KINDS, name).part("train") for name in ("hashed", "vocabulary"))
    assert hashed.values.tolist() == counted.values.tolist()
    assert hashed.vectors.tolist() == counted.vectors.tolist()


def test_min_count_does_not_apply_as_nothing_is_counted(make):
    columns = {"user": [f"u{n}" for n in range(20)]}
    ids = make(columns, [{"name": "user", "min_count": 1000}]).part("train").ids
    assert ids[:, 0].tolist() == [key_of("user", f"u{n}") for n in range(12)]


def test_scoring_gives_the_very_keys_of_training(make, tmp_path):
    columns = columns_of_all_kinds(110)
    dataset = make(columns, ALL_KINDS)
    source = find_files(tmp_path / "0.parquet")
    preparation = Preparation.from_dataset(dataset.folder, column_names(source[0], dataset.schema.read))
    encoder = Encoder.from_dataset(dataset.folder)
    encoded = pl.concat(
        encoder.encode(preparation(chunk).frame)
        for chunk in chunks(source, dataset.schema.read, preparation.raw_columns)
    )
    for part in PARTS:
        rows = pl.read_parquet(dataset.folder / part / "*.parquet")
        trained = rows.select(encoded.columns)
        if part == "train":
            assert trained["user"].dtype == pl.Int64
        # A bias field has its `serve_value` wherever a log is scored.
        assert trained.drop("position").equals(encoded[rows["@row"]].drop("position"))
    assert encoded["position"].n_unique() == 1
    assert encoded["position"][0] == key_of("position", "1")


# What train rows hold


def test_features_are_what_a_counter_finds_in_train_rows(hashed_log, rows_of):
    dataset = Dataset(hashed_log())
    rows = rows_of(dataset.folder, "train")
    assert dataset.vocabulary.schema == pl.Schema(KEYED_SCHEMA)
    for info in dataset.fields:
        own = dataset.vocabulary.filter(pl.col("field") == info.name)
        ids = rows[info.name].explode() if info.kind == "list" else rows[info.name]
        found = Counter(np.array(ids.to_list()).view(np.uint64).tolist())
        unknown, missing = (key_of(info.name, mark=mark) % 2**64 for mark in ("\x01", "\x00"))
        assert own.select("role", "key", "count").rows()[:2] == [
            ("unknown", unknown, 0),
            ("missing", missing, found.pop(missing, 0)),
        ]
        expected = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
        assert own.select("key", "count").rows()[2:] == expected
        assert own["id"].to_list() == list(range(own.height))
        assert own["role"][2:].unique().to_list() == ["value"]
        assert own["value"].to_list() == [None, None, *(f"{key:016x}" for key, _ in expected)]
        assert own["weighted_count"].to_list() == own["count"].cast(pl.Float64).to_list()
        assert info.features == own.height
        assert info.offset == dataset.vocabulary["field"].to_list().index(info.name)
    assert dataset.features == dataset.vocabulary.height
    assert dataset.keys.tolist() == dataset.vocabulary["key"].to_list()


def counts_of(dataset: Dataset) -> dict[tuple[str, int], tuple[int, float]]:
    """(field, key) of what train rows hold -> count and weighted count, whatever the encoding."""
    frame = dataset.vocabulary.select("field", "count", "weighted_count")
    rows = zip(dataset.keys.tolist(), frame.iter_rows(), strict=True)
    return {(field, key): (count, weight) for key, (field, count, weight) in rows if count}


@pytest.mark.parametrize("keep_rate", [None, 0.25])
@pytest.mark.parametrize("weight", [None, "w"])
def test_counts_are_those_of_a_vocabulary_weights_and_sampling_included(make, weight, keep_rate):
    columns = columns_of_all_kinds(110) | {"w": [0.5 + n % 4 for n in range(110)]}
    keys = {"weight": weight, "negative_keep_rate": keep_rate}
    hashed, known = (make(columns, ALL_KINDS, name, **keys) for name in ("hashed", "vocabulary"))
    found, expected = counts_of(hashed), counts_of(known)
    assert len(found) == 28
    assert found.keys() == expected.keys()
    assert {key: count for key, (count, _) in found.items()} == {
        key: count for key, (count, _) in expected.items()
    }
    for key, (_, heavy) in expected.items():
        assert found[key][1] == pytest.approx(heavy, rel=1e-6)


def test_counts_of_weighted_rows_by_hand(make):
    columns = {"user": ["a", "b"] * 10, "click": [0, 1] * 10, "w": [2.0, 3.0] * 10}
    dataset = make(columns, [{"name": "user"}], weight="w", negative_keep_rate=0.25)
    # Six of the twelve train rows each: a weighs 2 and stands for four negatives, b weighs 3.
    assert counts_of(dataset) == {
        ("user", key_of("user", "a") % 2**64): (6, pytest.approx(48.0)),
        ("user", key_of("user", "b") % 2**64): (6, pytest.approx(18.0)),
    }


def test_counts_are_kept_beside_the_rows_and_read_again(hashed_log, monkeypatch):
    folder = hashed_log()
    first = Dataset(folder).vocabulary
    assert sorted(path.name for path in (folder / "cache").iterdir()) == ["keys.parquet", "train"]
    monkeypatch.setattr("ctr.dataset.store.counted_keys", None)
    assert Dataset(folder).vocabulary.equals(first)


def test_counts_that_were_altered_or_cannot_be_written_are_an_error_with_a_way_out(hashed_log, monkeypatch):
    folder = hashed_log()
    Dataset(folder)
    path = folder / "cache" / "keys.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"keys\.parquet.*delete its folder and ingest again"):
        Dataset(folder)
    path.unlink()

    def full(frame, target):
        target.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(CtrError, match=r"keys\.parquet.*No space left.*make room"):
        Dataset(folder)
    assert [path.name for path in (folder / "cache").iterdir()] == ["train"]


def test_keys_are_numbered_as_features_and_others_as_their_fields_unknown(make):
    dataset = make(columns_of_all_kinds(110), ALL_KINDS)
    keys = dataset.keys
    assert dataset.numbered(keys, np.int64(-1)).tolist() == list(range(dataset.features))
    new = np.array([key_of("user", "new"), key_of("price", "new")]).view(np.uint64)
    offsets = {info.name: info.offset for info in dataset.fields}
    unknown = np.array([offsets["user"] + UNKNOWN, offsets["price"] + UNKNOWN])
    assert dataset.numbered(new, unknown).tolist() == unknown.tolist()
    both = np.stack([new, keys[[7, 9]]])
    assert dataset.numbered(both, unknown).tolist() == [unknown.tolist(), [7, 9]]
    edges = np.array([0, 2**64 - 1], np.uint64)
    assert dataset.numbered(edges, unknown).tolist() == unknown.tolist()


def test_a_field_that_shares_anothers_values_has_its_keys_and_counts(make):
    columns = {"user": ["a", "b"] * 10, "friend": ["b", "c"] * 10}
    dataset = make(columns, [{"name": "user"}, {"name": "friend", "shares": "user"}])
    found = {key: count for (_, key), (count, _) in counts_of(dataset).items()}
    assert found == {key_of("user", text) % 2**64: count for text, count in (("a", 6), ("b", 12), ("c", 6))}
    assert [(info.offset, info.features) for info in dataset.fields] == [(0, 5)] * 2
    assert dataset.features == 5


# What networks read


def test_a_table_cannot_have_rows_for_hashes(make):
    dataset = make({"user": ["a", "b"] * 10}, [{"name": "user"}])
    with pytest.raises(
        ConfigError, match=r'no vocabulary.*embedding\.kind = "unified" or "hashed", or ingest'
    ):
        Layout(dataset)
    with pytest.raises(ConfigError, match=r'field "user" has a row for each value.*collision_free'):
        placed(dataset, shared=True, collision_free=50)


@pytest.mark.parametrize(("composition", "shared"), [*product(COMPOSITIONS, [True, False])])
@pytest.mark.parametrize("serving", [False, True])
def test_the_same_places_are_read_with_and_without_a_vocabulary(make, composition, shared, serving):
    columns = columns_of_all_kinds(110)
    batches = []
    for encoding in ("hashed", "vocabulary"):
        dataset = make(columns, ALL_KINDS, encoding)
        usual = {} if composition == "quotient_remainder" else {"field_lookups": {"user": 3, "price": 1}}
        placement, layout = placed(dataset, shared=shared, composition=composition, **usual)
        layout = layout.at_serving() if serving else layout
        assert layout.hashed == (encoding == "hashed")
        part = dataset.part("train")
        batches.append((placement, layout, layout.gather(part, np.arange(len(part)))))
    (one, hashed, first), (two, _, second) = batches
    assert one == two
    assert first.places.shape == (66, 7, one.numbers)
    assert (first.places[..., 0] > 0).all()
    assert first.places.tolist() == second.places.tolist()
    assert first.list_places.tolist() == second.list_places.tolist()
    assert len(first.list_places) > 66
    for name in ("values", "vectors", "list_slots", "list_lengths", "labels", "rows"):
        assert getattr(first, name).tolist() == getattr(second, name).tolist()
    # Numbers tell the same features apart, under other names.
    pairs = {*zip(first.ids.ravel().tolist(), second.ids.ravel().tolist(), strict=True)}
    pairs |= {*zip(first.list_ids.tolist(), second.list_ids.tolist(), strict=True)}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert 0 not in {a for a, _ in pairs}
    bias = first.places[:, hashed.fields.index("position")]
    assert len(np.unique(bias, axis=0)) == (1 if serving else 4)


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_a_value_reads_the_row_that_its_text_and_field_say(make, composition):
    """From a cell to a row by hand: hash, halves, multiply and add, modulo, in Python's own integers."""
    dataset = make({"user": ["a", "b", None] * 10}, [{"name": "user"}])
    _, layout = placed(dataset, shared=True, composition=composition, rows=60)
    words = [[xxhash.xxh64(f"lookup {k} {c}".encode()).intdigest() >> 2 for c in "abc"] for k in (0, 1, 1000)]
    found = layout.gather(dataset.part("train"), np.arange(3)).places[:, 0]
    for text, read in zip(["a", "b", ""], found.tolist(), strict=True):
        upper = xxhash.xxh64(f"user\x00{text}".encode()).intdigest() >> 2
        a, b, c = ([word % (2**31 - 2) + 1 for word in letters] for letters in zip(*words, strict=True))
        hashed = [(a[n] * (upper >> 31) + b[n] * (upper % 2**31) + c[n]) % (2**31 - 1) for n in range(3)]
        expected = {
            "lookup": [1 + number % 60 for number in hashed[:2]],
            "multi_hash": [1 + number % 60 for number in hashed],
            "quotient_remainder": [1 + hashed[0] % 30, 1 + hashed[2] % 30],
            "robe": [3 + number % (59 * 3 + 1) for number in hashed[:2]],  # rows of 2 floats and a weight
        }
        assert read == expected[composition]


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_with_a_vocabulary_fields_of_few_values_have_a_row_for_each_that_train_holds(make, composition):
    # "rare" is an hour's unknown; no hour is missing, and no user is rare.
    hours = [["6", "7", "8"][n % 3] if n else "rare" for n in range(40)]
    columns = {"user": [f"u{n % 9}" for n in range(40)], "hour": hours}
    dataset = make(columns, [{"name": "user"}, {"name": "hour", "min_count": 2}], "vocabulary")
    placement, layout = placed(dataset, shared=True, composition=composition, collision_free=4)
    own = placement.stretches[placement.of("hour")]
    assert (own.exact, placement.stretches[placement.of("user")].exact) == (True, False)
    each = 2 if composition in ("lookup", "robe") else 1
    assert own.rows == 4 * each
    part = dataset.part("train")
    places = layout.gather(part, np.arange(len(part))).places[:, 1]
    found = {text: tuple(row) for text, row in zip(hours, places.tolist(), strict=False)}
    assert len({*map(tuple, places.tolist())}) == len(set(found.values())) == 4
    # In the order of features: unknown, then by count (7 and 8 eight times, 6 seven times), then by text.
    starts = [
        row * (placement.width if composition == "robe" else 1)
        for row in range(own.start, own.start + 4 * each)
    ]
    assert [found[text][0] for text in ("rare", "7", "8", "6")] == starts[::each]


def test_values_that_train_has_never_seen_read_their_own_rows(make):
    columns = {
        "user": ["a", "b"] * 8 + ["new", "newer", None, "a"],
        "tags": [["x", "y"]] * 16 + [["x", "new"], ["newer"], None, ["y"]],
    }
    split = {"by": "time", "column": "t", "valid": 16, "test": 18}
    dataset = make(columns, [{"name": "user"}, {"name": "tags", "kind": "list"}], split=split)
    placement, layout = placed(dataset, shared=True, rows=1000)
    offsets = {info.name: info.offset for info in dataset.fields}

    def places(field: str, text: str) -> list[int]:
        return placement.places(np.array([key_of(field, text)]).view(np.uint64), placement.of(field))[
            0
        ].tolist()

    def number(field: str, text: str) -> int:
        own = dataset.vocabulary["value"].to_list().index(f"{key_of(field, text) % 2**64:016x}")
        return own + 1

    unknown = {name: offset + UNKNOWN + 1 for name, offset in offsets.items()}
    missing = {name: offset + MISSING + 1 for name, offset in offsets.items()}
    valid = layout.gather(dataset.part("valid"), np.arange(2))
    assert valid.places[:, 0].tolist() == [places("user", "new"), places("user", "newer")]
    assert valid.list_places.tolist() == [places("tags", text) for text in ("x", "new", "newer")]
    # They have no number of their own, but their field's unknown: train knows nothing of them.
    assert valid.ids.tolist() == [[unknown["user"]]] * 2
    assert valid.list_ids.tolist() == [number("tags", "x"), unknown["tags"], unknown["tags"]]
    last = layout.gather(dataset.sealed_test(), np.arange(2))
    assert last.places[:, 0].tolist() == [places("user", ""), places("user", "a")]
    assert last.ids.tolist() == [[missing["user"]], [number("user", "a")]]
    assert last.list_ids.tolist() == [missing["tags"], number("tags", "y")]


def test_with_a_vocabulary_values_that_train_has_never_seen_read_nothing(make):
    columns = {"user": ["a", "b"] * 8 + ["new", "newer", None, "a"]}
    split = {"by": "time", "column": "t", "valid": 16, "test": 18}
    dataset = make(columns, [{"name": "user"}], "vocabulary", split=split)
    _, layout = placed(dataset, shared=True, rows=1000)
    valid = layout.gather(dataset.part("valid"), np.arange(2))
    assert valid.places.tolist() == [[[0, 0]], [[0, 0]]]
    assert valid.ids.tolist() == [[0], [0]]


def test_a_layout_of_some_fields_reads_the_same_of_them(make):
    dataset = make(columns_of_all_kinds(110), ALL_KINDS)
    placement, whole = placed(dataset, shared=False)
    some = Layout(dataset, fields=["words", "price", "user"], placement=placement)
    part, index = dataset.part("train"), np.array([5, 3, 60])
    all_of_them, few = whole.gather(part, index), some.gather(part, index)
    assert some.fields == ["user", "price", "words"]
    assert few.places.tolist() == all_of_them.places[:, [0, 2]].tolist()
    assert few.ids.tolist() == all_of_them.ids[:, [0, 2]].tolist()
    words = all_of_them.list_slots % 2 == 1
    assert few.list_places.tolist() == all_of_them.list_places[words].tolist()
    assert few.list_slots.tolist() == (all_of_them.list_slots[words] // 2).tolist()


@pytest.mark.parametrize("composition", COMPOSITIONS)
def test_placed_features_are_those_that_train_rows_read(make, composition):
    found = {}
    for encoding in ("hashed", "vocabulary"):
        dataset = make(columns_of_all_kinds(110), ALL_KINDS, encoding)
        _, layout = placed(dataset, shared=True, composition=composition)
        found[encoding] = layout.placed().sort("field", "places")
        batch = layout.gather(dataset.part("train"), np.arange(66))
        read = {*map(tuple, batch.places.reshape(-1, batch.places.shape[-1]).tolist())}
        read |= {*map(tuple, batch.list_places.tolist())}
        assert read == {*map(tuple, found[encoding]["places"].to_list())}
    assert found["hashed"].height == 28
    assert found["hashed"].equals(found["vocabulary"])
    assert found["hashed"].filter(pl.col("field") == "user")["count"].sum() == 2 * 66  # of user and friend


def test_placed_features_leave_out_dropped_values_and_fields(make):
    columns = {"user": ["a", "b", "c"] * 8, "item": ["x", "y"] * 12, "hour": ["6", "7"] * 12}
    names = ["user", "item", "hour"]
    dataset = make(columns, [{"name": name} for name in names])
    placement, whole = placed(dataset, shared=True)
    a = np.array([key_of("user", "a")]).view(np.uint64)
    some = Layout(dataset, fields=names[:2], placement=placement, kept=KeptValues.of(a, ["item"]))
    assert some.placed()["field"].to_list() == ["user", "item", "item"]
    assert some.placed().rows()[0] == ("user", 5, placement.places(a, 0)[0].tolist())
    assert all(row in whole.placed().rows() for row in some.placed().rows())
    assert whole.placed().height == 7
    with pytest.raises(ValueError, match="expected hashed features"):
        Layout(make(columns, [{"name": "user"}], "vocabulary")).placed()


def test_kept_values_alone_are_read(make):
    dataset = make(
        {"user": ["a", "b", "c"] * 8, "item": ["x", None] * 12}, [{"name": "user"}, {"name": "item"}]
    )
    placement, _ = placed(dataset, shared=True)
    a = np.array([key_of("user", "a")]).view(np.uint64)
    layout = Layout(dataset, placement=placement, kept=KeptValues.of(a, ["item"]))
    whole = Layout(dataset, placement=placement)
    part, index = dataset.part("train"), np.arange(6)
    found, everything = layout.gather(part, index), whole.gather(part, index)
    assert found.ids.tolist() == [[1, 1], [0, 1], [0, 1]] * 2
    assert found.places[:, 1].tolist() == everything.places[:, 1].tolist()
    assert found.places[[0, 3], 0].tolist() == everything.places[[0, 3], 0].tolist()
    assert not found.places[[1, 2, 4, 5], 0].any()
    again = layout.at_serving().gather(part, index)
    assert again.places.tolist() == found.places.tolist()


def test_batches_of_keys_are_the_rows_of_the_part_in_any_order(make):
    dataset = make(columns_of_all_kinds(110), ALL_KINDS)
    _, layout = placed(dataset, shared=True)
    part = dataset.part("train")
    whole = layout.gather(part, np.arange(len(part)))
    position = {row: n for n, row in enumerate(whole.rows.tolist())}
    seen = []
    for batch in Batches(part, layout, 16, seed=3).epoch():
        index = [position[row] for row in batch.rows.tolist()]
        assert batch.places.tolist() == whole.places[index].tolist()
        assert batch.ids.tolist() == whole.ids[index].tolist()
        seen += index
    assert sorted(seen) == list(range(len(part)))
