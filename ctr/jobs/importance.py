"""What a trained network loses on valid when one field's values are shuffled among rows.

Permutation importance (Breiman, "Random Forests", 2001) of fields: the drop in AUC. What a field tells twice, another
field says as well, and so it costs little to lose; two networks of equal AUC may lean on different fields.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from ctr.dataset.row_arrays import FieldInfo, Part
from ctr.dataset.stacked import subset
from ctr.evaluation.metrics import measure
from ctr.jobs.models import Model
from ctr.jobs.scored import weights_of

_ROWS = 20_000  # of valid that are read; the same for every network


def permutation_importance(
    model: Model, valid: Part, fields: Sequence[FieldInfo], device: torch.device
) -> dict[str, float]:
    """AUC on valid minus AUC with a field shuffled, for each field of the log; 0 for one that is not read."""
    random = np.random.default_rng(0)
    rows = len(valid)
    chosen = np.arange(rows) if rows <= _ROWS else np.sort(random.choice(rows, _ROWS, replace=False))
    part = subset(valid, chosen)
    if len(np.unique(part.labels)) < 2:
        part = subset(valid, np.arange(rows))
    weights, order = weights_of(part), random.permutation(len(part))
    whole = measure(part.labels, model.predict(part, device), weights).auc
    read = set(model.layout.fields)
    found = {}
    for number, field in enumerate(fields):
        if field.name not in read:
            found[field.name] = 0.0
            continue
        shuffled = _shuffled(part, fields, number, order)
        found[field.name] = whole - measure(part.labels, model.predict(shuffled, device), weights).auc
    return found


def _shuffled(part: Part, fields: Sequence[FieldInfo], number: int, order: npt.NDArray[np.int64]) -> Part:
    """The part with one field's cells in another order of rows."""
    field, other = fields[number], subset(part, order)
    if field.kind == "list":
        slot = sum(before.kind == "list" for before in fields[:number])
        lists = list(part.lists)
        lists[slot] = other.lists[slot]
        return replace(part, lists=lists)
    slot = sum(before.kind != "list" for before in fields[:number])
    ids = np.array(part.ids)
    ids[:, slot] = other.ids[:, slot]
    values, vectors = part.values, part.vectors
    if values is not None and other.values is not None:
        values = np.array(values)
        values[:, slot] = other.values[:, slot]
    if field.size and vectors is not None and other.vectors is not None:
        start = sum(before.size for before in fields[:number])
        vectors = np.array(vectors)
        vectors[:, start : start + field.size] = other.vectors[:, start : start + field.size]
    return replace(part, ids=ids, values=values, vectors=vectors)
