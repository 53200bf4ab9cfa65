"""Referees: cheap selectors that run at the same size as the clever one, to show what cleverness is worth."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ctr.dataset.feature_set import Bools, FeatureSet, Floats
from ctr.dataset.store import MISSING, UNKNOWN, Dataset
from ctr.selection.field_referees import FIELD_REFEREES


def value_features(dataset: Dataset) -> Bools:
    """(V,) which features are vocabulary values: not unknown, not missing."""
    values = np.ones(dataset.features, dtype=bool)
    for info in dataset.fields:
        values[[info.offset + UNKNOWN, info.offset + MISSING]] = False
    return values


def protected(dataset: Dataset) -> tuple[Bools, Bools]:
    """(V,) the features that the schema says to keep always, and those that it says never to keep."""
    always, never = np.zeros(dataset.features, np.bool_), np.zeros(dataset.features, np.bool_)
    for info in dataset.fields:
        own = slice(info.offset, info.offset + info.features)
        always[own], never[own] = info.always, info.never
    return always, never


def top_values(dataset: Dataset, scores: Floats, count: int) -> Bools:
    """(V,) the `count` values of the highest score; of equal ones the more frequent, then the one of lower id.

    Values that the schema keeps always count among them and come first; those that it never keeps are no candidates.
    Missing is kept where its score is at least that of the last value kept and some train row holds it. (Unknown is
    left to `FeatureSet.of`.)
    """
    always, never = protected(dataset)
    scores = np.where(always, np.inf, scores)
    values = np.flatnonzero(value_features(dataset) & ~never)
    count = max(count, int(always[values].sum()))
    frequency = dataset.vocabulary["weighted_count"].to_numpy()
    order = np.lexsort((values, -frequency[values], -scores[values]))
    chosen = values[order[:count]]
    kept = (frequency > 0) & (scores >= (scores[chosen].min() if len(chosen) else np.inf))
    kept[value_features(dataset)] = False
    kept[chosen] = True
    return kept


def number_to_keep(dataset: Dataset, ratio: float) -> int:
    """Values that a share of `ratio` comes to, at least one."""
    return max(1, round(ratio * int(value_features(dataset).sum())))


def frequency(dataset: Dataset, count: int, seed: int) -> FeatureSet:
    """The values seen most often in train, by weight where rows have one."""
    scores = dataset.vocabulary["weighted_count"].to_numpy()
    return FeatureSet.of(dataset, top_values(dataset, scores, count), scores, {"selector": "frequency"})


def random(dataset: Dataset, count: int, seed: int) -> FeatureSet:
    """Values drawn at random."""
    scores: npt.NDArray[np.float64] = np.random.default_rng(seed).random(dataset.features)
    return FeatureSet.of(
        dataset, top_values(dataset, scores, count), scores, {"selector": "random", "seed": seed}
    )


def keep_all(dataset: Dataset, count: int, seed: int) -> FeatureSet:
    """Every feature; `count` is not asked."""
    everything = np.ones(dataset.features, dtype=bool)
    return FeatureSet.of(dataset, everything, everything.astype(np.float64), {"selector": "all"})


REFEREES: dict[str, Callable[[Dataset, int, int], FeatureSet]] = {
    "all": keep_all,
    "frequency": frequency,
    "random": random,
    **FIELD_REFEREES,
}
