"""The selectors, each with the parameters that apply to it."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

import polars as pl
from sklearn.utils.validation import check_is_fitted

from ctr.config import Referee
from ctr.dataset.feature_set import FeatureSet
from ctr.errors import nearest
from ctr.estimators.kept_cells import joint_cells
from ctr.estimators.study import Study
from ctr.estimators.value_selector import ValueSelector

Fields = Mapping[str, Mapping[str, Any]]


class OptFSSelector(ValueSelector):
    """Keeps the values that pay, as gates that are trained together with a network find them (OptFS).

    Lyu et al., "Optimizing Feature Set for Click-Through Rate Prediction", WWW 2023; see `ctr.selection.optfs`.

    Args:
        ratio: share of values to keep, those of most evidence. penalty: instead of it, the nats of log loss that a
            value must save over all rows to be kept; 2.5 where neither is stated.
        search_epochs: of the search.
        backbone, dim, hidden, dropout: of the network (`backbone` and `embedding` of the run configuration).
        batch_size, learning_rate, weight_decay: of its training.
        settings: everything else that a run configuration can say, by "section.key", such as
            {"embedding.kind": "unified", "selector.rewind_epoch": 1}; it goes before the parameters above.
        fields: of single columns, keys of a field as in a schema, such as {"price": {"kind": "numeric", "transform":
            "log_square"}, "user": {"min_count": 5}, "tags": {"kind": "list", "separator": "|"}}. Without it a column
            is what its type says (`ctr.estimators.field_specs`).
        min_count: values in fewer rows are none of their own.
        dropped_value: what `transform` puts in place of a dropped value; None leaves it missing.
        validation_fraction: share of the rows fitted on that the search is watched by. shuffle: whether it is drawn,
            or the last rows are taken, as they are the newest of a log.
        random_state: of that draw, first weights and the order of rows.
        n_jobs: threads of PyTorch; None takes all cores. verbose: whether progress goes to standard error.
    """

    kind = "optfs"

    def __init__(
        self,
        ratio: float | None = None,
        *,
        penalty: float | None = None,
        search_epochs: int = 3,
        backbone: str = "deepfm",
        dim: int = 16,
        hidden: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        batch_size: int = 1024,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        settings: Mapping[str, Any] | None = None,
        fields: Fields | None = None,
        min_count: int = 1,
        dropped_value: Any = None,
        validation_fraction: float = 0.1,
        shuffle: bool = True,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.ratio, self.penalty, self.search_epochs = ratio, penalty, search_epochs
        self.backbone, self.dim, self.hidden, self.dropout = backbone, dim, hidden, dropout
        self.batch_size, self.learning_rate, self.weight_decay = batch_size, learning_rate, weight_decay
        self.settings, self.fields, self.min_count = settings, fields, min_count
        self.dropped_value, self.validation_fraction, self.shuffle = (
            dropped_value,
            validation_fraction,
            shuffle,
        )
        self.random_state, self.n_jobs, self.verbose = random_state, n_jobs, verbose


class SaliencySelector(ValueSelector):
    """Keeps the values that the loss feels most, by one pass of a network that was trained with all of them.

    Args:
        ratio: share of values to keep.
        saliency: "second_order" or "fisher" (`ctr.selection.saliency`).
        epochs, patience: of the training: at most so many passes, and so many without a better AUC.
        others: see `OptFSSelector`.
    """

    kind = "saliency"

    def __init__(
        self,
        ratio: float = 0.5,
        *,
        saliency: str = "second_order",
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
        fields: Fields | None = None,
        min_count: int = 1,
        dropped_value: Any = None,
        validation_fraction: float = 0.1,
        shuffle: bool = True,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.ratio, self.saliency, self.epochs, self.patience = ratio, saliency, epochs, patience
        self.backbone, self.dim, self.hidden, self.dropout = backbone, dim, hidden, dropout
        self.batch_size, self.learning_rate, self.weight_decay = batch_size, learning_rate, weight_decay
        self.settings, self.fields, self.min_count = settings, fields, min_count
        self.dropped_value, self.validation_fraction, self.shuffle = (
            dropped_value,
            validation_fraction,
            shuffle,
        )
        self.random_state, self.n_jobs, self.verbose = random_state, n_jobs, verbose


class TrialSelector(ValueSelector):
    """Keeps what the best of several rankings of values puts first, each tried on the rows that validate.

    See `ctr.selection.trial`; `feature_set_.provenance` names the ranking and the AUC of all that were tried.

    Args:
        ratio: share of values to keep.
        epochs, patience: of the network they are tried on: at most so many passes, and so many without a better AUC.
        others: see `OptFSSelector`.
    """

    kind = "trial"

    def __init__(
        self,
        ratio: float = 0.5,
        *,
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
        fields: Fields | None = None,
        min_count: int = 1,
        dropped_value: Any = None,
        validation_fraction: float = 0.1,
        shuffle: bool = True,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.ratio, self.epochs, self.patience = ratio, epochs, patience
        self.backbone, self.dim, self.hidden, self.dropout = backbone, dim, hidden, dropout
        self.batch_size, self.learning_rate, self.weight_decay = batch_size, learning_rate, weight_decay
        self.settings, self.fields, self.min_count = settings, fields, min_count
        self.dropped_value, self.validation_fraction, self.shuffle = (
            dropped_value,
            validation_fraction,
            shuffle,
        )
        self.random_state, self.n_jobs, self.verbose = random_state, n_jobs, verbose


class FieldSelector(ValueSelector):
    """Keeps whole columns, those of the highest score, with as nearly a share of all values as they allow.

    Args:
        criterion: "mutual_information", "chi2", "l1", "permutation", "gain" or "gates": a referee `field_*`, as
            `docs/selectors.md` describes them.
        ratio: share of values to keep.
        search_epochs: of the search with gates. epochs, patience: of the network whose importances are measured by
            permutation.
        others: see `OptFSSelector`.
    """

    kind = "field"

    def __init__(
        self,
        criterion: str = "mutual_information",
        ratio: float = 0.5,
        *,
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
        fields: Fields | None = None,
        min_count: int = 1,
        dropped_value: Any = None,
        validation_fraction: float = 0.1,
        shuffle: bool = True,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.criterion, self.ratio, self.search_epochs = criterion, ratio, search_epochs
        self.epochs, self.patience = epochs, patience
        self.backbone, self.dim, self.hidden, self.dropout = backbone, dim, hidden, dropout
        self.batch_size, self.learning_rate, self.weight_decay = batch_size, learning_rate, weight_decay
        self.settings, self.fields, self.min_count = settings, fields, min_count
        self.dropped_value, self.validation_fraction, self.shuffle = (
            dropped_value,
            validation_fraction,
            shuffle,
        )
        self.random_state, self.n_jobs, self.verbose = random_state, n_jobs, verbose

    @property
    def scores_(self) -> dict[str, float]:
        """Score of each column that says anything."""
        check_is_fitted(self)
        scores: dict[str, float] = self.feature_set_.provenance["field_scores"]
        return scores

    def _asked(self) -> tuple[str, float | None]:
        known = [name.removeprefix("field_") for name in get_args(Referee) if name.startswith("field_")]
        if self.criterion not in known:
            raise ValueError(f"criterion: found {self.criterion!r}{nearest(str(self.criterion), known)}")
        kind, ratio = super()._asked()
        return kind if kind == "all" else f"field_{self.criterion}", ratio


class _Counting(ValueSelector):
    """A selector that looks at the rows and trains nothing."""

    def __init__(
        self,
        ratio: float = 0.5,
        *,
        fields: Fields | None = None,
        min_count: int = 1,
        dropped_value: Any = None,
        validation_fraction: float = 0.1,
        shuffle: bool = True,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self.ratio, self.fields, self.min_count = ratio, fields, min_count
        self.dropped_value, self.validation_fraction, self.shuffle = (
            dropped_value,
            validation_fraction,
            shuffle,
        )
        self.random_state, self.verbose = random_state, verbose


class FrequencySelector(_Counting):
    """Keeps the values seen most often.

    Args:
        ratio: share of values to keep.
        others: see `OptFSSelector`; values are counted in the rows that it would train on.
    """

    kind = "frequency"


class RandomSelector(_Counting):
    """Keeps values drawn at random: what any other selector must beat.

    Args:
        ratio: share of values to keep.
        others: see `OptFSSelector`.
    """

    kind = "random"


class OptInterSelector(ValueSelector):
    """Chooses how each pair of columns interacts, and gives the pairs worth memorizing as columns of their own.

    Lyu et al., "Memorize, Factorize, or be Naive", ICDE 2022; see `ctr.selection.optinter`. All columns and values
    stay; `transform` appends the joint value of each memorized pair, under the name "first*second".

    Args:
        search_epochs: of the search. pair_dim: floats of a pair's vector in it.
        max_memorized: most pairs to memorize; None is no limit.
        others: see `OptFSSelector`.

    """

    kind = "optinter"

    def __init__(
        self,
        *,
        search_epochs: int = 3,
        pair_dim: int = 8,
        max_memorized: int | None = None,
        backbone: str = "deepfm",
        dim: int = 16,
        hidden: Sequence[int] = (256, 128),
        dropout: float = 0.0,
        batch_size: int = 1024,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        settings: Mapping[str, Any] | None = None,
        fields: Fields | None = None,
        min_count: int = 1,
        validation_fraction: float = 0.1,
        shuffle: bool = True,
        random_state: Any = None,
        n_jobs: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.search_epochs, self.pair_dim, self.max_memorized = search_epochs, pair_dim, max_memorized
        self.backbone, self.dim, self.hidden, self.dropout = backbone, dim, hidden, dropout
        self.batch_size, self.learning_rate, self.weight_decay = batch_size, learning_rate, weight_decay
        self.settings, self.fields, self.min_count = settings, fields, min_count
        self.validation_fraction, self.shuffle = validation_fraction, shuffle
        self.random_state, self.n_jobs, self.verbose = random_state, n_jobs, verbose

    def _chosen(self, found: Study) -> FeatureSet:
        return found.trainer.choose_pairs(found.trainer.choose("all"))

    @property
    def pairs_(self) -> pl.DataFrame:
        """All pairs: field_a, field_b, method, its weights and strength."""
        check_is_fitted(self)
        assert self.feature_set_.interactions is not None
        return self.feature_set_.interactions

    def _added(self, frame: pl.DataFrame) -> list[pl.Series]:
        specs = {spec.name: spec for spec in self._specs}
        return [
            joint_cells(*((specs[name], self._entries[name], frame[name]) for name in pair)).alias(
                joint_name(*pair)
            )
            for pair in self.feature_set_.pairs("memorize")
        ]

    def _added_names(self) -> list[str]:
        return [joint_name(*pair) for pair in self.feature_set_.pairs("memorize")]


def joint_name(first: str, second: str) -> str:
    """Of the column of a pair."""
    return f"{first}*{second}"
