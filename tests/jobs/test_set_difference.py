"""Two feature sets beside each other."""

import json

import polars as pl
import pytest
from typer.testing import CliRunner

from ctr.cli import app
from ctr.dataset.feature_set import FeatureSet
from ctr.errors import ConfigError, DataError
from ctr.evaluation import auc_difference
from ctr.jobs.set_difference import difference, facts
from ctr.serving.manifest import MANIFEST, render_manifest
from tests.serving.write_released import RELEASED

COUNTS = {("user", "a"): 60, ("user", "b"): 30, ("user", None): 10, ("tag", "x"): 90, ("tag", "y"): 10}


def write_set(folder, kept, pairs=None):
    names = list(COUNTS)
    features = pl.DataFrame(
        {
            "field": [field for field, _ in names],
            "role": ["value" if value else "missing" for _, value in names],
            "value": [value for _, value in names],
            "id": range(len(names)),
            "count": list(COUNTS.values()),
            "gate": [1.0] * len(names),
            "kept": [name in kept for name in names],
        },
        schema_overrides={"value": pl.String},
    )
    interactions = None
    if pairs is not None:
        columns = {"field_a": ["tag"], "field_b": ["user"], "method": [pairs]}
        interactions = pl.DataFrame(columns)
    FeatureSet(features, {"dataset": "d"}, interactions).save(folder)
    return folder


def write_run(folder, kept, scores, labels=(0, 1, 0, 1, 1, 0), table_bytes=100):
    write_set(folder / "feature_set", kept)
    (folder / "scores").mkdir()
    rows = {"row": range(len(labels)), "label": labels, "baseline": scores, "selected": scores}
    pl.DataFrame(rows).write_parquet(folder / "scores" / "test.parquet")
    report = {"selected": {"table_bytes": table_bytes}, "bundle": {"bytes": 10 * table_bytes}}
    (folder / "report.json").write_text(json.dumps(report))
    return folder


BEFORE = {("user", "a"), ("user", "b"), ("tag", "x"), ("tag", "y")}
AFTER = {("user", "a"), ("user", None)}


def test_values_and_fields_that_come_and_go_are_told_with_whom_that_touches(tmp_path):
    found = difference(write_set(tmp_path / "one", BEFORE), write_set(tmp_path / "two", AFTER))
    assert found.added.select("field", "role").rows() == [("user", "missing")]
    assert found.dropped.select("field", "value").rows() == [("user", "b"), ("tag", "x"), ("tag", "y")]
    assert found.fields.rows() == [("tag", 0, 2, 1.0), ("user", 1, 1, 0.4)]
    assert (found.fields_added, found.fields_dropped) == ((), ("tag",))
    assert found.touched == (1.0, 1.0)
    assert found.auc is None
    assert facts(found)["features"] == "4 -> 2: 1 added, 3 dropped"


def test_a_set_differs_from_itself_in_nothing(tmp_path):
    folder = write_set(tmp_path / "one", BEFORE)
    found = difference(folder, folder)
    assert not found.added.height
    assert not found.dropped.height
    assert not found.fields.height
    assert found.touched is None


def test_pairs_that_are_modelled_in_another_way_are_told(tmp_path):
    found = difference(
        write_set(tmp_path / "one", BEFORE, "memorize"), write_set(tmp_path / "two", BEFORE, "naive")
    )
    assert found.pairs == (("tag", "user", "memorize", "naive"),)


def test_of_runs_bytes_and_auc_are_told_as_well(tmp_path):
    scores = [0.2, 0.8, 0.4, 0.6, 0.3, 0.1], [0.2, 0.8, 0.4, 0.6, 0.7, 0.1]
    one = write_run(tmp_path / "one", BEFORE, scores[0])
    two = write_run(tmp_path / "two", AFTER, scores[1], table_bytes=40)
    found = difference(one, two)
    assert found.auc == auc_difference([0, 1, 0, 1, 1, 0], *scores)
    assert facts(found)["tables"] == "100 B -> 40 B"
    result = CliRunner().invoke(app, ["diff", str(one), str(two)])
    assert result.exit_code == 0
    assert "4 -> 2" in result.stdout
    assert "test AUC" in result.stdout


def test_runs_that_scored_other_rows_are_refused(tmp_path):
    one = write_run(tmp_path / "one", BEFORE, [0.1, 0.2], labels=(0, 1))
    two = write_run(tmp_path / "two", AFTER, [0.1, 0.2], labels=(1, 0))
    with pytest.raises(DataError, match="their labels differ in 2 of 2 test rows"):
        difference(one, two)


def write_bundle(folder, pairs=None):
    """A vocabulary of two values, and a manifest whose fields are a list, "tag" and "user"."""
    folder.mkdir()
    rows = {"field": ["user", "tag"], "role": ["value", "value"], "value": ["a", "x"], "id": [1, 2]}
    pl.DataFrame(rows).write_parquet(folder / "vocabulary.parquet")
    (folder / "weights.safetensors").touch()
    manifest = json.loads((RELEASED / "format_3" / "bundle" / MANIFEST).read_text())
    names = {"words": "list", "tag": "categorical", "user": "categorical"}
    manifest["fields"] = [
        manifest["fields"][0] | {"name": name, "kind": kind} for name, kind in names.items()
    ]
    layout = {"dim": 8, "cross_rows": 1, "hashed": False, "factor_rows": 1, "shifts": [], "searched": False}
    manifest["architecture"]["pairs"] = (
        layout | {"memorized": [], "factorized": [], **pairs} if pairs else None
    )
    (folder / MANIFEST).write_text(render_manifest(manifest))
    return folder


def test_a_bundle_is_read_by_its_vocabulary(tmp_path):
    found = difference(write_set(tmp_path / "one", BEFORE), write_bundle(tmp_path / "bundle"))
    assert found.dropped.select("field", "value").rows() == [("user", "b"), ("tag", "y")]
    assert found.fields.rows() == [("tag", 0, 1, 0.1), ("user", 0, 1, 0.3)]


@pytest.mark.parametrize(
    ("method", "key"), [("memorize", "memorized"), ("factorize", "factorized"), ("naive", None)]
)
def test_pairs_of_a_bundle_are_those_that_its_network_models(tmp_path, method, key):
    bundle = write_bundle(tmp_path / "bundle", {key: [[0, 1]]} if key else None)
    assert difference(write_set(tmp_path / "one", BEFORE, method), bundle).pairs == ()
    other = "naive" if key else "memorize"
    found = difference(bundle, write_set(tmp_path / "two", BEFORE, other))
    assert found.pairs == (("tag", "user", method, other),)


def test_a_bundle_whose_pairs_are_of_no_fields_is_refused(tmp_path):
    bundle = write_bundle(tmp_path / "bundle", {"memorized": [[0, 2]]})
    with pytest.raises(DataError, match="pairs: expected slots from 0 to 1, found 2"):
        difference(bundle, bundle)


def test_what_is_no_set_is_named_with_what_was_found(tmp_path):
    folder = write_set(tmp_path / "one", BEFORE)
    with pytest.raises(ConfigError, match='found no folder; the nearest name is "one"'):
        difference(folder, tmp_path / "on")
    with pytest.raises(ConfigError, match='found a folder with "one"'):
        difference(folder, tmp_path)
