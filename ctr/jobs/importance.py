"""What a trained network loses on valid when the values of a field, or of two fields, are shuffled among rows.

Permutation importance (Breiman, "Random Forests", 2001) of fields: the drop in AUC. What a field tells twice, another
field says as well, and so it costs little to lose; two networks of equal AUC may lean on different fields.

Of pairs: what is lost when both are shuffled, alike, beyond what each costs alone. Above zero both tell the same, and
one stands in for the other; below zero each is of use beside the other, so that what they tell together is lost with
either.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ctr.dataset.row_arrays import FieldInfo, Part
from ctr.dataset.stacked import subset
from ctr.evaluation.metrics import measure
from ctr.jobs.models import Model
from ctr.jobs.scored import weights_of

_ROWS = 20_000  # of valid that are read; the same for every network
_PAIRED = 8  # fields, those that matter most to a network: their pairs are measured


class Importance(NamedTuple):
    """AUC on valid that is lost: by field, for each field of the log; and by pair, beyond what both cost alone."""

    fields: dict[str, float]
    pairs: list[tuple[str, str, float]]


def importance(model: Model, valid: Part, fields: Sequence[FieldInfo], device: torch.device) -> Importance:
    """Of a trained model; 0 for a field that it does not read."""
    random = np.random.default_rng(0)
    rows = len(valid)
    chosen = np.arange(rows) if rows <= _ROWS else np.sort(random.choice(rows, _ROWS, replace=False))
    part = subset(valid, chosen)
    if len(np.unique(part.labels)) < 2:
        part = subset(valid, np.arange(rows))
    weights, order = weights_of(part), random.permutation(len(part))
    network, read = model.stored(device), set(model.layout.fields)

    def auc(*numbers: int) -> float:
        """With the cells of some fields in another order of rows, the same for all of them."""
        shuffled = part
        for number in numbers:
            shuffled = _shuffled(shuffled, fields, number, order)
        return measure(part.labels, model.predict(shuffled, device, network=network), weights).auc

    whole = auc()
    lost = [whole - auc(number) if field.name in read else 0.0 for number, field in enumerate(fields)]
    leading = sorted(range(len(fields)), key=lambda number: -abs(lost[number]))[:_PAIRED]
    pairs = [
        (fields[a].name, fields[b].name, whole - auc(a, b) - lost[a] - lost[b])
        for a, b in combinations(sorted(leading), 2)
        if {fields[a].name, fields[b].name} <= read
    ]
    return Importance({field.name: each for field, each in zip(fields, lost, strict=True)}, pairs)


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
