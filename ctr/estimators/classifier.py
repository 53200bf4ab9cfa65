"""A classifier in front of the pipeline: keep-all or what a selector keeps, trained again and exported as a bundle."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from ctr.estimators.fitting import given, note_columns, settings_of, used_fields, value_errors
from ctr.estimators.frames import to_table
from ctr.estimators.study import Study, study
from ctr.evaluation.metrics import measure
from ctr.jobs.models import Model
from ctr.serving.export import export_bundle
from ctr.serving.scorer import Scorer

_FURTHEST = 1e-15  # a probability from 0 and 1, so that its logit is finite


class CTRClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A network over columns of categories, numbers and lists, as `ctr train` trains it.

    Args:
        selector: "none" keeps every value; or a `selector.kind`, whose choice is trained again in a compact network.
        ratio, penalty: how much the selector keeps.
        epochs, patience: at most so many passes over the rows, and so many without a better AUC on validation rows.
        others: see `ctr.estimators.selectors.OptFSSelector`.

    Attributes:
        classes_: both labels, the one whose probability is modelled second.
        feature_set_: what the selector keeps; None where everything is.
        bundle_: the files of a bundle by name, which `save_bundle` writes: what `ctr score` reads.
        valid_auc_: on validation rows.
        n_features_in_, feature_names_in_: columns fitted on; the names only where columns had some.
    """

    feature_names_in_: npt.NDArray[Any]
    _scorer: Scorer | None

    def __init__(
        self,
        selector: str = "none",
        *,
        ratio: float | None = None,
        penalty: float | None = None,
        search_epochs: int = 3,
        epochs: int = 20,
        patience: float = 3.0,
        backbone: str = "deepfm",
        dim: int = 16,
        hidden: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        batch_size: int = 1024,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        settings: Mapping[str, Any] | None = None,
        fields: Mapping[str, Mapping[str, Any]] | None = None,
        min_count: int = 1,
        validation_fraction: float = 0.1,
        shuffle: bool = True,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.selector, self.ratio, self.penalty, self.search_epochs = selector, ratio, penalty, search_epochs
        self.epochs, self.patience, self.backbone, self.dim = epochs, patience, backbone, dim
        self.hidden, self.dropout, self.batch_size = hidden, dropout, batch_size
        self.learning_rate, self.weight_decay, self.settings = learning_rate, weight_decay, settings
        self.fields, self.min_count, self.validation_fraction = fields, min_count, validation_fraction
        self.shuffle, self.random_state, self.n_jobs, self.verbose = shuffle, random_state, n_jobs, verbose

    def __sklearn_tags__(self) -> Any:
        """Two classes; categories, texts and missing cells are what it is for."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
        return tags

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:  # noqa: N803 - scikit-learn's names
        """Train.

        Args:
            X: rows (`ctr.estimators.frames.to_table`). y: labels of two classes.
            sample_weight: how much each row counts.

        Raises:
            ValueError: rows, labels or parameters cannot be meant; the message says which and what to do.
            TypeError: a sparse matrix, or column names of several types.
        """
        who = type(self).__name__
        table, rows, classes, parts, seed = given(self, X, y, sample_weight)
        with value_errors():
            specs, used = used_fields(rows, parts[0], self.fields, self.min_count, who)
            parameters = self.get_params(deep=False)
            with study(
                rows,
                used,
                settings_of(parameters, self.selector, self.ratio),
                parts,
                seed=seed,
                verbose=self.verbose,
            ) as found:
                model = self._trained(found)
                auc, bundle = _exported(found, model)
        self.classes_, self.feature_set_, self.bundle_, self.valid_auc_ = (
            classes,
            model.feature_set,
            bundle,
            auc,
        )
        self._names, self._scorer = [spec.name for spec in specs], _opened(bundle)
        note_columns(self, table)
        return self

    def predict_proba(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """(N, 2) probabilities of the classes, in the order of `classes_`.

        Raises:
            NotFittedError: nothing was fitted.
            ValueError: columns are missing, or cells are no such thing as their column held.
        """
        check_is_fitted(self)
        who = type(self).__name__
        frame = to_table(X, who).columns(self._names, who).frame
        with value_errors():
            if self._scorer is None:
                self._scorer = _opened(self.bundle_)
            found = self._scorer.score(frame)
        broken = np.flatnonzero(np.isnan(found))
        if len(broken):
            raise ValueError(
                f"{who}: {len(broken)} rows hold cells that are no such thing as their columns held when it was "
                f"fitted, such as text among numbers; the first is row {broken[0]}"
            )
        return np.column_stack([1.0 - found, found])

    def predict(self, X: Any) -> npt.NDArray[Any]:  # noqa: N803
        """(N,) the more probable class of each row.

        Raises:
            NotFittedError, ValueError: see `predict_proba`.
        """
        second = self.decision_function(X) > 0.0
        labels: npt.NDArray[Any] = self.classes_[second.astype(np.int64)]
        return labels

    def decision_function(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """(N,) log odds of the second class.

        Raises:
            NotFittedError, ValueError: see `predict_proba`.
        """
        found = np.clip(self.predict_proba(X)[:, 1], _FURTHEST, 1.0 - _FURTHEST)
        logits: npt.NDArray[np.float64] = np.log(found) - np.log1p(-found)
        return logits

    def save_bundle(self, folder: str | Path) -> Path:
        """Write the bundle: `ctr score FOLDER FILE --out FILE` gives the same probabilities.

        Raises:
            NotFittedError: nothing was fitted.
            FileExistsError: there is such a folder.
        """
        check_is_fitted(self)
        folder = Path(folder)
        if folder.exists():
            raise FileExistsError(f'"{folder}" is there already; delete it, or state another folder')
        folder.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            _write(scratch, self.bundle_)
            scratch.chmod(0o755)
            return scratch.rename(folder)
        except BaseException:
            shutil.rmtree(scratch, ignore_errors=True)
            raise

    def __getstate__(self) -> dict[str, Any]:
        """Without the opened scorer, which is made again from the bundle."""
        state: dict[str, Any] = super().__getstate__()
        return {**state, "_scorer": None} if "_scorer" in state else state

    def _trained(self, found: Study) -> Model:
        kind = found.config.selector.kind
        if kind == "none":
            return found.trainer.baseline()
        return found.trainer.select(kind, ratio=self.ratio, penalty=self.penalty)


def _exported(found: Study, model: Model) -> tuple[float, dict[str, bytes]]:
    """AUC on validation rows, and the files of a bundle by name."""
    valid = found.trainer.valid
    numbers = measure(valid.labels, model.predict(valid, found.trainer.device), valid.weights)
    metrics = {"valid": {"auc": numbers.auc, "logloss": numbers.logloss}}
    entry = {"trained_on": ["train"], "steps": model.best_step, "window": None, "metrics": metrics}
    folder = found.source.parent / "bundle"
    export_bundle(
        folder,
        dataset=found.dataset,
        source=found.source,
        network=model.load(),
        architecture=model.architecture,
        layout=model.layout,
        feature_set=model.feature_set,
        metrics=metrics,
        model={"refit": "none", "evaluated": entry, "shipped": entry},
        provenance={"run": "scikit-learn", "seed": found.config.seed, "selector": model.selector},
        crosses=model.crosses,
    )
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return numbers.auc, {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def _opened(bundle: Mapping[str, bytes]) -> Scorer:
    with tempfile.TemporaryDirectory(prefix="ctr-") as folder:
        _write(Path(folder), bundle)
        return Scorer(folder)


def _write(folder: Path, bundle: Mapping[str, bytes]) -> None:
    for name, content in bundle.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
