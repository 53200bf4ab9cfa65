"""Whole searches: planted truth in front of every backbone, and what a search must not depend on."""

from itertools import product

import polars as pl
import pytest
import torch

from ctr.dataset.ingest import ingest
from ctr.dataset.layout import Layout
from ctr.dataset.schema import load_schema
from ctr.dataset.store import Dataset
from ctr.dataset.synthetic import write_log
from ctr.network.backbones import BACKBONES
from ctr.selection.compaction import compact_layout
from ctr.selection.optfs import coverage
from ctr.training import fit as loop
from tests.selection.conftest import MIXED_FIELDS, PLANTED_FIELDS, kept_values, mixed_log, planted_log

EACH = pytest.mark.parametrize("backbone", BACKBONES)
USEFUL = {f"v{n}" for n in range(8)}


def noise_kept(feature_set) -> int:
    return len(kept_values(feature_set, "noise")) + len(kept_values(feature_set, "other"))


@EACH
def test_in_front_of_every_backbone_the_useful_values_stay_and_noise_goes(backbone, planted, run_search):
    found = run_search(planted, backbone)
    assert kept_values(found.feature_set, "useful") == USEFUL
    assert (
        noise_kept(found.feature_set) <= 30
    )  # of 90; fm, which fits most of all to its train rows, keeps most


@EACH
@pytest.mark.parametrize("batch_size", [128, 100_000])
def test_one_epoch_is_enough_to_end_with_a_feature_set(backbone, batch_size, planted, run_search):
    # One step over all rows says nothing yet to a table of zeros, so there the size is asked for, not the price.
    found = run_search(planted, backbone, epochs=1, batch_size=batch_size, ratio=0.2)
    assert found.feature_set.counts()["kept"] == 20
    if batch_size == 128:
        assert kept_values(found.feature_set, "useful") == USEFUL


@EACH
def test_a_ratio_is_met_exactly_and_filled_with_the_useful_first(backbone, planted, run_search):
    found = run_search(planted, backbone, ratio=8 / 98)
    assert found.feature_set.counts()["kept"] == 8
    assert kept_values(found.feature_set, "useful") == USEFUL


@pytest.mark.parametrize(
    "keys", [{"batch_size": 64}, {"batch_size": 1024, "epochs": 9}, {"epochs": 8}, {"seed": 5}]
)
def test_a_price_means_about_the_same_at_other_batch_sizes_epochs_and_seeds(keys, planted, run_search):
    found = run_search(planted, "deepfm", **keys)
    assert kept_values(found.feature_set, "useful") == USEFUL
    assert noise_kept(found.feature_set) <= 9


def test_a_higher_price_never_keeps_more_and_no_price_at_all_keeps_all_that_helps(planted, run_search):
    def kept_at(price):
        features = run_search(planted, "lr", penalty=price).feature_set.features
        return set(features.filter("kept").select("field", "id").rows())

    kept = [kept_at(price) for price in (0.0, 1.0, 5.0, 50.0)]
    assert len(kept[0]) > 40
    assert len(kept[0]) > len(kept[1]) > len(kept[2]) > 0
    assert kept[3] <= kept[2] <= kept[1]


@pytest.mark.parametrize("penalty", [0.0, 2.5, 50.0])
@pytest.mark.parametrize("rate", [0.01, 1.0])
@pytest.mark.parametrize("epochs", [1, 3])
def test_features_that_no_train_row_holds_are_dropped_whatever_price_and_rate(
    penalty, rate, epochs, planted, run_search
):
    found = run_search(planted, "lr", penalty=penalty, gate_learning_rate=rate, epochs=epochs)
    never = found.feature_set.features.filter(pl.col("count") == 0)
    assert never.height == 6  # unknown and missing of three fields
    assert not never["kept"].any()
    if penalty == 50.0:
        assert noise_kept(found.feature_set) == 0


@pytest.mark.parametrize("ratio", [0.05, 0.95])
def test_features_that_no_train_row_holds_are_dropped_at_any_ratio(ratio, planted, run_search):
    found = run_search(planted, "deepfm", ratio=ratio, epochs=1, batch_size=100_000)
    assert not found.feature_set.features.filter(pl.col("count") == 0)["kept"].any()


def same(a, b) -> bool:
    return a.feature_set.features.equals(b.feature_set.features)


@pytest.mark.parametrize("dataset", ["planted", "mixed"])
def test_the_same_seed_gives_the_same_feature_set_and_another_seed_another(dataset, request, run_search):
    log = request.getfixturevalue(dataset)
    first, second, other = (run_search(log, seed=seed, penalty=1.0, batch_size=64) for seed in (1, 1, 2))
    assert same(first, second)
    assert [epoch.valid_auc for epoch in first.history] == [epoch.valid_auc for epoch in second.history]
    for name, value in first.network.state_dict().items():
        assert torch.equal(value, second.network.state_dict()[name])
    assert not same(first, other)


class InterruptedSearchError(Exception):
    pass


class StopAfter:
    """A watcher that ends the process after some epochs."""

    def __init__(self, epochs, steps=None):
        self.epochs, self.steps = epochs, steps

    def step(self, epoch, batch, batches, rows, loss):
        if self.steps is not None and epoch > self.epochs:
            raise InterruptedSearchError

    def look(self, record):
        if self.steps is None and record.epoch == self.epochs and record.ends_epoch:
            raise InterruptedSearchError


STOPS = (StopAfter(1), StopAfter(3), StopAfter(2, steps=0), StopAfter(0, steps=0))
# Each stop, each place of rewinding and each rule; all of them together are slow.
SOME_STOPS = {(0, 0, None), (0, 2, 0.3), (2, 0, 0.3), (2, 1, None), (2, 2, None), (2, 3, 0.3)}


@pytest.mark.parametrize(
    ("rewind_epoch", "stop", "ratio"),
    [
        pytest.param(
            rewind, STOPS[stop], ratio, marks=[] if (rewind, stop, ratio) in SOME_STOPS else pytest.mark.slow
        )
        for rewind, stop, ratio in product([0, 2], range(4), [None, 0.3])
    ],
)
def test_an_interrupted_search_goes_on_to_the_same_end(
    stop, rewind_epoch, ratio, mixed, run_search, tmp_path
):
    keys = {"epochs": 4, "rewind_epoch": rewind_epoch, "batch_size": 32, "ratio": ratio}
    keys |= {"penalty": None if ratio else 0.5}
    whole = run_search(mixed, "dcn", **keys)
    with pytest.raises(InterruptedSearchError):
        run_search(mixed, "dcn", **keys, folder=tmp_path / "broken", watcher=stop)
    resumed = run_search(mixed, "dcn", **keys, folder=tmp_path / "broken")
    assert same(whole, resumed)
    assert whole.feature_set.provenance == resumed.feature_set.provenance
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name])


class StopAtLook:
    """A watcher that ends the process after some looks."""

    def __init__(self, looks):
        self.looks = looks

    def step(self, epoch, batch, batches, rows, loss):
        pass

    def look(self, record):
        self.looks -= 1
        if self.looks == 0:
            raise InterruptedSearchError


def test_a_search_of_one_pass_interrupted_within_it_goes_on_to_the_same_end(
    mixed, run_search, tmp_path, monkeypatch
):
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    keys = {"epochs": 1, "rewind_epoch": 0.5, "batch_size": 16, "penalty": 0.5}
    whole = run_search(mixed, "dcn", **keys)
    for looks in (2, 4, 3):  # after the second, the sixth and the ninth look
        with pytest.raises(InterruptedSearchError):
            run_search(mixed, "dcn", **keys, folder=tmp_path / "broken", watcher=StopAtLook(looks))
    resumed = run_search(mixed, "dcn", **keys, folder=tmp_path / "broken")
    assert len(whole.history) == len(resumed.history) == 10
    assert same(whole, resumed)
    assert (whole.evidence == resumed.evidence).all()
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name])
    start = run_search(mixed, "dcn", **{**keys, "rewind_epoch": 0}).network
    assert not torch.equal(start.table.weight, whole.network.table.weight)


def test_a_finished_search_that_is_asked_for_again_trains_nothing(planted, run_search, tmp_path):
    first = run_search(planted, folder=tmp_path / "one")
    second = run_search(planted, folder=tmp_path / "one", watcher=StopAfter(1))
    assert same(first, second)
    assert first.history == second.history


def test_weights_go_back_to_the_start_of_the_rewind_epoch(planted, run_search):
    fresh = run_search(planted, epochs=1, rewind_epoch=0).network.state_dict()
    again = run_search(planted, epochs=3, rewind_epoch=0).network.state_dict()
    later = run_search(planted, epochs=3, rewind_epoch=1).network.state_dict()
    assert not any(name.startswith("gate") for name in again)
    assert set(later) == set(again)
    for name, value in again.items():
        assert torch.equal(value, fresh[name])
        if name not in ("bias", "slope", "intercept"):
            assert not torch.equal(value, later[name])
    assert not torch.equal(later["bias"], torch.zeros(1))  # everything trainable is rewound, biases as well


def test_gates_harden_while_the_temperature_rises_to_the_final_one(planted, run_search):
    found = run_search(planted, epochs=4, final_temperature=300.0)
    temperatures = [epoch.extra["temperature"] for epoch in found.history]
    assert temperatures == sorted(temperatures)
    assert 200 < temperatures[-1] <= 300
    opened = [epoch.extra["open"] for epoch in found.history]
    assert opened[-1] < 0.25
    assert opened[-1] == pytest.approx(found.feature_set.counts()["ratio"], abs=0.02)


def test_the_order_of_columns_in_the_input_does_not_matter(make_dataset, run_search):
    frame = mixed_log()
    straight = run_search(make_dataset(frame, MIXED_FIELDS), penalty=0.5, batch_size=64)
    turned = run_search(
        make_dataset(frame.select(reversed(frame.columns)), MIXED_FIELDS), penalty=0.5, batch_size=64
    )
    assert same(straight, turned)
    assert straight.feature_set.digest() == turned.feature_set.digest()


@pytest.mark.parametrize("only", ["lists", "scaled", "single"])
def test_logs_of_one_kind_of_field_can_be_searched(only, make_dataset, run_search):
    names = {"lists": ["tags", "words"], "scaled": ["price"], "single": ["user"]}[only]
    dataset = make_dataset(mixed_log(), [field for field in MIXED_FIELDS if field["name"] in names])
    found = run_search(dataset, "deepfm", penalty=0.0, batch_size=64)
    assert compact_layout(dataset, found.feature_set).rows == int(found.feature_set.kept.sum()) + 1


def test_batch_norm_leaves_the_planted_truth_where_it_is(planted, run_search):
    found = run_search(planted, "deepfm", norm="batch")
    assert kept_values(found.feature_set, "useful") == USEFUL
    assert noise_kept(found.feature_set) <= 9


def test_rare_clicks_leave_the_planted_truth_where_it_is(make_dataset, run_search):
    log = planted_log(12_000)
    clicks = log.filter(pl.col("click") == 1).head(500)
    rare = pl.concat([log.filter(pl.col("click") == 0), clicks]).sample(fraction=1.0, shuffle=True, seed=0)
    found = run_search(make_dataset(rare, PLANTED_FIELDS), "deepfm")
    assert len(kept_values(found.feature_set, "useful")) >= 6
    assert noise_kept(found.feature_set) <= 9


def test_on_a_synthetic_log_noise_is_dropped_and_the_detectable_kept(tmp_path_factory, run_search):
    folder = tmp_path_factory.mktemp("demo")
    truth = write_log("demo", folder / "log", rows=60_000, seed=0)
    schema = load_schema(folder / "log" / "schema.toml")
    dataset = Dataset(ingest(schema, folder / "log" / "log.parquet", folder))
    found = run_search(dataset, "deepfm", batch_size=512)
    values = found.feature_set.features.filter(pl.col("role") == "value")
    rate = dataset.manifest["positives"]["train"] / dataset.manifest["rows"]["train"]
    judged = truth.detectable(values, rate).with_columns(values["kept"])
    noise, detectable = judged.filter(pl.col("field_role") == "noise"), judged.filter("detectable")
    assert noise.height > 3000
    assert detectable.height > 50
    assert (~noise["kept"]).mean() > 0.9
    assert detectable["kept"].mean() > 0.85
    assert found.feature_set.counts()["ratio"] < 0.3
    assert Layout(dataset).rows == dataset.features + 1


def test_in_one_pass_over_a_synthetic_log_noise_is_dropped_and_the_detectable_kept(
    tmp_path_factory, run_search
):
    # The settings of several epochs do; only rows are missing: on 60 thousand of them, two thirds of the detectable
    # values are kept after one pass (and 96 % of noise dropped), after three passes 86 %.
    folder = tmp_path_factory.mktemp("demo")
    truth = write_log("demo", folder / "log", rows=150_000, seed=0)
    schema = load_schema(folder / "log" / "schema.toml")
    dataset = Dataset(ingest(schema, folder / "log" / "log.parquet", folder))
    found = run_search(dataset, "deepfm", batch_size=512, epochs=1, rewind_epoch=0.5)
    values = found.feature_set.features.filter(pl.col("role") == "value")
    rate = dataset.manifest["positives"]["train"] / dataset.manifest["rows"]["train"]
    judged = truth.detectable(values, rate).with_columns(values["kept"])
    noise, detectable = judged.filter(pl.col("field_role") == "noise"), judged.filter("detectable")
    assert min(noise.height, 5 * detectable.height) > 3000
    assert (~noise["kept"]).mean() > 0.95
    assert detectable["kept"].mean() > 0.78
    assert found.history[-1].extra["temperature"] > 190  # annealed within the pass
    assert len(found.history) == 10


def test_coverage_of_a_shared_vocabulary_counts_what_all_of_its_fields_hold(make_dataset):
    # In train every row has an item and two seen ones; in valid the items are new and one seen value is left.
    rows = range(100)
    frame = pl.DataFrame(
        {
            "time": rows,
            "click": [n % 2 for n in rows],
            "item": [f"i{n % 4}" if n < 80 else f"new{n}" for n in rows],
            "seen": [f"i{n % 3}|i3" if n < 80 else f"i{n % 3}" for n in rows],
            "other": [f"o{n % 2}" for n in rows],
        }
    )
    split = {"by": "time", "column": "time", "valid": 0.1, "test": 0.1}
    seen = {"name": "seen", "kind": "list", "separator": "|", "shares": "item"}
    dataset = make_dataset(frame, [{"name": "item"}, seen, {"name": "other"}], split=split)
    found = coverage(dataset, dataset.part("valid"))
    shares = {info.name: set(found[info.offset : info.offset + info.features]) for info in dataset.fields}
    assert shares == {"item": {1 / 3}, "seen": {1 / 3}, "other": {1.0}}


def test_coverage_is_how_much_of_a_field_is_still_seen_on_valid(make_dataset):
    # 80 train rows, then 10 of valid and 10 of test. `gone` stops, `half` is missing in every other valid row.
    rows = range(100)
    frame = pl.DataFrame(
        {
            "time": rows,
            "click": [n % 2 for n in rows],
            "gone": [f"g{n % 4}" if n < 80 else f"new{n}" for n in rows],
            "half": [f"h{n % 5}" if n < 80 or n % 2 else None for n in rows],
            "same": [f"s{n % 2}" for n in rows],
            "more": ["m" if n >= 80 or n % 4 == 0 else None for n in rows],
            "tags": ["a|b" if n < 80 else "a" for n in rows],
        }
    )
    split = {"by": "time", "column": "time", "valid": 0.1, "test": 0.1}
    fields = [{"name": name} for name in ("gone", "half", "same", "more")]
    tags = {"name": "tags", "kind": "list", "separator": "|"}
    dataset = make_dataset(frame, [tags, *fields], split=split)
    found = coverage(dataset, dataset.part("valid"))
    shares = {info.name: found[info.offset : info.offset + info.features].tolist() for info in dataset.fields}
    expected = {"gone": 0.0, "half": 0.5, "same": 1.0, "more": 1.0, "tags": 0.5}
    assert shares == {name: [expected[name]] * len(shares[name]) for name in shares}
