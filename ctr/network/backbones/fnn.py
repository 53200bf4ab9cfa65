"""MLP on embeddings (Zhang, Du and Wang, "Deep Learning over Multi-field Categorical Data", ECIR 2016)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from ctr.network.backbones.backbone import Backbone, Part
from ctr.network.layers import MLP, Norm


class FNN(Backbone):
    """logit = MLP(concatenated embeddings).

    NOTE[DIFF]: starts from fresh embeddings; the paper's come from a trained factorization machine.
    """

    first_order: ClassVar[bool] = False
    reads: ClassVar[Mapping[str, tuple[Part, ...]]] = {"mlp": (Part.FIELDS,)}

    def __init__(self, fields: int, width: int, hidden: Sequence[int], dropout: float, norm: Norm) -> None:
        super().__init__(fields, width, hidden, dropout, norm)
        self.mlp = MLP(self.size("mlp"), hidden, dropout, norm)

    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, F, D) -> logits (B,)."""
        logits: Tensor = self.mlp(embeddings.flatten(1))
        return logits
