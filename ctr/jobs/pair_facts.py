"""What a report says of interactions: the method of each pair, and what the pairs that were chosen are worth."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ctr.dataset.batches import Batches, shuffled
from ctr.dataset.stacked import subset
from ctr.dataset.store import Part
from ctr.evaluation.intervals import auc_difference
from ctr.jobs.models import Model
from ctr.network.network import Network
from ctr.training.feeding import to_inputs

SWITCHED_OFF = 40  # pairs, the strongest ones: each costs a pass of the rows through the backbone
ROWS = 50_000  # of valid, at most
_BATCH = 8192
Floats = npt.NDArray[np.float64]


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
    network, batches = model.load().eval(), Batches(part, model.layout, _BATCH)
    modelled = [*model.feature_set.pairs("memorize"), *model.feature_set.pairs("factorize")]
    mean = _mean(network, batches)  # (P * d,)
    width = len(mean) // len(modelled)
    starts = [modelled.index(pair) * width for pair in pairs]
    whole, without = _logits(network, batches, mean, [slice(start, start + width) for start in starts])
    return {
        pair: auc_difference(part.labels, logits, whole, part.weights)._asdict()
        for pair, logits in zip(pairs, without, strict=True)
    }


@torch.no_grad()
def _mean(network: Network, batches: Batches) -> Tensor:
    """Of the vectors of all pairs side by side, over rows."""
    assert network.crosses is not None
    sums = [
        network.crosses(to_inputs(batch, network.device)).double().sum(0).cpu() for batch in batches.epoch()
    ]
    return (torch.stack(sums).sum(0) / len(batches.part)).float()


@torch.no_grad()
def _logits(
    network: Network, batches: Batches, values: Tensor, columns: list[slice]
) -> tuple[Floats, list[Floats]]:
    """Logits (B,) as they are, and with `values` in some columns of the vectors of pairs, one slice after the other.

    Embeddings and crosses are read once for all of them: only the backbone, which ends the network, runs again.
    """
    given: list[tuple[Any, ...]] = []
    hook = network.backbone.register_forward_hook(
        lambda module, arguments, output: given.append((*arguments, output))
    )
    found: list[list[Tensor]] = [[] for _ in range(1 + len(columns))]
    for batch in batches.epoch():
        logits = network(to_inputs(batch, network.device))
        embeddings, pairs, before = given.pop()
        found[0].append(logits.cpu())
        for own, chosen in zip(found[1:], columns, strict=True):
            kept = pairs[:, chosen].clone()
            pairs[:, chosen] = values[chosen].to(pairs.device)
            own.append((logits + network.slope * (network.backbone(embeddings, pairs) - before)).cpu())
            pairs[:, chosen] = kept
        given.clear()
    hook.remove()
    whole, *without = (torch.cat(parts).double().numpy() for parts in found)
    return whole, without
