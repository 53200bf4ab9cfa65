"""A network: embedding, gate, backbone.

Shapes: B rows, F fields, D width of a field, W = D plus one float for the first-order weight, V features.

    ids (B, F) -> table (B, F, W) -> gate (B, F, W) -> embeddings (B, F, D) -> backbone (B,)
                                                    -> first-order weights (B, F) -> their sum (B,)
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ctr.network.backbones import BACKBONES, Backbone
from ctr.network.embeddings import Inputs, Table, pool_lists
from ctr.network.gates import HardGate, SoftGate
from ctr.network.layers import Norm


@dataclass(frozen=True)
class Architecture:
    """Everything that a network is built from, but the numbers.

    first_order: add first-order weights and a bias; None takes the backbone's usual definition.
    """

    rows: int
    fields: int
    dim: int = 16
    backbone: str = "deepfm"
    hidden: tuple[int, ...] = (256, 128)
    dropout: float = 0.0
    norm: Norm = "none"
    first_order: bool | None = None
    init_scale: float = 0.01
    extra: tuple[tuple[str, int], ...] = ()

    @property
    def linear(self) -> int:
        """Floats of a table row that are first-order weights: 0 or 1."""
        usual = BACKBONES[self.backbone].first_order
        return int(usual if self.first_order is None else self.first_order)

    @property
    def width(self) -> int:
        """Floats of a table row that are embedding: none where there is nothing but first-order weights."""
        return 0 if self.backbone == "lr" else self.dim


class Network(nn.Module):
    """From a batch to logits. `forward` changes nothing and applies no sigmoid.

    Args:
        table: rows to vectors.
        backbone: vectors to a logit.
        linear: floats at the end of each table row that are first-order weights (0 or 1).
        gate: factors per feature, in front of everything; None leaves all features open.
    """

    def __init__(
        self, table: Table, backbone: Backbone, linear: int, gate: SoftGate | HardGate | None = None
    ) -> None:
        super().__init__()
        self.table, self.gate, self.backbone, self.linear = table, gate, backbone, linear
        self.bias = nn.Parameter(torch.zeros(1)) if linear else None
        self.gated = nn.Identity()  # where a search listens to what the backbone is fed

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits (B,)."""
        vectors = self.embed(inputs)  # (B, F, W)
        logits: Tensor = self.backbone(vectors if self.bias is None else vectors[..., :-1])
        if self.bias is None:
            return logits
        first_order = vectors[..., -1].sum(1) + self.bias  # (B,)
        return first_order + logits

    def embed(self, inputs: Inputs) -> Tensor:
        """Gated vectors of all fields (B, F, W): single-valued fields first, then lists."""
        single: Tensor = self._gated(inputs.ids)  # (B, S, W)
        if inputs.values is not None:
            single = single * inputs.values.unsqueeze(-1)
        single = self.gated(single)  # (B, S, W)
        if not inputs.list_lengths.shape[1]:
            return single
        rows = self.gated(self._gated(inputs.list_ids))  # (L, W)
        lists = pool_lists(rows, inputs.list_slots, inputs.list_lengths)  # (B, M, W)
        return torch.cat([single, lists], dim=1)

    def _gated(self, ids: Tensor) -> Tensor:
        vectors: Tensor = self.table(ids)
        return vectors if self.gate is None else vectors * self.gate(ids)


def build(architecture: Architecture, gate: SoftGate | HardGate | None = None) -> Network:
    """A network with fresh weights, drawn from torch's current seed."""
    linear, width = architecture.linear, architecture.width
    backbone = BACKBONES[architecture.backbone](
        architecture.fields,
        width,
        hidden=architecture.hidden,
        dropout=architecture.dropout,
        norm=architecture.norm,
        **dict(architecture.extra),
    )
    table = Table(architecture.rows, width + linear, linear, architecture.init_scale)
    return Network(table, backbone, linear, gate)
