"""The forward pass of a bundle in PyTorch: the only part of scoring that needs it, imported when it is needed."""

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import TypeAdapter
from torch import nn

from ctr.errors import CtrError, nearest
from ctr.evaluation.sampling import unsampled
from ctr.network.backbones import BACKBONES
from ctr.network.embeddings import Inputs
from ctr.network.network import Architecture, Network, build
from ctr.serving.rows import EncodedRows

_TABLE = "table.weight"


class Forward:
    """A network from its architecture and weights. Safe to call from several threads.

    Args:
        architecture: the fields of an `Architecture`, as JSON has them.
        weights: every tensor by name.
        keep_rate: share of the rows with label 0 that the log held; probabilities are those of the unsampled world.

    Raises:
        ValueError: no such architecture, or the weights are not those of it.
    """

    def __init__(
        self, architecture: Mapping[str, Any], weights: Mapping[str, npt.NDArray[Any]], keep_rate: float = 1.0
    ) -> None:
        found = read_architecture(architecture)
        tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
        table = tensors.get(_TABLE)
        if found.backbone not in BACKBONES:
            raise ValueError(f'no backbone "{found.backbone}"{nearest(found.backbone, BACKBONES)}')
        shape = (found.rows, found.width + found.linear)
        if table is None or tuple(table.shape) != shape:
            raise ValueError(
                f'"{_TABLE}": expected the shape {shape}, found {None if table is None else tuple(table.shape)}'
            )
        if table[0].any():
            raise ValueError(f'"{_TABLE}": expected zeros in row 0, which dropped features read')
        try:
            with torch.random.fork_rng(devices=[]):  # the fresh weights are replaced at once
                network = build(replace(found, rows=1))
            network.table.weight = nn.Parameter(table)
            network.load_state_dict(tensors)
        except (RuntimeError, TypeError, CtrError) as error:
            raise ValueError(" ".join(str(error).split())) from None
        self._network, self._keep_rate = network.eval(), keep_rate

    def __call__(self, rows: EncodedRows) -> npt.NDArray[np.float64]:
        """Click probabilities (B,)."""
        return probabilities(self._network, rows, self._keep_rate)


@torch.no_grad()
def probabilities(network: Network, rows: EncodedRows, keep_rate: float = 1.0) -> npt.NDArray[np.float64]:
    """Click probabilities (B,) by a network in evaluation mode: the sigmoid, in float64, of float32 logits.

    Where negatives were sampled the logits belong to the sampled log; see `ctr.evaluation.sampling`.
    """
    device = network.device
    arrays = (None if array is None else torch.from_numpy(array).to(device) for array in rows)
    logits = network(Inputs(*arrays))  # type: ignore[arg-type]  # None is for `values` and `vectors`, here as there
    return unsampled(logits.double().cpu().numpy(), keep_rate)


def read_architecture(entry: Mapping[str, Any]) -> Architecture:
    """The architecture that a manifest states.

    Raises:
        ValueError: keys or types are others.
    """
    if entry.keys() != {field.name for field in fields(Architecture)}:
        raise ValueError(f"architecture: unexpected keys {sorted(entry)}")
    return TypeAdapter(Architecture).validate_python(dict(entry))
