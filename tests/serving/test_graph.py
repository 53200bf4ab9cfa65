"""The graph of every network, against PyTorch: all backbones, lists, vectors, compositions and pairs, all dtypes."""

from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch

from ctr.dataset.crosses import CrossKeys
from ctr.errors import CtrError, DataError
from ctr.network.backbones import BACKBONES
from ctr.network.crosses import PairLayout
from ctr.network.network import Architecture, build
from ctr.selection.pair_space import cross_index
from ctr.serving import operators
from ctr.serving import session as served
from ctr.serving.forward import probabilities
from ctr.serving.graph import GraphInput, network_graph
from ctr.serving.network_files import as_stored, write_network
from ctr.serving.rows import EncodedRows
from ctr.serving.session import Session
from ctr.serving.storage import stored
from tests.serving.conftest import loud

ROWS, SINGLE = 40, 5
LISTS = {"pooling": ("mean", "max", "sum"), "fields": SINGLE + 3}
PAIRS = PairLayout(4, ((0, 1), (2, 3)), ((0, 2), (1, 2)), 9, True, ROWS, ((0, 0), (1, 0), (2, 4)))
COMPOSITIONS = {
    "lookup": ({"lookups": 2, "odd_lookups": ((1, 3),)}, 3, ROWS),
    "robe": ({"lookups": 2, "odd_lookups": ((1, 3),)}, 3, (ROWS - 2) * 4),
    "multi_hash": ({"lookups": 2, "second_rows": 7}, 3, 7),
    "quotient_remainder": ({"second_rows": 7}, 2, 7),
}
CASES = {
    **{name: {"backbone": name, **LISTS, "vectors": ((1, 2), (3, 1))} for name in BACKBONES},
    **{
        f"{name} with pairs": {"backbone": name, "pairs": PAIRS}
        for name in BACKBONES
        if BACKBONES[name].reads_pairs
    },
    **{name: {"composition": name, **LISTS, **keys} for name, (keys, _, _) in COMPOSITIONS.items()},
    **{
        f"{name} with nothing dense": {"backbone": "fm", "composition": name, **LISTS, **keys}
        for name, (keys, _, _) in COMPOSITIONS.items()
    },
    "hashed factors": {"composition": "lookup", "lookups": 2, "pairs": PAIRS},
    "layer norm": {"backbone": "pin", "norm": "layer", "dropout": 0.3},
    "batch norm": {"norm": "batch", "first_order": False},
    "no hidden layer": {"hidden": ()},
    "rank": {"backbone": "dcnv2", "extra": (("layers", 2), ("rank", 3))},
    "one list alone": {"fields": 1, "pooling": ("max",)},
}


def architecture_of(case):
    usual = {"rows": ROWS, "fields": SINGLE, "dim": 8, "backbone": "deepfm", "hidden": (12, 6)}
    return Architecture(**{**usual, **CASES[case]})


def keys_of(architecture):
    if architecture.pairs is None:
        return None
    words = np.random.default_rng(1).integers(0, 2**31 - 1, (ROWS, 4)).astype(np.int32)
    sketch = np.full((2, 8), 0b01101101, np.uint8)
    return CrossKeys((("a", "b"), ("c", "d")), words, np.zeros(0, np.int64), sketch)


def rows_of(architecture, count):
    """Random inputs of an architecture."""
    draw = np.random.default_rng(count)
    lists = len(architecture.pooling)
    single = architecture.fields - lists
    lengths = draw.integers(1, 4, (count, lists))
    values = int(lengths.sum())
    ids, list_ids = draw.integers(0, ROWS, (count, single)), draw.integers(0, ROWS, values)
    vectors = sum(size for _, size in architecture.vectors)
    places = list_places = None
    if architecture.composition:
        _, numbers, largest = COMPOSITIONS[architecture.composition]
        numbers = numbers if architecture.odd_lookups or architecture.composition != "lookup" else 2
        places, list_places = (draw.integers(0, largest, (*each.shape, numbers)) for each in (ids, list_ids))
        places *= (ids > 0)[..., None]
    return EncodedRows(
        ids,
        draw.random((count, single)).astype(np.float32),
        list_ids,
        np.repeat(np.arange(count * lists), lengths.ravel()),
        lengths.astype(np.float32),
        draw.normal(size=(count, vectors)).astype(np.float32) if vectors else None,
        places,
        list_places,
    )


def session_of(folder, network, architecture, dtype, keep_rate=0.25):
    entry, tensors = write_network(
        folder, network, architecture, rows_of(architecture, 2), dtype=dtype, keep_rate=keep_rate
    )
    return Session(folder, tensors, asdict(architecture), entry.inputs, keys_of(architecture))


@pytest.mark.parametrize("case", CASES)
def test_every_network_scores_in_a_graph_as_in_pytorch(tmp_path, monkeypatch, case):
    monkeypatch.setattr(served, "_ROWS", 37)  # so that 60 rows go through it in two pieces
    architecture = architecture_of(case)
    keys = keys_of(architecture)
    network = loud(build(architecture, index=keys and cross_index(keys)))
    for dtype in ("float32", "float16", "int8"):
        session = session_of(tmp_path, network, architecture, dtype)
        rounded = as_stored(network, dtype)
        for count in (0, 1, 2, 60):
            rows = rows_of(architecture, count)
            expected = probabilities(rounded, rows, 0.25)
            found = session(rows)
            assert found.dtype == np.float64
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert expected.std() > 0.001
    assert (found != probabilities(network, rows, 0.25)).any()  # int8 was rounded


def test_the_graph_holds_no_weight_and_says_where_each_is(tmp_path):
    architecture = architecture_of("dcnv2")
    network = loud(build(architecture))
    session_of(tmp_path, network, architecture, "int8")
    size = (tmp_path / "network.onnx").stat().st_size
    model = onnx.load(tmp_path / "network.onnx")  # resolves what is stored beside it, by ONNX's own reader
    expected = stored({name: tensor.numpy() for name, tensor in network.state_dict().items()}, "int8")
    found = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)
    assert size < sum(array.nbytes for array in found.values() if array.ndim)
    onnx.checker.check_model(str(tmp_path / "network.onnx"), full_check=True)


def test_networks_of_one_architecture_share_a_graph_whatever_their_rows():
    inputs = [GraphInput("ids", torch.int64, "B", (3,))]
    graphs = [network_graph(Architecture(rows=rows, fields=3, dim=4), inputs) for rows in (9, 10_000)]
    assert graphs[0] == graphs[1]
    names = [each.name for each in graphs[0].graph.input]
    assert names[0] == "ids"
    assert {"table.weight", "bias", "slope", "intercept", "log_keep_rate"} < set(names)


def test_an_operator_that_has_no_line_is_named(monkeypatch):
    monkeypatch.delitem(operators.OPERATORS, "aten.relu_.default")
    with pytest.raises(CtrError, match=r'the network uses "aten\.relu_\.default"'):
        network_graph(
            Architecture(rows=9, fields=2, hidden=(17,)), [GraphInput("ids", torch.int64, "B", (2,))]
        )


@pytest.mark.parametrize(
    ("backbone", "keys"),
    [("fnn", {"hidden": (2100,), "dim": 64}), ("pin", {"hidden": (8,), "dim": 16, "norm": "layer"})],
)
def test_a_wide_network_is_within_the_limits(tmp_path, monkeypatch, backbone, keys):
    monkeypatch.setattr(served, "_ROWS", 10**9)  # what memory allows alone
    architecture = Architecture(rows=ROWS, fields=40, backbone=backbone, **keys)
    session = session_of(tmp_path, build(architecture), architecture, "int8")
    rows = rows_of(architecture, 5)
    assert session(rows).shape == (5,)
    assert 500 < session.most_rows < 20_000


def test_a_wide_network_is_given_fewer_rows_at_once(tmp_path, monkeypatch):
    architecture = architecture_of("deepfm")
    network = loud(build(architecture))
    assert session_of(tmp_path, network, architecture, "float32").most_rows == served._ROWS
    monkeypatch.setattr(served, "_AT_ONCE", 1)
    assert session_of(tmp_path, network, architecture, "float32").most_rows == 1


def test_what_is_no_probability_is_not_returned(tmp_path, monkeypatch):
    architecture = architecture_of("deepfm")
    session = session_of(tmp_path, build(architecture), architecture, "float32")
    for wrong in (1.5, -0.25, np.inf):
        fake = SimpleNamespace(run=lambda *_, wrong=wrong: [np.array([0.5, wrong])])
        monkeypatch.setattr(session, "_session", fake)
        with pytest.raises(DataError, match=f"gave a probability of {wrong}"):
            session(rows_of(architecture, 2))
    monkeypatch.setattr(session, "_session", SimpleNamespace(run=lambda *_: [np.array([0.0, 1.0, np.nan])]))
    assert session(rows_of(architecture, 3)).tolist()[:2] == [0.0, 1.0]  # infinite inputs have none
