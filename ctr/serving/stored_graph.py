"""The graph of a network and the file of its weights put together: `network.onnx` holds none, it says where they are.

Each weight is an initializer whose data are a stretch of `weights.safetensors`; any ONNX runtime can load the folder.
What is stored in fewer bits (`ctr.serving.storage`) becomes float32 in the graph: of a table the rows that were looked
up, never the whole; of a dense layer all of it, which a runtime does once, when it loads.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import onnx
from onnx import TensorProto, helper

from ctr.serving.storage import SCALE

TYPES = {
    "F64": TensorProto.DOUBLE,
    "F32": TensorProto.FLOAT,
    "F16": TensorProto.FLOAT16,
    "I8": TensorProto.INT8,
}


class Stretch(NamedTuple):
    """Where a tensor is in a safetensors file: offset and length in bytes. type: of ONNX."""

    type: int
    shape: tuple[int, ...]
    offset: int
    length: int


def stretches(path: Path) -> dict[str, Stretch]:
    """Where the tensors of a safetensors file are, by name.

    Raises:
        ValueError: its header is none, or has a type that no weight has.
    """
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        if size > path.stat().st_size:
            raise ValueError("its header is longer than the file")
        header = json.loads(stream.read(size))
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        if entry["dtype"] not in TYPES:
            raise ValueError(f'"{name}": unexpected type {entry["dtype"]}')
        start, end = entry["data_offsets"]
        found[name] = Stretch(TYPES[entry["dtype"]], tuple(entry["shape"]), 8 + size + start, end - start)
    return found


def stored_graph(graph: onnx.ModelProto, weights: Mapping[str, Stretch], location: str) -> onnx.ModelProto:
    """The graph with weights in place of the inputs that are called like them.

    Args:
        graph: as `ctr.serving.graph.network_graph` gives it.
        weights: all that it reads, and scales of what is stored as int8.
        location: file name of the weights, beside the graph.
    """
    found = onnx.ModelProto()
    found.CopyFrom(graph)
    inside = found.graph
    names = [each.name for each in inside.input if each.name in weights]
    kept = [each for each in inside.input if each.name not in weights]
    del inside.input[:]
    inside.input.extend(kept)
    for name in names:
        for each in (name, name + SCALE):
            if each in weights:
                inside.initializer.append(_initializer(each, weights[each], location))
    narrow = {name for name in names if weights[name].type in (TensorProto.INT8, TensorProto.FLOAT16)}
    nodes = [new for node in inside.node for new in _looked_up(node, narrow, weights)]
    whole = [name for name in sorted(narrow) if any(name + _WHOLE in node.input for node in nodes)]
    del inside.node[:]
    inside.node.extend([node for name in whole for node in _widened(name, name + _WHOLE, None, weights)])
    inside.node.extend(nodes)
    return found


_WHOLE = ".whole"


def _initializer(name: str, stretch: Stretch, location: str) -> TensorProto:
    tensor = TensorProto(name=name, data_type=stretch.type, dims=stretch.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", stretch.offset), ("length", stretch.length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _looked_up(
    node: onnx.NodeProto, narrow: set[str], weights: Mapping[str, Stretch]
) -> list[onnx.NodeProto]:
    """What stands for a node: lookups widen the rows that they find, other readers get the whole tensor."""
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
    if node.op_type == "Gather" and node.input[0] in narrow and axis == 0:
        return _widened(node.input[0], node.output[0], node.input[1], weights)
    changed = onnx.NodeProto()
    changed.CopyFrom(node)
    for place, name in enumerate(node.input):
        if name in narrow:
            changed.input[place] = name + _WHOLE
    return [changed]


def _widened(
    name: str, result: str, rows: str | None, weights: Mapping[str, Stretch]
) -> list[onnx.NodeProto]:
    """Nodes from a stored tensor, or some rows of it, to float32."""
    nodes, scaled = list[onnx.NodeProto](), name + SCALE in weights

    def some(tensor: str) -> str:
        if rows is None:
            return tensor
        nodes.append(helper.make_node("Gather", [tensor, rows], [f"{result}.{len(nodes)}"]))
        return f"{result}.{len(nodes) - 1}"

    wide = f"{result}.wide" if scaled else result
    nodes.append(helper.make_node("Cast", [some(name)], [wide], to=TensorProto.FLOAT))
    if scaled:
        nodes.append(helper.make_node("Mul", [wide, some(name + SCALE)], [result]))
    return nodes
