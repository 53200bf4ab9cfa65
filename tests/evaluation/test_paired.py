"""Metrics with intervals of models on the same rows: against the metrics of record, DeLong, and the bootstrap."""

import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from ctr.evaluation.bootstrap import WeightedRanking, draws
from ctr.evaluation.clustered import clustered_difference, clustered_interval
from ctr.evaluation.grouped import group_aucs
from ctr.evaluation.intervals import Z95, auc_difference, auc_interval
from ctr.evaluation.metrics import measure
from ctr.evaluation.paired import NAMES, measured
from tests.evaluation.scored_rows import Rows


def drawn(rows=3000, seed=0, decimals=2):
    draw = np.random.default_rng(seed)
    users = draw.integers(0, 60, rows)
    logits = draw.normal(-1.0, 1.0, rows) + draw.normal(0, 0.7, 60)[users]
    labels = (draw.random(rows) < 1 / (1 + np.exp(-logits))).astype(float)
    first = np.round(1 / (1 + np.exp(-logits - draw.normal(0, 0.7, rows))), decimals)
    second = np.round(1 / (1 + np.exp(-logits + 0.3)), decimals)
    return labels, {"old": np.clip(first, 0.01, 0.99), "new": np.clip(second, 0.01, 0.99)}, users


def half(interval):
    return (interval.high - interval.low) / 2


@pytest.mark.parametrize("weighted", [False, True])
def test_values_are_those_of_the_metrics_of_record(weighted):
    labels, scores, _ = drawn()
    mass = np.random.default_rng(1).integers(0, 5, len(labels)).astype(float) if weighted else None
    found = measured(Rows(labels, scores, mass))
    for name, own in scores.items():
        expected = measure(labels, own, mass)
        for metric in ("auc", "logloss", "ece", "calibration_ratio"):
            assert found.values[name][metric].value == pytest.approx(getattr(expected, metric), abs=1e-12)
        weights = np.ones(len(labels)) if mass is None else mass
        rate = np.average(labels, weights=weights)
        entropy = -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
        value = found.values[name]["normalised_entropy"].value
        assert value == pytest.approx(expected.logloss / entropy, abs=1e-12)
        assert found.reliability[name].error == pytest.approx(expected.ece, abs=1e-12)
    assert (found.rows, found.clicks) == (3000, int(labels.sum()))


@pytest.mark.parametrize("decimals", [1, 15])
def test_intervals_of_the_auc_are_delongs(decimals):
    labels, scores, _ = drawn(700, 3, decimals)
    found = measured(Rows(labels, scores))
    for name, own in scores.items():
        assert found.values[name]["auc"] == pytest.approx(auc_interval(labels, own), abs=1e-12)
    expected = auc_difference(labels, scores["old"], scores["new"])
    assert found.differences["new"]["auc"] == pytest.approx(expected, abs=1e-12)


def test_a_copy_differs_by_exactly_zero_in_every_metric():
    labels, scores, users = drawn()
    mass = np.random.default_rng(1).random(len(labels))
    for batch in (None, 700):
        rows = Rows(labels, {"one": scores["old"], "copy": scores["old"].copy()}, mass, users, users, batch)
        found = measured(rows).differences["copy"]
        assert all(found[metric].value == 0.0 for metric in NAMES)
        assert all(found[metric] == (0.0, 0.0, 0.0) for metric in NAMES if metric != "ece")


def by_hand(labels, own, weights, ranking):
    """AUC, log loss, normalised entropy and calibration ratio."""
    rate = np.average(labels, weights=weights)
    entropy = -rate * math.log(rate) - (1 - rate) * math.log(1 - rate)
    loss = np.average(-np.log(np.where(labels == 1, own, 1 - own)), weights=weights)
    return ranking.auc(weights), loss, loss / entropy, (own @ weights) / (labels @ weights)


@pytest.mark.parametrize("clustered", [False, True])
def test_standard_errors_are_those_of_the_weighted_bootstrap(clustered, monkeypatch):
    monkeypatch.setattr("ctr.evaluation.bootstrap._MOST", 400)
    labels, scores, users = drawn(1500)
    mass = np.random.default_rng(1).lognormal(0, 0.8, len(labels))
    codes = users if clustered else None
    rankings = [WeightedRanking(labels, own) for own in scores.values()]
    values = np.array(
        [
            [by_hand(labels, own, weights, rank) for own, rank in zip(scores.values(), rankings, strict=True)]
            for weights in draws(mass, 0, codes)
        ]
    )  # (draws, models, metrics)
    own, paired = values.std(0, ddof=1), (values[:, 1] - values[:, 0]).std(0, ddof=1)
    found = measured(Rows(labels, scores, mass, codes))
    for place, metric in enumerate(("auc", "logloss", "normalised_entropy", "calibration_ratio")):
        for model, name in enumerate(scores):
            error = half(found.values[name][metric]) / Z95
            assert error == pytest.approx(own[model, place], rel=0.2), metric
        assert half(found.differences["new"][metric]) / Z95 == pytest.approx(paired[place], rel=0.2), metric


def test_intervals_over_clusters_are_those_of_whole_clusters_drawn_again():
    labels, scores, users = drawn()
    found = measured(Rows(labels, scores, clusters=users))
    expected = clustered_interval(labels, scores["old"], users)
    assert half(found.values["old"]["auc"]) == pytest.approx(half(expected), rel=0.1)
    expected = clustered_difference(labels, scores["old"], scores["new"], users)
    assert half(found.differences["new"]["auc"]) == pytest.approx(half(expected), rel=0.1)


@pytest.mark.parametrize("clustered", [False, True])
def test_rows_that_do_not_fit_have_the_metrics_of_rows_that_do(clustered):
    labels, scores, users = drawn(decimals=15)
    mass = np.random.default_rng(1).integers(1, 4, len(labels))
    codes = users if clustered else None
    whole = measured(Rows(labels, scores, mass, codes, users))
    parts = measured(Rows(labels, scores, mass, codes, users, batch=271))
    assert max(whole.auc_error.values()) == 0.0
    for name in scores:
        assert 0.0 < parts.auc_error[name] < 1e-4
        for metric in NAMES:
            exact, found = whole.values[name][metric], parts.values[name][metric]
            assert found.value == pytest.approx(exact.value, abs=2e-4 if metric == "ece" else 1e-5)
            assert metric == "ece" or half(found) == pytest.approx(half(exact), rel=1e-3)
    exact, found = whole.differences["new"], parts.differences["new"]
    assert half(found["auc"]) == pytest.approx(half(exact["auc"]), rel=1e-3)


def test_grouped_auc_is_the_mean_of_the_groups_aucs_by_impressions():
    labels, scores, users = drawn(600)
    mass = np.random.default_rng(2).integers(0, 3, 600).astype(float)
    total = weight = 0.0
    for user in range(60):
        own = users == user
        if len(set(labels[own & (mass > 0)])) == 2:
            auc = roc_auc_score(labels[own], scores["old"][own], sample_weight=mass[own])
            total, weight = total + auc * mass[own].sum(), weight + mass[own].sum()
    found = group_aucs(labels, scores["old"], mass, users)
    assert found.value == pytest.approx(total / weight, abs=1e-12)
    interval = measured(Rows(labels, scores, mass, groups=users)).values["old"]["gauc"]
    assert interval.low < found.value == interval.value < interval.high


def test_groups_of_one_class_have_no_grouped_auc():
    assert math.isnan(group_aucs(np.array([1.0, 0.0]), np.ones(2), np.ones(2), np.array([0, 1])).value)


def test_one_class_leaves_the_log_loss_alone():
    found = measured(Rows([0, 0, 0], {"one": [0.1, 0.2, 0.3]}, groups=np.zeros(3, int)))
    assert (found.rows, found.clicks) == (3, 0)
    values = found.values["one"]
    assert values["logloss"].value == pytest.approx(-math.log(0.9 * 0.8 * 0.7) / 3)
    for metric in ("auc", "normalised_entropy", "calibration_ratio", "gauc"):
        assert math.isnan(values[metric].value), metric


def test_constant_scores_rank_nothing_and_are_sure_of_it():
    found = measured(Rows([0, 1, 0, 1], {"flat": [0.5] * 4}))
    assert found.values["flat"]["auc"] == (0.5, 0.5, 0.5)


def test_a_single_click_leaves_the_widest_interval():
    assert measured(Rows([0, 0, 1], {"one": [0.1, 0.4, 0.3]})).values["one"]["auc"] == (0.5, 0.0, 1.0)


def test_the_reliability_diagram_holds_all_rows_and_its_bounds_hold_the_share():
    labels, scores, _ = drawn()
    found = measured(Rows(labels, scores)).reliability["old"]
    assert found.mass.sum() == len(labels)
    assert found.observed @ found.mass == pytest.approx(labels.sum())
    assert (np.diff(found.promised) > 0).all()
    assert ((found.low <= found.observed) & (found.observed <= found.high)).all()
