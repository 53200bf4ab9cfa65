"""How many values that mean nothing a search keeps: counted on shadow fields (`ctr.dataset.shadow`)."""

from typing import Any

import numpy as np
import polars as pl

from ctr.dataset.feature_set import Bools, FeatureSet, Floats
from ctr.dataset.shadow import Shadows
from ctr.dataset.store import Dataset
from ctr.evaluation.shares import share_interval
from ctr.network.network import Network
from ctr.selection.compaction import compact_network
from ctr.selection.referees import protected, value_features


def without_shadows(network: Network, shadows: Shadows) -> Network:
    """The part of a network over real fields and copies that reads the real ones."""
    kept = np.arange(shadows.dataset.features) < shadows.features
    features = shadows.dataset.vocabulary.with_columns(pl.lit(0.0).alias("gate"), pl.Series("kept", kept))
    return compact_network(network, shadows.dataset, FeatureSet(features))


def false_keeps(
    dataset: Dataset, shadows: Shadows, scores: Floats, kept: Bools, copied: Floats, price: float | None
) -> dict[str, Any]:
    """What of the copies would have been kept, by the rule that the real values were kept by.

    Args:
        scores, kept: (V,) of the real features.
        copied: scores of the copies' features, one copy after the other.
        price: what a score must exceed; None where a number of values was kept, those of the highest scores.

    Returns:
        Of the copies: fields {name of the field copied: {kept, total}}, kept, total and, with 95 % bounds, share
        {value, low, high} of their values, those that train rows hold. of_kept {value, low, high}: what share of the
        number kept would be kept by chance, were all values of the log without meaning; so at most so many of them are
        there by chance.
    """
    counts = shadows.dataset.vocabulary
    values = (counts["role"] == "value").to_numpy() & (counts["count"] > 0).to_numpy()
    weights = counts["weighted_count"].to_numpy()
    if price is not None:
        passed = copied > price
    else:
        score, weight = _last_kept(dataset, scores, kept)
        own = weights[shadows.features :]
        passed = (copied > score) | ((copied == score) & (own >= weight))
    fields = {}
    for field, other in zip(shadows.copied, shadows.copies, strict=True):
        at = np.arange(other.offset, other.offset + other.features)
        at = at[values[at]] - shadows.features
        fields[field.name] = {"kept": int(passed[at].sum()), "total": len(at)}
    number, total = sum(own["kept"] for own in fields.values()), sum(own["total"] for own in fields.values())
    share = share_interval(number, total)._asdict()
    real = values[: shadows.features] & ~protected(dataset)[1]
    ratio = int(real.sum()) / max(int((kept & real).sum()), 1)
    of_kept = {bound: min(1.0, value * ratio) for bound, value in share.items()}
    return {"fields": fields, "kept": number, "total": total, "share": share, "of_kept": of_kept}


def _last_kept(dataset: Dataset, scores: Floats, kept: Bools) -> tuple[float, float]:
    """Score and train rows of the value that was kept last; nothing passes where only protected ones were kept."""
    always, _ = protected(dataset)
    places = np.flatnonzero(kept & value_features(dataset) & ~always)
    if not len(places):
        return np.inf, np.inf
    weights = dataset.vocabulary["weighted_count"].to_numpy()
    last = places[np.lexsort((weights[places], scores[places]))[0]]
    return float(scores[last]), float(weights[last])
