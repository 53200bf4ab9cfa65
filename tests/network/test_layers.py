import pytest
import torch
from torch import Tensor

from ctr.network.layers import (
    MLP,
    BatchNorm,
    InnerProducts,
    Linear,
    MatrixCross,
    SubNets,
    VectorCross,
    inner_product_sum,
)
from tests.reference import layers as reference

SHAPES = [(0, 3, 2), (1, 3, 2), (5, 1, 4), (5, 2, 1), (4, 6, 3)]


def randomise(layer: torch.nn.Module) -> torch.nn.Module:
    """Float64 weights that no initialisation explains."""
    layer.double()
    for parameter in layer.parameters():
        parameter.data = torch.randn_like(parameter)
    return layer


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(3)


def assert_rows_equal(found: Tensor, expected: list) -> None:
    wanted = torch.tensor(expected, dtype=torch.float64).reshape(found.shape)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


def test_inner_products_of_three_fields_are_those_worked_out_by_hand():
    embeddings = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [-1.0, 5.0]]])
    assert InnerProducts(3)(embeddings).tolist() == [[11.0, 9.0, 17.0]]
    assert inner_product_sum(embeddings).tolist() == [37.0]


@pytest.mark.parametrize("shape", SHAPES)
def test_inner_products_equal_nested_loops(shape):
    embeddings = torch.randn(shape, dtype=torch.float64)
    expected = [reference.inner_products(row) for row in embeddings.tolist()]
    found = InnerProducts(shape[1])(embeddings)
    assert found.shape == (shape[0], shape[1] * (shape[1] - 1) // 2)
    assert_rows_equal(found, expected)
    assert_rows_equal(inner_product_sum(embeddings), [sum(products) for products in expected])


def test_inner_products_accept_embeddings_that_are_a_slice_of_wider_rows():
    wide = torch.randn(4, 5, 3, dtype=torch.float64)
    narrow = wide[..., :-1]
    torch.testing.assert_close(inner_product_sum(narrow), InnerProducts(5)(narrow).sum(1))


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("units", [2, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_sub_nets_equal_nested_loops(shape, units, layer_norm):
    layer = randomise(SubNets(*shape[1:], units, layer_norm))
    embeddings = torch.randn(shape, dtype=torch.float64)
    embeddings[:1, :1] = 0.0  # a value that is not there
    own = [parameter.tolist() for parameter in layer.parameters()]
    found = layer(embeddings)
    assert found.shape == (shape[0], shape[1] * (shape[1] - 1) // 2 * units)
    assert_rows_equal(found, [reference.subnets(row, *own) for row in embeddings.tolist()])


def test_a_sub_net_is_worked_out_by_hand():
    layer = SubNets(fields=2, width=1, units=2, layer_norm=True)
    layer.weight.data = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]], [[2.0, -1.0]]]])
    layer.bias.data = torch.tensor([[0.0, 4.0]])
    layer.norm_weight.data = torch.tensor([[3.0, 5.0]])
    layer.norm_bias.data = torch.tensor([[0.5, 1.0]])
    # e = 3, 2: 3 + 2 * 6 = 15 and 2 - 6 + 4 = 0, so 1 and -1 after the norm, 3.5 and -4 behind its weights
    torch.testing.assert_close(layer(torch.tensor([[[3.0], [2.0]]])), torch.tensor([[3.5, 0.0]]))


@pytest.mark.parametrize("layer_norm", [True, False])
@pytest.mark.parametrize("absent", [[0], [1], [0, 1]])
def test_a_pair_without_one_of_its_values_gives_zeros_and_no_gradient(absent, layer_norm):
    layer = randomise(SubNets(3, 4, 5, layer_norm))
    embeddings = torch.randn(6, 3, 4, dtype=torch.float64)
    embeddings[:, absent] = 0.0
    found = layer(embeddings.requires_grad_()).unflatten(1, (3, 5))  # pairs (0, 1), (0, 2), (1, 2)
    there = [not {0, 1} & set(absent), 0 not in absent, 1 not in absent]
    assert found.any(dim=(0, 2)).tolist() == there
    found.sum().backward()
    assert embeddings.grad[:, absent].count_nonzero() == 0
    assert all(parameter.grad.flatten(1).any(1).tolist() == there for parameter in layer.parameters())


@pytest.mark.parametrize("layers", [1, 2, 4])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_the_vector_cross_equals_nested_loops(rows, layers):
    cross = randomise(VectorCross(6, layers))
    inputs = torch.randn(rows, 6, dtype=torch.float64)
    weights, biases = cross.weight.tolist(), cross.bias.tolist()
    found = cross(inputs)
    assert found.shape == (rows, 6)
    assert_rows_equal(found, [reference.vector_cross(row, weights, biases) for row in inputs.tolist()])


def test_the_vector_cross_of_one_input_is_worked_out_by_hand():
    cross = VectorCross(1, 2)
    cross.weight.data = torch.tensor([[3.0], [1.0]])
    cross.bias.data = torch.tensor([1.0, -4.0])
    # x_0 = 2; x_1 = 2 (3 * 2 + 1) + 2 = 16; x_2 = 2 (1 * 16 - 4) + 16 = 40
    assert cross(torch.tensor([[2.0]])).tolist() == [[40.0]]


def test_one_bias_per_layer_gives_the_functions_of_the_published_bias_vectors():
    layers, size = 3, 5
    weights = torch.randn(layers, size, dtype=torch.float64)
    published = torch.randn(layers, size, dtype=torch.float64)
    below = torch.cat([torch.zeros(1, size, dtype=torch.float64), published.cumsum(0)])  # c_0 .. c_L
    cross = VectorCross(size, layers).double()
    cross.weight.data = weights
    cross.bias.data = (weights * below[:-1]).sum(1)
    inputs = torch.randn(4, size, dtype=torch.float64)
    expected = [
        reference.published_vector_cross(row, weights.tolist(), published.tolist()) for row in inputs.tolist()
    ]
    assert_rows_equal(cross(inputs) + below[-1], expected)


@pytest.mark.parametrize("rank", [None, 1, 2])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_the_matrix_cross_equals_nested_loops(rows, rank):
    cross = randomise(MatrixCross(4, layers=3, rank=rank))
    if rank is None:
        weights = cross.weight.tolist()
    else:
        pairs = zip(cross.up.tolist(), cross.down.tolist(), strict=True)
        weights = [reference.matrix_product(up, down) for up, down in pairs]
    inputs = torch.randn(rows, 4, dtype=torch.float64)
    found = cross(inputs)
    assert found.shape == (rows, 4)
    biases = cross.bias.tolist()
    assert_rows_equal(found, [reference.matrix_cross(row, weights, biases) for row in inputs.tolist()])


@pytest.mark.parametrize("hidden", [(), (3,), (4, 2)])
def test_an_mlp_equals_nested_loops(hidden):
    layer = randomise(MLP(5, hidden))
    linears = [
        (part.weight.tolist(), part.bias.tolist()) for part in layer if isinstance(part, torch.nn.Linear)
    ]
    inputs = torch.randn(6, 5, dtype=torch.float64)
    assert_rows_equal(layer(inputs), [reference.mlp(row, linears) for row in inputs.tolist()])


def test_a_hidden_layer_is_linear_then_norm_then_relu_then_dropout():
    names = [[type(part).__name__ for part in MLP(4, [3], 0.5, norm)] for norm in ("none", "batch", "layer")]
    assert names == [
        ["Linear", "ReLU", "Dropout", "Linear"],
        ["Linear", "BatchNorm", "ReLU", "Dropout", "Linear"],
        ["Linear", "LayerNorm", "ReLU", "Dropout", "Linear"],
    ]


def test_dropout_acts_in_training_only():
    layer, inputs = MLP(4, [64], dropout=0.5), torch.randn(3, 4)
    assert not torch.equal(layer(inputs), layer(inputs))
    layer.eval()
    assert torch.equal(layer(inputs), layer(inputs))


@pytest.mark.parametrize("rows", [0, 1])
def test_batch_norm_takes_less_than_two_training_rows_as_it_takes_them_in_evaluation(rows):
    norm = BatchNorm(3)
    norm(torch.randn(50, 3) * 4 + 2)
    before = {name: tensor.clone() for name, tensor in norm.state_dict().items()}
    inputs = torch.randn(rows, 3)
    in_training = norm(inputs)
    assert torch.equal(in_training, norm.eval()(inputs))
    assert all(torch.equal(tensor, before[name]) for name, tensor in norm.state_dict().items())


def test_batch_norm_of_many_rows_is_that_of_pytorch():
    ours, theirs, inputs = BatchNorm(3), torch.nn.BatchNorm1d(3), torch.randn(20, 3)
    assert torch.equal(ours(inputs), theirs(inputs))
    assert torch.equal(ours.running_var, theirs.running_var)


def test_weights_start_within_the_xavier_bound_and_fill_it_and_biases_start_at_zero():
    linear, vector = Linear(50, 30), VectorCross(200, 3)
    full, low = MatrixCross(40, 2), MatrixCross(40, 2, rank=8)
    subnets = SubNets(6, 30, 7, layer_norm=True)
    for weight, inputs, outputs in [
        (linear.weight, 50, 30),
        (vector.weight, 200, 1),
        (full.weight, 40, 40),
        (low.down, 40, 8),
        (low.up, 8, 40),
        (subnets.weight, 90, 7),
    ]:
        bound = (6 / (inputs + outputs)) ** 0.5
        assert 0.95 * bound < weight.abs().max() <= bound
    assert all(not layer.bias.any() for layer in (linear, vector, full, low, subnets))


@pytest.mark.parametrize(
    "layer",
    [MLP(4, [3]), Linear(4, 1), VectorCross(4, 2), MatrixCross(4, 2, rank=2), SubNets(4, 3, 2, True)],
)
def test_input_axes_name_exactly_the_axes_that_run_over_the_input(layer):
    sizes = {name: parameter.shape for name, parameter in layer.named_parameters()}
    wider = {
        "MLP": lambda: MLP(7, [3]),
        "Linear": lambda: Linear(7, 1),
        "VectorCross": lambda: VectorCross(7, 2),
        "SubNets": lambda: SubNets(7, 3, 2, True),
    }
    grown = wider.get(type(layer).__name__, lambda: MatrixCross(7, 2, rank=2))()
    changed = {
        name: tuple(axis for axis, size in enumerate(parameter.shape) if size != sizes[name][axis])
        for name, parameter in grown.named_parameters()
        if parameter.shape != sizes[name]
    }
    assert changed == {name: axes for name, axes in layer.input_axes.items() if name in sizes}
