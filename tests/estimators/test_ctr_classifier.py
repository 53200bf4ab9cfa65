"""The classifier: probabilities of the pipeline, through a bundle, in scikit-learn's way."""

import pickle

import numpy as np
import polars as pl
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline

from ctr import CTRClassifier, OptFSSelector
from ctr.serving.scorer import Scorer
from tests.estimators.conftest import FAST, small_log


@pytest.fixture(scope="module")
def fitted(log):
    """Keep-all."""
    return CTRClassifier(epochs=4, **FAST).fit(*log)


def test_it_learns_what_decides(fitted):
    frame, clicks = small_log(800, seed=9)
    assert roc_auc_score(clicks, fitted.predict_proba(frame)[:, 1]) > 0.8
    assert 0.8 < fitted.valid_auc_ <= 1.0


def test_probabilities_decision_and_classes_agree(fitted, log):
    frame, clicks = log
    chances = fitted.predict_proba(frame)
    assert chances.shape == (frame.height, 2)
    assert np.allclose(chances.sum(1), 1.0)
    logits = fitted.decision_function(frame)
    assert np.allclose(1 / (1 + np.exp(-logits)), chances[:, 1])
    named = clone(fitted).fit(frame, np.where(clicks, "yes", "no"))
    assert named.classes_.tolist() == ["no", "yes"]
    assert np.array_equal(named.predict(frame), np.where(chances[:, 1] > 0.5, "yes", "no"))
    assert np.array_equal(named.predict_proba(frame), chances)


def test_a_selector_inside_drops_values_and_says_which(log):
    frame, clicks = log
    small = CTRClassifier("frequency", ratio=0.3, epochs=2, **FAST).fit(frame, clicks)
    assert small.feature_set_.counts()["ratio"] == pytest.approx(0.3, abs=0.01)
    hidden = small.feature_set_.features.filter(~pl.col("kept"), field="noise", role="value")[
        "value"
    ].to_list()
    one, other = (frame.head(1).with_columns(noise=pl.lit(value)) for value in ("never seen", hidden[-1]))
    assert np.array_equal(small.predict_proba(one), small.predict_proba(other))


def test_its_bundle_is_one_that_scores_raw_rows(fitted, log, tmp_path):
    folder = fitted.save_bundle(tmp_path / "bundle")
    assert np.array_equal(Scorer(folder).score(log[0]), fitted.predict_proba(log[0])[:, 1])
    with pytest.raises(FileExistsError, match="is there already"):
        fitted.save_bundle(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_pickled_classifier_gives_the_same(fitted, log):
    again = pickle.loads(pickle.dumps(fitted))
    assert again._scorer is None
    assert np.array_equal(again.predict_proba(log[0]), fitted.predict_proba(log[0]))


def test_it_follows_a_selector_in_a_pipeline(log):
    model = make_pipeline(OptFSSelector(0.2, **FAST), CTRClassifier(epochs=2, **FAST))
    scores = cross_val_score(model, *log, scoring="roc_auc", cv=2, error_score="raise")
    assert scores.min() > 0.75


def test_what_cannot_be_meant_is_told(fitted, log):
    frame, clicks = log
    with pytest.raises(NotFittedError):
        CTRClassifier().predict(frame)
    with pytest.raises(ValueError, match=r"selector.kind: expected .*found \"optfss\""):
        CTRClassifier("optfss").fit(frame, clicks)
    with pytest.raises(ValueError, match='X lacks 1 of the columns that it was fitted on: "user"'):
        fitted.predict(frame.drop("user"))
    with pytest.raises(ValueError, match=r"1 rows hold cells .* the first is row 1"):
        fitted.predict(frame.head(3).with_columns(price=pl.Series(["1", "cheap", None])))


def test_a_share_that_is_none_is_told_by_its_name(log):
    with pytest.raises(ValueError, match=r"ratio: expected a share above 0, at most 1, found '0\.5'"):
        CTRClassifier("frequency", ratio="0.5").fit(*log)
