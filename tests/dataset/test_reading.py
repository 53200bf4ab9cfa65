import bz2
import csv
import gzip
import io
import json
import string

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.dataset import byte_streams, csv_lines
from ctr.dataset.byte_streams import FileBytes, Resumed
from ctr.dataset.csv_dialect import Dialect
from ctr.dataset.inputs import Source, find_files, located
from ctr.dataset.reading import chunks, column_names
from ctr.dataset.schema import Read
from ctr.errors import ConfigError, DataError


def read_all(path, wanted=None, block_bytes=1 << 20, **keys):
    """Every chunk of a file put together: frame, row numbers from 0, bad rows."""
    found = list(chunks([Source(path.name, path)], Read(**keys), wanted, block_bytes))
    return (
        pl.concat(chunk.frame for chunk in found),
        np.concatenate([chunk.rows for chunk in found]),
        pl.concat(chunk.bad for chunk in found),
    )


CELL = st.text(alphabet='ab,"\n\r |é', max_size=6)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=12),
    end=st.sampled_from(["\n", "\r\n"]),
    block=st.integers(1, 80),
    final=st.booleans(),
)
def test_what_pythons_csv_writes_is_read_back_whatever_the_block_size(
    tmp_path_factory, rows, end, block, final
):
    if end == "\n":  # Python leaves a lone carriage return unquoted there
        rows = [tuple(cell.replace("\r", "") for cell in row) for row in rows]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator=end).writerows([("x", "y", "z"), *rows])
    path = tmp_path_factory.mktemp("csv") / "log.csv"
    written = text.getvalue() if final else text.getvalue().removesuffix(end)
    path.write_bytes(written.encode())
    frame, numbers, bad = read_all(path, block_bytes=block)
    assert frame.rows() == [tuple(cell or None for cell in row) for row in rows]
    assert numbers.tolist() == list(range(len(rows)))
    assert bad.height == 0


@settings(max_examples=150, deadline=None)
@given(
    lines=st.lists(st.text(alphabet='ab,"', min_size=1, max_size=8), min_size=1, max_size=8),
    block=st.integers(1, 40),
)
def test_any_mess_of_quotes_gives_each_line_a_row_or_sets_it_aside(tmp_path_factory, lines, block):
    path = tmp_path_factory.mktemp("csv") / "log.csv"
    path.write_text("x,y\n" + "\n".join(lines) + "\n", newline="")
    try:
        frame, numbers, bad = read_all(path, block_bytes=block)
    except DataError as error:
        pytest.fail(str(error))
    together = sorted([*numbers.tolist(), *(row - 1 for row in bad["row"])])
    assert together == list(range(len(together)))
    # Lines whose quotes are all literal text are what Python's csv says they are.
    if not any(cell.startswith('"') for line in lines for cell in line.split(",")):
        expected = [(n, tuple(row)) for n, row in enumerate(csv.reader(lines)) if len(row) == 2]
        assert [
            (n, tuple(c or "" for c in row)) for n, row in zip(numbers, frame.rows(), strict=True)
        ] == expected


def test_a_stray_quote_is_text_and_costs_no_other_row(write):
    lines = "\n".join(f"{row},b" for row in range(1000))
    path = write("log.csv", f'x,y\n5" disk,a\n{lines}\n')
    frame, _, bad = read_all(path, block_bytes=512)
    assert frame.row(0) == ('5" disk', "a")
    assert (frame.height, bad.height) == (1001, 0)


def test_a_quote_that_never_closes_costs_its_own_line_alone(write):
    path = write("log.csv", 'x,y\n1,a\n2,"b\n3,c\n"4",d\n')
    frame, numbers, bad = read_all(path)
    assert frame.rows() == [("1", "a"), ("3", "c"), ("4", "d")]
    assert numbers.tolist() == [0, 2, 3]
    assert bad.rows() == [
        ("log.csv", 2, "", '2,"b', "expected a closing quote before the next separator or line end")
    ]


def test_ragged_lines_are_set_aside_with_their_row_numbers(write):
    path = write("log.csv", "x,y,z\n1,2,3\n4,5\n6,7,8\n9,10,11,12\n\n13,14,15\n16,")
    frame, numbers, bad = read_all(path)
    assert frame.rows() == [("1", "2", "3"), ("6", "7", "8"), ("13", "14", "15")]
    assert numbers.tolist() == [0, 2, 4]
    assert bad.select("row", "found", "reason").rows() == [
        (2, "2 columns", "expected 3 columns"),
        (4, "4 columns", "expected 3 columns"),
        (6, "2 columns", "expected 3 columns"),
    ]


def test_short_and_long_lines_that_balance_each_other_are_both_found(write):
    _, _, bad = read_all(write("log.csv", "x,y,z\n1,2\n1,2,3,4\n1,2,3\n"))
    assert bad["row"].to_list() == [1, 2]


def test_bytes_that_are_no_utf8_are_set_aside_line_by_line(write):
    path = write("log.csv", b"x,y\n1,\xc3\xa9\n2,\xff\n3,c\n4,\xe9\n")
    frame, numbers, bad = read_all(path)
    assert frame.rows() == [("1", "é"), ("3", "c")]
    assert numbers.tolist() == [0, 2]
    assert bad.select("row", "found", "reason").rows() == [
        (2, "2,\\xff", "expected UTF-8 text"),
        (4, "4,\\xe9", "expected UTF-8 text"),
    ]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16"])
def test_other_encodings_are_read(write, encoding):
    path = write("log.csv", "x,y\n1,é\n2,Ü\n".encode(encoding))
    frame, _, _ = read_all(path, encoding=encoding, block_bytes=3)
    assert frame.rows() == [("1", "é"), ("2", "Ü")]


def test_a_byte_order_mark_is_no_part_of_the_first_name(write):
    frame, _, _ = read_all(write("log.csv", b"\xef\xbb\xbfx,y\n1,2\n"))
    assert frame.columns == ["x", "y"]


def test_a_file_without_header_takes_its_names_from_the_schema(write):
    frame, _, _ = read_all(
        write("log.tsv", "1\ta\n2\t\n"), separator="\t", has_header=False, columns=["x", "y"]
    )
    assert frame.rows(named=True) == [{"x": "1", "y": "a"}, {"x": "2", "y": None}]


def test_null_values_are_missing(write):
    frame, _, _ = read_all(write("log.csv", 'x,y\nNA,-\n1,"NA"\n'), null_values=["NA", "-"])
    assert frame.rows() == [(None, None), ("1", None)]


def test_in_a_single_column_a_blank_line_is_a_missing_value(write):
    frame, _, _ = read_all(write("log.csv", "x\n1\n\n2\n"))
    assert frame["x"].to_list() == ["1", None, "2"]


@pytest.mark.parametrize("other", ["2", '"2"', '"2', '2"', '"2" 2', "\xff"])
def test_a_blank_line_counts_alike_whatever_stands_around_it(write, other):
    frame, numbers, bad = read_all(write("log.csv", f"x\n1\n\n{other}\n3\n".encode("latin-1")))
    assert frame["x"].to_list()[:2] == ["1", None]
    assert frame["x"].to_list()[-1] == "3"
    assert sorted([*numbers.tolist(), *(row - 1 for row in bad["row"])]) == [0, 1, 2, 3]
    frame, numbers, bad = read_all(write("log.csv", f"x,y\n1,1\n\n{other},2\n\n3,3\n".encode("latin-1")))
    assert frame["x"].to_list()[:: frame.height - 1] == ["1", "3"]
    assert sorted([*numbers.tolist(), *(row - 1 for row in bad["row"])]) == [0, 1, 2]


def test_well_formed_quotes_need_no_repair(tmp_path):
    text = b'x,y\r\n"a""b","c\r\nd"\r\n"",e\r\n'
    (tmp_path / "none").touch()
    with FileBytes(Source("none", tmp_path / "none")) as none:
        (block,) = csv_lines.blocks(Resumed(text, none), Dialect(b",", b'"'), "log.csv")
    assert (block.data, block.count, block.numbers) == (text, 3, None)


@pytest.mark.parametrize("lengths", [[5], [1], [90, 3, 40], [500], [0, 0, 7]])
def test_pieces_end_with_a_line_where_one_ends_near(tmp_path, monkeypatch, lengths):
    monkeypatch.setattr(byte_streams, "_LINE", 64)
    text = b"".join(b"x" * lengths[number % len(lengths)] + b"\n" for number in range(300)) + b"no line end"
    (tmp_path / "log.csv").write_bytes(text)
    pieces = []
    with FileBytes(Source("log.csv", tmp_path / "log.csv")) as stream:
        while piece := stream.read_lines(200):
            pieces.append(piece)
    assert b"".join(pieces) == text
    assert all(len(piece) <= 200 for piece in pieces)
    if max(lengths) < 64:
        assert all(piece.endswith(b"\n") for piece in pieces[:-1])


def test_bytes_that_another_encoding_lacks_are_set_aside(write):
    frame, _, bad = read_all(write("log.csv", b"x,y\n1,\x81\n2,\xe9\n"), encoding="cp1252")
    assert frame.rows() == [("2", "é")]
    assert bad["row"].to_list() == [1]


def test_json_constants_that_json_does_not_have_are_missing_or_infinite(write):
    frame, _, _ = read_all(write("log.ndjson", '{"x": NaN}\n{"x": -Infinity}\n'), ["x"], format="ndjson")
    assert frame["x"].to_list() == [None, "-inf"]


def test_without_quoting_a_quote_is_text(write):
    frame, _, _ = read_all(write("log.csv", 'x,y\n"a,b"\n'), quote="")
    assert frame.rows() == [('"a', 'b"')]


@pytest.mark.parametrize(("suffix", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("zst", None)])
def test_compressed_files_are_read(write, suffix, pack):
    text = b"x,y\n" + b"".join(b"%d,%d\n" % (row, row * row) for row in range(2000))
    packed = pack(text) if pack else pa.compress(text, "zstd", asbytes=True)
    frame, numbers, _ = read_all(write(f"log.csv.{suffix}", packed), block_bytes=1000)
    assert frame["x"].to_list() == [str(row) for row in range(2000)]
    assert numbers[-1] == 1999


def test_a_gz_file_of_two_members_is_read_to_its_end(write):
    path = write("log.csv.gz", gzip.compress(b"x,y\n1,2\n") + gzip.compress(b"3,4\n"))
    assert read_all(path)[0].rows() == [("1", "2"), ("3", "4")]


def test_parquet_keeps_its_types_and_reads_only_what_is_wanted(tmp_path):
    path = tmp_path / "log.parquet"
    pl.DataFrame({"x": [1, 2], "y": ["a", None], "z": [0.5, 1.5]}).write_parquet(path)
    frame, _, _ = read_all(path, ["z", "x"], format="parquet")
    assert frame.rows(named=True) == [{"x": 1, "z": 0.5}, {"x": 2, "z": 1.5}]


def test_ndjson_gives_canonical_text_and_sets_broken_lines_aside(write):
    lines = [
        '{"x": 1, "y": "a"}',
        '{"x": 2.0, "y": ["p", 3]}',
        "{broken",
        "",
        '{"x": 1e400}',
        '{"y": true}',
        "[1]",
    ]
    path = write("log.ndjson", "\n".join(lines) + "\n")
    frame, numbers, bad = read_all(path, ["x", "y"], format="ndjson")
    assert frame["x"].to_list() == ["1", "2", "inf", None]
    assert frame["y"].to_list() == [["a"], ["p", "3"], None, ["true"]]
    assert numbers.tolist() == [0, 1, 3, 4]
    assert bad["row"].to_list() == [3, 6]


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(
        st.fixed_dictionaries({}, optional={"x": st.text(string.printable, max_size=5), "y": st.integers()}),
        min_size=1,
        max_size=9,
    ),
    block=st.integers(1, 60),
)
def test_ndjson_is_read_back_whatever_the_block_size(tmp_path_factory, rows, block):
    path = tmp_path_factory.mktemp("json") / "log.ndjson"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    frame, _, _ = read_all(path, ["x", "y"], format="ndjson", block_bytes=block)
    assert frame["x"].to_list() == [row.get("x") or None for row in rows]
    assert frame["y"].to_list() == [str(row["y"]) if "y" in row else None for row in rows]


def test_a_glob_reads_files_in_order_and_counts_rows_through(write, tmp_path):
    write("b/log.csv", "x,y\n3,c\n")
    write("a/log.csv", "y,x\na,1\nb,2\n")
    sources = find_files(str(tmp_path / "*/log.csv"))
    found = list(chunks(sources, Read(), ["x", "y"]))
    assert [source.name for source in sources] == ["a/log.csv", "b/log.csv"]
    assert [(chunk.offset, chunk.rows.tolist()) for chunk in found] == [(0, [0, 1]), (2, [0])]
    assert [chunk.frame["x"].to_list() for chunk in found] == [["1", "2"], ["3"]]
    assert found[-1].fraction == 1.0


def test_a_file_url_is_read_like_a_path(write):
    path = write("log.csv.gz", gzip.compress(b"x,y\n1,2\n"))
    with located(path.as_uri()) as sources:
        assert sources[0].path != path
        assert next(chunks(sources, Read())).frame.rows() == [("1", "2")]


def test_a_url_of_several_files_is_a_glob(write, tmp_path):
    write("one/log.csv", "x,y\n1,2\n")
    write("two/log.csv", "x,y\n3,4\n")
    with located(tmp_path.as_uri() + "/*/log.csv") as sources:
        assert [source.name for source in sources] == ["one/log.csv", "two/log.csv"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", 'file "log.csv": the file is empty'),
        ("\n\n", 'file "log.csv": the file is empty'),
        ("x,y\n", 'file "log.csv": expected rows, found none below the header'),
        ("x,y,x\n1,2,3\n", 'two columns have the same name: "x"'),
        ('x,"y\n1,2\n', "the header has a quote that does not close"),
    ],
)
def test_a_file_without_usable_header_or_rows_is_refused(write, content, expected):
    with pytest.raises(DataError, match=expected):
        read_all(write("log.csv", content))


def test_a_truncated_gz_file_is_refused_by_name(write):
    packed = gzip.compress(b"x,y\n" + np.random.default_rng(0).bytes(5000).hex().encode())
    with pytest.raises(DataError, match=r'file "log.csv.gz": damaged or cut short'):
        read_all(write("log.csv.gz", packed[:-100]))


def test_plain_text_named_gz_is_refused(write):
    with pytest.raises(DataError, match=r'file "log.csv.gz": damaged'):
        read_all(write("log.csv.gz", b"x,y\n1,2\n"))


def test_a_file_that_is_no_parquet_is_refused(write):
    with pytest.raises(DataError, match=r'file "log.parquet": expected a parquet file'):
        read_all(write("log.parquet", "x,y\n1,2\n"), format="parquet")


def test_a_parquet_file_cut_short_is_refused(tmp_path, write):
    pl.DataFrame({"x": [1, 2]}).write_parquet(tmp_path / "whole.parquet")
    with pytest.raises(DataError, match=r"expected a parquet file"):
        read_all(write("log.parquet", (tmp_path / "whole.parquet").read_bytes()[:-20]), format="parquet")


def test_parquet_columns_of_one_name_are_refused(tmp_path):
    table = pa.table([pa.array([1]), pa.array([2])], names=["x", "x"])
    pq.write_table(table, tmp_path / "log.parquet")
    with pytest.raises(DataError, match='two columns have the same name: "x"'):
        read_all(tmp_path / "log.parquet", format="parquet")


def test_a_wanted_column_that_a_file_lacks_is_named_with_the_nearest(write):
    with pytest.raises(DataError, match=r'has no column "user"; the nearest name is "users"'):
        read_all(write("log.csv", "users,y\n1,2\n"), ["user"])


def test_a_file_without_line_ends_is_refused(write):
    with pytest.raises(DataError, match="no line end within"):
        read_all(write("log.csv", b"x,y\n" + b"a" * (6 << 20)), block_bytes=1 << 20)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lag.csv", 'lag.csv": no such file; the nearest name is "log.csv"'),
        ("*.tsv", r'\*.tsv": no file matches this pattern'),
        ("", "expected a file, found a folder; a pattern such as"),
    ],
)
def test_an_input_that_is_not_there_is_named(write, tmp_path, name, expected):
    write("log.csv", "x,y\n1,2\n")
    with pytest.raises(ConfigError, match=expected):
        find_files(tmp_path / name)


def test_an_unknown_kind_of_url_is_refused():
    with (
        pytest.raises(ConfigError, match=r'input "nosuch://x/y.csv": cannot be opened'),
        located("nosuch://x/y.csv"),
    ):
        pass


def test_column_names_come_from_the_first_block(write):
    path = write("log.ndjson", '{"a": 1}\n{"b": 2}\n')
    assert column_names(Source("log.ndjson", path), Read(format="ndjson")) == ["a", "b"]
