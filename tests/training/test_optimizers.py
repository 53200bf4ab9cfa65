"""LazyAdam does what a slow pass over the whole table does, and costs what the batch holds."""

import random

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ctr.network.backbones import BACKBONES
from ctr.network.embeddings import Table
from ctr.training import optimizers
from ctr.training.optimizers import LazyAdam, dense_parameters, table_parameters
from tests.reference.optimizers import SlowLazyAdam

ROWS, WIDTH = 6, 3


def table(dtype=torch.float64, rows: int = ROWS) -> nn.Parameter:
    return nn.Parameter(torch.linspace(-1, 1, rows * WIDTH, dtype=dtype).reshape(rows, WIDTH))


def sparse(gradients: list[tuple[int, list[float]]], like: torch.Tensor) -> torch.Tensor:
    rows = torch.tensor([[row for row, _ in gradients]])
    values = torch.tensor([values for _, values in gradients], dtype=like.dtype)
    return torch.sparse_coo_tensor(rows, values, like.shape, check_invariants=True)


def random_gradients(steps: int) -> list[list[tuple[int, list[float]]]]:
    """Per step up to four reads of the first five rows, duplicates among them; row 5 is never read."""
    draw = random.Random(4)
    return [
        [
            (draw.randrange(ROWS - 1), [draw.gauss(0, 1) for _ in range(WIDTH)])
            for _ in range(draw.randint(1, 4))
        ]
        for _ in range(steps)
    ]


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_fast_optimizer_equals_the_slow_one(monkeypatch, decay, gpu):
    monkeypatch.setattr(optimizers, "on_gpu", lambda parameter: gpu)  # the way it goes there, on a CPU
    weights = table()
    fast = LazyAdam([weights], 0.05, weight_decay=decay)
    slow = SlowLazyAdam(weights.tolist(), 0.05, decay)
    for number, gradients in enumerate(random_gradients(60)):
        weights.grad = sparse(gradients, weights)
        fast.step()
        slow.step(gradients)
        if number % 20 == 9:
            fast.settle()
            torch.testing.assert_close(weights.data, torch.tensor(slow.table, dtype=weights.dtype))
    fast.settle()
    torch.testing.assert_close(
        weights.data, torch.tensor(slow.table, dtype=weights.dtype), rtol=1e-12, atol=0
    )


def test_rows_that_no_batch_reads_stay_as_they_are():
    weights = table()
    before = weights.detach().clone()
    fast = LazyAdam([weights], 0.05, weight_decay=0.5)
    for _ in range(5):
        weights.grad = sparse([(1, [1.0, 2.0, 3.0]), (4, [1.0, 0.0, -1.0])], weights)
        fast.step()
    changed = (weights != before).any(1).nonzero().flatten().tolist()
    assert changed == [1, 4]


def test_a_row_named_twice_in_a_batch_moves_once_by_the_sum():
    twice, once = table(), table()
    twice.grad = sparse([(2, [1.0, 0.0, 5.0]), (2, [1.0, -2.0, -5.0])], twice)
    once.grad = sparse([(2, [2.0, -2.0, 0.0])], once)
    for weights in (twice, once):
        LazyAdam([weights], 0.1).step()
    assert torch.equal(twice, once)
    moved = twice[2] - table()[2]
    torch.testing.assert_close(moved, torch.tensor([-0.1, 0.1, 0.0], dtype=torch.float64))


def test_a_mean_that_only_shrinks_ends_at_zero_and_not_among_denormal_numbers():
    weights = table(torch.float32)
    fast = LazyAdam([weights], 0.05)
    weights.grad = sparse([(2, [1e-3, 1.0, -1e3])], weights)
    fast.step()
    moved = fast.state[weights]["mean"][2].clone()
    assert bool((moved != 0).all())
    for _ in range(1000):  # behind a gate that has shut
        weights.grad = sparse([(2, [0.0, 0.0, 0.0])], weights)
        fast.step()
    assert not fast.state[weights]["mean"].any()
    assert bool(torch.isfinite(weights).all())


def test_a_decay_too_small_for_float32_still_shrinks_over_many_steps():
    weights = nn.Parameter(torch.ones(2, WIDTH))
    fast = LazyAdam([weights], 1e-3, weight_decay=1e-5)
    weights.grad = sparse([(0, [0.0] * WIDTH)], weights)
    fast.step()
    fast.state[weights]["step"] = 1_000_000
    fast.settle()
    torch.testing.assert_close(weights[1], torch.full((WIDTH,), (1 - 1e-8) ** 1_000_000))


def test_settling_twice_changes_nothing():
    weights = table()
    fast = LazyAdam([weights], 0.05, weight_decay=0.5)
    weights.grad = sparse([(1, [1.0, 2.0, 3.0])], weights)
    fast.step()
    fast.settle()
    settled = weights.detach().clone()
    fast.settle()
    assert torch.equal(weights, settled)


def test_the_dropped_row_stays_zero():
    torch.manual_seed(0)
    module = Table(5, WIDTH)
    fast = LazyAdam(module.parameters(), 0.1, weight_decay=0.1)
    for _ in range(3):
        module.zero_grad()
        module(torch.tensor([[0, 1], [0, 0]])).square().sum().backward()
        fast.step()
    fast.settle()
    assert torch.equal(module.weight[0], torch.zeros(WIDTH))
    module.zero_grad()
    module(torch.tensor([[0, 0]])).sum().backward()
    fast.step()  # a batch of dropped features alone
    assert torch.equal(module.weight[0], torch.zeros(WIDTH))


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_a_loaded_state_goes_on_as_if_nothing_had_happened(decay):
    steps = random_gradients(20)
    straight = table()
    optimizer = LazyAdam([straight], 0.05, weight_decay=decay)
    for gradients in steps:
        straight.grad = sparse(gradients, straight)
        optimizer.step()
    weights = table()
    first = LazyAdam([weights], 0.05, weight_decay=decay)
    for gradients in steps[:9]:
        weights.grad = sparse(gradients, weights)
        first.step()
    second = LazyAdam([weights], 1.0)  # rate and decay come with the state
    second.load_state_dict(first.state_dict())
    for gradients in steps[9:]:
        weights.grad = sparse(gradients, weights)
        second.step()
    assert torch.equal(weights, straight)


def test_steps_are_counted_exactly_after_loading():
    weights = table(torch.float32)
    first = LazyAdam([weights], 0.05, weight_decay=0.5)
    weights.grad = sparse([(1, [1.0, 2.0, 3.0])], weights)
    first.step()
    first.state[weights]["read"].fill_(2**24 + 1)  # no float32
    second = LazyAdam([weights], 0.05)
    second.load_state_dict(first.state_dict())
    assert second.state[weights]["read"].tolist() == [2**24 + 1] * ROWS


def test_dense_weights_go_on_from_a_state_that_went_through_json():
    def stepped(optimizer: torch.optim.Adam, weights: nn.Parameter, number: int) -> None:
        weights.grad = torch.full_like(weights, 0.1 * number)
        optimizer.step()

    straight, weights = table(torch.float32), table(torch.float32)
    first, whole = (optimizers.adam([one], 0.05) for one in (weights, straight))
    for number in (1, 2):
        stepped(first, weights, number)
        stepped(whole, straight, number)
    second, state = optimizers.adam([weights], 1.0), first.state_dict()
    state["state"] = {str(key): value for key, value in state["state"].items()}
    optimizers.take_up(second, state)
    assert second.param_groups[0]["lr"] == 0.05
    stepped(second, weights, 3)
    stepped(whole, straight, 3)
    torch.testing.assert_close(weights, straight)


class Work(TorchDispatchMode):
    """Counts the largest number of floats that one operation makes or rewrites."""

    ON_ROWS = {"index_add_", "index_copy_", "index_fill_"}  # rewrite the rows they are given

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        views = {"detach", "view", "_values", "_indices", "alias", "t", "slice", "select", "unsqueeze"}
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor) and name not in self.ON_ROWS | views:
                size = tensor._nnz() * WIDTH if tensor.is_sparse else tensor.numel()
                self.largest = max(self.largest, size)
        return result


def test_a_step_costs_the_same_whatever_the_table_holds():
    def largest(rows: int) -> int:
        torch.manual_seed(0)
        module = Table(rows, WIDTH)
        optimizer = LazyAdam(module.parameters(), 0.1, weight_decay=0.1)
        ids = torch.tensor([[1, 5, 5, 9], [3, 1, 0, 7]])

        def step() -> None:
            module.weight.grad = None
            module(ids).square().sum().backward()
            optimizer.step()

        step()  # the first one makes the state
        with Work() as work:
            step()
        return work.largest

    # Eight rows are read, and what is made of them is no larger.
    assert largest(10) == largest(100_000) == 8 * WIDTH


def test_settling_is_a_pass_over_the_table_and_shows_in_the_count():
    module = Table(1000, WIDTH)
    optimizer = LazyAdam(module.parameters(), 0.1, weight_decay=0.1)
    module(torch.tensor([[1]])).sum().backward()
    optimizer.step()
    with Work() as work:
        optimizer.settle()
    assert work.largest == 1000 * WIDTH


BUILDS = [(backbone, first) for backbone in BACKBONES for first in (None, True, False)]
BUILDS = [build for build in BUILDS if build not in [("lr", False), ("poly2", False)]]  # these leave no model


@pytest.mark.parametrize(("backbone", "first_order"), BUILDS)
def test_every_parameter_is_in_exactly_one_optimizer(fresh, backbone, first_order):
    network = fresh(backbone, first_order=first_order)
    tables = table_parameters(network)
    dense = dense_parameters(network, tables)
    assert len(tables) == 1
    found = sorted(id(parameter) for parameter in [*tables, *dense])
    assert found == sorted(id(parameter) for parameter in network.parameters())
