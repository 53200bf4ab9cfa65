"""Selectors as transformers: what they find, what they give back, and what they refuse."""

import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from ctr import (
    FieldSelector,
    FrequencySelector,
    OptFSSelector,
    OptInterSelector,
    RandomSelector,
    SaliencySelector,
    TrialSelector,
)
from ctr.dataset.store import Dataset
from ctr.estimators.study import valid_rows
from tests.estimators.conftest import FAST, small_log


@pytest.fixture(scope="module")
def frequent(log):
    """The most frequent half of the values."""
    return FrequencySelector(0.5, random_state=0).fit(*log)


@pytest.fixture(scope="module")
def searched(log):
    """What OptFS keeps of a tenth."""
    return OptFSSelector(0.1, **FAST).fit(*log)


def test_optfs_finds_the_values_that_decide(searched):
    values = searched.get_value_support()
    kept = values.filter("kept")
    assert kept.filter(pl.col("field") == "user").height >= 9
    assert kept.filter(pl.col("field") != "user").height <= 5
    assert kept["score"].min() >= values.filter(~pl.col("kept"))["score"].max()


def test_saliency_finds_them_too(log):
    found = SaliencySelector(0.08, epochs=4, **FAST).fit(*log)
    assert found.kept_["user"] >= 9
    assert found.feature_set_.provenance["selector"] == "saliency"
    second = SaliencySelector(0.08, saliency="second_order", epochs=4, **FAST).fit(*log)
    assert second.feature_set_.provenance["saliency"] == "second_order"


def test_a_trial_finds_them_and_says_by_which_ranking(log):
    found = TrialSelector(0.08, epochs=4, **FAST).fit(*log)
    assert found.kept_["user"] >= 9
    provenance = found.feature_set_.provenance
    assert provenance["ranking"] in provenance["tried"]
    assert provenance["tried"][provenance["ranking"]] > provenance["tried"]["frequency"]


def test_the_share_is_of_values_and_a_constant_column_has_none(frequent, log):
    values = frequent.get_value_support()
    assert values["kept"].sum() == round(0.5 * values.height) == sum(frequent.kept_.values())
    assert frequent.kept_["same"] == 0
    assert set(values["field"]) == set(log[0].columns) - {"same"}


def test_support_and_names_are_of_columns(frequent):
    assert frequent.n_features_in_ == 6
    assert frequent.feature_names_in_.tolist() == ["noise", "user", "same", "price", "tags", "hour"]
    support = frequent.get_support()
    assert support.dtype == bool
    assert frequent.get_support(indices=True).tolist() == np.flatnonzero(support).tolist()
    assert frequent.get_feature_names_out().tolist() == frequent.feature_names_in_[support].tolist()
    assert not support[2]
    with pytest.raises(ValueError, match="not equal to feature_names_in_"):
        frequent.get_feature_names_out(["a"] * 6)


def test_dropped_values_become_missing_and_dropped_columns_leave(searched, log):
    frame, _ = log
    found = searched.transform(frame)
    assert found.columns == searched.get_feature_names_out().tolist()
    kept = set(searched.get_value_support().filter(pl.col("field") == "user", "kept")["value"])
    expected = frame["user"].set(~frame["user"].is_in(list(kept)).fill_null(False), None)
    assert found["user"].equals(expected)


def test_dropped_values_may_get_a_name(log):
    frame, clicks = log
    found = FrequencySelector(0.3, dropped_value="other", random_state=0).fit(frame, clicks)
    rows = found.transform(frame)
    kept = found.get_value_support().filter("kept")
    users = set(kept.filter(pl.col("field") == "user")["value"])
    expected = [u if u in users or u is None else "other" for u in frame["user"]]
    assert rows["user"].to_list() == expected
    assert rows["user"].null_count() == frame["user"].null_count()
    hours = set(kept.filter(pl.col("field") == "hour")["value"])
    assert 0 < len(hours) < 24
    assert rows["hour"].to_list() == [str(h) if str(h) in hours else "other" for h in frame["hour"]]


def test_values_never_seen_read_like_dropped_ones_unless_all_of_a_column_is_kept(frequent, log):
    frame = log[0].head(2).with_columns(user=pl.Series(["new", "u1"]), noise=pl.Series(["new", "new"]))
    found = frequent.transform(frame)
    assert frequent.kept_["user"] == 11
    assert found["user"].to_list() == ["new", "u1"]  # whole: nothing is dropped, so nothing is hidden
    assert frequent.kept_["noise"] < 40
    assert found["noise"].to_list() == [None, None]


def test_lists_lose_items_and_numbers_their_bins():
    draw = np.random.default_rng(1)
    rows = 600
    frame = pl.DataFrame(
        {
            "tags": [["a", "a", "b", "rare"][: n % 5] for n in range(rows)],
            "text": ["x|y|rare"[: 1 + 2 * (n % 3)] if n % 3 < 2 else "x|y|rare" for n in range(rows)],
            "price": np.where(np.arange(rows) % 3 == 0, 0.5, draw.normal(size=rows)),
        }
    )
    fields = {"text": {"kind": "list", "separator": "|"}, "price": {"bins": 10}}
    found = FrequencySelector(0.6, fields=fields, random_state=0).fit(frame, draw.integers(0, 2, rows))
    assert sum(found.kept_.values()) == round(
        0.6 * (3 + 3 + found.get_value_support().filter(field="price").height)
    )
    kept = {
        name: set(own["value"]) for (name,), own in found.get_value_support().filter("kept").group_by("field")
    }
    out = found.transform(frame)
    if "tags" in kept:
        expected = [[item for item in items if item in kept["tags"]] for items in frame["tags"]]
        assert [items or [] for items in out["tags"].to_list()] == expected
    if "text" in kept:
        expected = [
            "|".join(i for i in text.split("|") if i in kept["text"]) or None for text in frame["text"]
        ]
        assert out["text"].to_list() == expected
    assert "price" in kept
    assert set(out["price"].drop_nulls()) < set(frame["price"])
    assert 0.5 in set(out["price"])


@pytest.mark.parametrize("kind", ["pandas", "polars"])
def test_the_output_is_what_set_output_says_also_after_clone(kind, frequent, log):
    frame, clicks = log
    expected = {"pandas": pd.DataFrame, "polars": pl.DataFrame}[kind]
    chosen = clone(frequent).set_output(transform=kind)
    again = clone(chosen).fit(frame.to_pandas(), clicks)
    assert isinstance(again.transform(frame), expected)
    with sklearn.config_context(transform_output=kind):
        assert isinstance(frequent.transform(frame.to_pandas()), expected)
    assert isinstance(frequent.transform(frame.to_pandas()), pd.DataFrame)
    assert isinstance(frequent.transform(frame), pl.DataFrame)
    with pytest.raises(ValueError, match="set_output"):
        frequent.set_output(transform="numpy")


def test_pandas_polars_dicts_and_arrays_give_the_same_set(frequent, log):
    frame, clicks = log
    for given in (frame.to_pandas(), frame.to_dicts()):
        other = clone(frequent).fit(given, list(clicks))
        assert other.feature_set_.features.equals(frequent.feature_set_.features)
    plain = frame.drop("tags")
    array = plain.to_numpy()
    other = clone(frequent).fit(array, clicks)
    assert not hasattr(other, "feature_names_in_")
    named = clone(frequent).fit(plain, clicks)
    assert list(other.kept_.values()) == list(named.kept_.values())
    assert other.transform(array).shape == (frame.height, int(other.get_support().sum()))


def test_the_order_of_columns_and_extra_columns_do_not_matter(frequent, log):
    frame = log[0]
    turned = frame.select(reversed(frame.columns)).with_columns(more=1)
    assert frequent.transform(turned).equals(frequent.transform(frame))


def test_a_pickled_selector_gives_the_same(searched, log):
    again = pickle.loads(pickle.dumps(searched))
    assert again.transform(log[0]).equals(searched.transform(log[0]))


def test_the_same_seed_gives_the_same_set_and_torch_is_left_as_it_was(searched, log):
    import torch

    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    threads = torch.get_num_threads()
    again = clone(searched).fit(*log)
    assert torch.equal(torch.rand(3), expected)
    assert torch.get_num_threads() == threads
    assert np.array_equal(again.feature_set_.features["gate"], searched.feature_set_.features["gate"])


def test_rows_of_test_are_never_opened_and_nothing_is_left_on_disk(log, monkeypatch, tmp_path):
    opened = []
    real = Dataset._open
    monkeypatch.setattr(Dataset, "_open", lambda self, name: opened.append(name) or real(self, name))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    OptFSSelector(0.2, **{**FAST, "search_epochs": 1}).fit(*log)
    assert set(opened) == {"train", "valid"}
    assert list(tmp_path.iterdir()) == []


def test_no_values_of_validation_rows_alone_are_counted():
    frame, clicks = small_log(400)
    frame = frame.with_columns(user=pl.Series([f"once{n}" for n in range(400)]))
    found = FrequencySelector(1.0, validation_fraction=0.25, random_state=0).fit(frame, clicks)
    assert found.kept_["user"] == 300


def test_rows_of_weight_zero_are_as_if_they_were_not_there():
    frame, clicks = small_log(400)
    weights = np.where(np.arange(400) < 300, 1.0, 0.0)
    found = FrequencySelector(0.3, random_state=0).fit(frame, clicks, sample_weight=weights)
    other = FrequencySelector(0.3, random_state=0).fit(frame[:300], clicks[:300])
    assert found.kept_ == other.kept_


def test_a_selector_works_in_a_pipeline_and_its_size_can_be_searched_for(log):
    frame, clicks = log
    encoder = OneHotEncoder(handle_unknown="ignore")
    model = make_pipeline(FrequencySelector(0.5, random_state=0), encoder, LogisticRegression(max_iter=200))
    plain = frame.drop("tags").to_pandas()
    scores = cross_val_score(model, plain, clicks, scoring="roc_auc", cv=3, error_score="raise")
    assert scores.min() > 0.7
    search = GridSearchCV(
        model, {"frequencyselector__ratio": [0.02, 0.9]}, scoring="roc_auc", cv=2, error_score="raise"
    ).fit(plain, clicks)
    assert search.best_params_ == {"frequencyselector__ratio": 0.9}


def test_optinter_appends_the_pairs_that_are_memorized():
    draw = np.random.default_rng(0)
    a, b = draw.integers(0, 6, 900), draw.integers(0, 6, 900)
    frame = pl.DataFrame({"a": [f"{n}|" for n in a], "b": b, "c": draw.integers(0, 5, 900)})
    clicks = (draw.random(900) < np.where((a + b) % 2, 0.85, 0.15)).astype(int)
    found = OptInterSelector(**FAST).fit(frame, clicks)
    assert found.pairs_.select("field_a", "field_b").rows() == [("a", "b"), ("a", "c"), ("b", "c")]
    settings = {"selector.choice": "memorize", "selector.pairs": [["a", "b"]]}
    found = clone(found).set_params(settings=settings).fit(frame, clicks)
    rows = found.transform(frame.with_columns(b=pl.when(pl.int_range(900) > 0).then("b")))
    assert rows.columns == found.get_feature_names_out().tolist() == ["a", "b", "c", "a*b"]
    assert rows["a*b"][0] is None
    assert rows["a*b"][1] == f"{a[1]}\\||{b[1]}"  # what stands between values is told from what is in them
    assert rows["a*b"].n_unique() == 37
    assert found.get_support().all()
    assert isinstance(found.transform(frame.to_pandas()), pd.DataFrame)


def test_an_unfitted_selector_says_so(log):
    for method in ("get_support", "get_value_support", "get_feature_names_out"):
        with pytest.raises(NotFittedError):
            getattr(FrequencySelector(), method)()
    with pytest.raises(NotFittedError):
        FrequencySelector().transform(log[0])


@pytest.mark.parametrize(
    ("keys", "change", "message"),
    [
        ({"ratio": 0.0}, None, "ratio: expected a share above 0, at most 1, found 0.0"),
        ({"ratio": 1.5}, None, "ratio: expected a share above 0"),
        ({"ratio": "0.5"}, None, "ratio: expected a share above 0, at most 1, found '0.5'"),
        ({"ratio": True}, None, "ratio: expected a share above 0, at most 1, found True"),
        ({"validation_fraction": 0.0}, None, "validation_fraction: expected a share above 0"),
        ({"fields": {"usr": {}}}, None, '"usr" is no column of X; the nearest name is "user"'),
        ({}, lambda x, y: (x, y[:-1]), "inconsistent numbers of samples"),
        ({}, lambda x, y: (x, None), "requires y to be passed"),
        ({}, lambda x, y: (x, np.zeros_like(y)), "one class alone, 0"),
        (
            {},
            lambda x, y: (x, np.arange(len(y)) % 3),
            "expected labels of two classes, such as 0 and 1, found 0, 1, 2",
        ),
        ({}, lambda x, y: (x, y + 0.5 * (np.arange(len(y)) % 7)), "Unknown label type"),
        ({}, lambda x, y: (x, [None, *y[1:]]), "NaN or None"),
        ({}, lambda x, y: (x[:0], y[:0]), r"0 sample\(s\)"),
        ({}, lambda x, y: (x.select("same"), y), "say the same in every row"),
        ({}, lambda x, y: (x[:9], [1, *[0] * 8]), "holds one class 1 time in n_samples = 9"),
        (
            {},
            lambda x, y: (x.with_columns(at=pl.struct("user", "hour")), y),
            'column "at": expected text, numbers',
        ),
        (
            {"fields": {"user": {"kind": "numeric", "transform": "standard"}}},
            None,
            "expected a finite number",
        ),
        ({"shuffle": False}, lambda x, y: (x[np.argsort(y)], np.sort(y)), "leaves the last rows.*one class"),
    ],
)
def test_what_cannot_be_meant_is_a_value_error_that_says_why(keys, change, message, log):
    given = log if change is None else change(*log)
    with pytest.raises(ValueError, match=message):
        FrequencySelector(**{"random_state": 0, **keys}).fit(*given)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"ratio": 0.5, "penalty": 1.0}, "selector: state ratio or penalty, not both"),
        ({"ratio": "0.5"}, "ratio: expected a share above 0, at most 1, found '0.5'"),
        ({"penalty": "2.5"}, "selector.penalty: expected"),
        ({"backbone": "depfm"}, "backbone.kind: expected"),
        ({"batch_size": 0}, "training.batch_size: expected"),
        (
            {"settings": {"selector.rewind_epok": 1}},
            'selector.rewind_epok: unknown key; the nearest name is "rewind_epoch"',
        ),
        ({"n_jobs": 10_000}, "training.threads = 10000"),
    ],
)
def test_wrong_parameters_are_told_by_their_name_in_the_configuration(keys, message, log):
    with pytest.raises(ValueError, match=message):
        OptFSSelector(**keys).fit(*log)


def test_cells_that_are_none_of_a_column_are_told_at_transform(log):
    frame, clicks = log
    found = FrequencySelector(1.0, random_state=0).fit(frame, clicks)
    with pytest.raises(ValueError, match=r"price.*found 'cheap'"):
        found.transform(frame.head(2).with_columns(price=pl.Series(["cheap", "1.0"])))
    with pytest.raises(ValueError, match='X lacks 1 of the columns that it was fitted on: "price"'):
        found.transform(frame.drop("price"))


def test_random_values_depend_on_the_seed_alone(log):
    sets = [
        RandomSelector(0.4, random_state=seed).fit(*log).get_value_support()["kept"] for seed in (1, 1, 2)
    ]
    assert sets[0].equals(sets[1])
    assert not sets[0].equals(sets[2])


@pytest.mark.parametrize("share", [0.01, 0.2, 0.6])
def test_validation_rows_are_a_share_of_each_class(share):
    labels = np.r_[np.zeros(90, int), np.ones(10, int)]
    train, valid = valid_rows(labels, share, True, 3)
    assert sorted([*train, *valid]) == list(range(100))
    assert np.bincount(labels[valid]).tolist() == [max(1, round(90 * share)), max(1, round(10 * share))]
    assert not np.array_equal(valid, valid_rows(labels, share, True, 4)[1])


def test_without_shuffling_the_last_rows_validate():
    train, valid = valid_rows(np.arange(10) % 2, 0.3, False, 0)
    assert (train.tolist(), valid.tolist()) == (list(range(7)), [7, 8, 9])


@pytest.mark.parametrize("criterion", ["mutual_information", "chi2", "l1", "permutation", "gates"])
def test_whole_columns_are_kept_by_any_criterion(criterion, log):
    found = FieldSelector(criterion, 0.09, epochs=2, **{**FAST, "learning_rate": 0.05}).fit(*log)
    assert found.get_feature_names_out().tolist() == ["user"]
    assert max(found.scores_, key=found.scores_.__getitem__) == "user"
    assert found.transform(log[0]).equals(log[0].select("user"))


def test_a_criterion_that_there_is_not_is_told(log):
    with pytest.raises(
        ValueError, match="criterion: found 'mutual_info'; the nearest name is \"mutual_information\""
    ):
        FieldSelector("mutual_info").fit(*log)
