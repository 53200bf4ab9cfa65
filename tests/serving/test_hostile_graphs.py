"""Graphs that would take all memory, all time, or the process, are refused before a library sees them.

Each is opened in a child that may take little memory: where it is not refused, the child dies and pytest lives.
"""

import re
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.serving.mutations import sign

RELEASED = Path(__file__).parent / "released" / "format_3" / "bundle"
_SECONDS = 60

OPENED = """
import resource, sys, time
from ctr.errors import CtrError
from ctr.serving.scorer import Scorer
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
for folder in sys.argv[1:]:
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    try:
        Scorer(folder)
        told = "accepted"
    except CtrError as error:
        told = " ".join(str(error).split("\\n"))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
    print(grown, round(time.perf_counter() - started), told, sep="\\t", flush=True)
"""


def constant(graph, name, values, dtype=np.int64):
    graph.initializer.append(numpy_helper.from_array(np.array(values, dtype), name))


def added(graph, nodes, last):
    """Add what the nodes give to the probability, so that nothing of them is left out when the graph is run."""
    for each in graph.node:
        if each.output[0] == "probability":
            each.output[0] = "before"
    graph.node.extend(nodes)
    graph.node.append(helper.make_node("Add", ["before", last], ["probability"]))


def divided(operator, number, divisor):
    def change(graph):
        for name, value in (("zz", divisor), ("aa", number), ("at", 0)):
            constant(graph, name, value)
        constant(graph, "columns", [1])
        added(graph, [
            helper.make_node("ReduceMax", ["ids", "columns"], ["rm"], keepdims=0),
            helper.make_node("Sub", ["rm", "rm"], ["zero"]),
            helper.make_node("Add", ["zero", "zz"], ["den"]),
            helper.make_node("Add", ["zero", "aa"], ["num"]),
            helper.make_node(operator, ["num", "den"], ["q"]),
            helper.make_node("Cast", ["q"], ["qf"], to=TensorProto.DOUBLE),
        ], "qf")  # fmt: skip

    return change


def small_where_it_was_looked_at(graph):
    for name, value in (("one", 1), ("many", 1000), ("scale", 2000), ("axis", 0)):
        constant(graph, name, [value])
    constant(graph, "start", [0.0], np.float64)
    added(graph, [
        helper.make_node("Shape", ["ids"], ["rows"], start=0, end=1),
        helper.make_node("Sub", ["rows", "one"], ["p1"]),
        helper.make_node("Sub", ["many", "rows"], ["p2"]),
        helper.make_node("Mul", ["p1", "p2"], ["p3"]),
        helper.make_node("Mul", ["p3", "scale"], ["p4"]),
        helper.make_node("Add", ["p4", "one"], ["p5"]),
        helper.make_node("Expand", ["start", "p5"], ["big"]),
        helper.make_node("ReduceMax", ["big", "axis"], ["small"], keepdims=0),
    ], "small")  # fmt: skip


def wide(numbers):
    def change(graph):
        constant(graph, "target", [1, numbers])
        constant(graph, "axis", [1])
        added(graph, [
            helper.make_node("Unsqueeze", ["before", "axis"], ["column"]),
            helper.make_node("Expand", ["column", "target"], ["wide"]),
            helper.make_node("ReduceMax", ["wide", "axis"], ["largest"], keepdims=0),
        ], "largest")  # fmt: skip

    return change


def multiplied(count, size):
    def change(graph):
        constant(graph, "shape", [size, size])
        constant(graph, "axes", [0, 1])
        zero = numpy_helper.from_array(np.zeros(1, np.float32))
        nodes = [helper.make_node("ConstantOfShape", ["shape"], ["m0"], value=zero)]
        nodes += [helper.make_node("MatMul", [f"m{n}", "m0"], [f"m{n + 1}"]) for n in range(count)]
        nodes.append(helper.make_node("ReduceMax", [f"m{count}", "axes"], ["ms"], keepdims=0))
        nodes.append(helper.make_node("Cast", ["ms"], ["md"], to=TensorProto.DOUBLE))
        added(graph, nodes, "md")

    return change


def many_products(graph):
    """Of a dense layer with the rows, again and again."""
    layer = next(each for each in graph.node if each.op_type == "Gemm")
    constant(graph, "columns", [1])
    added(graph, [
        *(helper.make_node("Gemm", layer.input, [f"g{n}"], transB=1) for n in range(200)),
        helper.make_node("ReduceMax", ["g199", "columns"], ["gs"], keepdims=0),
        helper.make_node("Cast", ["gs"], ["gd"], to=TensorProto.DOUBLE),
    ], "gd")  # fmt: skip


def reshaped(*sizes):
    """In place of the shape that embeddings are given for the first dense layer."""

    def change(graph):
        constant(graph, "other", sizes)
        [*_, last] = (each for each in graph.node if each.op_type == "Reshape")
        last.input[1] = "other"

    return change


def expanded(graph):
    constant(graph, "target", [2_000_000_000])
    constant(graph, "axis", [0])
    constant(graph, "start", [0.0], np.float64)
    added(graph, [
        helper.make_node("Expand", ["start", "target"], ["y0"]),
        *(helper.make_node("Add", [f"y{n}", "start"], [f"y{n + 1}"]) for n in range(10)),
        helper.make_node("ReduceMax", ["y10", "axis"], ["small"], keepdims=0),
    ], "small")  # fmt: skip


def many_nodes(graph):
    names = ["before", *(f"i{number}" for number in range(5000))]
    added(graph, [helper.make_node("Identity", [one], [two]) for one, two in pairwise(names)], names[-1])


ATTACKS = {
    "the smallest number by -1": (
        divided("Div", -(2**63), -1),
        '"Div", divides by other than positive constants',
    ),
    "a remainder by -1": (divided("Mod", -(2**63), -1), '"Mod", divides by other than positive constants'),
    "by zero": (divided("Div", 1, 0), '"Div", divides by other than positive constants'),
    "a size that is small where one would look": (
        small_where_it_was_looked_at,
        '"Expand", has a shape that does not follow from the rows',
    ),
    "a wide tensor": (wide(4_000_000), 'with "wide" it has more numbers than a network of'),
    "products of constants": (multiplied(2000, 2000), r"expected at most \d+ operators"),
    "a few products of constants": (multiplied(50, 50), 'with "m1" it has more multiplications than'),
    "many products": (many_products, r'with "g\d+" it has more multiplications than a network of'),
    "a target of billions": (reshaped(2147483647, 76), '"Reshape", has inputs whose shapes do not fit'),
    "a target of more": (reshaped(2**62, 2**62), '"Reshape", has inputs whose shapes do not fit'),
    "billions of one number": (expanded, 'with "y0" it has more numbers than a network of'),
    "many nodes": (many_nodes, r"expected at most \d+ operators"),
    "probabilities beyond 1": (None, "expected probabilities from 0 to 1, found 41"),
}


def unlikely(folder, model):
    constant(model.graph, "more", 41.0, np.float64)
    added(model.graph, [], "more")
    golden = pl.read_parquet(folder / "golden.parquet").with_columns(pl.col("@probability") + 41.0)
    golden.write_parquet(folder / "golden.parquet")


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What a child said of each bundle: megabytes that it grew by, seconds, and the message; None where it died."""
    folders = {}
    for number, (name, (change, _)) in enumerate(ATTACKS.items()):
        folders[name] = shutil.copytree(RELEASED, tmp_path_factory.mktemp("graphs") / str(number))
        model = onnx.load(RELEASED / "network.onnx", load_external_data=False)
        if change is None:
            unlikely(folders[name], model)
        else:
            change(model.graph)
        (folders[name] / "network.onnx").write_bytes(model.SerializeToString())
        sign(folders[name])
    found, left = {}, list(folders)
    while left:
        lines = _opened([folders[name] for name in left])
        found |= dict(zip(left, lines, strict=False))
        if len(lines) < len(left):
            found[left[len(lines)]] = None
        left = left[len(lines) + 1 :]
    return found


def _opened(folders):
    command = [sys.executable, "-c", OPENED, *folders]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        try:
            out = child.communicate(timeout=_SECONDS)[0]
        except subprocess.TimeoutExpired:
            child.kill()
            out = child.communicate()[0]
    return [line.split("\t") for line in out.splitlines()]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_graph_that_would_take_everything_is_refused(told, attack):
    assert told[attack] is not None, "it ended the process, or did not end"
    grown, seconds, message = told[attack]
    assert (int(grown) < 300, int(seconds) < 10) == (True, True), told[attack]
    assert re.search(ATTACKS[attack][1], message), message
    assert message.startswith("bundle ")
