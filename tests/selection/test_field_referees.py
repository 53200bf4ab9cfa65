"""Referees that drop whole fields: sizes met as nearly as fields allow, noise dropped first, libraries agreed with."""

import importlib.util

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_selection import chi2 as sklearn_chi2
from sklearn.feature_selection import mutual_info_classif
from sklearn.preprocessing import OneHotEncoder

from ctr.config import SelectorConfig, Training
from ctr.dataset.batches import Batches
from ctr.dataset.layout import Layout
from ctr.errors import ConfigError
from ctr.network.gates import FieldGate, HardGate
from ctr.selection import field_referees, optfs
from ctr.selection.field_choice import field_numbers, of_fields, owners, top_fields
from ctr.selection.field_referees import FIELD_REFEREES, chi2, mutual_information, require
from ctr.selection.field_rows import BINS, global_ids, occurrences
from ctr.selection.permutation import permutation_importance, permuted
from ctr.training.fit import fit
from ctr.training.predict import predict

BOOSTED = pytest.param(
    "field_gain",
    marks=pytest.mark.skipif(
        importlib.util.find_spec("lightgbm") is None, reason="LightGBM is not installed"
    ),
)
JUDGES = ["field_mutual_information", "field_chi2", "field_l1", BOOSTED]


def kept_fields(feature_set):
    return {name for name, entry in feature_set.counts()["fields"].items() if entry["kept"]}


def sizes_of(dataset):
    return {info.name: info.features - 2 for info in owners(dataset)}


@pytest.fixture(scope="module")
def ruled(make_dataset):
    """A field that is always kept (4 values), one that never is (3), and three plain ones (10, 20, 6); 240 rows."""
    sizes = {"always": 4, "never": 3, "ten": 10, "twenty": 20, "six": 6}
    columns = {name: [f"{name}{n % size}" for n in range(240)] for name, size in sizes.items()}
    frame = pl.DataFrame({"click": [n % 7 % 2 for n in range(240)], **columns})
    fields = [{"name": name, **({"keep": name} if name in ("always", "never") else {})} for name in columns]
    return make_dataset(frame, fields)


@given(
    scores=st.tuples(*[st.floats(-5, 5, allow_nan=False)] * 3),
    count=st.integers(1, 45),
)
def test_the_size_is_met_within_half_of_the_smallest_field_that_is_dropped(ruled, scores, count):
    plain = ("ten", "twenty", "six")
    kept = top_fields(ruled, {"always": 0.0, "never": 9.0, **dict(zip(plain, scores, strict=True))}, count)
    names = {info.name for info in owners(ruled) if kept[info.offset]}
    assert np.array_equal(kept, of_fields(ruled, names))
    assert "always" in names
    assert "never" not in names
    sizes = sizes_of(ruled)
    total, dropped = sum(sizes[name] for name in names), [sizes[name] for name in plain if name not in names]
    if dropped:
        assert abs(total - count) <= max(min(dropped) / 2, 4 - count)


def test_fields_are_taken_from_the_best_on_and_those_that_do_not_fit_are_passed_over(ruled):
    scores = {"always": 0.0, "never": 0.0, "ten": 2.0, "twenty": 3.0, "six": 1.0}

    def chosen(count):
        kept = top_fields(ruled, scores, count)
        return {info.name for info in owners(ruled) if kept[info.offset]} - {"always"}

    assert chosen(24) == {"twenty"}
    assert chosen(15) == {"ten"}
    assert chosen(10) == {"six"}
    assert chosen(8) == {"six"}  # two too many are nearer than four too few
    assert chosen(7) == set()
    assert chosen(34) == {"twenty", "ten"}
    assert chosen(40) == {"twenty", "ten", "six"}
    assert chosen(4) == set()


def test_where_no_field_is_small_enough_the_smallest_is_kept(planted):
    kept = top_fields(planted, {"useful": 1.0, "noise": 3.0, "other": 2.0}, 1)
    assert {info.name for info in owners(planted) if kept[info.offset]} == {"useful"}


@pytest.mark.parametrize("name", JUDGES)
def test_fields_of_noise_are_dropped_first(name, planted):
    found = FIELD_REFEREES[name](planted, 8, 0)
    assert kept_fields(found) == {"useful"}
    assert found.provenance["selector"] == name
    scores = found.provenance["field_scores"]
    assert scores["useful"] > 5 * max(scores["noise"], scores["other"], 1e-9)
    assert FIELD_REFEREES[name](planted, 8, 0).provenance == found.provenance


@pytest.mark.parametrize("name", JUDGES)
def test_every_kind_of_field_is_judged(name, mixed, keyed_mixed):
    for dataset in (mixed, keyed_mixed):
        found = FIELD_REFEREES[name](dataset, 20, 0)
        scores = found.provenance["field_scores"]
        assert set(scores) == {"tags", "user", "price", "item", "words", "day", "picture"}
        assert all(np.isfinite(score) for score in scores.values())
        if name != "field_gain":  # 400 rows are few for trees: they find much in numbers of noise
            assert max(scores, key=scores.__getitem__) == "user"


@pytest.mark.parametrize("judge", [mutual_information, chi2])
def test_an_id_that_says_nothing_scores_about_zero_however_many_values_it_has(judge, make_dataset):
    draw = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "click": draw.integers(0, 2, 4000),
            "once": [f"o{n}" for n in range(4000)],
            "many": [f"m{n}" for n in draw.integers(0, 900, 4000)],
            "few": [f"f{n}" for n in draw.integers(0, 3, 4000)],
        }
    ).with_columns(weak=pl.when(pl.int_range(4000) % 3 == 0).then("click").otherwise(2))
    scores = judge(make_dataset(frame, [{"name": name} for name in ("once", "many", "few", "weak")]), 0)
    assert scores["weak"] > 0.05
    for name in ("once", "many", "few"):
        assert abs(scores[name]) < 0.02


def one_hot(dataset, name):
    part, names = dataset.part("train"), [info.name for info in dataset.fields if info.kind != "list"]
    ids = np.asarray(part.ids[:, names.index(name)]).reshape(-1, 1)
    return OneHotEncoder().fit_transform(ids), ids, part.labels


def test_chi_squared_is_the_sum_of_scikit_learns_over_one_hot_columns(planted):
    scores = chi2(planted, 0)
    for name in ("useful", "noise", "other"):
        columns, _, labels = one_hot(planted, name)
        statistics, _ = sklearn_chi2(columns, labels)
        expected = (statistics.sum() - (columns.shape[1] - 1)) / len(labels)
        assert scores[name] == pytest.approx(expected, rel=1e-9)


def test_mutual_information_is_scikit_learns_less_what_chance_gives(planted):
    scores = mutual_information(planted, 0)
    draw = np.random.default_rng(0)
    for name in ("useful", "noise", "other"):
        _, ids, labels = one_hot(planted, name)
        whole = mutual_info_classif(ids, labels, discrete_features=True)[0]
        dealt = [
            mutual_info_classif(ids, draw.permutation(labels), discrete_features=True)[0] for _ in range(40)
        ]
        spread = np.std(dealt) / np.sqrt(40)
        assert scores[name] == pytest.approx(whole - np.mean(dealt), abs=5 * spread)


@pytest.mark.parametrize("judge", [mutual_information, chi2])
def test_weights_count_and_their_spread_is_no_evidence(judge, make_dataset):
    draw = np.random.default_rng(3)
    frame = pl.DataFrame(
        {
            "click": draw.integers(0, 2, 4000),
            "noise": [f"n{n}" for n in draw.integers(0, 400, 4000)],
            "side": draw.integers(0, 2, 4000),
            "w": draw.choice([0.1, 5.0], 4000),
        }
    ).with_columns(told=pl.when(pl.col("w") > 1).then("click").otherwise("side"))
    fields = [{"name": "noise"}, {"name": "told"}]
    plain, weighted = (judge(make_dataset(frame, fields, **keys), 0) for keys in ({}, {"weight": "w"}))
    assert weighted["told"] > 1.5 * plain["told"]
    assert abs(weighted["noise"]) < 0.05  # of about 0.2 that chance gives


def test_occurrences_are_one_code_for_each_value(mixed):
    part = mixed.part("train")
    found = list(occurrences(mixed, part))
    assert [info.name for info, _, _ in found].count("picture") == 3
    for info, codes, rows in found:
        assert codes.min() == 0
        assert len(np.unique(codes)) == codes.max() + 1
        assert len(codes) == len(rows)
        if info.name in ("price", "picture"):
            assert codes.max() <= BINS
        if info.name == "user":
            slot = [other.name for other in mixed.fields].index("user")
            assert (
                len(np.unique(np.stack([codes, np.asarray(part.ids[:, slot])]), axis=1).T) == codes.max() + 1
            )


def test_ids_of_a_log_without_vocabulary_are_those_of_its_keys(mixed, keyed_mixed):
    for dataset in (mixed, keyed_mixed):
        ids, listed = global_ids(dataset, dataset.part("train"))
        singles = [info for info in dataset.fields if info.kind != "list"]
        for slot, info in enumerate(singles):
            assert (ids[:, slot] // 1 >= info.offset).all()
            assert (ids[:, slot] < info.offset + info.features).all()
        assert len(listed) == 3


@pytest.fixture(scope="module")
def trained(planted, tmp_path_factory):
    from ctr.network.network import Architecture, build

    torch.manual_seed(0)
    layout = Layout(planted)
    network = build(Architecture(rows=layout.rows, fields=3, dim=4, hidden=(8,), backbone="deepfm"))
    valid = Batches(planted.part("valid"), layout, 1024)
    folder = tmp_path_factory.mktemp("trained")
    fit(
        network,
        Batches(planted.part("train"), layout, 256, 0),
        valid,
        Training(learning_rate=0.01),
        folder=folder,
        epochs=2,
    )
    return network, valid


def test_permutation_importance_is_the_auc_that_a_shuffled_field_costs(planted, trained):
    network, valid = trained
    found = permutation_importance(network, valid, planted, 0)
    assert found["useful"] > 0.2
    assert abs(found["noise"]) < 0.02
    assert abs(found["other"]) < 0.02
    assert permutation_importance(network, valid, planted, 0) == found


def test_a_permuted_part_moves_one_field_and_those_that_share_its_features(mixed):
    part = mixed.part("train")
    order = np.random.default_rng(1).permutation(len(part))
    singles = [info for info in mixed.fields if info.kind != "list"]
    lists = [info for info in mixed.fields if info.kind == "list"]
    ends = np.cumsum([info.size for info in singles])
    for field in ("user", "item", "price", "picture", "tags"):
        found = permuted(part, mixed, field, order)
        for slot, info in enumerate(singles):
            moved = field in (info.name, info.shares)
            expected = order if moved else np.arange(len(part))
            assert np.array_equal(found.ids[:, slot], part.ids[expected, slot])
            assert np.array_equal(found.values[:, slot], part.values[expected, slot])
            own = slice(ends[slot] - info.size, ends[slot])
            assert np.array_equal(found.vectors[:, own], part.vectors[expected][:, own])
        for info, (flat, offsets), (before, starts) in zip(lists, found.lists, part.lists, strict=True):
            row = order[5] if field in (info.name, info.shares) else 5
            assert flat[offsets[5] : offsets[6]].tolist() == before[starts[row] : starts[row + 1]].tolist()
        assert found.labels is part.labels


def test_gates_of_fields_find_the_field_that_matters(planted, make_network, tmp_path):
    layout = Layout(planted)
    network = make_network(planted, init_scale=0.01)
    train, valid = (
        Batches(planted.part("train"), layout, 256, 0),
        Batches(planted.part("valid"), layout, 1024),
    )
    found = optfs.search(
        network,
        planted,
        train,
        valid,
        SelectorConfig(epochs=3),
        Training(batch_size=256, learning_rate=1e-2),
        price=optfs.DEFAULT_PRICE,
        folder=tmp_path,
        grain="field",
    )
    assert network.gate is None
    evidence = dict(zip([info.name for info in owners(planted)], found.evidence, strict=True))
    assert evidence["useful"] > 20 * max(evidence["noise"], evidence["other"])
    feature_set = optfs.choose_fields(found, planted, planted.part("valid"), 8)
    assert kept_fields(feature_set) == {"useful"}
    assert feature_set.counts()["ratio"] == pytest.approx(8 / 98)


def test_a_field_gate_is_one_factor_for_all_features_of_a_field(mixed):
    numbers = torch.from_numpy(field_numbers(mixed))
    gate = FieldGate(numbers)
    assert len(gate.logits) == len(owners(mixed)) + 1
    gate.temperature.fill_(1000.0)
    gate.logits.data[1:] = -1.0
    gate.logits.data[2] = 1.0
    second = owners(mixed)[1]
    factors = gate(torch.arange(mixed.features + 1))[:, 0]
    own = slice(second.offset + 1, second.offset + second.features + 1)
    assert (factors[own] > 1.0).all()
    assert float(factors[1:].sum()) == pytest.approx(float(factors[own].sum()), abs=1e-6)


def test_a_closed_field_gate_hides_a_field_from_the_network(mixed, make_network):
    network, layout = make_network(mixed), Layout(mixed)
    valid = Batches(mixed.part("valid"), layout, 64)
    kept = of_fields(mixed, {info.name for info in owners(mixed)} - {"user"})
    network.gate = HardGate(torch.from_numpy(np.r_[False, kept]))
    part = valid.part
    moved = permuted(part, mixed, "user", np.random.default_rng(0).permutation(len(part)))
    assert np.allclose(predict(network, Batches(moved, layout, 64)), predict(network, valid))


def test_gain_without_lightgbm_says_what_to_install(planted, monkeypatch):
    monkeypatch.setattr(field_referees.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r'needs LightGBM, which is not installed: pip install "ctr\[boosting\]"'
    ):
        FIELD_REFEREES["field_gain"](planted, 8, 0)
    for other in ("field_l1", "frequency", "optfs"):
        require(other)


def test_l1_looks_at_a_sample_of_a_long_log(planted, monkeypatch):
    monkeypatch.setattr(field_referees, "MOST_ROWS", 800)
    assert kept_fields(FIELD_REFEREES["field_l1"](planted, 8, 0)) == {"useful"}
