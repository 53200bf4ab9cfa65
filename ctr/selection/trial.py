"""Trial: several rankings of values, each tried on valid at the size that is asked for; the best one chooses.

No ranking wins everywhere (docs/selectors.md): a frequency cut is hard to beat at mild pruning, second-order saliency
at strong pruning, Fisher saliency where a network soon learns its rare values by heart. Which of them a log calls for
shows without any retraining: close the gates of what a ranking drops in the trained keep-all network, and look at AUC
on valid. Frequency is what the others must beat there, by more than one standard error of the paired difference: it
has looked at no label, so what it loses on later rows is what it loses on valid.

Rankings come of a young network, saliency of which is less about what it has learned by heart: keep-all, which is
trained in any case, is asked after its first two epochs. So all that a trial costs is two passes over train, and one
forward pass over valid for each ranking and size.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from ctr.dataset.batches import Batches
from ctr.dataset.feature_set import Bools, FeatureSet, Floats
from ctr.dataset.store import Dataset
from ctr.evaluation.intervals import Z95, auc_difference
from ctr.evaluation.metrics import measure
from ctr.evaluation.sampling import row_weights
from ctr.network.gates import HardGate
from ctr.network.network import Network
from ctr.selection.referees import top_values
from ctr.selection.saliency import Saliency
from ctr.training.predict import predict

EPOCHS = 2  # of the network that ranks


@dataclass(frozen=True)
class Contest:
    """What is tried, and where.

    rankings: (V,) scores by name; the first is what the others must beat. network: keep-all, trained, without a gate.
    valid: rows in order, by a layout in which every feature has its own number, id + 1.
    """

    rankings: dict[str, Floats]
    network: Network
    valid: Batches


def rankings(dataset: Dataset, passes: Sequence[Saliency], coverage: Floats) -> dict[str, Floats]:
    """The rankings that are tried.

    Args:
        passes: saliency after each of the first `EPOCHS` epochs.
        coverage: (V,) how often values of a field still occur in valid (`ctr.selection.optfs.coverage`).

    Returns:
        (V,) scores by name: `frequency` and `frequency_covered`; `second_order_1`, `_2` after one epoch and after two,
        `second_order` and `fisher` of both together, and `both` by the mean of these two ranks.
    """
    from scipy.stats import rankdata

    counts = dataset.vocabulary["weighted_count"].to_numpy().astype(np.float64)
    second_order = [_covered(found.second_order, coverage) for found in passes]
    together = np.sum(second_order, axis=0)
    fisher = np.sum([found.fisher for found in passes], axis=0) * coverage
    return {
        "frequency": counts,
        "frequency_covered": counts * coverage,
        "second_order": together,
        **{f"second_order_{epoch}": scores for epoch, scores in enumerate(second_order, 1)},
        "fisher": fisher,
        "both": rankdata(together) + rankdata(fisher),
    }


def choose(contest: Contest, dataset: Dataset, count: int) -> FeatureSet:
    """The `count` values that the best ranking puts first.

    Returns:
        A set whose provenance names the ranking and states the AUC on valid of all that were tried.
    """
    part = contest.valid.part
    weights = row_weights(part.labels, part.weights, part.keep_rate)
    sets, tried = dict[str, FeatureSet](), dict[str, Floats]()
    for name, scores in contest.rankings.items():
        sets[name] = FeatureSet.of(dataset, top_values(dataset, scores, count), scores, {})
        tried[name] = _closed(contest, sets[name].kept)
    aucs = {name: measure(part.labels, found, weights).auc for name, found in tried.items()}
    first = best = next(iter(tried))
    for name in list(tried)[1:]:
        if aucs[name] > aucs[best]:
            found = auc_difference(part.labels, tried[first], tried[name], weights)
            if found.value > (found.high - found.low) / (2 * Z95):
                best = name
    provenance = {**sets[best].provenance, "selector": "trial", "ranking": best, "tried": aucs}
    return replace(sets[best], provenance=provenance)


def _closed(contest: Contest, kept: Bools) -> Floats:
    """Probabilities (N,) of the rows of valid where the gates of what is not kept, (V,) by global id, are closed."""
    network, gate = contest.network, np.concatenate([[False], kept])
    network.gate = HardGate(torch.from_numpy(gate)).to(network.device)
    try:
        return predict(network, contest.valid)
    finally:
        network.gate = None


def _covered(scores: Floats, coverage: Floats) -> Floats:
    """Gains count as far as they can still be collected; losses in full."""
    return np.where(scores > 0, scores * coverage, scores)
