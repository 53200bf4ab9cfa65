"""MLP on embeddings (Zhang, Du and Wang, "Deep Learning over Multi-field Categorical Data", ECIR 2016)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from ctr.network.backbones.backbone import Backbone, Part
from ctr.network.layers import MLP, Given, Norm, side_by_side


class FNN(Backbone):
    """logit = MLP(concatenated embeddings).

    NOTE[DIFF]: starts from fresh embeddings; the paper's come from a trained factorization machine.
    """

    first_order: ClassVar[bool] = False
    reads_pairs: ClassVar[bool] = True
    reads: ClassVar[Mapping[str, tuple[Part, ...]]] = {"mlp": (Part.FIELDS,)}

    def __init__(
        self,
        fields: int,
        width: int,
        hidden: Sequence[int],
        dropout: float,
        norm: Norm,
        pair_numbers: int | None = None,
    ) -> None:
        super().__init__(fields, width, hidden, dropout, norm, pair_numbers=pair_numbers)
        self.mlp = MLP(self.size("mlp"), hidden, dropout, norm)

    def forward(self, embeddings: Tensor, pairs: Tensor | Given | None = None) -> Tensor:
        """(B, F, D), and numbers of pairs (B, N) for the MLP -> logits (B,)."""
        logits: Tensor = self.mlp(side_by_side(embeddings.flatten(1), pairs))
        return logits
