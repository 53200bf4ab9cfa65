"""What users hold rows in - Polars, pandas, Arrow, NumPy, lists of dicts - as one frame, and back again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from sklearn.utils import check_array

from ctr.errors import nearest

Container = Literal["polars", "pandas", "array"]


@dataclass(frozen=True)
class Table:
    """Rows as a Polars frame, and what they came in.

    named: whether the columns have names of their own; otherwise they are x0, x1, ... given: what was passed in.
    """

    frame: pl.DataFrame
    container: Container
    named: bool
    given: Any

    def columns(self, names: Sequence[str], who: str) -> "Table":
        """The columns that an estimator was fitted on, in that order; columns without names are counted instead.

        Raises:
            ValueError: columns are missing, or as many as were fitted are not there.
        """
        if not self.named and self.frame.width != len(names):
            raise ValueError(
                f"X has {self.frame.width} features, but {who} is expecting {len(names)} features as input"
            )
        if not self.named:
            renamed = dict(zip(self.frame.columns, names, strict=True))
            return Table(self.frame.rename(renamed), self.container, False, self.given)
        there = self.frame.columns
        missing = [name for name in names if name not in there]
        if missing:
            hint = nearest(missing[0], [name for name in there if name not in names])
            shown = ", ".join(f'"{name}"' for name in missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise ValueError(
                f"{who}: X lacks {len(missing)} of the columns that it was fitted on: {shown}{hint}"
            )
        return Table(self.frame.select(names), self.container, True, self.given)


def to_table(X: Any, who: str) -> Table:  # noqa: N803 - scikit-learn's name
    """Rows of any kind as a `Table`; numbers and texts are left as they are.

    Args:
        X: a Polars or pandas frame, anything with an Arrow stream, a list of dicts, or what NumPy makes two dimensions
            of. who: the estimator's name, for messages.

    Raises:
        ValueError: no rows, no columns, a column of values of several types, columns of one name, or other dimensions.
        TypeError: a sparse matrix, or column names of several types.
    """
    if isinstance(X, pl.LazyFrame):
        X = X.collect()  # noqa: N806
    if isinstance(X, pl.DataFrame):
        table = Table(X, "polars", True, X)
    elif type(X).__module__.split(".")[0] == "pandas" and hasattr(X, "columns"):
        table = _from_pandas(X)
    elif isinstance(X, Sequence) and len(X) and all(isinstance(row, Mapping) for row in X):
        table = Table(_of_dicts(X), "polars", True, X)
    elif hasattr(X, "__arrow_c_stream__") and not isinstance(X, pl.Series):
        table = Table(pl.DataFrame(X), "polars", True, X)
    else:
        table = _from_array(X, who)
    for count, what in ((len(table.frame.columns), "feature(s)"), (table.frame.height, "sample(s)")):
        if count == 0:
            shape = getattr(X, "shape", table.frame.shape)
            raise ValueError(
                f"Found array with 0 {what} (shape={shape}) while a minimum of 1 is required by {who}."
            )
    return table


def returned(frame: pl.DataFrame, changed: Sequence[str], table: Table, container: str) -> Any:
    """Rows in the container that was asked for.

    Args:
        frame: rows in the order of `table`. changed: columns that are not as they were.
        container: "default" is what the rows came in; "polars" or "pandas".
    """
    kind = table.container if container == "default" else container
    if kind == "polars":
        return frame
    if kind == "array":
        return _to_array(frame, table.given)
    if table.container != "pandas":
        return frame.to_pandas()
    # Columns that stay as they are keep their own types, and all of them their index.
    original = table.given
    names = {str(name): name for name in original.columns} if table.named else {}
    if not table.named:
        names = {f"x{place}": name for place, name in enumerate(original.columns)}
    same = [name for name in frame.columns if name in names and name not in changed]
    result = original[[names[name] for name in same]].set_axis(same, axis=1)
    for name in frame.columns:
        if name not in same:
            result[name] = frame[name].to_pandas().set_axis(original.index)
    return result[frame.columns]


def _from_pandas(X: Any) -> Table:  # noqa: N803
    kinds = {isinstance(name, str) for name in X.columns}
    if len(kinds) > 1:
        raise TypeError(
            "Feature names are only supported if all input features have string names: found names of several types; "
            "X.columns = X.columns.astype(str) makes them text"
        )
    named = kinds == {True}
    names = list(X.columns) if named else [f"x{place}" for place in range(X.shape[1])]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"X has several columns of the name {', '.join(f'{name!r}' for name in twice)}")
    columns = []
    for place, name in enumerate(names):
        try:
            columns.append(pl.Series(name, pl.from_pandas(X.iloc[:, place])))
        except (TypeError, ValueError) as error:  # Arrow's own errors are among them
            raise _several_types(name, error) from None
    return Table(pl.DataFrame(columns), "pandas", named, X)


def _of_dicts(rows: Sequence[Any]) -> pl.DataFrame:
    names = list(dict.fromkeys(name for row in rows for name in row))
    if not all(isinstance(name, str) for name in names):
        raise TypeError("Feature names are only supported if all input features have string names")
    return pl.DataFrame([_column(name, [row.get(name) for row in rows]) for name in names])


def _from_array(X: Any, who: str) -> Table:  # noqa: N803
    array = check_array(
        X,
        dtype=None,
        ensure_all_finite=False,
        ensure_min_samples=0,
        ensure_min_features=0,
        estimator=who,
    )
    columns = []
    for place in range(array.shape[1]):
        name, cells = f"x{place}", array[:, place]
        columns.append(
            _column(name, cells.tolist())
            if cells.dtype == object
            else pl.Series(name, np.ascontiguousarray(cells), nan_to_null=cells.dtype.kind == "f")
        )
    return Table(pl.DataFrame(columns), "array", False, array)


def _column(name: str, cells: list[Any]) -> pl.Series:
    try:
        column = pl.Series(name, [None if _is_nan(cell) else cell for cell in cells], strict=True)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        raise _several_types(name, error) from None
    if column.dtype == pl.Object:
        raise _several_types(name, None)
    return column


def _is_nan(cell: Any) -> bool:
    return isinstance(cell, float) and cell != cell


def _several_types(name: str, error: Exception | None) -> ValueError:
    found = f" ({str(error).splitlines()[0]})" if error is not None and str(error) else ""
    return ValueError(
        f'column "{name}" holds values that are not of one type, text or number{found}; make them all text, for example'
    )


def _to_array(frame: pl.DataFrame, given: Any) -> Any:
    """(N, F) numbers where all columns are, NaN where they are null; objects otherwise, None where they are null."""
    if frame.width and all(dtype.is_numeric() or dtype == pl.Boolean for dtype in frame.dtypes):
        floats = frame.select(pl.all().cast(pl.Float64)).to_numpy()
        if given.dtype.kind == "f" or (given.dtype.kind in "iu" and not np.isnan(floats).any()):
            return floats.astype(given.dtype)
        if given.dtype.kind in "iu":
            return floats
    columns = [np.array([*column.to_list(), None], dtype=object)[:-1] for column in frame.get_columns()]
    return np.column_stack(columns) if columns else np.empty((frame.height, 0), dtype=object)
