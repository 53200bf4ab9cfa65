"""The forward pass in PyTorch: that of bundles of the first two formats, and what an export compares its graph with."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import TypeAdapter
from torch import nn

from ctr.dataset.crosses import CrossKeys
from ctr.errors import CtrError, nearest, out_of_memory
from ctr.evaluation.sampling import unsampled
from ctr.network.backbones import BACKBONES
from ctr.network.crosses import CrossIndex
from ctr.network.embeddings import Inputs, Table
from ctr.network.hashed_tables import COMPOSITIONS, HashedTable
from ctr.network.network import Architecture, Network, build
from ctr.selection.pair_space import cross_index
from ctr.serving.rows import EncodedRows
from ctr.serving.storage import TABLES

_LAYERS = 1000  # of an MLP: each takes time, whatever it weighs


class Forward:
    """A network from its architecture and weights. Safe to call from several threads.

    Args:
        architecture: the fields of an `Architecture`, as JSON has them.
        weights: every tensor by name.
        keep_rate: share of the rows with label 0 that the log held; probabilities are those of the unsampled world.
        crosses: by which those of memorized pairs are found, where there are such pairs.

    Raises:
        ValueError: no such architecture, or the weights are not those of it.
    """

    def __init__(
        self,
        architecture: Mapping[str, Any],
        weights: Mapping[str, npt.NDArray[Any]],
        keep_rate: float = 1.0,
        crosses: CrossKeys | None = None,
    ) -> None:
        found = read_architecture(architecture)
        tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
        if found.backbone not in BACKBONES:
            raise ValueError(f'no backbone "{found.backbone}"{nearest(found.backbone, BACKBONES)}')
        if found.composition and found.composition not in COMPOSITIONS:
            raise ValueError(
                f'no composition "{found.composition}"{nearest(found.composition, COMPOSITIONS)}'
            )
        single = found.fields - len(found.pooling)
        if len(found.hidden) > _LAYERS or len(found.vectors) > single:
            raise ValueError(f"expected at most {_LAYERS} hidden layers and {single} vectors, found more")
        if not all(0 <= slot < single for slot, _ in found.vectors):
            raise ValueError(f"vectors: expected slots from 0 to {single - 1}, found {found.vectors}")
        try:
            index = _index(found, crosses)
            _require_shapes(found, index, tensors)
            network = _with_small_tables(found, index)
            _fill_all(network.table, "table", tensors, found.rows, found.second_rows)
            if found.pairs is not None and network.crosses is not None:
                network.crosses.layout = found.pairs
                if network.crosses.memory is not None:
                    _fill(network.crosses.memory, "crosses.memory.weight", tensors, found.pairs.cross_rows)
                if network.crosses.factors is not None:
                    rows = found.rows if found.composition else found.pairs.factor_rows
                    _fill_all(network.crosses.factors, "crosses.factors", tensors, rows, found.second_rows)
            network.load_state_dict(tensors)
        except (RuntimeError, TypeError, ArithmeticError, CtrError) as error:
            if out_of_memory(error):
                raise
            raise ValueError(" ".join(str(error).split())) from None
        self._network, self._keep_rate = network.eval(), keep_rate

    def __call__(self, rows: EncodedRows) -> npt.NDArray[np.float64]:
        """Click probabilities (B,)."""
        return probabilities(self._network, rows, self._keep_rate)


def _with_small_tables(architecture: Architecture, index: CrossIndex | None) -> Network:
    """A network whose tables have one row, for they are replaced at once.

    Raises:
        ValueError: not even that can be built.
    """
    small = replace(architecture, rows=1, second_rows=min(1, architecture.second_rows))
    if architecture.pairs is not None:
        small = replace(small, pairs=replace(architecture.pairs, cross_rows=1, factor_rows=1))
    with torch.random.fork_rng(devices=[]):
        try:
            return build(small, index=index)
        except RuntimeError as error:
            # Also where memory ran out: there are no weights for layers of such a size.
            raise ValueError(" ".join(str(error).split())) from None


def _require_shapes(
    architecture: Architecture, index: CrossIndex | None, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Make sure that the weights are those of such a network, before one takes the memory that it says it needs.

    Raises:
        ValueError: they are not.
    """
    with torch.device("meta"):
        expected = _with_small_tables(architecture, index).state_dict()
    tables = {f"{table}.weight" for table in TABLES}  # which are looked at when they are filled
    for name in expected.keys() - tables:
        found = tuple(tensors[name].shape) if name in tensors else None
        if found != tuple(expected[name].shape):
            raise ValueError(f'"{name}": expected the shape {tuple(expected[name].shape)}, found {found}')


def _index(architecture: Architecture, crosses: CrossKeys | None) -> CrossIndex | None:
    """What crosses are found by, where pairs are modelled.

    Raises:
        ValueError: it is not of the pairs that the architecture memorizes.
    """
    if architecture.pairs is None:
        return None
    if crosses is None:
        crosses = CrossKeys((), np.zeros((1, 4), np.int32), np.zeros(0, np.int64))
    if len(crosses.pairs) != len(architecture.pairs.memorized):
        raise ValueError(
            f"expected crosses of {len(architecture.pairs.memorized)} pairs, found {len(crosses.pairs)}"
        )
    if crosses.sketch is not None and not architecture.pairs.hashed:
        raise ValueError("a sketch of crosses needs rows that they share")
    return cross_index(crosses)


def _fill_all(
    table: Table, name: str, tensors: Mapping[str, torch.Tensor], rows: int, second_rows: int
) -> None:
    """The same with the second table of a composition, where it has one."""
    _fill(table, f"{name}.weight", tensors, rows)
    if isinstance(table, HashedTable) and table.second is not None:
        _fill(table.second, f"{name}.second.weight", tensors, second_rows)


def _fill(table: Table, name: str, tensors: Mapping[str, torch.Tensor], rows: int) -> None:
    """Put the weights of that name into a table that was built with one row."""
    weight, shape = tensors.get(name), (rows, table.weight.shape[1])
    if weight is None or tuple(weight.shape) != shape:
        found = None if weight is None else tuple(weight.shape)
        raise ValueError(f'"{name}": expected the shape {shape}, found {found}')
    if weight[0].any():
        raise ValueError(f'"{name}": expected zeros in row 0, which dropped features read')
    table.weight = nn.Parameter(weight)


@torch.no_grad()
def probabilities(network: Network, rows: EncodedRows, keep_rate: float = 1.0) -> npt.NDArray[np.float64]:
    """Click probabilities (B,) by a network in evaluation mode: the sigmoid, in float64, of float32 logits.

    Where negatives were sampled the logits belong to the sampled log; see `ctr.evaluation.sampling`.
    """
    device = network.device
    arrays = (None if array is None else torch.from_numpy(array).to(device) for array in rows)
    logits = network(Inputs(*arrays))  # type: ignore[arg-type]  # None is for what a log may lack, here as there
    return unsampled(logits.cpu().double().numpy(), keep_rate)


def read_architecture(entry: Mapping[str, Any]) -> Architecture:
    """The architecture that a manifest states; what a bundle of an older format does not say has its usual value.

    Raises:
        ValueError: keys or types are others.
    """
    if not entry.keys() <= {field.name for field in fields(Architecture)}:
        raise ValueError(f"architecture: unexpected keys {sorted(entry)}")
    return TypeAdapter(Architecture).validate_python(dict(entry))
