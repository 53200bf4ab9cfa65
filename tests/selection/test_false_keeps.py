"""What a search keeps of shadow fields is counted by the rule for real values, and leaves no trace in the network."""

import numpy as np
import pytest
import torch

from ctr.config import SelectorConfig, Training
from ctr.dataset.batches import Batches
from ctr.dataset.layout import Layout
from ctr.dataset.placement import place
from ctr.dataset.shadow import ShadowLayout, shadows
from ctr.evaluation.shares import share_interval
from ctr.network.backbones import BACKBONES
from ctr.network.gates import HardGate
from ctr.network.network import Architecture, build
from ctr.selection import optfs
from ctr.selection.compaction import compact_architecture, feature_counts
from ctr.selection.referees import top_values, value_features
from ctr.selection.shadow import false_keeps, without_shadows
from ctr.training.feeding import to_inputs

CPU = torch.device("cpu")


def wide_network(layout, backbone="deepfm", scale=0.5, hidden=(8,)):
    torch.manual_seed(0)
    return build(
        Architecture(
            rows=layout.rows,
            fields=len(layout.fields),
            dim=4,
            hidden=hidden,
            backbone=backbone,
            pooling=layout.pooling,
            vectors=layout.vectors,
            init_scale=scale,
        )
    )


def logits_of(network, part, layout):
    with torch.no_grad():
        return torch.cat([network(to_inputs(batch, CPU)) for batch in Batches(part, layout, 64).epoch()])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_without_its_copies_a_network_is_the_one_that_closes_their_gates(backbone, mixed):
    found = shadows(mixed, 0.3, seed=0)
    layout = ShadowLayout(found)
    network = wide_network(layout, backbone).eval()
    real = without_shadows(network, found)
    assert len(real.table.weight) == mixed.features + 1
    network.gate = HardGate(torch.arange(layout.rows) <= found.features)
    part = mixed.part("train")
    expected, logits = logits_of(network, part, layout), logits_of(real, part, Layout(mixed))
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@pytest.fixture
def scored(planted):
    """Shadows of all fields of `planted`, real scores that fall with the id, and scores of copies: all 1 but some."""
    found = shadows(planted, 0.99, seed=0)
    return found, np.arange(planted.features, 0, -1, dtype=np.float64), np.ones(found.dataset.features)


def test_copies_above_the_price_are_kept(planted, scored):
    found, scores, wide = scored
    copied = wide[found.features :]
    other = found.copies[1].offset - found.features
    copied[other + 2 : other + 5] = 3.0
    kept = scores > 2.5
    result = false_keeps(planted, found, scores, kept, copied, 2.5)
    assert result["fields"]["noise"] == {"kept": 3, "total": 60}
    assert (result["kept"], result["total"]) == (3, 98)
    assert result["share"] == share_interval(3, 98)._asdict()
    values = int((kept & value_features(planted)).sum())
    assert result["of_kept"]["value"] == pytest.approx(3 / 98 * 98 / values)


def test_of_a_number_of_values_the_last_one_kept_is_the_bar_and_rows_break_ties(planted, scored):
    found, scores, wide = scored
    copied, first = wide[found.features :], found.copies[0]
    kept = top_values(planted, scores, 5)
    bar = scores[kept & value_features(planted)].min()
    at = first.offset - found.features
    copied[at + 2] = bar + 0.5
    copied[at + 3] = bar - 0.5
    assert false_keeps(planted, found, scores, kept, copied, None)["kept"] == 1
    # The same evidence as the last real value: the more frequent one goes first.
    last = int(np.flatnonzero(kept)[-1])
    weights = found.dataset.vocabulary["weighted_count"].to_numpy()
    copied[:] = 0.0
    copied[:] = np.where(value_features(found.dataset)[found.features :], bar, 0.0)
    assert false_keeps(planted, found, scores, kept, copied, None)["kept"] == sum(
        weights[found.features + place] >= weights[last]
        for place in np.flatnonzero(value_features(found.dataset)[found.features :])
    )


def searched(dataset, found, layout, network, folder):
    """A search with copies."""
    return optfs.search(
        network,
        found.dataset,
        Batches(dataset.part("train"), layout, 256, 0),
        Batches(dataset.part("valid"), layout, 1024),
        SelectorConfig(epochs=3),
        Training(batch_size=256, learning_rate=1e-2),
        price=optfs.DEFAULT_PRICE,
        folder=folder,
    )


@pytest.mark.parametrize("ratio", [None, 0.3])
def test_the_estimate_meets_the_share_of_noise_that_is_kept(planted, tmp_path, ratio):
    found = shadows(planted, 0.7, seed=1)
    layout, valid = ShadowLayout(found), planted.part("valid")
    search = searched(planted, found, layout, wide_network(layout, scale=None, hidden=(16,)), tmp_path)
    real = search.without(found, without_shadows(search.network, found))
    assert len(real.evidence) == planted.features
    feature_set = optfs.choose(real, planted, valid, ratio)
    assert set(feature_set.features["field"]) == {"useful", "noise", "other"}
    told = feature_set.provenance["shadow"]
    counts = feature_set.counts()["fields"]
    noise = sum(counts[name]["kept"] for name in ("noise", "other")) / 90
    assert told["share"]["low"] <= noise <= told["share"]["high"]
    assert told["total"] >= 60


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("encoding", ["vocabulary", "hashed"])
def test_the_estimate_is_near_the_truth_where_rows_are_shared(
    planted, keyed_planted, tmp_path, encoding, shared
):
    """A hundred rows, two for each feature, for 98 values of the log, and as many again for 90 of the copies."""
    dataset = {"vocabulary": planted, "hashed": keyed_planted}[encoding]
    counts, valid = feature_counts(dataset), dataset.part("valid")
    placement = place(counts, shared=shared, dim=4, linear=1, rows=100)
    off = {None: [], 0.3: []}
    for seed in (1, 2, 4, 5):
        found = shadows(dataset, 0.7, seed)
        assert {field.name for field in found.copied} == {"noise", "other"}
        names = zip(found.copies, found.copied, strict=True)
        layout = ShadowLayout(
            found, placement.with_copies(counts, {other.name: own.name for other, own in names})
        )
        usual = Architecture(rows=0, fields=0, dim=4, hidden=(16,), backbone="deepfm")
        torch.manual_seed(seed)
        network = build(compact_architecture(usual, layout))
        search = searched(dataset, found, layout, network, tmp_path / str(seed)).without(found, network)
        for ratio, errors in off.items():
            feature_set = optfs.choose(search, dataset, valid, ratio)
            kept = feature_set.counts()["fields"]
            assert kept["useful"] == {"kept": 8, "total": 8}
            truth = (kept["noise"]["kept"] + kept["other"]["kept"]) / 90
            errors.append(feature_set.provenance["shadow"]["share"]["value"] - truth)
    # What 90 values of one log come to strays by 0.02 and 0.05.
    assert abs(np.mean(off[None])) < 0.04
    assert abs(np.mean(off[0.3])) < 0.12


def test_a_share_of_nothing_found_still_has_an_upper_bound():
    none, all_, half = share_interval(0, 30), share_interval(30, 30), share_interval(50, 100)
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(0.1135, abs=1e-3)
    assert all_.low == pytest.approx(1 - none.high)
    assert (half.low, half.high) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
