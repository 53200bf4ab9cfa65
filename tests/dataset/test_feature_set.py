"""Feature sets: which features they hold, and what they survive on disk."""

import json

import numpy as np
import polars as pl
import pytest

from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.store import Dataset
from ctr.errors import CtrError, DataError


@pytest.fixture
def dataset(write, run, small_log):
    """Fields user (20 values), price (scaled, with gaps) and tags (a list of a, b, c)."""
    fields = [
        {"name": "tags", "kind": "list", "separator": "|"},
        {"name": "user"},
        {"name": "price", "kind": "numeric", "transform": "minmax"},
    ]
    return Dataset(run(write("log.csv", small_log), fields=fields, split={"by": "random", "seed": 2}))


def field_slice(dataset, name):
    info = next(info for info in dataset.fields if info.name == name)
    return slice(info.offset, info.offset + info.features)


def make(dataset, kept, **provenance):
    gate = np.linspace(-1.0, 1.0, dataset.features)
    return FeatureSet.of(dataset, kept, gate, provenance)


@pytest.fixture
def some(dataset):
    """A set with all of tags, two users and no price."""
    kept = np.zeros(dataset.features, bool)
    kept[field_slice(dataset, "tags")] = True
    kept[field_slice(dataset, "user").start + 2] = kept[field_slice(dataset, "user").start + 7] = True
    return make(dataset, kept, selector="optfs", price=2.5)


def test_features_stand_by_global_id_with_what_the_vocabulary_says_of_them(dataset, some):
    assert some.features.columns == [*dataset.vocabulary.columns, "gate", "kept"]
    assert some.features.drop("gate", "kept").equals(dataset.vocabulary)
    assert some.features["field"].unique(maintain_order=True).to_list() == ["tags", "user", "price"]


def test_counts_leave_unknown_and_missing_out(some):
    counts = some.counts()
    assert counts["fields"] == {
        "tags": {"kept": 3, "total": 3},
        "user": {"kept": 2, "total": 20},
        "price": {"kept": 0, "total": 1},
    }
    assert (counts["kept"], counts["total"], counts["ratio"]) == (5, 24, 5 / 24)


def test_the_unknown_of_a_field_stays_only_where_all_of_its_values_do(dataset):
    everything = np.ones(dataset.features, bool)
    user = field_slice(dataset, "user").start
    assert make(dataset, everything).kept[user]
    everything[user + 5] = False
    assert not make(dataset, everything).kept[user]
    assert everything[user]  # what is handed in stays as it was


def test_an_unknown_that_is_dropped_is_not_brought_back(dataset):
    kept = np.ones(dataset.features, bool)
    user = field_slice(dataset, "user").start
    kept[user] = False
    assert not make(dataset, kept).kept[user]


def test_missing_is_kept_or_dropped_by_itself(dataset):
    for choice in (True, False):
        kept = np.ones(dataset.features, bool)
        kept[field_slice(dataset, "price").start + 1] = choice
        assert make(dataset, kept).kept[field_slice(dataset, "price").start + 1] == choice


def test_a_number_has_no_unknown_to_keep(dataset):
    assert not make(dataset, np.ones(dataset.features, bool)).kept[field_slice(dataset, "price").start]


def test_the_provenance_names_the_dataset(dataset, some):
    assert some.provenance == {
        "dataset": dataset.digest,
        "dropped_reads": "zero",
        "selector": "optfs",
        "price": 2.5,
    }


def test_the_digest_changes_with_kept_features_and_with_nothing_else(dataset, some):
    assert len(some.digest()) == 36
    other = FeatureSet.of(dataset, some.kept, np.zeros(dataset.features), {})
    assert other.digest() == some.digest()
    kept = some.kept.copy()
    kept[field_slice(dataset, "user").start + 3] = True
    assert make(dataset, kept).digest() != some.digest()


def test_saving_and_loading_gives_the_same_set(some, tmp_path):
    some.save(tmp_path / "deep" / "feature_set")
    loaded = FeatureSet.load(tmp_path / "deep" / "feature_set")
    assert loaded.features.equals(some.features)
    assert loaded.provenance == some.provenance
    assert loaded.digest() == some.digest()
    assert sorted(path.name for path in (tmp_path / "deep").rglob("*")) == [
        "feature_set",
        "feature_set.json",
        "features.parquet",
    ]
    content = json.loads((tmp_path / "deep" / "feature_set" / "feature_set.json").read_text())
    assert content["kept"] == 5
    assert content["fields"]["user"] == {"kept": 2, "total": 20}
    assert content["digest"] == some.digest()


def test_saving_again_replaces_what_was_there(dataset, some, tmp_path):
    some.save(tmp_path / "set")
    (tmp_path / "set" / "old").write_text("left over")
    whole = make(dataset, np.ones(dataset.features, bool))
    whole.save(tmp_path / "set")
    assert FeatureSet.load(tmp_path / "set").digest() == whole.digest()
    assert not (tmp_path / "set" / "old").exists()


def test_a_disk_that_fills_up_leaves_the_earlier_set_alone(dataset, some, tmp_path, monkeypatch):
    some.save(tmp_path / "set")
    before = {path.name for path in tmp_path.iterdir()}

    def full(*arguments, **keys):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    with pytest.raises(OSError, match="No space left"):
        make(dataset, np.ones(dataset.features, bool)).save(tmp_path / "set")
    assert FeatureSet.load(tmp_path / "set").digest() == some.digest()
    assert {path.name for path in tmp_path.iterdir()} == before


def alter_features(folder, change):
    path = folder / "features.parquet"
    change(pl.read_parquet(path)).write_parquet(path)


def flip(frame):
    return frame.with_columns(
        kept=pl.when(pl.int_range(pl.len()) == 2).then(~pl.col("kept")).otherwise("kept")
    )


ALTERATIONS = {
    "another feature kept": lambda folder: alter_features(folder, flip),
    "other gates": lambda folder: alter_features(folder, lambda frame: frame.with_columns(gate=pl.lit(9.0))),
    "other counts": lambda folder: alter_features(
        folder, lambda frame: frame.with_columns(pl.col("count") + 1)
    ),
    "a column less": lambda folder: alter_features(folder, lambda frame: frame.drop("kept")),
    "a row less": lambda folder: alter_features(folder, lambda frame: frame.head(-1)),
    "no parquet": lambda folder: (folder / "features.parquet").write_bytes(b"nothing of the kind"),
    "features gone": lambda folder: (folder / "features.parquet").unlink(),
    "cut short": lambda folder: (folder / "features.parquet").write_bytes(
        (folder / "features.parquet").read_bytes()[:-20]
    ),
    "no json": lambda folder: (folder / "feature_set.json").write_text("{"),
    "json of another kind": lambda folder: (folder / "feature_set.json").write_text("[1]"),
    "json gone": lambda folder: (folder / "feature_set.json").unlink(),
    "another count in json": lambda folder: (folder / "feature_set.json").write_text(
        (folder / "feature_set.json").read_text().replace('"kept": 5', '"kept": 6')
    ),
}


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_an_altered_set_is_refused_by_name(alteration, some, tmp_path):
    some.save(tmp_path / "set")
    ALTERATIONS[alteration](tmp_path / "set")
    with pytest.raises(DataError, match='/set"'):
        FeatureSet.load(tmp_path / "set")


def test_a_folder_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(CtrError, match='nowhere"'):
        FeatureSet.load(tmp_path / "nowhere")
