import polars as pl
import pytest

from ctr.dataset.collisions import field_collisions, reads
from ctr.dataset.ingest import ingest
from ctr.dataset.layout import Layout
from ctr.dataset.placement import place
from ctr.dataset.store import Dataset
from tests.reference import collisions as reference

FIELDS = [
    {"name": "user"},
    {"name": "tags", "kind": "list", "separator": "|"},
    {"name": "day"},
    {"name": "friend", "shares": "user"},
]


@pytest.fixture
def log(write):
    lines = ["click,user,tags,day,friend"]
    for row in range(300):
        tags = "|".join("abcdefg"[row % 7 : row % 7 + row % 3])
        lines.append(f"{row % 3 == 0:d},u{row * row % 31},{tags},d{row % 5},u{row % 17}")
    return write("log.csv", "\n".join(lines) + "\n")


def layout_of(log, tmp_path, make_schema, encoding, **keys):
    dataset = Dataset(ingest(make_schema(fields=FIELDS), log, tmp_path / "datasets", encoding=encoding))
    seen = dataset.vocabulary.filter(pl.col("count") > 0)
    counts = dict(seen.group_by("field").len().iter_rows())
    return Layout(dataset, placement=place(counts, dim=4, linear=1, **keys))


def collisions_of(layout):
    features = layout.placed()
    return field_collisions(layout, features, reads(features, layout.placement))


def rows_of(composition, places, width):
    if composition == "robe":
        return {place // width for place in places if place}
    if composition == "multi_hash":
        return set(places[:-1])
    if composition == "quotient_remainder":
        return {("first", places[0]), ("second", places[1])}
    return {place for place in places if place}


@pytest.mark.parametrize("encoding", ["vocabulary", "hashed"])
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("composition", ["lookup", "multi_hash", "quotient_remainder", "robe"])
def test_every_share_is_that_of_comparing_each_feature_with_each_other(
    log, tmp_path, make_schema, encoding, shared, composition
):
    layout = layout_of(log, tmp_path, make_schema, encoding, shared=shared, composition=composition, rows=14)
    features = [
        (field, count, rows_of(composition, places, layout.placement.width), tuple(places))
        for field, count, places in layout.placed().iter_rows()
    ]
    expected = reference.field_collisions(features)
    found = collisions_of(layout)
    assert found["field"].to_list() == ["user", "day", "tags"]
    for row in found.iter_rows(named=True):
        for name, value in expected[row["field"]].items():
            assert row[name] == pytest.approx(value), (row["field"], name)


def test_separate_tables_never_collide_across_fields_and_shared_ones_load_all_rows_alike(
    log, tmp_path, make_schema
):
    apart = collisions_of(layout_of(log, tmp_path, make_schema, "vocabulary", shared=False, rows=20))
    assert apart["across"].to_list() == [0.0, 0.0, 0.0]
    assert apart["load"].to_list() == (apart["values"] / apart["rows"]).to_list()
    shared = collisions_of(layout_of(log, tmp_path, make_schema, "vocabulary", shared=True, rows=20))
    assert shared["rows"].to_list() == [20, 20, 20]
    assert shared["load"].to_list() == [pytest.approx(shared["values"].sum() / 20)] * 3


def test_one_row_merges_all_values_of_a_field(log, tmp_path, make_schema):
    found = collisions_of(layout_of(log, tmp_path, make_schema, "vocabulary", shared=True, rows=1))
    assert found["merged"].to_list() == found["within"].to_list() == found["across"].to_list() == [1.0] * 3


def test_fields_free_of_collisions_have_none(log, tmp_path, make_schema):
    layout = layout_of(log, tmp_path, make_schema, "vocabulary", shared=True, rows=40, collision_free=6)
    day = collisions_of(layout).row(by_predicate=pl.col("field") == "day", named=True)
    assert day["values"] == 5
    assert day["load"] == pytest.approx(0.5)  # two lookups, so two rows for each value
    assert [day[name] for name in ("merged", "within", "across", "own_noise", "other_noise")] == [0.0] * 5


def test_a_row_that_a_feature_reads_twice_counts_once(log, tmp_path, make_schema):
    layout = layout_of(log, tmp_path, make_schema, "vocabulary", shared=True, rows=2)
    long = reads(layout.placed(), layout.placement)
    assert long.select("feature", "row").is_unique().all()


def test_a_table_with_a_row_for_each_feature_has_nothing_to_count(log, tmp_path, make_schema):
    dataset = Dataset(ingest(make_schema(fields=FIELDS), log, tmp_path / "datasets"))
    with pytest.raises(ValueError, match="expected hashed features"):
        Layout(dataset).placed()
