"""Logistic regression: nothing but the first-order term."""

from typing import ClassVar

from torch import Tensor

from ctr.network.backbones.backbone import Backbone


class LR(Backbone):
    """Zero for every row: a logistic regression is all first-order weights and bias. Needs no embeddings.

    `hidden`, `dropout` and `norm` have nothing to act on.
    """

    first_order: ClassVar[bool] = True

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, F, D) -> zeros (B,)."""
        return embeddings.new_zeros(embeddings.shape[0])
