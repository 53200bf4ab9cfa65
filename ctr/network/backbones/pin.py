"""MLP on embeddings and a sub-net per pair (Qu et al., "Product-based Neural Networks ...", TOIS 2018): PIN."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from ctr.errors import ConfigError
from ctr.network.backbones.backbone import Backbone, Part
from ctr.network.layers import MLP, Given, Norm, SubNets, side_by_side


class PIN(Backbone):
    """logit = MLP(concatenated embeddings, sub-net of every pair). Product-network In Network.

    `norm = "layer"` is of the paper, and acts in the sub-nets as in the MLP; no other norm acts in sub-nets.

    NOTE[DIFF] Four departures.
    - A pair is there only where both of its embeddings are (`SubNets`), so that dropped values and fields leave
      nothing: closed gates and a compact network agree. On its way to zero a pair ends with a step: a half-closed
      gate still leaves it its biases.
    - A value whose partners are all dropped would thus be lost, and a single field left would be a constant. So the
      MLP reads the embeddings too, as that of `IPNN` does; the paper's reads sub-nets alone.
    - A sub-net has one layer; the authors' code puts a wider one in front of five units.
    - The layer norm may be left out. OptFS judges a value by what scaling its embedding does, which a layer norm so
      near to the embeddings undoes again: with one, useful values are overlooked sooner.

    Args:
        fields, width, hidden, dropout, norm, pair_numbers: see `Backbone`.
        subnet_units: U, numbers that a sub-net gives; at least 2, for a layer norm leaves nothing of one.
    """

    first_order: ClassVar[bool] = False
    reads_pairs: ClassVar[bool] = True
    reads: ClassVar[Mapping[str, tuple[Part, ...]]] = {
        "subnets": (Part.PAIRS,),
        "mlp": (Part.FIELDS, Part.SUBNETS),
    }

    def __init__(
        self,
        fields: int,
        width: int,
        hidden: Sequence[int],
        dropout: float,
        norm: Norm,
        subnet_units: int = 5,
        pair_numbers: int | None = None,
    ) -> None:
        super().__init__(
            fields, width, hidden, dropout, norm, subnet_units=subnet_units, pair_numbers=pair_numbers
        )
        if subnet_units < 2:
            raise ConfigError(f'backbone setting "subnet_units": expected at least 2, found {subnet_units}')
        self.subnets = SubNets(fields, width, subnet_units, layer_norm=norm == "layer")
        self.mlp = MLP(self.size("mlp"), hidden, dropout, norm)

    def forward(self, embeddings: Tensor, pairs: Tensor | Given | None = None) -> Tensor:
        """(B, F, D), and numbers of pairs (B, N) for the MLP -> logits (B,)."""
        inputs = side_by_side(
            embeddings.flatten(1), self.subnets(embeddings), pairs
        )  # (B, F * D + P * U + N)
        logits: Tensor = self.mlp(inputs)
        return logits
