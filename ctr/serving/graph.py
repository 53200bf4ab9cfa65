"""A network as an ONNX graph without weights: PyTorch's exporter sees the modules, so a new backbone needs nothing here.

Shapes: B rows, L list values, as in `ctr.serving.rows.EncodedRows`, whose arrays are the inputs; and `cross_rows` (B, M),
the rows of crosses of memorized pairs. Outputs: `logit` (B,) float32 and `probability` (B,) float64.

Weights are inputs too, named as in the network's state: `ctr.serving.stored_graph` makes of them what a bundle stores.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import onnx
import onnx_ir as ir
import torch
from onnxscript import optimizer
from torch import Tensor, nn

from ctr.network.crosses import CrossIndex
from ctr.network.embeddings import Inputs
from ctr.network.network import Architecture, Network, build

OPSET = 20
LOG_KEEP_RATE = "log_keep_rate"
OUTPUTS = ("logit", "probability")
_ROWS, _VALUES = 5, 7  # of the example that the exporter sees
_FEW = 3  # rows of its tables
_PREFIX = "network."  # of the names of weights in `Probabilities`


class GraphInput(NamedTuple):
    """An array that a graph reads. axis: "B" or "L", its first one; size: of the others."""

    name: str
    dtype: torch.dtype
    axis: str
    size: tuple[int, ...]

    def example(self) -> Tensor:
        """Zeros."""
        return torch.zeros(_ROWS if self.axis == "B" else _VALUES, *self.size, dtype=self.dtype)


class Probabilities(nn.Module):
    """From the arrays that a network reads, in the order of `names`, to logits and click probabilities of the world.

    The state is the network's own, and `log_keep_rate`: by which the sampling of negatives is undone
    (`ctr.evaluation.sampling`).
    """

    def __init__(self, network: Network, names: tuple[str, ...]) -> None:
        super().__init__()
        self.network, self.names = network, names
        self.register_buffer(LOG_KEEP_RATE, torch.zeros((), dtype=torch.float64))

    def forward(self, *arrays: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B,) and probabilities (B,)."""
        given = dict(zip(self.names, arrays, strict=True))
        rows = arrays[0].shape[0]
        none = arrays[0].new_zeros(0, dtype=torch.int64)
        nothing = {"list_ids": none, "list_slots": none, "list_lengths": arrays[0].new_zeros(rows, 0)}
        absent = {"values": None, "vectors": None}
        logits = self.network(Inputs(**{**absent, **nothing, **given}))
        return logits, torch.sigmoid(logits.double() + self.get_buffer(LOG_KEEP_RATE))


def network_graph(architecture: Architecture, inputs: Sequence[GraphInput]) -> onnx.ModelProto:
    """The graph of the networks of an architecture, in ONNX with `OPSET`: its last inputs are their weights.

    Two networks that differ in weights, or in rows of their tables, have one graph: it is made once.

    Args:
        inputs: what such a network reads, the first of them of axis "B".
    """
    small = replace(
        architecture, rows=_FEW, second_rows=min(_FEW, architecture.second_rows), dropout=0.0, init_scale=None
    )
    if architecture.pairs is not None:
        small = replace(small, pairs=replace(architecture.pairs, cross_rows=_FEW, factor_rows=_FEW))
    return onnx.load_model_from_string(_exported(small, tuple(inputs)))


@lru_cache(maxsize=64)
def _exported(architecture: Architecture, inputs: tuple[GraphInput, ...]) -> bytes:
    with torch.random.fork_rng(devices=[]):  # fresh weights are thrown away: no draw may count
        network = build(architecture, index=_no_crosses(architecture)).eval()
    served = Probabilities(network, tuple(each.name for each in inputs)).eval()
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            served,
            tuple(each.example() for each in inputs),
            input_names=[each.name for each in inputs],
            output_names=list(OUTPUTS),
            dynamic_shapes={"arrays": tuple({0: torch.export.Dim.DYNAMIC} for _ in inputs)},
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    assert program is not None
    model: ir.Model = program.model
    _weights_as_inputs(model, set(served.state_dict()))
    optimizer.optimize(model, onnx_shape_inference=False)
    _shorn(model, inputs)
    return ir.to_proto(model).SerializeToString(deterministic=True)


def _weights_as_inputs(model: ir.Model, state: set[str]) -> None:
    """So that nothing that follows can fold them into constants."""
    for name, value in list(model.graph.initializers.items()):
        if name in state:
            del model.graph.initializers[name]
            value.name, value.const_value = name.removeprefix(_PREFIX), None
            model.graph.inputs.append(value)


def _shorn(model: ir.Model, inputs: Sequence[GraphInput]) -> None:
    """Without inputs that nothing reads, and without all that the exporter says of where its nodes come from."""
    graph, sizes = model.graph, {each.name: (each.axis, *each.size) for each in inputs}
    for value in list(graph.inputs):
        if not value.uses():
            graph.inputs.remove(value)
        elif value.name in sizes:
            value.shape = ir.Shape(sizes[value.name])
    for value in graph.outputs:
        value.shape = ir.Shape(("B",))
    model.producer_name = model.producer_version = model.doc_string = None
    model.metadata_props.clear()
    graph.metadata_props.clear()
    graph.name, graph.doc_string = "network", None
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()
    for node in graph:
        node.name, node.doc_string = None, None
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
            if value not in graph.outputs:
                value.type, value.shape = None, None  # what follows from the inputs need not be said
    

def _no_crosses(architecture: Architecture) -> CrossIndex | None:
    """An index for pairs whose crosses are found outside of the graph."""
    if architecture.pairs is None:
        return None
    salts = torch.zeros(len(architecture.pairs.memorized), 2, dtype=torch.int64)
    none = torch.zeros(0, dtype=torch.int64)
    words, places = torch.zeros(1, 4, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    return CrossIndex(words, salts, none, places, torch.zeros(2, 0, dtype=torch.uint8))


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of packages and parts of PyTorch that are not ours."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
