"""Hard-gated equals compacted, logit by logit, for every backbone and any feature set."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from ctr.dataset.batches import Batches
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.layout import Layout
from ctr.errors import CtrError
from ctr.network.backbones import BACKBONES
from ctr.network.gates import HardGate
from ctr.network.network import Architecture, build
from ctr.selection.compaction import compact_architecture, compact_layout, compact_network
from ctr.selection.referees import value_features
from ctr.training.feeding import to_inputs

EACH = pytest.mark.parametrize("backbone", BACKBONES)
CPU = torch.device("cpu")


def random_set(dataset, seed: int) -> FeatureSet:
    """A random share of features; some fields go whole."""
    draw = np.random.default_rng(seed)
    kept = draw.random(dataset.features) < draw.choice([0.1, 0.5, 0.9])
    for info in dataset.fields:
        fate = draw.random()
        if fate < 0.3:
            kept[info.offset : info.offset + info.features] = False
        elif fate < 0.5:
            kept[info.offset : info.offset + info.features] = True
    kept[draw.integers(2, dataset.features)] = True
    kept[dataset.fields[seed % len(dataset.fields)].offset + 2] = True
    return FeatureSet.of(dataset, kept, kept.astype(float), {})


def logits_of(network, dataset, layout, part="train"):
    with torch.no_grad():
        batches = Batches(dataset.part(part), layout, 64)
        return torch.cat([network(to_inputs(batch, CPU)) for batch in batches.epoch()])


def gated(network, feature_set):
    network.gate = HardGate(torch.from_numpy(np.concatenate([[False], feature_set.kept])))
    return network


NORMS = list(product(["none", "batch", "layer"], [None, False, True]))
SOME_NORMS = [("none", None), ("none", False), ("batch", True), ("layer", None)]


@EACH
@pytest.mark.parametrize(
    ("norm", "first_order"),
    [pytest.param(*case, marks=[] if case in SOME_NORMS else pytest.mark.slow) for case in NORMS],
)
def test_hard_gated_equals_compacted_logit_by_logit(backbone, norm, first_order, mixed, make_network):
    if backbone in ("lr", "poly2") and first_order is False:
        first_order = None  # the configuration refuses a model without anything
    for seed in range(6):
        network = make_network(mixed, backbone, seed, norm=norm, first_order=first_order).eval()
        for name, statistic in network.named_buffers():
            if name.endswith("running_mean"):
                torch.nn.init.normal_(statistic)
        feature_set = random_set(mixed, seed)
        layout = compact_layout(mixed, feature_set)
        compact = compact_network(network, mixed, feature_set)
        expected = logits_of(gated(network, feature_set), mixed, Layout(mixed))
        found = logits_of(compact, mixed, layout)
        assert float(expected.std()) > 0 or len(layout.fields) == 1
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@EACH
def test_rows_of_dropped_features_are_read_by_no_logit(backbone, mixed, make_network):
    network, feature_set = make_network(mixed, backbone).eval(), random_set(mixed, 3)
    gated(network, feature_set)
    before = logits_of(network, mixed, Layout(mixed))
    dropped = torch.from_numpy(np.flatnonzero(~feature_set.kept) + 1)
    assert len(dropped) > 5
    network.table.weight.data[dropped] = 1e3 * torch.randn(len(dropped), network.table.weight.shape[1])
    assert torch.equal(logits_of(network, mixed, Layout(mixed)), before)
    network.gate = None
    assert not torch.allclose(logits_of(network, mixed, Layout(mixed)), before)


@EACH
def test_the_compact_table_holds_the_kept_features_and_one_zero_row(backbone, mixed, make_network):
    network = make_network(mixed, backbone)
    for seed in range(4):
        feature_set = random_set(mixed, seed)
        layout, compact = compact_layout(mixed, feature_set), compact_network(network, mixed, feature_set)
        kept = int(feature_set.kept.sum())
        assert layout.rows == kept + 1
        assert compact.table.weight.shape == (kept + 1, network.table.weight.shape[1])
        assert not compact.table.weight[0].any()
        rows = layout.numbers
        assert (rows[~feature_set.kept] == 0).all()
        assert sorted(rows[feature_set.kept]) == list(range(1, kept + 1))
        full = network.table.weight[torch.from_numpy(np.flatnonzero(feature_set.kept) + 1)]
        assert torch.equal(compact.table.weight[torch.from_numpy(rows[feature_set.kept])], full)


@EACH
def test_fields_without_a_kept_feature_leave_layout_and_backbone(backbone, mixed, make_network):
    kept = np.ones(mixed.features, bool)
    gone = {"user", "price", "tags"}
    for info in mixed.fields:
        if info.name in gone:
            kept[info.offset : info.offset + info.features] = False
    feature_set = FeatureSet.of(mixed, kept, kept.astype(float), {})
    layout = compact_layout(mixed, feature_set)
    assert layout.fields == ["item", "day", "picture", "before", "words", "seen"]
    assert not layout.scaled
    assert layout.pooling == ("sum", "max")
    assert layout.vectors == ((2, 3),)
    compact = compact_network(make_network(mixed, backbone), mixed, feature_set)
    assert compact.backbone.fields == 6


@EACH
def test_the_compact_architecture_builds_what_compaction_gives(backbone, mixed):
    for seed in range(4):
        feature_set = random_set(mixed, seed)
        whole = Layout(mixed)
        full = Architecture(mixed.features + 1, len(mixed.fields), 4, backbone, (8,), norm="batch")
        full = replace(full, pooling=whole.pooling, vectors=whole.vectors)
        layout = compact_layout(mixed, feature_set)
        compact = compact_network(build(full), mixed, feature_set)
        rebuilt = build(compact_architecture(full, layout))
        rebuilt.load_state_dict(compact.state_dict())
        shapes = {name: value.shape for name, value in compact.state_dict().items()}
        assert shapes == {name: value.shape for name, value in rebuilt.state_dict().items()}
        assert torch.equal(logits_of(rebuilt.eval(), mixed, layout), logits_of(compact.eval(), mixed, layout))


def test_compaction_copies_weights_and_leaves_the_network_as_it_was(mixed, make_network):
    network = make_network(mixed)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    compact = compact_network(network, mixed, random_set(mixed, 1))
    for parameter in compact.parameters():
        parameter.data.fill_(9.0)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert compact.gate is None


def test_keeping_everything_changes_nothing_but_the_unknown_of_numbers(mixed, make_network):
    kept = np.ones(mixed.features, bool)
    feature_set = FeatureSet.of(mixed, kept, kept.astype(float), {})
    dropped = np.flatnonzero(~feature_set.kept)
    numbers = [info.offset for info in mixed.fields if info.name in ("price", "picture")]
    assert dropped.tolist() == numbers  # a number is never unknown: its row is never read
    network = make_network(mixed).eval()
    found = logits_of(
        compact_network(network, mixed, feature_set), mixed, compact_layout(mixed, feature_set), "valid"
    )
    torch.testing.assert_close(found, logits_of(network, mixed, Layout(mixed), "valid"))


def test_a_feature_set_without_features_cannot_be_made(mixed):
    with pytest.raises(CtrError, match="dropped every feature"):
        FeatureSet.of(mixed, ~value_features(mixed) & False, np.zeros(mixed.features), {})


@EACH
def test_dropped_values_that_read_unknown_have_its_row(backbone, mixed, make_network):
    for seed in range(4):
        network = make_network(mixed, backbone, seed).eval()
        feature_set = random_set(mixed, seed).reading(mixed, "unknown")
        layout = compact_layout(mixed, feature_set)
        # By hand: the same ids, with each dropped value of a field that keeps any replaced by the field's unknown.
        rows = np.arange(1, mixed.features + 1)
        for info in mixed.fields:
            own = slice(info.offset, info.offset + info.features)
            kept = feature_set.kept[own]
            assert kept[0] == (kept[2:].any() and not info.scaled and not info.size)
            dropped = ~kept
            rows[own] = np.where(dropped, info.offset + 1 if kept[0] else 0, rows[own])
            if not kept[1]:
                rows[info.offset + 1] = 0
        expected = logits_of(network, mixed, Layout(mixed, rows))
        found = logits_of(compact_network(network, mixed, feature_set), mixed, layout)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_reading_unknown_and_back_again_keeps_the_same_values(mixed):
    feature_set = random_set(mixed, 2)
    other = feature_set.reading(mixed, "unknown")
    values = value_features(mixed)
    assert np.array_equal(other.kept[values], feature_set.kept[values])
    assert other.dropped_reads == "unknown"
    assert np.array_equal(other.reading(mixed, "zero").kept[values], feature_set.kept[values])
    assert other.digest() != feature_set.digest()
