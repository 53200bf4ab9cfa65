"""Lies in the small files of a bundle: a key that is there twice, sizes without end, names that a terminal obeys."""

import hashlib
import json
import re
import shutil
import subprocess
import sys

import polars as pl
import pytest

from ctr.errors import DataError, printable
from ctr.serving.bundle import Bundle
from ctr.serving.scorer import Scorer
from tests.serving.attacks import fresh, opened, refused, rewritten
from tests.serving.mutations import sign
from tests.serving.write_released import RELEASED


def twice(text, key):
    """The JSON text with a key of its outermost object there once more, at the beginning."""
    return re.sub(r"^{", f'{{\n "{key}": null,', text)


def test_a_key_that_is_there_twice_is_refused_in_every_file(tmp_path):
    """Readers differ in which of the two they take: ours would not be what other languages read."""
    bundle = fresh(tmp_path)
    for name, key in (("encoding.json", "fields"), ("schema.json", "joins")):
        path = bundle / name
        before = path.read_text()
        path.write_text(twice(before, key))
        sign(bundle)
        with pytest.raises(DataError, match=f'"{name}" is no .*: the key "{key}" is there twice'):
            Bundle.open(bundle).encoding()
        path.write_text(before)
    content = json.loads((bundle / "manifest.json").read_text())
    del content["checksum"]
    body = twice(json.dumps(content, indent=1), "files")[:-2]
    digest = hashlib.sha256(f"{body}\n}}\n".encode()).hexdigest()
    (bundle / "manifest.json").write_text(f'{body},\n "checksum": "{digest}"\n}}\n')
    with pytest.raises(DataError, match=r'"manifest\.json" is no valid JSON: the key "files" is there twice'):
        Bundle.open(bundle)


def test_values_that_mean_missing_are_few(tmp_path):
    bundle = fresh(tmp_path)
    rewritten(bundle, "schema.json", lambda content: content.update(missing_values=["x"] * 500_000))
    assert "missing_values: List should have at most 1000 items" in refused(bundle)


def test_a_personal_field_that_the_manifest_does_not_name_is_refused(tmp_path):
    bundle = fresh(tmp_path)
    rewritten(bundle, "schema.json", lambda content: content["fields"][0].update(pii=True))
    assert 'field "user" is personal, but not said to be' in refused(bundle)


def test_more_golden_rows_and_pairs_than_prove_anything_are_not_scored(tmp_path):
    bundle = fresh(tmp_path)
    golden = pl.read_parquet(bundle / "golden.parquet")
    pl.concat([golden] * 60).write_parquet(bundle / "golden.parquet")
    assert '"golden.parquet" cannot be read: it says that it holds 12000 rows' in refused(bundle)
    golden.write_parquet(bundle / "golden.parquet")
    pairs = pl.read_parquet(bundle / "golden_pairs.parquet")
    pl.concat([pairs] * 3).write_parquet(bundle / "golden_pairs.parquet")
    sign(bundle)
    with pytest.raises(DataError, match=r'"golden_pairs\.parquet" cannot be read: it says that it holds'):
        Bundle.open(bundle).pairs()


def test_a_refusal_is_short_and_has_nothing_that_a_terminal_obeys(tmp_path):
    bundle = fresh(tmp_path)
    change = {"serve_value": "\x1b[31m\n" + "x" * 4_000_000}
    rewritten(bundle, "schema.json", lambda content: content["fields"][17].update(change))
    told = opened(bundle).told
    assert 'field "scroll": serve_value = "\\x1b[31m' in told
    assert len(told) < 1000
    assert told == printable(told)


def test_the_command_line_escapes_what_a_terminal_would_obey(tmp_path):
    bundle = fresh(tmp_path)
    name = "us\x1b[2Jer"
    for each in ("schema.json", "manifest.json"):
        text = (bundle / each).read_text().replace('"user"', json.dumps(name))
        (bundle / each).write_text(text)
    for each in ("golden.parquet", "vocabulary.parquet"):
        frame = pl.read_parquet(bundle / each).rename({"user": name}, strict=False)
        frame.with_columns(pl.col("^field$").replace("user", name)).write_parquet(bundle / each)
    sign(bundle)
    Scorer(bundle)
    command = [sys.executable, "-m", "ctr.cli", "score", bundle, RELEASED / "format_3" / "rows.parquet"]
    run = subprocess.run(
        [*command, "--out", tmp_path / "x.parquet"], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 3, run.stderr
    assert 'error: field "us\\x1b[2Jer": file' in run.stderr
    assert "\x1b" not in run.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": [1] * 500_000}, "expected at most 1000 hidden layers and 15 vectors, found more"),
        ({"vectors": [[0, 3]] * 100}, "expected at most 1000 hidden layers and 15 vectors, found more"),
        ({"hidden": [30_000, 30_000]}, r'"backbone\.mlp\.\d\.(weight|bias)": expected the shape'),
        ({"dim": 10**9}, "expected the shape"),
        ({"fields": 10**9}, "fields: expected 19 as there are, found 1000000000"),
        ({"backbone": "dcnv2", "extra": [["layers", 100_000]]}, "expected the shape"),
        ({"backbone": "pin", "extra": [["subnet_units", 10**9]]}, "expected the shape"),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_a_network_that_pytorch_would_build_is_held_against_its_weights_first(
    tmp_path, version, change, message
):
    bundle = shutil.copytree(RELEASED / f"format_{version}" / "bundle", tmp_path / "bundle")
    rewritten(bundle, "manifest.json", lambda content: content["architecture"].update(change))
    assert re.search(message, refused(bundle))
