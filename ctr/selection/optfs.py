"""OptFS: gates in front of the backbone find out which feature values pay.

Lyu et al., "Optimizing Feature Set for Click-Through Rate Prediction", WWW 2023 (arXiv 2301.10909). Search: weights and
gates train together while the temperature rises; gates harden; weights go back to an early copy; what is kept is
trained again. How the gates learn is ours: see `ctr.selection.evidence`.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ctr.config import SelectorConfig, Training
from ctr.dataset.batches import Batches
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.store import Dataset
from ctr.network.gates import SoftGate
from ctr.network.network import Network
from ctr.selection.evidence import EvidenceGates, Schedule
from ctr.selection.referees import number_to_keep, top_values, value_features
from ctr.training.fit import Epoch, Watcher, fit

DEFAULT_PRICE = 2.5  # nats, that is z = 2.24: about one meaningless feature in a hundred gets past it


@dataclass(frozen=True)
class Found:
    """What a search comes to: the features, the network to retrain from, and how it went."""

    feature_set: FeatureSet
    network: Network
    history: list[Epoch]


def search(
    network: Network,
    dataset: Dataset,
    train: Batches,
    valid: Batches,
    settings: SelectorConfig,
    training: Training,
    *,
    ratio: float | None,
    penalty: float | None,
    folder: Path,
    watcher: Watcher | None = None,
) -> Found:
    """Run one search.

    Args:
        network: over all features, fresh; a gate is put in front of it, and taken away again.
        ratio: share of vocabulary values to keep; the price follows.
        penalty: or the price itself: nats that a feature must save on the train rows.
        folder: for checkpoints; an interrupted search goes on from there.

    Returns:
        The feature set, and the network with its weights rewound to the start of `settings.rewind_epoch`.
    """
    device = network.table.weight.device
    network.gate = SoftGate(len(network.table.weight)).to(device)
    price = DEFAULT_PRICE if penalty is None else penalty
    schedule = Schedule(settings.epochs * len(train), len(train), settings.final_temperature)
    gates = EvidenceGates(
        network,
        schedule,
        price=price,
        ratio=ratio,
        values=torch.from_numpy(value_features(dataset)),
        rate=settings.gate_learning_rate,
        rewind_epoch=settings.rewind_epoch,
        folder=folder,
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
    scores = gates.scores().double().numpy()
    if ratio is None:
        kept = scores > gates.price
    else:
        kept = top_values(dataset, scores, number_to_keep(dataset, ratio))
    provenance = {"selector": "optfs", "ratio": ratio, "penalty": penalty, "price": gates.price}
    gate = (scores - gates.price) * (settings.gate_learning_rate / max(gates.price, 1.0))
    feature_set = FeatureSet.of(dataset, np.asarray(kept), gate, provenance)
    gates.detach()
    network.gate = None
    network.load_state_dict(gates.rewound())
    return Found(feature_set, network, result.history)
