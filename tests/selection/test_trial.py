"""Trial: which ranking wins, by how much it has to win, and what is left of the network afterwards."""

import numpy as np
import polars as pl
import pytest
import torch

from ctr.dataset.batches import Batches
from ctr.dataset.layout import Layout
from ctr.evaluation.metrics import measure
from ctr.network.network import Architecture, build
from ctr.selection.saliency import Saliency
from ctr.selection.trial import Contest, choose, rankings
from ctr.training.predict import predict


@pytest.fixture(scope="module")
def log(make_dataset):
    """Rare users decide, frequent days do not: 8 users among 600 rows, 2 days."""
    draw, rows = np.random.default_rng(1), 3000
    user = draw.integers(0, 8, rows)
    frame = pl.DataFrame(
        {
            "click": (draw.random(rows) < np.where(user % 2, 0.8, 0.2)).astype(int),
            "user": [f"u{n}" for n in user],
            "day": [f"d{n}" for n in draw.integers(0, 2, rows)],
            "w": draw.choice([1.0, 2.0], rows),
        }
    )
    return make_dataset(frame, [{"name": "user"}, {"name": "day"}], weight="w")


@pytest.fixture
def network(log):
    """Logistic regression that knows the truth: +1 for odd users, -1 for even ones, nothing for days."""
    torch.manual_seed(0)
    found = build(Architecture(rows=log.features + 1, fields=2, dim=4, backbone="lr"))
    weights = np.zeros(log.features + 1)
    for number, (field, value) in enumerate(log.vocabulary.select("field", "value").iter_rows()):
        if field == "user" and value is not None:
            weights[number + 1] = 1.0 if int(value[1:]) % 2 else -1.0
    found.table.weight.data[:, -1] = torch.from_numpy(weights).float()
    return found.eval()


def contest(log, network, **scores):
    valid = Batches(log.part("valid"), Layout(log), 64)
    return Contest(scores, network, valid)


def of_field(log, field):
    """Scores by which the values of a field come first."""
    return (log.vocabulary["field"] == field).to_numpy().astype(float)


def kept_fields(log, feature_set):
    return set(feature_set.features.filter(pl.col("kept") & (pl.col("role") == "value"))["field"])


def test_the_ranking_that_loses_least_on_valid_chooses(log, network):
    found = choose(contest(log, network, frequency=of_field(log, "day"), other=of_field(log, "user")), log, 2)
    assert found.provenance["ranking"] == "other"
    assert kept_fields(log, found) == {"user"}
    assert found.provenance["tried"]["frequency"] == 0.5  # all rows alike: days say nothing
    assert found.provenance["tried"]["other"] > 0.6


def test_with_everything_kept_the_network_is_tried_as_it_is(log, network):
    tried = contest(log, network, frequency=np.ones(log.features))
    part = log.part("valid")
    whole = measure(part.labels, predict(network, tried.valid), part.weights).auc
    assert choose(tried, log, 10).provenance["tried"] == {"frequency": pytest.approx(whole)}


def test_the_first_ranking_stands_where_another_is_better_by_chance_alone(log, network):
    users = np.flatnonzero(of_field(log, "user") * (log.vocabulary["role"] == "value").to_numpy())
    without = []
    for user in users:  # one of the eight users is dropped: all are worth about the same
        without.append(of_field(log, "user"))
        without[-1][user] = 0.0
    aucs = [choose(contest(log, network, only=own), log, 7).provenance["tried"]["only"] for own in without]
    worst = int(np.argmin(aucs))
    close = [n for n in range(8) if 0 < aucs[n] - aucs[worst] < 0.004]
    assert close
    for number in close:
        found = choose(contest(log, network, frequency=without[worst], other=without[number]), log, 7)
        assert found.provenance["ranking"] == "frequency"


def test_the_network_is_left_without_a_gate(log, network):
    tried = contest(log, network, frequency=of_field(log, "day"))
    before = predict(network, tried.valid)
    choose(tried, log, 3)
    assert network.gate is None
    assert np.array_equal(predict(network, tried.valid), before)


def test_gains_are_discounted_by_coverage_and_losses_are_not(log):
    slope = np.linspace(-1.0, 1.0, log.features)
    found = rankings(log, [Saliency(slope, np.zeros_like(slope), slope**2)] * 2, np.full(log.features, 0.5))
    assert list(found) == [
        "frequency",
        "frequency_covered",
        "second_order",
        "second_order_1",
        "second_order_2",
        "fisher",
        "both",
    ]
    gain = -slope
    assert found["second_order_1"] == pytest.approx(np.where(gain > 0, 0.5 * gain, gain))
    assert found["second_order"] == pytest.approx(2.0 * found["second_order_1"])
    assert found["fisher"] == pytest.approx(slope**2)
    assert found["frequency_covered"] == pytest.approx(0.5 * found["frequency"])
