"""The interval of the calibration error: how often it covers a known truth, and what it says of a perfect model."""

import numpy as np
import pytest

from ctr.evaluation.gaps import Gaps
from ctr.evaluation.metrics import measure
from ctr.evaluation.reliability import reliability

BINS = 20


def found(labels, probabilities, clusters=None):
    """Bounds, and the gaps that they are of; labels (B,), probabilities (B,) without ties."""
    order = np.argsort(probabilities)
    labels, probabilities = labels[order].astype(float), probabilities[order]
    mass = np.ones(len(labels))
    diagram = reliability(labels, probabilities, mass, BINS)
    number = None if clusters is None else int(clusters.max()) + 1
    gaps = Gaps(diagram.promised, diagram.observed, diagram.mass, number)
    bins = np.searchsorted(probabilities[diagram.first[1:]], probabilities, side="right")
    gaps.add(labels, probabilities, mass, bins, None if clusters is None else clusters[order])
    return gaps.bounds(), gaps, bins


def truth_of(promise, rows=400_000):
    """The calibration error of `promise` of the true probability: that of so many rows, without labels drawn."""
    truth = np.sort(np.random.default_rng(9).beta(2, 6, rows))
    promised = promise(truth)
    gaps = (promised - truth)[np.argsort(promised)].reshape(BINS, -1).mean(1)
    return float(np.abs(gaps).mean())


@pytest.mark.parametrize(
    "promise",
    [
        lambda p: p,  # perfect: the truth is 0, and only the lower bound can miss it
        lambda p: p + 0.03 * (p < 0.15),  # in some bins alone
        pytest.param(lambda p: p + 0.02, marks=pytest.mark.slow),
        pytest.param(lambda p: p**1.3, marks=pytest.mark.slow),
        pytest.param(lambda p: 1.4 * p / (1 + 0.4 * p), marks=pytest.mark.slow),
    ],
)
def test_it_covers_the_truth_in_95_of_100_logs(promise):
    exact, covered = truth_of(promise), []
    for repetition in range(300):
        random = np.random.default_rng(repetition)
        truth = random.beta(2, 6, 2000)
        (low, high), _, _ = found(random.random(2000) < truth, promise(truth))
        covered.append(low <= exact <= high)
    assert 0.925 <= np.mean(covered) <= 0.985


def test_rows_of_users_who_are_alike_widen_it():
    random = np.random.default_rng(4)
    user = np.repeat(np.arange(200), 20)
    truth = np.clip(random.beta(2, 6, len(user)), 0.01, 0.99)
    logit = np.log(truth / (1 - truth)) + random.normal(size=200)[user]
    labels = random.random(len(user)) < 1 / (1 + np.exp(-logit))
    (_, high), _, _ = found(labels, truth)
    (_, wide), _, _ = found(labels, truth, user)
    own, _, _ = found(labels, truth, np.arange(len(user)))
    assert wide > 1.05 * high
    assert own[1] == pytest.approx(high, rel=0.02)


def test_its_gaps_are_those_of_the_calibration_error():
    random = np.random.default_rng(5)
    truth = random.random(3000)
    labels = random.random(3000) < truth
    _, gaps, bins = found(labels, truth**1.2)
    assert np.abs(gaps.gaps).sum() == pytest.approx(measure(labels, truth**1.2).ece)
    assert (np.diff(bins) >= 0).all()
    assert np.bincount(bins).tolist() == [150] * BINS


def test_a_model_that_is_closer_than_chance_would_bring_it_is_perfect_as_far_as_can_be_told():
    labels, probabilities = np.tile([0.0, 1.0], 500), 0.5 + np.linspace(-1e-9, 1e-9, 1000)
    (low, high), _, _ = found(labels, probabilities)
    assert (low, high) == (0.0, 0.0)
