import numpy as np
import pytest

from ctr.errors import DataError
from ctr.evaluation import auc_difference, auc_interval, measure
from ctr.evaluation.influence import auc_influence, clustered, logloss_influence
from tests.reference.auc import delong


def drawn(seed, rows, decimals=12):
    random = np.random.default_rng(seed)
    labels = (random.random(rows) < 0.3).astype(int)
    labels[:4] = [0, 1, 0, 1]
    scores = np.round(1.0 / (1.0 + np.exp(-random.normal(labels, 1.5))), decimals)
    return labels, scores


@pytest.mark.parametrize("decimals", [0, 1, 12])
@pytest.mark.parametrize("rows", [5, 37, 150])
def test_contributions_of_rows_give_auc_and_delongs_variance(rows, decimals):
    labels, scores = drawn(rows, rows, decimals)
    aucs, matrix = delong(labels.tolist(), [scores.tolist()])
    found = auc_influence(labels, scores)
    assert found.value == pytest.approx(aucs[0], abs=1e-12)
    assert np.square(found.rows).sum() == pytest.approx(matrix[0][0], abs=1e-12)


def test_weighted_contributions_agree_with_the_bootstrap():
    labels, scores = drawn(3, 2000)
    weights = np.random.default_rng(4).exponential(size=2000)
    found = auc_influence(labels, scores, weights)
    value, low, high = auc_interval(labels, scores, weights)
    assert found.value == pytest.approx(value, abs=1e-12)
    assert np.sqrt(np.square(found.rows).sum()) == pytest.approx((high - low) / 2 / 1.96, rel=0.08)


def test_rows_without_weight_are_as_good_as_absent():
    labels, scores = drawn(5, 300)
    weights = (np.arange(300) % 3 > 0).astype(float)
    found = auc_influence(labels, scores, weights)
    left = auc_influence(labels[weights > 0], scores[weights > 0])
    assert found.value == pytest.approx(left.value, abs=1e-12)
    assert found.rows[weights > 0] == pytest.approx(left.rows, abs=1e-12)
    assert not found.rows[weights == 0].any()


@pytest.mark.parametrize("weighted", [False, True])
def test_log_loss_is_the_one_of_record(weighted):
    labels, scores = drawn(6, 400)
    weights = np.random.default_rng(7).exponential(size=400) if weighted else None
    found = logloss_influence(labels, scores, weights)
    assert found.value == pytest.approx(measure(labels, scores, weights).logloss, abs=1e-12)
    if not weighted:
        losses = -np.log(np.where(labels == 1, scores, 1 - scores))
        assert np.square(found.rows).sum() == pytest.approx(losses.var(ddof=1) / 400, abs=1e-12)


def test_rows_that_come_as_copies_are_no_evidence_once_they_are_clustered():
    labels, first = drawn(8, 300)
    _, second = drawn(9, 300)
    once = auc_influence(labels, second).rows - auc_influence(labels, first).rows
    copies = [np.repeat(array, 4) for array in (labels, first, second)]
    many = auc_influence(copies[0], copies[2]).rows - auc_influence(copies[0], copies[1]).rows
    summed = clustered(many, np.repeat(np.arange(300), 4))
    assert np.sqrt(np.square(many).sum()) == pytest.approx(np.sqrt(np.square(once).sum()) / 2, rel=0.01)
    assert np.sqrt(np.square(summed).sum()) == pytest.approx(np.sqrt(np.square(once).sum()), rel=0.01)
    assert auc_difference(labels, first, second).value == pytest.approx(
        auc_influence(labels, second).value - auc_influence(labels, first).value, abs=1e-12
    )


def test_a_single_cluster_is_refused():
    with pytest.raises(DataError, match="at least two values of the key"):
        clustered(np.ones(3), np.zeros(3, np.int64))


def test_a_class_with_a_single_row_has_no_known_spread():
    with pytest.raises(DataError, match="two rows of each class"):
        auc_influence([0, 0, 1], [0.1, 0.2, 0.3])
