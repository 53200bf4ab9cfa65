"""A network reads the ids of one dataset; those of a vocabulary mean other values in another, hashes never do."""

import numpy as np
import polars as pl
import pytest
import torch

from ctr.dataset.batches import Batches
from ctr.dataset.ingest import ingest
from ctr.dataset.kept_values import KeptValues
from ctr.dataset.layout import Layout
from ctr.dataset.placement import place
from ctr.dataset.schema import Schema
from ctr.dataset.store import Dataset
from ctr.errors import CtrError, DataError
from ctr.network.network import Architecture, build
from ctr.selection.compaction import compact_architecture, feature_counts
from ctr.settings import check
from ctr.training.fit import fit
from ctr.training.predict import calibrate, predict, require_dataset

EACH_KIND = pytest.mark.parametrize("kind", ["table", "unified"])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Datasets of two days of a log, by encoding and day."""
    tmp_path = tmp_path_factory.mktemp("days")
    schema = {"name": "log", "label": "click", "read": {"format": "parquet"}, "fields": [{"name": "user"}]}
    schema |= {"split": {"by": "random", "valid": 0.2, "test": 0.2}}
    found = {}
    for day in (0, 1):
        draw = np.random.default_rng(day)
        user = draw.integers(0, 9, 200)
        frame = pl.DataFrame({"click": draw.integers(0, 2, 200), "user": [f"u{n + day}" for n in user]})
        frame.write_parquet(tmp_path / f"{day}.parquet")
        for encoding in ("vocabulary", "hashed"):
            folder = ingest(
                check(schema, Schema, "schema"), tmp_path / f"{day}.parquet", tmp_path, encoding=encoding
            )
            found[encoding, day] = Dataset(folder)
    return found


def network_of(dataset, kind):
    """A network over all features of a dataset, and the placement of its features."""
    placement = None
    if kind == "unified":
        placement = place(feature_counts(dataset), shared=True, dim=4, linear=1, rows=6)
    architecture = Architecture(rows=0, fields=0, dim=4, backbone="fm")
    network = build(compact_architecture(architecture, Layout(dataset, placement=placement)))
    network.dataset = dataset.digest
    return network, placement


def batches_of(dataset, placement, part="train"):
    kept = KeptValues.everything(["user"]) if dataset.hashed else None
    return Batches(dataset.part(part), Layout(dataset, placement=placement, kept=kept), 64)


@EACH_KIND
def test_a_vocabulary_of_another_digest_is_refused_in_prediction_and_calibration(made, kind):
    first, second = made["vocabulary", 0], made["vocabulary", 1]
    network, placement = network_of(first, kind)
    for judge in (predict, calibrate):
        judge(network, batches_of(first, placement))
        with pytest.raises(DataError) as error:
            judge(network, batches_of(second, placement))
        assert str(error.value) == (
            f"the network was built on the dataset {first.digest[:12]}, these rows are of {second.digest[:12]}: "
            "its vocabulary gives the same ids to other values; use the dataset that it was trained on, or train again"
        )


@EACH_KIND
@pytest.mark.parametrize("other", ["train", "valid"])
def test_a_vocabulary_of_another_digest_is_refused_in_training(made, kind, other, settings, tmp_path):
    first, second = made["vocabulary", 0], made["vocabulary", 1]
    network, placement = network_of(first, kind)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    parts = {name: batches_of(first, placement, name) for name in ("train", "valid")}
    parts[other] = batches_of(second, placement, other)
    with pytest.raises(DataError, match="the network was built on the dataset"):
        fit(network, parts["train"], parts["valid"], settings(), folder=tmp_path / "fit")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not (tmp_path / "fit" / "last").exists()


def test_hashes_of_another_digest_mean_the_same_and_are_accepted(made, settings, tmp_path):
    first, second = made["hashed", 0], made["hashed", 1]
    assert first.digest != second.digest
    network, placement = network_of(first, "unified")
    fit(
        network,
        batches_of(second, placement),
        batches_of(second, placement, "valid"),
        settings(epochs=1),
        folder=tmp_path / "fit",
    )
    found = predict(network, batches_of(second, placement))
    assert found.std() > 0
    # u1 to u8 are in both, at the same rows
    users = {day: made["hashed", day].part("train").ids[:, 0].view(np.uint64).tolist() for day in (0, 1)}
    scores = [
        dict(zip(users[day], predict(network, batches_of(made["hashed", day], placement)), strict=True))
        for day in (0, 1)
    ]
    shared = scores[0].keys() & scores[1].keys()
    assert len(shared) == 8
    assert all(scores[0][user] == scores[1][user] for user in shared)


def test_a_network_that_names_no_dataset_reads_any(made):
    network, placement = network_of(made["vocabulary", 0], "unified")
    network.dataset = ""
    require_dataset(network, batches_of(made["vocabulary", 1], placement))


def test_a_checkpoint_of_another_dataset_is_not_taken_up(made, settings, tmp_path):
    for day, message in ((0, None), (1, "of the dataset")):
        dataset = made["hashed", day]
        network, placement = network_of(dataset, "unified")
        parts = [batches_of(dataset, placement, name) for name in ("train", "valid")]
        if message is None:
            fit(network, *parts, settings(epochs=1), folder=tmp_path / "fit")
        else:
            with pytest.raises(CtrError, match=message):
                fit(network, *parts, settings(epochs=2), folder=tmp_path / "fit")
