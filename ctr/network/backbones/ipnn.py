"""MLP on embeddings and inner products (Qu et al., "Product-based Neural Networks", ICDM 2016)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ctr.network.backbones.backbone import Backbone, Part
from ctr.network.layers import MLP, InnerProducts, Norm


class IPNN(Backbone):
    """logit = MLP(concatenated embeddings, inner product of every pair).

    NOTE[DIFF]: the paper gives the product layer weights of rank one; here the products enter an ordinary
    linear layer, as embeddings do.
    """

    first_order: ClassVar[bool] = False
    reads: ClassVar[Mapping[str, tuple[Part, ...]]] = {"mlp": (Part.FIELDS, Part.PAIRS)}

    def __init__(self, fields: int, width: int, hidden: Sequence[int], dropout: float, norm: Norm) -> None:
        super().__init__(fields, width, hidden, dropout, norm)
        self.products = InnerProducts(fields)
        self.mlp = MLP(self.size("mlp"), hidden, dropout, norm)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, F, D) -> logits (B,)."""
        inputs = torch.cat([embeddings.flatten(1), self.products(embeddings)], dim=1)  # (B, F * D + P)
        logits: Tensor = self.mlp(inputs)
        return logits
