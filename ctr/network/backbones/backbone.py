"""What every backbone is: from field embeddings to one logit, and able to do with fewer fields.

Shapes: B rows, F fields, P = F (F - 1) / 2 pairs, D width, U units of a sub-net.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any, ClassVar, Self, get_args

import torch
from torch import Tensor, nn

from ctr.errors import ConfigError
from ctr.network.layers import Norm


class Part(Enum):
    """A stretch of a layer's flat input, and what runs along it."""

    FIELDS = "every number of every field's embedding: F * D"
    PAIRS = "one number for every pair of fields i < j: P"
    SUBNETS = "every unit of the sub-net of every pair: P * U"

    def spread(self, fields: Tensor, settings: Mapping[str, Any]) -> Tensor:
        """Truth per field (F,) -> truth per input: a pair is there where both of its fields are.

        `settings` of the backbone say how many numbers a field ("width") or a sub-net ("subnet_units") has.
        """
        if self is Part.FIELDS:
            return fields.repeat_interleave(settings["width"])
        first, second = torch.triu_indices(len(fields), len(fields), offset=1, device=fields.device)
        pairs = fields[first] & fields[second]
        return pairs.repeat_interleave(settings["subnet_units"]) if self is Part.SUBNETS else pairs


class Backbone(nn.Module, ABC):
    """From field embeddings (B, F, D) to logits (B,): no sigmoid, no side effects.

    Args:
        fields: F.
        width: D; may be 0 where the backbone reads no embeddings.
        hidden: units of the hidden layers of its MLP, where it has one; none of them leaves a linear layer.
        dropout: share of the MLP's units set to zero in training.
        norm: normalisation in the MLP.
        own: settings of the subclass, kept so that `keep_fields` can build the backbone again. One that reads
            pairs has `pair_numbers`: how many numbers their vectors have together (`ctr.network.crosses`).

    A subclass declares:
        first_order: whether its usual definition adds first-order weights and a bias. They live outside.
        reads_pairs: whether it takes the vectors of pairs.
        reads: layer name -> what the flat input of that layer consists of, in order. The layer's own
            `input_axes` says which axes of its parameters run over that input. No other weight may depend on
            the fields.

    Raises:
        ConfigError: a setting out of range.
    """

    first_order: ClassVar[bool]
    reads_pairs: ClassVar[bool] = False
    reads: ClassVar[Mapping[str, tuple[Part, ...]]] = {}

    def __init__(
        self, fields: int, width: int, hidden: Sequence[int], dropout: float, norm: Norm, **own: int | None
    ) -> None:
        super().__init__()
        counts = {"fields": fields, **own} | ({"width": width} if self.reads else {})
        for name, value in [*counts.items(), *(("hidden", units) for units in hidden)]:
            if value is not None and value < 1:
                raise ConfigError(f'backbone setting "{name}": expected at least 1, found {value}')
        if not 0.0 <= dropout < 1.0:
            raise ConfigError(f'backbone setting "dropout": expected at least 0 and below 1, found {dropout}')
        if norm not in get_args(Norm):
            expected = ", ".join(f'"{name}"' for name in get_args(Norm))
            raise ConfigError(f'backbone setting "norm": expected one of {expected}, found "{norm}"')
        self.fields = fields
        self.settings: dict[str, Any] = {
            "width": width,
            "hidden": hidden,
            "dropout": dropout,
            "norm": norm,
            **own,
        }

    @abstractmethod
    def forward(self, embeddings: Tensor) -> Tensor:
        """(B, F, D) -> logits (B,)."""

    def size(self, layer: str) -> int:
        """How many numbers `layer` reads of each row."""
        # Takes no memory, whatever is said of the fields.
        everyone = torch.ones(self.fields, dtype=torch.bool, device="meta")
        return len(self._spread(layer, everyone))

    def keep_fields(self, kept: Sequence[int]) -> Self:
        """Copy the backbone without the other fields: its share of the weights, its statistics, its mode.

        The logits are those of this backbone where the embeddings of all other fields are zero.

        Args:
            kept: positions of fields, ascending, at least one.

        Raises:
            ValueError: `kept` is empty, out of order or out of range.
        """
        if not kept or list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= self.fields:
            raise ValueError(
                f"kept: expected ascending positions below {self.fields}, at least one, found {list(kept)}"
            )
        here = torch.zeros(self.fields, dtype=torch.bool)
        here[list(kept)] = True
        state = {name: tensor.detach().clone() for name, tensor in self.state_dict().items()}
        device = next((tensor.device for tensor in state.values()), torch.device("cpu"))
        for layer in self.reads:
            inputs = self._inputs(layer, here).to(device)
            axes: Mapping[str, tuple[int, ...]] = getattr(self, layer).input_axes
            for name in axes.keys() & dict(getattr(self, layer).named_parameters()):
                for axis in axes[name]:
                    state[f"{layer}.{name}"] = state[f"{layer}.{name}"].index_select(axis, inputs)
        with torch.random.fork_rng(devices=[]):  # fresh weights are replaced at once: no draw may count
            smaller = type(self)(len(kept), **self.settings).to(device)
        smaller.load_state_dict(state, assign=True)
        return smaller.train(self.training)

    def _inputs(self, layer: str, here: Tensor) -> Tensor:
        """Find the positions, in the input of `layer`, of what belongs to the fields that are `here` (F,)."""
        return self._spread(layer, here).nonzero().squeeze(1)

    def _spread(self, layer: str, here: Tensor) -> Tensor:
        """Truth per field (F,) -> truth per number that `layer` reads.

        Vectors of pairs, which an MLP reads last, belong to no field: they stay.
        """
        truth = [part.spread(here, self.settings) for part in self.reads[layer]]
        pairs = (self.settings.get("pair_numbers") or 0) if layer == "mlp" else 0
        return torch.cat([*truth, torch.ones(pairs, dtype=torch.bool, device=here.device)])
