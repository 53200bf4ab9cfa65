"""Digests of input files that are remembered, and datasets that are known before they are built."""

import hashlib
import json
import os
import time

import pytest

from ctr.dataset import fingerprints
from ctr.dataset import ingest as ingest_module
from ctr.dataset.fingerprints import FILE, Fingerprints
from ctr.dataset.ingest import ingest, planned
from ctr.dataset.inputs import InputFile, Source
from ctr.errors import ConfigError

OLD = (1_600_000_000, 1_600_000_000)  # seconds: long settled
LARGE = b"0123456789abcdef" * 5000
TIME = {"by": "time", "column": "day", "valid": 0.1, "test": 0.1}


@pytest.fixture
def hashed(monkeypatch):
    """How many files have been hashed."""
    count, digest = [], hashlib.file_digest

    def counted(stream, name):
        count.append(stream.name)
        return digest(stream, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return count


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "log.csv"
    path.write_bytes(LARGE)
    os.utime(path, OLD)
    return Source("log.csv", path)


def remembered(folder, source):
    known = Fingerprints(folder)
    found = known.of([source])
    known.save()
    return found


def test_a_file_that_has_not_changed_is_hashed_once(tmp_path, source, hashed):
    expected = [InputFile("log.csv", len(LARGE), hashlib.sha256(LARGE).hexdigest())]
    assert remembered(tmp_path, source) == expected
    before = (tmp_path / FILE).stat().st_mtime_ns
    assert remembered(tmp_path, source) == expected
    assert len(hashed) == 1
    assert (tmp_path / FILE).stat().st_mtime_ns == before  # nothing new, nothing written


def change_in_place(path):
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(bytes(content))
    os.utime(path, (OLD[0] + 1, OLD[1] + 1))


def change_and_keep_the_mtime(path):
    time.sleep(0.05)  # the clock of the attributes goes by the ticks of the kernel
    change_in_place(path)
    os.utime(path, OLD)


def put_another_in_its_place(path):
    other = path.with_name("other")
    other.write_bytes(path.read_bytes()[::-1])
    os.utime(other, OLD)
    other.replace(path)


@pytest.mark.parametrize("change", [change_in_place, change_and_keep_the_mtime, put_another_in_its_place])
def test_a_change_of_the_same_size_is_seen(change, tmp_path, source):
    before = remembered(tmp_path, source)
    change(source.path)
    after = remembered(tmp_path, source)
    assert after[0].sha256 == hashlib.sha256(source.path.read_bytes()).hexdigest() != before[0].sha256


def test_a_file_that_was_just_written_is_not_remembered(tmp_path, source, hashed):
    os.utime(source.path)
    remembered(tmp_path, source)
    assert not (tmp_path / FILE).exists()


def test_a_large_file_that_was_just_written_is_left_to_settle_and_remembered(tmp_path, source, monkeypatch):
    os.utime(source.path)
    monkeypatch.setattr(fingerprints, "_LARGE", 1000)
    monkeypatch.setattr(fingerprints, "_GRAIN", 0.2)
    remembered(tmp_path, source)
    assert str(source.path) in json.loads((tmp_path / FILE).read_text())


def test_a_file_that_changes_while_it_is_hashed_is_not_remembered(tmp_path, source, monkeypatch):
    digest = hashlib.file_digest

    def changing(stream, name):
        found = digest(stream, name)
        change_in_place(source.path)
        return found

    monkeypatch.setattr(hashlib, "file_digest", changing)
    remembered(tmp_path, source)
    assert not (tmp_path / FILE).exists()


def test_small_files_are_hashed_each_time(tmp_path, source):
    source.path.write_bytes(b"small")
    os.utime(source.path, OLD)
    remembered(tmp_path, source)
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b'{"log": 3}', b'{"log": [[1, 2], "abc"]}'])
def test_a_broken_memory_is_replaced(content, tmp_path, source):
    (tmp_path / FILE).write_bytes(content)
    remembered(tmp_path, source)
    assert list(json.loads((tmp_path / FILE).read_text())) == [str(source.path)]


def test_files_that_are_gone_are_forgotten_and_others_are_kept(tmp_path, source):
    remembered(tmp_path, source)
    for name in ("second.csv", "third.csv"):
        other = Source(name, tmp_path / name)
        other.path.write_bytes(LARGE)
        os.utime(other.path, OLD)
        remembered(tmp_path, other)
        if name == "second.csv":
            other.path.unlink()
    assert sorted(json.loads((tmp_path / FILE).read_text())) == [
        str(source.path),
        str(tmp_path / "third.csv"),
    ]


def test_a_folder_that_cannot_hold_the_memory_is_no_mistake(tmp_path, source):
    (tmp_path / "file").write_text("")
    assert remembered(tmp_path / "file", source)[0].bytes == len(LARGE)


def test_a_dataset_is_named_before_anything_is_written(write, tmp_path, make_schema, small_log):
    path, folder = write("log.csv", small_log * 8), tmp_path / "datasets"
    os.utime(path, OLD)
    with planned(make_schema(), path, folder) as dataset:
        assert not folder.exists()
        found = dataset.folder
        assert dataset.build() == found
    assert ingest(make_schema(), path, folder) == found
    manifest = (found / "manifest.json").read_text()
    assert json.loads(manifest)["digest"] == dataset.digest
    assert str(tmp_path) not in manifest  # absolute paths stay in the memory beside it


def test_another_as_of_date_is_another_dataset(write, tmp_path, make_schema, small_log):
    path, schema = write("log.csv", small_log), make_schema(split=TIME)
    digests = set()
    for as_of in (None, "2024-01-15", "2024-01-16"):
        with planned(schema, path, tmp_path, as_of=as_of) as dataset:
            digests.add(dataset.digest)
    assert len(digests) == 3


def test_an_as_of_date_reaches_the_split(write, tmp_path, make_schema, small_log):
    schema = make_schema(split=TIME)
    folder = ingest(schema, write("log.csv", small_log), tmp_path / "datasets", as_of="2024-01-11")
    assert json.loads((folder / "manifest.json").read_text())["rows"]["after_as_of"] == 200


def test_an_as_of_date_needs_a_split_by_time_and_a_date(write, tmp_path, make_schema, small_log):
    path = write("log.csv", small_log)
    with pytest.raises(ConfigError, match=r'data\.as_of = "2024-01-15" needs a split by time.*"random"'):
        ingest(make_schema(), path, tmp_path / "datasets", as_of="2024-01-15")
    with pytest.raises(ConfigError, match=r'data\.as_of: expected an instant.*found "yesterday"'):
        ingest(make_schema(split=TIME), path, tmp_path / "datasets", as_of="yesterday")


def test_a_dataset_that_another_process_finished_meanwhile_is_left_in_its_place(
    write, tmp_path, make_schema, small_log, monkeypatch
):
    path, folder = write("log.csv", small_log), tmp_path / "datasets"
    whole, passes = [], ingest_module.Passes

    def slow(*arguments):
        if not whole:
            monkeypatch.setattr(ingest_module, "Passes", passes)
            whole.append(ingest(make_schema(), path, folder))
            (whole[0] / "cache").mkdir()  # it is being read
        return passes(*arguments)

    monkeypatch.setattr(ingest_module, "Passes", slow)
    found = ingest(make_schema(), path, folder)
    assert found == whole[0]
    assert (found / "cache").is_dir()
