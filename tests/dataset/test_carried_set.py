"""A feature set on later rows: what was judged stays, what was not is dropped or kept as stated, and is counted."""

import numpy as np
import polars as pl
import pytest

from ctr.dataset.carried_set import carried, unjudged
from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.ingest import ingest
from ctr.dataset.schema import Schema
from ctr.dataset.store import Dataset
from ctr.settings import check

FIELDS = [
    {"name": "user", "min_count": 2},
    {"name": "shop", "min_count": 1},
    {"name": "tags", "kind": "list", "separator": "|"},
    {"name": "price", "kind": "numeric", "transform": "standard"},
]
ROWS = 400


@pytest.fixture(scope="module", params=["vocabulary", "hashed"])
def datasets(request, tmp_path_factory):
    """The first half of a log and all of it: new users, shops and tags come in the second half."""
    folder = tmp_path_factory.mktemp(request.param)
    row = np.arange(ROWS)
    late = row >= ROWS // 2
    frame = pl.DataFrame(
        {
            "time": row,
            "click": row // 3 % 2,
            "user": [f"u{n % 7 + 7 * new}" for n, new in zip(row, late, strict=True)],
            "shop": [f"s{n % 5 + 5 * (new and n % 5 == 0)}" for n, new in zip(row, late, strict=True)],
            "tags": [
                ["a|b", "a", None, "new" if new else "b"][n % 4] for n, new in zip(row, late, strict=True)
            ],
            "price": row * 0.5,
        }
    )
    found = []
    for name, rows in (("early", ROWS // 2), ("late", ROWS)):
        frame.head(rows).write_csv(folder / f"{name}.csv")
        split = {"by": "time", "column": "time", "valid": 0.1, "test": 0.1}
        content = {"name": name, "label": "click", "split": split, "fields": FIELDS}
        schema = check(content, Schema, "schema")
        path = ingest(schema, folder / f"{name}.csv", folder / "datasets", encoding=request.param)
        found.append(Dataset(path))
    return found


def selected(dataset, keep, dropped_reads="zero"):
    """Keeps the values that `keep` says of field and number within its field, and all that is no value."""
    rows = dataset.vocabulary.select("field", "role", "id").rows()
    kept = np.array([role != "value" or keep(field, number - 2) for field, role, number in rows])
    gate = np.where(kept, 1.0, -1.0)
    return FeatureSet.of(dataset, kept, gate, {"selector": "made up"}, dropped_reads)


def state(feature_set, dataset):
    """Whether each feature is kept, by its key."""
    return dict(zip(dataset.keys.tolist(), feature_set.kept.tolist(), strict=True))


def half(field, number):
    return number % 2 == 0 or field == "shop"


@pytest.mark.parametrize("new_values", ["drop", "keep"])
def test_what_was_judged_stays_and_new_values_are_as_stated(datasets, new_values):
    early, late = datasets
    before = selected(early, half)
    after = carried(before, late, new_values)
    old, new = state(before, early), state(after, late)
    fields = dict(zip(late.keys.tolist(), late.vocabulary["field"], strict=True))
    values = set(late.keys[(late.vocabulary["role"] == "value").to_numpy()].tolist())
    assert {key for key in values if key in old and new[key] != old[key]} == set()
    fresh = {key for key in values if key not in old}
    assert {fields[key] for key in fresh} == {"user", "shop", "tags"}
    for key in fresh:
        # The set keeps all shops, so it keeps new ones too.
        assert new[key] == (new_values == "keep" or fields[key] == "shop")
    assert after.provenance["selected_on"] == early.digest
    assert after.provenance["dataset"] == late.digest


def test_on_its_own_dataset_a_set_stays_what_it_is(datasets):
    early, _ = datasets
    for reads in ("zero", "unknown"):
        before = selected(early, half, reads)
        assert carried(before, early, "drop").digest() == before.digest()


def test_pairs_interact_as_they_did(datasets):
    early, late = datasets
    pairs = pl.DataFrame({"field_a": ["user"], "field_b": ["shop"], "method": ["memorize"]})
    after = carried(selected(early, half).with_interactions(pairs), late, "drop")
    assert after.pairs("memorize") == [("user", "shop")]


def test_impressions_with_what_had_no_feature_are_counted(datasets):
    early, late = datasets
    found = unjudged(late.scanned("test"), late, early)
    # All users are new in the second half, every fifth shop, and every fourth row has a new tag.
    assert found.fields == pytest.approx({"user": 1.0, "shop": 0.2, "tags": 0.25}, abs=0.03)
    assert found.any == 1.0
    assert unjudged(early.scanned("test"), early, early).any == 0.0


def test_rows_count_by_their_weights(datasets):
    early, late = datasets
    rows = late.scanned("test")
    shops = late.scanned("test").select("shop").collect()["shop"].to_numpy()
    frequent = shops == np.median(shops)
    weights = np.where(frequent, 3.0, 1.0)
    plain = unjudged(rows, late, early).fields["shop"]
    heavy = unjudged(rows, late, early, weights).fields["shop"]
    assert heavy != pytest.approx(plain, abs=0.01)
