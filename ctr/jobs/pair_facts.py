"""What a report says of interactions: the method of each pair, and what the pairs that were chosen are worth."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ctr.dataset.batches import Batches, shuffled
from ctr.dataset.stacked import subset
from ctr.dataset.store import Part
from ctr.evaluation.intervals import auc_difference
from ctr.jobs.models import Model
from ctr.network.network import Network
from ctr.training.predict import predict

SWITCHED_OFF = 40  # pairs, the strongest ones: each costs a pass over the rows
ROWS = 50_000  # of valid, at most
_BATCH = 8192


def interactions(model: Model, valid: Part) -> dict[str, Any] | None:
    """Every pair with its method and strength; of the strongest ones in use, the AUC that valid loses without them.

    A pair is switched off by giving all rows its mean vector: what it tells about a row is gone, and nothing else. The
    intervals are paired, on the same rows of valid, all or a sample. None where pairs were not chosen.
    """
    if model.feature_set is None or model.feature_set.interactions is None:
        return None
    frame = model.feature_set.interactions
    used = frame.filter(frame["method"] != "naive").sort("strength", descending=True).head(SWITCHED_OFF)
    pairs = list(zip(used["field_a"], used["field_b"], strict=True))
    part = valid
    if len(valid) > ROWS:
        part = subset(valid, np.sort(shuffled(np.arange(ROWS), len(valid), seed=0, epoch=0)))
    lost = _lost(model, part, pairs) if pairs else {}
    shown = ("field_a", "field_b", "method", "strength")
    return {
        "pairs": frame.select(shown).to_dicts(),
        "valid_rows": len(part),
        "switched_off": sorted(
            (
                {**row, "auc_lost": lost[row["field_a"], row["field_b"]]}
                for row in used.select(shown).to_dicts()
            ),
            key=lambda row: -row["auc_lost"]["value"],
        ),
    }


def _lost(model: Model, part: Part, pairs: list[tuple[str, str]]) -> dict[tuple[str, str], dict[str, float]]:
    """AUC with all pairs less AUC without one of them."""
    assert model.feature_set is not None
    network, batches = model.load(), Batches(part, model.layout, _BATCH)
    modelled = [*model.feature_set.pairs("memorize"), *model.feature_set.pairs("factorize")]
    whole, mean = _with_mean(network, batches)
    width = len(mean) // len(modelled)
    found = {}
    for pair in pairs:
        number = modelled.index(pair)
        columns = slice(number * width, (number + 1) * width)
        without = _without(network, batches, columns, mean[columns])
        interval = auc_difference(part.labels, without, whole, part.weights)
        found[pair] = interval._asdict()
    return found


def _with_mean(network: Network, batches: Batches) -> tuple[np.ndarray[Any, Any], Tensor]:
    """Probabilities, and the mean of the vectors of all pairs side by side."""
    assert network.crosses is not None
    sums: list[Tensor] = []
    hook = network.crosses.register_forward_hook(
        lambda module, arguments, output: sums.append(output.detach().double().sum(0))
    )
    found = predict(network, batches)
    hook.remove()
    return found, (torch.stack(sums).sum(0) / len(batches.part)).float()


def _without(network: Network, batches: Batches, columns: slice, values: Tensor) -> np.ndarray[Any, Any]:
    assert network.crosses is not None

    def replaced(module: torch.nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        other = output.clone()
        other[:, columns] = values
        return other

    hook = network.crosses.register_forward_hook(replaced)
    found = predict(network, batches)
    hook.remove()
    return found
