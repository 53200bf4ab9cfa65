"""Shadow fields: the values of a field, as often, in other rows; and the dataset stays as it is."""

import numpy as np
import polars as pl
import pytest
import torch

from ctr.dataset.batches import Batches
from ctr.dataset.ingest import ingest
from ctr.dataset.layout import Layout
from ctr.dataset.placement import place
from ctr.dataset.shadow import ShadowLayout, shadows
from ctr.dataset.store import Dataset
from ctr.errors import ConfigError
from ctr.selection.compaction import feature_counts
from ctr.training.feeding import hold

FIELDS = [
    {"name": "tags", "kind": "list", "separator": "|"},
    {"name": "user"},
    {"name": "price", "kind": "numeric", "transform": "standard"},
    {"name": "day"},
]


@pytest.fixture
def dataset(write, run, small_log):
    return Dataset(run(write("log.csv", small_log), fields=FIELDS))


def gathered(layout, part, epoch=0, size=64):
    """ids, values, rows and labels of a whole shuffled epoch."""
    batches = list(Batches(part, layout, size, seed=1).epoch(epoch))
    names = ("ids", "values", "rows", "labels")
    return {name: np.concatenate([getattr(batch, name) for batch in batches]) for name in names}


def test_a_copy_holds_the_values_of_its_field_as_often_in_other_rows(dataset):
    found = shadows(dataset, 0.5, seed=0)
    assert [field.name for field in found.copied] == ["user", "day"]
    for name in ("train", "valid"):
        part = dataset.part(name)
        rows = gathered(ShadowLayout(found), part)["ids"]
        for slot, copied, (field, other) in (
            (0, 3, (found.copied[0], found.copies[0])),
            (2, 4, (found.copied[1], found.copies[1])),
        ):
            real = rows[:, slot] - field.offset
            shuffled = rows[:, copied] - other.offset
            assert np.array_equal(np.sort(real), np.sort(shuffled))
            assert (real == shuffled).mean() < 0.35


def test_real_ids_numbers_and_labels_are_those_of_a_search_without_copies(dataset):
    part, found = dataset.part("train"), shadows(dataset, 0.5, seed=0)
    plain, more = gathered(Layout(dataset), part), gathered(ShadowLayout(found), part)
    assert np.array_equal(more["ids"][:, :3], plain["ids"])
    assert np.array_equal(more["values"][:, :3], plain["values"])
    assert (more["values"][:, 3:] == 1.0).all()
    assert np.array_equal(more["labels"], plain["labels"])


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("encoding", ["vocabulary", "hashed"])
def test_where_features_are_hashed_copies_are_shuffled_alike_and_read_rows_by_keys_of_their_own(
    encoding, shared, write, tmp_path, make_schema, small_log
):
    # The last users are in valid alone: train knows neither them nor, in the copy, their keys.
    lines = [
        line.replace(",u7,", ",u0,") if row < 300 else line for row, line in enumerate(small_log.splitlines())
    ]
    schema = make_schema(fields=FIELDS, split={"by": "time", "column": "day", "valid": 0.2, "test": 0.1})
    path = write("log.csv", "\n".join(lines))
    dataset = Dataset(ingest(schema, path, tmp_path / "datasets", encoding=encoding))
    placement = place(feature_counts(dataset), shared=shared, dim=4, linear=1, rows=12)
    next(
        iter(Batches(dataset.part("train"), Layout(dataset, placement=placement), 8).epoch())
    )  # sorts the keys
    found = shadows(dataset, 0.3, seed=1)
    (field,), (other,) = found.copied, found.copies
    assert field.name == "user"
    layout = ShadowLayout(found, placement.with_copies(feature_counts(dataset), {other.name: field.name}))
    for name in ("train", "valid"):
        part = dataset.part(name)
        batches = [
            next(iter(Batches(part, own, 400, seed=1).epoch()))
            for own in (Layout(dataset, placement=placement), layout)
        ]
        plain, more = batches
        assert np.array_equal(more.ids[:, :3], plain.ids)  # user, price, day
        assert np.array_equal(more.values[:, :3], plain.values)
        assert np.array_equal(more.list_ids, plain.list_ids)
        assert np.array_equal(more.labels, plain.labels)
        real, shuffled = plain.ids[:, 0], more.ids[:, 3]
        moved = np.where(shuffled, shuffled - other.offset + field.offset, 0)
        assert np.array_equal(np.sort(real), np.sort(moved))  # marginally equal
        assert (real == moved).mean() < 0.35
        assert (real <= 1 + field.offset).any() == (name == "valid")  # unknown
        # A feature of the copy is read at one place, within the stretch of the copy, and not where its value is.
        own = layout.placement.stretches[layout.placement.of(other.name)]
        rows = more.places[:, 3]
        assert ((rows[shuffled > 0] >= own.start) & (rows[shuffled > 0] < own.start + own.rows)).all()
        assert len(np.unique(np.column_stack([shuffled, rows]), axis=0)) == len(np.unique(shuffled))
        at = {number: tuple(place - own.start) for number, place in zip(moved, rows, strict=True)}
        first = layout.placement.stretches[layout.placement.of("user")].start
        same = [
            at[number] == tuple(place - first) for number, place in zip(real, more.places[:, 0], strict=True)
        ]
        assert np.mean(same) < 0.6


def test_rows_are_not_held_on_a_device_where_copies_are_in_no_column(write, run, small_log):
    dataset = Dataset(run(write("log.csv", small_log), fields=[{"name": "user"}, {"name": "day"}]))
    part, found = dataset.part("train"), shadows(dataset, 0.5, seed=0)
    cpu = torch.device("cpu")
    assert hold(Batches(part, Layout(dataset), 64), cpu, 1e9) is not None
    assert hold(Batches(part, ShadowLayout(found), 64), cpu, 1e9) is None


def test_a_row_has_the_same_copies_in_every_epoch_and_others_under_another_seed(dataset):
    part = dataset.part("train")

    def copies(seed, epoch, size):
        rows = gathered(ShadowLayout(shadows(dataset, 0.5, seed)), part, epoch, size)
        return rows["ids"][np.argsort(rows["rows"])][:, 3:]

    assert np.array_equal(copies(0, 0, 64), copies(0, 3, 17))
    assert not np.array_equal(copies(0, 0, 64), copies(7, 0, 64))


def test_copies_of_two_fields_are_shuffled_apart(dataset):
    rows = gathered(ShadowLayout(shadows(dataset, 0.5, seed=0)), dataset.part("train"))["ids"]
    assert len(np.unique(rows[:, [0, 2]], axis=0)) == len(rows)  # no two rows have user and day in common
    assert len(np.unique(rows[:, 3:], axis=0)) < 0.9 * len(rows)


def test_features_of_copies_come_after_all_others_and_the_dataset_stays_as_it_is(dataset):
    before = (list(dataset.fields), dataset.features, dataset.vocabulary.clone())
    found = shadows(dataset, 0.5, seed=0)
    assert found.features == dataset.features == before[1]
    assert dataset.fields == before[0]
    assert dataset.vocabulary.equals(before[2])
    wide = found.dataset
    assert wide.features == dataset.features + sum(field.features for field in found.copied)
    assert wide.vocabulary.height == wide.features
    assert wide.vocabulary.head(dataset.features).equals(dataset.vocabulary)
    assert [field.name for field in wide.fields] == [
        "user",
        "price",
        "day",
        "user (shuffled)",
        "day (shuffled)",
        "tags",
    ]
    for field in found.copies:
        own = wide.vocabulary[field.offset : field.offset + field.features]
        assert own["field"].unique().to_list() == [field.name]


def test_at_least_one_field_is_copied_and_large_ones_more_often(write, run):
    draw = np.random.default_rng(0)
    frame = pl.DataFrame({"click": draw.integers(0, 2, 600), "few": draw.integers(0, 2, 600)})
    frame = frame.with_columns(many=pl.Series(draw.integers(0, 100, 600)))
    folder = run(write("log.csv", frame.write_csv()), fields=[{"name": "few"}, {"name": "many"}])
    drawn = [shadows(Dataset(folder), 0.01, seed).copied for seed in range(40)]
    assert {len(copied) for copied in drawn} == {1}
    assert sum(copied[0].name == "many" for copied in drawn) > 30


def test_a_log_of_which_no_field_can_be_copied_is_refused(write, run, small_log):
    fields = [{**FIELDS[0]}, {**FIELDS[2]}, {"name": "user", "keep": "always"}]
    with pytest.raises(ConfigError, match=r'selector\.shadow: no field of "log" can be copied'):
        shadows(Dataset(run(write("log.csv", small_log), fields=fields)), 0.5, seed=0)
