"""A graph that is not a network's is refused before ONNX Runtime sees it, in one line."""

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ctr.errors import DataError
from ctr.serving import graph_check
from ctr.serving.scorer import Scorer
from tests.serving.test_bundle import resign

ZERO = numpy_helper.from_array(helper.np.zeros(1, "float32"))


def node(*args, **keys):
    return lambda model: model.graph.node.append(helper.make_node(*args, **keys))


def branch(model):
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("If", ["c0"], [], then_branch=body, else_branch=body))


def function(model):
    own = helper.make_function("own", "F", ["x"], ["y"], [], [helper.make_opsetid("", 20)])
    model.functions.append(own)


def elsewhere(key, value):
    def change(model):
        tensor = next(each for each in model.graph.initializer if each.name == "table.weight")
        next(each for each in tensor.external_data if each.key == key).value = value

    return change


def taller(model):
    next(each for each in model.graph.initializer if each.name == "table.weight").dims[0] += 1


def stray(model):
    tensor = TensorProto(
        name="more", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="location", value="/etc/passwd")
    model.graph.initializer.append(tensor)


def huge(*sizes):
    def change(model):
        model.graph.initializer.append(numpy_helper.from_array(helper.np.array(sizes, "int64"), "sizes"))
        model.graph.node.append(helper.make_node("ConstantOfShape", ["sizes"], ["huge"], value=ZERO))

    return change


def squared(model):
    model.graph.node.extend(
        [
            helper.make_node("Shape", ["ids"], ["b"], start=0, end=1),
            helper.make_node("Concat", ["b", "b"], ["bb"], axis=0),
            helper.make_node("ConstantOfShape", ["bb"], ["square"], value=ZERO),
        ]
    )


def unknown(model):
    model.graph.node.append(helper.make_node("ConstantOfShape", ["list_ids"], ["any"], value=ZERO))


def renamed(model):
    for each in model.graph.node:
        for place, name in enumerate(each.input):
            if name == "ids":
                each.input[place] = "other"
    model.graph.input[0].name = "other"


def reduced(model):
    model.graph.initializer.append(numpy_helper.from_array(helper.np.array([0]), "rows"))
    model.graph.node.append(helper.make_node("ReduceSum", ["values", "rows"], ["x"], keepdims=0))


def hollow(model):
    model.graph.initializer.append(
        TensorProto(name="hollow", data_type=TensorProto.FLOAT, dims=[10**6, 10**6])
    )


def noted(model):
    model.metadata_props.add(key="ort_config", value="{}")


LIES = {
    "a loop": (node("Loop", ["", ""], ["x"]), 'the operator "Loop" is none of a network'),
    "an attribute of another type": (node("Relu", ["ids"], ["x"], axis=0.5), 'has an attribute "axis"'),
    "an attribute too many": (node("Relu", ["ids"], ["x"], axis=1), "expected none, found axis"),
    "an input too many": (node("Relu", ["ids", "ids"], ["x"]), '"x", the operator "Relu", has 2 inputs'),
    "two outputs": (node("Relu", ["ids"], ["x", "y"]), '"x": expected one output with a name of its own'),
    "an output that is there": (node("Relu", ["ids"], ["ids"]), '"ids": expected one output'),
    "an input from nowhere": (node("Relu", ["later"], ["x"]), 'reads "later", which nothing before it gives'),
    "a sum of rows": (reduced, '"x", the operator "ReduceSum", takes rows together'),
    "a constant without content": (hollow, '"hollow": expected 1000000000000 numbers, found others'),
    "types that do not fit": (node("Add", ["ids", "values"], ["x"]), "inputs whose types do not fit"),
    "a note of another tool": (noted, "it holds more than a network"),
    "a branch": (branch, 'the operator "If" is none of a network'),
    "another domain": (node("Relu", ["ids"], ["x"], domain="com.microsoft"), "none of a network"),
    "a function": (function, "expected operators of ONNX alone"),
    "a library": (lambda model: model.opset_import.append(helper.make_opsetid("own", 1)), "of ONNX alone"),
    "another file": (elsewhere("location", "../secret"), "expected its data at"),
    "an absolute path": (elsewhere("location", "/etc/passwd"), "expected its data at"),
    "another offset": (elsewhere("offset", "0"), "expected its data at"),
    "more data": (elsewhere("length", "99999999"), "expected its data at"),
    "more rows": (taller, 'holds no such tensor as "table.weight"'),
    "a stray tensor": (stray, 'holds no such tensor as "more"'),
    "a huge tensor": (huge(10**6, 10**6), 'with "huge" it has more numbers than a network of'),
    "a tensor without end": (huge(2**62, 2**62), 'with "huge" it has more numbers than a network of'),
    "a square of rows": (squared, '"square", the operator "ConstantOfShape", grows faster than the rows'),
    "a shape from data": (unknown, '"any", .* has a shape that does not follow from the rows'),
    "another input": (renamed, "expected the inputs ids, "),
    "an output less": (lambda model: model.graph.output.pop(), "expected the outputs logit, probability"),
    "shapes that do not fit": (
        node("MatMul", ["table.weight", "table.weight"], ["x"]),
        '"x", the operator "MatMul", has inputs whose shapes do not fit',
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_graph_that_is_no_network_is_refused_in_one_line(copied, lie):
    change, message = LIES[lie]
    model = onnx.load(copied / "network.onnx", load_external_data=False)
    change(model)
    (copied / "network.onnx").write_bytes(model.SerializeToString())
    resign(copied, "network.onnx")
    with pytest.raises(DataError, match=message) as error:
        Scorer(copied)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"no graph", bytes(range(256)) * 9])
def test_bytes_that_are_no_graph_are_refused(copied, content):
    (copied / "network.onnx").write_bytes(content)
    resign(copied, "network.onnx")
    with pytest.raises(DataError, match="do not fit"):
        Scorer(copied)


def test_a_graph_beyond_the_limit_is_not_parsed(copied, monkeypatch):
    monkeypatch.setattr(graph_check, "_LARGEST_GRAPH", 1000)
    with pytest.raises(DataError, match="larger than 0 MB"):
        Scorer(copied)
