"""Embeddings put together from rows that features share: each composition against loops, by hand, and its gradients."""

import numpy as np
import pytest
import torch

from ctr.dataset.placement import place
from ctr.network.hashed_tables import (
    COMPOSITIONS,
    LookupTable,
    MultiHashTable,
    QuotientRemainderTable,
    RobeTable,
)
from tests.reference.hashed_tables import REFERENCES, read

FIELDS = ("user", "item", "tags", "day")
SINGLE = 2  # user and item; tags and day are lists
# Fields that read another number of rows than two, by composition: fewer, and more.
ODD = {"none": {}, "one": {"item": 1, "tags": 3}}
CASES = [
    (composition, linear, odd)
    for composition in COMPOSITIONS
    for linear in (0, 1)
    for odd in ODD
    if (composition, odd) != ("quotient_remainder", "one")  # it always reads one row of each table
]
EACH = pytest.mark.parametrize(("composition", "linear", "odd"), CASES)


@pytest.fixture(autouse=True)
def _seeded():
    torch.set_num_threads(1)
    torch.manual_seed(2)


def placed(composition, linear, odd, dim=4, rows=23, shared=True, collision_free=0):
    """A placement of four fields: 30 values each, but for the 5 of `day`."""
    features = {"user": 30, "item": 30, "tags": 30, "day": 5}
    return place(
        features,
        shared=shared,
        composition=composition,
        dim=dim,
        linear=linear,
        lookups=2,
        field_lookups=ODD[odd],
        rows=rows,
        collision_free=collision_free,
    )


def table_of(placement, dim=4, dtype=torch.float64):
    """A table for it, with random floats and a dropped row of zeros."""
    odd = placement.odd_lookups
    multi = placement.composition == "multi_hash"
    table = COMPOSITIONS[placement.composition](
        placement.rows,
        placement.second_rows,
        dim,
        placement.linear,
        placement.second_width if multi else placement.lookups,
        tuple((slot, odd[name]) for slot, name in enumerate(FIELDS) if name in odd),
    ).to(dtype)
    for parameter in table.parameters():
        parameter.data = torch.randn_like(parameter)
    for own in (table, table.second):
        if own is not None:
            own.weight.data[0] = 0.0
    return table


def places_of(placement, slots, seed=0, dropped=True):
    """(n, R) places of random values, of the fields at `slots` (n,); every third value is dropped."""
    draw = np.random.default_rng(seed)
    keys = draw.integers(0, 2**64, len(slots), np.uint64)
    numbers = np.array([placement.of(FIELDS[slot]) for slot in slots])
    found = placement.places(keys, numbers, draw.integers(0, 5, len(slots)))
    if dropped:
        found[::3] = 0
    return torch.from_numpy(found)


def single_places(placement, size=6, dropped=True):
    """(B, S, R) places of users and items."""
    slots = np.tile(np.arange(SINGLE), size)
    return places_of(placement, slots, dropped=dropped).reshape(size, SINGLE, -1)


def list_slots(count=13):
    """(L,) tags and days in no order."""
    return np.random.default_rng(4).integers(SINGLE, len(FIELDS), count)


@EACH
@pytest.mark.parametrize("collision_free", [0, 5])
def test_single_values_are_put_together_as_in_nested_loops(composition, linear, odd, collision_free):
    placement = placed(composition, linear, odd, rows=40, collision_free=collision_free)
    table, places = table_of(placement), single_places(placement)
    found = table(places)
    assert found.shape == (6, SINGLE, 4 + linear)
    for row in range(len(places)):
        for slot in range(SINGLE):
            expected = read(composition, table, places[row, slot], slot)
            torch.testing.assert_close(found[row, slot], expected, rtol=1e-12, atol=1e-12)


@EACH
@pytest.mark.parametrize("collision_free", [0, 5])
def test_list_values_are_put_together_as_in_nested_loops(composition, linear, odd, collision_free):
    placement = placed(composition, linear, odd, rows=40, collision_free=collision_free)
    table, slots = table_of(placement), list_slots()
    places = places_of(placement, slots, seed=1)
    found = table.compose(places, torch.from_numpy(slots))
    assert found.shape == (len(slots), 4 + linear)
    for number, slot in enumerate(slots):
        expected = read(composition, table, places[number], slot)
        torch.testing.assert_close(found[number], expected, rtol=1e-12, atol=1e-12)


@EACH
def test_sparse_gradients_equal_dense_ones_of_the_loops(composition, linear, odd):
    placement = placed(composition, linear, odd)
    table, places = table_of(placement), single_places(placement)
    factors = torch.randn(*places.shape[:2], 4 + linear, dtype=torch.float64)
    (table(places) * factors).sum().backward()
    dense = [parameter.detach().clone().requires_grad_() for parameter in table.projections]
    weight = table.weight.detach().clone().requires_grad_()
    second = None if table.second is None else table.second.weight.detach().clone().requires_grad_()
    total = 0.0
    for row in range(len(places)):
        for slot in range(SINGLE):
            vector = read(composition, table, places[row, slot], slot, weight, second, dense)
            total = total + (vector * factors[row, slot]).sum()
    total.backward()
    pairs = [(table.weight, weight)] + ([(table.second.weight, second)] if second is not None else [])
    for sparse, expected in pairs:
        assert sparse.grad.is_sparse
        found = sparse.grad.coalesce()
        assert not found.to_dense()[0].any()
        assert len(found.indices()[0]) < len(sparse)  # as many rows as the batch reads, not all
        torch.testing.assert_close(found.to_dense()[1:], expected.grad[1:], rtol=1e-11, atol=1e-11)
    for own, expected in zip(table.projections, dense, strict=True):
        if expected.grad is None:  # of a list field, which these rows do not have
            assert own.grad is None or not own.grad.any()
        else:
            torch.testing.assert_close(own.grad, expected.grad, rtol=1e-11, atol=1e-11)


@EACH
def test_what_is_dropped_reads_zeros_and_teaches_nothing(composition, linear, odd):
    placement = placed(composition, linear, odd)
    table, slots = table_of(placement), torch.from_numpy(list_slots())
    nowhere = torch.zeros(len(slots), placement.numbers, dtype=torch.int64)
    single = torch.zeros(5, SINGLE, placement.numbers, dtype=torch.int64)
    found = [table(single), table.compose(nowhere, slots)]
    assert not any(vectors.any() for vectors in found)
    sum(vectors.sum() for vectors in found).backward()
    for parameter in table.parameters():
        if parameter.grad is not None:
            assert not parameter.grad.to_dense().any()


@EACH
def test_a_new_table_reads_zeros_in_its_dropped_row_and_has_small_floats_elsewhere(composition, linear, odd):
    placement = placed(composition, linear, odd, rows=2000)
    table = COMPOSITIONS[composition](placement.rows, placement.second_rows, 4, linear, 2, (), 0.05)
    assert not table.weight[0].any()
    floats = table.weight.detach()[1:, : table.weight.shape[1] - (linear and composition != "robe")]
    assert 0.045 < float(floats.abs().max()) <= 0.05
    assert abs(float(floats.mean())) < 0.002
    if linear:  # any float of ROBE's may be first-order for one value and embedding for another
        assert bool(table.weight[1:, -1].any()) == (composition == "robe")
    if table.second is not None:
        assert not table.second.weight[0].any()
        assert bool((table.second.weight[1:] == 1.0).all())


@EACH
def test_a_batch_of_no_rows_gives_no_vectors_and_has_gradients(composition, linear, odd):
    placement = placed(composition, linear, odd)
    table = table_of(placement)
    none = torch.zeros(0, SINGLE, placement.numbers, dtype=torch.int64)
    single = table(none)
    listed = table.compose(none[:, 0], torch.zeros(0, dtype=torch.int64))
    assert (single.shape, listed.shape) == ((0, SINGLE, 4 + linear), (0, 4 + linear))
    (single.sum() + listed.sum()).backward()
    assert not table.weight.grad.to_dense().any()


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("collision_free", [0, 5])
@EACH
def test_the_learned_floats_are_those_that_the_placement_counts(
    composition, linear, odd, shared, collision_free
):
    placement = placed(composition, linear, odd, rows=60, shared=shared, collision_free=collision_free)
    table = table_of(placement)
    own = [table.weight, *([] if table.second is None else [table.second.weight])]
    assert sum(weight[1:].numel() for weight in own) == placement.parameters
    assert sum(parameter.numel() for parameter in table.projections) == (
        4 * (2 + 6) if odd == "one" and composition in ("lookup", "robe") else 0
    )


@EACH
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("collision_free", [0, 5])
def test_every_place_that_a_placement_gives_can_be_read(composition, linear, odd, shared, collision_free):
    """With a table of one row for each field, places at its very end as well."""
    for rows in (24, 25, 60):  # of which the collision-free days take up to 10
        placement = placed(composition, linear, odd, rows=rows, shared=shared, collision_free=collision_free)
        table = table_of(placement)
        slots = np.tile(np.arange(len(FIELDS)), 500)
        vectors = table.compose(places_of(placement, slots, dropped=False), torch.from_numpy(slots))
        assert bool((vectors != 0).any(1).all())


def test_lookups_stand_side_by_side_and_first_order_weights_add_up():
    table = LookupTable(4, 0, dim=4, linear=1, lookups=2)
    table.weight.data = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 0.5], [3.0, 4.0, 0.25], [5.0, 6.0, 8.0]])
    assert table(torch.tensor([[[1, 2], [3, 3]]])).tolist() == [
        [[1.0, 2.0, 3.0, 4.0, 0.75], [5.0, 6.0, 5.0, 6.0, 16.0]]
    ]


def test_a_field_with_other_lookups_is_projected_from_all_its_rows():
    table = LookupTable(4, 0, dim=2, linear=1, lookups=2, odd=((1, 3),))
    table.weight.data = torch.tensor([[0.0, 0.0], [1.0, 0.5], [2.0, 0.25], [4.0, 8.0]])
    table.projections[0].data = torch.tensor([[1.0, 0.0], [10.0, 0.0], [100.0, 1.0]])
    usual, other = [1, 2, 0], [1, 2, 3]
    expected = [[1.0, 2.0, 0.75], [1 + 20 + 400, 4.0, 8.75]]
    assert table(torch.tensor([[usual, other]])).tolist() == [expected]
    listed = table.compose(torch.tensor([other, usual]), torch.tensor([1, 0]))
    assert listed.tolist() == [expected[1], expected[0]]


def test_a_block_of_robe_begins_anywhere_and_may_span_two_rows():
    table = RobeTable(4, 0, dim=4, linear=0, lookups=2)
    table.weight.data = torch.tensor([[0.0, 0.0], [1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert table(torch.tensor([[[2, 3]]])).tolist() == [[[1.0, 2.0, 2.0, 3.0]]]
    assert table(torch.tensor([[[6, 5]]])).tolist() == [[[5.0, 6.0, 4.0, 5.0]]]


def test_hashed_rows_are_added_up_with_the_weights_of_the_feature():
    table = MultiHashTable(4, 3, dim=2, linear=1, lookups=2)
    table.weight.data = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 4.0], [10.0, 20.0, 40.0], [0.0, 0.0, 0.0]])
    table.second.weight.data = torch.tensor([[0.0, 0.0], [1.0, 1.0], [3.0, -0.5]])
    assert table(torch.tensor([[[1, 2, 2], [2, 2, 1]]])).tolist() == [
        [[-2.0, -4.0, -8.0], [20.0, 40.0, 80.0]]
    ]


def test_quotient_and_remainder_are_multiplied():
    table = QuotientRemainderTable(3, 3, dim=2, linear=1, lookups=2)
    table.weight.data = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    table.second.weight.data = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 2.0], [-1.0, 0.5, 0.0]])
    assert table(torch.tensor([[[1, 1], [2, 2]]])).tolist() == [[[1.0, 2.0, 6.0], [-4.0, 2.5, 0.0]]]


@pytest.mark.parametrize("composition", ["lookup", "robe"])
def test_a_table_of_first_order_weights_alone_has_nothing_to_project(composition):
    table = COMPOSITIONS[composition](6, 0, 0, 1, 2, ((1, 3),))
    table.weight.data = torch.arange(6.0).unsqueeze(1)
    assert len(table.projections) == 0
    assert table(torch.tensor([[[1, 2, 0], [3, 4, 5]]])).tolist() == [[[3.0], [12.0]]]


def test_there_is_a_reference_for_every_composition():
    assert REFERENCES.keys() == COMPOSITIONS.keys()
