"""Degree-two polynomial (Chang et al., "Training and Testing Low-degree Polynomial Data Mappings", JMLR 2010)."""

from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from ctr.network.backbones.backbone import Backbone
from ctr.network.layers import Given, Norm


class Poly2(Backbone):
    """logit = the sum of all numbers of pairs: with memorized pairs of one number each, a weight for every cross.

    Without pairs it is a logistic regression; so that is the baseline of a run that memorizes all pairs. `hidden`,
    `dropout` and `norm` have nothing to act on.

    NOTE[DIFF] The paper's crosses are those of numbers; here those of categories, as the comparisons of field-aware
    factorization machines have them (Juan et al., RecSys 2016).
    """

    first_order: ClassVar[bool] = True
    reads_pairs: ClassVar[bool] = True

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

    def forward(self, embeddings: Tensor, pairs: Tensor | Given | None = None) -> Tensor:
        """(B, F, D), and numbers of pairs (B, N) -> logits (B,)."""
        if pairs is None:
            return embeddings.new_zeros(embeddings.shape[0])
        return (pairs.numbers if isinstance(pairs, Given) else pairs).sum(1)
