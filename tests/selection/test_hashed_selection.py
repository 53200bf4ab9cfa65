"""Selection where rows are shared: gates belong to values, compaction shrinks tables, and the planted is found."""

import copy
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from torch.nn import functional as F

from ctr.config import SelectorConfig, Training
from ctr.dataset.batches import Batches
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.hashing import value_keys
from ctr.dataset.layout import Layout
from ctr.dataset.placement import place
from ctr.network.backbones import BACKBONES
from ctr.network.gates import SoftGate
from ctr.network.hashed_tables import COMPOSITIONS
from ctr.network.network import Architecture, build, build_table
from ctr.selection import optfs
from ctr.selection.compaction import (
    compact_architecture,
    compact_layout,
    compact_network,
    compact_placement,
    feature_counts,
)
from ctr.selection.evidence import EvidenceGates, Schedule, evidence_of
from ctr.selection.referees import REFEREES
from ctr.training.feeding import to_inputs
from tests.reference.evidence import DenseGates
from tests.selection.test_compaction import gated, logits_of, random_set

CPU = torch.device("cpu")
EACH_BACKBONE = pytest.mark.parametrize("backbone", BACKBONES)
EACH_COMPOSITION = pytest.mark.parametrize("composition", COMPOSITIONS)
EACH_ENCODING = pytest.mark.parametrize("encoding", ["vocabulary", "hashed"])


@pytest.fixture
def mixed_in(mixed, keyed_mixed):
    """The log with every kind of field, by encoding."""
    return {"vocabulary": mixed, "hashed": keyed_mixed}


@pytest.fixture
def planted_in(planted, keyed_planted):
    """The log with one useful field, by encoding."""
    return {"vocabulary": planted, "hashed": keyed_planted}


class Made:
    """A network over all features of a dataset, the layout that it reads, and where its features are."""

    def __init__(
        self, dataset, composition="lookup", backbone="deepfm", *, shared=True, seed=0, loud=True, **keys
    ):
        placing = {name: keys.pop(name) for name in ("rows", "bytes", "collision_free") if name in keys}
        stated = {"rows": 0, "fields": 0, "dim": 4, "backbone": backbone, "hidden": (8,), **keys}
        usual = Architecture(**stated)
        odd = {} if composition == "quotient_remainder" else {"day": 1, "words": 3}
        names = {info.name for info in dataset.fields}
        self.placement = place(
            feature_counts(dataset),
            shared=shared,
            composition=composition,
            dim=usual.width,
            linear=usual.linear,
            field_lookups={name: lookups for name, lookups in odd.items() if name in names},
            **(placing or {"rows": 40}),
        )
        self.dataset = dataset
        self.layout = Layout(dataset, placement=self.placement)
        self.architecture = compact_architecture(usual, self.layout)
        torch.manual_seed(seed)
        self.network = build(self.architecture)
        if loud:
            for parameter in self.network.parameters():
                parameter.data = torch.randn_like(parameter) / 2
            for table in (self.network.table, self.network.table.second):
                if table is not None:
                    table.weight.data[0] = 0.0

    def compact_layout(self, feature_set):
        """The layout of the kept features where the table stays as it is."""
        return compact_layout(self.dataset, feature_set, self.placement)


@EACH_ENCODING
@EACH_COMPOSITION
@EACH_BACKBONE
def test_hard_gated_equals_compacted_logit_by_logit(backbone, composition, encoding, mixed_in):
    dataset = mixed_in[encoding]
    for seed, shared in enumerate((True, False)):
        made = Made(dataset, composition, backbone, shared=shared, seed=seed)
        feature_set = random_set(dataset, seed)
        compact = compact_network(made.network, dataset, feature_set)
        layout = made.compact_layout(feature_set)
        found = logits_of(compact, dataset, layout)
        expected = logits_of(gated(made.network, feature_set), dataset, made.layout)
        assert float(expected.std()) > 0 or len(layout.fields) == 1
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@EACH_ENCODING
@EACH_COMPOSITION
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("reads", ["zero", "unknown"])
def test_the_compact_architecture_builds_what_compaction_to_a_smaller_table_gives(
    composition, encoding, shared, reads, mixed_in
):
    dataset = mixed_in[encoding]
    for seed in range(2):
        made = Made(dataset, composition, "deepfm", shared=shared, seed=seed)
        feature_set = random_set(dataset, seed).reading(dataset, reads)
        smaller = compact_placement(made.placement, dataset, feature_set)
        layout = compact_layout(dataset, feature_set, smaller)
        architecture = compact_architecture(made.architecture, layout)
        compact = compact_network(made.network, dataset, feature_set, build_table(architecture))
        rebuilt = build(architecture)
        rebuilt.load_state_dict(compact.state_dict())
        assert torch.equal(
            logits_of(rebuilt.eval(), dataset, layout), logits_of(compact.eval(), dataset, layout)
        )


def set_of(dataset, *features):
    """The feature set with the given (field, local id)."""
    kept = np.zeros(dataset.features, bool)
    offsets = {info.name: info.offset for info in dataset.fields}
    for field, local in features:
        kept[offsets[field] + local] = True
    return FeatureSet(
        dataset.vocabulary.with_columns(gate=kept.astype(float), kept=kept), {"dropped_reads": "zero"}
    )


@EACH_ENCODING
@pytest.mark.parametrize("shared", [True, False])
def test_a_field_that_keeps_nothing_but_what_no_train_row_holds_is_gone(encoding, shared, mixed_in):
    dataset = mixed_in[encoding]
    made = Made(dataset, shared=shared)
    feature_set = set_of(dataset, ("user", 3), ("day", 1))  # no day is missing
    smaller = compact_placement(made.placement, dataset, feature_set)
    layout = compact_layout(dataset, feature_set, smaller)
    compact = compact_network(
        made.network, dataset, feature_set, build_table(compact_architecture(made.architecture, layout))
    )
    assert layout.fields == ["user"]
    assert compact.backbone.fields == 1
    assert float(logits_of(compact, dataset, layout).std()) > 0


@pytest.mark.parametrize("composition", COMPOSITIONS)
@pytest.mark.parametrize("shared", [True, False])
def test_seen_or_not_hard_gated_equals_compacted_where_a_vocabulary_knows_it(composition, shared, mixed):
    """On valid as well: its unseen values have numbers there, without one they are told by their keys alone."""
    for seed in range(2):
        made = Made(mixed, composition, "deepfm", shared=shared, seed=seed)
        feature_set = random_set(mixed, seed)
        compact = compact_network(made.network, mixed, feature_set)
        found = logits_of(compact, mixed, made.compact_layout(feature_set), "valid")
        expected = logits_of(gated(made.network, feature_set), mixed, made.layout, "valid")
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@EACH_ENCODING
@EACH_COMPOSITION
def test_dropped_values_that_read_unknown_have_its_rows(composition, encoding, mixed_in):
    dataset = mixed_in[encoding]
    for seed in range(2):
        made = Made(dataset, composition, "deepfm", seed=seed)
        feature_set = random_set(dataset, seed).reading(dataset, "unknown")
        layout, unknown = made.compact_layout(feature_set), 0
        # By hand: dropped values of a field that keeps any stand where its unknown does, with its number.
        batch = made.layout.gather(dataset.part("train"), np.arange(200))
        numbers, places = batch.ids.copy(), batch.places.copy()
        for slot, info in enumerate(info for info in dataset.fields if info.kind != "list"):
            owner = made.placement.of(info.shares or info.name)
            own_key = dataset.keys[info.offset : info.offset + 1]
            for row in range(len(numbers)):
                feature = numbers[row, slot] - 1
                if feature_set.kept[feature]:
                    continue
                local = feature - info.offset
                reads = local >= 2 and feature_set.kept[info.offset]
                numbers[row, slot] = info.offset + 1 if reads else 0
                places[row, slot] = made.placement.places(own_key, owner)[0] if reads else 0
                unknown += reads
        single = to_inputs(batch, CPU)._replace(
            ids=torch.from_numpy(numbers), places=torch.from_numpy(places)
        )
        expected = made.network.embed(single)
        found = compact_network(made.network, dataset, feature_set).embed(
            to_inputs(layout.gather(dataset.part("train"), np.arange(200)), CPU)
        )
        singles = [info.name for info in dataset.fields if info.kind != "list"]
        for slot, name in enumerate(singles):
            if name in layout.fields:
                torch.testing.assert_close(found[:, layout.fields.index(name)], expected[:, slot])
        assert unknown > 10


@EACH_ENCODING
def test_a_missing_value_that_is_dropped_reads_zeros_whatever_dropped_values_read(encoding, mixed_in):
    dataset = mixed_in[encoding]
    made = Made(dataset)
    feature_set = set_of(dataset, ("user", 2), ("user", 3), ("day", 2)).reading(dataset, "unknown")
    layout, part = made.compact_layout(feature_set), dataset.part("train")
    numbers = made.layout.gather(part, np.arange(len(part))).ids[:, 0]
    missing = numbers == dataset.fields[0].offset + 2
    assert (dataset.fields[0].name, int(missing.sum()) > 10) == ("user", True)
    batch = layout.gather(part, np.arange(len(part)))
    assert not batch.ids[missing, 0].any()
    assert not batch.places[missing, 0].any()
    assert bool(batch.ids[~missing, 0].all())


@EACH_ENCODING
@EACH_COMPOSITION
def test_the_gate_of_one_value_leaves_all_others_alone_though_they_share_every_row(
    composition, encoding, planted_in
):
    dataset = planted_in[encoding]
    made = Made(dataset, composition, rows=2 if composition == "quotient_remainder" else 1)
    layout, network = made.layout, made.network
    network.gate = SoftGate(dataset.features + 1)
    batch = layout.gather(dataset.part("train"), np.arange(400))
    assert len(np.unique(batch.places.reshape(-1, batch.places.shape[-1]), axis=0)) == 1
    inputs = to_inputs(batch, CPU)
    before = network(inputs)
    one = int(batch.ids[0, 0])
    network.gate.logits.data[one] = -100.0
    closed = network(inputs)
    held = torch.from_numpy((batch.ids == one).any(1))
    assert 20 < int(held.sum()) < 200
    assert torch.equal(closed[~held], before[~held])
    assert not bool((closed[held] == before[held]).any())
    places = batch.places * (batch.ids != one)[..., None]
    torch.testing.assert_close(network(inputs._replace(places=torch.from_numpy(places))), closed)


def rows_read(placement, places):
    """The rows of both tables that places (..., R) read."""
    flat = places.reshape(-1, places.shape[-1])
    if placement.composition == "lookup":
        return set(flat.ravel()), set()
    if placement.composition == "robe":
        starts = flat.ravel()
        ends = starts + placement.width - 1
        return set(starts // placement.width) | set(ends // placement.width), set()
    return set(flat[:, :-1].ravel()), set(flat[:, -1])


@EACH_ENCODING
@EACH_COMPOSITION
@EACH_BACKBONE
def test_noise_in_rows_that_only_dropped_features_read_changes_no_logit(
    backbone, composition, encoding, mixed_in
):
    dataset = mixed_in[encoding]
    made = Made(dataset, composition, backbone, rows=150)
    feature_set = random_set(dataset, 3)
    part = dataset.part("train")
    batch = made.layout.gather(part, np.arange(len(part)))
    kept = np.concatenate([[False], feature_set.kept])
    places = np.concatenate([batch.places[kept[batch.ids]], batch.list_places[kept[batch.list_ids]]])
    network = gated(made.network, feature_set)
    before = logits_of(network, dataset, made.layout)
    noisy = 0
    tables = (network.table, network.table.second)
    for table, read in zip(tables, rows_read(made.placement, places), strict=True):
        if table is not None:
            free = torch.tensor([row for row in range(1, len(table.weight)) if row not in read])
            table.weight.data[free] = 1e3 * torch.randn(len(free), table.weight.shape[1])
            noisy += len(free)
    assert noisy > 10
    assert torch.equal(logits_of(network, dataset, made.layout), before)
    network.gate = None
    assert not torch.allclose(logits_of(network, dataset, made.layout), before)


def test_a_smaller_placement_has_as_many_features_on_a_row_as_before():
    """By hand: 40 rows for 100 and 60 values, of which 20 and 6 are kept."""
    features, kept = {"a": 100, "b": 60}, {"a": 20, "b": 6}
    shared = place(features, shared=True, dim=4, linear=1, rows=40)
    assert shared.kept(features, kept).rows == 1 + round(40 * 26 / 160)
    separate = place(features, shared=False, dim=4, linear=1, rows=40)
    assert [own.rows for own in separate.stretches] == [25, 15]
    assert [own.rows for own in separate.kept(features, kept).stretches] == [5, 2]
    assert separate.kept(features, {"a": 20, "b": 0}).parameters == 5 * 3


@EACH_ENCODING
@EACH_COMPOSITION
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("ratio", [0.6, 0.2])
def test_compaction_leaves_tables_in_proportion_to_the_features_kept(
    ratio, shared, composition, encoding, planted_in
):
    dataset = planted_in[encoding]
    made = Made(dataset, composition, shared=shared, rows=60)
    feature_set = REFEREES["random"](dataset, round(ratio * 98), 0)
    smaller = compact_placement(made.placement, dataset, feature_set)
    layout = compact_layout(dataset, feature_set, smaller)
    table = build_table(compact_architecture(made.architecture, layout))
    floats = sum(own.weight[1:].numel() for own in (table, table.second) if own is not None)
    assert floats == smaller.parameters
    share = sum(feature_counts(dataset, feature_set).values()) / sum(feature_counts(dataset).values())
    assert share == pytest.approx(ratio, abs=0.01)
    # Rounding to whole rows: of three fields where each has a table of its own.
    assert floats / made.placement.parameters == pytest.approx(share, abs=(1 if shared else 3) / 60)


def test_fields_free_of_collisions_keep_a_row_for_each_kept_value(planted):
    made = Made(planted, rows=60, collision_free=8)
    feature_set = set_of(planted, *(("useful", local) for local in (2, 4, 5)), ("noise", 2), ("noise", 3))
    smaller = compact_placement(made.placement, planted, feature_set)
    layout = compact_layout(planted, feature_set, smaller)
    useful, noise = (smaller.stretches[smaller.of(name)] for name in ("useful", "noise"))
    assert (useful.exact, useful.rows) == (True, 3 * 2)
    assert (noise.exact, noise.rows) == (False, round(44 * 2 / 90))  # 60 rows less those of 8 useful values
    part = planted.part("train")
    batch = layout.gather(part, np.arange(len(part)))
    slot = layout.fields.index("useful")
    kept = batch.places[batch.ids[:, slot] > 0, slot]
    assert {tuple(row) for row in kept} == {
        (useful.start + 2 * n, useful.start + 2 * n + 1) for n in range(3)
    }


def soft_gates(network, folder, schedule, price):
    """EvidenceGates on a network that gets a SoftGate."""
    features = len(network.gate.logits) - 1
    values = torch.ones(features, dtype=torch.bool)
    return EvidenceGates(
        network, schedule, price=price, values=values, rate=1.0, rewind_epoch=0, folder=folder
    )


def in_float64(made):
    """The parts of a network that logits come from, without its gate."""
    network = made.network
    projections = network.projections
    return SimpleNamespace(
        composition=made.placement.composition,
        table=copy.deepcopy(network.table).double(),
        backbone=copy.deepcopy(network.backbone).double(),
        bias=None if network.bias is None else network.bias.detach().double(),
        linear=network.linear,
        pooling=network.pooling,
        vectors=projections.fields,
        projections=[weight.detach().double() for weight in projections.weights],
    )


@EACH_ENCODING
@pytest.mark.parametrize(
    ("composition", "backbone"),
    [("lookup", "deepfm"), ("multi_hash", "fm"), ("quotient_remainder", "dcnv2"), ("robe", "fnn")],
)
def test_evidence_of_hashed_features_equals_the_dense_reference(
    composition, backbone, encoding, mixed_in, tmp_path
):
    dataset, steps = mixed_in[encoding], 5
    made = Made(dataset, composition, backbone)
    network = made.network
    network.gate = SoftGate(dataset.features + 1)
    schedule = Schedule(steps, 2, 20.0)
    gates = soft_gates(network, tmp_path, schedule, 1.0)
    dense = DenseGates(
        dataset.features + 1,
        window=schedule.window,
        steps_per_epoch=2,
        steps=steps,
        final_temperature=20.0,
        price=1.0,
        rate=1.0,
    )
    batches = Batches(dataset.part("train"), made.layout, 8, 0)
    for number, batch in zip(range(steps), batches.epoch(), strict=False):
        inputs, labels = to_inputs(batch, CPU), torch.from_numpy(batch.labels)
        gates.before_step(inputs, labels, None, number / steps)
        network.zero_grad()
        F.binary_cross_entropy_with_logits(network(inputs), labels).backward()
        gates.after_backward()
        dense.step(in_float64(made), inputs, labels)
    gates.before_look()
    expected = torch.tensor([dense.slope, dense.curvature]).T[1:]
    torch.testing.assert_close(gates.sums[1:].double(), expected.double(), rtol=2e-3, atol=2e-4)
    found = evidence_of(gates.sums[:, 0], gates.sums[:, 1])[1:]
    assert float(found.max()) > 0.1
    torch.testing.assert_close(
        found.double(), torch.tensor(dense.evidence()[1:]).double(), rtol=2e-3, atol=2e-4
    )
    torch.testing.assert_close(
        network.gate.logits[1:, 0].double(), torch.tensor(dense.logits()[1:]).double(), rtol=2e-3, atol=2e-4
    )


@pytest.fixture
def search_on(tmp_path):
    """A whole OptFS search on a dataset of the planted log: what it keeps as (field, key)."""

    def run(dataset, composition="lookup", *, ratio=None, **keys):
        made = Made(dataset, composition, loud=False, **{"rows": 60, **keys})
        found = optfs.search(
            made.network,
            dataset,
            Batches(dataset.part("train"), made.layout, 256, 0),
            Batches(dataset.part("valid"), made.layout, 1024),
            SelectorConfig(epochs=3),
            Training(batch_size=256, learning_rate=1e-2),
            price=optfs.DEFAULT_PRICE,
            folder=tmp_path / f"search-{len(list(tmp_path.iterdir()))}",
        )
        feature_set = optfs.choose(found, dataset, dataset.part("valid"), ratio)
        features = feature_set.features.with_columns(key=dataset.keys)
        return set(features.filter("kept", role="value").select("field", "key").rows())

    return run


USEFUL = {("useful", int(key)) for key in value_keys("useful", pl.Series([f"v{n}" for n in range(8)]))}


@EACH_COMPOSITION
def test_both_encodings_find_the_planted_values_in_one_table_for_all_fields(
    composition, planted_in, search_on
):
    """98 values read 60 rows; of the 90 values of noise 0 to 6 were kept with three seeds and backbones."""
    kept = {encoding: search_on(dataset, composition) for encoding, dataset in planted_in.items()}
    assert kept["vocabulary"] == kept["hashed"]  # the same keys on the same rows
    assert kept["hashed"] >= USEFUL
    assert len(kept["hashed"] - USEFUL) <= 9


@EACH_COMPOSITION
def test_a_table_for_each_field_leaves_most_of_the_planted_values_to_be_found(
    composition, planted_in, search_on
):
    """The useful field has 5 rows for 8 values here: 6 to 8 were found, and 0 to 5 values of noise."""
    kept = search_on(planted_in["hashed"], composition, shared=False)
    assert len(kept & USEFUL) >= 6
    assert len(kept - USEFUL) <= 9


def test_a_ratio_is_met_exactly_and_filled_with_the_useful_first(planted_in, search_on):
    assert search_on(planted_in["hashed"], ratio=8 / 98) == USEFUL


def test_of_what_is_kept_without_a_vocabulary_each_value_has_one_fingerprint(keyed_mixed):
    """But for the fields that keep all that they have seen: whatever they hold is kept, seen or not."""
    items = sum(info.features for info in keyed_mixed.fields if info.name == "item")
    wanted = [("user", 3), ("user", 4), ("tags", 1), *(("item", local) for local in range(1, items))]
    feature_set = set_of(keyed_mixed, *wanted).reading(keyed_mixed, "unknown")
    assert feature_set.features.filter("kept", role="unknown")["field"].to_list() == ["user", "item"]
    kept = compact_layout(keyed_mixed, feature_set, Made(keyed_mixed).placement).kept
    assert (kept.whole, kept.unknown) == ({"item"}, {"user"})
    assert len(kept.fingerprints) == 3
    assert kept.hold(keyed_mixed.keys).sum() == 3
