"""Factorization machine beside an MLP (Guo et al., "DeepFM", IJCAI 2017, equations 1, 2 and 4)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from ctr.network.backbones.backbone import Backbone, Part
from ctr.network.layers import MLP, Given, Norm, inner_product_sum, side_by_side


class DeepFM(Backbone):
    """logit = sum of the inner products of all pairs + MLP(the same embeddings, concatenated)."""

    first_order: ClassVar[bool] = True
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
        logits: Tensor = inner_product_sum(embeddings) + self.mlp(side_by_side(embeddings.flatten(1), pairs))
        return logits
