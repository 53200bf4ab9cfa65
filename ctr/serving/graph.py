"""A network as an ONNX graph without weights, from the operators that `torch.export` sees it run.

Shapes: B rows, L list values, as in `ctr.serving.rows.EncodedRows`, whose arrays are the inputs; and `cross_rows`
(B, M), the rows of crosses of memorized pairs. Outputs: `logit` (B,) float32 and `probability` (B,) float64.

Weights are inputs too, named as in the network's state: `ctr.serving.stored_graph` makes of them what a bundle stores.
"""

import operator
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import onnx
import torch
from onnx import helper
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram

from ctr.errors import CtrError
from ctr.network.crosses import CrossIndex
from ctr.network.embeddings import Inputs
from ctr.network.network import Architecture, Network, build
from ctr.serving.manifest import OUTPUTS
from ctr.serving.operators import OPERATORS, Emitter, Operand, value_info

LOG_KEEP_RATE = "log_keep_rate"
_OPSET, _IR = 20, 10  # versions of operators and file format: runtimes since 2024 know them
_ROWS, _VALUES = 5, 7  # of the example that is run: sizes that are not 0 or 1, which PyTorch takes for fixed
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
        none = arrays[0].new_zeros(0, dtype=torch.int64)
        lengths = arrays[0].new_zeros(arrays[0].shape[0], 0)
        inputs = Inputs(given["ids"], None, none, none, lengths)._replace(**given)
        logits = self.network(inputs)
        return logits, torch.sigmoid(logits.double() + self.get_buffer(LOG_KEEP_RATE))


def network_graph(architecture: Architecture, inputs: Sequence[GraphInput]) -> onnx.ModelProto:
    """The graph of the networks of an architecture: its last inputs are their weights.

    Two networks that differ in weights, or in rows of their tables, have one graph: it is made once.

    Args:
        inputs: what such a network reads, the first of them of axis "B".

    Raises:
        CtrError: a layer uses an operator that has no line in `ctr.serving.operators`.
    """
    small = replace(architecture, rows=_FEW, second_rows=min(_FEW, architecture.second_rows), init_scale=None)
    if architecture.pairs is not None:
        small = replace(small, pairs=replace(architecture.pairs, cross_rows=_FEW, factor_rows=_FEW))
    return onnx.load_model_from_string(_exported(small, tuple(inputs)))


@lru_cache(maxsize=64)
def _exported(architecture: Architecture, inputs: tuple[GraphInput, ...]) -> bytes:
    with torch.random.fork_rng(devices=[]):  # fresh weights are thrown away: no draw may count
        network = build(architecture, index=_no_crosses(architecture)).eval()
    served = Probabilities(network, tuple(each.name for each in inputs)).eval()
    with torch.no_grad():
        program = torch.export.export(
            served,
            tuple(each.example() for each in inputs),
            dynamic_shapes={"arrays": tuple({0: Dim.DYNAMIC} for _ in inputs)},
            strict=False,
        )
    graph = _translated(program, served, inputs)
    opset = helper.make_opsetid("", _OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR, producer_name="ctr")
    return bytes(model.SerializeToString(deterministic=True))


def _translated(
    program: ExportedProgram, served: Probabilities, inputs: Sequence[GraphInput]
) -> onnx.GraphProto:
    emit, found = Emitter(), dict[str, Any]()
    stated = _stated(program, served, inputs, emit)
    for node in program.graph.nodes:
        if node.op == "placeholder":
            found[node.name] = stated[node.name]
        elif node.op == "call_function":
            found[node.name] = _called(emit, node, found)
        else:
            logit, probability = fx.map_arg(node.args[0], lambda arg: found[arg.name])
    emit.nodes += [
        helper.make_node("Identity", [result.name], [name])
        for result, name in zip((logit, probability), OUTPUTS, strict=True)
    ]
    return _needed(emit, served, inputs, (logit.dtype, probability.dtype))


def _stated(
    program: ExportedProgram, served: Probabilities, inputs: Sequence[GraphInput], emit: Emitter
) -> dict[str, Operand]:
    """What the placeholders of a program stand for: weights, constants, and the arrays that are given."""
    signature, weights = program.graph_signature, served.state_dict()
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    given, found = iter(inputs), {}
    for node in program.graph.find_nodes(op="placeholder"):
        name, value = names.get(node.name), node.meta["val"]
        if name is None:
            called = next(given).name
        elif name in weights:
            called = name.removeprefix(_PREFIX)
        else:  # a constant of the architecture; what finds crosses is one that nothing uses here
            called = emit.constant(served.get_buffer(name).numpy(), value.dtype) if node.users else ""
        found[node.name] = Operand(called, value.dtype, tuple(value.shape))
    return found


def _called(emit: Emitter, node: fx.Node, found: dict[str, Any]) -> Any:
    """What a call of an operator gives: an operand, several, or the name of a size."""
    args: Any = fx.map_arg(node.args, lambda arg: found[arg.name])
    keys: Any = fx.map_arg(node.kwargs, lambda arg: found[arg.name])
    if node.target is operator.getitem:
        return args[0][args[1]]
    emitted = OPERATORS.get(str(node.target))
    if emitted is None:
        raise CtrError(
            f'export: the network uses "{node.target}", of which "ctr/serving/operators.py" does not say what it is in '
            "ONNX; add a line there"
        )
    value = node.meta.get("val")
    if isinstance(value, list | tuple):
        outs = [Operand("", each.dtype, tuple(each.shape)) for each in value]
        names = emitted(emit, outs, *args, **keys)
        return [out._replace(name=name) for out, name in zip(outs, names, strict=True)]
    if not isinstance(value, Tensor):
        return emitted(emit, None, *args, **keys)
    out = Operand("", value.dtype, tuple(value.shape))
    return out._replace(name=emitted(emit, out, *args, **keys))


def _needed(
    emit: Emitter, served: Probabilities, inputs: Sequence[GraphInput], dtypes: Sequence[torch.dtype]
) -> onnx.GraphProto:
    """A graph of the nodes, inputs and constants that the outputs follow from."""
    read, nodes = set(OUTPUTS), list[onnx.NodeProto]()
    for node in reversed(emit.nodes):
        if node.output[0] in read:
            read.update(node.input)
            nodes.append(node)
    state = {name.removeprefix(_PREFIX): tensor for name, tensor in served.state_dict().items()}
    return helper.make_graph(
        nodes[::-1],
        "network",
        [value_info(each.name, each.dtype, (each.axis, *each.size)) for each in inputs if each.name in read]
        + [value_info(name, tensor.dtype, tensor.shape) for name, tensor in state.items() if name in read],
        [value_info(name, dtype, ("B",)) for name, dtype in zip(OUTPUTS, dtypes, strict=True)],
        [tensor for name, tensor in emit.constants.items() if name in read],
    )


def _no_crosses(architecture: Architecture) -> CrossIndex | None:
    """An index for pairs whose crosses are found outside of the graph."""
    if architecture.pairs is None:
        return None
    salts = torch.zeros(len(architecture.pairs.memorized), 2, dtype=torch.int64)
    none = torch.zeros(0, dtype=torch.int64)
    words, places = torch.zeros(1, 4, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
    return CrossIndex(words, salts, none, places, torch.zeros(2, 0, dtype=torch.uint8))
