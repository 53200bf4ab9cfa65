"""Referees that ask a network: the one that was trained with all features, which every job has anyway."""

from collections.abc import Callable
from dataclasses import dataclass

from ctr.config import SelectorConfig
from ctr.dataset.batches import Batches
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.store import Dataset
from ctr.network.network import Network
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
    """The values that the loss over train rows feels most, by `settings.saliency` (`ctr.selection.saliency`)."""
    rule = keep_all.settings.saliency
    found = saliency(keep_all.network, keep_all.train, dataset.features)
    scores = found.fisher if rule == "fisher" else found.second_order
    provenance = {"selector": "saliency", "saliency": rule}
    return FeatureSet.of(dataset, top_values(dataset, scores, count), scores, provenance)


NETWORK_REFEREES: dict[str, Callable[[Dataset, int, int, KeepAll], FeatureSet]] = {
    "saliency": by_saliency,
}
