"""Numbers -> what the network sees of them: a bin to look up, or a scaled number."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

Floats = npt.NDArray[np.float64]


class Scale(NamedTuple):
    """A scaled number is (v - shift) * factor."""

    shift: float
    factor: float


def log_square(values: pl.Series) -> pl.Series:
    """Numbers v > 2 -> floor(ln(v)^2), else v without its fraction; Int64, nulls stay.

    Source: the winners of the Criteo challenge (3 Idiots, 2014), as OptFS uses it.
    """
    # Clipped where Int64 ends; no click log counts that far down.
    small = values.clip(lower_bound=-(2.0**63), upper_bound=2.0).cast(pl.Int64)
    logs = values.clip(lower_bound=2.0).log()
    squared = (logs * logs).floor().cast(pl.Int64)
    return small.zip_with(~(values > 2.0).fill_null(False), squared)


def quantile_edges(values: Floats, bins: int) -> list[float]:
    """Inner edges of `bins` bins of about equal size: bin k holds edge[k-1] < v <= edge[k]; equal edges are one."""
    if len(values) == 0:
        return []
    inner = np.quantile(values, np.arange(1, bins) / bins, method="inverted_cdf")
    edges = np.unique(inner)
    return [float(edge) for edge in edges[edges < values.max()]]


def quantile_bin(values: pl.Series, edges: Sequence[float]) -> pl.Series:
    """Number of the bin that each value falls in; Int64, nulls stay."""
    bins = np.searchsorted(np.array(edges, np.float64), values.fill_null(0.0).to_numpy(), side="left")
    return pl.Series(values.name, bins.astype(np.int64)).set(values.is_null(), None)


def scaled(values: pl.Series, scale: Scale) -> pl.Series:
    """(v - shift) * factor as Float32; 1 where missing, so that the missing feature enters as it is."""
    return ((values - scale.shift) * scale.factor).cast(pl.Float32).fill_null(1.0)


def scaled_vectors(values: pl.Series, scale: Scale) -> pl.Series:
    """Vectors times `scale.factor` as Array(Float32); zeros where missing, so that nothing is projected."""
    numbers = np.zeros((len(values), values.dtype.size), np.float32)  # type: ignore[attr-defined]  # an Array has a size
    present = values.is_not_null().to_numpy()
    numbers[present] = values.drop_nulls().to_numpy() * np.float32(scale.factor)
    return pl.Series(values.name, numbers, dtype=pl.Array(pl.Float32, numbers.shape[1]))


def scale_of(transform: str, count: int, mean: float, square: float, low: float, high: float) -> Scale:
    """The scale of `minmax`, `standard` or a `vector` from train statistics; a constant field keeps factor 1.

    A vector field is brought to a root mean square of about 1, as its numbers stand to each other.

    Args:
        transform: which.
        count: train rows with a number.
        mean: their mean.
        square: their sum of squared distances from it.
        low: their minimum.
        high: their maximum.
    """
    if transform == "vector":
        return Scale(0.0, 1.0 / mean if mean > 0 else 1.0)
    shift, spread = (low, high - low) if transform == "minmax" else (mean, math.sqrt(square / max(count, 1)))
    return Scale(shift, 1.0 / spread if spread > 0 else 1.0)
