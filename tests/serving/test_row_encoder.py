"""Cell by cell = by columns, for every kind of field and the nastiest values that we know."""

import datetime
import math
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ctr.dataset import canonical
from ctr.dataset.encoding import Encoder
from ctr.dataset.field_cells import prepare
from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.personal import Personal
from ctr.dataset.personal_fields import PersonalField
from ctr.dataset.personal_key import Key
from ctr.dataset.plain_cells import UnplainCellError, number_of, text_of
from ctr.dataset.schema import Schema
from ctr.errors import CtrError
from ctr.serving.cell_encoder import CellEncoder
from ctr.serving.python_cells import series
from ctr.serving.rows import field_rows
from ctr.settings import check

VALUES = [
    "a", "b|c", "é", "e\u0301", "\u00a0", " ", "0", "-0", "1", "1.0", "01", "true", "True", "nan", "NaN", "NULL",
    "-9223372036854775808", "9223372036854775807", "18446744073709551615", "0.1", "1e+300", "inf", "x" * 300,
    "2020-01-02", "-1", "?", "\x00", "0.30000000000000004", "None", "[]", "\U0001d518",
]  # fmt: skip
NUMBERS = [
    0.0, -0.0, 1.0, 2.0, 2.0000000000000004, -1.5, 0.1, 1e300, -1e300, 5e-324, 2.0**53, 2.0**53 + 2, 2.0**63,
    -(2.0**63), 3.5e38, math.e, math.e**2, math.inf, -math.inf, math.nan, 1.7976931348623157e308, 0.5,
]  # fmt: skip
INTEGERS = [0, 1, -1, 2, 3, 10, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, 2**64, -(2**63) - 1]
NUMERALS = [
    "1", "-1", "+1", " 1", "1 ", "\u00a07\u2003", "\x1c1", "1.", ".5", ".", "1e5", "1E-5", "1e400", "-1e400", "1e",
    "1_0", "\u0661", "0x10", "nan", "-NaN", "+nan", "inf", "-Infinity", "--1", "", " ", "\t\n", "1,5", "00012", "-0",
    "-0.0", "123456789012345678901234567890", "0.1000000000000000055511151231257827", "4.9e-324", "?", " ? ", "1d",
    "a lot",
]  # fmt: skip
OTHERS = [
    b"raw", {"a": 1}, {1, 2}, 1j, object(), datetime.date(2020, 1, 2), datetime.datetime(2020, 1, 2, 3, 4, 5, 600),
    datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC), datetime.time(1, 2), datetime.timedelta(1), Decimal("1.50"),
    Decimal("7"), np.float32(0.1), np.float64(0.1), np.int8(3), np.bool_(True), np.str_("a"), np.uint64(2**64 - 1),
    np.array([1.0, 2.0]), np.array(["a", "b"]), "\ud800",
]  # fmt: skip
SPECS = {
    "plain": {},
    "absent": {"missing_values": ["?", -1, "n/a", 0.5]},
    "many": {"kind": "list", "separator": "|", "missing_values": ["?", 1]},
    "first": {"kind": "list", "separator": " ", "max_length": 2},
    "typed": {"kind": "list"},
    "letters": {"kind": "list", "separator": ""},
    "square": {"kind": "numeric", "transform": "log_square", "missing_values": [-1, "?"]},
    "bin": {"kind": "numeric", "transform": "quantile", "bins": 4},
    "unit": {"kind": "numeric", "transform": "minmax", "missing_values": [0.1, 2]},
    "spread": {"kind": "numeric", "transform": "standard"},
    "picture": {"kind": "vector", "size": 2, "separator": " "},
    "sound": {"kind": "vector", "size": 3},
    "secret": {"pii": True, "missing_values": ["?"]},
    "secrets": {"kind": "list", "separator": "|", "pii": True, "missing_values": ["?"], "max_length": 2},
}
SCHEMA = check(
    {"name": "log", "label": "y", "missing_values": ["n/a"], "fields": [{"name": n, **k} for n, k in SPECS.items()]},
    Schema,
    "schema",
)  # fmt: skip
KEY = Key(b"a secret of sixteen bytes")


def entry(spec: FieldSpec) -> dict:
    scale = {"unit": (-1.0, 0.25), "spread": (3.25, 1 / 3), "picture": (0.0, 0.7), "sound": (0.0, 1.3)}.get(
        spec.name
    )
    return {
        "name": spec.name,
        "scale": scale and {"shift": scale[0], "factor": scale[1]},
        "edges": [-1.0, 0.0, 2.5] if spec.name == "bin" else None,
    }


def vocabulary() -> pl.DataFrame:
    """Unknown, missing and most of the values of each field; numbers of their own for all."""
    rows = []
    for spec in SCHEMA.fields:
        rows += [(spec.name, "unknown", None), (spec.name, "missing", None)]
        texts = [*VALUES, *map(str, range(-3, 40)), *map(str, [2**53, 2**31, -(2**63), 477145])]
        if spec.pii:
            texts = [KEY.pseudonym(text) for text in texts]
        if spec.scaled or spec.kind == "vector":
            rows.append((spec.name, "value", None))
        else:
            rows += [(spec.name, "value", text) for text in dict.fromkeys(texts)]
    frame = pl.DataFrame(
        rows, schema={"field": pl.String, "role": pl.String, "value": pl.String}, orient="row"
    )
    return frame.with_columns(pl.int_range(1, pl.len() + 1, dtype=pl.Int32).alias("id"))


def encoders(encoding):
    fields = [entry(spec) for spec in SCHEMA.fields]
    personal = Personal(
        [
            PersonalField(name="secret", kind="categorical", separator=None, missing_values=["?", "n/a"]),
            PersonalField(name="secrets", kind="list", separator="|", missing_values=["?", "n/a"]),
        ],
        frozenset(),
        KEY,
    )
    found = Encoder(SCHEMA, fields, vocabulary() if encoding == "vocabulary" else None)
    return {own.spec.name: CellEncoder(own, SCHEMA.missing_values, personal) for own in found.encoders}


ENCODERS = {encoding: encoders(encoding) for encoding in ("vocabulary", "hashed")}


def by_column(own, cell):
    """The way of frames, of one cell; None where it refuses the cell."""
    try:
        values = series("a cell", own.spec.name, [cell])
        if own.spec.pii:
            values = own._personal.replaced(values.to_frame())[own.spec.name]
        cells = prepare(own.spec, values, SCHEMA.missing_values)
    except (TypeError, ValueError, OverflowError, CtrError, pl.exceptions.PolarsError):
        return None
    broken = cells.broken is not None and bool(cells.broken[0])
    return field_rows(pl.DataFrame(own._encoder.encode(cells.values)), own.spec), broken


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            with np.errstate(over="ignore"):
                one, other = (np.asarray(a, np.float32 if a is expected[1] or a is found[1] else np.int64)
                              for a in (one, other))  # fmt: skip
            assert one.tobytes() == other.tobytes()


def mixed(cell):
    return isinstance(cell, list | tuple) and len({type(item) for item in cell} - {type(None)}) > 1


def check_cell(own, cell):
    expected = by_column(own, cell)
    if expected is None and not mixed(cell):
        with pytest.raises(CtrError) as caught:
            own.cells([cell])
        assert "\n" not in str(caught.value)
        return
    try:
        found = own.cells([cell])
    except CtrError:
        assert expected is None
        return
    if mixed(cell):  # no column holds such items as they are; here each counts alone
        if own.spec.kind == "list" and own.spec.max_length is None:
            alone = [i for item in cell for i in np.asarray(own.cells([[item]]).rows.ids)]
            present = [i for i in alone if i != own._encoder.missing]
            assert np.asarray(found.rows.ids).tolist() == (present or [own._encoder.missing])
        return
    assert expected is not None
    assert_same(found.rows, expected[0])
    assert (len(found.broken) > 0) == expected[1]


plain = st.one_of(
    st.none(), st.booleans(), st.sampled_from(VALUES + NUMERALS), st.text(max_size=12), st.sampled_from(NUMBERS),
    st.sampled_from(INTEGERS), st.floats(), st.integers(-(2**65), 2**65), st.integers(-50, 50),
    st.floats(-50, 50).map(repr), st.from_regex(r"\A[-+]?[0-9]{0,20}\.?[0-9]{0,20}([eE][-+]?[0-9]{1,3})?\Z"),
)  # fmt: skip
lists = st.one_of(
    st.lists(st.sampled_from(VALUES) | st.none(), max_size=4),
    st.lists(st.floats(), max_size=4),
    st.lists(st.integers(-5, 5) | st.none(), max_size=4),
    st.lists(plain, max_size=4),
    st.lists(st.sampled_from(VALUES + NUMERALS), max_size=5).map("|".join),
    st.lists(st.sampled_from(VALUES + NUMERALS), max_size=5).map(" ".join),
    st.lists(st.integers(-5, 5), max_size=3).map(tuple),
    st.lists(st.lists(st.integers(0, 3)), max_size=2),
)


@pytest.mark.parametrize("encoding", ENCODERS)
@pytest.mark.parametrize("name", SPECS)
def test_a_cell_has_the_ids_that_its_column_would_give_it(encoding, name):
    own = ENCODERS[encoding][name]
    for cell in [None, *VALUES, *NUMERALS, *NUMBERS, *INTEGERS, *OTHERS, True, False, [], [None], ()]:
        check_cell(own, cell)

    @settings(max_examples=25, deadline=None)
    @given(plain | lists)
    @example([1, 2.5])
    @example([2**64])
    def test(cell):
        check_cell(own, cell)

    test()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(SPECS)), st.lists(plain | lists, max_size=50), st.sampled_from(list(ENCODERS)))
def test_cells_count_the_same_together_and_alone(name, cells, encoding):
    own = ENCODERS[encoding][name]
    try:
        alone = [own.cells([cell]) for cell in cells]
    except CtrError:
        with pytest.raises(CtrError):
            own.cells(cells)
        return
    found = own.cells(cells)
    assert np.asarray(found.rows.ids).tolist() == [i for part in alone for i in np.asarray(part.rows.ids)]
    assert list(found.broken) == [number for number, part in enumerate(alone) if len(part.broken)]
    for key in ("numbers", "lengths"):
        parts = [getattr(part.rows, key) for part in alone]
        if cells and parts[0] is not None:
            with np.errstate(over="ignore"):
                joined = np.concatenate([np.asarray(part, np.float32) for part in parts])
                assert np.asarray(getattr(found.rows, key), np.float32).tobytes() == joined.tobytes()


@settings(deadline=None)
@given(plain)
def test_plain_text_and_numbers_are_those_of_columns(cell):
    values = (
        pl.Series("cell", [cell], strict=False) if not isinstance(cell, int) else pl.Series("cell", [cell])
    )
    try:
        assert text_of(cell) == canonical.text(values)[0]
    except UnplainCellError:
        assert isinstance(cell, int)
    numbers, broken = canonical.numbers(values)
    try:
        assert repr(number_of(cell, frozenset())) == repr(numbers[0])
        assert not broken[0]
    except UnplainCellError:
        assert broken[0] or isinstance(cell, int)


@settings(max_examples=30, deadline=None)
@given(
    st.floats(min_value=2.0, allow_infinity=False) | st.integers(1, 700).map(lambda k: math.exp(math.sqrt(k)))
)
def test_squares_of_logarithms_near_a_whole_number_are_left_to_the_column(value):
    own = ENCODERS["vocabulary"]["square"]
    for near in (value, math.nextafter(value, 0), math.nextafter(value, math.inf)):
        check_cell(own, near)


def test_a_plain_row_is_encoded_without_polars(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a column was built")

    monkeypatch.setattr(pl, "Series", refuse)
    monkeypatch.setattr(pl, "DataFrame", refuse)
    row = {"plain": "a", "many": "a|b", "first": ["a"], "square": 7, "bin": 1.5, "unit": "3.5", "picture": "1 2",
           "sound": [1, 2.5, "3"], "secret": "a", "secrets": "a|b"}  # fmt: skip
    for name, cell in row.items():
        ENCODERS["vocabulary"][name].cells([cell])


def test_the_index_takes_at_most_64_bytes_a_value_beside_its_text(tmp_path: Path):
    from ctr.dataset.value_index import ValueIndex

    values = pl.Series("value", [f"value number {number:09d}" for number in range(10_000)])
    index = ValueIndex(values, np.arange(10_000, dtype=np.int32))
    assert index.nbytes / 10_000 - 22 < 24
    assert [index.find(values[number], -1) for number in (0, 77, 9_999)] == [0, 77, 9_999]
    assert index.find("value number", -1) == index.find("", -1) == -1
    with pytest.raises(UnicodeEncodeError):
        index.find("\ud800", -1)


def test_texts_with_one_hash_are_told_apart(monkeypatch):
    from ctr.dataset import value_index

    monkeypatch.setattr(value_index, "hashes", lambda values: np.full(len(values), 7, np.uint64))
    monkeypatch.setattr(value_index, "xxh64_intdigest", lambda raw: 7)
    index = value_index.ValueIndex(pl.Series("v", ["a", "bb", "é"]), np.array([5, 6, 7], np.int32))
    assert [index.find(text, 0) for text in ("a", "bb", "é", "b", "")] == [5, 6, 7, 0, 0]
    assert index.look_up(pl.Series("v", ["é", "a", "none", "bb"]), 0).tolist() == [7, 5, 0, 6]
