"""A log of several files is counted file by file, and what was counted once is not counted again."""

import math
import os
import random
import shutil
import tempfile
import time
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.dataset import count_store, counted_files, partial_counts
from ctr.dataset import ingest as ingest_module
from ctr.dataset.count_store import FOLDER
from ctr.dataset.counting import FieldCounts
from ctr.dataset.ingest import ingest, planned
from ctr.dataset.partial_counts import Counted, PartialCounts
from ctr.dataset.schema import Schema
from ctr.dataset.train_statistics import Statistics
from ctr.errors import DataError
from ctr.settings import check

FIELDS = [
    {"name": "user", "min_count": 2},
    {"name": "price", "kind": "numeric", "transform": "log_square"},
    {"name": "size", "kind": "numeric", "transform": "standard"},
    {"name": "age", "kind": "numeric", "transform": "quantile", "bins": 4},
    {"name": "tags", "kind": "list", "separator": "|", "max_length": 3},
    {"name": "friends", "kind": "list", "separator": "|", "shares": "user"},
    {"name": "place", "kind": "vector", "separator": ";", "size": 2},
]
HEADER = "click,user,price,size,age,tags,friends,place,day,weight"
BY_DAY = {"by": "time", "column": "day", "valid": "1d", "test": "1d"}
SPLITS = {
    "days": BY_DAY,
    "share": {"by": "time", "column": "day", "valid": 0.15, "test": 0.2, "gap": "1h"},
    "late": {**BY_DAY, "label_matures_after": "6h"},
    "random": {"by": "random", "valid": 0.2, "test": 0.2},
    "hash": {"by": "hash", "column": "tags", "valid": 0.25, "test": 0.25},
}


def lines_of(day: int, rows: int = 60, seed: int = 0) -> list[str]:
    """The rows of one day of January, drawn with a seed; every 50th of them breaks the schema."""
    draw, lines = random.Random(f"{seed}-{day}"), []
    for row in range(rows):
        user = f"u{int(draw.expovariate(0.3)) + day // 2}"
        price = draw.choice(["", "1", "3", "55", "900"])
        size = "" if draw.random() < 0.1 else f"{draw.gauss(day, 3.0)}"
        tags, friends = ("|".join(draw.choices("abcdef", k=draw.randrange(5))) for _ in range(2))
        place = draw.choice(["", f"{draw.random()};{draw.random()}"])
        click = "2" if row % 50 == 49 else f"{draw.random() < 0.4:d}"
        time = f"2024-01-{day + 1:02d} {row * 24 // rows:02d}:30:00"
        weight = draw.choice([0.1, 0.7, 1 / 3, 2.0])
        lines.append(
            f"{click},{user},{price},{size},{draw.randrange(70)},{tags},{friends.upper()},{place},{time},{weight}"
        )
    return lines


def write_day(folder: Path, day: int, **keys) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"day-{day:02d}.csv"
    path.write_text("\n".join([HEADER, *lines_of(day, **keys)]) + "\n")
    return path


def schema_of(split="days", **keys) -> Schema:
    read = {"max_bad_rows": 0.05}
    cut = SPLITS[split] if isinstance(split, str) else split
    content = {"name": "log", "label": "click", "fields": FIELDS, "read": read, "split": cut}
    return check({**content, **keys}, Schema, "schema")


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def counted(schema: Schema, log: Path, datasets: Path, **keys) -> tuple[Path, tuple[int, int]]:
    """The dataset's folder, how many files were counted, and how many were known."""
    with planned(schema, str(log / "*.csv"), datasets, **keys) as dataset:
        folder = dataset.build()
    assert dataset.counts is not None
    words = dataset.counts.split()
    assert words[3::2] == ["counted,", "known"]
    return folder, (int(words[1]), int(words[4]))


@pytest.fixture
def log(tmp_path):
    """A folder with the files of five days."""
    for day in range(5):
        write_day(tmp_path / "log", day)
    return tmp_path / "log"


@settings(max_examples=12, deadline=None)
@given(
    split=st.sampled_from(sorted(SPLITS)),
    weight=st.sampled_from([{}, {"weight": "weight"}, {"negative_keep_rate": 0.3}]),
    first=st.integers(3, 4),
    more=st.integers(1, 2),
    rows=st.integers(30, 80),
    seed=st.integers(0, 2**32),
)
def test_day_by_day_gives_the_very_bytes_that_all_at_once_gives(split, weight, first, more, rows, seed):
    schema = schema_of(split, **weight)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for day in range(first + more):
            write_day(folder / "log", day, rows=rows, seed=seed)
            if day >= first - 1:
                grown, (_, known) = counted(schema, folder / "log", folder / "grown")
        whole, (fresh, unknown) = counted(schema, folder / "log", folder / "whole")
        assert known > 0 or split in ("share", "late")  # where cuts fall inside of days
        assert fresh > 0
        assert unknown == 0
        assert grown.name == whole.name
        assert bytes_of(grown) == bytes_of(whole)
        # One file of the same rows is counted chunk by chunk, without any of this.
        single = [HEADER, *(line for day in range(first + more) for line in lines_of(day, rows, seed))]
        (folder / "one.csv").write_text("\n".join(single))
        one = ingest(schema, folder / "one.csv", folder / "one")
        same, other = (pl.read_parquet(found / "vocabulary.parquet") for found in (whole, one))
        assert same.drop("weighted_count").equals(other.drop("weighted_count"))
        assert same["weighted_count"].to_list() == pytest.approx(other["weighted_count"].to_list())


def test_an_added_day_costs_the_day_that_comes_before_the_cut(tmp_path, log):
    schema = schema_of()
    # The last two days are valid and test, and not counted.
    assert counted(schema, log, tmp_path / "data")[1] == (3, 0)
    write_day(log, 5)
    assert counted(schema, log, tmp_path / "data")[1] == (1, 3)
    write_day(log, 6)
    write_day(log, 7)
    assert counted(schema, log, tmp_path / "data")[1] == (2, 4)


def test_known_files_are_neither_read_for_counting_nor_added_up_again(tmp_path, log, monkeypatch):
    fields = [field for field in FIELDS if field["name"] != "age"]
    counted(schema_of(fields=fields), log, tmp_path / "data")
    write_day(log, 5)
    seen, count = [], FieldCounts.count

    def watched(field, values, file, chunk, weights):
        seen.append((field.spec.name, file))
        count(field, values, file, chunk, weights)

    monkeypatch.setattr(FieldCounts, "count", watched)
    counted(schema_of(fields=fields), log, tmp_path / "data")
    assert sorted(seen) == sorted((field["name"], 3) for field in fields)


def test_bins_are_counted_over_all_files_because_their_edges_move(tmp_path, log, monkeypatch):
    counted(schema_of(), log, tmp_path / "data")
    write_day(log, 5)
    seen, count = [], FieldCounts.count

    def watched(field, values, file, chunk, weights):
        seen.append((field.spec.name, file))
        count(field, values, file, chunk, weights)

    monkeypatch.setattr(FieldCounts, "count", watched)
    counted(schema_of(), log, tmp_path / "data")
    assert [file for name, file in seen if name == "age"] == list(range(6))
    assert {file for name, file in seen if name != "age"} == {3}


def test_a_cut_through_a_file_counts_its_train_rows_alone_and_anew_when_it_moves(tmp_path, log):
    # 295 rows, ten of them set aside: a fifth of 290 is test, 15 % valid; both cuts fall inside of a day.
    schema = schema_of("share")
    first, (fresh, known) = counted(schema, log, tmp_path / "data")
    assert (fresh, known) == (4, 0)
    train = pl.concat(pl.read_parquet(path) for path in (first / "train").iterdir())
    assert 60 * 3 < train.height < 60 * 4
    listed = pl.read_parquet(first / "vocabulary.parquet").filter(pl.col("field") == "user")
    friends = train["friends"].explode()
    assert listed["count"].sum() == train.height + friends.len()
    write_day(log, 5)
    assert counted(schema, log, tmp_path / "data")[1] == (1, 3)  # day 3 is whole now, the cut is at its end


def test_a_random_split_knows_files_as_long_as_nothing_comes_before_them(tmp_path, log):
    schema = schema_of("random")
    assert counted(schema, log, tmp_path / "data")[1] == (5, 0)
    write_day(log, 5)
    assert counted(schema, log, tmp_path / "data")[1] == (1, 5)
    shutil.copy(log / "day-00.csv", log / "an-earlier-day.csv")
    found, tally = counted(schema, log, tmp_path / "data")
    # The new first file has the bytes and the rows that the first one had.
    assert tally == (6, 1)
    assert bytes_of(found) == bytes_of(counted(schema, log, tmp_path / "whole")[0])


def test_a_hash_split_does_not_care_where_a_file_stands(tmp_path, log):
    schema = schema_of("hash")
    counted(schema, log, tmp_path / "data")
    write_day(tmp_path / "earlier", 6).rename(log / "an-earlier-day.csv")
    assert counted(schema, log, tmp_path / "data")[1] == (1, 5)


def test_an_earlier_as_of_date_knows_the_files_that_are_train_then(tmp_path, log):
    counted(schema_of(), log, tmp_path / "data")
    found, tally = counted(schema_of(), log, tmp_path / "data", as_of="2024-01-05")
    assert tally == (0, 2)
    assert bytes_of(found) == bytes_of(counted(schema_of(), log, tmp_path / "whole", as_of="2024-01-05")[0])


def test_files_of_a_split_by_files_are_counted_where_they_are_train(tmp_path, log):
    split = {"by": "files", "train": "day-0[0-2].csv", "valid": "day-03.csv", "test": "day-04.csv"}
    with planned(schema_of(split=split), log, tmp_path / "data") as dataset:
        dataset.build()
    assert dataset.counts == "counts: 3 files counted, 0 known"
    split["train"] = "day-0[0-25].csv"
    write_day(log, 5)
    with planned(schema_of(split=split), log, tmp_path / "data") as dataset:
        dataset.build()
    assert dataset.counts == "counts: 1 file counted, 3 known"


@pytest.mark.parametrize(
    "change",
    [
        {"where": "price is null or price < 100"},
        {"missing_values": [3]},
        {"derive": {"price": "size * 2"}},
        {"read": {"max_bad_rows": 0.05, "null_values": ["u1"]}},
        {"weight": "weight"},
        {"negative_keep_rate": 0.5},
        {"fields": FIELDS[:-1]},
        {"fields": [*FIELDS[:4], {**FIELDS[4], "max_length": 2}, *FIELDS[5:]]},
        {"split": {**BY_DAY, "timezone": "Asia/Tokyo"}},
    ],
    ids=lambda change: "-".join(change),
)
def test_what_changes_the_counts_makes_them_anew(tmp_path, log, change):
    counted(schema_of(), log, tmp_path / "data")
    found, tally = counted(schema_of(**change), log, tmp_path / "data")
    assert tally == (3, 0)
    assert bytes_of(found) == bytes_of(counted(schema_of(**change), log, tmp_path / "whole")[0])


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"fields": [{**FIELDS[0], "min_count": 3, "keep": "always", "group": "crm", "cost": 2}, *FIELDS[1:]]},
        {"fields": [*FIELDS[:3], {**FIELDS[3], "bins": 5}, *FIELDS[4:]]},
        {"split": {**BY_DAY, "test": "2024-01-05"}},
    ],
    ids=["name", "min_count", "bins", "the same cut"],
)
def test_what_does_not_change_the_counts_leaves_them(tmp_path, log, change):
    counted(schema_of(), log, tmp_path / "data")
    found, tally = counted(schema_of(**change), log, tmp_path / "data")
    assert tally == (0, 3)
    assert bytes_of(found) == bytes_of(counted(schema_of(**change), log, tmp_path / "whole")[0])


def test_a_changed_file_is_counted_again_and_a_renamed_one_is_not(tmp_path, log):
    counted(schema_of(), log, tmp_path / "data")
    write_day(log, 1, seed=1)
    (log / "day-02.csv").rename(log / "day-02-final.csv")
    assert counted(schema_of(), log, tmp_path / "data")[1] == (1, 2)


def test_a_changed_side_table_counts_all_files_again(tmp_path, log):
    users = tmp_path / "users.csv"
    schema = schema_of(fields=[*FIELDS, {"name": "city"}], joins=[{"input": str(users), "on": "user"}])
    users.write_text("user,city\n" + "".join(f"u{n},c{n % 3}\n" for n in range(9)))
    counted(schema, log, tmp_path / "data")
    users.write_text("user,city\n" + "".join(f"u{n},c{n % 4}\n" for n in range(9)))
    found, tally = counted(schema, log, tmp_path / "data")
    assert tally == (3, 0)
    assert bytes_of(found) == bytes_of(counted(schema, log, tmp_path / "whole")[0])


def test_types_that_the_first_file_decides_are_part_of_what_is_known(tmp_path, log):
    # Where the first file has no number with a fraction, the expression adds integers.
    for day in range(5):
        path = log / f"day-{day:02d}.csv"
        path.write_text(path.read_text().replace("900", "900.0" if day == 0 else "900"))
    schema = schema_of(fields=[*FIELDS, {"name": "twice"}], derive={"twice": "price * 2"})
    counted(schema, log, tmp_path / "data")
    path = log / "day-00.csv"
    path.write_text(path.read_text().replace("900.0", "900"))
    found, tally = counted(schema, log, tmp_path / "data")
    assert tally == (3, 0)
    assert bytes_of(found) == bytes_of(counted(schema, log, tmp_path / "whole")[0])


@pytest.mark.parametrize("damage", ["change", "cut", "empty", "delete"])
def test_damaged_counts_are_counted_again(tmp_path, log, damage):
    counted(schema_of(), log, tmp_path / "data")
    write_day(log, 5)
    paths = sorted((tmp_path / "data" / FOLDER).iterdir())
    assert len(paths) == 3
    content = bytearray(paths[0].read_bytes())
    content[len(content) // 3] ^= 1
    paths[0].unlink()
    if damage != "delete":
        paths[0].write_bytes({"change": content, "cut": content[: len(content) // 2], "empty": b""}[damage])
    found, tally = counted(schema_of(), log, tmp_path / "data")
    assert tally == (2, 2)
    assert bytes_of(found) == bytes_of(counted(schema_of(), log, tmp_path / "whole")[0])
    shutil.rmtree(found)
    assert counted(schema_of(), log, tmp_path / "data")[1] == (0, 4)


def test_counts_that_another_process_deletes_meanwhile_are_still_there_for_this_one(
    tmp_path, log, monkeypatch
):
    counted(schema_of(), log, tmp_path / "data")
    write_day(log, 5)
    fetch = counted_files.CountedFiles.fetch

    def and_then_gone(files, prepared):
        fetch(files, prepared)
        shutil.rmtree(tmp_path / "data" / FOLDER)

    monkeypatch.setattr(counted_files.CountedFiles, "fetch", and_then_gone)
    found, tally = counted(schema_of(), log, tmp_path / "data")
    assert tally == (1, 3)
    monkeypatch.undo()
    assert bytes_of(found) == bytes_of(counted(schema_of(), log, tmp_path / "whole")[0])


def test_another_process_that_counts_the_same_files_meanwhile_does_no_harm(tmp_path, log, monkeypatch):
    passes, whole = ingest_module.Passes, []

    def slow(*arguments):
        if not whole:
            monkeypatch.setattr(ingest_module, "Passes", passes)
            whole.append(counted(schema_of(), log, tmp_path / "data")[0])
            shutil.move(whole[0], tmp_path / "moved")
        return passes(*arguments)

    monkeypatch.setattr(ingest_module, "Passes", slow)
    found, tally = counted(schema_of(), log, tmp_path / "data")
    assert tally == (3, 0)  # it looked before the other one had finished
    assert bytes_of(found) == bytes_of(tmp_path / "moved")
    assert len(list((tmp_path / "data" / FOLDER).iterdir())) == 3


def kept(datasets: Path) -> set[str]:
    return {path.name for path in (datasets / FOLDER).iterdir()}


def aged(datasets: Path, days: float) -> None:
    """Make it so many days since any counts were read."""
    for path in (datasets / FOLDER).iterdir():
        read = path.stat().st_mtime - days * 86_400
        os.utime(path, (read, read))


def test_counts_go_once_nothing_has_read_them_for_long(tmp_path, log):
    data = tmp_path / "data"
    counted(schema_of(), log, data)
    aged(data, count_store.KEPT_DAYS - 1)
    young = kept(data)
    counted(schema_of("hash"), log, data)
    assert young < kept(data)
    aged(data, 2)
    counted(schema_of("random"), log, data)
    assert len(kept(data)) == 5 + 5
    assert not young & kept(data)


def test_counts_that_an_ingest_has_read_are_young_again(tmp_path, log):
    data = tmp_path / "data"
    shutil.rmtree(counted(schema_of(), log, data)[0])
    aged(data, 10 * count_store.KEPT_DAYS)
    old = kept(data)
    assert counted(schema_of(), log, data)[1] == (0, 3)
    assert kept(data) == old
    assert all(time.time() - path.stat().st_mtime < 3600 for path in (data / FOLDER).iterdir())


@pytest.mark.parametrize(("size", "left"), [(9_000, "abcx"), (3_500, "bcx"), (2_000, "cx"), (900, "x")])
def test_counts_past_their_share_of_the_disk_go_the_longest_unread_first(tmp_path, monkeypatch, size, left):
    for age, name in enumerate("abc", start=1):
        (tmp_path / name).write_bytes(name.encode() * 1000)
        count_store.CountStore(tmp_path).keep(name * 36, tmp_path / name)
        aged(tmp_path, age)
    store = count_store.CountStore(tmp_path)
    (tmp_path / "x").write_bytes(b"x" * 1000)
    store.keep("x" * 36, tmp_path / "x")
    aged(tmp_path, 30)  # what this store has kept stays, however old it is
    disk = shutil.disk_usage(tmp_path)._replace(total=round(size / count_store.KEPT_SHARE))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)
    store.prune()
    assert "".join(sorted(name[0] for name in kept(tmp_path))) == left


def test_without_links_counts_are_copied(tmp_path, log, monkeypatch):
    def refused(*_):
        raise PermissionError("no links here")

    monkeypatch.setattr("os.link", refused)
    counted(schema_of(), log, tmp_path / "data")
    write_day(log, 5)
    found, tally = counted(schema_of(), log, tmp_path / "data")
    assert tally == (1, 3)
    assert bytes_of(found) == bytes_of(counted(schema_of(), log, tmp_path / "whole")[0])


def test_counts_that_cannot_be_kept_stop_nothing(tmp_path, log):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / FOLDER).write_text("a file where the folder should be")
    assert counted(schema_of(), log, tmp_path / "data")[1] == (3, 0)
    write_day(log, 5)
    assert counted(schema_of(), log, tmp_path / "data")[1] == (4, 0)


def test_counts_of_a_file_that_changed_while_it_was_read_are_not_kept(tmp_path, log):
    path = log / "day-01.csv"
    with planned(schema_of(), str(log / "*.csv"), tmp_path / "data") as dataset:
        path.write_text(path.read_text() + lines_of(1)[0] + "\n")
        dataset.build()
    assert len(list((tmp_path / "data" / FOLDER).iterdir())) == 2


def test_nothing_is_kept_of_a_single_file_nor_where_nothing_is_counted(tmp_path, log):
    with planned(schema_of("random"), log / "day-00.csv", tmp_path / "data") as dataset:
        dataset.build()
    assert dataset.counts is None
    with planned(schema_of(), str(log / "*.csv"), tmp_path / "data", encoding="hashed") as dataset:
        dataset.build()
    assert dataset.counts is None
    assert not (tmp_path / "data" / FOLDER).exists()


def test_personal_values_are_kept_as_pseudonyms_and_counted_again_under_another_key(
    tmp_path, log, monkeypatch
):
    fields = [{"name": "user", "pii": True}, *FIELDS[1:5]]
    monkeypatch.setenv("CTR_PII_KEY", "a key of more than thirty-two characters")
    counted(schema_of(fields=fields), log, tmp_path / "data")
    for path in (tmp_path / "data" / FOLDER).iterdir():
        values = PartialCounts(path).counts("user")["value"].drop_nulls()
        assert len(values) > 0
        assert not values.str.starts_with("u").any()
    monkeypatch.setenv("CTR_PII_KEY", "another key of more than thirty-two characters")
    assert counted(schema_of(fields=fields), log, tmp_path / "data")[1] == (3, 0)


def test_what_is_written_of_a_file_is_read_back_to_the_last_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(partial_counts, "_ROW_GROUP", 2)
    users = pl.DataFrame(
        {"value": ["a", None, "ü"], "count": [3, 2, 1], "weighted_count": [0.1 + 0.2, 1 / 3, 2.0]}
    )
    none = users.clear()
    size = Statistics(3, 1, 0.1 + 0.2, 1 / 3, math.pi, 1e-300, -0.5, 7.0)
    empty = Statistics(missing=4)
    partial_counts.write(
        tmp_path / "counts.parquet",
        [
            Counted("none", none, Statistics()),
            Counted("size", None, size),
            Counted("user", users, Statistics()),
            Counted("empty", None, empty),
            Counted("again", users.reverse(), Statistics()),
        ],
        weighted=True,
    )
    found = PartialCounts(tmp_path / "counts.parquet")
    assert found.counts("user").equals(users)
    assert found.counts("again").equals(users.reverse())
    assert found.counts("none").equals(none)
    assert found.statistics("size") == size
    assert found.statistics("empty") == empty


def test_statistics_of_two_files_by_hand():
    one, other = Statistics(), Statistics()
    one.add(pl.Series([1.0, 3.0, float("nan")]).to_numpy(), None)
    other.add(pl.Series([8.0]).to_numpy(), None)
    # Mean 4; distances 3, 1 and 4.
    assert one.plus(other) == Statistics(3, 1, mean=4.0, square=26.0, low=1.0, high=8.0)
    assert Statistics(missing=2).plus(other) == Statistics(1, 2, mean=8.0, low=8.0, high=8.0)


def test_a_file_that_changes_between_counting_and_reading_is_told_in_a_line(tmp_path):
    (tmp_path / "log").mkdir()

    def write(number, values):
        rows = "".join(f"{row % 2},{values[row % 3]}\n" for row in range(300))
        (tmp_path / "log" / f"{number}.csv").write_text(f"y,a\n{rows}")

    write(0, ["x", "y", "a long value"])
    write(1, ["x", "y", "z"])
    schema = check({"name": "t", "label": "y", "fields": [{"name": "a"}]}, Schema, "schema")
    shutil.rmtree(ingest(schema, tmp_path / "log" / "*", tmp_path / "data"))
    with planned(schema, tmp_path / "log" / "*", tmp_path / "data") as dataset:
        write(0, ["x", "y", "z"])
        with pytest.raises(DataError, match="was changed while it was read") as error:
            dataset.build()
    assert "\n" not in str(error.value)
