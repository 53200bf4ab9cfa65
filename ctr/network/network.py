"""A network: embedding, gate, backbone.

Shapes: B rows, F fields, D width of a field, W = D plus one float for the first-order weight, V features.

    ids (B, F), or places (B, F, R) -> table (B, F, W) -> gate (B, F, W) -> embeddings (B, F, D) -> backbone (B,)
                                                    -> first-order weights (B, F) -> their sum (B,)
    ids (B, S) -> pair vectors (B, N), for the backbone's MLP, where pairs are modelled
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ctr.errors import ConfigError
from ctr.network.backbones import BACKBONES, Backbone
from ctr.network.crosses import FACTOR_START, Crosses, CrossIndex, PairLayout
from ctr.network.embeddings import Inputs, Pooling, Projections, Table, pool_lists
from ctr.network.gates import HardGate, SoftGate
from ctr.network.hashed_tables import COMPOSITIONS, HashedTable
from ctr.network.layers import Norm


@dataclass(frozen=True)
class Architecture:
    """Everything that a network is built from, but the numbers.

    first_order: add first-order weights and a bias; None takes the backbone's usual definition.
    pooling: of each list field. vectors: (slot, numbers) of each vector field.
    composition: of a hashed table's rows, "" where each feature has one of its own. second_rows, lookups, odd_lookups
        (slot, lookups): of such a table (`ctr.network.hashed_tables`).
    pairs: how pairs of fields are modelled; None where they are not.
    """

    rows: int
    fields: int
    dim: int = 16
    backbone: str = "deepfm"
    hidden: tuple[int, ...] = (256, 128)
    dropout: float = 0.0
    norm: Norm = "none"
    first_order: bool | None = None
    init_scale: float | None = None
    extra: tuple[tuple[str, int], ...] = ()
    pooling: tuple[Pooling, ...] = ()
    vectors: tuple[tuple[int, int], ...] = ()
    composition: str = ""
    second_rows: int = 0
    lookups: int = 1
    odd_lookups: tuple[tuple[int, int], ...] = ()
    pairs: PairLayout | None = None

    @property
    def scale(self) -> float:
        """Of the table's floats at the start: standard deviation, or half the range where rows are shared.

        NOTE[DIFF] Coleman et al. 2023 draw from U(-0.05, 0.05). On the logs of docs/embeddings.md that is nowhere
        better than U(-0.01, 0.01), and worse where most values are rare: what is drawn for them is noise.
        """
        return 0.01 if self.init_scale is None else self.init_scale

    @property
    def linear(self) -> int:
        """Floats of a table row that are first-order weights: 0 or 1."""
        usual = BACKBONES[self.backbone].first_order
        return int(usual if self.first_order is None else self.first_order)

    @property
    def width(self) -> int:
        """Floats of a table row that are embedding: none where there is nothing but first-order weights."""
        return 0 if self.backbone in ("lr", "poly2") else self.dim


class FirstOrder(torch.autograd.Function):
    """Parts the vectors of all fields into embeddings, dense in memory, and the sum of first-order weights.

    The gradient of a slice would be a whole array of zeros, one for each part, and one more for their sum.
    """

    @staticmethod
    def forward(vectors: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, D + 1) -> (B, F, D), (B,)."""
        return vectors[..., :-1].contiguous(), vectors[..., -1].sum(1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        """Nothing but shapes is needed by `backward`, and those it is given."""

    @staticmethod
    def backward(ctx: Any, embeddings: Tensor, first_order: Tensor) -> Tensor:
        """(B, F, D), (B,) -> (B, F, D + 1)."""
        batch, fields, width = embeddings.shape
        gradient = embeddings.new_empty(batch, fields, width + 1)
        gradient[..., :-1] = embeddings
        gradient[..., -1] = first_order.unsqueeze(1)
        return gradient


class Network(nn.Module):
    """From a batch to logits. `forward` changes nothing and applies no sigmoid.

    The buffers `slope` and `intercept` calibrate the logits (`ctr.evaluation.calibration`); 1 and 0 leave them alone.

    Its attribute `dataset` names the dataset whose ids it reads, once it has been set.

    Args:
        table: rows to vectors.
        backbone: vectors to a logit.
        linear: floats at the end of each table row that are first-order weights (0 or 1).
        gate: factors per feature, in front of everything; None leaves all features open.
        pooling: of each list field.
        projections: what turns the numbers of vector fields into vectors, where there are any.
        crosses: what turns pairs of fields into vectors, where they are modelled.
    """

    slope: Tensor
    intercept: Tensor

    def __init__(
        self,
        table: Table,
        backbone: Backbone,
        linear: int,
        gate: SoftGate | HardGate | None = None,
        pooling: tuple[Pooling, ...] = (),
        projections: Projections | None = None,
        crosses: Crosses | None = None,
    ) -> None:
        super().__init__()
        self.crosses = crosses
        self.pooling, self.projections = pooling, projections
        self.table, self.gate, self.backbone, self.linear = table, gate, backbone, linear
        self.bias = nn.Parameter(torch.zeros(1)) if linear else None
        self.dataset = ""  # digest of the dataset whose ids it reads, where there is one
        self.register_buffer("slope", torch.ones(()))
        self.register_buffer("intercept", torch.zeros(()))
        # Where a search listens: to what the gate is given, and to what the backbone is fed.
        self.ungated, self.gated = nn.Identity(), nn.Identity()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.table.weight.device

    def forward(self, inputs: Inputs) -> Tensor:
        """Logits (B,)."""
        embeddings = self.embed(inputs)  # (B, F, W)
        if self.bias is not None:
            embeddings, first_order = FirstOrder.apply(embeddings)  # type: ignore[no-untyped-call]  # (B, F, D), (B,)
        logits: Tensor = (
            self.backbone(embeddings)
            if self.crosses is None
            else self.backbone(embeddings, self.crosses(inputs))
        )
        if self.bias is not None:
            logits = first_order + self.bias + logits
        return self.slope * logits + self.intercept

    def embed(self, inputs: Inputs) -> Tensor:
        """Gated vectors of all fields (B, F, W): single-valued fields first, then lists."""
        places = inputs.ids if inputs.places is None else inputs.places
        single: Tensor = self.table(places)  # (B, S, W)
        if inputs.values is not None:
            single = single * inputs.values.unsqueeze(-1)
        if self.projections is not None and inputs.vectors is not None:
            single = self.projections(single, inputs.vectors, inputs.ids)
        single = self._gate(single, inputs.ids)  # (B, S, W)
        count = inputs.list_lengths.shape[1]
        if not count:
            return single
        if isinstance(self.table, HashedTable):
            slots = single.shape[1] + inputs.list_slots % count
            assert inputs.list_places is not None
            rows = self.table.compose(inputs.list_places, slots)  # (L, W)
        else:
            rows = self.table(inputs.list_ids)  # (L, W)
        rows = self._gate(rows, inputs.list_ids)
        lists = pool_lists(rows, inputs.list_slots, inputs.list_lengths, self.pooling)  # (B, M, W)
        return torch.cat([single, lists], dim=1)

    def _gate(self, vectors: Tensor, ids: Tensor) -> Tensor:
        """Vectors (..., W) of the table rows `ids` (...), behind the gate."""
        vectors = self.ungated(vectors)
        gated: Tensor = self.gated(vectors if self.gate is None else vectors * self.gate(ids))
        return gated


def build(
    architecture: Architecture, gate: SoftGate | HardGate | None = None, index: CrossIndex | None = None
) -> Network:
    """A network with fresh weights, drawn from torch's current seed.

    Args:
        index: what crosses are found by, where pairs are modelled.

    Raises:
        ConfigError: a setting out of range, or pairs in front of a backbone that reads none.
    """
    linear, width, pairs = architecture.linear, architecture.width, architecture.pairs
    own: dict[str, Any] = dict(architecture.extra)
    if pairs is not None:
        if not BACKBONES[architecture.backbone].reads_pairs:
            raise ConfigError(
                f'backbone.kind = "{architecture.backbone}" reads no vectors of pairs; use one of '
                + ", ".join(f'"{name}"' for name, kind in BACKBONES.items() if kind.reads_pairs)
            )
        own["pair_numbers"] = pairs.numbers or None
    backbone = BACKBONES[architecture.backbone](
        architecture.fields,
        width,
        hidden=architecture.hidden,
        dropout=architecture.dropout,
        norm=architecture.norm,
        **own,
    )
    table = build_table(architecture)
    projections = (
        Projections(architecture.vectors, width + linear, linear, architecture.scale)
        if architecture.vectors
        else None
    )
    crosses = None
    if pairs is not None and pairs.numbers:
        assert index is not None
        crosses = Crosses(pairs, _factor_table(architecture, pairs), index)
    return Network(table, backbone, linear, gate, architecture.pooling, projections, crosses)


def _factor_table(architecture: Architecture, pairs: PairLayout) -> Table | None:
    """E_a: a second table, read at the places of the first where those are hashed."""
    if not pairs.factorized:
        return None
    if not architecture.composition:
        return Table(pairs.factor_rows, pairs.dim, scale=FACTOR_START)
    odd = dict(architecture.odd_lookups)
    return COMPOSITIONS[architecture.composition](
        architecture.rows,
        architecture.second_rows,
        pairs.dim,
        0,
        architecture.lookups,
        tuple((place, odd[slot]) for place, (slot, _) in enumerate(pairs.shifts) if slot in odd),
        FACTOR_START,
    )


def build_table(architecture: Architecture) -> Table:
    """The table alone, with fresh weights."""
    linear, width = architecture.linear, architecture.width
    if not architecture.composition:
        return Table(architecture.rows, width + linear, linear, architecture.scale)
    return COMPOSITIONS[architecture.composition](
        architecture.rows,
        architecture.second_rows,
        width,
        linear,
        architecture.lookups,
        architecture.odd_lookups,
        architecture.scale,
    )


class Sizes(NamedTuple):
    """Learned numbers of a network, and those of them in tables, without the rows that dropped features read."""

    parameters: int
    table_parameters: int


def sizes(network: Network) -> Sizes:
    """How large a network is."""
    tables = [module.weight for module in network.modules() if isinstance(module, Table)]
    zeros = sum(table.shape[1] for table in tables)
    whole = sum(parameter.numel() for parameter in network.parameters())
    return Sizes(whole - zeros, sum(table.numel() for table in tables) - zeros)


def sizes_of(architecture: Architecture) -> Sizes:
    """How large a network without pairs would be, whose tables are not made."""
    network = _without_tables(architecture)
    tables = (architecture.rows - 1) * network.table.weight.shape[1]
    if isinstance(network.table, HashedTable) and network.table.second is not None:
        tables += (architecture.second_rows - 1) * network.table.second.weight.shape[1]
    return Sizes(sizes(network).parameters + tables, tables)


def layer_floats(architecture: Architecture) -> int:
    """What the layers of a network, norms among them, give for one row, together; without those for pairs."""
    kinds = (nn.Linear, nn.BatchNorm1d, nn.LayerNorm)
    layers = _without_tables(replace(architecture, pairs=None)).modules()
    return sum(len(layer.weight) for layer in layers if isinstance(layer, kinds))


def _without_tables(architecture: Architecture) -> Network:
    """A network whose tables have no rows but the dropped one."""
    with torch.random.fork_rng(devices=[]):  # fresh weights are thrown away: no draw may count
        return build(replace(architecture, rows=1, second_rows=min(1, architecture.second_rows)))
