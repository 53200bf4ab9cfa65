"""What selectors are as scikit-learn transformers: values of columns worth keeping, and rows without the rest.

Rows are encoded in a temporary folder, and searched or judged there by the parts of the pipeline that `ctr train` is
made of; a share of the rows that are fitted on (`validation_fraction`) is held back to validate by.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import polars as pl
import sklearn
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import ClassifierTags
from sklearn.utils.validation import check_is_fitted

from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.field_spec import FieldSpec
from ctr.estimators.fitting import checked_ratio, given, note_columns, settings_of, used_fields, value_errors
from ctr.estimators.frames import Table, returned, to_table
from ctr.estimators.kept_cells import kept_cells
from ctr.estimators.study import Study, study


class ValueSelector(TransformerMixin, BaseEstimator, auto_wrap_output_keys=None):  # type: ignore[misc,call-arg]
    """What all selectors do once it is known what chooses.

    Attributes:
        feature_set_: a `ctr.dataset.feature_set.FeatureSet`: every value with count, score and whether it is kept.
        kept_: number of values kept of each column.
        n_features_in_, feature_names_in_: columns fitted on; the names only where columns had some.
    """

    kind: ClassVar[str]

    feature_set_: FeatureSet
    kept_: dict[str, int]
    feature_names_in_: npt.NDArray[Any]

    def __sklearn_tags__(self) -> Any:
        """Categories, texts and missing cells are what these estimators are for; y is needed, of two classes."""
        tags = super().__sklearn_tags__()
        tags.classifier_tags = ClassifierTags(multi_class=False)
        tags.target_tags.required = True
        tags.input_tags.allow_nan = tags.input_tags.string = tags.input_tags.categorical = True
        return tags

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None) -> Self:  # noqa: N803 - scikit-learn's names
        """Choose what to keep.

        Args:
            X: rows (`ctr.estimators.frames.to_table`). y: labels of two classes, such as 0 and 1.
            sample_weight: how much each row counts.

        Raises:
            ValueError: rows, labels or parameters cannot be meant; the message says which and what to do.
            TypeError: a sparse matrix, or column names of several types.
        """
        who = type(self).__name__
        table, rows, _, parts, seed = given(self, X, y, sample_weight)
        parameters = self.get_params(deep=False)
        with value_errors():
            specs, used = used_fields(rows, parts[0], parameters["fields"], parameters["min_count"], who)
            kind, ratio = self._asked()
            with study(
                rows,
                used,
                settings_of(parameters, kind, ratio),
                parts,
                seed=seed,
                verbose=bool(parameters["verbose"]),
            ) as found:
                feature_set = self._chosen(found)
                entries = {entry["name"]: entry for entry in found.dataset.manifest["fields"]}
        self._take(table, feature_set, specs, entries)
        return self

    def transform(self, X: Any) -> Any:  # noqa: N803
        """Rows of the kept columns alone, with `dropped_value` (null by default) in place of dropped values.

        Returns:
            What was passed in: a Polars or pandas frame, or an array of objects; or what `set_output` says.

        Raises:
            NotFittedError: nothing was fitted.
            ValueError: columns are missing, or cells are no such thing as their column held.
        """
        check_is_fitted(self)
        table = self._columns(X)
        columns, changed = [], []
        with value_errors():
            for spec in self._specs:
                if self.kept_[spec.name]:
                    column = table.frame[spec.name]
                    columns.append(
                        kept_cells(
                            spec,
                            self._entries[spec.name],
                            self._features[spec.shares or spec.name],
                            column,
                            self.get_params(deep=False).get("dropped_value"),
                        )
                    )
                    if columns[-1] is not column:
                        changed.append(spec.name)
            columns += self._added(table.frame)
        return self._returned(columns, changed, table)

    def get_support(self, indices: bool = False) -> npt.NDArray[Any]:
        """Which columns are kept, at least in part: (F,) bool, or their positions.

        Raises:
            NotFittedError: nothing was fitted.
        """
        check_is_fitted(self)
        support = np.array([self.kept_[spec.name] > 0 for spec in self._specs])
        return np.flatnonzero(support) if indices else support

    def get_value_support(self) -> pl.DataFrame:
        """Every value that rows were seen with: field, value, count, score, kept.

        Of numbers cut into bins a value is the number of a bin. Scores compare within one selector alone.

        Raises:
            NotFittedError: nothing was fitted.
        """
        check_is_fitted(self)
        values = self.feature_set_.features.filter(pl.col("role") == "value")
        return values.select("field", "value", "count", pl.col("gate").alias("score"), "kept")

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[Any]:
        """Names of the columns that `transform` gives.

        Args:
            input_features: if given, must be the names of the columns fitted on.

        Raises:
            NotFittedError: nothing was fitted.
            ValueError: other names were given.
        """
        check_is_fitted(self)
        names = np.array([spec.name for spec in self._specs], dtype=object)
        if input_features is not None:
            given = np.asarray(input_features, dtype=object)
            if hasattr(self, "feature_names_in_") and not np.array_equal(given, self.feature_names_in_):
                raise ValueError("input_features is not equal to feature_names_in_")
            if len(given) != len(names):
                raise ValueError(
                    f"input_features should have length equal to number of features ({len(names)}), got {len(given)}"
                )
            names = given
        return np.concatenate([names[self.get_support()], np.array(self._added_names(), dtype=object)])

    def set_output(self, *, transform: str | None = None) -> Self:
        """What `transform` returns: "default" (what it is given), "pandas", "polars"; None leaves it as it is.

        Raises:
            ValueError: another word.
        """
        if transform not in (None, "default", "pandas", "polars"):
            raise ValueError(f'set_output: expected "default", "pandas" or "polars", found {transform!r}')
        if transform is not None:
            self._sklearn_output_config = {"transform": transform}  # where scikit-learn's clone looks
        return self

    def _asked(self) -> tuple[str, float | None]:
        """The kind of selector, and the share of values to keep; 1 is all of them."""
        ratio = checked_ratio(self.get_params(deep=False).get("ratio"))
        return self.kind if ratio != 1.0 else "all", ratio

    def _chosen(self, found: Study) -> FeatureSet:
        kind, ratio = self._asked()
        penalty = self.get_params(deep=False).get("penalty")
        return found.trainer.choose(kind, ratio=None if kind == "all" else ratio, penalty=penalty)

    def _added(self, frame: pl.DataFrame) -> list[pl.Series]:
        """Columns that `transform` appends."""
        return []

    def _added_names(self) -> list[str]:
        return []

    def _take(
        self,
        table: Table,
        feature_set: FeatureSet,
        specs: Sequence[FieldSpec],
        entries: Mapping[str, Mapping[str, Any]],
    ) -> None:
        """Keep what was found, as long as everything could be."""
        self.feature_set_, self._specs, self._entries = feature_set, list(specs), dict(entries)
        self._names = table.frame.columns
        features = feature_set.features
        self._features = dict.fromkeys(self._names, features.clear())
        for (name,), own in features.partition_by("field", as_dict=True).items():
            # Where every value is kept and no row fell to the unknown, there is nothing to hide in it.
            whole = own.filter(pl.col("role") == "value")["kept"].all()
            idle = (pl.col("role") == "unknown") & (pl.col("count") == 0) & pl.lit(whole)
            self._features[str(name)] = own.filter(pl.col("kept") | idle).select("role", "value")
        counts = {name: entry["kept"] for name, entry in feature_set.counts()["fields"].items()}
        self.kept_ = {
            spec.name: counts.get(spec.shares or spec.name, 0) if spec.name in entries else 0
            for spec in specs
        }
        note_columns(self, table)

    def _columns(self, X: Any) -> Table:  # noqa: N803
        who = type(self).__name__
        return to_table(X, who).columns(self._names, who)

    def _returned(self, columns: Sequence[pl.Series], changed: Sequence[str], table: Table) -> Any:
        frame = pl.DataFrame(columns) if columns else table.frame.select([])
        container = getattr(self, "_sklearn_output_config", {}).get("transform")
        return returned(frame, changed, table, container or sklearn.get_config()["transform_output"])
