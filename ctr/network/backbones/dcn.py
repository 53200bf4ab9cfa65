"""Cross network beside an MLP (Wang et al., "Deep & Cross Network for Ad Click Predictions", ADKDD 2017)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from ctr.network.backbones.backbone import Backbone, Part
from ctr.network.layers import MLP, Given, Linear, Norm, VectorCross, side_by_side


class DCN(Backbone):
    """logit = linear(cross network, last hidden layer of an MLP), both fed with the concatenated embeddings.

    The linear layer on the concatenation (equation 5) is written as the sum of a linear layer on either part:
    the same numbers without the copy. Its bias is the MLP's. Without hidden layers the MLP is a linear term.

    Args:
        fields, width, hidden, dropout, norm, pair_numbers: see `Backbone`.
        layers: layers of the cross network.
    """

    first_order: ClassVar[bool] = False
    reads_pairs: ClassVar[bool] = True
    reads: ClassVar[Mapping[str, tuple[Part, ...]]] = {
        "cross": (Part.FIELDS,),
        "cross_head": (Part.FIELDS,),
        "mlp": (Part.FIELDS,),
    }

    def __init__(
        self,
        fields: int,
        width: int,
        hidden: Sequence[int],
        dropout: float,
        norm: Norm,
        layers: int = 3,
        pair_numbers: int | None = None,
    ) -> None:
        super().__init__(fields, width, hidden, dropout, norm, layers=layers, pair_numbers=pair_numbers)
        self.cross = VectorCross(self.size("cross"), layers)
        self.cross_head = Linear(self.size("cross_head"), 1, bias=False)
        self.mlp = MLP(self.size("mlp"), hidden, dropout, norm)

    def forward(self, embeddings: Tensor, pairs: Tensor | Given | None = None) -> Tensor:
        """(B, F, D), and numbers of pairs (B, N) for the MLP -> logits (B,)."""
        inputs = embeddings.flatten(1)  # (B, F * D)
        logits: Tensor = self.cross_head(self.cross(inputs)).squeeze(1)
        deep: Tensor = self.mlp(side_by_side(inputs, pairs))
        return logits + deep
