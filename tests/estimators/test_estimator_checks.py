"""scikit-learn's own checks of estimators, and why some do not apply."""

import pytest
from sklearn.base import BaseEstimator
from sklearn.utils.estimator_checks import parametrize_with_checks

import ctr
from ctr import CTRClassifier, FrequencySelector, OptFSSelector
from ctr.estimators import __all__ as names

TINY = {"batch_size": 16, "n_jobs": 1, "dim": 4, "hidden": (16,), "learning_rate": 0.1}
NOT_APPLICABLE = {
    "check_sample_weight_equivalence_on_dense_data": "a row of weight 2 is one row to train on or to validate by, two "
    "rows may be both; and the nine rows of the check that have a weight hold one class but once",
}


def reasons(estimator: BaseEstimator) -> dict[str, str]:
    return NOT_APPLICABLE


@parametrize_with_checks([FrequencySelector()], expected_failed_checks=reasons)
def test_a_selector_that_trains_nothing_passes(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [OptFSSelector(0.5, search_epochs=1, **TINY), CTRClassifier(epochs=10, **TINY)],
    expected_failed_checks=reasons,
)
def test_estimators_that_train_pass(estimator, check):
    check(estimator)


@pytest.mark.parametrize("name", names)
def test_parameters_are_kept_as_they_are_given(name):
    kind = getattr(ctr, name)
    estimator = kind()
    changed = {key: object() for key in estimator.get_params()}
    estimator.set_params(**changed)
    assert {key: getattr(estimator, key) for key in changed} == changed
