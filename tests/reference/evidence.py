"""Evidence by nested loops: every feature at every step, every row and occurrence for itself, in float64.

What an occurrence adds to a logit is measured by moving its gate a little, one row and one occurrence at a time.
"""

import copy
import math
from types import SimpleNamespace

import torch

from tests.reference.hashed_tables import read

STEP = 1e-6  # of a gate, for central differences; so small that no ReLU is crossed


def in_float64(network):
    """The parts of a network that logits come from, without its gate."""
    return SimpleNamespace(
        table=copy.deepcopy(network.table).double(),
        backbone=copy.deepcopy(network.backbone).double().eval(),
        bias=None if network.bias is None else network.bias.detach().double(),
        linear=network.linear,
        pooling=network.pooling,
        vectors=() if network.projections is None else network.projections.fields,
        projections=[]
        if network.projections is None
        else [weight.detach().double() for weight in network.projections.weights],
    )


def rows_of(network, inputs):
    """Per row of a batch its occurrences: (slot, table row, the vector that the gate is given)."""
    single, lists = inputs.ids.shape[1], inputs.list_lengths.shape[1]
    table = network.table.weight.detach()

    def looked_up(feature, places, at, slot):
        """The table row of a feature, or what is put together of the rows at its place."""
        return (
            table[feature] if places is None else read(network.composition, network.table, places[at], slot)
        )

    found = []
    for row in range(len(inputs.ids)):
        occurrences = []
        for slot in range(single):
            feature = int(inputs.ids[row, slot])
            factor = 1.0 if inputs.values is None else float(inputs.values[row, slot])
            vector = factor * looked_up(feature, inputs.places, (row, slot), slot)
            start = 0
            for (at, size), weight in zip(network.vectors, network.projections, strict=True):
                if at == slot and feature > 0:
                    vector = vector + inputs.vectors[row, start : start + size].double() @ weight
                start += size
            occurrences.append((slot, feature, vector))
        listed = zip(inputs.list_slots.tolist(), inputs.list_ids.tolist(), strict=True)
        for at, (place, feature) in enumerate(listed):
            if place // lists == row:
                slot = single + place % lists
                occurrences.append((slot, feature, looked_up(feature, inputs.list_places, at, slot)))
        found.append(occurrences)
    return found


def row_logit(network, occurrences, factors, slots, moved=None, by=None):
    """The logit of one row, from its occurrences: `factors` are their gates.

    What the gate makes of occurrence `moved` is moved by `by`, before its list is pooled.
    """
    parts = [[] for _ in range(slots)]
    for place, ((slot, _, vector), factor) in enumerate(zip(occurrences, factors, strict=True)):
        parts[slot].append(factor * vector + (by if place == moved else 0.0))
    single = slots - len(network.pooling)
    pooled = []
    for slot, gated in enumerate(parts):
        word = "sum" if slot < single else network.pooling[slot - single]
        stack = torch.stack(gated)
        pooled.append({"mean": stack.mean(0), "sum": stack.sum(0), "max": stack.max(0).values}[word])
    vectors = torch.stack(pooled).unsqueeze(0)
    if not network.linear:
        return float(network.backbone(vectors).detach())
    first_order = float(vectors[0, :, -1].sum()) + float(network.bias)
    return first_order + float(network.backbone(vectors[..., :-1]).detach())


def mean_vectors(network, inputs, weights):
    """The mean vector of each field over all its occurrences in a batch, each with the weight of its row."""
    sums = {}
    for occurrences, weight in zip(rows_of(network, inputs), weights, strict=True):
        for slot, _, vector in occurrences:
            total, mass = sums.get(slot, (0.0, 0.0))
            sums[slot] = total + weight * vector, mass + weight
    return {slot: total / mass for slot, (total, mass) in sums.items()}


def contributions(network, inputs, gate, weights=None):
    """Per row a list of (slot, table row, contribution) and the logit; `gate[feature]` are the factors.

    The contribution is the slope of the logit as the occurrence's vector moves away from its field's mean vector.
    """
    means = mean_vectors(network, inputs, weights or [1.0] * len(inputs.ids))
    slots = inputs.ids.shape[1] + inputs.list_lengths.shape[1]
    found = []
    for occurrences in rows_of(network, inputs):
        factors = [gate[feature] for _, feature, _ in occurrences]
        entries = []
        for place, (slot, feature, vector) in enumerate(occurrences):
            apart = STEP * (vector - means[slot])
            above = row_logit(network, occurrences, factors, slots, place, apart)
            below = row_logit(network, occurrences, factors, slots, place, -apart)
            entries.append((slot, feature, (above - below) / (2 * STEP)))
        found.append((entries, row_logit(network, occurrences, factors, slots)))
    return found


class DenseGates:
    """What `ctr.selection.evidence.EvidenceGates` must equal, with all rows decayed at all steps."""

    def __init__(self, rows, *, window, steps_per_epoch, steps, final_temperature, price, rate):
        self.slope, self.curvature = [0.0] * rows, [0.0] * rows
        self.window, self.steps_per_epoch, self.steps = window, steps_per_epoch, steps
        self.final_temperature, self.price, self.rate = final_temperature, price, rate
        self.step_number = 0

    def evidence(self):
        """Of every table row, without credit."""
        return [
            max(0.0, h - s) ** 2 / (2 * h) if h > 0 else 0.0
            for s, h in zip(self.slope, self.curvature, strict=True)
        ]

    def logits(self):
        """Of every gate."""
        credit = (1 + 0.5 / self.rate) * self.price * math.exp(-self.step_number / self.window)
        return [
            min(1.0, max(-1.0, (e + credit - self.price) * self.rate / max(self.price, 1.0)))
            for e in self.evidence()
        ]

    def step(self, network, inputs, labels, weights=None):
        """One batch; `network` in float64, without a gate; `weights` of its rows."""
        temperature = self.final_temperature ** (self.step_number / self.steps)
        self.step_number += 1
        for row in range(len(self.slope)):
            self.slope[row] *= 1 - 1 / self.window
            self.curvature[row] *= 1 - 1 / self.window
        gate = [
            (1 + math.exp(-0.5)) / (1 + math.exp(-max(-700.0, min(700.0, temperature * logit))))
            for logit in self.logits()
        ]
        weights = [1.0] * len(labels) if weights is None else weights.tolist()
        rows = contributions(network, inputs, gate, weights)
        scale = self.steps_per_epoch / self.window
        for (entries, logit), label, weight in zip(rows, labels.tolist(), weights, strict=True):
            probability = 1 / (1 + math.exp(-logit))
            for _, feature, c in entries:
                curvature = weight * probability * (1 - probability) * c * c
                slope = weight * c * (probability - label)
                self.curvature[feature] += scale * curvature
                self.slope[feature] += scale * (slope + curvature * (1 - gate[feature]))
        return gate
