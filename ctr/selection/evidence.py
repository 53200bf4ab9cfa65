"""How gates learn: the evidence, in nats, that train rows give for each feature.

For one occurrence of feature v, let c be what v adds to the logit when its gate is 1, p the predicted probability
and y the label. A batch's backward pass gives it for free: with e the embedding and g = dL/d(gate * e) it has
g . e = (p - y) c. Shrinking or stretching the
contributions of v by a factor t changes the log loss of the rows that hold v by

    L(t) = L(1) + S (t - 1) + H (t - 1)^2 / 2,      S = sum of (p - y) c,   H = sum of p (1 - p) c^2,

so dropping v (t = 0) instead of scaling it best (t = 1 - S / H) costs

    evidence(v) = L(0) - min over t >= 0 of L(t) = max(0, H - S)^2 / (2 H)       nats of log loss over the train rows.

That is a one-sided score test of the direction that the weights have found: 2 * evidence is about chi-squared with one
degree of freedom for a feature that means nothing, whatever its frequency, the vocabulary, the batch size, the
learning rate and the number of steps - as long as the weights do not fit the very rows that are looked at: evidence of
noise grows with every epoch of overfitting, so searches are short. c is taken relative to what the mean vector of the
field would have added in the same row: what all values of a field have in common is no reason to tell them apart, be it
a shift (the bias takes it over) or a factor of other fields in a product.

The logit of a gate is then

    g_v = clip((evidence(v) - price) / max(price, 1), -1, 1),      opened and closed by sigmoid(temperature * g_v).

S and H are sums over a sliding window of about an epoch (exponential decay), so that evidence gathered by unlearned
weights is forgotten. A feature that no batch holds only decays, as all others do, by a factor that is left out of the
sums; its gate is brought up to date when a batch reads it next, and a step costs what the batch holds.

NOTE[DIFF] Lyu et al. (2023) move g_v by Adam along dL/dg_v + lambda * d(sum of gates)/dg_v. That gradient vanishes
wherever weights have converged, since shrinking a gate and growing its embedding cancel; Adam rescales lambda until
it hardly means anything; a gate moves at most one learning rate a step, whatever the log tells; and a feature that
occurs rarely is judged by its steps, not by its rows. Here the difference that dropping makes takes the place of the
derivative, and the price is in nats. Gate, temperature, joint training, hardening and rewinding are the paper's.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ctr.errors import CtrError
from ctr.network.embeddings import Inputs
from ctr.network.gates import START, SoftGate
from ctr.network.network import Network
from ctr.training.checkpoint import load_checkpoint, save_checkpoint

_LEAST_DECAY = 1e-9  # that is left out of the sums: far from where float32 ends
_STRETCH = 1 << 20  # rows brought up to date at a time, where all are


@dataclass(frozen=True)
class Schedule:
    """How a search anneals.

    steps, steps_per_epoch: of the search; evidence is stated per epoch.
    final_temperature: at the last step; it rises geometrically from 1 (the paper's gamma).
    """

    steps: int
    steps_per_epoch: int
    final_temperature: float

    @property
    def window(self) -> float:
        """Steps that evidence is remembered: one epoch, or a third of the search where that is shorter."""
        return max(1.0, min(self.steps_per_epoch, self.steps / 3))

    def temperature(self, progress: float) -> float:
        """`final_temperature ** progress`."""
        return float(self.final_temperature**progress)


def evidence_of(slope: Tensor, curvature: Tensor) -> Tensor:
    """Nats that a feature saves: max(0, H - S)^2 / (2 H), 0 where nothing is known."""
    gain = (curvature - slope).clamp(min=0.0)
    return torch.where(curvature > 0, gain.square() / (2.0 * curvature).clamp(min=1e-30), 0.0)


class EvidenceGates:
    """Trains the gates of a network in the search stage: a companion of `ctr.training.fit`.

    Args:
        network: with a `SoftGate`, or a `FieldGate`, whose gates gather the evidence of whole fields.
        schedule: temperature and window.
        price: nats that a feature must save.
        values: (V,) bool by table row - 1: the vocabulary values, for the share of open gates that is reported. Of
            fields this and what follows is by number of the field.
        rate: speed of the gates relative to evidence (1: a gate is fully open at twice the price).
        rewind_epoch: after how many epochs (or what part of one) the weights are put aside, in `folder`.
        folder: for the weights put aside.
        always, never: (V,) bool by table row - 1: features whose gates stay open, or closed, whatever the evidence.
    """

    def __init__(
        self,
        network: Network,
        schedule: Schedule,
        *,
        price: float,
        values: Tensor,
        rate: float,
        rewind_epoch: float,
        folder: Path,
        always: Tensor | None = None,
        never: Tensor | None = None,
    ) -> None:
        if not isinstance(network.gate, SoftGate):
            raise TypeError("expected a network with a SoftGate")
        self.network, self.gate, self.schedule = network, network.gate, schedule
        self.price, self.rate = price, rate
        self.folder = folder
        # The first step at which so much of an epoch is done: the last one, where it is done only after that.
        reached = math.ceil(rewind_epoch * schedule.steps_per_epoch - 1e-9)
        self.rewind_step = min(reached, schedule.steps - 1)
        device, rows = network.device, len(network.gate.logits)
        # S and H of each table row. What is added grows from step to step instead of all else decaying, so that nothing
        # has to be brought up to date: `_decay` turns them into sums of today.
        self._sums = torch.zeros(rows, 2, device=device)
        self.step = self._based = 0
        self.values = values.to(device)
        ruled = torch.zeros(rows, dtype=torch.int8)  # 1 always open, -1 never
        for features, logit in ((always, 1), (never, -1)):
            if features is not None:
                ruled[1:][features] = logit
        self._rules, self._ruled = bool(ruled.any()), ruled.to(device)
        self._read: list[_Gated] = []  # single-valued fields, then lists
        self._logits: Tensor | None = None
        self._weights: Tensor | None = None
        self.gate.judge = self._judged
        self._hooks = [
            network.ungated.register_forward_hook(self._keep_vectors),
            network.gate.register_forward_hook(self._keep_factors),
            network.gated.register_forward_hook(self._keep_gated),
            network.register_forward_hook(self._keep_logits),
        ]

    def before_step(self, inputs: Inputs, labels: Tensor, weights: Tensor | None, progress: float) -> None:
        """Put the weights aside where retraining goes back to; set the temperature."""
        if self.step == self.rewind_step:
            state = self.network.state_dict()
            kept = {name: value for name, value in state.items() if not name.startswith("gate.")}
            save_checkpoint(self.folder / "rewind", {"network": kept})
        self.gate.temperature.fill_(self.schedule.temperature(progress))
        self._inputs, self._labels, self._weights, self._read = inputs, labels, weights, []
        self.step += 1
        if self._decay < _LEAST_DECAY:  # a pass over all, every twenty windows
            self._sums.mul_(self._decay)
            self._based = self.step

    @torch.no_grad()
    def after_backward(self) -> None:
        """Add the evidence of this batch."""
        assert self._logits is not None
        probabilities = torch.sigmoid(self._logits)  # (B,)
        residual = probabilities - self._labels
        weight = probabilities * (1.0 - probabilities)
        if self._weights is not None:
            residual, weight = residual * self._weights, weight * self._weights
        inputs = self._inputs
        read = self._read[0]  # of (B, S)
        means = _mean(read.vectors, self._weights)  # (S, W)
        self._add(inputs.ids, read, means, residual.unsqueeze(1), weight.unsqueeze(1))
        lists = inputs.list_lengths.shape[1]
        if lists:
            row = torch.div(inputs.list_slots, lists, rounding_mode="floor")  # (L,)
            read, slots = self._read[1], inputs.list_slots % lists  # of (L,)
            means = _mean_by_slot(
                read.vectors, slots, lists, None if self._weights is None else self._weights[row]
            )
            self._add(inputs.list_ids, read, means[slots], residual[row], weight[row])
        self._read, self._logits = [], None

    def before_look(self) -> dict[str, float]:
        """Bring all gates up to date for the look at valid."""
        self._settle()
        logits = self.gate.logits[1:, 0][self.values]
        return {
            "open": float((logits > 0).float().mean()),
            "temperature": float(self.gate.temperature),
        }

    @property
    def sums(self) -> Tensor:
        """S and H of each table row, (rows, 2), over the window."""
        return self._sums * self._decay

    def state_dict(self) -> dict[str, Any]:
        """Sums and clocks, as they are: rounding must not depend on when somebody asks."""
        return {"sums": self._sums, "step": self.step, "based": self._based}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` gave."""
        self._sums, self.step, self._based = state["sums"], state["step"], state["based"]

    def scores(self) -> Tensor:
        """(V,) evidence of every feature, by global id, in nats."""
        sums = self.sums
        # What is left of the credit is no evidence.
        return evidence_of(sums[:, 0], sums[:, 1])[1:].cpu()

    def rewound(self) -> dict[str, Any]:
        """The weights that retraining starts from."""
        state = load_checkpoint(self.folder / "rewind", self.network.device)
        if state is None:
            raise CtrError(f'"{self.folder / "rewind"}" is missing; use --force to start the run again')
        weights: dict[str, Any] = state["network"]
        return weights

    def detach(self) -> None:
        """Take the hooks off the network."""
        self.gate.judge = None
        for hook in self._hooks:
            hook.remove()

    def _keep_vectors(self, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        self._vectors = output.detach()

    def _keep_factors(self, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        self._factors = output

    def _keep_gated(self, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        if torch.is_grad_enabled():
            self._read.append(_Gated(self._vectors, self._factors))
            output.register_hook(self._read[-1].keep_gradient)  # type: ignore[no-untyped-call]

    def _keep_logits(self, module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> None:
        self._logits = output.detach()

    def _evidence(self, sums: Tensor) -> Tensor:
        # Before anything is learned nothing can be known: every gate starts open on credit, which runs out.
        credit = (1.0 + START / self.rate) * self.price * math.exp(-self.step / self.schedule.window)
        return evidence_of(sums[:, 0], sums[:, 1]) + credit

    @property
    def _decay(self) -> float:
        return float((1.0 - 1.0 / self.schedule.window) ** (self.step - self._based))

    @torch.no_grad()
    def _judged(self, rows: Tensor) -> Tensor:
        """Logits (N,) of gates (N,) by the evidence until now."""
        # What is read as one number is read in half the time.
        found = torch.view_as_complex(self._sums).index_select(0, rows)
        sums = torch.view_as_real(found).mul_(self._decay)
        logits = (self._evidence(sums) - self.price) * (self.rate / max(self.price, 1.0))
        logits = logits.clamp(-1.0, 1.0)
        if self._rules:
            ruled = self._ruled.index_select(0, rows).to(logits.dtype)
            logits = torch.where(ruled == 0, logits, ruled)
        return logits

    def _settle(self) -> None:
        """Write the logits of all gates, in stretches: what is computed on the way is several times as large."""
        rows = len(self._sums)
        for start in range(0, rows, _STRETCH):
            stretch = torch.arange(start, min(start + _STRETCH, rows), device=self._sums.device)
            self.gate.logits.data[start : start + _STRETCH, 0] = self._judged(stretch)

    def _add(self, ids: Tensor, read: "_Gated", means: Tensor, residual: Tensor, weight: Tensor) -> None:
        """Add slope and curvature, at gate 1, of each occurrence.

        Args:
            ids: table row of each occurrence.
            read: what the gate was given for `ids`, and what it made of that; its vectors are written over.
            means: of the vectors of the field; it, residual and weight stretch to the shape of vectors or `ids`.
            residual, weight: p - y and p (1 - p), times the weight of the row where rows have one.
        """
        assert read.gradient is not None
        # The loss is a mean over the batch: times its size, the slope of one row's (weighted) loss is (p - y) c.
        slope = read.vectors.sub_(means).mul_(read.gradient).sum(-1).mul_(len(self._labels))
        contribution = slope / torch.where(residual == 0, 1.0, residual)
        curvature = contribution.square() * weight
        slope_at_one = slope + curvature * (1.0 - read.factors.squeeze(-1))
        scale = self.schedule.steps_per_epoch / self.schedule.window / self._decay
        new = torch.complex(slope_at_one, curvature).flatten()
        pairs = torch.view_as_complex(self._sums)
        pairs.index_add_(0, self.gate.gates(ids).flatten(), new, alpha=scale)


@dataclass
class _Gated:
    """What a gate was given, and the gradient of what it made of it, for each occurrence (...) of a feature.

    vectors: (..., W), times the number of a scaled field. factors: (..., 1). gradient: (..., W), after the backward
        pass.
    """

    vectors: Tensor
    factors: Tensor
    gradient: Tensor | None = None

    def keep_gradient(self, gradient: Tensor) -> None:
        """A hook of the gated vectors; their own `grad` would be a copy."""
        self.gradient = gradient


def _mean(vectors: Tensor, weights: Tensor | None) -> Tensor:
    """Of the rows (B, S, W) of each field, with weights (B,): (S, W)."""
    if weights is None:
        return vectors.mean(0)
    return torch.einsum("bsw,b->sw", vectors, weights) / weights.sum().clamp(min=1e-12)


def _mean_by_slot(vectors: Tensor, slots: Tensor, fields: int, weights: Tensor | None) -> Tensor:
    """Of the values (L, W) of each list field, with weights (L,): (fields, W)."""
    mass = torch.ones_like(vectors[:, :1]) if weights is None else weights.unsqueeze(1)
    totals = vectors.new_zeros(fields, vectors.shape[1]).index_add_(0, slots, vectors * mass)
    return totals / mass.new_zeros(fields, 1).index_add_(0, slots, mass).clamp(min=1e-12)
