import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file, save_file

from ctr.errors import ConfigError, DataError
from ctr.serving.bundle import Bundle
from ctr.serving.manifest import render_manifest
from ctr.serving.scorer import Scorer

FILES = [
    "encoding.json",
    "golden_pairs.parquet",
    "schema.json",
    "vocabulary.parquet",
    "network.onnx",
    "weights.safetensors",
    "golden.parquet",
    "side_tables/00000.parquet",
]


def rewrite(bundle, change):
    """Change the manifest's content and give it a valid checksum again."""
    path = bundle / "manifest.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(render_manifest(content), encoding="utf-8")


def resign(bundle, name):
    """State the present bytes of a file in the manifest."""
    data = (bundle / name).read_bytes()
    entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    rewrite(bundle, lambda content: content["files"].update({name: entry}))


def test_importing_and_opening_a_bundle_needs_no_torch(bundle):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import ctr.dataset.encoding, ctr.serving.bundle, ctr.serving.scorer\n"
        "from ctr.serving.bundle import Bundle\n"
        f"opened = Bundle.open({str(bundle)!r})\n"
        "opened.vocabulary(), opened.weights(), opened.side_tables(), opened.golden()\n"
        "assert not [name for name in sys.modules if name.startswith('torch.')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_bundle_holds_what_scoring_needs_and_nothing_more(bundle):
    found = Bundle.open(bundle)
    listed = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    assert listed == {"manifest.json", *FILES, "side_tables/00001.parquet"}
    assert len(found.schema.joins) == 2  # the users' cities feed no field
    assert "unused" not in found.schema.derive
    assert "colour" not in found.side_tables()[0].columns
    assert "noise" not in found.columns
    assert "rating" not in found.columns
    kept = found.manifest.features["kept"]
    values = found.vocabulary().filter(pl.col("role") == "value")
    assert 0 < kept == values.height < found.manifest.features["total"]


@pytest.mark.parametrize("name", ["manifest.json", *FILES])
@pytest.mark.parametrize("place", [0.0, 0.4, 1.0])
def test_one_changed_byte_is_refused_by_the_name_of_its_file(copied, name, place):
    path = copied / name
    data = bytearray(path.read_bytes())
    data[round(place * (len(data) - 1))] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=f'"{name}"'):
        Bundle.open(copied)


@pytest.mark.parametrize(("old", "new"), [("0.75", "0.76"), ('"seed": 0', '"seed":  0'), ('"log"', '"Log"')])
def test_a_manifest_that_still_reads_well_but_was_altered_is_refused(copied, old, new):
    path = copied / "manifest.json"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match="its checksum is not the one recorded"):
        Bundle.open(copied)


@pytest.mark.parametrize("name", ["manifest.json", *FILES])
def test_a_missing_file_is_refused_by_name(copied, name):
    (copied / name).unlink()
    with pytest.raises(DataError, match=f'"{name}" is missing'):
        Bundle.open(copied)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_is_refused(copied, name):
    path = copied / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=f'"{name}"'):
        Bundle.open(copied)


def test_a_newer_format_asks_for_an_upgrade(copied):
    rewrite(copied, lambda content: content.update(format_version=99, news={"of": "tomorrow"}))
    with pytest.raises(ConfigError, match=r"format version 99.*upgrade ctr"):
        Bundle.open(copied)


@pytest.mark.parametrize(
    "name", ["../secret.parquet", "/etc/passwd", "side_tables/../../x.parquet", "model.pkl"]
)
def test_a_manifest_cannot_name_files_elsewhere(copied, name):
    def change(content):
        content["files"][name] = content["files"]["golden.parquet"]

    rewrite(copied, change)
    with pytest.raises(DataError, match=f'lists "{name}", which is no file of a bundle'):
        Bundle.open(copied)


@pytest.mark.parametrize("name", ["weights.safetensors", "side_tables"])
def test_a_link_out_of_the_folder_is_refused(copied, tmp_path, name):
    (copied / name).rename(tmp_path / "elsewhere")
    (copied / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is a link"):
        Bundle.open(copied)


def test_a_bundle_behind_a_link_opens(bundle, tmp_path):
    (tmp_path / "current").symlink_to(bundle)
    assert Bundle.open(tmp_path / "current").manifest.name == "log"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", '{"format_version": "1"}', "[" * 100_000, '{"format_version": 1}']
)
def test_a_manifest_that_is_none_is_refused(copied, text):
    (copied / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r'"manifest\.json"'):
        Bundle.open(copied)


def test_wrong_paths_say_what_is_there(bundle, tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        Bundle.open(tmp_path / "none")
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="found a file"):
        Bundle.open(tmp_path / "file")
    with pytest.raises(ConfigError, match=r'expected a file "manifest\.json"'):
        Bundle.open(tmp_path)
    shutil.copytree(bundle, tmp_path / "run" / "bundle")
    with pytest.raises(ConfigError, match=r"this run's bundle is .*run/bundle"):
        Bundle.open(tmp_path / "run")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(copied, value):
    weights = load_file(copied / "weights.safetensors")
    weights["bias"] = np.array([value], np.float32)
    save_file(weights, copied / "weights.safetensors")
    resign(copied, "weights.safetensors")
    with pytest.raises(DataError, match='"bias" holds NaN or infinity'):
        Scorer(copied)


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.update({"table.weight": weights["table.weight"][:, 1:].copy()}),
        lambda weights: weights.update({"bias": np.zeros(2, np.float32)}),
        lambda weights: weights.update(extra=np.zeros(2, np.float32)),
        lambda weights: weights.pop("bias"),
        lambda weights: weights.pop("table.weight"),
        lambda weights: weights["table.weight"].__setitem__(0, 1.0),
    ],
)
def test_weights_of_another_network_are_refused(copied, change):
    weights = load_file(copied / "weights.safetensors")
    change(weights)
    save_file(weights, copied / "weights.safetensors")
    resign(copied, "weights.safetensors")
    with pytest.raises(DataError, match="architecture and weights do not fit"):
        Scorer(copied)


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 10**12},
        {"dim": -1},
        {"color": "red"},
        {"extra": [["layers", "many"]]},
        {"pairs": {"memorized": [[0, 1]]}},
        {"composition": "robe"},
    ],
)
def test_an_architecture_that_is_none_is_refused(copied, change):
    rewrite(copied, lambda content: content["architecture"].update(change))
    with pytest.raises(DataError, match=r"manifest\.json|each row of the table"):
        Scorer(copied)


@pytest.mark.parametrize("change", [{"backbone": "gpt"}, {"fields": 3}, {"hidden": [10**9, 10**9]}])
def test_what_is_only_said_of_the_network_changes_no_score(copied, bundle, log, change):
    expected = Scorer(bundle).score(log[1])
    rewrite(copied, lambda content: content["architecture"].update(change))
    np.testing.assert_array_equal(Scorer(copied).score(log[1]), expected)


@pytest.mark.parametrize("ids", [[1, 1], [0, 1], [2, 3], [1, None]])
def test_a_vocabulary_must_give_each_row_of_the_table_to_one_feature(copied, ids):
    frame = pl.read_parquet(copied / "vocabulary.parquet").head(2)
    frame = frame.with_columns(pl.Series("id", ids, dtype=pl.Int32))
    frame.write_parquet(copied / "vocabulary.parquet")
    resign(copied, "vocabulary.parquet")
    rewrite(copied, lambda content: content["architecture"].update(rows=3))
    with pytest.raises(DataError, match="expected each row of the table once"):
        Bundle.open(copied).vocabulary()


def test_golden_rows_that_score_otherwise_are_refused(copied):
    weights = load_file(copied / "weights.safetensors")
    weights["bias"] += 0.01
    save_file(weights, copied / "weights.safetensors")
    resign(copied, "weights.safetensors")
    with pytest.raises(DataError, match=r'row \d+ of "golden\.parquet": expected the probability'):
        Scorer(copied)
