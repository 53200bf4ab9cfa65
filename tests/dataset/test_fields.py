"""What production logs hold: weights, missing values, long and shared lists, vectors, bias fields, row ids."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.dataset import canonical
from ctr.dataset.batches import Batches
from ctr.dataset.field_cells import prepare
from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.ingest import ingest
from ctr.dataset.layout import Layout
from ctr.dataset.schema import Schema
from ctr.dataset.stacked import stacked
from ctr.dataset.store import MISSING, Dataset
from ctr.errors import ConfigError, DataError
from ctr.settings import check

SPLIT = {"by": "time", "column": "t", "valid": 0.2, "test": 0.2}


@pytest.fixture
def dataset_of(tmp_path):
    """A dataset of columns given as a dict; `click` alternates and `t` counts unless they are given."""

    def build(columns: dict, fields: list[dict], **keys) -> Dataset:
        rows = len(next(iter(columns.values())))
        frame = pl.DataFrame(
            {"t": range(rows), "click": [n % 2 for n in range(rows)], **columns}, strict=False
        )
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.parquet"
        frame.write_parquet(path)
        content = {"name": "log", "label": "click", "read": {"format": "parquet"}, "split": SPLIT, **keys}
        return Dataset(
            ingest(check({**content, "fields": fields}, Schema, "schema"), path, tmp_path / "data")
        )

    return build


def counts(dataset, field):
    """(value or role, count, weighted count) of a field's features that some train row holds."""
    own = dataset.vocabulary.filter(pl.col("field") == field, pl.col("count") > 0)
    return [(v or r, c, w) for v, r, c, w in own.select("value", "role", "count", "weighted_count").rows()]


# Weights and sampling


def test_raw_and_weighted_counts_are_both_stored_and_weights_decide_what_is_rare(dataset_of):
    weights = [0.5] * 10 + [3.0] * 10
    columns = {"user": ["a"] * 9 + ["b", "c"] + ["d"] * 9, "w": weights}
    found = dataset_of(columns, [{"name": "user", "min_count": 3}], weight="w")
    # Twelve rows train: nine a at .5, one b at .5 (too light), one c at 3 (heavy enough), one d at 3.
    assert counts(found, "user") == [("unknown", 1, 0.5), ("a", 9, 4.5), ("c", 1, 3.0), ("d", 1, 3.0)]


def test_a_sampled_negative_counts_for_those_that_were_left_out(dataset_of):
    columns = {"user": ["a", "b"] * 10, "click": [0, 1] * 10}
    found = dataset_of(columns, [{"name": "user"}], negative_keep_rate=0.25)
    assert counts(found, "user") == [("a", 6, 24.0), ("b", 6, 6.0)]


def test_items_of_lists_bins_and_numbers_are_weighed_as_well(dataset_of):
    columns = {
        "tags": [["x", "y"], ["x"], []] * 7,
        "price": [1.0, 2.0, None] * 7,
        "age": [1.0, 2.0, None] * 7,
        "w": [1.0, 2.0, 4.0] * 7,
    }
    fields = [
        {"name": "tags", "kind": "list"},
        {"name": "price", "kind": "numeric", "transform": "quantile", "bins": 2},
        {"name": "age", "kind": "numeric", "transform": "standard"},
    ]
    found = dataset_of(columns, fields, weight="w")
    rows = found.manifest["rows"]["train"]  # 13: five times the first row, four times the others
    assert rows == 13
    assert counts(found, "tags") == [("missing", 4, 16.0), ("x", 9, 13.0), ("y", 5, 5.0)]
    assert counts(found, "price") == [("missing", 4, 16.0), ("0", 5, 5.0), ("1", 4, 8.0)]
    assert counts(found, "age") == [("missing", 4, 16.0), ("value", 9, 13.0)]


def test_weights_of_batches_are_one_on_average_over_train(dataset_of):
    found = dataset_of({"user": ["a", "b"] * 20, "w": [1.0, 3.0] * 20}, [{"name": "user"}], weight="w * 2")
    part = found.part("train")
    assert part.weights.tolist() == [0.5, 1.5] * 12
    batch = next(Batches(part, Layout(found), 4).epoch())
    assert batch.weights.tolist() == [0.5, 1.5, 0.5, 1.5]
    assert found.manifest["weights"] == {
        "mean": 4.0,
        "min": 2.0,
        "max": 6.0,
        "zero_rows": 0,
        "sums": {"train": 96.0, "valid": 32.0, "test": 32.0},
        "positives": {"train": 72.0, "valid": 24.0, "test": 24.0},
    }


@pytest.mark.parametrize("weight", [-1.0, None, float("inf"), float("nan")])
def test_a_row_with_a_weight_that_is_none_is_set_aside(dataset_of, weight):
    columns = {"user": ["a", "b"] * 20, "w": [1.0] * 39 + [weight]}
    found = dataset_of(
        columns, [{"name": "user"}], weight="w", read={"format": "parquet", "max_bad_rows": 0.1}
    )
    aside = pl.read_parquet(found.folder / "set_aside.parquet")
    assert aside.select("row", "column", "reason").rows() == [
        (40, "w", "expected a finite weight of 0 or more")
    ]
    with pytest.raises(
        DataError, match=r'break the schema.*\n.*row 40, column "w".*finite weight of 0 or more'
    ):
        dataset_of(columns, [{"name": "user"}], weight="w")


def test_weights_that_are_all_zero_are_refused(dataset_of):
    with pytest.raises(
        DataError, match=r'weight "w": expected weights above 0 in train.*label 0 there weigh 0'
    ):
        dataset_of({"user": ["a", "b"] * 20, "w": [0.0] * 40}, [{"name": "user"}], weight="w")


def test_a_log_without_weights_has_none(dataset_of):
    found = dataset_of({"user": ["a", "b"] * 20}, [{"name": "user"}])
    assert found.part("train").weights is None
    assert found.manifest["weights"] is None
    assert found.part("train").keep_rate == 1.0


@pytest.mark.parametrize("rate", [0, -0.5, 1.5, "half"])
def test_a_keep_rate_outside_its_range_is_refused(make_schema, rate):
    with pytest.raises(ConfigError, match="negative_keep_rate"):
        make_schema(negative_keep_rate=rate)


# Missing values


@pytest.mark.parametrize("cells", [[-1, 0, 1], ["-1", "0", "1"], [-1.0, 0.0, 1.0]])
def test_missing_values_are_one_text_whatever_their_type(cells):
    field = FieldSpec(name="f", missing_values=[-1])
    assert prepare(field, pl.Series("f", cells)).values.to_list() == [None, "0", "1"]


def test_missing_values_of_the_schema_and_of_the_field_add_up():
    field = FieldSpec(name="f", missing_values=["?"])
    assert prepare(field, pl.Series("f", ["?", "n/a", "x", ""]), ["n/a"]).values.to_list() == [
        None,
        None,
        "x",
        None,
    ]


def test_a_missing_number_need_not_be_a_number():
    field = FieldSpec(name="f", kind="numeric", transform="minmax", missing_values=["none", -999])
    cells = prepare(field, pl.Series("f", [" none", "-999.0", "2", "x"]))
    assert cells.values.to_list() == [None, None, 2.0, None]
    assert cells.broken.to_list() == [False, False, False, True]


def test_missing_items_leave_a_list():
    field = FieldSpec(name="f", kind="list", separator="|", missing_values=[-1])
    assert prepare(field, pl.Series("f", ["a|-1|b", "-1"])).values.to_list() == [["a", "b"], None]


# Lists


def test_longer_lists_are_cut_off_and_counted(dataset_of):
    columns = {"tags": [["a", "b", "c", "d"], ["b"], ["a", "b"]] * 10}
    found = dataset_of(columns, [{"name": "tags", "kind": "list", "max_length": 2}])
    assert found.manifest["fields"][0]["truncated"] == 10
    flat, offsets = found.part("train").lists[0]
    assert (np.diff(offsets) <= 2).all()
    assert counts(found, "tags") == [("b", 18, 18.0), ("a", 12, 12.0)]
    assert len(flat) == 30


def test_a_shared_vocabulary_is_counted_over_both_fields_and_has_one_id_for_a_value(dataset_of):
    columns = {"item": ["x", "y"] * 10, "seen": [["y", "z"], []] * 10, "last": ["z", None] * 10}
    fields = [
        {"name": "seen", "kind": "list", "shares": "item"},
        {"name": "item", "min_count": 7},
        {"name": "last", "shares": "item"},
    ]
    found = dataset_of(columns, fields)
    # Train rows 0 to 11: x 6 (rare), y 6 + 6, z 6 + 6; six empty lists and six missing last items.
    assert counts(found, "item") == [
        ("unknown", 6, 6.0),
        ("missing", 12, 12.0),
        ("y", 12, 12.0),
        ("z", 12, 12.0),
    ]
    assert found.features == 4
    assert {info.name: (info.offset, info.features, info.shares) for info in found.fields} == {
        "item": (0, 4, None),
        "last": (0, 4, "item"),
        "seen": (0, 4, "item"),
    }
    part = found.part("train")
    assert part.ids[:2].tolist() == [[0, 3], [2, MISSING]]  # item, last
    assert part.lists[0][0][:3].tolist() == [2, 3, MISSING]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([{"name": "a", "shares": "b"}], "names no other field"),
        ([{"name": "a", "shares": "a"}], "names no other field"),
        ([{"name": "a", "shares": "b"}, {"name": "b", "shares": "c"}, {"name": "c"}], 'state shares = "c"'),
        (
            [{"name": "a", "shares": "n"}, {"name": "n", "kind": "numeric", "transform": "minmax"}],
            "has no vocabulary to share",
        ),
        ([{"name": "a", "shares": "b", "pii": True}, {"name": "b"}], "pii must be set for both or for none"),
        (
            [{"name": "a", "shares": "b", "min_count": 2}, {"name": "b"}],
            "min_count and keep belong to the field",
        ),
        ([{"name": "a", "max_length": 3}], "max_length and pooling apply to"),
        ([{"name": "a", "kind": "vector"}], "needs size = N"),
        ([{"name": "a", "role": "bias"}], "needs serve_value"),
        ([{"name": "a", "role": "bias", "serve_value": 1, "keep": "never"}], "goes with neither keep"),
        ([{"name": "a", "kind": "list", "role": "bias", "serve_value": 1}], "applies to kind = "),
        ([{"name": "a", "kind": "numeric", "transform": "minmax", "pii": True}], "pii applies to kind"),
    ],
)
def test_fields_that_contradict_themselves_are_refused(make_schema, fields, message):
    with pytest.raises(ConfigError, match=message):
        make_schema(fields=fields)


# Vectors


def test_vectors_are_scaled_by_one_factor_and_kept_side_by_side(dataset_of):
    columns = {
        "a": [[3.0, 4.0], None] * 10,
        "user": ["x", "y"] * 10,
        "b": [[2.0, -2.0, 2.0], [1.0, 1.0, 1.0]] * 10,
    }
    fields = [
        {"name": "a", "kind": "vector", "size": 2},
        {"name": "user"},
        {"name": "b", "kind": "vector", "size": 3},
    ]
    found = dataset_of(columns, fields)
    root = np.sqrt(12.5)  # of the mean of 9 and 16
    part = found.part("train")
    np.testing.assert_allclose(part.vectors[0], [3 / root, 4 / root, 2 / 1.5, -2 / 1.5, 2 / 1.5], rtol=1e-6)
    np.testing.assert_allclose(part.vectors[1], [0, 0, 1 / 1.5, 1 / 1.5, 1 / 1.5], rtol=1e-6)
    assert [counts(found, name) for name in "ab"] == [
        [("missing", 6, 6.0), ("value", 6, 6.0)],
        [("value", 12, 12.0)],
    ]
    layout = Layout(found, fields=["user", "b"])
    assert layout.vectors == ((1, 3),)
    assert next(Batches(part, layout, 2).epoch()).vectors.shape == (2, 3)


@pytest.mark.parametrize("cell", ["1|2", "1|2|3|4", "1|x|3", "1||3", "nan|1|2", "inf|1|2"])
def test_a_vector_of_another_length_or_with_a_gap_is_no_vector(cell):
    values, broken = canonical.vectors(pl.Series("v", ["1|2|3", cell, None, ""]), 3, "|", "v")
    assert values.to_list()[0] == [1.0, 2.0, 3.0]
    assert values.is_null().to_list() == [False, True, True, True]
    assert broken.to_list() == [False, True, False, False]


def test_vectors_of_uneven_length_are_set_aside_with_what_was_found(dataset_of):
    columns = {"v": [[1.0, 2.0]] * 39 + [[1.0]], "user": ["a", "b"] * 20}
    fields = [{"name": "v", "kind": "vector", "size": 2}, {"name": "user"}]
    with pytest.raises(DataError, match=r'row 40, column "v".*expected 2 finite numbers'):
        dataset_of(columns, fields)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.one_of(st.none(), st.lists(st.one_of(st.none(), st.floats(width=32)), max_size=4)), max_size=12
    )
)
def test_vectors_are_those_that_a_plain_loop_accepts(cells):
    values, broken = canonical.vectors(pl.Series("v", cells, dtype=pl.List(pl.Float64)), 2, None, "v")
    for cell, value, wrong in zip(cells, values.to_list(), broken.to_list(), strict=True):
        whole = bool(cell) and len(cell) == 2 and all(n is not None and np.isfinite(n) for n in cell)
        assert (value is not None) == whole
        assert wrong == (bool(cell) and not whole)


# Bias fields, time, row ids


def test_a_layout_for_serving_fixes_bias_fields_and_nothing_else(dataset_of):
    columns = {"place": [1, 2, 3, 4] * 10, "user": ["a", "b"] * 20, "depth": [0.0, 10.0] * 20}
    fields = [
        {"name": "user"},
        {"name": "place", "role": "bias", "serve_value": 2},
        {"name": "depth", "kind": "numeric", "transform": "minmax", "role": "bias", "serve_value": 5},
    ]
    found = dataset_of(columns, fields)
    part, layout = found.part("train"), Layout(found)
    logged = next(Batches(part, layout, 8).epoch())
    served = next(Batches(part, layout.at_serving(), 8).epoch())
    place = found.vocabulary.filter(field="place", value="2")["id"][0] + 1
    assert served.ids[:, 0].tolist() == logged.ids[:, 0].tolist()
    assert set(served.ids[:, 1] - found.fields[1].offset) == {place}
    assert served.values[:, 2].tolist() == [0.5] * 8
    assert logged.values[:2, 2].tolist() == [0.0, 1.0]


def test_a_serve_value_that_was_never_logged_reads_unknown(dataset_of):
    fields = [{"name": "user"}, {"name": "place", "role": "bias", "serve_value": 9}]
    found = dataset_of({"user": ["a", "b"] * 20, "place": [1, 2, 3, 4] * 10}, fields)
    assert found.fields[1].serve == (found.fields[1].offset, 1.0)


def test_row_ids_stand_beside_the_rows(dataset_of):
    found = dataset_of(
        {"user": ["a", "b"] * 20, "id": [f"r{n}" for n in range(40)]}, [{"name": "user"}], row_id="id"
    )
    assert found.row_ids("test").to_list() == [f"r{n}" for n in range(32, 40)]
    assert dataset_of({"user": ["a", "b"] * 20}, [{"name": "user"}]).row_ids("test") is None


def test_time_order_is_oldest_first_and_the_order_of_the_input_where_times_are_alike(dataset_of):
    times = [5, 3, 3, 4, 1, 2, *range(6, 40)]
    found = dataset_of({"user": ["a", "b"] * 20, "t": times}, [{"name": "user"}])
    part = found.part("train")
    batches = Batches(part, Layout(found), 4, seed=7, order="time")
    rows = np.concatenate([batch.rows for batch in batches.epoch(1)])
    assert rows[:7].tolist() == [4, 5, 1, 2, 3, 0, 6]
    assert sorted(rows) == sorted(part.rows)


def test_time_order_of_a_log_in_files_goes_by_the_time_that_its_split_names(tmp_path):
    for part, times in {"train": [5, 3, 9, 4], "valid": [7, 8], "test": [1, 2]}.items():
        lines = [f"{row % 2},u{row},{time}" for row, time in enumerate(times)]
        (tmp_path / f"{part}.csv").write_text("\n".join(["click,user,t", *lines]))
    split = {"by": "files", "column": "t", **{part: f"{part}.csv" for part in ("train", "valid", "test")}}
    schema = check(
        {"name": "log", "label": "click", "split": split, "fields": [{"name": "user"}]}, Schema, "schema"
    )
    found = Dataset(ingest(schema, tmp_path, tmp_path / "data"))
    batches = Batches(found.part("train"), Layout(found), 3, seed=7, order="time")
    assert np.concatenate([batch.rows for batch in batches.epoch()]).tolist() == [1, 3, 0, 2]


def test_time_order_needs_a_split_by_time(dataset_of):
    found = dataset_of({"user": ["a", "b"] * 200}, [{"name": "user"}], split={"by": "random"})
    with pytest.raises(ConfigError, match=r"training.order.*split.by"):
        Batches(found.part("train"), Layout(found), 4, order="time")


def test_stacked_parts_give_the_rows_of_all_of_them(dataset_of):
    columns = {
        "user": ["a", "b"] * 20,
        "tags": [["x"], ["x", "y"], []] * 13 + [["y"]],
        "v": [[1.0, 2.0], [3.0, 4.0]] * 20,
        "n": [float(n) for n in range(40)],
        "w": [1.0, 2.0] * 20,
    }
    fields = [
        {"name": "user"},
        {"name": "tags", "kind": "list"},
        {"name": "v", "kind": "vector", "size": 2},
        {"name": "n", "kind": "numeric", "transform": "minmax"},
    ]
    found = dataset_of(columns, fields, weight="w")
    parts = [found.part("train"), found.part("valid"), found.sealed_test()]
    whole, layout = stacked(parts), Layout(found)
    assert len(whole) == 40
    index = np.array([39, 0, 25, 24, 31, 32, 5])
    together = layout.gather(whole, index)
    for at, row in enumerate(index):
        alone = layout.gather(
            parts[np.searchsorted([24, 32], row, side="right")],
            np.array([row - (0, 24, 32)[np.searchsorted([24, 32], row, side="right")]]),
        )
        assert together.ids[at].tolist() == alone.ids[0].tolist()
        assert together.values[at].tolist() == alone.values[0].tolist()
        assert together.vectors[at].tolist() == alone.vectors[0].tolist()
        assert (together.rows[at], together.labels[at], together.weights[at]) == (
            alone.rows[0],
            alone.labels[0],
            alone.weights[0],
        )
        assert together.list_ids[together.list_slots == at].tolist() == alone.list_ids.tolist()
