"""What selectors and the classifier share: parameters to settings, rows to fields, errors in scikit-learn's way."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight, assert_all_finite, check_consistent_length

from ctr.dataset.field_spec import FieldSpec
from ctr.errors import ConfigError, DataError
from ctr.estimators.field_specs import field_specs, is_constant
from ctr.estimators.frames import Table, to_table
from ctr.estimators.study import Rows, valid_rows

# Where a parameter stands in the run configuration.
KEYS = {
    "penalty": "selector.penalty",
    "search_epochs": "selector.epochs",
    "backbone": "backbone.kind",
    "hidden": "backbone.hidden",
    "dropout": "backbone.dropout",
    "dim": "embedding.dim",
    "epochs": "training.epochs",
    "batch_size": "training.batch_size",
    "learning_rate": "training.learning_rate",
    "weight_decay": "training.weight_decay",
    "patience": "training.patience",
    "pair_dim": "selector.pair_dim",
    "max_memorized": "selector.max_memorized",
    "saliency": "selector.saliency",
    "n_jobs": "training.threads",
}


class Given(NamedTuple):
    """What an estimator is fitted on.

    classes: both labels, in ascending order. parts: numbers of the rows to train on, and to validate by.
    """

    table: Table
    rows: Rows
    classes: npt.NDArray[Any]
    parts: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
    seed: int


def given(estimator: Any, X: Any, y: Any, sample_weight: Any) -> Given:  # noqa: N803 - scikit-learn's names
    """Rows and labels, checked, and a validation share of them put aside.

    Raises:
        ValueError: they cannot be meant; the message says which and what to do.
        TypeError: a sparse matrix, or column names of several types.
    """
    who = type(estimator).__name__
    table = to_table(X, who)
    classes, labels = two_classes(checked_labels(y, table, who))
    rows = checked_rows(table, labels, sample_weight, who)
    seed = seed_of(estimator.random_state)
    parts = valid_rows(rows.labels, estimator.validation_fraction, estimator.shuffle, seed)
    return Given(table, rows, classes, parts, seed)


def note_columns(estimator: Any, table: Table) -> None:
    """Set `n_features_in_`, and `feature_names_in_` where columns had names."""
    estimator.n_features_in_ = table.frame.width
    if hasattr(estimator, "feature_names_in_"):
        del estimator.feature_names_in_
    if table.named:
        estimator.feature_names_in_ = np.array(table.frame.columns, dtype=object)


@contextmanager
def value_errors() -> Iterator[None]:
    """A user's mistake as scikit-learn raises it.

    Raises:
        ValueError: a `ConfigError` or a `DataError` in the context.
    """
    try:
        yield
    except (ConfigError, DataError) as error:
        raise ValueError(str(error)) from error


def checked_ratio(ratio: Any) -> float | None:
    """The share of values to keep; 1 is all of them, None is not stated.

    Raises:
        ValueError: it is no such share.
    """
    if ratio is None:
        return None
    number = isinstance(ratio, int | float | np.number) and not isinstance(ratio, bool)
    if not number or not 0.0 < ratio <= 1.0:
        raise ValueError(f"ratio: expected a share above 0, at most 1, found {ratio!r}")
    return float(ratio)


def settings_of(parameters: Mapping[str, Any], kind: str, ratio: Any) -> dict[str, Any]:
    """An estimator's parameters as settings of the run configuration, by "section.key"; its `settings` go last.

    Raises:
        ValueError: `ratio` is no share.
    """
    found: dict[str, Any] = {"selector.kind": kind, "selector.referees": []}
    ratio = checked_ratio(ratio)
    if ratio is not None and ratio < 1.0:
        found["selector.ratio"] = ratio
    for name, key in KEYS.items():
        value = parameters.get(name)
        if value is None:
            continue
        if isinstance(value, np.generic):
            value = value.item()
        elif isinstance(value, tuple):
            value = list(value)
        found[key] = value
    return {**found, **(parameters.get("settings") or {})}


def seed_of(random_state: Any) -> int:
    """A seed from what scikit-learn takes for one."""
    if isinstance(random_state, int | np.integer) and random_state >= 0:
        return int(random_state) % 2**31
    return int(check_random_state(random_state).randint(2**31 - 1))


def checked_labels(y: Any, table: Table, who: str) -> npt.NDArray[Any]:
    """(N,) labels, one for each row.

    Raises:
        ValueError: there are none, not as many, or some are missing or no classes.
    """
    if y is None:
        raise ValueError(f"{who} requires y to be passed, but the target y is None")
    labels: npt.NDArray[Any] = column_or_1d(np.asarray(y), warn=True)
    check_consistent_length(table.frame, labels)
    if labels.dtype.kind == "f":
        assert_all_finite(labels, input_name="y")
    elif labels.dtype == object and any(label is None or label != label for label in labels):
        raise ValueError("Input y contains NaN or None: expected a label for each row")
    check_classification_targets(labels)
    return labels


def two_classes(labels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Both classes in ascending order, and (N,) 0 and 1.

    Raises:
        ValueError: there are more, or one alone.
    """
    kind = type_of_target(labels, input_name="y")
    classes, codes = np.unique(labels, return_inverse=True)
    if kind != "binary":
        shown = ", ".join(repr(label) for label in classes[:5].tolist()) + (
            ", ..." if len(classes) > 5 else ""
        )
        raise ValueError(
            f"Only binary classification is supported. The type of the target is {kind}. y: expected labels of two "
            f"classes, such as 0 and 1, found {shown}"
        )
    if len(classes) < 2:
        raise ValueError(f"y holds one class alone, {classes.tolist()[0]!r}: expected labels of two classes")
    return classes, codes.astype(np.int64)


def checked_rows(table: Table, labels: npt.NDArray[np.int64], sample_weight: Any, who: str) -> Rows:
    """Rows to fit on; those of weight 0 are left out.

    Raises:
        ValueError: weights are not as many as rows, negative, not finite or all zero.
    """
    if table.frame.height == 1:
        raise ValueError(
            f"{who}: found n_samples = 1, expected rows of both classes to train and to validate"
        )
    if sample_weight is None:
        return Rows(table.frame, labels, None)
    weights = _check_sample_weight(sample_weight, table.frame, dtype=np.float64, ensure_non_negative=True)
    there = weights > 0
    if not there.any():
        raise ValueError("sample_weight: all weights are zero; expected some above it")
    return Rows(table.frame.filter(pl.Series(there)), labels[there], weights[there])


def used_fields(
    rows: Rows, train: npt.NDArray[np.int64], stated: Any, min_count: int, who: str
) -> tuple[list[FieldSpec], list[FieldSpec]]:
    """A field for each column, and those of them that tell the rows to train on apart.

    Raises:
        ConfigError, DataError: a field is stated wrongly, or a column has a type that it cannot have.
        ValueError: no column tells rows apart.
    """
    specs = field_specs(rows.frame, stated, min_count)
    used = [spec for spec in specs if not is_constant(spec, rows.frame[spec.name][train])]
    if not used:
        raise ValueError(f"{who}: all columns of X say the same in every row; expected one that does not")
    return specs, used
