"""What a graph may be before a runtime sees it: that of a network, and nothing else. Needs `onnx` alone.

A graph that is not ours can at worst be refused. It is data, and what makes it compute is a short list of operators: no
loop, no branch, no function, nothing of another domain. Its weights are stretches of the bundle's own file, as that
file's header has them. And what it takes is found without running it (`ctr.serving.graph_shapes`), and held against
what networks of so many fields take, whose tables and dense layers are those of the file: nodes, numbers, and
multiplications of matrices.

Shapes: B rows, L list values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, NamedTuple, Self

import onnx
from google.protobuf.message import DecodeError
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from ctr.serving.graph_shapes import OPERATORS
from ctr.serving.graph_sizes import Known, Size
from ctr.serving.storage import SCALE, TABLES
from ctr.serving.stored_graph import Stretch

_LARGEST_GRAPH = 16 << 20  # bytes; the graphs of networks with hundreds of fields have less than one
_LARGEST = 1 << 24  # numbers for one row, of all tensors together
_TYPES: dict[int, int] = {  # of inputs, and of what a graph holds itself, with bytes of a number
    TensorProto.FLOAT: 4,
    TensorProto.DOUBLE: 8,
    TensorProto.INT64: 8,
    TensorProto.BOOL: 1,
}
_ATTRIBUTES = {
    "epsilon": AttributeProto.FLOAT,
    "perm": AttributeProto.INTS,
    "reduction": AttributeProto.STRING,
    "value": AttributeProto.TENSOR,
}  # all others are whole numbers


@dataclass(frozen=True)
class Extent:
    """How large a network is, as the files of a bundle have it.

    fields: F. width: V, of a field's vector. tensors: how many there are. dense: numbers of all that are no tables.
    outputs: of them, rows of numbers that are multiplied by the same.
    """

    fields: int
    width: int
    tensors: int
    dense: int
    outputs: int

    @classmethod
    def of(cls, fields: int, lookups: int, weights: Mapping[str, Stretch]) -> Self:
        """Of a network of so many fields, whose table rows are put together from up to so many lookups."""
        ends = {f"{table}.weight{end}" for table in TABLES for end in ("", SCALE)}
        tables = [own.shape for name, own in weights.items() if name in ends]
        others = [own.shape for name, own in weights.items() if name not in ends]
        return cls(
            fields,
            max((shape[-1] for shape in tables if shape), default=1) * lookups,
            len(weights),
            sum(prod(shape) for shape in others),
            sum(prod(shape[:-1]) for shape in others),
        )

    @property
    def nodes(self) -> int:
        """The most nodes that a graph may have."""
        return 500 + 40 * self.fields + 20 * self.tensors

    @property
    def numbers(self) -> Size:
        """The most numbers of all tensors together: about ten times what networks have."""
        row = 10 * self.fields**2 * self.width + 100 * (self.fields * self.width + self.outputs) + 1000
        return Size(10 * (self.dense + self.fields) + 10_000, min(row, _LARGEST), 100 * self.width + 1000)

    @property
    def products(self) -> Size:
        """The most multiplications of matrices: each weight is used a few times for a row, each two fields once.

        A list value is put together from its lookups, where a second table says how much of each.
        """
        pairs = 4 * self.fields * self.width * (self.fields + self.width)
        return Size(0, 3 * self.dense + min(pairs, _LARGEST), 3 * self.dense + 2 * self.width)


class Checked(NamedTuple):
    """A graph, and how many numbers its tensors have together."""

    graph: onnx.GraphProto
    numbers: Size


def require_small(path: Path) -> None:
    """Refuse a file that is larger than graphs are.

    Raises:
        ValueError: it is.
    """
    if path.stat().st_size > _LARGEST_GRAPH:
        raise ValueError(f'"{path.name}" is larger than {_LARGEST_GRAPH >> 20} MB')


def checked_graph(
    content: bytes,
    weights: Mapping[str, Stretch],
    location: str,
    inputs: Mapping[str, str],
    outputs: Sequence[str],
    extent: Extent,
) -> Checked:
    """The graph that a file holds.

    Args:
        content: of the file.
        weights: where the tensors of the bundle are.
        location: name of the file that holds them.
        inputs: what the graph must read, by name, and the axis of each: "B" or "L".
        outputs: names of those that it must have.
        extent: of the network.

    Raises:
        ValueError: it may not be run; says why, in one line.
    """
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ValueError(f"it is no ONNX graph: {error}") from None
    if model.functions or model.training_info or [each.domain for each in model.opset_import] != [""]:
        raise ValueError("expected operators of ONNX alone")
    graph = model.graph
    if model.metadata_props or graph.value_info or graph.quantization_annotation or graph.sparse_initializer:
        raise ValueError("it holds more than a network")
    for words, found, expected in (
        ("inputs", [each.name for each in graph.input], list(inputs)),
        ("outputs", [each.name for each in graph.output], list(outputs)),
    ):
        if found != expected:
            raise ValueError(f"expected the {words} {', '.join(expected)}, found {', '.join(found)}")
    if len(graph.node) > extent.nodes:
        raise ValueError(f"expected at most {extent.nodes} operators, found {len(graph.node)}")
    known = {each.name: _given(each, inputs[each.name]) for each in graph.input}
    known |= {each.name: _held(each, weights, location) for each in graph.initializer}
    if len(known) != len(graph.input) + len(graph.initializer):
        raise ValueError("expected inputs and constants of different names")
    return Checked(graph, _checked_nodes(graph, known, extent))


def _checked_nodes(graph: onnx.GraphProto, known: dict[str, Known], extent: Extent) -> Size:
    """How many numbers all nodes give together.

    Raises:
        ValueError: they are more than those of a network, or a node is none of one.
    """
    numbers = products = Size()
    most_numbers, most_products = extent.numbers, extent.products
    for node in graph.node:
        kind, inputs = node.op_type, list(node.input)  # once: a look into a message is slow
        rule = None if node.domain else OPERATORS.get(kind)
        if rule is None:
            raise ValueError(f'the operator "{kind}" is none of a network')
        (name, *more) = node.output or [""]
        if more or not name or name in known:
            raise ValueError(f'"{name}": expected one output with a name of its own')
        try:
            missing = [each for each in inputs if each not in known]
            if missing:
                raise ValueError(f'reads "{missing[0]}", which nothing before it gives')
            found = rule([known[each] for each in inputs], _attributes(node))
            numbers = numbers.plus(found.tensor.numbers)
            products = products.plus(found.products)
        except ValueError as error:
            raise ValueError(f'"{name}", the operator "{kind}", {error}') from None
        if not (numbers.within(most_numbers) and products.within(most_products)):
            what = "multiplications" if numbers.within(most_numbers) else "numbers"
            raise ValueError(f'with "{name}" it has more {what} than a network of {extent.fields} fields')
        known[name] = found.tensor
    for each in graph.output:
        if each.name not in known or known[each.name].shape != (Size(0, 1),):
            raise ValueError(f'"{each.name}": expected one number for each row')
    return numbers


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    found = {}
    for each in node.attribute:
        if (
            each.type != _ATTRIBUTES.get(each.name, AttributeProto.INT)
            or each.ref_attr_name
            or each.name in found
        ):
            raise ValueError(f'has an attribute "{each.name}" that no network needs')
        found[each.name] = helper.get_attribute_value(each)
        if each.name == "value":
            _constant(each.t)
    return found


def _given(value: onnx.ValueInfoProto, axis: str) -> Known:
    """An input: its first axis is that of rows, or of list values."""
    tensor = value.type.tensor_type
    first, *others = tensor.shape.dim or [None]
    if (
        first is None
        or first.dim_param != axis
        or any(each.WhichOneof("value") != "dim_value" for each in others)
    ):
        raise ValueError(f'the input "{value.name}": expected an axis {axis}, and numbers for the others')
    if tensor.elem_type not in _TYPES or any(each.dim_value < 0 for each in others):
        raise ValueError(f'the input "{value.name}" has a type or shape that no input has')
    rows = Size(0, 1, 0) if axis == "B" else Size(0, 0, 1)
    return Known(tensor.elem_type, (rows, *(Size(each.dim_value) for each in others)))


def _held(tensor: TensorProto, weights: Mapping[str, Stretch], location: str) -> Known:
    """A weight, in the bundle's file; or a constant, in the graph itself."""
    if tensor.data_location != TensorProto.EXTERNAL and not tensor.external_data:
        return _constant(tensor)
    places = {each.key: each.value for each in tensor.external_data}
    own = weights.get(tensor.name)
    if own is None or (tensor.data_type, tuple(tensor.dims)) != (own.type, own.shape):
        raise ValueError(f'"{location}" holds no such tensor as "{tensor.name}"')
    expected = {"location": location, "offset": str(own.offset), "length": str(own.length)}
    if places != expected or tensor.data_location != TensorProto.EXTERNAL:
        raise ValueError(f'"{tensor.name}": expected its data at {expected}, found {places}')
    return Known.of(own.type, own.shape)


def _constant(tensor: TensorProto) -> Known:
    """A tensor that the graph holds, as it says.

    Raises:
        ValueError: it holds more or less.
    """
    size = _TYPES.get(tensor.data_type)
    if tensor.external_data or size is None or min(tensor.dims, default=0) < 0:
        raise ValueError(f'"{tensor.name}": has a type or place that no constant has')
    if len(tensor.raw_data) != prod(tensor.dims) * size:
        raise ValueError(f'"{tensor.name}": expected {prod(tensor.dims)} numbers, found others')
    return Known.of(tensor.data_type, tensor.dims, numpy_helper.to_array(tensor))
