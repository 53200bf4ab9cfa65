"""What a graph may be before a runtime sees it: that of a network, and nothing else. Needs `onnx` alone.

A graph that is not ours can at worst be refused. It is data, and what makes it compute is a short list of operators: no
loop, no branch, no function, nothing of another domain. Its weights are stretches of the bundle's own file, as that
file's header has them. And how much memory it takes is found without running it, by inferring every shape: for one
row and for many, no tensor may be larger than so many numbers a row.

Shapes: B rows, L list values.
"""

from collections.abc import Mapping, Sequence

import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto

from ctr.serving.stored_graph import Stretch

OPERATORS = frozenset(  # those of `ctr.serving.operators` and of `ctr.serving.stored_graph`
    {
        *(
            "Add",
            "And",
            "BatchNormalization",
            "Cast",
            "Clip",
            "Concat",
            "ConstantOfShape",
            "Div",
            "Equal",
            "Expand",
        ),
        *(
            "Gather",
            "GatherElements",
            "Gemm",
            "Greater",
            "Identity",
            "LayerNormalization",
            "MatMul",
            "Mod",
            "Mul",
        ),
        *(
            "Not",
            "ReduceMax",
            "ReduceSum",
            "Relu",
            "Reshape",
            "ScatterElements",
            "ScatterND",
            "Shape",
            "Sigmoid",
        ),
        *("Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze", "Where"),
    }
)
_LARGEST_GRAPH = 16 << 20  # bytes; the graphs of networks with hundreds of fields have less than one
_NODES = 20_000
_PER_ROW = 1 << 22  # numbers of one tensor
_MANY = 1000  # rows, and list values


def checked_graph(
    content: bytes,
    weights: Mapping[str, Stretch],
    location: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> onnx.ModelProto:
    """The graph that a file holds.

    Args:
        content: of the file.
        weights: where the tensors of the bundle are.
        location: name of the file that holds them.
        inputs, outputs: names of those that the graph must have.

    Raises:
        ValueError: it may not be run; says why, in one line.
    """
    if len(content) > _LARGEST_GRAPH:
        raise ValueError(f"it is larger than {_LARGEST_GRAPH >> 20} MB")
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ValueError(f"it is no ONNX graph: {error}") from None
    _check_operators(model)
    _check_weights(model.graph, weights, location)
    for words, found, expected in (
        ("inputs", [each.name for each in model.graph.input], inputs),
        ("outputs", [each.name for each in model.graph.output], outputs),
    ):
        if found != list(expected):
            raise ValueError(f"expected the {words} {', '.join(expected)}, found {', '.join(found)}")
    _check_sizes(model)
    return model


def _check_operators(model: onnx.ModelProto) -> None:
    if model.functions or model.training_info or [each.domain for each in model.opset_import] != [""]:
        raise ValueError("expected operators of ONNX alone")
    if len(model.graph.node) > _NODES:
        raise ValueError(f"expected at most {_NODES} operators, found {len(model.graph.node)}")
    for node in model.graph.node:
        if node.domain or node.op_type not in OPERATORS:
            raise ValueError(f'the operator "{node.op_type}" is none of a network')
        if any(each.type not in _PLAIN or each.ref_attr_name for each in node.attribute):
            raise ValueError(f'the operator "{node.op_type}" has an attribute that no network needs')


_PLAIN = {  # kinds of attributes: no graphs
    onnx.AttributeProto.FLOAT,
    onnx.AttributeProto.INT,
    onnx.AttributeProto.INTS,
    onnx.AttributeProto.STRING,
    onnx.AttributeProto.TENSOR,
}


def _check_weights(graph: onnx.GraphProto, weights: Mapping[str, Stretch], location: str) -> None:
    if graph.sparse_initializer:
        raise ValueError("a sparse tensor is none of a network")
    tensors = [(each, each.name) for each in graph.initializer]
    tensors += [(attribute.t, "") for node in graph.node for attribute in node.attribute]
    for tensor, name in tensors:
        if tensor.data_location != TensorProto.EXTERNAL and not tensor.external_data:
            continue  # a constant, no larger than the file
        places = {each.key: each.value for each in tensor.external_data}
        own = weights.get(name)
        if own is None or (tensor.data_type, tuple(tensor.dims)) != (own.type, own.shape):
            raise ValueError(f'"{location}" holds no such tensor as "{name}"')
        expected = {"location": location, "offset": str(own.offset), "length": str(own.length)}
        if places != expected:
            raise ValueError(f'"{name}": expected its data at {expected}, found {places}')


def _check_sizes(model: onnx.ModelProto) -> None:
    small, large = _sizes(model, 1), _sizes(model, _MANY)
    for name, size in small.items():
        if size > _PER_ROW or large.get(name, 0) > _MANY * max(size, 1):
            raise ValueError(f'"{name}" would have more than {_PER_ROW} numbers for each row')


def _sizes(model: onnx.ModelProto, rows: int) -> dict[str, int]:
    """How many numbers every computed tensor has, for so many rows and as many list values."""
    stated = onnx.ModelProto()
    stated.CopyFrom(model)
    del stated.graph.value_info[:]
    for each in stated.graph.input:
        for dim in each.type.tensor_type.shape.dim:
            if dim.WhichOneof("value") != "dim_value":
                dim.dim_value = rows
    for each in stated.graph.output:
        each.type.tensor_type.ClearField("shape")
    try:
        inferred = onnx.shape_inference.infer_shapes(stated, strict_mode=True, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise ValueError(f"its shapes do not fit: {' '.join(str(error).split())}") from None
    found = {}
    for each in (*inferred.value_info, *inferred.output):
        size = 1
        for dim in each.type.tensor_type.shape.dim:
            if dim.WhichOneof("value") != "dim_value":
                raise ValueError(f'the shape of "{each.name}" does not follow from the rows')
            size *= dim.dim_value
        found[each.name] = size
    missing = {name for node in inferred.node for name in node.output if name} - found.keys()
    if missing:
        raise ValueError(f'the shape of "{min(missing)}" does not follow from the rows')
    return found
