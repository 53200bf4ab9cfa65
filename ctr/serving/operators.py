"""What PyTorch's operators are in ONNX: one function for each that a network uses, found by its name.

`torch.export` says which operators a network runs; `ctr.serving.graph` asks this table for each of them in turn. A
layer with an operator that no layer had before needs a line here, and the error says so. PyTorch's own exporter knows
them all, but takes seconds for each network, decomposes them into smaller ones first, and folds weights into constants.

Shapes that depend on the number of rows are built from `Shape`, `Concat` and `Mul` alone. Whole numbers are never
negative here, so that division and remainder need no care. What is new here needs a line, too, in
`ctr.serving.graph_shapes`, which says what shape it has and refuses what we do not write.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

_TYPES = {
    torch.float32: (TensorProto.FLOAT, np.float32),
    torch.float64: (TensorProto.DOUBLE, np.float64),
    torch.int64: (TensorProto.INT64, np.int64),
    torch.bool: (TensorProto.BOOL, np.bool_),
}
_END = 2**63 - 1


class Operand(NamedTuple):
    """A tensor of the graph: its name in ONNX, its type, and its sizes, of which those of rows are symbols."""

    name: str
    dtype: torch.dtype
    shape: tuple[int | torch.SymInt, ...]

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)


class Emitter:
    """Collects nodes and constants of a graph."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self._known: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def __call__(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        output = f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def constant(self, values: npt.ArrayLike, dtype: torch.dtype = torch.int64) -> str:
        """The name of a constant; equal ones have one."""
        array: npt.NDArray[Any] = np.asarray(values, _TYPES[dtype][1])
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._known:
            name = self._known[key] = f"c{len(self._known)}"
            self.constants[name] = numpy_helper.from_array(array, name)
        return self._known[key]

    def cast(self, operand: Operand, dtype: torch.dtype) -> str:
        """The operand in that type."""
        return operand.name if operand.dtype == dtype else self("Cast", operand.name, to=_TYPES[dtype][0])

    def size(self, operand: Operand) -> str:
        """How many numbers a tensor has, (1,)."""
        fixed = [size for size in operand.shape if isinstance(size, int)]
        found = self.constant([int(np.prod(fixed))])
        for axis, size in enumerate(operand.shape):
            if not isinstance(size, int):
                found = self("Mul", found, self.length(operand, axis))
        return found

    def length(self, operand: Operand, axis: int) -> str:
        """The size of one axis, (1,)."""
        return self("Shape", operand.name, start=axis, end=axis + 1)

    def shape(self, sizes: Sequence[int | str]) -> str:
        """A shape (n,) of numbers and of names of sizes."""
        if all(isinstance(size, int) for size in sizes):
            return self.constant(sizes)
        parts = [size if isinstance(size, str) else self.constant([size]) for size in sizes]
        return self("Concat", *parts, axis=0)


def value_info(name: str, dtype: torch.dtype, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    """An input or output of a graph; names are sizes that are not known."""
    return helper.make_tensor_value_info(name, _TYPES[dtype][0], list(shape))


def _binary(operator: str) -> Callable[..., str]:
    def emitted(emit: Emitter, out: Operand, first: Operand, second: Any) -> str:
        return emit(operator, _in(emit, first, out.dtype), _in(emit, second, out.dtype))

    return emitted


def _compared(operator: str) -> Callable[..., str]:
    def emitted(emit: Emitter, out: Operand, first: Operand, second: Any) -> str:
        return emit(operator, first.name, _in(emit, second, first.dtype))

    return emitted


def _in(emit: Emitter, given: Any, dtype: torch.dtype) -> str:
    """A tensor, or a number, in that type."""
    return emit.cast(given, dtype) if isinstance(given, Operand) else emit.constant(given, dtype)


def _unary(operator: str) -> Callable[..., str]:
    return lambda emit, out, given: emit(operator, given.name)


def _same(emit: Emitter, out: Operand, given: Operand, *_: Any, **__: Any) -> str:
    return given.name


def _reshaped(emit: Emitter, out: Operand, given: Operand, *_: Any) -> str:
    """To the shape of `out`, whose rows follow from what is there, unless there is nothing."""
    sizes = [size if isinstance(size, int) else -1 for size in out.shape]
    if 0 not in sizes:
        return emit("Reshape", given.name, emit.constant(sizes))
    axes = {str(size): axis for axis, size in enumerate(given.shape) if not isinstance(size, int)}
    parts = [size if isinstance(size, int) else emit.length(given, axes[str(size)]) for size in out.shape]
    return emit("Reshape", given.name, emit.shape(parts), allowzero=1)


def _linear(emit: Emitter, out: Operand, given: Operand, weight: Operand, bias: Operand | None = None) -> str:
    return emit("Gemm", given.name, weight.name, *([bias.name] if bias else []), transB=1)


def _layer_norm(
    emit: Emitter,
    out: Operand,
    given: Operand,
    shape: Sequence[int],
    weight: Operand | None,
    bias: Operand | None,
    epsilon: float,
    *_: Any,
) -> str:
    scale = emit.constant(np.ones(shape), given.dtype) if weight is None else weight.name
    shift = [] if bias is None else [bias.name]
    return emit("LayerNormalization", given.name, scale, *shift, axis=-len(shape), epsilon=epsilon)


def _batch_norm(
    emit: Emitter,
    out: Operand,
    given: Operand,
    weight: Operand,
    bias: Operand,
    mean: Operand,
    variance: Operand,
    training: bool,
    momentum: float,
    epsilon: float,
    *_: Any,
) -> str:
    names = [each.name for each in (given, weight, bias, mean, variance)]
    return emit("BatchNormalization", *names, epsilon=epsilon)


def _vecdot(emit: Emitter, out: Operand, first: Operand, second: Operand) -> str:
    return emit("ReduceSum", emit("Mul", first.name, second.name), emit.constant([-1]), keepdims=0)


def _sum(emit: Emitter, out: Operand, given: Operand, axes: Sequence[int], keep: bool = False) -> str:
    return emit("ReduceSum", given.name, emit.constant(axes), keepdims=int(keep))


def _any(emit: Emitter, out: Operand, given: Operand, axis: int) -> str:
    numbers = emit("ReduceMax", emit.cast(given, torch.float32), emit.constant([axis]), keepdims=0)
    return emit("Cast", numbers, to=TensorProto.BOOL)


def _slice(
    emit: Emitter, out: Operand, given: Operand, axis: int = 0, start: int = 0, end: int = _END
) -> str:
    if (start, end) == (0, _END):
        return given.name
    return emit("Slice", given.name, *(emit.constant([number]) for number in (start, end, axis)))


def _selected(emit: Emitter, out: Operand, given: Operand, axis: int, place: int) -> str:
    return emit("Gather", given.name, emit.constant(place), axis=axis)


def _unbound(emit: Emitter, out: Sequence[Operand], given: Operand, axis: int = 0) -> list[str]:
    return [_selected(emit, each, given, axis, place) for place, each in enumerate(out)]


def _split(
    emit: Emitter, out: Sequence[Operand], given: Operand, sizes: Sequence[int], axis: int = 0
) -> list[str]:
    ends = np.cumsum(sizes).tolist()
    return [
        _slice(emit, each, given, axis, end - size, end)
        for each, size, end in zip(out, sizes, ends, strict=True)
    ]


def _stacked(emit: Emitter, out: Operand, given: Sequence[Operand], axis: int = 0) -> str:
    parts = [emit("Unsqueeze", each.name, emit.constant([axis])) for each in given]
    return emit("Concat", *parts, axis=axis)


def _transposed(emit: Emitter, out: Operand, given: Operand, first: int, second: int) -> str:
    order = list(range(given.rank))
    order[first], order[second] = order[second], order[first]
    return emit("Transpose", given.name, perm=order)


def _index_add(emit: Emitter, out: Operand, given: Operand, axis: int, index: Operand, rows: Operand) -> str:
    places = emit("Unsqueeze", index.name, emit.constant([-1]))
    return emit("ScatterND", given.name, places, rows.name, reduction="add")


def _scatter_largest(
    emit: Emitter, out: Operand, given: Operand, axis: int, index: Operand, source: Operand, reduce: str
) -> str:
    if reduce != "amax":
        raise NotImplementedError(f'scatter_reduce with "{reduce}"')
    return emit("ScatterElements", given.name, index.name, source.name, axis=axis, reduction="max")


def _filled(emit: Emitter, out: Operand, sizes: Sequence[int | str], value: float) -> str:
    tensor = numpy_helper.from_array(np.array([value], _TYPES[out.dtype][1]))
    return emit("ConstantOfShape", emit.shape(sizes), value=tensor)


OPERATORS: dict[str, Callable[..., Any]] = {
    "aten._assert_tensor_metadata.default": lambda emit, out, *_, **__: None,
    "aten.__and__.Tensor": _binary("And"),
    "aten.add.Tensor": _binary("Add"),
    "aten.addcmul.default": lambda emit, out, given, a, b: emit(
        "Add", given.name, emit("Mul", a.name, b.name)
    ),
    "aten.alias.default": _same,
    "aten.any.dim": _any,
    "aten.arange.default": lambda emit, out, end, **_: emit.constant(np.arange(end)),
    "aten.baddbmm.default": lambda emit, out, given, a, b: emit(
        "Add", given.name, emit("MatMul", a.name, b.name)
    ),
    "aten.batch_norm.default": _batch_norm,
    "aten.bitwise_not.default": _unary("Not"),
    "aten.cat.default": lambda emit, out, given, axis=0: emit("Concat", *(x.name for x in given), axis=axis),
    "aten.clamp.default": lambda emit, out, given, low: emit("Clip", given.name, _in(emit, low, given.dtype)),
    "aten.clamp_.default": lambda emit, out, given, low: emit(
        "Clip", given.name, _in(emit, low, given.dtype)
    ),
    "aten.contiguous.default": _same,
    "aten.div.Tensor": _binary("Div"),
    "aten.div.Tensor_mode": lambda emit, out, *given, **_: _binary("Div")(emit, out, *given),
    "aten.dropout.default": _same,
    "aten.embedding.default": lambda emit, out, weight, rows, *_: emit("Gather", weight.name, rows.name),
    "aten.eq.Scalar": _compared("Equal"),
    "aten.expand_as.default": lambda emit, out, given, like: emit(
        "Expand", given.name, emit("Shape", like.name)
    ),
    "aten.flatten.using_ints": _reshaped,
    "aten.gather.default": lambda emit, out, x, axis, at: emit("GatherElements", x.name, at.name, axis=axis),
    "aten.gt.Scalar": _compared("Greater"),
    "aten.index_add.default": _index_add,
    "aten.index_select.default": lambda emit, out, x, axis, at: emit("Gather", x.name, at.name, axis=axis),
    "aten.layer_norm.default": _layer_norm,
    "aten.linalg_vecdot.default": _vecdot,
    "aten.linear.default": _linear,
    "aten.masked_fill.Scalar": lambda emit, out, x, there, value: emit(
        "Where", there.name, emit.constant(value, x.dtype), x.name
    ),
    "aten.matmul.default": _binary("MatMul"),
    "aten.mul.Tensor": _binary("Mul"),
    "aten.ne.Scalar": lambda emit, out, a, b: emit("Not", _compared("Equal")(emit, out, a, b)),
    "aten.new_full.default": lambda emit, out, like, sizes, value, **_: _filled(emit, out, sizes, value),
    "aten.new_zeros.default": lambda emit, out, like, sizes, **_: _filled(emit, out, sizes, 0.0),
    "aten.relu.default": _unary("Relu"),
    "aten.relu_.default": _unary("Relu"),  # written over what nobody reads again
    "aten.remainder.Scalar": _binary("Mod"),
    "aten.scatter_reduce.two": _scatter_largest,
    "aten.select.int": _selected,
    "aten.sigmoid.default": _unary("Sigmoid"),
    "aten.slice.Tensor": _slice,
    "aten.split_with_sizes.default": _split,
    "aten.squeeze.dim": lambda emit, out, given, axis: emit("Squeeze", given.name, emit.constant([axis])),
    "aten.stack.default": _stacked,
    "aten.sub.Tensor": _binary("Sub"),
    "aten.sum.dim_IntList": _sum,
    "aten.sym_numel.default": lambda emit, out, given: emit.size(given),
    "aten.sym_size.int": lambda emit, out, given, axis: emit.length(given, axis),
    "aten.to.dtype": lambda emit, out, given, dtype: emit.cast(given, dtype),
    "aten.transpose.int": _transposed,
    "aten.unbind.int": _unbound,
    "aten.unsqueeze.default": lambda emit, out, x, axis: emit("Unsqueeze", x.name, emit.constant([axis])),
    "aten.view.default": _reshaped,
    "aten.where.self": lambda emit, out, there, a, b: emit("Where", there.name, a.name, b.name),
}
