"""Each kind of bad input: one clear message, the right kind of error, and nothing left behind."""

import errno
import gzip
import os

import polars as pl
import pytest

from ctr.dataset import part_files, passes, reading
from ctr.dataset.ingest import ingest
from ctr.errors import ConfigError, CtrError, DataError

GOOD = "click,user,price,day\n" + "".join(
    f"{row % 2},u{row % 5},{row % 7},2024-01-{row // 10 + 1:02d}\n" for row in range(200)
)
LENIENT = {"max_bad_rows": 0.5}


@pytest.fixture
def fails(write, tmp_path, make_schema):
    """Ingests text that must fail: returns the error after checking that nothing was left behind."""

    def attempt(content, error=DataError, name="log.csv", **keys):
        path = write(name, content)
        with pytest.raises(error) as caught:
            ingest(make_schema(**keys), path, tmp_path / "datasets")
        folder = tmp_path / "datasets"
        assert not folder.exists() or list(folder.iterdir()) == []
        assert "\n\n" not in str(caught.value)
        return str(caught.value)

    return attempt


def aside(folder):
    return pl.read_parquet(folder / "set_aside.parquet").select("row", "column", "found", "reason").rows()


def test_a_missing_file_is_a_wrong_argument(tmp_path, make_schema):
    with pytest.raises(ConfigError, match="no such file") as caught:
        ingest(make_schema(), tmp_path / "none.csv", tmp_path / "datasets")
    assert caught.value.exit_code == 2


def test_an_empty_glob_is_a_wrong_argument(tmp_path, make_schema):
    with pytest.raises(ConfigError, match="no file matches this pattern"):
        ingest(make_schema(), str(tmp_path / "*.csv"), tmp_path / "datasets")


def test_an_empty_file_breaks_the_schema(fails):
    assert fails("") == 'file "log.csv": the file is empty'


def test_a_header_without_rows_breaks_the_schema(fails):
    assert fails("click,user\n").startswith('file "log.csv": expected rows, found none below the header')


def test_a_field_that_is_no_column_is_answered_with_the_nearest_name(fails):
    message = fails(GOOD, fields=[{"name": "usr"}])
    assert message == 'field "usr" is no column of the input and not derived; the nearest name is "user"'


def test_ragged_lines_stop_the_ingest_past_the_limit(fails):
    message = fails(GOOD + "1,u1\n" * 10, read={"max_bad_rows": 0.04})
    assert message.startswith(
        "10 of 210 rows (4.76%) break the schema, read.max_bad_rows = 0.04 allows 4.00%"
    )
    assert 'file "log.csv", row 201: found "2 columns"; expected 4 columns' in message
    assert message.count("\n") == 5


def test_ragged_lines_below_the_limit_never_pass_as_missing_values(write, run):
    folder = run(write("log.csv", GOOD + "1,u1\n1,u1,2,2024-01-01,x\n"), read=LENIENT)
    assert aside(folder) == [
        (201, "", "2 columns", "expected 4 columns"),
        (202, "", "5 columns", "expected 4 columns"),
    ]
    missing = pl.read_parquet(folder / "vocabulary.parquet").filter(pl.col("role") == "missing")
    assert missing["count"].to_list() == [0]


def test_a_last_line_cut_short_is_set_aside(write, run):
    assert aside(run(write("log.csv", GOOD + "1,u"), read=LENIENT)) == [
        (201, "", "2 columns", "expected 4 columns")
    ]


def test_bytes_that_are_no_utf8_are_set_aside(write, run):
    folder = run(write("log.csv", GOOD.encode() + b"1,\xff,1,2024-01-01\n"), read=LENIENT)
    assert aside(folder) == [(201, "", "1,\\xff,1,2024-01-01", "expected UTF-8 text")]


def test_a_truncated_gz_file_is_named(fails):
    assert "damaged or cut short" in fails(gzip.compress(GOOD.encode())[:-40], name="log.csv.gz")


@pytest.mark.parametrize(
    ("label", "shown"), [("2", "2"), ("", None), ("yes", "yes"), ("nan", "nan"), ("-1", "-1")]
)
def test_a_label_that_is_not_0_or_1_is_set_aside_with_its_value(write, run, label, shown):
    folder = run(write("log.csv", GOOD + f"{label},u1,1,2024-01-01\n"), read=LENIENT)
    assert aside(folder) == [(201, "click", shown, "expected a label of 0 or 1")]


def test_labels_of_one_class_are_refused(fails):
    assert (
        fails(GOOD.replace("\n1,", "\n0,"))
        == 'label "click": expected both 0 and 1, found 0 alone in 200 rows'
    )


def test_labels_that_are_no_numbers_at_all_are_refused_with_examples(fails):
    message = fails(GOOD.replace("\n1,", "\nyes,"))
    assert 'row 2, column "click": found "yes"; expected a label of 0 or 1' in message


def test_fields_without_information_are_all_named_at_once(fails):
    lines = [line + ",x,,7" for line in GOOD.splitlines()[1:]]
    content = "click,user,price,day,same,none,number\n" + "\n".join(lines)
    fields = [{"name": "user"}, {"name": "same"}, {"name": "none"}]
    fields += [{"name": "number", "kind": "numeric", "transform": "minmax"}]
    assert fails(content, fields=fields) == (
        "3 fields without information; remove from the schema:\n"
        '  field "same": "x" in all train rows\n'
        '  field "none": missing in all train rows\n'
        '  field "number": "7" in all train rows'
    )


def test_one_value_and_missing_ones_are_information(write, run):
    content = "click,user\n" + "".join(f"{row % 2},{'x' if row % 3 else ''}\n" for row in range(200))
    assert pl.read_parquet(run(write("log.csv", content)) / "vocabulary.parquet").height == 3


NUMERIC = [{"name": "price", "kind": "numeric", "transform": "minmax"}]


@pytest.mark.parametrize("cell", ["abc", "inf", "-Infinity", "1,5".replace(",", "_")])
def test_text_and_infinity_in_a_numeric_field_are_set_aside(write, run, cell):
    folder = run(write("log.csv", GOOD + f"1,u1,{cell},2024-01-01\n"), fields=NUMERIC, read=LENIENT)
    assert aside(folder) == [(201, "price", cell, "expected a finite number")]


def test_nan_in_a_numeric_field_is_missing(write, run):
    folder = run(write("log.csv", GOOD + "1,u1,NaN,2024-01-01\n" * 40), fields=NUMERIC)
    missing = pl.read_parquet(folder / "vocabulary.parquet").filter(pl.col("role") == "missing")
    assert missing["count"][0] > 0
    assert aside(folder) == []


@pytest.mark.parametrize("transform", ["log_square", "minmax", "standard"])
def test_negative_and_huge_integers_are_numbers(write, run, transform):
    content = GOOD + "1,u1,-5,2024-01-01\n1,u1,99999999999999999999999999,2024-01-01\n"
    folder = run(write("log.csv", content), fields=[{**NUMERIC[0], "transform": transform}])
    assert aside(folder) == []


def test_huge_integers_are_categories_digit_by_digit(write, run):
    lines = [f"{row % 2},{10**19 + row % 2}" for row in range(100)]
    folder = run(write("log.csv", "click,user\n" + "\n".join(lines)))
    values = pl.read_parquet(folder / "vocabulary.parquet")["value"].drop_nulls().sort().to_list()
    assert values == ["10000000000000000000", "10000000000000000001"]


def test_duplicate_column_names_are_refused(fails):
    assert 'two columns have the same name: "user"' in fails(GOOD.replace("price", "user"))


SPLIT = {"by": "time", "column": "day"}


def test_times_that_cannot_be_parsed_are_set_aside(write, run):
    folder = run(write("log.csv", GOOD + "1,u1,1,soon\n1,u1,1,\n"), split=SPLIT, read=LENIENT)
    reason = "expected an ISO date or time to split by time"
    assert aside(folder) == [(201, "day", "soon", reason), (202, "day", None, reason)]


def test_a_time_column_of_words_is_refused(fails):
    message = fails(GOOD, split={"by": "time", "column": "user"})
    assert "200 of 200 rows (100.00%) break the schema" in message
    assert 'column "user": found "u0"; expected an ISO date or time to split by time' in message


def test_a_split_that_leaves_a_part_empty_is_refused(fails):
    message = fails(GOOD, split={**SPLIT, "valid": "2024-01-18", "test": "2024-03-01"})
    assert message.startswith('split.by = "time" leaves no rows for test (train 170, valid 30, test 0)')


def test_a_split_that_leaves_a_part_without_positives_is_refused(fails):
    lines = GOOD.splitlines()
    content = "\n".join([*lines[:181], *("0" + line[1:] for line in lines[181:])])
    assert fails(content, split=SPLIT).startswith('split.by = "time" leaves test without positive rows')


def test_a_filter_that_leaves_no_rows_is_refused(fails):
    assert fails(GOOD, where="price > 100") == 'no rows left: schema where = "price > 100" filters all 200'


def test_a_wrong_expression_is_named_with_its_error(fails):
    assert fails(GOOD, label="price >> 2 = (").startswith('schema label = "price >> 2 = (": ')


def test_an_expression_over_all_rows_is_refused(fails):
    assert "without aggregates or windows" in fails(GOOD, derive={"mean": "AVG(price)"})


def test_a_fully_broken_file_stops_before_its_end(write, tmp_path, make_schema, monkeypatch):
    read = []

    def counted(*arguments):
        for chunk in reading.chunks(*arguments, 500):
            read.append(chunk.count)
            yield chunk

    monkeypatch.setattr(passes, "chunks", counted)
    path = write("log.csv", "click,user\n" + "x,u1\n" * 10_000)
    with pytest.raises(DataError, match="break the schema"):
        ingest(make_schema(), path, tmp_path / "datasets")
    assert sum(read) < 1000


def test_a_few_bad_rows_at_the_start_do_not_stop_a_long_file(write, run, monkeypatch):
    monkeypatch.setattr(passes, "chunks", lambda *arguments: reading.chunks(*arguments, 500))
    lines = "".join(f"{row % 2},u{row % 5}\n" for row in range(3000))
    folder = run(write("log.csv", "click,user\n" + "x,u1\n" * 20 + lines))
    assert len(aside(folder)) == 20


def test_no_bad_row_is_allowed_where_the_limit_is_zero(fails):
    assert "1 of 201 rows" in fails(GOOD + "x,u1,1,2024-01-01\n", read={"max_bad_rows": 0.0})


def test_a_bad_side_table_is_refused(fails, write):
    users = write("users.csv", "user,city\nu1,A\nu1,B\n")
    assert 'expected one row per "user"' in fails(GOOD, joins=[{"input": str(users), "on": "user"}])
    ragged = write("users.csv", "user,city\nu1,A\nu2\n")
    assert "1 of 2 rows (50.00%) break the schema" in fails(
        GOOD, joins=[{"input": str(ragged), "on": "user"}]
    )
    missing = ragged.parent / "nobody.csv"
    assert "no such file" in fails(GOOD, ConfigError, joins=[{"input": str(missing), "on": "user"}])


def test_a_file_of_two_parts_is_refused(write, tmp_path, make_schema):
    write("logs/a.csv", GOOD)
    split = {"by": "files", "train": "*.csv", "valid": "a.csv", "test": "a.csv"}
    with pytest.raises(ConfigError, match=r"belongs to split.train and to split.valid"):
        ingest(make_schema(split=split), tmp_path / "logs", tmp_path / "datasets")


def test_a_full_disk_is_told_and_nothing_stays(fails, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(part_files.PartWriter, "append", full)
    message = fails(GOOD, CtrError)
    assert "the disk is full" in message
    assert "MB were left" in message


def test_a_folder_that_cannot_be_made_is_told(write, tmp_path, make_schema):
    path = write("log.csv", GOOD)
    with pytest.raises(CtrError, match=r'folder ".*log.csv": cannot be written'):
        ingest(make_schema(), path, path)


def test_an_interrupt_leaves_nothing(write, tmp_path, make_schema, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(passes.Passes, "write_parts", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ingest(make_schema(), write("log.csv", GOOD), tmp_path / "datasets")
    assert list((tmp_path / "datasets").iterdir()) == []


def test_what_a_killed_process_left_behind_is_removed_but_not_what_one_is_still_writing(write, run, tmp_path):
    from ctr.dataset.ingest import _locked

    for name in ("dead", "alive"):
        (tmp_path / f"datasets/.unfinished-{name}/scratch").mkdir(parents=True)
    lock = _locked(tmp_path / "datasets/.unfinished-alive")
    folder = run(write("log.csv", GOOD))
    assert {entry.name for entry in folder.parent.iterdir()} == {".unfinished-alive", folder.name}
    assert lock is not None
    os.close(lock)
