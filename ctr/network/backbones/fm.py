"""Factorization machine (Rendle, "Factorization Machines", ICDM 2010, equation 1)."""

from typing import ClassVar

from torch import Tensor

from ctr.network.backbones.backbone import Backbone
from ctr.network.layers import inner_product_sum


class FM(Backbone):
    """The sum of the inner products of all pairs of embeddings. No parameters of its own.

    `hidden`, `dropout` and `norm` have nothing to act on.
    """

    first_order: ClassVar[bool] = True

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, F, D) -> logits (B,)."""
        return inner_product_sum(embeddings)
