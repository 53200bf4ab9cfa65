"""A log that the disk has no room for is refused before anything is written, and no other is."""

import gzip
import shutil
from collections import namedtuple

import numpy as np
import polars as pl
import pytest

from ctr.dataset import disk_space, passes
from ctr.dataset.disk_space import estimated
from ctr.dataset.ingest import ingest
from ctr.dataset.inputs import find_files
from ctr.dataset.store import Dataset
from ctr.errors import ConfigError, DataError

Usage = namedtuple("Usage", "total used free")
FIELDS = [
    {"name": "user"},
    {"name": "price", "kind": "numeric", "transform": "standard"},
    {"name": "tags", "kind": "list", "separator": "|"},
]


@pytest.fixture
def free(monkeypatch):
    """Pretends that a disk has so many bytes left."""

    def pretend(left: int, total: int = 10**12) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(total, total - left, left))

    return pretend


def bytes_under(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_a_log_that_the_disk_has_no_room_for_is_refused_before_it_is_read(
    write, tmp_path, make_schema, small_log, free, monkeypatch
):
    monkeypatch.setattr(passes, "Passes", None)
    free(5_000)
    with pytest.raises(ConfigError) as caught:
        ingest(make_schema(fields=FIELDS), write("log.csv", small_log), tmp_path / "datasets")
    message = str(caught.value)
    assert caught.value.exit_code == 2
    assert message.startswith(f'data.folder "{tmp_path / "datasets"}": expected about ')
    assert 'for the log "log.csv" (an estimate: about 400 rows of 3 fields' in message
    assert "found 5.00 kB; make room there, or state a data.folder on another disk" in message
    assert list((tmp_path / "datasets").iterdir()) == []


def test_the_limit_is_what_is_needed(write, tmp_path, make_schema, small_log, free):
    path, schema = write("log.csv", small_log), make_schema(fields=FIELDS)
    needed = estimated(schema, find_files(path), hashed=False).bytes
    free(needed - 1)
    with pytest.raises(ConfigError, match="free disk"):
        ingest(schema, path, tmp_path / "datasets")
    free(needed)
    assert ingest(schema, path, tmp_path / "datasets").is_dir()
    free(0)  # and what is there already needs no room
    assert ingest(schema, path, tmp_path / "datasets").is_dir()


def test_a_disk_that_does_not_tell_its_size_refuses_nothing(write, tmp_path, make_schema, small_log, free):
    free(0, total=0)
    assert ingest(make_schema(), write("log.csv", small_log), tmp_path / "datasets").is_dir()


def test_a_log_that_cannot_be_read_is_told_by_reading_it(write, tmp_path, make_schema, free):
    free(0)
    with pytest.raises(DataError, match="the file is empty"):
        ingest(make_schema(), write("log.csv", ""), tmp_path / "datasets")
    with pytest.raises(DataError, match="expected rows, found none"):
        ingest(make_schema(), write("log.csv", "click,user\n"), tmp_path / "datasets")


@pytest.mark.parametrize(
    ("format", "hashed"),
    [
        ("csv", False),
        ("csv", True),
        ("csv.gz", False),
        pytest.param("csv.gz", True, marks=pytest.mark.slow),
        pytest.param("parquet", False, marks=pytest.mark.slow),
        ("parquet", True),
        ("ndjson", False),
        pytest.param("ndjson", True, marks=pytest.mark.slow),
    ],
)
def test_rows_and_bytes_are_estimated_from_the_first_rows_alone(
    write, tmp_path, make_schema, monkeypatch, format, hashed
):
    monkeypatch.setattr(disk_space, "_ROWS", 1_000)
    monkeypatch.setattr(disk_space, "_BYTES", 200_000)
    monkeypatch.setattr(disk_space, "_BLOCK", 10_000)
    rows, draw = 40_000, np.random.default_rng(4)
    frame = pl.DataFrame(
        {
            "click": [row % 2 for row in range(rows)],
            "user": [f"user-{row * 7919 % 5000:04d}" for row in range(rows)],
            "price": [row * 31 % 977 / 7 for row in range(rows)],
            "tags": ["|".join("abc"[: 1 + row % 3]) for row in range(rows)],
            "not_a_field": [draw.bytes(16).hex() for _ in range(rows)],
        }
    )
    path = tmp_path / f"log.{format}"
    if format == "parquet":
        frame.write_parquet(path)
    elif format == "ndjson":
        frame.write_ndjson(path)
    else:
        text = frame.write_csv().encode()
        path.write_bytes(gzip.compress(text) if format == "csv.gz" else text)
    schema = make_schema(fields=FIELDS, read={"format": format.removesuffix(".gz")})
    found = estimated(schema, find_files(path), hashed=hashed)
    assert found.rows == pytest.approx(rows, rel=0.25)
    folder = ingest(schema, path, tmp_path / "datasets", encoding="hashed" if hashed else "vocabulary")
    dataset = Dataset(folder)
    for part in ("train", "valid"):
        dataset.part(part)
    assert 1.0 < found.bytes / bytes_under(folder) < 3.0


def test_a_wide_log_of_which_little_is_read_needs_little(write, make_schema):
    lines = "".join(f"{row % 2},u{row % 5}," + "x" * 1000 + "\n" for row in range(500))
    path = write("log.csv", "click,user,text\n" + lines)
    assert estimated(make_schema(), find_files(path), hashed=False).bytes < path.stat().st_size / 10


def test_a_filter_is_taken_to_leave_out_most_rows(write, tmp_path, make_schema, small_log, free):
    path, plain = write("log.csv", small_log), make_schema(fields=FIELDS)
    filtered = make_schema(fields=FIELDS, where="price < 2")
    whole, some = (estimated(schema, find_files(path), hashed=False) for schema in (plain, filtered))
    assert some.rows == whole.rows / 10
    assert some.bytes == pytest.approx(whole.bytes / 10, abs=1)
    free(some.bytes - 1)
    with pytest.raises(ConfigError, match="about 40 rows if where keeps a tenth, of 3 fields"):
        ingest(filtered, path, tmp_path / "datasets")
    free(some.bytes)
    assert ingest(filtered, path, tmp_path / "datasets").is_dir()
