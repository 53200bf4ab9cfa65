"""Bundles of hashed embeddings: raw rows score as in training, with or without a vocabulary, and lies are found out."""

import json
import math
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file, save_file

from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.hashing import role_key, value_keys
from ctr.dataset.ingest import ingest
from ctr.dataset.kept_values import FILTER_ERROR
from ctr.dataset.schema import Schema
from ctr.dataset.store import Dataset
from ctr.errors import DataError
from ctr.network.backbones import BACKBONES
from ctr.network.embeddings import Table
from ctr.network.hashed_tables import COMPOSITIONS
from ctr.serving.bundle import Bundle
from ctr.serving.scorer import Scorer, score_file
from ctr.settings import check
from tests.serving.conftest import Trained
from tests.serving.test_bundle import resign, rewrite
from tests.serving.test_equality import assert_same

EACH_COMPOSITION = pytest.mark.parametrize("composition", COMPOSITIONS)
EACH_ENCODING = pytest.mark.parametrize("encoding", ["vocabulary", "hashed"])


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def hashed(log, keyed):
    """Builds a `Trained` on hashed features of the log with everything; two fields have lookups of their own."""
    folder, _, numbered = log

    def build(encoding="hashed", backbone="deepfm", share=None, *, composition="lookup", **keys):
        odd = {} if composition == "quotient_remainder" else {"user": 1, "tags": 3}
        placing = {"composition": composition, "shared": True, "rows": 90, "field_lookups": odd}
        placing |= {name: keys.pop(name) for name in ("shared", "rows", "collision_free") if name in keys}
        dataset = keyed if encoding == "hashed" else numbered
        trained = Trained(dataset, folder / "log.csv", backbone, share, placing=placing, **keys)
        if composition == "quotient_remainder":
            # A vector is a product of two rows: quieter than a row, and so would be what is made of it.
            for module in trained.network.modules():
                if isinstance(module, Table):
                    module.weight.data *= 2.0
        return trained

    return build


SETS = [(None, "zero"), (0.6, "unknown"), (0.3, "zero"), (0.8, "zero")]
ALL = list(product(BACKBONES, COMPOSITIONS, ["vocabulary", "hashed"], [True, False], SETS))
# Each composition in each encoding, with backbones, sharing and feature sets in turn.
SOME = [
    (
        list(BACKBONES)[number % len(BACKBONES)],
        *case,
        number % 3 != 1,
        SETS[(number + 1) // 2 % len(SETS)],
    )
    for number, case in enumerate(product(COMPOSITIONS, ["vocabulary", "hashed"]))
]


def assert_raw_rows_score_as_in_training(hashed, frame, folder, case):
    backbone, composition, encoding, shared, (share, reads) = case
    trained = hashed(encoding, backbone, share, composition=composition, shared=shared, reads=reads)
    assert_same(trained, Scorer(trained.export(folder / "bundle")).score(frame))


@pytest.mark.parametrize("case", SOME)
def test_raw_rows_score_as_in_training(log, hashed, tmp_path, case):
    assert_raw_rows_score_as_in_training(hashed, log[1], tmp_path, case)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in ALL if case not in SOME])
def test_raw_rows_score_as_in_training_whatever_is_put_together(log, hashed, tmp_path, case):
    assert_raw_rows_score_as_in_training(hashed, log[1], tmp_path, case)


@pytest.mark.parametrize("share", [None, 0.6])
def test_fields_free_of_collisions_score_as_in_training(log, hashed, tmp_path, share):
    trained = hashed("vocabulary", "fm", share, collision_free=6, rows=150)
    assert {own.exact for own in trained.layout.placement.stretches} == {True, False}
    assert_same(trained, Scorer(trained.export(tmp_path / "bundle")).score(log[1]))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A log of two fields that no count cuts, and its dataset in both encodings."""
    folder = tmp_path_factory.mktemp("plain")
    rows = [f"{n % 3 % 2},u{n % 7},{n % 11 or ''}" for n in range(300)]
    (folder / "log.csv").write_text("click,user,shop\n" + "\n".join(rows) + "\n")
    keys = {"label": "click", "split": {"by": "random", "valid": 0.2, "test": 0.2}}
    schema = check({"name": "log", **keys, "fields": [{"name": "user"}, {"name": "shop"}]}, Schema, "schema")
    datasets = {
        encoding: Dataset(ingest(schema, folder / "log.csv", folder / "datasets", encoding=encoding))
        for encoding in ("vocabulary", "hashed")
    }
    return folder / "log.csv", datasets


@EACH_COMPOSITION
def test_the_same_table_scores_the_same_in_both_encodings_but_for_what_train_never_held(
    composition, plain, tmp_path
):
    source, datasets = plain
    seen = pl.DataFrame({"user": ["u0", "u3", "u6"], "shop": ["1", None, "10"]})
    late = pl.DataFrame({"user": ["u3", "new", "newer"], "shop": ["99", "1", "1"]})
    found = {}
    for encoding, dataset in datasets.items():
        placing = {"composition": composition, "shared": True, "rows": 12}
        trained = Trained(dataset, source, "fm", placing=placing)
        scorer = Scorer(trained.export(tmp_path / encoding))
        found[encoding] = scorer.score(seen), scorer.score(late)
    assert np.array_equal(found["vocabulary"][0], found["hashed"][0])
    assert len(set(found["hashed"][0])) == 3
    _, new, newer = found["vocabulary"][1]
    assert new == newer  # a vocabulary knows no new value from another
    _, new, newer = found["hashed"][1]
    assert new != newer  # a hash has rows for each


def key_of(field, value):
    """The key of a value; None is missing."""
    return int(value_keys(field, pl.Series([value], dtype=pl.String))[0])


def by_hand(trained, rows):
    """Probabilities of rows (key or None of each field), by the first-order weights at their places."""
    network, placement = trained.network, trained.layout.placement
    weights, found = network.table.weight[:, 0].tolist(), []
    bias = float(network.bias.detach())
    for row in rows:
        logit = bias
        for field, key in zip(trained.layout.fields, row, strict=True):
            if key is not None:
                place = placement.places(np.array([key], np.uint64), placement.of(field))[0]
                logit += sum(weights[number] for number in place)
        logit = float(network.slope) * logit + float(network.intercept)
        found.append(1 / (1 + math.exp(-logit)))
    return found


@pytest.mark.parametrize("reads", ["zero", "unknown"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_logistic_regression_by_hand(plain, tmp_path, shared, reads):
    """Two users are kept, and of the shops whatever they are."""
    source, datasets = plain
    dataset = datasets["hashed"]
    users = [key_of("user", "u1"), key_of("user", "u2")]
    wanted = np.isin(dataset.keys, users) | (dataset.vocabulary["field"] == "shop").to_numpy()
    feature_set = FeatureSet.of(dataset, wanted, wanted.astype(float), {}).reading(dataset, reads)
    trained = Trained(dataset, source, "lr", placing={"shared": shared, "rows": 20}, feature_set=feature_set)
    scorer = Scorer(trained.export(tmp_path / "bundle"))
    raw = pl.DataFrame({"user": ["u1", "u2", "u5", "new"], "shop": ["3", None, "4", "never seen"]})
    # A dropped user and one that was never seen read the same.
    other = None if reads == "zero" else role_key("user", "unknown")
    shops = [key_of("shop", value) for value in raw["shop"]]
    expected = by_hand(trained, list(zip([*users, other, other], shops, strict=True)))
    assert scorer.score(raw) == pytest.approx(expected, abs=1e-7)
    assert len(set(expected)) == 4


@pytest.fixture(scope="module")
def compact(hashed, tmp_path_factory):
    """A compact bundle without a vocabulary; read only."""
    return hashed(share=0.7, shared=False).export(tmp_path_factory.mktemp("compact") / "bundle")


@pytest.fixture
def copied(compact, tmp_path):
    """A bundle that a test may spoil."""
    return Path(shutil.copytree(compact, tmp_path / "copied"))


def test_a_bundle_without_a_vocabulary_holds_none(compact, hashed, tmp_path):
    files = {path.name for path in compact.iterdir() if path.is_file()}
    assert files == {
        "manifest.json",
        "network.onnx",
        "schema.json",
        "kept_values.parquet",
        "weights.safetensors",
        "golden.parquet",
        "golden_pairs.parquet",
        "encoding.json",
    }
    whole = hashed("vocabulary", share=0.7).export(tmp_path / "whole")
    assert {path.name for path in whole.iterdir() if path.is_file()} == files - {"kept_values.parquet"} | {
        "vocabulary.parquet"
    }


def test_a_value_that_is_not_kept_passes_for_one_no_more_often_than_the_manifest_says(copied):
    manifest = Bundle.open(copied).manifest
    stated = manifest.kept_values
    assert 0 < stated.error_rate <= FILTER_ERROR
    fingerprints = pq.read_table(copied / "kept_values.parquet")["fingerprint"].to_pylist()
    assert len(fingerprints) == stated.values > 50
    assert stated.error_rate == stated.values / 2**stated.bits
    # A fingerprint is the upper bits of a key: by hand, of a million values that no log has ever held.
    keys = value_keys("user", pl.Series([f"stranger {n}" for n in range(1_000_000)]))
    passed = np.isin(keys >> np.uint64(64 - stated.bits), np.array(fingerprints, np.uint64)).sum()
    expected = 1_000_000 * stated.error_rate
    assert abs(passed - expected) < 5 * math.sqrt(expected)


def test_golden_rows_that_score_otherwise_are_refused(copied):
    weights = load_file(copied / "weights.safetensors")
    weights["table.weight"][1:] *= 1.01
    save_file(weights, copied / "weights.safetensors")
    resign(copied, "weights.safetensors")
    with pytest.raises(DataError, match=r'row \d+ of "golden\.parquet": expected the probability'):
        Scorer(copied)


@pytest.mark.parametrize("name", ["kept_values.parquet", "weights.safetensors", "golden.parquet"])
def test_a_changed_file_is_refused_by_name(copied, name):
    data = bytearray((copied / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / name).write_bytes(data)
    with pytest.raises(DataError, match=f'"{name}" is not the file that was exported'):
        Scorer(copied)


def test_kept_values_of_another_bundle_are_refused(copied, hashed, tmp_path):
    other = hashed(share=0.7, seed=1).export(tmp_path / "other")
    shutil.copy(other / "kept_values.parquet", copied / "kept_values.parquet")
    with pytest.raises(DataError, match=r'"kept_values\.parquet" is not the file that was exported'):
        Scorer(copied)
    resign(copied, "kept_values.parquet")
    with pytest.raises(DataError, match=r'"kept_values\.parquet": expected \d+ whole numbers, found \d+'):
        Scorer(copied)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (lambda column: column[::-1], "expected ascending numbers of"),
        (lambda column: np.roll(np.unique(column + 1), 0), "expected the probability"),  # other values
        (lambda column: column - column.max() - 1, "expected ascending numbers of"),
        (lambda column: column << 30, "expected ascending numbers of"),
        (lambda column: column.astype(float), "whole numbers, found"),
    ],
)
def test_kept_values_that_are_none_are_refused(copied, column, message):
    path = copied / "kept_values.parquet"
    found = pq.read_table(path)["fingerprint"].to_numpy()
    pl.DataFrame({"fingerprint": column(found)}).write_parquet(path)
    resign(copied, "kept_values.parquet")
    with pytest.raises(DataError, match=message):
        Scorer(copied)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all", None])
def test_kept_values_that_are_no_parquet_are_refused(copied, content):
    path = copied / "kept_values.parquet"
    if content is None:
        pl.DataFrame({"other": [1]}).write_parquet(path)
    else:
        path.write_bytes(content)
    resign(copied, "kept_values.parquet")
    with pytest.raises(DataError, match=r'"kept_values\.parquet": cannot be read'):
        Scorer(copied)


def stretch(**changes):
    """Changes of the stretch of the field `item`."""

    def change(content):
        own = next(own for own in content["placement"]["stretches"] if own["field"] == "item")
        own.update({key: value(own[key]) if callable(value) else value for key, value in changes.items()})

    return change


def placement(**changes):
    def change(content):
        own = content["placement"]
        own.update({key: value(own[key]) if callable(value) else value for key, value in changes.items()})

    return change


def without(*path):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return change


def renamed(content):
    for own in content["placement"]["stretches"]:
        own["field"] = own["field"].replace("item", "items")


def in_both(composition):
    """The other composition in placement and architecture alike."""

    def change(content):
        content["placement"]["composition"] = content["architecture"]["composition"] = composition

    return change


LIES = {
    "fewer rows": (placement(rows=lambda rows: rows - 1), "not within the table"),
    "more rows": (placement(rows=lambda rows: rows + 1), r'"table\.weight": expected the shape'),
    "a wider row": (placement(width=4), r'"table\.weight": expected the shape'),
    "other lookups": (placement(lookups=3), r"architecture\.lookups: expected 3, found 2"),
    "a second table": (
        placement(second_rows=4),
        r'"table\.second\.weight": expected the shape .*, found None',
    ),
    "another composition": (
        placement(composition="robe"),
        r"architecture\.composition: expected robe, found lookup",
    ),
    "two tables": (placement(composition="multi_hash"), "not within the table"),
    "no composition": (placement(composition="sum"), r"placement\.composition: Input should be 'lookup'"),
    "another composition everywhere": (in_both("robe"), "expected the probability|cannot score these rows"),
    "rows that are no number": (placement(rows="many"), r"placement\.rows: Input should be a valid integer"),
    "rows by halves": (placement(rows=90.5), r"placement\.rows: Input should be a valid integer"),
    "rows without end": (placement(rows=2**70), r"placement\.rows: Input should be less than"),
    "no stretches": (placement(stretches=[]), r"placement\.stretches: List should have at least 1 item"),
    "a stretch outside the table": (stretch(start=10**6), 'the stretch of "item" is not within the table'),
    "a stretch over the end": (stretch(rows=10**6), 'the stretch of "item" is not within the table'),
    "a stretch at the dropped row": (stretch(start=0), 'the stretch of "item" is not within the table'),
    "a stretch without rows": (stretch(rows=0), 'the stretch of "item" is not within the table'),
    "a stretch elsewhere": (stretch(start=lambda start: start + 1), "expected the probability|not within"),
    "a shorter stretch": (stretch(rows=lambda rows: rows - 1), "expected the probability"),
    "a stretch of other lookups": (stretch(lookups=3), r"architecture\.odd_lookups: expected"),
    "a stretch of no lookups": (stretch(lookups=0), 'the stretch of "item" is not within the table'),
    "a stretch of countless lookups": (stretch(lookups=10**9), "is not within the table"),
    "an exact stretch": (stretch(exact=True), '"item" cannot be free of collisions without a vocabulary'),
    "no field": (renamed, 'it has no stretch for "item"'),
    "a field less": (without("placement", "stretches", 0), "it has no stretch for"),
    "a key less": (without("placement", "shared"), r"placement\.shared: Field required"),
    "an unknown key": (placement(colour="red"), r"placement\.colour: Extra inputs are not permitted"),
    "no placement": (without("placement"), "hashed values without placement or kept_values"),
    "no kept values": (without("kept_values"), "hashed values without placement or kept_values"),
    "another encoding": (lambda content: content.update(encoding="vocabulary"), "does not list"),
    "another architecture": (
        lambda content: content["architecture"].update(composition="multi_hash", second_rows=5),
        r"architecture\.composition: expected lookup, found multi_hash",
    ),
    "rows of another architecture": (
        lambda content: content["architecture"].update(rows=5),
        r"architecture\.rows: expected \d+, found 5",
    ),
    "more bits": (lambda content: content["kept_values"].update(bits=62), "expected error_rate"),
    "fewer bits": (
        lambda content: content["kept_values"].update(bits=8),
        "expected ascending numbers of 8 bits",
    ),
    "a smaller error": (
        lambda content: content["kept_values"].update(error_rate=1e-9),
        "expected error_rate",
    ),
    "fields that keep all": (
        lambda content: content["kept_values"].update(
            whole=[own["field"] for own in content["placement"]["stretches"]]
        ),
        "expected the probability",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_manifest_that_lies_about_places_is_refused_in_one_line(copied, lie):
    change, message = LIES[lie]
    rewrite(copied, change)
    with pytest.raises(DataError, match=message) as error:
        Scorer(copied)
    assert str(error.value).startswith(f'bundle "{copied}": ')
    assert str(error.value).endswith("; export or copy the bundle again")
    assert "\n" not in str(error.value)


def test_exact_fields_with_too_few_rows_are_refused(hashed, tmp_path):
    trained = hashed("vocabulary", "fm", collision_free=6, rows=150)
    bundle = trained.export(tmp_path / "bundle")
    exact = next(own.field for own in trained.layout.placement.stretches if own.exact)

    def change(content):
        own = next(own for own in content["placement"]["stretches"] if own["field"] == exact)
        own["rows"] -= 1

    rewrite(bundle, change)
    with pytest.raises(DataError, match=f'the stretch of "{exact}" has too few rows for its features'):
        Scorer(bundle)


def test_a_vocabulary_with_a_field_of_no_place_is_refused(hashed, tmp_path):
    bundle = hashed("vocabulary", "fm", 0.7).export(tmp_path / "bundle")
    path = bundle / "vocabulary.parquet"
    frame = pl.read_parquet(path)
    last = pl.col("id") == frame.height
    frame.with_columns(field=pl.when(last).then(pl.lit("brandy")).otherwise("field")).write_parquet(path)
    resign(bundle, "vocabulary.parquet")
    with pytest.raises(DataError, match='there is no field "brandy"'):
        Scorer(bundle)


def test_a_plain_table_that_is_said_to_be_hashed_is_refused(bundle, tmp_path):
    copied = Path(shutil.copytree(bundle, tmp_path / "copied"))
    rewrite(copied, lambda content: content["architecture"].update(composition="lookup"))
    with pytest.raises(DataError, match="there is no placement"):
        Scorer(copied)


@EACH_ENCODING
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("item", "items", 'field "item": file "log.csv" has no such column; the nearest name is "items"'),
        ("user", "USER", 'field "user": file "log.csv" has no such column; the nearest name is "USER"'),
        ("seconds", "second", 'field "hour" needs the column "seconds": .*; the nearest name is "second"'),
        ("tags", "tagz", 'field "tags": file "log.csv" has no such column; the nearest name is "tagz"'),
        ("picture", "pict", 'field "picture": file "log.csv" has no such column; the nearest name is "pict"'),
    ],
)
def test_a_field_that_was_renamed_is_named_with_the_nearest_column(
    both, log, tmp_path, encoding, old, new, message
):
    (tmp_path / "log.csv").write_text(log[1].rename({old: new}).write_csv())
    with pytest.raises(DataError, match=message):
        score_file(both[encoding], tmp_path / "log.csv", tmp_path / "scores.parquet")
    assert not (tmp_path / "scores.parquet").exists()


@pytest.fixture(scope="module")
def both(hashed, tmp_path_factory):
    """A keep-all bundle in each encoding."""
    folder = tmp_path_factory.mktemp("both")
    return {name: hashed(name, "fm").export(folder / name) for name in ("vocabulary", "hashed")}


@EACH_ENCODING
def test_opening_a_bundle_and_placing_its_rows_needs_no_torch(both, encoding):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import ctr.dataset.encoding, ctr.serving.bundle, ctr.serving.scorer\n"
        "from ctr.serving.bundle import Bundle\n"
        f"opened = Bundle.open({str(both[encoding])!r})\n"
        f"vocabulary = None if {encoding == 'hashed'} else opened.vocabulary()\n"
        "assert opened.reader(vocabulary, opened.weights()) is not None\n"
        "assert not [name for name in sys.modules if name.startswith('torch.')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@EACH_ENCODING
def test_the_file_scores_as_the_frame_and_an_empty_frame_as_nothing(both, log, tmp_path, encoding):
    scorer = Scorer(both[encoding], batch_size=77)
    score_file(both[encoding], log[0] / "log.csv", tmp_path / "scores.parquet")
    found = pl.read_parquet(tmp_path / "scores.parquet")["probability"].to_numpy()
    np.testing.assert_allclose(found, scorer.score(log[1]), rtol=0, atol=1e-6)
    assert scorer.score(log[1].head(0)).shape == (0,)


def test_the_same_network_gives_the_same_bytes(compact, hashed, tmp_path):
    again = hashed(share=0.7, shared=False).export(tmp_path / "again")
    for path in compact.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (again / path.relative_to(compact)).read_bytes(), path.name
    content = json.loads((compact / "manifest.json").read_text())
    assert content["encoding"] == "hashed"


def test_fewer_values_make_a_smaller_bundle(hashed, tmp_path):
    sizes = [
        Bundle.open(hashed(share=share, rows=2000).export(tmp_path / str(share))).bytes
        for share in (None, 0.5, 0.2)
    ]
    assert sizes[0] > 1.2 * sizes[1] > 1.4 * sizes[2]


def test_kept_values_that_are_long_text_are_refused_before_they_are_read(hashed, tmp_path):
    bundle = hashed(share=0.5).export(tmp_path / "bundle")
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(300, np.int32)), ["a" * (15 << 20)])
    pq.write_table(
        pa.table({"fingerprint": text}), bundle / "kept_values.parquet", dictionary_pagesize_limit=1 << 30
    )
    resign(bundle, "kept_values.parquet")
    with pytest.raises(
        DataError, match=r'"kept_values\.parquet": cannot be read: it holds long text, expected num'
    ):
        Scorer(bundle)
