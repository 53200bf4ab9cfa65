"""MLP on embeddings and inner products (Qu et al., "Product-based Neural Networks", ICDM 2016)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from ctr.network.backbones.backbone import Backbone, Part
from ctr.network.layers import MLP, Given, InnerProducts, Norm, side_by_side


class IPNN(Backbone):
    """logit = MLP(concatenated embeddings, inner product of every pair).

    NOTE[DIFF]: the paper gives the product layer weights of rank one; here the products enter an ordinary
    linear layer, as embeddings do.
    """

    first_order: ClassVar[bool] = False
    reads_pairs: ClassVar[bool] = True
    reads: ClassVar[Mapping[str, tuple[Part, ...]]] = {"mlp": (Part.FIELDS, Part.PAIRS)}

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
        self.products = InnerProducts(fields)
        self.mlp = MLP(self.size("mlp"), hidden, dropout, norm)

    def forward(self, embeddings: Tensor, pairs: Tensor | Given | None = None) -> Tensor:
        """(B, F, D), and numbers of pairs (B, N) for the MLP -> logits (B,)."""
        inputs = side_by_side(embeddings.flatten(1), self.products(embeddings), pairs)  # (B, F * D + P + N)
        logits: Tensor = self.mlp(inputs)
        return logits
