"""Side tables joined in time: the latest row strictly before the impression, and what is refused."""

import datetime as dt
import json

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.dataset.schema import Join
from ctr.dataset.side_tables import Partners, SideTable
from ctr.errors import ConfigError, DataError
from tests.reference.joins import latest_before

JOIN = Join(input="prices.csv", on="item", time="since")
NAMES = {"item": pl.String, "since": pl.Int64, "price": pl.Int64}


def side(rows, join=JOIN, timezone="UTC", dtype=pl.Int64):
    return SideTable(join, pl.DataFrame(rows, schema=NAMES | {"since": dtype}, orient="row"), "at", timezone)


def log(rows, dtype=pl.Int64):
    return pl.DataFrame(rows, schema={"item": pl.String, "at": dtype}, orient="row")


ITEM = st.sampled_from([None, "a", "b", "c"])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(ITEM, st.one_of(st.none(), st.integers(0, 9))), min_size=1, max_size=25),
    st.dictionaries(st.tuples(st.sampled_from("abd"), st.integers(0, 9)), st.integers(0, 99), max_size=20),
)
def test_a_join_in_time_is_what_nested_loops_find(rows, known):
    table = [(key, since, value) for (key, since), value in known.items()]
    frame = log(rows)
    found, partners = side(table).partnered(frame)
    expected = latest_before(rows, table)
    assert found["price"].to_list() == expected
    assert found.select("item", "at").equals(frame)  # rows keep their order
    assert partners.alone == sum(value is None for value in expected)
    keys = {key for key, _, _ in table}
    assert partners.strangers == sum(key not in keys for key, _ in rows)


@pytest.mark.parametrize(
    ("since", "at"),
    [
        ([1, 5], [5, 6]),
        ([1.0, 5.0], [5, 6]),
        ([1, 5], [5.0, 5.5]),
        (["1", "5"], ["5", "6.0"]),
        ([1, 5], ["5", " 5.25 "]),
        (["2024-01-01", "2024-01-05"], ["2024-01-05T00:00:00", "2024-01-05 00:00:01"]),
        ([dt.date(2024, 1, 1), dt.date(2024, 1, 5)], [dt.datetime(2024, 1, 5), dt.datetime(2024, 1, 5, 1)]),
        ([2**60, 2**60 + 4], [2**60 + 4, 2**60 + 5]),
    ],
)
def test_times_of_any_type_are_compared_as_times_and_strictly(since, at):
    table = pl.DataFrame({"item": ["a", "a"], "since": since, "price": [10, 20]})
    found, _ = SideTable(JOIN, table, "at", "UTC").partnered(pl.DataFrame({"item": ["a", "a"], "at": at}))
    assert found["price"].to_list() == [10, 20]


def test_times_without_a_zone_are_in_the_splits():
    table = pl.DataFrame({"item": ["a"], "since": ["2024-01-01T12:00:00"], "price": [10]})
    moment = pl.DataFrame({"item": ["a"], "at": ["2024-01-01T11:30:00Z"]})
    assert SideTable(JOIN, table, "at", "UTC").partnered(moment)[0]["price"].to_list() == [None]
    assert SideTable(JOIN, table, "at", "Europe/Paris").partnered(moment)[0]["price"].to_list() == [10]


def test_a_partner_past_its_age_is_none_and_counted():
    join = JOIN.model_copy(update={"max_age": "2h"})
    times = [dt.datetime(2024, 1, 1, hour) for hour in range(6)]
    table = side([("a", times[0], 10)], join, dtype=pl.Datetime("us"))
    found, partners = table.partnered(
        log([("a", times[2]), ("a", times[3]), ("b", times[1])], pl.Datetime("us"))
    )
    assert found["price"].to_list() == [10, None, None]
    assert partners[:3] == (2, 1, 1)


def test_tallies_of_chunks_add_up():
    both = Partners(2, 1, 0, 5, None).plus(Partners(3, 0, 2, 4, "x"))
    assert both == Partners(5, 1, 2, 5, "x")
    assert Partners().plus(both) == both


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        ({"thing": ["a"], "since": [1]}, DataError, 'has no key column "item"'),
        ({"item": ["a"], "sins": [1]}, DataError, 'has no time column "since"; the nearest name is "sins"'),
        ({"item": ["a", "a"], "since": [1, 1]}, DataError, 'one row per "item" and "since".*example of "a"'),
        ({"item": ["a", "b"], "since": [1, None]}, DataError, '1 of 2 rows have no usable time in "since"'),
        ({"item": ["a", "b"], "since": ["2024-01-01", "soon"]}, DataError, "1 of 2 rows have no usable time"),
    ],
)
def test_side_tables_that_cannot_be_joined_are_refused(table, error, message):
    with pytest.raises(error, match=message):
        SideTable(JOIN, pl.DataFrame(table), "at", "UTC")


def test_an_age_needs_times_with_a_unit():
    with pytest.raises(ConfigError, match='max_age = "2h" is a duration, but "since" holds numbers'):
        side([("a", 1, 10)], JOIN.model_copy(update={"max_age": "2h"}))


@pytest.mark.parametrize(
    ("since", "at"),
    [
        (1, "2024-01-01"),
        ("2024-01-01", 7),
        (1, dt.datetime(2024, 1, 1)),
        ("2024-01-01", "7"),
        (1.5, "2024-01-01"),
    ],
)
def test_times_and_numbers_cannot_be_compared(since, at):
    table = pl.DataFrame({"item": ["a"], "since": [since], "price": [10]})
    with pytest.raises(DataError, match=r'"since" holds .* but "at" of the log holds .* of one kind'):
        SideTable(JOIN, table, "at", "UTC").partnered(pl.DataFrame({"item": ["a"], "at": [at]}))


# Through ingest


@pytest.fixture
def ingested(write, run):
    """A dataset of 40 rows of items a and b at days 1 to 40, joined with the given side table."""

    def build(text, *, prices="item,since,price\n", join=None, **keys):
        lines = [f"{n % 2},{'ab'[n % 3 > 0]},{n}" for n in range(40)]
        path = write("log.csv", "click,item,day\n" + "\n".join(lines) + "\n")
        write("prices.csv", prices + text)
        usual = {
            "joins": [
                {"input": str(path.parent / "prices.csv"), "on": "item", "time": "since", **(join or {})}
            ],
            "fields": [{"name": "item"}, {"name": "price"}],
            "split": {"by": "time", "column": "day", "valid": 0.2, "test": 0.2},
        }
        return run(path, **{**usual, **keys})

    return build


def test_the_manifest_says_how_a_join_in_time_fared(ingested):
    folder = ingested("a,3,low\na,20,high\nb,0,one\nb,30,two\n")
    joins = json.loads((folder / "manifest.json").read_text())["joins"]
    # a: rows 0 and 3 come too early (3 is not strictly after 3); b has a partner from day 1 on.
    assert joins == [
        {
            "input": "prices.csv",
            "on": "item",
            "time": "since",
            "max_age": None,
            "point_in_time": True,
            "unmatched": 2 / 40,
            "too_old": None,
        }
    ]
    assert pl.read_parquet(folder / "side_tables/00000.parquet").columns == ["item", "since", "price"]


def test_future_rows_only_are_refused(ingested):
    with pytest.raises(
        DataError, match='future rows only, from "since" = 50 on, and the log has 39 as its latest'
    ):
        ingested("a,50,low\nb,60,high\n")


def test_keys_that_never_meet_are_refused_with_an_example_of_each(ingested):
    with pytest.raises(DataError, match=r'"item", such as "a", is not among.*such as "A"'):
        ingested("A,1,low\nB,2,high\n")
    with pytest.raises(DataError, match='such as "a", is not among'):
        ingested("A,low\nB,high\n", prices="item,price\n", join={"time": None})


def test_the_time_of_the_log_may_be_another_column_but_no_derived_one(ingested):
    keys = {"derive": {"later": "day + 1"}}
    with pytest.raises(DataError, match=r'the log_time "later" is no column of the input.*before derive'):
        ingested("a,3,low\nb,0,one\n", join={"log_time": "later"}, **keys)
    assert ingested(
        "a,3,low\na,9,mid\nb,0,one\n",
        join={"log_time": "day"},
        split={"by": "random", "valid": 0.2, "test": 0.2},
    )


@pytest.mark.parametrize(
    ("join", "message"),
    [
        ({"max_age": "2h"}, "max_age and log_time need time"),
        ({"time": "since", "max_age": "soon"}, 'expected a duration such as "6h"'),
        ({"time": "since", "at_scoring": "cloud"}, '"bundle", "path" or "row"'),
    ],
)
def test_joins_that_contradict_themselves_are_refused(make_schema, join, message):
    with pytest.raises(ConfigError, match=message):
        make_schema(joins=[{"input": "x.csv", "on": "user", **join}], split={"by": "time", "column": "t"})


def test_a_join_in_time_needs_a_time_of_the_log(make_schema):
    with pytest.raises(ConfigError, match="time needs log_time"):
        make_schema(joins=[{"input": "x.csv", "on": "user", "time": "since"}])


def test_with_personal_data_no_key_is_quoted(ingested, monkeypatch):
    monkeypatch.setenv("CTR_PII_KEY", "0123456789abcdef")
    keys = {"fields": [{"name": "item", "pii": True}, {"name": "price"}]}
    for text in ("A,1,low\nB,2,high\n", "A,1,low\nA,1,high\n"):
        with pytest.raises(DataError) as error:
            ingested(text, **keys)
        assert "such as" not in str(error.value)
        assert "example" not in str(error.value)
