"""Permutation importance: what a trained network loses when the cells of a field change places between rows.

Breiman, "Random forests", Machine Learning 2001; judged on rows that the network was not trained on, as an overfitted
network reads much into fields that tell nothing of other rows.
"""

from dataclasses import replace

import numpy as np

from ctr.dataset.batches import Batches
from ctr.dataset.hashing import Ints
from ctr.dataset.row_arrays import Part
from ctr.dataset.stacked import subset
from ctr.dataset.store import Dataset
from ctr.evaluation.metrics import measure
from ctr.evaluation.sampling import row_weights
from ctr.network.network import Network
from ctr.selection.field_choice import owners
from ctr.selection.field_rows import sample
from ctr.training.predict import predict

MOST_ROWS = 100_000
REPEATS = 3


def permutation_importance(network: Network, valid: Batches, dataset: Dataset, seed: int) -> dict[str, float]:
    """AUC on valid that is lost, the mean of `REPEATS` shuffles, by field; fields that share features move together.

    Args:
        network: trained. valid: rows it was not trained on; of more than `MOST_ROWS` so many are drawn.
    """
    part, draw = sample(valid.part, MOST_ROWS, seed), np.random.default_rng(seed)
    weights = row_weights(part.labels, part.weights, part.keep_rate)

    def auc(rows: Part) -> float:
        batches = Batches(rows, valid.layout, valid.batch_size)
        return measure(rows.labels, predict(network, batches), weights).auc

    whole = auc(part)
    found = dict.fromkeys((info.name for info in owners(dataset)), 0.0)
    for name in found:
        for _ in range(REPEATS):
            moved = permuted(part, dataset, name, draw.permutation(len(part)))
            found[name] += (whole - auc(moved)) / REPEATS
    return found


def permuted(part: Part, dataset: Dataset, field: str, order: Ints) -> Part:
    """A part whose row n has the cells of row `order[n]` in a field, and in those that share its features."""
    single = [info for info in dataset.fields if info.kind != "list"]
    listed = [info for info in dataset.fields if info.kind == "list"]
    slots = [slot for slot, info in enumerate(single) if field in (info.name, info.shares)]
    others = subset(part, order)
    ids, values = np.array(part.ids), None if part.values is None else np.array(part.values)
    ids[:, slots] = others.ids[:, slots]
    if values is not None and others.values is not None:
        values[:, slots] = others.values[:, slots]
    vectors = None if part.vectors is None else np.array(part.vectors)
    if vectors is not None and others.vectors is not None:
        ends = np.cumsum([info.size for info in single])
        for slot in slots:
            own = slice(ends[slot] - single[slot].size, ends[slot])
            vectors[:, own] = others.vectors[:, own]
    lists = [
        there if field in (info.name, info.shares) else here
        for info, here, there in zip(listed, part.lists, others.lists, strict=True)
    ]
    return replace(part, ids=ids, values=values, vectors=vectors, lists=lists)
