"""Every backbone on every kind of hashed table: right by loops, pure, gated by value, and trained as a whole."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ctr.dataset.placement import place
from ctr.network.backbones import BACKBONES
from ctr.network.embeddings import Inputs
from ctr.network.gates import SoftGate
from ctr.network.hashed_tables import COMPOSITIONS
from ctr.network.network import Architecture, build
from ctr.training.optimizers import Optimizers
from tests.reference.hashed_tables import read

VALUES = 12  # of each field, with the numbers 1 to 48; 0 is dropped
FIELDS = ("user", "price", "tags", "words")  # the second one scaled, the last two lists
LOOKUPS = {"user": 1, "tags": 3}
EACH_BACKBONE = pytest.mark.parametrize("backbone", BACKBONES)
EACH_COMPOSITION = pytest.mark.parametrize("composition", COMPOSITIONS)


@pytest.fixture(autouse=True)
def _seeded():
    torch.set_num_threads(1)
    torch.manual_seed(3)


def placed(composition, linear, dim):
    """One table of 20 rows for 48 values; where a field can have lookups of its own, two fields do."""
    return place(
        dict.fromkeys(FIELDS, VALUES),
        shared=True,
        composition=composition,
        dim=dim,
        linear=linear,
        lookups=2,
        field_lookups={} if composition == "quotient_remainder" else LOOKUPS,
        rows=20,
    )


def architecture_of(placement, backbone, **keys):
    odd = placement.odd_lookups
    multi = placement.composition == "multi_hash"
    return Architecture(
        rows=placement.rows,
        fields=len(FIELDS),
        dim=4,
        backbone=backbone,
        hidden=(5,),
        pooling=("mean", "sum"),
        composition=placement.composition,
        second_rows=placement.second_rows,
        lookups=placement.second_width if multi else placement.lookups,
        odd_lookups=tuple((slot, odd[name]) for slot, name in enumerate(FIELDS) if name in odd),
        **keys,
    )


def made(composition, backbone="deepfm", gate=None, **keys):
    """A network whose every weight is a random number, and the placement of its features."""
    stated = Architecture(rows=0, fields=0, dim=4, backbone=backbone, **keys)
    placement = placed(composition, stated.linear, stated.width)
    network = build(architecture_of(placement, backbone, **keys), gate)
    for parameter in network.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter) / 2
    for table in (network.table, network.table.second):
        if table is not None:
            table.weight.data[0] = 0.0
    return network, placement


def where(placement, numbers, slots):
    """Places (..., R) of the values with those numbers (...) in the fields at `slots` (...)."""
    keys = np.asarray(numbers, np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    stretches = np.array([placement.of(name) for name in FIELDS])[slots]
    return torch.from_numpy(placement.places(keys, stretches) * (numbers > 0)[..., None])


def inputs(placement, size=6) -> Inputs:
    """Rows with 0 to 3 values in each list; some values are dropped."""
    draw = np.random.default_rng(7)
    lengths = draw.integers(0, 4, (size, 2))
    slots = np.repeat(np.arange(2 * size), lengths.ravel())
    single = draw.integers(0, VALUES + 1, (size, 2)) + np.array([0, VALUES])
    single[draw.random(single.shape) < 0.2] = 0
    fields = 2 + slots % 2
    listed = fields * VALUES + draw.integers(1, VALUES + 1, len(slots))
    listed[::4] = 0
    columns = np.broadcast_to(np.arange(2), single.shape)
    return Inputs(
        ids=torch.from_numpy(single),
        values=torch.from_numpy(np.stack([np.ones(size), draw.normal(size=size)], 1).astype(np.float32)),
        list_ids=torch.from_numpy(listed),
        list_slots=torch.from_numpy(slots),
        list_lengths=torch.from_numpy(lengths).float(),
        places=where(placement, single, columns),
        list_places=where(placement, listed, fields),
    )


@EACH_COMPOSITION
@EACH_BACKBONE
def test_fields_become_the_vectors_that_nested_loops_make(composition, backbone):
    gate = SoftGate(4 * VALUES + 1)
    gate.logits.data = torch.randn_like(gate.logits)
    network, placement = made(composition, backbone, gate)
    given = inputs(placement)
    found = network.embed(given)
    for row in range(len(given.ids)):
        for slot in range(2):
            number = given.ids[row, slot]
            factor = gate(number)[0] * given.values[row, slot]
            expected = factor * read(composition, network.table, given.places[row, slot], slot)
            torch.testing.assert_close(found[row, slot], expected)
        for number, pooling in enumerate(network.pooling):
            values = [at for at, slot in enumerate(given.list_slots.tolist()) if slot == 2 * row + number]
            total = torch.zeros_like(found[row, 0])
            for at in values:
                vector = read(composition, network.table, given.list_places[at], 2 + number)
                total = total + gate(given.list_ids[at])[0] * vector
            expected = total / max(len(values), 1) if pooling == "mean" else total
            torch.testing.assert_close(found[row, 2 + number], expected)


@EACH_COMPOSITION
@EACH_BACKBONE
@pytest.mark.parametrize(
    ("first_order", "norm"), [(None, "none"), (True, "none"), (False, "none"), (None, "layer")]
)
def test_every_parameter_is_moved_by_one_optimizer_and_by_one_only(composition, backbone, first_order, norm):
    if backbone in ("lr", "poly2") and first_order is False:
        first_order = None  # the configuration refuses a model without anything
    network, placement = made(composition, backbone, first_order=first_order, norm=norm)
    optimizers = Optimizers(network, 0.1, 0.0, 0.0)
    groups = [
        id(parameter)
        for optimizer in optimizers._each.values()
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    assert sorted(groups) == sorted(id(parameter) for parameter in network.parameters())
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    logits = network(inputs(placement, 40))
    (logits * torch.randn(40)).sum().backward()
    optimizers.step()
    for name, parameter in network.named_parameters():
        moved = parameter != before[name]
        if name.startswith("table.") and "weight" in name:
            assert not moved[0].any()
            moved = moved[1:]
        assert bool(moved.any()), name


@EACH_COMPOSITION
def test_every_step_reads_rows_as_a_decay_of_all_rows_in_every_step_leaves_them(composition):
    def trained(dense: bool) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        network, placement = made(composition)
        optimizers = Optimizers(network, 0.1, 0.5, 0.0)
        for number in range(12):
            given = inputs(placement, 1 + number % 3)  # one to three of the same rows
            network.zero_grad()
            network(given).square().sum().backward()
            optimizers.step()
            if dense:
                optimizers.settle()
        return network.state_dict()

    torch.testing.assert_close(trained(dense=False), trained(dense=True))


@EACH_COMPOSITION
@EACH_BACKBONE
def test_a_forward_pass_changes_nothing_and_gives_the_same_again(composition, backbone):
    network, placement = made(composition, backbone)
    given = inputs(placement)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    before = [None if part is None else part.clone() for part in given]
    first, second = network(given), network(given)
    assert torch.equal(first, second)
    assert float(first.detach().std()) > 0
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert all(torch.equal(old, new) for old, new in zip(before, given, strict=True) if old is not None)


@EACH_COMPOSITION
@EACH_BACKBONE
def test_rows_are_scored_one_by_one_as_together(composition, backbone):
    network, placement = made(composition, backbone)
    given = inputs(placement)
    together = network.eval()(given)
    for row in range(len(given.ids)):
        mine = torch.div(given.list_slots, 2, rounding_mode="floor") == row
        one = slice(row, row + 1)
        alone = Inputs(
            ids=given.ids[one],
            values=given.values[one],
            list_ids=given.list_ids[mine],
            list_slots=given.list_slots[mine] - 2 * row,
            list_lengths=given.list_lengths[one],
            places=given.places[one],
            list_places=given.list_places[mine],
        )
        torch.testing.assert_close(network(alone), together[one])


@EACH_COMPOSITION
@EACH_BACKBONE
@pytest.mark.parametrize("training", [True, False])
def test_a_batch_of_no_rows_gives_no_logits(composition, backbone, training):
    network, placement = made(composition, backbone, SoftGate(4 * VALUES + 1), norm="batch")
    assert network.train(training)(inputs(placement, 0)).shape == (0,)


@EACH_COMPOSITION
def test_a_log_without_lists_or_without_single_values_is_enough(composition):
    network, placement = made(composition, "fm")
    given = inputs(placement)
    none = torch.zeros(0, dtype=torch.int64)
    single = given._replace(
        list_ids=none,
        list_slots=none,
        list_lengths=torch.zeros(6, 0),
        list_places=given.list_places[:0],
    )
    assert network.embed(single).shape[:2] == (6, 2)
    nothing = torch.zeros(6, 0, dtype=torch.int64)
    lists = given._replace(ids=nothing, values=None, places=given.places[:, :0])
    assert network.embed(lists).shape[:2] == (6, 2)


@EACH_COMPOSITION
def test_two_values_on_the_very_same_rows_are_told_apart_by_their_gates_alone(composition):
    gate = SoftGate(4 * VALUES + 1)
    network, placement = made(composition, "deepfm", gate)
    given = inputs(placement)
    one = given._replace(ids=given.ids.clone())
    one.ids[:, 0], other = 1, 2
    places = given.places.clone()
    places[:, 0] = where(placement, np.array([1]), np.array([0]))
    one = one._replace(places=places)
    two = one._replace(ids=one.ids.clone())
    two.ids[:, 0] = other
    assert torch.equal(network(one), network(two))
    gate.logits.data[other] = -50.0
    closed = network(two)
    assert not torch.allclose(network(one), closed)
    dropped = places.clone()
    dropped[:, 0] = 0
    torch.testing.assert_close(network(two._replace(places=dropped)), closed)


@EACH_COMPOSITION
def test_the_same_seed_builds_the_same_network(composition):
    placement = placed(composition, 1, 4)
    architecture = architecture_of(placement, "deepfm")

    def state(seed):
        torch.manual_seed(seed)
        return build(architecture).state_dict()

    first, second, other = state(3), state(3), state(4)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["table.weight"], other["table.weight"])


@EACH_COMPOSITION
def test_the_scale_of_the_first_floats_is_a_setting(composition):
    placement = placed(composition, 0, 4)
    usual = architecture_of(placement, "fnn")
    assert 0.006 < float(build(usual).table.weight.detach().abs().max()) <= 0.01
    loud = build(replace(usual, init_scale=1.0)).table.weight.detach().abs().max()
    assert 0.5 < float(loud) <= 1.0
