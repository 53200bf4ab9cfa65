"""Saliency: sums of slopes and curvatures along gates, held against loops that move one gate at a time."""

import numpy as np
import polars as pl
import pytest
import torch

from ctr.config import Training
from ctr.dataset.batches import Batches
from ctr.dataset.layout import Layout
from ctr.dataset.stacked import subset
from ctr.errors import DataError
from ctr.evaluation.metrics import measure
from ctr.network.backbones import BACKBONES
from ctr.network.gates import HardGate
from ctr.selection.saliency import saliency
from ctr.training.fit import fit
from ctr.training.predict import predict
from tests.reference.saliency import reference_saliency


def batches_of(dataset, size=64, part="train"):
    return Batches(dataset.part(part), Layout(dataset), size)


def columns_of(found):
    return np.stack([found.slope, found.curvature, found.fisher])


@pytest.fixture(scope="module")
def weighted(make_dataset):
    """Users and a list of words, with weights of rows."""
    draw = np.random.default_rng(5)
    frame = pl.DataFrame(
        {
            "click": draw.integers(0, 2, 200),
            "user": [f"u{n}" for n in draw.integers(0, 6, 200)],
            "words": [
                "|".join(f"w{n}" for n in draw.integers(0, 4, size)) for size in draw.integers(0, 4, 200)
            ],
            "w": draw.choice([0.5, 1.0, 3.0], 200),
        }
    )
    fields = [{"name": "user"}, {"name": "words", "kind": "list", "separator": "|"}]
    return make_dataset(frame, fields, weight="w")


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_sums_equal_a_loop_that_moves_one_gate_at_a_time(backbone, mixed, make_network):
    network = make_network(mixed, backbone)
    batches = Batches(subset(mixed.part("train"), np.arange(40)), Layout(mixed), 16)
    found = columns_of(saliency(network, batches, mixed.features))
    expected = reference_saliency(network, batches, mixed.features)
    assert np.abs(expected).max() > 0.5
    assert found == pytest.approx(expected, rel=2e-3, abs=2e-4)


def test_weights_of_rows_count(weighted, make_network):
    network, batches = make_network(weighted), batches_of(weighted, part="valid")
    found = columns_of(saliency(network, batches, weighted.features))
    assert found == pytest.approx(reference_saliency(network, batches, weighted.features), rel=2e-3, abs=2e-4)


def test_batches_make_no_difference_and_the_network_is_left_as_it_was(mixed, make_network):
    network = make_network(mixed, norm="batch", dropout=0.5).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    small, large = (saliency(network, batches_of(mixed, size), mixed.features) for size in (7, 500))
    assert columns_of(small) == pytest.approx(columns_of(large), rel=1e-3, abs=1e-4)
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert not network.gated._forward_hooks


def test_the_second_order_score_is_about_the_rise_in_loss_when_a_feature_goes(
    planted, make_network, tmp_path
):
    network, train = make_network(planted, "lr"), batches_of(planted)
    shuffled = Batches(train.part, train.layout, 256, seed=0)
    fit(
        network,
        shuffled,
        batches_of(planted, part="valid"),
        Training(learning_rate=0.05),
        folder=tmp_path,
        epochs=3,
    )
    scores = saliency(network, train, planted.features).second_order
    before = measure(train.part.labels, predict(network, train)).logloss * len(train.part)
    checked = np.flatnonzero(planted.vocabulary["field"].to_numpy() == "noise")[2:12]
    for feature in [int(np.argmax(scores)), *checked.tolist()]:
        kept = torch.ones(planted.features + 1, dtype=torch.bool)
        kept[feature + 1] = False
        network.gate = HardGate(kept)
        rise = measure(train.part.labels, predict(network, train)).logloss * len(train.part) - before
        network.gate = None
        assert scores[feature] == pytest.approx(rise, rel=0.2, abs=1.0)


def test_values_that_mean_something_score_above_all_noise(planted, make_network, tmp_path):
    network, train = make_network(planted), batches_of(planted)
    shuffled = Batches(train.part, train.layout, 256, seed=0)
    fit(
        network,
        shuffled,
        batches_of(planted, part="valid"),
        Training(learning_rate=0.01),
        folder=tmp_path,
        epochs=3,
    )
    found = saliency(network, train, planted.features)
    values = planted.vocabulary["role"].to_numpy() == "value"
    useful = values & (planted.vocabulary["field"].to_numpy() == "useful")
    for scores in (found.fisher, found.second_order):
        assert scores[useful].min() > scores[values & ~useful].max()


def test_a_network_behind_a_gate_is_refused(planted, make_network):
    network = make_network(planted)
    network.gate = HardGate(torch.ones(planted.features + 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="without a gate"):
        saliency(network, batches_of(planted), planted.features)


def test_a_network_of_another_dataset_is_refused(mixed, planted, make_network):
    network = make_network(mixed)
    network.dataset = mixed.digest
    with pytest.raises(DataError, match="built on the dataset"):
        saliency(network, batches_of(planted), planted.features)
