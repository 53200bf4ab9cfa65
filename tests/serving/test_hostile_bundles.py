"""A bundle that is not ours can at worst be refused: in one line, soon, and in little memory. Else it scores."""

import json
import random
import resource
import shutil
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctr.dataset.ingest import ingest
from ctr.dataset.schema import Schema
from ctr.dataset.store import Dataset
from ctr.errors import ConfigError, CtrError, DataError
from ctr.serving.limits import check_parquet, refusing
from ctr.serving.scorer import Scorer
from ctr.settings import check
from tests.serving.conftest import Trained
from tests.serving.mutations import mutate, sign

_SECONDS = 30  # for one bundle, on a machine that has other things to do
_MEGABYTES = 700  # that the process may grow by over all mutations
ROWS = 12
SIDE = "side_tables/00000.parquet"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A small bundle with a field of each kind, an expression and a side table; rows, and their probabilities."""
    work = tmp_path_factory.mktemp("tiny")
    draw = random.Random(3)
    rows = pl.DataFrame(
        {
            "click": [str(n % 2) for n in range(80)],
            "user": [f"u{n % 7}" for n in range(80)],
            "price": [str(draw.randrange(50)) for _ in range(80)],
            "stock": [str(draw.randrange(50)) for _ in range(80)],
            "tags": ["a|b" if n % 3 else "c" for n in range(80)],
            "place": [f"{draw.random():.2f} 1.5" for _ in range(80)],
            "seconds": [str(n * 3600) for n in range(80)],
        }
    )
    rows.write_csv(work / "log.csv")
    (work / "users.csv").write_text("user,city\n" + "".join(f"u{n},c{n % 3}\n" for n in range(7)))
    keys = {
        "name": "tiny", "label": "click", "split": {"by": "random", "valid": 0.2, "test": 0.2},
        "derive": {"hour": "seconds / 3600 % 24"},
        "fields": [
            {"name": "user"},
            {"name": "price", "kind": "numeric", "transform": "quantile", "bins": 4},
            {"name": "stock", "kind": "numeric", "transform": "minmax"},
            {"name": "tags", "kind": "list", "separator": "|"},
            {"name": "place", "kind": "vector", "size": 2, "separator": " "},
            {"name": "hour"},
            {"name": "city"},
        ],
        "joins": [{"input": str(work / "users.csv"), "on": "user"}],
    }  # fmt: skip
    dataset = Dataset(ingest(check(keys, Schema, "schema"), work / "log.csv", work / "datasets"))
    bundle = Trained(dataset, work / "log.csv", hidden=(4,), dim=2).export(work / "bundle")
    rows = rows.head(ROWS)
    return bundle, rows, Scorer(bundle).score(rows)


def outcome(bundle, rows):
    """Probabilities, or None where the bundle was refused; anything else is a fault of ours."""
    try:
        found = Scorer(bundle).score(rows)
    except CtrError as error:
        told = str(error)
        found = None
    if found is None:
        assert "\n" not in told
        assert len(told) < 3000
        return None
    assert found.shape == (ROWS,)
    assert np.all(np.isnan(found) | ((found >= 0.0) & (found <= 1.0)))
    return found


def survives(tiny, folder, numbers):
    bundle, rows, expected = tiny
    refused = 0
    for number in numbers:
        draw = random.Random(number)
        copied = shutil.copytree(bundle, folder / str(number))
        done, signed = mutate(copied, draw)
        started = time.perf_counter()
        try:
            found = outcome(copied, rows)
        except BaseException as error:
            raise AssertionError(f"mutation {number}: {done}, signed {signed}: {error!r}") from error
        assert time.perf_counter() - started < _SECONDS, f"mutation {number}: {done}"
        if not signed and found is not None:
            assert np.array_equal(found, expected), f"mutation {number}: {done}"
        refused += found is None
        shutil.rmtree(copied)
    return refused


def grown():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("part", range(5))
def test_a_mutated_bundle_is_refused_or_scores(tiny, tmp_path, part):
    before = grown()
    refused = survives(tiny, tmp_path, range(part * 100, part * 100 + 100))
    assert 40 < refused < 100
    assert grown() - before < _MEGABYTES


@pytest.mark.slow
@pytest.mark.parametrize("part", range(20))
def test_ten_thousand_mutated_bundles_are_refused_or_score(tiny, tmp_path, part):
    before = grown()
    survives(tiny, tmp_path, range(10_000 + part * 500, 10_500 + part * 500))
    assert grown() - before < _MEGABYTES


def bombed(folder, name, table, **keys):
    """The bundle with another parquet file, all digests computed anew."""
    pq.write_table(table, folder / name, **keys)
    sign(folder)
    return folder


def million_rows(number):
    """A few kilobytes that unpack to as many rows."""
    return pa.table({"field": pa.DictionaryArray.from_arrays(pa.array(np.zeros(number, np.int32)), ["user"])})


def nested(depth):
    kind = pa.int32()
    for _ in range(depth):
        kind = pa.struct([("a", kind)])
    return pa.schema([("x", kind)]).empty_table()


BOMBS = {
    "rows": (lambda: million_rows(3_000_000), {}, "it says that it holds 3000000 rows"),
    "items": (
        lambda: pa.table({"x": pa.array([[0] * 1_000_000])}),
        {"compression": "zstd"},
        r"it says that it (holds|unpacks)",
    ),
    "bytes": (
        lambda: pa.table({"x": ["a" * 40_000_000]}),
        {"compression": "zstd", "use_dictionary": False},
        "it says that it unpacks to",
    ),
    "columns": (
        lambda: pa.table({f"c{number}": pa.array([], pa.int8()) for number in range(10_001)}),
        {},
        "expected at most 10000 columns, found 10001",
    ),
    "depth": (lambda: nested(200), {"store_schema": False}, "nested at most 8 deep"),
}


@pytest.mark.parametrize(
    ("bomb", "name"),
    [
        *((bomb, "golden.parquet") for bomb in BOMBS),
        ("rows", "vocabulary.parquet"),
        ("items", SIDE),
        ("depth", SIDE),
    ],
)
def test_what_would_unpack_to_far_more_than_its_file_is_refused_before_it_is_read(tiny, tmp_path, bomb, name):
    table, keys, message = BOMBS[bomb]
    copied = shutil.copytree(tiny[0], tmp_path / "bundle")
    bombed(copied, name, table(), **keys)
    before, started = grown(), time.perf_counter()
    with pytest.raises(DataError, match=message) as caught:
        Scorer(copied)
    assert name in str(caught.value)
    assert grown() - before < 200
    assert time.perf_counter() - started < _SECONDS


LIMITED = """
import resource, sys
from ctr.errors import CtrError
from ctr.serving.scorer import Scorer
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
try:
    Scorer(sys.argv[1])
except CtrError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_a_process_with_little_memory_lives_to_refuse_bombs(tiny, tmp_path):
    copied = shutil.copytree(tiny[0], tmp_path / "bundle")
    bombed(copied, "golden.parquet", million_rows(5_000_000))
    run = subprocess.run([sys.executable, "-c", LIMITED, copied], capture_output=True, text=True, timeout=120)
    assert (run.returncode, run.stdout.count("\n")) == (3, 1), run.stderr
    assert "it says that it holds 5000000 rows" in run.stdout


@pytest.mark.parametrize("claimed", [2**40, 2**63, 1620])
def test_a_tensor_header_cannot_claim_more_than_the_file(tiny, tmp_path, claimed):
    copied = shutil.copytree(tiny[0], tmp_path / "bundle")
    path = copied / "weights.safetensors"
    data = path.read_bytes()
    path.write_bytes(max(claimed, len(data)).to_bytes(8, "little") + data[8:])
    sign(copied)
    with pytest.raises(DataError, match=r'"weights\.safetensors" cannot be read: its header claims'):
        Scorer(copied)


def changed(folder, change):
    frame = pl.read_parquet(folder / "vocabulary.parquet")
    change(frame).write_parquet(folder / "vocabulary.parquet")
    sign(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.with_columns(value=pl.when(pl.col("value") == "u1").then(pl.lit("u2"))
                                          .otherwise("value")), 'a value of "user" is there twice'),
        (lambda frame: frame.with_columns(role=pl.lit("unknown")), "two features of one role"),
        (lambda frame: frame.with_columns(role=pl.lit("king")), "expected the roles value, unknown and missing"),
        (lambda frame: frame.with_columns(field=pl.lit("nobody")), 'there is no field "nobody"'),
    ],
)  # fmt: skip
def test_a_vocabulary_that_contradicts_itself_is_refused(tiny, tmp_path, change, message):
    copied = shutil.copytree(tiny[0], tmp_path / "bundle")
    changed(copied, change)
    with pytest.raises(DataError, match=message):
        Scorer(copied)


def test_names_without_end_are_refused_in_a_short_message(tiny, tmp_path):
    copied = shutil.copytree(tiny[0], tmp_path / "bundle")
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["fields"][0]["columns"] = ["a" * 100_000]
    (copied / "manifest.json").write_text(json.dumps(manifest))
    sign(copied)
    with pytest.raises(DataError, match=r"fields\.0\.columns\.0: .* at most 1000 characters") as caught:
        Scorer(copied)
    assert len(str(caught.value)) < 500


def rewritten(tiny, folder, name, change):
    """The bundle with other text in a file, or another frame, all digests computed anew."""
    copied = shutil.copytree(tiny[0], folder / "bundle")
    path = copied / name
    if path.suffix == ".parquet":
        change(pl.read_parquet(path)).write_parquet(path)
    else:
        content = json.loads(path.read_text())
        path.write_text(json.dumps(change(content) or content, indent=1, ensure_ascii=False))
    sign(copied)
    return copied


def widened(content):
    return {**content, "fields": [{"name": f"f{number}"} for number in range(100_000)]}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("schema.json", widened, "expected 7 fields as in .*, found 100000"),
        ("schema.json", lambda content: [content], r'"schema\.json" is no schema'),
        ("schema.json", lambda content: {"fields": 7}, r'"schema\.json" is no schema'),
    ],
)
def test_a_schema_of_other_fields_is_told_at_once(tiny, tmp_path, name, change, message):
    copied = rewritten(tiny, tmp_path, name, change)
    before, started = grown(), time.perf_counter()
    with pytest.raises(DataError, match=message) as caught:
        Scorer(copied)
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - started < 5
    assert grown() - before < 200


@pytest.mark.parametrize("name", ["manifest.json", "schema.json"])
def test_texts_without_end_are_not_read(tiny, tmp_path, name):
    copied = shutil.copytree(tiny[0], tmp_path / "bundle")
    with (copied / name).open("ab") as stream:
        stream.write(b" " * (8 << 20))
    sign(copied)
    if name == "manifest.json":  # signing has made it as short as it was
        with (copied / name).open("ab") as stream:
            stream.write(b" " * (8 << 20))
    with pytest.raises(DataError, match=f'"{name}" is larger than 8 MB'):
        Scorer(copied)


def test_more_fields_than_a_bundle_has_are_refused_before_they_are_looked_at(tiny, tmp_path):
    def more(content):
        content["fields"] = [{} for _ in range(10_001)]

    with pytest.raises(DataError, match="fields: List should have at most 10000 items"):
        Scorer(rewritten(tiny, tmp_path, "manifest.json", more))


def test_a_manifest_whose_end_was_altered_is_found_out(tiny, tmp_path):
    copied = shutil.copytree(tiny[0], tmp_path / "bundle")
    path = copied / "manifest.json"
    text = path.read_text()
    for altered in (
        text + " ",
        text[:-1],
        text[:-3] + " \n}\n",
        text.replace('"name": "tiny"', '"name": "tine"'),
        text[:-70] + ("1" if text[-70] == "0" else "0") + text[-69:],
        text.replace('"checksum"', '"checksam"'),
    ):
        assert altered != text
        path.write_text(altered)
        with pytest.raises(DataError, match=r"manifest\.json"):
            Scorer(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda frame: frame.clear(), "expected at least one row with a probability, found none"),
        (
            lambda frame: frame.with_columns(pl.lit(None, pl.Float64).alias("@probability")),
            "expected at least one row with a probability, found none",
        ),
        (
            lambda frame: frame.with_columns(pl.lit(-0.5).alias("@probability")),
            "expected probabilities from 0 to 1, found -0.5",
        ),
    ],
)
def test_golden_rows_that_prove_nothing_are_refused(tiny, tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        Scorer(rewritten(tiny, tmp_path, "golden.parquet", change))


def test_whatever_goes_wrong_is_said_in_one_line_that_names_the_bundle(tmp_path):
    for error in (
        DataError("a table\n\n  of rows"),
        ConfigError("no key"),
        DataError(f'bundle "{tmp_path}": x\ny'),
    ):
        with pytest.raises(type(error)) as caught, refusing(tmp_path):
            raise error
        told = str(caught.value)
        assert told.startswith(f'bundle "{tmp_path}": ')
        assert told.count("bundle") == 1
        assert told.endswith(("a table of rows", "no key", "x y"))


def test_a_side_table_elsewhere_that_is_none_is_told_in_one_line(tiny, tmp_path):
    copied = shutil.copytree(tiny[0], tmp_path / "bundle")
    (tmp_path / "other.csv").write_text("user,city\nu1,a\nu1,b\n")
    schema = json.loads((copied / "schema.json").read_text())
    schema["joins"][0] |= {"at_scoring": "path", "input": str(tmp_path / "other.csv"), "format": "csv"}
    (copied / "schema.json").write_text(json.dumps(schema))
    manifest = json.loads((copied / "manifest.json").read_text())
    del manifest["files"][SIDE]
    (copied / "manifest.json").write_text(json.dumps(manifest))
    sign(copied)
    with pytest.raises(CtrError) as caught:
        Scorer(copied, allow_paths=True)
    assert str(caught.value).startswith(f'bundle "{copied}": ')
    assert "\n" not in str(caught.value)


def test_a_manifest_that_is_a_link_is_refused(tiny, tmp_path):
    copied = shutil.copytree(tiny[0], tmp_path / "bundle")
    (copied / "manifest.json").rename(tmp_path / "elsewhere.json")
    (copied / "manifest.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(DataError, match=r'"manifest\.json" is a link'):
        Scorer(copied)


def test_files_that_we_write_are_within_the_limits(tmp_path):
    ids = pl.DataFrame(
        {"x": pl.int_range(1, 1_000_001, eager=True), "c": pl.repeat("a", 1_000_000, eager=True)}
    )
    ids.write_parquet(tmp_path / "ids.parquet", compression="zstd")
    check_parquet(tmp_path / "ids.parquet")
    for cut in (1, 8, 100):
        (tmp_path / "cut.parquet").write_bytes((tmp_path / "ids.parquet").read_bytes()[:-cut])
        with pytest.raises(ValueError, match="it is no parquet file, or was cut short"):
            check_parquet(tmp_path / "cut.parquet")
