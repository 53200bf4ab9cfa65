"""Parquet files that unpack to far more than they are, whatever their footers say."""

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ctr.dataset.crosses import CrossKeys, read_sketch
from ctr.serving.bundle import Bundle
from ctr.serving.limits import DISTINCT, SKETCH, check_parquet, read_parquet
from tests.serving.attacks import fresh, opened, refused
from tests.serving.mutations import sign

LONG = "a" * (15 << 20)
PLAINLY = {"compression": "zstd", "store_schema": False, "write_statistics": False}
BY_DICTIONARY = {**PLAINLY, "dictionary_pagesize_limit": 1 << 30}


def repeated(rows, text=LONG):
    """A column whose every cell is the same entry of a dictionary."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), [text])


def with_column(bundle, name, column, cells, **keys):
    """A file of a bundle with one column of so many cells, null in all others."""
    schema = pq.read_schema(bundle / name)
    columns = {each: pa.nulls(len(cells), schema.field(each).type) for each in schema.names}
    pq.write_table(pa.table(columns | {column: cells}), bundle / name, **keys)


@pytest.mark.parametrize(
    ("name", "column"),
    [("golden.parquet", "user"), ("vocabulary.parquet", "value"), ("side_tables/00000.parquet", "brand")],
)
def test_a_long_entry_of_a_dictionary_is_not_written_out_for_every_row(tmp_path, name, column):
    bundle = fresh(tmp_path)
    with_column(bundle, name, column, repeated(300), **BY_DICTIONARY)
    assert f'"{name}" cannot be read: it holds {300 * len(LONG)} bytes of text in' in refused(bundle)


def test_nor_for_every_item_of_a_list(tmp_path):
    items = pa.ListArray.from_arrays(pa.array([0, 300, 300], pa.int32()), repeated(300))
    pq.write_table(pa.table({"tags": items}), tmp_path / "x.parquet", **BY_DICTIONARY)
    with pytest.raises(ValueError, match=f"it holds {300 * len(LONG)} bytes of text in"):
        read_parquet(tmp_path / "x.parquet", ["tags"])


def test_text_by_dictionary_is_measured_and_not_guessed(tmp_path):
    """100 entries of 2,000 letters could make 50,000 rows 10 GB: they make 5 MB, as most rows have a short one."""
    entries = ["x" * 2000 + str(number) for number in range(100)]
    cells = [*entries, *(["short"] * 49_900)]
    pq.write_table(pa.table({"a": cells, "b.c": cells}), tmp_path / "x.parquet", compression="zstd")
    assert check_parquet(tmp_path / "x.parquet") == ["a", "b.c"]
    assert read_parquet(tmp_path / "x.parquet", ["b.c"]).to_dict(as_series=False) == {"b.c": cells}


def test_text_that_shares_the_start_of_the_text_before_is_refused(tmp_path):
    table = pa.table({"user": ["as the one before"] * 300})  # which a long one would be too
    encoding = {"use_dictionary": False, "column_encoding": {"user": "DELTA_BYTE_ARRAY"}}
    pq.write_table(table, tmp_path / "x.parquet", **PLAINLY, **encoding)
    with pytest.raises(ValueError, match=r"coded in a way that no bundle is \(parquet's number 7\)"):
        read_parquet(tmp_path / "x.parquet", ["user"])


def varint(number, width):
    """A signed number as Thrift writes it, in so many bytes."""
    folded, found = number * 2, bytearray()
    for _ in range(width):
        found.append(folded & 127 | 128)
        folded >>= 7
    found[-1] &= 127
    return bytes(found)


def replaced(path, old, new, *, in_footer):
    """The file with the number `old` in its footer, or else its first page, written as `new`."""
    data = bytearray(path.read_bytes())
    width = (old * 2).bit_length() // 7 + 1
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little") if in_footer else 0
    at = data.find(varint(old, width), start)
    data[at : at + width] = varint(new, width)
    path.write_bytes(data)


def test_a_footer_is_not_believed_what_its_pages_unpack_to(tmp_path):
    bundle = fresh(tmp_path)
    path = bundle / "golden.parquet"
    with_column(
        bundle, "golden.parquet", "user", pa.array(["a" * 200_000_000]), use_dictionary=False, **PLAINLY
    )
    place = pq.read_schema(path).names.index("user")
    said = pq.read_metadata(path).row_group(0).column(place).total_uncompressed_size
    replaced(path, said, 100, in_footer=True)
    assert pq.read_metadata(path).row_group(0).column(place).total_uncompressed_size == 100
    assert "it says that it unpacks to 2000" in refused(bundle)


def test_a_page_is_not_believed_how_many_entries_a_dictionary_has(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"x": [f"v{number}" for number in range(9_000)]}), path, compression="none")
    replaced(path, 9_000, 1_000_000, in_footer=False)
    with pytest.raises(ValueError, match="a dictionary says that it holds 1000000 values in"):
        check_parquet(path)


def test_pages_have_the_values_that_the_footer_says(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(
        pa.table({"x": [f"v{n}" for n in range(9_000)]}), path, compression="none", use_dictionary=False
    )
    replaced(path, 9_000, 9_001, in_footer=False)
    with pytest.raises(ValueError, match=r"a column holds 9000 values, its pages hold 9001"):
        check_parquet(path)


def test_many_cells_are_counted_over_all_columns(tmp_path):
    columns = {f"c{number}": pa.nulls(30_000, pa.int8()) for number in range(500)}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", **PLAINLY)
    with pytest.raises(ValueError, match="it says that it holds 15000000 cells in"):
        check_parquet(tmp_path / "x.parquet")


def test_columns_that_nobody_asks_for_are_not_read(tmp_path):
    bundle = fresh(tmp_path)
    for name in ("golden.parquet", "vocabulary.parquet", "side_tables/00000.parquet"):
        frame = pl.read_parquet(bundle / name)
        frame.with_columns(nobody=pl.lit("x" * 100)).write_parquet(bundle / name)
    sign(bundle)
    found = Bundle.open(bundle)
    for frame in (found.golden(), found.vocabulary(), *found.side_tables()):
        assert "nobody" not in frame.columns
    assert opened(bundle).scores == opened(fresh(tmp_path / "other")).scores


def test_a_vocabulary_of_rows_that_take_no_room_is_not_read(tmp_path):
    """As many rows as there could be if they were alike: a vocabulary's are not, each of them takes a bit at least."""
    bundle, rows = fresh(tmp_path), 2_000_000
    columns = {name: repeated(rows, "") for name in ("field", "role", "value")}
    noise = pa.array([np.random.default_rng(1).bytes(100_000), *([None] * (rows - 1))])  # read by nobody
    columns |= {"id": pa.array(np.ones(rows, np.int32)), "nobody": noise}
    path = bundle / "vocabulary.parquet"
    pq.write_table(pa.table(columns), path, use_dictionary=["field", "role", "value", "id"], **PLAINLY)
    check_parquet(path)
    assert f"it says that it holds {rows} rows in" in refused(bundle)


@pytest.mark.parametrize("number", ["{}", "{:07d}", "https://example.com/" + "a" * 100 + "/{}"])
def test_a_vocabulary_that_packs_well_is_within_the_limits(tmp_path, number):
    rows = 300_000
    frame = pl.DataFrame({"value": [number.format(n) for n in range(rows)], "id": range(1, rows + 1)})
    path = tmp_path / "vocabulary.parquet"
    frame.with_columns(field=pl.lit("user"), role=pl.lit("value")).write_parquet(path, compression="zstd")
    assert read_parquet(path, ["value"], DISTINCT).equals(frame.select("value"))
    assert rows > DISTINCT.free


@pytest.mark.parametrize("width", [1 << 19, 1 << 22])
def test_a_sketch_that_is_almost_empty_is_read_however_wide_it_is(tmp_path, width):
    sketch = np.zeros((2, width), np.uint8)
    sketch[:, ::50_000] = 7
    CrossKeys((), np.zeros((1, 4), np.int32), np.zeros(0, np.int64), sketch).write(tmp_path / "x.parquet")
    check_parquet(tmp_path / "x.parquet", SKETCH)
    assert np.array_equal(read_sketch(tmp_path / "x.parquet"), sketch)
