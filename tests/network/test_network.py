"""Embedding, gate and backbone together: right by hand, pure, and blind to what a gate shuts out."""

import math
from dataclasses import replace

import pytest
import torch

from ctr.network.backbones import BACKBONES
from ctr.network.embeddings import Inputs, Projections, Table, pool_lists
from ctr.network.gates import START, HardGate, SoftGate
from ctr.network.network import Architecture, Network, build
from ctr.training.optimizers import LazyAdam

ROWS = 12  # table rows 0 (dropped) to 11
SMALL = Architecture(rows=ROWS, fields=4, dim=3, hidden=(5,), init_scale=0.5)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)


def inputs(size: int = 6, values: bool = True) -> Inputs:
    """Two single-valued fields, the second one scaled, and two list fields of 0 to 3 values."""
    draw = torch.Generator().manual_seed(7)
    lengths = torch.randint(0, 4, (size, 2), generator=draw)
    slots = torch.arange(2 * size).repeat_interleave(lengths.flatten())
    factors = torch.stack([torch.ones(size), torch.randn(size, generator=draw)], 1)
    return Inputs(
        ids=torch.randint(0, ROWS, (size, 2), generator=draw),
        values=factors if values else None,
        list_ids=torch.randint(0, ROWS, (len(slots),), generator=draw),
        list_slots=slots,
        list_lengths=lengths.float(),
    )


def trained(backbone: str, gate=None, **keys) -> Network:
    """A network whose every weight is a random number; row 0 of the table stays zero."""
    network = build(replace(SMALL, backbone=backbone, **keys), gate)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter) / 2
    network.table.weight.data[0] = 0.0
    return network


def slow_vectors(weight, given: Inputs, factor=lambda row: 1.0) -> list[list[list[float]]]:
    """Vectors (B, F, W) by nested loops: single-valued fields, then the mean of each list."""
    table = weight.tolist()
    batch = []
    for place in range(len(given.ids)):
        fields = []
        for slot in range(given.ids.shape[1]):
            row = int(given.ids[place, slot])
            scale = 1.0 if given.values is None else float(given.values[place, slot])
            fields.append([factor(row) * scale * number for number in table[row]])
        for number in range(given.list_lengths.shape[1]):
            total, count = [0.0] * weight.shape[1], 0
            for row, slot in zip(given.list_ids.tolist(), given.list_slots.tolist(), strict=True):
                if slot == place * given.list_lengths.shape[1] + number:
                    total = [old + factor(row) * new for old, new in zip(total, table[row], strict=True)]
                    count += 1
            fields.append([value / max(count, 1) for value in total])
        batch.append(fields)
    return batch


@pytest.mark.parametrize("values", [True, False])
def test_fields_become_the_vectors_that_nested_loops_make(values):
    network, given = trained("fm"), inputs(values=values)
    expected = torch.tensor(slow_vectors(network.table.weight, given))
    torch.testing.assert_close(network.embed(given), expected)


def test_pooling_equals_nested_loops_and_an_empty_list_is_zero():
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 0.0]])
    lengths = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    pooled = pool_lists(rows, torch.tensor([0, 0, 3]), lengths, ("mean", "mean"))
    assert pooled.tolist() == [[[2.0, 3.0], [0.0, 0.0]], [[0.0, 0.0], [5.0, 0.0]]]


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("mean", [2.0, -3.0]), ("sum", [4.0, -6.0]), ("max", [3.0, -2.0])],
)
def test_a_list_is_averaged_added_or_reduced_to_its_maximum(pooling, expected):
    rows = torch.tensor([[1.0, -2.0], [3.0, -4.0], [7.0, 7.0]])
    lengths = torch.tensor([[2.0, 1.0]])
    pooled = pool_lists(rows, torch.tensor([0, 0, 1]), lengths, (pooling, "mean"))
    assert pooled.tolist() == [[expected, [7.0, 7.0]]]


def test_the_maximum_of_a_list_passes_its_gradient_to_the_largest_row():
    rows = torch.tensor([[1.0], [3.0]], requires_grad=True)
    pool_lists(rows, torch.tensor([0, 0]), torch.tensor([[2.0]]), ("max",)).sum().backward()
    assert rows.grad.tolist() == [[0.0], [1.0]]


def test_a_vector_is_projected_onto_its_slot_and_nothing_is_added_to_a_dropped_or_missing_one():
    projections = Projections(((1, 2),), width=3, linear=1, scale=1.0)
    assert projections.weights[0][:, -1].tolist() == [0.0, 0.0]
    projections.weights[0].data = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 3.0]])
    single = torch.ones(3, 2, 3)
    vectors = torch.tensor([[1.0, 2.0], [5.0, 5.0], [0.0, 0.0]])
    ids = torch.tensor([[4, 2], [4, 0], [4, 1]])  # present, dropped, missing
    found = projections(single, vectors, ids)
    assert found[:, 0].tolist() == [[1.0] * 3] * 3
    assert found[:, 1].tolist() == [[2.0, 3.0, 9.0], [1.0] * 3, [1.0] * 3]


def test_a_dropped_value_counts_in_the_mean_of_its_list():
    table = Table(3, 1)
    table.weight.data = torch.tensor([[0.0], [4.0], [8.0]])
    pooled = pool_lists(
        table(torch.tensor([1, 0, 2, 0])), torch.zeros(4, dtype=torch.long), torch.tensor([[4.0]]), ("mean",)
    )
    assert pooled.item() == 3.0


def test_a_new_table_has_a_zero_row_and_first_order_weights_of_zero():
    weight = Table(1000, 5, linear=1, scale=0.1).weight
    assert torch.count_nonzero(weight[0]) == 0
    assert torch.count_nonzero(weight[:, -1]) == 0
    assert weight[1:, :-1].std().item() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("first_order", [None, True, False])
def test_the_first_order_term_and_bias_stand_beside_the_backbone(backbone, first_order):
    if backbone in ("lr", "poly2") and first_order is False:
        first_order = True
    network, given = trained(backbone, first_order=first_order).eval(), inputs()
    usual = BACKBONES[backbone].first_order if first_order is None else first_order
    vectors = network.embed(given)
    assert (network.bias is not None) == usual
    if usual:
        expected = vectors[..., -1].sum(1) + network.bias + network.backbone(vectors[..., :-1])
    else:
        expected = network.backbone(vectors)
    torch.testing.assert_close(network(given), expected)


def test_logistic_regression_is_the_sum_of_weights_and_holds_nothing_else():
    network = build(Architecture(rows=4, fields=2, backbone="lr"))
    assert sum(parameter.numel() for parameter in network.parameters()) == 4 + 1
    network.table.weight.data = torch.tensor([[0.0], [1.0], [2.0], [4.0]])
    network.bias.data = torch.tensor([0.5])
    nothing = torch.zeros(0, dtype=torch.long)
    given = Inputs(
        torch.tensor([[1, 2], [3, 0]]),
        torch.tensor([[1.0, -1.0], [2.0, 1.0]]),
        nothing,
        nothing,
        torch.zeros(2, 0),
    )
    assert network(given).tolist() == [1.0 - 2.0 + 0.5, 8.0 + 0.5]


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_forward_pass_changes_nothing(backbone, norm):
    gate = SoftGate(ROWS)
    network, given = trained(backbone, gate, norm=norm).train(norm != "batch"), inputs()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    before = [None if part is None else part.clone() for part in given]
    attributes = {name: set(vars(module)) for name, module in network.named_modules()}
    random = torch.get_rng_state()
    first, second = network(given), network(given)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    pairs = zip(before, given, strict=True)
    assert all(torch.equal(old, new) for old, new in pairs if old is not None)
    assert {name: set(vars(module)) for name, module in network.named_modules()} == attributes


@pytest.mark.parametrize("backbone", BACKBONES)
def test_rows_are_scored_one_by_one_as_together(backbone):
    network, given = trained(backbone).eval(), inputs()
    together = network(given)
    lists = given.list_lengths.shape[1]
    for place in range(len(given.ids)):
        mine = torch.div(given.list_slots, lists, rounding_mode="floor") == place
        alone = Inputs(
            given.ids[place : place + 1],
            given.values[place : place + 1],
            given.list_ids[mine],
            given.list_slots[mine] - place * lists,
            given.list_lengths[place : place + 1],
        )
        torch.testing.assert_close(network(alone), together[place : place + 1])


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("training", [True, False])
def test_a_batch_of_no_rows_gives_no_logits(backbone, norm, training):
    network = trained(backbone, SoftGate(ROWS), norm=norm).train(training)
    assert network(inputs(0)).shape == (0,)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_rows_whose_lists_are_all_empty_have_logits(backbone):
    nothing = torch.zeros(0, dtype=torch.long)
    given = inputs()._replace(list_ids=nothing, list_slots=nothing, list_lengths=torch.zeros(6, 2))
    logits = trained(backbone).eval()(given)
    assert logits.shape == (6,)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("single", [True, False])
def test_a_log_of_one_kind_of_field_is_enough(single):
    given = inputs()
    nothing = torch.zeros(0, dtype=torch.long)
    if single:
        given = given._replace(list_ids=nothing, list_slots=nothing, list_lengths=torch.zeros(6, 0))
    else:
        given = given._replace(ids=torch.zeros(6, 0, dtype=torch.long), values=None)
    assert trained("deepfm", fields=2)(given).shape == (6,)


def test_all_gates_are_one_at_the_start_whatever_comes_later():
    gate = SoftGate(ROWS)
    torch.testing.assert_close(gate(torch.arange(ROWS)), torch.ones(ROWS, 1))
    assert gate(torch.zeros(2, 3, dtype=torch.long)).shape == (2, 3, 1)


def test_a_soft_gate_is_equation_seven_of_the_paper():
    gate = SoftGate(3)
    gate.logits.data[:, 0] = torch.tensor([-1.0, 0.0, 2.0])
    gate.temperature.fill_(3.0)

    def sigmoid(value: float) -> float:
        return 1 / (1 + math.exp(-value))

    expected = [sigmoid(3.0 * logit) / sigmoid(START) for logit in (-1.0, 0.0, 2.0)]
    assert gate(torch.arange(3)).flatten().tolist() == pytest.approx(expected)


def test_a_hot_gate_is_open_or_shut():
    gate = SoftGate(2)
    gate.logits.data[:, 0] = torch.tensor([-0.5, 0.5])
    gate.temperature.fill_(1000.0)
    shut, opened = gate(torch.arange(2)).flatten().tolist()
    assert shut == 0.0
    assert opened == pytest.approx(1 + math.exp(-START))


def test_a_gate_that_is_all_but_shut_is_shut():
    # Products with ever smaller factors would end in denormal numbers, which take a processor many times as long.
    gate = SoftGate(3)
    gate.logits.data[:, 0] = torch.tensor([1.0, -0.1, -0.5])
    gate.temperature.fill_(150.0)
    wide, narrow, shut = gate(torch.arange(3)).flatten().tolist()
    assert wide == pytest.approx(1 + math.exp(-START))
    assert 0.0 < narrow < 1e-6
    assert shut == 0.0


def test_a_hard_gate_is_zero_or_one_and_part_of_no_optimizer():
    gate = HardGate(torch.tensor([False, True, False]))
    assert gate(torch.tensor([[1, 0], [2, 1]])).tolist() == [[[1.0], [0.0]], [[0.0], [1.0]]]
    assert list(gate.parameters()) == []


def test_gates_scale_the_whole_row_of_single_values_and_lists():
    gate = SoftGate(ROWS)
    gate.logits.data[:, 0] = torch.randn(ROWS)
    network, given = trained("fm", gate), inputs()
    factors = gate(torch.arange(ROWS)).flatten().tolist()
    expected = slow_vectors(network.table.weight, given, lambda row: factors[row])
    torch.testing.assert_close(network.embed(given), torch.tensor(expected))


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_noise_in_the_rows_of_dropped_features_changes_no_logit(backbone, norm):
    kept = torch.arange(ROWS) % 3 != 0
    network, given = trained(backbone, HardGate(kept), norm=norm).eval(), inputs(20)
    assert (~kept[given.ids]).any()
    assert (~kept[given.list_ids]).any()
    before = network(given)
    network.table.weight.data[~kept] = 100 * torch.randn(int((~kept).sum()), network.table.weight.shape[1])
    assert torch.equal(network(given), before)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_hard_gate_over_everything_is_no_gate(backbone):
    network, given = trained(backbone).eval(), inputs()
    before = network(given)
    network.gate = HardGate(torch.ones(ROWS, dtype=torch.bool))
    assert torch.equal(network(given), before)


def test_gradients_of_the_table_hold_the_batch_and_leave_the_dropped_row_as_it_is():
    network, given = trained("deepfm"), inputs()
    network(given).sum().backward()
    gradient = network.table.weight.grad
    assert gradient.is_sparse
    read = set(given.ids.flatten().tolist()) | set(given.list_ids.tolist())
    assert 0 in read
    assert set(gradient.coalesce().indices()[0].tolist()) == read - {0}


def test_a_batch_that_reads_nothing_but_the_dropped_row_moves_no_row():
    network, given = trained("deepfm"), inputs()
    nothing = given._replace(ids=torch.zeros_like(given.ids), list_ids=torch.zeros_like(given.list_ids))
    before = network.table.weight.detach().clone()
    network(nothing).sum().backward()
    assert not network.table.weight.grad.coalesce().indices().numel()
    LazyAdam([network.table.weight]).step()
    assert torch.equal(network.table.weight, before)


def test_the_same_seed_builds_the_same_network():
    def state(seed: int):
        torch.manual_seed(seed)
        return build(SMALL).state_dict()

    first, second, other = state(3), state(3), state(4)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["table.weight"], other["table.weight"])


@pytest.mark.parametrize(
    ("backbone", "setting"), [("dcn", "layers"), ("dcnv2", "layers"), ("pin", "subnet_units")]
)
def test_extra_settings_reach_the_backbone(backbone, setting):
    sizes = [
        sum(p.numel() for p in build(replace(SMALL, backbone=backbone, extra=((setting, n),))).parameters())
        for n in (2, 3)
    ]
    assert sizes[0] < sizes[1]
