import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.dataset.crosses import cuckoo_places
from ctr.errors import ConfigError
from ctr.network.backbones import BACKBONES
from ctr.network.crosses import Crosses, CrossIndex, PairChoice, PairLayout
from ctr.network.embeddings import Inputs, Table
from ctr.network.network import Architecture, build
from tests.reference import crosses as reference

# Three fields with features 1..4, 5..9 and 10..12.
SIZES, DIM = ((1, 4), (5, 9), (10, 12)), 3
PAIRS = ((0, 1), (0, 2), (1, 2))
WITH_PAIRS = [name for name, kind in BACKBONES.items() if kind.reads_pairs]


def draw_rows(rows: int, seed: int = 0) -> Inputs:
    draw = np.random.default_rng(seed)
    ids = np.stack([draw.integers(low, high + 1, rows) for low, high in SIZES], 1)
    ids[draw.random(ids.shape) < 0.1] = 0
    none = torch.zeros(0, dtype=torch.int64)
    return Inputs(torch.from_numpy(ids), None, none, none, torch.zeros(rows, 0))


def index_of(inputs: Inputs, pairs=PAIRS, share: float = 0.7) -> CrossIndex:
    """Words and salts drawn at random; a share of the crosses that rows hold is admitted."""
    draw = np.random.default_rng(7)
    words = draw.integers(0, reference.PRIME, (13, 4))
    words[0] = 0
    salts = draw.integers(0, reference.PRIME, (len(pairs), 2))
    keys = {
        reference.key(words[row[i], :2].tolist(), words[row[j], 2:].tolist(), salt)
        for row in inputs.ids.tolist()
        for (i, j), salt in zip(pairs, salts.tolist(), strict=True)
        if row[i] and row[j]
    }
    kept = np.array(sorted(key for key in keys if draw.random() < share), np.int64)
    arrays = (words.astype(np.int32), salts, kept, cuckoo_places(kept), np.zeros((2, 0), np.uint8))
    return CrossIndex(*(torch.from_numpy(array) for array in arrays))


def loud(module):
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter)
    for table in (module.memory, module.factors):
        if table is not None:
            table.weight.data[0] = 0.0
    return module


def test_a_method_that_is_as_good_as_out_is_out():
    choice = PairChoice(2)
    choice.logits.data = torch.tensor([[1.0, 0.0, 0.0], [0.1, 0.0, 0.05]])
    choice.temperature.fill_(0.01)  # the first pair's others would be denormal numbers: exp(-100)
    first, second = choice().tolist()
    assert first == [1.0, 0.0, 0.0]
    assert all(weight > 0.0 for weight in second)
    assert sum(second) == pytest.approx(1.0)


@pytest.mark.parametrize("budget", [None, 5])
def test_a_searched_network_weighs_both_ways_like_nested_loops(budget):
    inputs = draw_rows(40)
    index = index_of(inputs)
    rows = 1 + len(PAIRS) + (budget or len(index.admitted))
    layout = PairLayout(
        DIM, PAIRS, PAIRS, rows, budget is not None, 13, ((0, 0), (1, 0), (2, 0)), searched=True
    )
    torch.manual_seed(0)
    crosses = loud(Crosses(layout, Table(13, DIM), index))
    crosses.choice.temperature.fill_(0.5)
    weights = torch.softmax(crosses.choice.logits / 0.5, 1)
    found = crosses(inputs)
    assert found.shape == (40, layout.numbers)
    for row, vectors in zip(inputs.ids.tolist(), found.view(40, 3, DIM), strict=True):
        expected = reference.pair_vectors(
            row,
            PAIRS,
            words=index.words.tolist(),
            salts=index.salts.tolist(),
            known=index.admitted.tolist(),
            memory=crosses.memory.weight.tolist(),
            factors=crosses.factors.weight.tolist(),
            weights=weights.tolist(),
            shifts={0: 0, 1: 0, 2: 0},
            budget=budget,
        )
        torch.testing.assert_close(vectors, torch.tensor(expected))


def test_what_was_chosen_is_read_from_tables_that_hold_only_what_is_needed():
    inputs = draw_rows(40)
    memorized, factorized = ((0, 1),), ((1, 2),)
    index = index_of(inputs, memorized)
    shifts = ((1, 4), (2, 4))  # the first field has no rows in E_a
    layout = PairLayout(DIM, memorized, factorized, 2 + len(index.admitted), False, 9, shifts)
    torch.manual_seed(0)
    crosses = loud(Crosses(layout, Table(9, DIM), index))
    assert crosses.choice is None
    found = crosses(inputs).view(40, 2, DIM)
    common = {
        "words": index.words.tolist(),
        "salts": index.salts.tolist(),
        "known": index.admitted.tolist(),
        "memory": crosses.memory.weight.tolist(),
        "factors": crosses.factors.weight.tolist(),
    }
    for row, (memory, product) in zip(inputs.ids.tolist(), found, strict=True):
        own = reference.pair_vectors(
            row, memorized, weights=[[1, 0, 0]], shifts={0: 4, 1: 4}, **{**common, "factors": [[0.0] * 3] * 9}
        )
        torch.testing.assert_close(memory, torch.tensor(own[0]))
        a, b = row[1], row[2]
        factors = crosses.factors.weight
        expected = factors[a - 4] * factors[b - 4] if a and b else torch.zeros(DIM)
        torch.testing.assert_close(product, expected)


def test_with_room_for_every_cross_a_budget_changes_nothing_but_the_order_of_rows():
    inputs = draw_rows(200)
    index = index_of(inputs, share=1.0)
    count = len(index.admitted)
    shared = PairLayout(DIM, PAIRS, (), 4 + 50_000, hashed=True)
    crosses = Crosses(shared, None, index)
    exact = Crosses(PairLayout(DIM, PAIRS, (), 4 + count), None, index)
    hashed_rows, exact_rows = crosses.cross_rows(inputs.ids), exact.cross_rows(inputs.ids)
    both = {
        (a, b) for a, b in zip(hashed_rows.flatten().tolist(), exact_rows.flatten().tolist(), strict=True)
    }
    assert len(both) == len({a for a, _ in both}) == len({b for _, b in both})  # one to one


def test_memory_starts_at_zero_and_gradients_are_sparse():
    inputs = draw_rows(30)
    index = index_of(inputs)
    layout = PairLayout(DIM, PAIRS, PAIRS, 4 + len(index.admitted), False, 13, ((0, 0), (1, 0), (2, 0)), True)
    crosses = Crosses(layout, Table(13, DIM, scale=0.1), index)
    assert not crosses.memory.weight.any()
    crosses(inputs).square().sum().backward()
    assert crosses.memory.weight.grad.is_sparse
    assert crosses.factors.weight.grad.is_sparse
    assert crosses.choice.logits.grad.shape == (3, 3)


@pytest.mark.parametrize("kind", WITH_PAIRS)
def test_backbones_that_say_so_read_the_vectors_of_pairs(kind):
    inputs = draw_rows(50)
    index = index_of(inputs)
    layout = PairLayout(DIM, PAIRS, (), 4 + len(index.admitted))
    torch.manual_seed(0)
    network = build(
        Architecture(rows=13, fields=3, dim=4, backbone=kind, hidden=(8,), pairs=layout), index=index
    )
    torch.nn.init.normal_(network.crosses.memory.weight)
    before = network(inputs)
    network.crosses.memory.weight.data[0] = 0.0
    network.crosses.memory.weight.data[1:] += 1.0
    assert (network(inputs) - before).abs().max() > 1e-3


@pytest.mark.parametrize("kind", sorted(set(BACKBONES) - set(WITH_PAIRS)))
def test_a_backbone_that_reads_no_pairs_is_refused(kind):
    with pytest.raises(ConfigError, match="reads no vectors of pairs"):
        build(Architecture(rows=13, fields=3, backbone=kind, pairs=PairLayout(DIM, PAIRS)))


@pytest.mark.parametrize("kind", WITH_PAIRS)
def test_without_pairs_a_backbone_can_be_told_so(kind):
    torch.manual_seed(0)
    plain = build(Architecture(rows=13, fields=3, dim=4, backbone=kind))
    torch.manual_seed(0)
    naive = build(Architecture(rows=13, fields=3, dim=4, backbone=kind, pairs=PairLayout(DIM)))
    inputs = draw_rows(20)
    assert torch.equal(plain(inputs), naive(inputs))
    assert plain.state_dict().keys() == naive.state_dict().keys()


@pytest.mark.parametrize("kind", WITH_PAIRS)
def test_a_backbone_keeps_its_pairs_when_fields_leave(kind):
    torch.manual_seed(0)
    backbone = BACKBONES[kind](3, 4, (8,), 0.0, "none", pair_numbers=6).double().eval()
    embeddings, pairs = torch.randn(5, 3, 4).double(), torch.randn(5, 6).double()
    embeddings[:, 1] = 0.0
    found = backbone.keep_fields([0, 2])(embeddings[:, [0, 2]], pairs)
    torch.testing.assert_close(found, backbone(embeddings, pairs))


@settings(max_examples=30, deadline=None)
@given(
    left=st.integers(1, 60),
    right=st.integers(1, 400),
    pairs=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_admitted_crosses_are_found_by_two_looks_and_no_other_ones(left, right, pairs, seed):
    """Also where whole fields cross, whose keys are sums."""
    draw = np.random.default_rng(seed)
    words = [draw.integers(0, reference.PRIME, (pairs, size, 2)) for size in (left, right)]
    sums = (words[0][:, :, None] + words[1][:, None]) % reference.PRIME  # (pairs, left, right, 2)
    keys = np.unique((sums[..., 0] * (reference.PRIME + 1) + sums[..., 1]).ravel())
    known = keys[draw.random(len(keys)) < 0.5]
    places = cuckoo_places(known)
    assert len(places) <= 8 * len(known) + 1024
    for key in keys:
        looks = [places[word & (len(places) - 1)] for word in (key >> 31, key & reference.PRIME)]
        found = [place for place in looks if len(known) and known[place] == key]
        assert bool(found) == (key in known)
        assert all(place == np.searchsorted(known, key) for place in found)


def test_keys_that_do_not_spread_are_refused():
    with pytest.raises(ValueError, match="do not spread"):
        cuckoo_places(np.arange(1, 200, dtype=np.int64) << 40)
