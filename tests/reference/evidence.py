"""Evidence by nested loops: every feature at every step, every row and occurrence for itself, in float64.

What an occurrence adds to a logit is measured by moving its gate a little, one row and one occurrence at a time.
"""

import math

import torch

STEP = 1e-6  # of a gate, for central differences; so small that no ReLU is crossed


def row_logit(network, occurrences, factors, slots, moved=None, by=None):
    """The logit of one row, from its occurrences (slot, table row, number): `factors` are their gates.

    What occurrence `moved` adds to its field's vector is moved by `by`.
    """
    width = network.table.weight.shape[1]
    vectors = torch.zeros(1, slots, width, dtype=torch.float64)
    for place, ((slot, feature, number), factor) in enumerate(zip(occurrences, factors, strict=True)):
        vectors[0, slot] += factor * number * network.table.weight[feature].detach()
        if place == moved:
            vectors[0, slot] += by
    if not network.linear:
        return float(network.backbone(vectors).detach())
    first_order = float(vectors[0, :, -1].sum()) + float(network.bias)
    return first_order + float(network.backbone(vectors[..., :-1]).detach())


def rows_of(inputs):
    """Per row of a batch its occurrences: (slot, table row, number); a list's values share 1 among them."""
    single, lists = inputs.ids.shape[1], inputs.list_lengths.shape[1]
    found = []
    for row in range(len(inputs.ids)):
        occurrences = [
            (
                slot,
                int(inputs.ids[row, slot]),
                1.0 if inputs.values is None else float(inputs.values[row, slot]),
            )
            for slot in range(single)
        ]
        for place, feature in zip(inputs.list_slots.tolist(), inputs.list_ids.tolist(), strict=True):
            if place // lists == row:
                length = float(inputs.list_lengths[row, place % lists])
                occurrences.append((single + place % lists, feature, 1.0 / length))
        found.append(occurrences)
    return found


def seen(network, inputs, slot, feature, number):
    """An occurrence's vector before any averaging: times the number of a scaled field, whole for a list's value."""
    vector = network.table.weight[feature].detach()
    return number * vector if slot < inputs.ids.shape[1] else vector


def mean_vectors(network, inputs):
    """The mean embedding of each field over all its occurrences in a batch."""
    found = {}
    for occurrences in rows_of(inputs):
        for slot, feature, number in occurrences:
            found.setdefault(slot, []).append(seen(network, inputs, slot, feature, number))
    return {slot: sum(vectors) / len(vectors) for slot, vectors in found.items()}


def contributions(network, inputs, gate):
    """Per row a list of (slot, table row, contribution) and the logit; `gate[feature]` are the factors.

    The contribution is the slope of the logit as the occurrence's vector moves away from its field's mean vector.
    """
    means = mean_vectors(network, inputs)
    slots = inputs.ids.shape[1] + inputs.list_lengths.shape[1]
    found = []
    for occurrences in rows_of(inputs):
        factors = [gate[feature] for _, feature, _ in occurrences]
        entries = []
        for place, (slot, feature, number) in enumerate(occurrences):
            apart = STEP * (seen(network, inputs, slot, feature, number) - means[slot])
            apart = apart if slot < inputs.ids.shape[1] else number * apart
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

    def step(self, network, inputs, labels):
        """One batch; `network` in float64, without a gate."""
        temperature = self.final_temperature ** (self.step_number / self.steps)
        self.step_number += 1
        for row in range(len(self.slope)):
            self.slope[row] *= 1 - 1 / self.window
            self.curvature[row] *= 1 - 1 / self.window
        gate = [
            (1 + math.exp(-0.5)) / (1 + math.exp(-max(-700.0, min(700.0, temperature * logit))))
            for logit in self.logits()
        ]
        rows = contributions(network, inputs, gate)
        scale = self.steps_per_epoch / self.window
        for (entries, logit), label in zip(rows, labels.tolist(), strict=True):
            probability = 1 / (1 + math.exp(-logit))
            for _, feature, c in entries:
                curvature = probability * (1 - probability) * c * c
                self.curvature[feature] += scale * curvature
                self.slope[feature] += scale * (c * (probability - label) + curvature * (1 - gate[feature]))
        return gate
