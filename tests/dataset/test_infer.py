import gzip
import json
import tomllib
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ctr.dataset.infer import infer_schema
from ctr.dataset.ingest import ingest
from ctr.dataset.inputs import located
from ctr.dataset.log_sample import take_sample
from ctr.dataset.schema import Read, Schema
from ctr.dataset.store import Dataset
from ctr.dataset.synthetic import write_log
from ctr.errors import ConfigError, DataError
from ctr.settings import check

LOGS = Path(__file__).parents[2] / "../shared/data"
ROWS = 1200


def _log(**changes):
    """A log with a column for every judgement; each comes from the row number alone."""
    start = datetime(2024, 3, 1)
    rows = range(ROWS)
    columns = {
        "request": [f"r{row:05d}" for row in rows],
        "shown_at": [(start + timedelta(hours=row)).isoformat(sep=" ") for row in rows],
        "click": [int(row % 7 in (0, 3)) for row in rows],
        "user": [f"u{row * 7 % 300}" for row in rows],
        "device": [("phone", "tablet", "desk")[row % 3] for row in rows],
        "area": [f"{row % 90:05d}" for row in rows],
        "visits": [int(1.7 ** (row % 20)) + row % 11 for row in rows],
        "price": [round((row * 37 % 1000) / 7, 2) for row in rows],
        "tags": ["|".join("abcd"[: 1 + row % 4]) for row in rows],
        "country": ["NL"] * ROWS,
        "note": [None] * ROWS,
        "clicked_at": [row if row % 7 in (0, 3) else None for row in rows],
    }
    return pl.DataFrame({**columns, **changes}, strict=False)


def _inferred(tmp_path, path, label="click", **keys):
    """The text, its TOML by field, and the dataset that it makes of the log."""
    text = infer_schema(str(path), label, **keys)
    values = tomllib.loads(text)
    schema = check(values, Schema, "inferred")
    dataset = Dataset(ingest(schema, path, tmp_path / "datasets"))
    return text, {field["name"]: field for field in values["fields"]}, dataset


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log.csv"
    _log().write_csv(path)
    return path


def test_an_inferred_schema_ingests_and_keeps_what_can_be_learned_from(tmp_path, log):
    _, fields, dataset = _inferred(tmp_path, log)
    assert fields == {
        "user": {"name": "user", "kind": "categorical", "min_count": 2},
        "device": {"name": "device", "kind": "categorical"},
        "area": {"name": "area", "kind": "categorical", "min_count": 2},
        "visits": {"name": "visits", "kind": "numeric", "transform": "log_square"},
        "price": {"name": "price", "kind": "numeric", "transform": "quantile", "bins": 50},
        "tags": {"name": "tags", "kind": "list", "separator": "|"},
        "hour": {"name": "hour", "kind": "categorical"},
    }
    assert dataset.manifest["rows"]["train"] == 960
    assert dataset.manifest["rows"]["set_aside"] == 0


def test_what_is_left_out_is_named_with_its_reason(tmp_path, log):
    text, _, _ = _inferred(tmp_path, log)
    comments = {line.split('"')[1]: line for line in text.split("# Left out:")[1].splitlines() if '"' in line}
    assert "names rows" in comments["request"]
    assert '"NL" in all rows' in comments["country"]
    assert "empty in all rows" in comments["note"]
    assert "gives the answer away" in comments["clicked_at"]
    assert "an instant never comes back" in comments["shown_at"]
    assert set(comments) == {"request", "country", "note", "clicked_at", "shown_at"}


def test_rows_are_split_by_the_column_that_tells_their_time(tmp_path, log):
    text, _, dataset = _inferred(tmp_path, log)
    assert tomllib.loads(text)["split"] == {"by": "time", "column": "shown_at", "valid": 0.1, "test": 0.1}
    assert dataset.manifest["window"]["test"][0] == "2024-04-15T00:00:00+00:00"  # 1080 hours after March 1


def test_without_a_time_rows_are_split_at_random(tmp_path):
    _log().drop("shown_at").write_csv(tmp_path / "log.csv")
    text, _, _ = _inferred(tmp_path, tmp_path / "log.csv")
    assert tomllib.loads(text)["split"]["by"] == "random"
    assert "no column tells the time of a row" in text


def test_a_time_with_too_few_instants_splits_nothing(tmp_path):
    _log(shown_at=["2024-03-01"] * ROWS).write_csv(tmp_path / "log.csv")
    text, _, _ = _inferred(tmp_path, tmp_path / "log.csv")
    assert "too few different ones" in text


@pytest.mark.parametrize(
    ("values", "hour", "weekday"),
    [
        (lambda row: 1_709_251_200 + 3600 * row, "CAST(", True),
        (lambda row: (1_709_251_200 + 3600 * row) * 1000, "CAST(", True),
        (lambda row: (1_709_251_200 + 3600 * row) * 10**6, "CAST(", True),
        (lambda row: (1_709_251_200 + 3600 * row) * 10**9, "CAST(", True),
        (lambda row: int((datetime(2024, 3, 1) + timedelta(hours=row)).strftime("%y%m%d%H")), "% 100", True),
        (
            lambda row: int((datetime(2024, 3, 1) + timedelta(hours=row)).strftime("%Y%m%d%H%M%S")),
            "% 100",
            True,
        ),
        (lambda row: int((datetime(2024, 3, 1) + timedelta(hours=row)).strftime("%Y%m%d")), None, True),
        (lambda row: (datetime(2024, 3, 1) + timedelta(hours=row)).isoformat(), "SUBSTR", False),
    ],
    ids=[
        "seconds",
        "milliseconds",
        "microseconds",
        "nanoseconds",
        "YYMMDDHH",
        "YYYYMMDDHHMMSS",
        "YYYYMMDD",
        "ISO text",
    ],
)
def test_a_time_in_any_common_form_gives_hour_and_weekday(tmp_path, values, hour, weekday):
    _log(shown_at=[values(row) for row in range(ROWS)]).write_csv(tmp_path / "log.csv")
    text, _, dataset = _inferred(tmp_path, tmp_path / "log.csv")
    derive = tomllib.loads(text)["derive"]
    assert tomllib.loads(text)["split"]["column"] == "shown_at"
    assert ("hour" in derive, "weekday" in derive) == (hour is not None, weekday)
    sizes = {field.name: field.features - 2 for field in dataset.fields}
    assert sizes.get("weekday", 7) == 7
    assert sizes.get("hour", 24) == 24
    if hour:
        assert hour in derive["hour"]


def test_hours_of_a_single_day_and_weekdays_of_a_single_week_are_not_derived(tmp_path):
    _log(shown_at=[1_709_251_200 + 60 * row for row in range(ROWS)]).write_csv(tmp_path / "log.csv")
    text, fields, _ = _inferred(tmp_path, tmp_path / "log.csv")
    assert tomllib.loads(text)["split"]["column"] == "shown_at"
    assert not {"hour", "weekday"} & set(fields)


def test_a_time_whose_newest_rows_have_no_click_splits_nothing(tmp_path):
    _log(click=[int(row % 7 in (0, 3) and row < 1000) for row in range(ROWS)]).write_csv(tmp_path / "log.csv")
    text, _, _ = _inferred(tmp_path, tmp_path / "log.csv")
    assert tomllib.loads(text)["split"]["by"] == "random"
    assert "leaves a part with one label alone" in text


def test_a_column_that_is_constant_in_train_rows_is_left_out_though_test_rows_differ(tmp_path):
    _log(country=["NL" if row < 1150 else "BE" for row in range(ROWS)]).write_csv(tmp_path / "log.csv")
    text, _, _ = _inferred(tmp_path, tmp_path / "log.csv")
    assert '"country": "NL" in all rows' in text


@pytest.mark.parametrize("suffix", ["csv", "tsv", "csv.gz", "parquet", "ndjson", "semicolons.txt"])
def test_the_format_is_read_from_the_bytes(tmp_path, suffix):
    path, frame = tmp_path / f"log.{suffix}", _log()
    if suffix == "parquet":
        frame.write_parquet(path)
    elif suffix == "ndjson":
        path.write_text("".join(json.dumps(row) + "\n" for row in frame.iter_rows(named=True)))
    else:
        separator = {"tsv": "\t", "semicolons.txt": ";"}.get(suffix, ",")
        content = frame.write_csv(separator=separator).encode()
        path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    _, fields, dataset = _inferred(tmp_path, path)
    assert set(fields) == {"user", "device", "area", "visits", "price", "tags", "hour"}
    assert dataset.name == "log"


def test_lists_of_ndjson_and_parquet_become_list_fields(tmp_path):
    lists = [[str(item) for item in range(row % 4)] for row in range(ROWS)]
    frame = _log(tags=lists)
    frame.write_parquet(tmp_path / "log.parquet")
    (tmp_path / "log.ndjson").write_text(
        "".join(json.dumps(row) + "\n" for row in frame.iter_rows(named=True))
    )
    for path in (tmp_path / "log.parquet", tmp_path / "log.ndjson"):
        assert _inferred(tmp_path, path)[1]["tags"] == {"name": "tags", "kind": "list"}


def test_columns_of_a_file_without_header_are_called_by_their_place(tmp_path):
    _log().drop("note").write_csv(tmp_path / "log.csv", include_header=False)
    text, fields, _ = _inferred(tmp_path, tmp_path / "log.csv", "column_3")
    assert tomllib.loads(text)["read"]["columns"] == [f"column_{number}" for number in range(1, 12)]
    assert list(fields) == ["column_4", "column_5", "column_6", "column_7", "column_8", "column_9", "hour"]


def test_latin_1_and_stray_quotes_are_told_from_the_bytes(tmp_path):
    users = [('"Renée', "Zoë", "Ann", "Bob")[row % 4] for row in range(ROWS)]
    content = _log(user=users).write_csv(separator="\t", quote_style="never")
    (tmp_path / "log.tsv").write_bytes(content.encode("latin-1"))
    text, _, dataset = _inferred(tmp_path, tmp_path / "log.tsv")
    assert tomllib.loads(text)["read"] | {"format": "csv"} == {
        "format": "csv",
        "separator": "\t",
        "quote": "",
        "encoding": "latin-1",
    }
    values = dataset.vocabulary.filter(pl.col("field") == "user", pl.col("role") == "value")["value"]
    assert set(values) == {'"Renée', "Zoë", "Ann", "Bob"}


def test_quoted_cells_may_hold_separators_quotes_and_line_ends(tmp_path):
    users = [f'{"xyz"[row % 3]}, the\n"{row % 4}"' for row in range(ROWS)]
    _log(user=users).write_csv(tmp_path / "log.csv")
    dataset = _inferred(tmp_path, tmp_path / "log.csv")[2]
    assert {field.name: field.features for field in dataset.fields}["user"] == 12 + 2
    assert dataset.manifest["rows"]["read"] == ROWS


def test_a_json_array_is_refused_with_what_to_do(tmp_path):
    (tmp_path / "log.json").write_text(json.dumps([{"click": 1, "user": "a"}]))
    with pytest.raises(DataError, match="found a JSON array"):
        infer_schema(str(tmp_path / "log.json"), "click")


def test_words_for_missing_among_numbers_are_told_apart(tmp_path):
    prices = [str(row * 37 % 1000 / 7) if row % 5 else "NULL" for row in range(ROWS)]
    _log(price=prices).write_csv(tmp_path / "log.csv")
    text, fields, _ = _inferred(tmp_path, tmp_path / "log.csv")
    assert tomllib.loads(text)["read"]["null_values"] == ["NULL"]
    assert fields["price"]["kind"] == "numeric"


def test_a_column_that_decides_the_label_is_left_out(tmp_path):
    outcome = [("sold", "looked", "left")[2 if row % 7 not in (0, 3) else row % 2] for row in range(ROWS)]
    _log(outcome=outcome).write_csv(tmp_path / "log.csv")
    text, fields, _ = _inferred(tmp_path, tmp_path / "log.csv")
    assert "outcome" not in fields
    assert '"outcome": its values decide the label' in text


def test_a_label_may_be_an_expression_and_its_columns_are_no_fields(tmp_path):
    _log(click=[row % 5 + 1 for row in range(ROWS)]).rename({"click": "stars"}).write_csv(
        tmp_path / "log.csv"
    )
    _, fields, dataset = _inferred(tmp_path, tmp_path / "log.csv", "stars >= 4")
    assert "stars" not in fields
    assert sum(dataset.manifest["positives"].values()) == ROWS * 2 // 5


@pytest.mark.parametrize(
    ("label", "values", "advice"),
    [
        ("stars", lambda row: row % 5 + 1, "stars >= 4"),
        ("clicks", lambda row: row % 3, "clicks > 0"),
        ("vote", lambda row: ("no", "yes")[row % 2], "vote = 'yes'"),
    ],
)
def test_a_label_that_is_not_0_or_1_is_refused_with_an_expression_that_works(tmp_path, label, values, advice):
    path = tmp_path / "log.csv"
    _log().rename({"click": label}).with_columns(
        pl.Series(label, [values(row) for row in range(ROWS)])
    ).write_csv(path)
    with pytest.raises(DataError, match="expected 0 or 1") as error:
        infer_schema(str(path), label)
    assert f'--label "{advice}"' in str(error.value)
    _inferred(tmp_path, path, advice)


def test_a_wrong_label_is_answered_with_the_nearest_column(log):
    with pytest.raises(
        ConfigError, match=r'label "clik": no column of "log\.csv"; the nearest name is "click"'
    ):
        infer_schema(str(log), "clik")


def test_a_wrong_label_of_a_file_without_header_is_told_what_columns_are_called(tmp_path):
    (tmp_path / "log.csv").write_text("1,5,a\n0,6,b\n" * 50)
    with pytest.raises(ConfigError, match='has no header; its columns are called "column_1" to "column_3"'):
        infer_schema(str(tmp_path / "log.csv"), "click")


@pytest.mark.parametrize(
    ("clicks", "found"),
    [([1] * ROWS, "found 1 alone"), ([None] * 30 + [0, 1] * (ROWS // 2 - 15), "30 of 1,200 rows empty")],
)
def test_a_label_that_teaches_nothing_is_refused(tmp_path, clicks, found):
    _log(click=clicks).write_csv(tmp_path / "log.csv")
    with pytest.raises(DataError, match=found):
        infer_schema(str(tmp_path / "log.csv"), "click")


def test_a_log_with_nothing_but_a_label_is_refused(tmp_path):
    _log().select("click", "country").write_csv(tmp_path / "log.csv")
    with pytest.raises(DataError, match="no column besides the label"):
        infer_schema(str(tmp_path / "log.csv"), "click")


def test_a_missing_file_and_an_empty_one_are_told_apart(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        infer_schema(str(tmp_path / "log.csv"), "click")
    (tmp_path / "log.csv").write_text("")
    with pytest.raises(DataError, match="the file is empty"):
        infer_schema(str(tmp_path / "log.csv"), "click")


def test_names_that_toml_and_sql_would_trip_over_are_quoted(tmp_path):
    frame = _log(country=["N\x07L"] * ROWS).rename({"shown_at": 'shown at "x"', "device": "a.b = 'c' # d"})
    frame.write_parquet(tmp_path / "log.parquet")
    _, fields, dataset = _inferred(tmp_path, tmp_path / "log.parquet", name="odd")
    assert {"a.b = 'c' # d", "hour"} <= set(fields)
    assert dataset.name == "odd"


def test_a_name_that_is_taken_is_not_derived_again(tmp_path):
    _log(hour=[row % 5 for row in range(ROWS)]).write_csv(tmp_path / "log.csv")
    _, fields, _ = _inferred(tmp_path, tmp_path / "log.csv")
    assert {"hour", "hour_of_day"} <= set(fields)
    _log(hour=[row % 5 for row in range(ROWS)], hour_of_day=[row % 3 for row in range(ROWS)]).write_csv(
        tmp_path / "log.csv"
    )
    text, _, _ = _inferred(tmp_path, tmp_path / "log.csv")
    assert "derive" not in tomllib.loads(text)


def test_the_first_rows_stand_for_a_long_log(tmp_path, log, monkeypatch):
    monkeypatch.setattr("ctr.dataset.log_sample.ROWS", 100)
    monkeypatch.setattr("ctr.dataset.log_sample._BLOCK_BYTES", 20_000)
    text = infer_schema(str(log), "click")
    assert text.startswith("# Inferred from the first ")
    Dataset(ingest(check(tomllib.loads(text), Schema, "inferred"), log, tmp_path / "datasets"))


def test_many_files_are_sampled_alike(tmp_path):
    frame = _log()
    for day in range(4):
        frame.slice(day * 300, 300).write_csv(tmp_path / f"day{day}.csv")
    text = infer_schema(str(tmp_path / "day*.csv"), "click")
    assert text.startswith("# Inferred from all 1,200 rows of 4 files")
    with located(str(tmp_path / "day*.csv")) as sources:
        assert take_sample(sources, Read()).rows.tolist() == list(range(ROWS))


def test_the_synthetic_log_gets_a_schema_with_a_list_and_a_time(tmp_path):
    write_log("demo", tmp_path, rows=6000, seed=1)
    frame = pl.read_parquet(tmp_path / "log.parquet").drop("true_probability")
    frame.write_parquet(tmp_path / "plain.parquet")
    text, fields, _ = _inferred(tmp_path, tmp_path / "plain.parquet")
    assert tomllib.loads(text)["split"]["column"] == "timestamp"
    assert fields["interests"]["kind"] == "list"
    assert {"price", "recency", "battery"} <= {
        name for name, field in fields.items() if field["kind"] == "numeric"
    }


@pytest.mark.real
@pytest.mark.skipif(not LOGS.is_dir(), reason="the real logs are not here")
@pytest.mark.parametrize(
    ("log", "label", "by", "fields"),
    [
        ("criteo28k/clicks.tsv.gz", "column_1", "random", 39),
        ("avazu10k/clicks.csv.gz", "click", "random", 21),
        ("ml100k/u.data", "column_3 >= 4", "time", 4),
        ("adkdd/clicks.parquet", "click", "random", 5),
    ],
)
def test_a_real_log_ingests_with_its_inferred_schema(tmp_path, log, label, by, fields):
    text, found, _ = _inferred(tmp_path, LOGS / log, label)
    assert tomllib.loads(text)["split"]["by"] == by
    assert len(found) == fields
