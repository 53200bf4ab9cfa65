"""Interactions: what pairs are laid out from, how they are judged, and how limits act on the choice."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch

from ctr.config import SelectorConfig
from ctr.dataset.batches import Batches
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.layout import Layout
from ctr.errors import ConfigError
from ctr.network.backbones import BACKBONES
from ctr.network.network import Architecture, build
from ctr.selection import pair_space
from ctr.selection.compaction import compact_layout
from ctr.selection.optinter import choose, drawn, one_for_all, searched_dim, stated_pairs
from ctr.selection.pair_choice import ChoiceTraining, choice_of
from ctr.selection.pair_evidence import DrawnPaths, pair_evidence
from ctr.selection.pair_space import PairSpace, cross_index
from ctr.training.feeding import to_inputs
from ctr.training.optimizers import Optimizers, searched_parameters
from tests.reference import pair_evidence as reference

PAIRS = [("user", "item"), ("user", "day"), ("item", "day"), ("item", "before")]


@pytest.fixture
def space(mixed):
    return PairSpace(mixed, Layout(mixed), PAIRS, min_count=2, dim=3)


@pytest.fixture
def searched(mixed, space):
    """A network that models all pairs in both ways, with loud weights."""
    layout = Layout(mixed)
    pairs = replace(space.layout(space.pairs, space.pairs), searched=True)
    torch.manual_seed(0)
    network = build(
        Architecture(
            layout.rows,
            len(layout.fields),
            4,
            "fnn",
            (8,),
            pooling=layout.pooling,
            vectors=layout.vectors,
            pairs=pairs,
        ),
        index=cross_index(space.keys(space.pairs)),
    )
    for table in (network.table, network.crosses.memory, network.crosses.factors):
        torch.nn.init.normal_(table.weight.data[1:], std=0.5)
    return network


def settings(**keys) -> SelectorConfig:
    return SelectorConfig(kind="optinter", **keys)


def test_crosses_are_counted_in_train_alone(mixed, space):
    part, layout = mixed.part("train"), Layout(mixed)
    slots = [layout.single[layout.fields.index(name)] for name in ("user", "item")]
    rows = pl.DataFrame(np.asarray(part.ids[:, slots]), schema=["a", "b"])
    frequent = rows.group_by("a", "b").len().filter(pl.col("len") >= 2)
    assert len(space.admitted["user", "item"]) == frequent.height
    assert space.rows(("user", "item")) == frequent.height + 1


def test_a_cross_of_a_train_row_reads_its_row_and_a_rare_one_its_pairs_unknown(mixed, space, searched):
    part, layout = mixed.part("train"), Layout(mixed)
    inputs = to_inputs(layout.gather(part, np.arange(len(part))), searched.device)
    rows = searched.crosses.cross_rows(inputs.ids).numpy()
    for number, (a, b) in enumerate(PAIRS):
        values = list(zip(*(inputs.ids[:, space.slots[name]].tolist() for name in (a, b)), strict=True))
        for value, row in zip(values, rows[:, number], strict=True):
            assert (row == number + 1) == (values.count(value) < 2)
    admitted = rows[rows > len(PAIRS)]
    assert len(np.unique(admitted)) == sum(len(keys) for keys in space.admitted.values())


@pytest.mark.parametrize("budget", [None, 20 * 3 * 4, 10**6])
@pytest.mark.parametrize("sketch", [None, 4000])
def test_bytes_are_those_of_the_table_that_is_laid_out(mixed, budget, sketch):
    if budget is None and sketch is not None:
        pytest.skip("a sketch goes with a budget")
    space = PairSpace(
        mixed, Layout(mixed), PAIRS, min_count=2, dim=3, cross_bytes=budget, sketch_bytes=sketch
    )
    for memorized in (PAIRS, PAIRS[:1], []):
        rows = space.layout(memorized, []).cross_rows - 1
        assert space.bytes(memorized) == rows * 3 * 4 <= (budget or 10**9)
        if budget is None and memorized:
            assert rows == sum(space.rows(pair) for pair in memorized)


def test_keys_that_outgrow_the_budget_give_way_to_a_sketch(mixed, monkeypatch):
    given = {"min_count": 2, "dim": 3, "cross_bytes": 600}
    exact = PairSpace(mixed, Layout(mixed), PAIRS, **given)
    assert exact.keys(PAIRS).sketch is None
    monkeypatch.setattr(pair_space, "_ROOM", 600)
    space = PairSpace(mixed, Layout(mixed), PAIRS, **given)
    assert space.admitted is None
    keys = space.keys(PAIRS)
    assert keys.sketch.nbytes * 8 <= 600
    assert keys.index_bytes < exact.keys(PAIRS).index_bytes
    assert space.layout(PAIRS, []).hashed
    # Counts beyond a byte are no sketch's.
    assert PairSpace(mixed, Layout(mixed), PAIRS, **given | {"min_count": 256}).admitted is not None


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"choice": "random", "random_counts": [3, 4]}, r"random_counts: \[3, 4\] of 6 pairs"),
        ({"choice": "memorize", "cross_rows": 6}, "at least 7 for 6 memorized pairs; state 224 or more"),
        ({"cross_bytes": 200}, "at least 7 for 6 memorized pairs"),
        ({"cross_bytes": 200, "screened_pairs": 5}, None),
        ({"choice": "best", "cross_rows": 3, "screened_pairs": 3}, "at least 4 for 3"),
        ({"choice": "random", "random_counts": [2, 4], "cross_rows": 2}, "at least 3 for 2"),
        ({"choice": "factorize", "cross_rows": 1}, None),
        ({"kind": "optfs+optinter", "cross_rows": 1}, None),
        ({"pairs": [["a", "e"]]}, 'no field "e"'),
    ],
)
def test_what_a_configuration_says_of_pairs_is_checked_against_the_schema_alone(own, message):
    specs = [FieldSpec(name=name) for name in "abcd"]
    stated = SelectorConfig(**{"kind": "optinter", **own})
    if message is None:
        assert len(stated_pairs(specs, stated)) == 6
        return
    with pytest.raises(ConfigError, match=message):
        stated_pairs(specs, stated)


def test_a_price_pulls_logits_away_from_memorizing_dear_pairs(searched):
    prices = torch.tensor([0.0, 0.1, 0.2, 0.4])
    training = ChoiceTraining(searched, learning_rate=1e-3, final_temperature=0.5, prices=prices)
    training.before_step(None, None, None, 1.0)
    logits = choice_of(searched).logits
    logits.grad = torch.zeros_like(logits)
    training.after_backward()
    weights = torch.full((4, 3), 1 / 3)
    # d softmax_0 / d logit_k = w_0 (1[k = 0] - w_k) / temperature
    expected = prices[:, None] * weights[:, :1] * (torch.eye(3)[0] - weights) / 0.5
    torch.testing.assert_close(logits.grad, expected)


def test_two_fields_that_share_their_values_have_rows_of_e_a_in_common(mixed, space):
    layout = space.layout([], [("item", "before")])
    (first, shift), (second, other) = layout.shifts
    assert first != second
    assert shift == other
    item = next(info for info in mixed.fields if info.name == "item")
    assert layout.factor_rows == item.features + 1


def test_tables_hold_only_what_the_chosen_methods_need(space):
    layout = space.layout([("user", "day")], [("item", "day")])
    assert layout.cross_rows == 1 + space.rows(("user", "day"))
    fields = [slot for slot, _ in layout.shifts]
    assert fields == sorted(space.slots[name] for name in ("item", "day"))
    assert space.layout([], []).numbers == 0


def test_pairs_of_dropped_fields_are_gone_and_no_pair_left_is_an_error(mixed):
    kept = np.ones(mixed.features, np.bool_)
    day = next(info for info in mixed.fields if info.name == "day")
    kept[day.offset : day.offset + day.features] = False
    layout = compact_layout(mixed, FeatureSet.of(mixed, kept, kept.astype(float), {}))
    left = PairSpace(mixed, layout, PAIRS, min_count=1, dim=2)
    assert left.pairs == [("user", "item"), ("item", "before")]
    with pytest.raises(ConfigError, match="no pair is left"):
        PairSpace(mixed, layout, [("user", "day")], min_count=1, dim=2)


def test_crosses_with_a_dropped_feature_read_zeros_and_are_not_counted(mixed):
    kept = np.ones(mixed.features, np.bool_)
    user = next(info for info in mixed.fields if info.name == "user")
    kept[user.offset + 3] = False
    layout = compact_layout(mixed, FeatureSet.of(mixed, kept, kept.astype(float), {}))
    space = PairSpace(mixed, layout, [("user", "day")], min_count=1, dim=2)
    part = mixed.part("train")
    inputs = to_inputs(layout.gather(part, np.arange(len(part))), torch.device("cpu"))
    pairs = space.layout(space.pairs, [])
    network = build(
        Architecture(layout.rows, len(layout.fields), 4, "fnn", (8,), pairs=pairs),
        index=cross_index(space.keys(space.pairs)),
    )
    dropped = inputs.ids[:, space.slots["user"]] == 0
    rows = network.crosses.cross_rows(inputs.ids)[:, 0]
    assert dropped.any()
    assert torch.equal(rows == 0, dropped)
    assert len(torch.unique(rows)) == len(space.admitted["user", "day"]) + 1


@pytest.mark.parametrize("naive", [False, True])
def test_evidence_is_that_of_nested_loops(mixed, searched, naive):
    DrawnPaths(searched, 0, naive=naive)
    layout, valid = Layout(mixed), mixed.part("valid")
    batches = Batches(valid, layout, len(valid))
    found = pair_evidence(searched, batches)
    inputs = to_inputs(next(batches.epoch()), searched.device)
    searched.eval()
    logits = searched(inputs).detach()
    with torch.no_grad():
        parts = [part - part.mean(0) for part in searched.crosses.parts(inputs)]
    for pair in range(len(PAIRS)):
        contributions = []
        for row in range(len(valid)):
            one = torch.zeros(1, len(PAIRS) * 3, requires_grad=True)
            embedded = searched.embed(inputs)[row : row + 1].detach()
            vectors = searched.crosses(inputs)[row : row + 1].detach()
            searched.backbone(embedded, vectors + one).backward()
            gradient = one.grad.view(len(PAIRS), 3)[pair]
            contributions.append([float(gradient @ part[row, pair]) for part in parts])
        expected = reference.evidence(
            contributions, 1 / 3 if naive else 1 / 2, logits.tolist(), valid.labels.tolist()
        )
        np.testing.assert_allclose(found[pair].numpy(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("naive", [False, True])
def test_in_each_step_every_pair_has_one_method_drawn_and_a_step_repeats_its_draws(searched, naive):
    paths, choice = DrawnPaths(searched, seed=3, naive=naive), choice_of(searched)
    drawn_once = []
    for _ in range(100):
        paths.before_step(None, None, None, 0.0)
        memorized, factorized = choice.drawn
        methods_drawn = torch.full((len(PAIRS),), 2)
        methods_drawn[memorized], methods_drawn[factorized] = 0, 1
        drawn_once.append(methods_drawn)
        paths.after_backward()
        assert choice.drawn is None
    share = torch.bincount(torch.stack(drawn_once).flatten(), minlength=3) / (100 * len(PAIRS))
    expected = torch.tensor([1 / 3, 1 / 3, 1 / 3] if naive else [0.5, 0.5, 0.0])
    assert (share - expected).abs().max() < 0.1
    torch.testing.assert_close(choice(), expected.expand(len(PAIRS), 3))  # what a look sees
    again = DrawnPaths(searched, seed=3, naive=naive)
    again.load_state_dict({"step": 20})
    again.before_step(None, None, None, 0.0)
    for way, pairs in enumerate(choice.drawn):
        assert torch.equal(pairs, (drawn_once[20] == way).nonzero().squeeze(1))


def test_a_step_reads_the_method_drawn_and_nothing_of_naive_pairs(searched, mixed):
    """The same logits, and gradients, as with weights of one and zero over all pairs."""
    inputs = to_inputs(Layout(mixed).gather(mixed.part("valid"), np.arange(40)), searched.device)
    choice = choice_of(searched)
    methods = torch.arange(len(PAIRS)) % 3
    choice.drawn = tuple((methods == way).nonzero().squeeze(1) for way in (0, 1))
    logits = searched(inputs)
    logits.sum().backward()
    gradients = {name: value.grad for name, value in searched.named_parameters() if value.grad is not None}
    searched.zero_grad()
    choice.drawn = None
    choice.logits.data.copy_(1e9 * torch.eye(3)[methods])
    weighed = searched(inputs)
    weighed.sum().backward()
    torch.testing.assert_close(logits, weighed)
    for name, value in searched.named_parameters():
        if not name.startswith("crosses.choice"):
            mine, other = (g.to_dense() for g in (gradients[name], value.grad))
            torch.testing.assert_close(mine, other)


def test_crosses_and_factors_are_read_as_a_decay_of_all_rows_in_every_step_leaves_them(searched, mixed):
    start = {name: value.clone() for name, value in searched.state_dict().items()}

    def trained(dense: bool) -> dict[str, torch.Tensor]:
        searched.load_state_dict(start)
        optimizers = Optimizers(searched, 0.1, 0.5, 0.0)
        for number in range(12):
            rows = Layout(mixed).gather(mixed.part("train"), np.arange(number % 4 + 1))
            searched.zero_grad()
            searched(to_inputs(rows, searched.device)).square().sum().backward()
            optimizers.step()
            if dense:
                optimizers.settle()
        found = {name: value.clone() for name, value in searched.state_dict().items()}
        optimizers.detach()
        return found

    torch.testing.assert_close(trained(dense=False), trained(dense=True))


def test_the_temperature_falls_by_steps_and_an_evaluation_leaves_it_alone(searched, mixed):
    training = ChoiceTraining(searched, learning_rate=1e-3, final_temperature=0.01)
    choice = choice_of(searched)
    found = []
    for progress in (0.0, 0.5, 1.0):
        training.before_step(None, None, None, progress)
        layout = Layout(mixed)
        searched(to_inputs(layout.gather(mixed.part("valid"), np.arange(9)), searched.device))
        found.append(float(choice.temperature))
    np.testing.assert_allclose(found, [1.0, 0.1, 0.01], rtol=1e-6)


@pytest.mark.parametrize(
    ("pairs", "dim", "least", "width"),
    [
        (741, 8, 2, 2),
        (190, 8, 2, 8),
        (16, 8, 2, 8),
        (400, 8, 2, 4),
        (400, 9, 3, 3),
        (5000, 8, 2, 2),
        (741, 1, 2, 1),
    ],
)
def test_vectors_are_narrower_where_pairs_crowd(pairs, dim, least, width):
    assert searched_dim(pairs, dim, least) == width


GAINS = np.array([[9.0, 1.0, 0.0], [8.0, 7.0, 0.0], [5.0, -1.0, 0.0], [-3.0, -2.0, 0.0]])


def methods(space, gains=GAINS, **keys) -> list[str]:
    return choose(gains, space, settings(**keys))["method"].to_list()


def test_each_pair_has_the_method_that_gains_most(space):
    assert methods(space) == ["memorize", "memorize", "memorize", "naive"]


def test_of_equal_methods_the_cheapest_is_taken(space):
    assert methods(space, np.zeros((4, 3))) == ["naive"] * 4
    assert methods(space, np.array([[1.0, 1.0, 0.0]] * 4)) == ["factorize"] * 4
    assert methods(space, np.array([[2.0, 1.0, 1.0]] * 4), max_memorized=0) == ["naive"] * 4


def test_limits_keep_what_gains_most_for_a_byte_and_the_rest_is_second_best(space):
    assert methods(space, max_memorized=0) == ["factorize", "factorize", "naive", "naive"]
    rows = [space.rows(pair) for pair in PAIRS]
    leads = np.array([8.0, 1.0, 5.0])
    best = int(np.argmax(leads / rows[:3]))
    expected = ["factorize", "factorize", "naive", "naive"]
    expected[best] = "memorize"
    assert methods(space, max_memorized=1) == expected
    assert methods(space, max_cross_bytes=rows[best] * 3 * 4) == expected


def test_weights_add_up_to_one_and_strength_is_the_lead_over_naive(space):
    frame = choose(GAINS, space, settings())
    np.testing.assert_allclose(frame.select("memorize", "factorize", "naive").sum_horizontal(), 1.0)
    assert frame["strength"].to_list() == [9.0, 8.0, 5.0, -2.0]


def test_pure_and_random_choices(space):
    for method in ("memorize", "factorize", "naive"):
        assert methods(space, one_for_all(space, method), choice=method) == [method] * 4
    random = methods(space, drawn(space, [2, 1], seed=0), choice="random", random_counts=[2, 1])
    assert sorted(random) == ["factorize", "memorize", "memorize", "naive"]
    assert methods(space, drawn(space, [2, 1], seed=0)) != methods(space, drawn(space, [2, 1], seed=5))
    with pytest.raises(ConfigError, match=r"random_counts: \[3, 2\] of the 4 pairs that are left"):
        drawn(space, [3, 2], seed=0)


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("kind", BACKBONES)
@pytest.mark.parametrize("modelled", [False, True])
def test_every_parameter_is_in_exactly_one_optimizer_group(space, mixed, kind, norm, modelled):
    modelled = modelled and BACKBONES[kind].reads_pairs
    layout = Layout(mixed)
    pairs = replace(space.layout(space.pairs, space.pairs), searched=True) if modelled else None
    architecture = Architecture(
        layout.rows,
        len(layout.fields),
        4,
        kind,
        (8,),
        norm=norm,
        pooling=layout.pooling,
        vectors=layout.vectors,
        pairs=pairs,
    )
    network = build(architecture, index=cross_index(space.keys(space.pairs)))
    optimizers = Optimizers(network, 1e-3, 0.0, 0.0)
    moved = [
        parameter
        for optimizer in optimizers._each.values()
        for group in optimizer.param_groups
        for parameter in group["params"]
    ]
    every = [*moved, *searched_parameters(network)]
    assert len(every) == len({id(parameter) for parameter in every})
    assert {id(parameter) for parameter in every} == {id(parameter) for parameter in network.parameters()}
