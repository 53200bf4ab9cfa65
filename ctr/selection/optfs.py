"""OptFS: gates in front of the backbone find out which feature values pay.

Lyu et al., "Optimizing Feature Set for Click-Through Rate Prediction", WWW 2023 (arXiv 2301.10909). Search: weights and
gates train together while the temperature rises; gates harden; weights go back to an early copy; what is kept is
trained again. How the gates learn is ours: see `ctr.selection.evidence`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from ctr.config import SelectorConfig, Training
from ctr.dataset.batches import Batches
from ctr.dataset.feature_set import FeatureSet, Floats
from ctr.dataset.shadow import Shadows
from ctr.dataset.store import MISSING, UNKNOWN, Dataset, Part
from ctr.network.gates import SoftGate
from ctr.network.network import Network
from ctr.selection.evidence import EvidenceGates, Schedule
from ctr.selection.referees import number_to_keep, protected, top_values, value_features
from ctr.selection.shadow import false_keeps
from ctr.training.fit import fit
from ctr.training.looks import Look, Watcher

_ROWS_AT_A_TIME = 1_000_000
DEFAULT_PRICE = 2.5  # nats, that is z = 2.24: about one meaningless feature in forty gets past it


@dataclass(frozen=True)
class Search:
    """What a search comes to.

    evidence: (V,) by global id, nats that each feature saves on the train rows.
    price: what a feature had to save for its gate to stay open. rate: of the gates.
    network: with the weights to retrain from.
    shadows: the shadow fields that were searched as well, and copied: the evidence of their features.
    """

    evidence: Floats
    price: float
    rate: float
    network: Network
    history: list[Look]
    shadows: Shadows | None = None
    copied: Floats | None = None

    def without(self, shadows: Shadows, network: Network) -> "Search":
        """The same of the real features alone; what the copies came to is put aside.

        Args:
            network: with the weights to retrain from, over the real features.
        """
        real, copied = np.split(self.evidence, [shadows.features])
        return replace(self, evidence=real, network=network, shadows=shadows, copied=copied)


def search(
    network: Network,
    dataset: Dataset,
    train: Batches,
    valid: Batches,
    settings: SelectorConfig,
    training: Training,
    *,
    price: float,
    folder: Path,
    watcher: Watcher | None = None,
) -> Search:
    """Train weights and gates together.

    Args:
        network: over all features, fresh; a gate is put in front of it, and taken away again.
        price: nats that a feature must save on the train rows.
        folder: for checkpoints; an interrupted search goes on from there.

    Returns:
        Evidence, and the network with its weights rewound to `settings.rewind_epoch`.
    """
    network.gate = SoftGate(dataset.features + 1).to(network.device)
    always, never = protected(dataset)
    schedule = Schedule(settings.epochs * len(train), len(train), settings.final_temperature)
    gates = EvidenceGates(
        network,
        schedule,
        price=price,
        values=torch.from_numpy(value_features(dataset)),
        rate=settings.gate_learning_rate,
        rewind_epoch=settings.rewind_epoch,
        folder=folder,
        always=torch.from_numpy(always),
        never=torch.from_numpy(never),
    )
    result = fit(
        network,
        train,
        valid,
        training,
        folder=folder,
        epochs=settings.epochs,
        companion=gates,
        watcher=watcher,
    )
    evidence = gates.scores().double().numpy()
    gates.detach()
    network.gate = None
    network.load_state_dict(gates.rewound())
    return Search(evidence, price, settings.gate_learning_rate, network, result.history)


def choose(found: Search, dataset: Dataset, valid: Part, ratio: float | None) -> FeatureSet:
    """Harden the gates of a search.

    Args:
        valid: how much of each field's values is still seen there discounts the evidence.
        ratio: share of vocabulary values to keep, those of most evidence; None keeps what is worth the price.

    NOTE[DIFF] The paper keeps what has a gate above zero, so that the number kept follows from lambda; a ratio ranks
    instead. Evidence is discounted by `coverage`, which the paper does not have.
    """
    discounts = coverage(dataset, valid)
    scores = found.evidence * discounts
    worth = scores > found.price
    kept = worth if ratio is None else top_values(dataset, scores, number_to_keep(dataset, ratio))
    gate = (scores - found.price) * (found.rate / max(found.price, 1.0))
    provenance: dict[str, Any] = {"selector": "optfs", "ratio": ratio, "price": found.price}
    if found.shadows is not None and found.copied is not None:
        starts = [(field.offset, field.features) for field in found.shadows.copied]
        own = np.concatenate([discounts[start : start + features] for start, features in starts])
        price = found.price if ratio is None else None
        provenance["shadow"] = false_keeps(dataset, found.shadows, scores, kept, found.copied * own, price)
    return FeatureSet.of(dataset, np.asarray(kept), gate, provenance)


def _global_ids(dataset: Dataset, part: Part) -> Iterator[npt.NDArray[np.int64]]:
    """The global ids of all values of a part, a stretch of rows at a time; of lists all at once."""
    singles = np.array([info.offset + UNKNOWN for info in dataset.fields if info.kind != "list"], np.int64)
    lists = [info.offset + UNKNOWN for info in dataset.fields if info.kind == "list"]

    def numbered(ids: npt.NDArray[Any], unknown: Any) -> npt.NDArray[np.int64]:
        if not dataset.hashed:
            return np.asarray(ids)
        return dataset.numbered(np.ascontiguousarray(ids).view(np.uint64), np.asarray(unknown))

    for start in range(0, len(part), _ROWS_AT_A_TIME):
        yield numbered(part.ids[start : start + _ROWS_AT_A_TIME], singles)
    for (flat, _), unknown in zip(part.lists, lists, strict=True):
        yield numbered(np.asarray(flat), unknown)


def coverage(dataset: Dataset, valid: Part) -> Floats:
    """(V,) by field: how often its vocabulary values occur in a valid row, relative to a train row, at most 1.

    Evidence counts rows of the past. Where values go out of use (users who never come back, ads that have run), less
    of it will ever be collected again.
    """
    seen = np.zeros(dataset.features)
    for ids in _global_ids(dataset, valid):
        seen += np.bincount(ids.ravel(), minlength=dataset.features)
    counted = dataset.vocabulary["count"].to_numpy()
    rows = dataset.manifest["rows"]
    result = np.ones(dataset.features)
    for info in dataset.fields:
        values = slice(info.offset + MISSING + 1, info.offset + info.features)
        before, now = counted[values].sum() / rows["train"], seen[values].sum() / rows["valid"]
        result[info.offset : info.offset + info.features] = min(1.0, now / before) if before else 1.0
    return result
