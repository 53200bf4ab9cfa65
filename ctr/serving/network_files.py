"""A trained network -> the two files that a bundle holds of it: `network.onnx` and `weights.safetensors`."""

import copy
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.numpy import save_file

from ctr.errors import CtrError
from ctr.network.network import Architecture, Network
from ctr.serving import manifest as parts
from ctr.serving.graph import LOG_KEEP_RATE, GraphInput, network_graph
from ctr.serving.rows import PER_VALUE, EncodedRows
from ctr.serving.storage import Dtype, restored, stored
from ctr.serving.stored_graph import stored_graph, stretches


def write_network(
    built: Path,
    network: Network,
    architecture: Architecture,
    rows: EncodedRows,
    *,
    dtype: Dtype,
    keep_rate: float,
) -> tuple[parts.NetworkEntry, dict[str, npt.NDArray[Any]]]:
    """Write graph and weights.

    Args:
        built: folder of the bundle.
        network: without a gate.
        architecture: of the network.
        rows: some rows that it reads, however few: which arrays there are, and how wide.
        dtype: in which weights are stored.
        keep_rate: share of the rows with label 0 that the log held.

    Returns:
        What the manifest says of them, and the tensors as they are stored.

    Raises:
        CtrError: a weight is too large for float16, or the architecture is another network's.
    """
    arrays = _inputs(rows, architecture)
    graph = network_graph(architecture, arrays)
    state = {name: tensor.cpu().numpy() for name, tensor in network.state_dict().items()}
    state[LOG_KEEP_RATE] = np.array(math.log(keep_rate))
    read = [each.name for each in graph.graph.input]
    missing = set(read) - set(state) - {each.name for each in arrays}
    if missing:
        raise CtrError(f'export: architecture and weights do not fit: the network has no "{min(missing)}"')
    tensors = stored({name: array for name, array in state.items() if name in read}, dtype)
    save_file({name: np.asarray(array, order="C") for name, array in tensors.items()}, built / parts.WEIGHTS)
    whole = stored_graph(graph, stretches(built / parts.WEIGHTS), parts.WEIGHTS)
    (built / parts.GRAPH).write_bytes(whole.SerializeToString(deterministic=True))
    shutil.copymode(built / parts.GRAPH, built / parts.WEIGHTS)  # safetensors hides it from others
    inputs = [name for name in read if name not in state]
    return parts.NetworkEntry.model_validate({"inputs": inputs, "dtype": dtype}), tensors


def as_stored(network: Network, dtype: Dtype) -> Network:
    """The network that computes with the weights that a bundle stores: itself, or a rounded copy."""
    if dtype == "float32":
        return network
    rounded = copy.deepcopy(network)
    state = rounded.state_dict()
    arrays = {name: tensor.cpu().numpy() for name, tensor in state.items()}
    for name, array in restored(stored(arrays, dtype)).items():
        state[name].copy_(torch.from_numpy(array))
    return rounded


def _inputs(rows: EncodedRows, architecture: Architecture) -> list[GraphInput]:
    """The arrays that the network reads: `rows` without lists that are not there, and rows of crosses."""
    arrays: dict[str, npt.NDArray[Any] | None] = rows._asdict()
    if not architecture.pooling:
        arrays |= dict.fromkeys((*PER_VALUE, "list_lengths"))
    if architecture.pairs is not None and architecture.pairs.memorized:
        arrays["cross_rows"] = np.zeros((1, len(architecture.pairs.memorized)), np.int64)
    return [
        GraphInput(
            name,
            torch.from_numpy(array[:0]).dtype,
            "L" if name in PER_VALUE else "B",
            array.shape[1:],
        )
        for name, array in arrays.items()
        if array is not None
    ]
