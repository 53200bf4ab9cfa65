"""The shape of every tensor of a graph as a function of its rows, by the rules of the operators that we write.

A graph that is not ours must not be run to find out what it takes, nor be given to a library that was not written for
such ones: ONNX's own inference can itself be made to take any memory. These rules know what `ctr.serving.operators`
and `ctr.serving.stored_graph` emit, and refuse the rest of what ONNX would allow. A size is so many times the rows,
plus so many times the list values, plus a number; axes and what whole numbers are divided by are constants; and no rows
are taken together or apart, but where list values are added or compared.

Every function takes what is known of a node's inputs, and its attributes; a ValueError says what is wrong with them.
Shapes: B rows, L list values.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
from onnx import TensorProto

from ctr.serving.graph_sizes import DEEPEST, ONE, Known, Shape, Size, product

_FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
_CASTS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.BOOL)
_MISFIT, _TYPES = "has inputs whose shapes do not fit", "has inputs whose types do not fit"
_ROWS = "takes rows together"


class Found(NamedTuple):
    """What an operator gives, and how many multiplications and additions of a matrix product that takes."""

    tensor: Known
    products: Size = Size()


Attributes = Mapping[str, Any]
Rule = Callable[[Sequence[Known], Attributes], Known | Found]


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)


def _axis(axis: int, rank: int) -> int:
    _require(-rank <= axis < rank, f"has no axis {axis}")
    return axis % rank


def _axes(given: Known, rank: int) -> list[int]:
    """The axes that a constant names."""
    if given.constant is None or given.sizes is None or not 0 < len(given.sizes) <= rank:
        raise ValueError("needs constant axes")
    found = [_axis(size.fixed, rank) for size in given.sizes]
    _require(len(found) == len(set(found)), "needs each axis once")
    return found


def _broadcast(*shapes: Shape) -> Shape:
    """The shape that all are repeated to."""
    rank = max(map(len, shapes))
    wide = [(ONE,) * (rank - len(shape)) + shape for shape in shapes]
    found = []
    for sizes in zip(*wide, strict=True):
        others = {size for size in sizes if size != ONE}
        _require(len(others) < 2, _MISFIT)
        found.append(others.pop() if others else ONE)
    return tuple(found)


def _together(inputs: Sequence[Known], type: int | None = None) -> Known:
    """Number by number, from inputs of one type."""
    _require(len({each.type for each in inputs}) == 1, _TYPES)
    return Known(type or inputs[0].type, _broadcast(*(each.shape for each in inputs)))


def _same(inputs: Sequence[Known], attributes: Attributes) -> Known:
    return Known(inputs[0].type, inputs[0].shape)


def _numeric(inputs: Sequence[Known], attributes: Attributes) -> Known:
    return _together(inputs)


def _multiplied(inputs: Sequence[Known], attributes: Attributes) -> Known:
    found, (one, two) = _together(inputs), inputs
    if one.sizes and two.sizes and len(one.sizes) == len(two.sizes) == 1:
        return found._replace(sizes=(one.sizes[0].times(two.sizes[0]),))
    return found


def _divided(inputs: Sequence[Known], attributes: Attributes) -> Known:
    # Whole numbers divided by zero, or the smallest one by -1, end the process.
    if inputs[0].type not in _FLOATS:
        divisor = inputs[1].constant
        _require(
            divisor is not None and bool((divisor > 0).all()), "divides by other than positive constants"
        )
    return _together(inputs)


def _compared(inputs: Sequence[Known], attributes: Attributes) -> Known:
    return _together(inputs, TensorProto.BOOL)


def _logical(inputs: Sequence[Known], attributes: Attributes) -> Known:
    _require(all(each.type == TensorProto.BOOL for each in inputs), "needs truth values")
    return _together(inputs)


def _cast(inputs: Sequence[Known], attributes: Attributes) -> Known:
    to = attributes["to"]
    _require(to in _CASTS, f"has no type {to}")
    return Known(to, inputs[0].shape)


def _clipped(inputs: Sequence[Known], attributes: Attributes) -> Known:
    _require(inputs[1].shape == (), "needs one number")
    return _same(inputs, attributes)


def _concat(inputs: Sequence[Known], attributes: Attributes) -> Known:
    first = inputs[0]
    axis = _axis(attributes["axis"], len(first.shape))
    for each in inputs[1:]:
        _require(each.type == first.type, _TYPES)
        _require(_without(each.shape, axis) == _without(first.shape, axis), _MISFIT)
    total = reduce(Size.plus, (each.shape[axis] for each in inputs))
    sizes = [each.sizes for each in inputs]
    known = None if None in sizes else tuple(size for own in sizes for size in own or ())
    return Known(first.type, (*first.shape[:axis], total, *first.shape[axis + 1 :]), known)


def _without(shape: Shape, axis: int) -> Shape:
    return (*shape[:axis], ONE, *shape[axis + 1 :])


def _sizes(given: Known) -> Shape:
    """The shape that a tensor holds."""
    if given.sizes is None:
        raise ValueError("has a shape that does not follow from the rows")
    return given.sizes


def _filled(inputs: Sequence[Known], attributes: Attributes) -> Known:
    value, shape = attributes["value"], _sizes(inputs[0])
    _require(all(min(size) >= 0 for size in shape), "has a shape below zero")
    return Known(value.data_type, shape)


def _expanded(inputs: Sequence[Known], attributes: Attributes) -> Known:
    _require(all(min(size) >= 0 for size in _sizes(inputs[1])), "has a shape below zero")
    return Known(inputs[0].type, _broadcast(inputs[0].shape, _sizes(inputs[1])))


def _gathered(inputs: Sequence[Known], attributes: Attributes) -> Known:
    data, at = inputs
    axis = _axis(attributes.get("axis", 0), len(data.shape))
    _require(at.type == TensorProto.INT64, _TYPES)
    _require(not data.shape[axis].grows, _ROWS)
    return Known(data.type, (*data.shape[:axis], *at.shape, *data.shape[axis + 1 :]))


def _gathered_each(inputs: Sequence[Known], attributes: Attributes) -> Known:
    data, at = inputs
    axis = _axis(attributes["axis"], len(data.shape))
    _require(at.type == TensorProto.INT64, _TYPES)
    _require(not data.shape[axis].grows, _ROWS)
    _require(len(at.shape) == len(data.shape), _MISFIT)
    _require(_without(at.shape, axis) == _without(data.shape, axis), _MISFIT)
    return Known(data.type, at.shape)


def _gemm(inputs: Sequence[Known], attributes: Attributes) -> Found:
    a, b = inputs[0].shape, inputs[1].shape
    _require(attributes["transB"] == 1, _MISFIT)
    _require(len(a) == len(b) == 2 and a[1] == b[1], _MISFIT)
    _require(not a[1].grows, _ROWS)
    shape = (a[0], b[0])
    _require(_broadcast(shape, *(each.shape for each in inputs[2:])) == shape, _MISFIT)
    return Found(Known(inputs[0].type, shape), product([*shape, a[1]]))


def _matmul(inputs: Sequence[Known], attributes: Attributes) -> Found:
    a, b = inputs[0].shape, inputs[1].shape
    _require(len(a) >= 2 and len(b) >= 1, _MISFIT)
    _require(not a[-1].grows, _ROWS)
    if len(b) == 1:
        _require(a[-1] == b[0], _MISFIT)
        return Found(Known(inputs[0].type, a[:-1]), product(a))
    _require(a[-1] == b[-2], _MISFIT)
    shape = (*_broadcast(a[:-2], b[:-2]), a[-2], b[-1])
    return Found(Known(inputs[0].type, shape), product([*shape, a[-1]]))


def _layer_norm(inputs: Sequence[Known], attributes: Attributes) -> Known:
    given = inputs[0].shape
    inner = given[_axis(attributes["axis"], len(given)) :]
    _require(not product(inner).grows, _ROWS)
    _require(all(each.shape == inner for each in inputs[1:]), _MISFIT)
    return _same(inputs, attributes)


def _batch_norm(inputs: Sequence[Known], attributes: Attributes) -> Known:
    given = inputs[0].shape
    _require(len(given) >= 2 and not given[1].grows, _MISFIT)
    _require(all(each.shape == given[1:2] for each in inputs[1:]), _MISFIT)
    return _same(inputs, attributes)


def _reduced(inputs: Sequence[Known], attributes: Attributes) -> Known:
    given = inputs[0].shape
    axes = _axes(inputs[1], len(given))
    _require(not any(given[axis].grows for axis in axes), _ROWS)
    left = [ONE if axis in axes else size for axis, size in enumerate(given)]
    if not attributes["keepdims"]:
        left = [size for axis, size in enumerate(given) if axis not in axes]
    return Known(inputs[0].type, tuple(left))


def _reshaped(inputs: Sequence[Known], attributes: Attributes) -> Known:
    given, target = inputs[0].numbers, list(_sizes(inputs[1]))
    empty = Size() in target
    _require(not empty or attributes.get("allowzero") == 1, "has a size of 0 that stands for another")
    free = [axis for axis, size in enumerate(target) if size == Size(-1)]
    if free:
        _require(len(free) == 1 and not empty, "has more than one size that is left open")
        rest = product([size for size in target if size != Size(-1)])
        # The rows are either among the sizes that are stated or in the one that is open.
        target[free[0]] = _quotient(given, rest)
    _require(all(min(size) >= 0 for size in target), "has a shape below zero")
    _require(product(target) == given, _MISFIT)
    return Known(inputs[0].type, tuple(target))


def _quotient(size: Size, divisor: Size) -> Size:
    """The size of which `divisor` times as many are `size`."""
    if divisor.grows:
        axis = 1 if divisor.rows else 2
        found = Size(size[axis] // divisor[axis])
    else:
        found = Size(*(part // divisor.fixed for part in size))
    _require(found.times(divisor) == size, _MISFIT)
    return found


def _scattered(inputs: Sequence[Known], attributes: Attributes) -> Known:
    given, at, source = inputs
    axis = _axis(attributes["axis"], len(given.shape))
    _require(attributes["reduction"] == b"max", "needs the reduction max")
    _require(given.type == source.type and at.type == TensorProto.INT64, _TYPES)
    _require(at.shape == source.shape and len(at.shape) == len(given.shape), _MISFIT)
    _require(_without(at.shape, axis) == _without(given.shape, axis), _MISFIT)
    return _same(inputs, attributes)


def _scattered_rows(inputs: Sequence[Known], attributes: Attributes) -> Known:
    given, at, source = inputs
    _require(attributes["reduction"] == b"add", "needs the reduction add")
    _require(given.type == source.type and at.type == TensorProto.INT64, _TYPES)
    _require(len(at.shape) == 2 and at.shape[1] == ONE, _MISFIT)
    _require(source.shape == (at.shape[0], *given.shape[1:]), _MISFIT)
    return _same(inputs, attributes)


def _shape(inputs: Sequence[Known], attributes: Attributes) -> Known:
    given = inputs[0].shape
    found = given[attributes.get("start", 0) : attributes.get("end", len(given))]
    return Known(TensorProto.INT64, (Size(len(found)),), found)


def _sliced(inputs: Sequence[Known], attributes: Attributes) -> Known:
    given = inputs[0]
    ends = [each.constant for each in inputs[1:]]
    if any(each is None or each.shape != (1,) or each.dtype != np.int64 for each in ends):
        raise ValueError("needs a constant start, end and axis")
    start, end, axis = (int(each[0]) for each in ends if each is not None)
    place = _axis(axis, len(given.shape))
    _require(not given.shape[place].grows, _ROWS)
    count = len(range(*slice(start, end).indices(given.shape[place].fixed)))
    return Known(given.type, (*given.shape[:place], Size(count), *given.shape[place + 1 :]))


def _squeezed(inputs: Sequence[Known], attributes: Attributes) -> Known:
    given = inputs[0].shape
    axes = _axes(inputs[1], len(given))
    _require(all(given[axis] == ONE for axis in axes), _MISFIT)
    return Known(inputs[0].type, tuple(size for axis, size in enumerate(given) if axis not in axes))


def _unsqueezed(inputs: Sequence[Known], attributes: Attributes) -> Known:
    given = inputs[0].shape
    axes = _axes(inputs[1], len(given) + 1)
    _require(len(axes) == 1, "needs one axis")
    return Known(inputs[0].type, (*given[: axes[0]], ONE, *given[axes[0] :]))


def _transposed(inputs: Sequence[Known], attributes: Attributes) -> Known:
    given, order = inputs[0].shape, list(attributes["perm"])
    _require(sorted(order) == list(range(len(given))), "has other axes than its input")
    return Known(inputs[0].type, tuple(given[axis] for axis in order))


def _where(inputs: Sequence[Known], attributes: Attributes) -> Known:
    there, one, two = inputs
    _require(there.type == TensorProto.BOOL and one.type == two.type, _TYPES)
    return Known(one.type, _broadcast(there.shape, one.shape, two.shape))


class Operator(NamedTuple):
    """How many inputs it has, at least and at most, what it gives, and which attributes it must and may have."""

    fewest: int
    most: int
    rule: Rule
    needed: frozenset[str]
    allowed: frozenset[str]

    def __call__(self, inputs: Sequence[Known], attributes: Attributes) -> Found:
        """What it gives, of inputs with these attributes.

        Raises:
            ValueError: it is not as we write it.
        """
        if not self.fewest <= len(inputs) <= self.most:
            raise ValueError(f"has {len(inputs)} inputs")
        if not self.needed <= attributes.keys() <= self.allowed:
            found, needed = (", ".join(sorted(each)) or "none" for each in (attributes, self.needed))
            raise ValueError(f"has other attributes than it needs: expected {needed}, found {found}")
        given = self.rule(inputs, attributes)
        if isinstance(given, Known):
            given = Found(given)
        if len(given.tensor.shape) > DEEPEST:
            raise ValueError(f"has more than {DEEPEST} axes")
        return given


def _is(fewest: int, most: int, rule: Rule, needed: str = "", allowed: str = "") -> Operator:
    return Operator(
        fewest, most, rule, frozenset(needed.split()), frozenset((needed + " " + allowed).split())
    )


OPERATORS = {
    "Add": _is(2, 2, _numeric),
    "And": _is(2, 2, _logical),
    "BatchNormalization": _is(5, 5, _batch_norm, "epsilon"),
    "Cast": _is(1, 1, _cast, "to"),
    "Clip": _is(2, 2, _clipped),
    "Concat": _is(1, 1 << 20, _concat, "axis"),
    "ConstantOfShape": _is(1, 1, _filled, "value"),
    "Div": _is(2, 2, _divided),
    "Equal": _is(2, 2, _compared),
    "Expand": _is(2, 2, _expanded),
    "Gather": _is(2, 2, _gathered, "", "axis"),
    "GatherElements": _is(2, 2, _gathered_each, "axis"),
    "Gemm": _is(2, 3, _gemm, "transB"),
    "Greater": _is(2, 2, _compared),
    "Identity": _is(1, 1, _same),
    "LayerNormalization": _is(2, 3, _layer_norm, "axis epsilon"),
    "MatMul": _is(2, 2, _matmul),
    "Mod": _is(2, 2, _divided),
    "Mul": _is(2, 2, _multiplied),
    "Not": _is(1, 1, _logical),
    "ReduceMax": _is(2, 2, _reduced, "keepdims"),
    "ReduceSum": _is(2, 2, _reduced, "keepdims"),
    "Relu": _is(1, 1, _same),
    "Reshape": _is(2, 2, _reshaped, "", "allowzero"),
    "ScatterElements": _is(3, 3, _scattered, "axis reduction"),
    "ScatterND": _is(3, 3, _scattered_rows, "reduction"),
    "Shape": _is(1, 1, _shape, "", "start end"),
    "Sigmoid": _is(1, 1, _same),
    "Slice": _is(4, 4, _sliced),
    "Squeeze": _is(2, 2, _squeezed),
    "Sub": _is(2, 2, _numeric),
    "Transpose": _is(1, 1, _transposed, "perm"),
    "Unsqueeze": _is(2, 2, _unsqueezed),
    "Where": _is(3, 3, _where),
}
