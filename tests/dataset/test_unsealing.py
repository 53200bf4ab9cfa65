"""Reads of the test rows are counted, whoever reads and however often, and no count is lost."""

import json
import os
import subprocess
import sys

import pytest

from ctr.dataset.ingest import ingest
from ctr.dataset.store import Dataset
from ctr.dataset.unsealing import READS, record_read, sealed_reads
from ctr.errors import CtrError, DataError


@pytest.fixture
def folder(write, run, small_log):
    return run(write("log.csv", small_log))


def test_rows_that_nobody_read_have_no_reads(folder):
    dataset = Dataset(folder)
    dataset.part("train"), dataset.part("valid")
    assert dataset.sealed_reads() == []


def test_every_read_counts_with_its_time_its_run_and_its_purpose(folder):
    dataset = Dataset(folder)
    dataset.sealed_test("first-1", "evaluation")
    dataset.sealed_test("second-2", "comparison")
    reads = dataset.sealed_reads()
    assert [(read.run, read.purpose, read.dataset) for read in reads] == [
        ("first-1", "evaluation", folder.name),
        ("second-2", "comparison", folder.name),
    ]
    assert all(read.at.endswith("+00:00") for read in reads)


def test_a_dataset_of_another_schema_that_holds_out_the_same_rows_shares_the_count(
    write, run, small_log, make_schema, tmp_path
):
    log = write("log.csv", small_log)
    split = {"by": "random", "seed": 3}
    one, same, other = (
        ingest(make_schema(**keys), log, tmp_path / "datasets")
        for keys in (
            {"split": split},
            {"split": split, "fields": [{"name": "user", "min_count": 9}, {"name": "day"}]},
            {"split": {"by": "random", "seed": 4}},
        )
    )
    for place in (one, same, other):
        Dataset(place).sealed_test(f"run of {place.name}")
    runs = {f"run of {place.name}" for place in (one, same)}
    assert {read.run for read in sealed_reads(one)} == {read.run for read in sealed_reads(same)} == runs
    assert [read.run for read in sealed_reads(other)] == [f"run of {other.name}"]


def test_two_processes_at_once_lose_no_read(folder):
    code = (
        "import sys; from pathlib import Path; from ctr.dataset.unsealing import record_read\n"
        "for _ in range(40): record_read(Path(sys.argv[1]), 'rows', sys.argv[2], 'x')"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code, str(folder), name]) for name in "ab"]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    assert sorted(read.run for read in sealed_reads(folder)) == ["a"] * 40 + ["b"] * 40
    assert not list(folder.glob(f".{READS}*"))


def test_an_altered_dataset_is_built_again_but_not_unread(folder, run, tmp_path, small_log):
    Dataset(folder).sealed_test("first")
    (folder / "vocabulary.parquet").write_bytes(b"")
    assert run(tmp_path / "log.csv") == folder
    assert [read.run for read in Dataset(folder).sealed_reads()] == ["first"]
    assert Dataset(folder).vocabulary.height > 0


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"reads": 3}', '{"reads": [{"at": "now"}]}'])
def test_an_altered_count_is_refused_and_not_begun_anew(folder, content):
    (folder / READS).write_text(content)
    with pytest.raises(DataError, match=r"reads\.json.*no longer known.*put the file back"):
        Dataset(folder).sealed_test("next")
    assert (folder / READS).read_text() == content


def test_an_altered_count_of_a_dataset_beside_it_is_no_matter_here(folder):
    record_read(folder, "rows", "own", "x")
    beside = folder.parent / "beside"
    beside.mkdir()
    (beside / READS).write_text("broken")
    assert [read.run for read in sealed_reads(folder)] == ["own"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_where_nothing_can_be_counted_nothing_is_read(folder):
    Dataset(folder).part("train")
    folder.chmod(0o500)
    try:
        with pytest.raises(CtrError, match="cannot be counted"):
            Dataset(folder).sealed_test("next")
    finally:
        folder.chmod(0o700)


def test_the_manifest_and_the_recognition_of_a_dataset_stay_as_they_are(folder, run, tmp_path):
    before = (folder / "manifest.json").read_bytes()
    Dataset(folder).sealed_test("first")
    made = folder.stat().st_ino
    assert run(tmp_path / "log.csv").stat().st_ino == made  # not built again
    assert (folder / "manifest.json").read_bytes() == before
    assert json.loads((folder / READS).read_text())["reads"][0]["run"] == "first"
