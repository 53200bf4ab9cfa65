"""Referees that ask a network: the one that was trained with all features, which every job has anyway."""

from collections.abc import Callable
from dataclasses import dataclass

from ctr.config import SelectorConfig
from ctr.dataset.batches import Batches
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.store import Dataset
from ctr.network.network import Network
from ctr.selection.field_choice import fields_as_set, top_fields
from ctr.selection.optfs import coverage
from ctr.selection.permutation import permutation_importance
from ctr.selection.referees import top_values
from ctr.selection.saliency import saliency


@dataclass(frozen=True)
class KeepAll:
    """A trained network with all features, and what it can be asked about.

    train, valid: rows in order, by a layout in which every feature has its own number, id + 1.
    settings: what the configuration says of selectors.
    """

    network: Network
    train: Batches
    valid: Batches
    settings: SelectorConfig


def by_saliency(dataset: Dataset, count: int, seed: int, keep_all: KeepAll) -> FeatureSet:
    """The values that the loss over train rows feels most, by `settings.saliency` (`ctr.selection.saliency`).

    Scores are discounted by `coverage`, as the evidence of OptFS is.
    """
    rule = keep_all.settings.saliency
    found = saliency(keep_all.network, keep_all.train, dataset.features)
    scores = found.fisher if rule == "fisher" else found.second_order
    scores = scores * coverage(dataset, keep_all.valid.part)
    provenance = {"selector": "saliency", "saliency": rule}
    return FeatureSet.of(dataset, top_values(dataset, scores, count), scores, provenance)


def by_permutation(dataset: Dataset, count: int, seed: int, keep_all: KeepAll) -> FeatureSet:
    """The fields that AUC on valid misses most (`ctr.selection.permutation`), with about `count` values."""
    scores = permutation_importance(keep_all.network, keep_all.valid, dataset, seed)
    provenance = {"selector": "field_permutation", "seed": seed}
    return fields_as_set(dataset, top_fields(dataset, scores, count), scores, provenance)


NETWORK_REFEREES: dict[str, Callable[[Dataset, int, int, KeepAll], FeatureSet]] = {
    "saliency": by_saliency,
    "field_permutation": by_permutation,
}
