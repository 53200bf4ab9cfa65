"""Matrix cross network beside an MLP (Wang et al., "DCN V2", WWW 2021, equations 1 to 3, parallel form)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from ctr.network.backbones.backbone import Backbone, Part
from ctr.network.layers import MLP, Given, Linear, MatrixCross, Norm, side_by_side


class DCNv2(Backbone):
    """logit = linear(matrix cross network, last hidden layer of an MLP), both fed with the embeddings.

    The linear layer is written as a sum, as in `DCN`. Without hidden layers the MLP is a linear term.

    Args:
        fields, width, hidden, dropout, norm, pair_numbers: see `Backbone`.
        layers: layers of the cross network.
        rank: of its matrices; None for full ones.
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
        rank: int | None = None,
        pair_numbers: int | None = None,
    ) -> None:
        super().__init__(
            fields, width, hidden, dropout, norm, layers=layers, rank=rank, pair_numbers=pair_numbers
        )
        self.cross = MatrixCross(self.size("cross"), layers, rank)
        self.cross_head = Linear(self.size("cross_head"), 1, bias=False)
        self.mlp = MLP(self.size("mlp"), hidden, dropout, norm)

    def forward(self, embeddings: Tensor, pairs: Tensor | Given | None = None) -> Tensor:
        """(B, F, D), and numbers of pairs (B, N) for the MLP -> logits (B,)."""
        inputs = embeddings.flatten(1)  # (B, F * D)
        logits: Tensor = self.cross_head(self.cross(inputs)).squeeze(1)
        deep: Tensor = self.mlp(side_by_side(inputs, pairs))
        return logits + deep
