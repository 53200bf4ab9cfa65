"""A dataset's parts as arrays: what the parquet files say, laid out once, whole or not at all."""

import errno
import json
import shutil

import numpy as np
import polars as pl
import pytest

from ctr.dataset import row_arrays, store
from ctr.dataset.store import Dataset
from ctr.errors import CtrError, DataError

FIELDS = [
    {"name": "tags", "kind": "list", "separator": "|"},
    {"name": "user"},
    {"name": "price", "kind": "numeric", "transform": "standard"},
    {"name": "words", "kind": "list", "separator": " "},
]


def log_text() -> str:
    lines = ["click,user,price,tags,words,chance"]
    for row in range(300):
        tags, words = "|".join("abc"[: row % 4]), " ".join("xyz"[row % 3 :])
        price = "" if row % 10 == 0 else row % 7
        lines.append(f"{row % 3 == 0:d},u{row % 20},{price},{tags},{words},{row / 1000}")
    return "\n".join(lines) + "\n"


@pytest.fixture
def folder(write, run):
    return run(write("log.csv", log_text()), fields=FIELDS, true_probability="chance")


def change_manifest(folder, **keys) -> None:
    path = folder / "manifest.json"
    content = {**json.loads(path.read_text()), **keys}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_a_part_says_what_its_parquet_files_say(folder, rows_of, monkeypatch):
    monkeypatch.setattr(store, "_CHUNK", 7)  # many chunks, the last one smaller
    dataset = Dataset(folder)
    offsets = {field.name: field.offset for field in dataset.fields}
    for name, part in (("train", dataset.part("train")), ("test", dataset.sealed_test())):
        rows = rows_of(folder, name)
        assert len(part) == len(rows) == dataset.manifest["rows"][name]
        for number, row in enumerate(rows.iter_rows(named=True)):
            assert part.ids[number].tolist() == [row[name] + offsets[name] for name in ("user", "price")]
            assert part.values[number].tolist() == [1.0, row["@value:price"]]
            for field, (ids, starts) in zip(("tags", "words"), part.lists, strict=True):
                found = ids[starts[number] : starts[number + 1]].tolist()
                assert found == [value + offsets[field] for value in row[field]]
            assert part.labels[number] == row["@label"]
            assert part.rows[number] == row["@row"]
            assert part.true_probability[number] == row["@true_probability"]


def test_the_arrays_have_the_narrow_types_that_the_docstring_promises(folder):
    part = Dataset(folder).part("train")
    arrays = (part.ids, part.values, *part.lists[0], part.labels, part.rows, part.true_probability)
    kinds = ["int32", "float32", "int32", "int64", "uint8", "int64", "float64"]
    assert [str(array.dtype) for array in arrays] == kinds
    assert isinstance(part.ids, np.memmap)


def test_list_fields_stand_last_and_ids_follow_the_schema(folder):
    dataset = Dataset(folder)
    assert [field.name for field in dataset.fields] == ["user", "price", "tags", "words"]
    order = sorted(dataset.fields, key=lambda field: field.offset)
    assert [field.name for field in order] == [field["name"] for field in FIELDS]
    assert [field.name for field in dataset.fields if field.scaled] == ["price"]


def test_row_v_of_the_vocabulary_is_the_feature_with_global_id_v(folder):
    dataset = Dataset(folder)
    assert dataset.vocabulary.height == dataset.features
    offsets = {field.name: field.offset for field in dataset.fields}
    for number, row in enumerate(dataset.vocabulary.iter_rows(named=True)):
        assert offsets[row["field"]] + row["id"] == number


def test_a_log_of_lists_alone_has_no_single_valued_ids(write, run):
    lines = ["click,tags", *(f"{row % 2},{'|'.join('abc'[: row % 4])}" for row in range(100))]
    folder = run(write("log.csv", "\n".join(lines) + "\n"), fields=[FIELDS[0]])
    part = Dataset(folder).part("train")
    assert part.ids.shape == (len(part), 0)
    assert part.values is None
    assert part.true_probability is None
    assert part.lists[0][1][-1] == len(part.lists[0][0])


def test_a_part_is_laid_out_once(folder):
    first = Dataset(folder).part("train")
    shutil.rmtree(folder / "train")
    again = Dataset(folder).part("train")
    assert np.array_equal(first.ids, again.ids)


def test_a_full_disk_leaves_no_half_written_arrays(folder, monkeypatch):
    calls = []

    def full(self, rows):
        calls.append(rows)
        if len(calls) == 5:
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(row_arrays._ArrayFile, "add", full)
        with pytest.raises(CtrError, match=r"No space left on device.*make room"):
            Dataset(folder).part("train")
    assert list((folder / "cache").iterdir()) == []
    assert len(Dataset(folder).part("train")) == Dataset(folder).manifest["rows"]["train"]


def test_two_processes_may_lay_the_same_part_out_at_the_same_time(folder, monkeypatch):
    original = store.write_arrays

    def second_is_slower(scratch, *rest, **keys):
        original(scratch, *rest, **keys)
        shutil.copytree(scratch, scratch.parent / "valid")

    monkeypatch.setattr(store, "write_arrays", second_is_slower)
    part = Dataset(folder).part("valid")
    assert len(part) == Dataset(folder).manifest["rows"]["valid"]
    assert [path.name for path in (folder / "cache").iterdir()] == ["valid"]


def test_the_test_rows_are_sealed(folder):
    with pytest.raises(CtrError, match='"test" is sealed'):
        Dataset(folder).part("test")
    assert not (folder / "cache" / "test").exists()
    assert len(Dataset(folder).sealed_test()) > 0


def test_rows_that_went_missing_are_noticed(folder, rows_of):
    rows = rows_of(folder, "train")
    for file in (folder / "train").glob("*.parquet"):
        file.unlink()
    rows.head(-1).write_parquet(folder / "train" / "part-00000.parquet")
    message = rf"expected {len(rows)} rows, found {len(rows) - 1}; the dataset was altered"
    with pytest.raises(DataError, match=message):
        Dataset(folder).part("train")
    assert list((folder / "cache").iterdir()) == []


def test_a_broken_parquet_file_is_no_traceback(folder):
    file = next((folder / "train").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(DataError, match="the dataset was altered"):
        Dataset(folder).part("train")


@pytest.mark.parametrize("damage", ["cut", "missing", "fewer"])
def test_damaged_arrays_are_noticed(folder, damage):
    Dataset(folder).part("train")
    file = folder / "cache" / "train" / "labels.npy"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-10])
    elif damage == "missing":
        file.unlink()
    else:
        np.save(file, np.zeros(3, np.uint8))
    with pytest.raises(DataError, match="the dataset was altered"):
        Dataset(folder).part("train")


def test_a_folder_without_manifest_is_no_dataset(tmp_path):
    with pytest.raises(DataError, match=r'no dataset here .*"manifest\.json"'):
        Dataset(tmp_path)
    with pytest.raises(DataError, match="no dataset here"):
        Dataset(tmp_path / "nowhere")


@pytest.mark.parametrize("text", ["{", "\x00", "[]", "3"])
def test_a_manifest_that_is_no_json_object_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json"):
        Dataset(tmp_path)


def test_a_newer_format_is_refused_before_anything_else_is_read(folder):
    change_manifest(folder, format=2, schema=None)
    with pytest.raises(DataError, match="expected dataset format 1, found 2; ingest the log again"):
        Dataset(folder)


@pytest.mark.parametrize(
    "change", [{"schema": None}, {"digest": None}, {"fields": [{}]}, {"fields": 3}, {"schema": {"name": 1}}]
)
def test_a_manifest_without_what_it_must_hold_is_refused(folder, change):
    change_manifest(folder, **change)
    with pytest.raises(DataError, match="the dataset was altered"):
        Dataset(folder)


def test_the_vocabulary_comes_in_order_whatever_the_order_of_its_file(folder):
    before = Dataset(folder).vocabulary
    pl.read_parquet(folder / "vocabulary.parquet").reverse().write_parquet(folder / "vocabulary.parquet")
    assert Dataset(folder).vocabulary.equals(before)
