"""Whatever stands in a cell: a probability, NaN, or one clear line that names the column."""

import array
import datetime
import decimal
import enum
import fractions
import uuid

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.dataset.ingest import ingest
from ctr.dataset.odd_cells import UNUSABLE
from ctr.dataset.schema import Schema
from ctr.dataset.store import Dataset
from ctr.errors import CtrError
from ctr.serving.scorer import Scorer, score_file
from ctr.settings import check
from tests.serving.attacks import RELEASE
from tests.serving.conftest import Trained


class Word(str):
    """Text that is more than text."""


class Level(enum.IntEnum):
    HIGH = 3


ODD = [
    b"", b"a", b"\xff", bytearray(b"a"), memoryview(b"a"), {1, 2}, frozenset("a"), range(3), range(0), object(), len,
    decimal.Decimal("1.5"), decimal.Decimal("NaN"), decimal.Decimal(10) ** 60, fractions.Fraction(1, 3), 1j, 2**63,
    2**200, -(2**63) - 1, Word("a"), Level.HIGH, uuid.UUID(int=1), "\ud800", "\x00", [], [[]], [[1], ["a"]], [None],
    [b"a"], [{}], [object()], [1, "a"], [1, None, 2.5], (1, "a"), {}, {"a": 1}, {"a": {"b": [1]}}, {1: 2},
    datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), datetime.date(2020, 1, 1),
    datetime.time(1), datetime.timedelta(1), datetime.datetime.max, float("nan"), float("inf"), True, None, "1", 1,
    1.5, np.array([1, 2]), np.array([1, "a"], object), np.array([[1], [2]]), np.array([object()]), np.array(5),
    np.array([], object), np.array([None]), np.float32(1), np.int8(1), np.uint64(2**64 - 1), np.bool_(True),
    np.str_("a"), np.bytes_(b"a"), np.datetime64("2020-01-01"), np.datetime64("NaT"), np.timedelta64(1, "s"),
    np.float16(1), np.longdouble(1), np.complex64(1), np.void(b"a"), pd.NA, pd.NaT, pd.Timestamp("2020"),
    pd.Timedelta("1s"), pd.Period("2020"), pd.Interval(0, 1), pd.Series([1]), pd.DataFrame({"a": [1]}), pl.Series([1]),
    pl.Series(["a"]), pl.DataFrame({"a": [1]}), pl.lit(1), array.array("i", [1]), iter([1]), Ellipsis, type,
    NotImplemented, ValueError("x"),
]  # fmt: skip
CELLS = st.one_of(
    st.sampled_from(ODD),
    st.recursive(
        st.one_of(
            st.none(), st.text(max_size=3), st.integers(), st.floats(), st.binary(max_size=3), st.booleans()
        ),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.tuples(inner, inner),
            st.dictionaries(st.text(max_size=2), inner, max_size=2),
        ),
        max_leaves=5,
    ),
)


@pytest.fixture(scope="module")
def scorers(tmp_path_factory):
    """A scorer that encodes cell by cell, and one that goes by frames as a field is derived; a row of each."""
    folder = tmp_path_factory.mktemp("odd")
    log = pl.DataFrame(
        {
            "click": [n % 2 for n in range(60)],
            "word": [f"w{n % 5}" for n in range(60)],
            "bin": [n * 1.5 for n in range(60)],
            "square": [n * 3 for n in range(60)],
            "scaled": [n % 7 for n in range(60)],
            "list": [f"a|b{n % 3}" for n in range(60)],
            "bare": [f"a b{n % 3}" for n in range(60)],
            "vector": [f"{n} 2" for n in range(60)],
        }
    )
    log.write_csv(folder / "log.csv")
    keys = {
        "name": "odd", "label": "click", "split": {"by": "random", "valid": 0.2, "test": 0.2},
        "fields": [
            {"name": "word"},
            {"name": "bin", "kind": "numeric", "transform": "quantile", "bins": 4},
            {"name": "square", "kind": "numeric", "transform": "log_square"},
            {"name": "scaled", "kind": "numeric", "transform": "minmax"},
            {"name": "list", "kind": "list", "separator": "|"},
            {"name": "bare", "kind": "list", "separator": " ", "max_length": 2, "missing_values": ["a"]},
            {"name": "vector", "kind": "vector", "size": 2, "separator": " "},
        ],
    }  # fmt: skip
    dataset = Dataset(ingest(check(keys, Schema, "schema"), folder / "log.csv", folder / "datasets"))
    plain = Scorer(Trained(dataset, folder / "log.csv", hidden=(4,), dim=2).export(folder / "bundle"))
    row = pl.read_csv(folder / "log.csv", infer_schema=False).select(plain.columns).row(7, named=True)
    derived = Scorer(RELEASE / "bundle")
    return [
        (plain, row),
        (derived, pl.read_parquet(RELEASE / "rows.parquet").select(derived.columns).row(7, named=True)),
    ]


def told(score):
    """What a call gives, or the message of a refusal."""
    try:
        return score(), ""
    except CtrError as error:
        return None, str(error)


def check_scores(scorer, rows, height, *candidates):
    found, message = told(lambda: scorer.score(rows, *candidates))
    if found is None:
        assert "\n" not in message
        assert len(message) < 1000
        assert '"' in message
        return
    assert found.shape == (height,)
    assert np.all(np.isnan(found) | ((found >= 0.0) & (found <= 1.0)))


def columns_of(cells):
    """The cells as a column of whatever library can hold them."""
    for build in (
        lambda: pl.Series(cells, dtype=pl.Object), lambda: pl.Series(cells, strict=False), lambda: pl.Series(cells),
    ):  # fmt: skip
        try:
            found = build()
        except UNUSABLE:
            continue
        if found.len() == len(cells):
            yield found


@pytest.mark.parametrize("which", [0, 1], ids=["cell by cell", "by frames"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_odd_cells_are_scored_or_told_in_a_line(scorers, which, data):
    scorer, row = scorers[which]
    name = data.draw(st.sampled_from(scorer.columns))
    cells = data.draw(st.lists(CELLS, min_size=1, max_size=3))
    rows = [{**row, name: cell} for cell in cells]
    check_scores(scorer, rows[0], 1)
    check_scores(scorer, rows, len(rows))
    context = {column: row[column] for column in scorer.columns if column != name}
    check_scores(scorer, context, len(rows), [{name: cell} for cell in cells])
    frame = pl.DataFrame([row] * len(cells))
    for column in columns_of(cells):
        check_scores(scorer, frame.with_columns(column.alias(name)), len(cells))
    given_frame = pd.DataFrame([row] * len(cells))
    given_frame[name] = pd.Series(cells, dtype=object)
    check_scores(scorer, given_frame, len(cells))


@pytest.mark.parametrize("which", [0, 1], ids=["cell by cell", "by frames"])
@pytest.mark.parametrize("depth", [9, 100, 900])
@pytest.mark.parametrize(
    "around", [lambda inner: [inner], lambda inner: {"a": inner}], ids=["lists", "dicts"]
)
def test_cells_that_are_nested_deep_are_told_in_a_line(scorers, which, depth, around):
    scorer, row = scorers[which]
    cell = "a"
    for _ in range(depth):
        cell = around(cell)
    for name in scorer.columns:
        check_scores(scorer, {**row, name: cell}, 1)
        check_scores(scorer, [{**row, name: cell}, row], 2)
        frame = pd.DataFrame([row] * 2)
        frame[name] = pd.Series([cell, None], dtype=object)
        check_scores(scorer, frame, 2)


TYPES = {
    "categories": pl.lit("1").cast(pl.Categorical), "enum": pl.lit("1").cast(pl.Enum(["1"])), "list": pl.lit([1]),
    "bytes": pl.lit(b"1"), "date": pl.date(2020, 1, 1), "time": pl.time(1), "struct": pl.struct(a=1),
    "decimal": pl.lit("1.5").cast(pl.Decimal(10, 2)), "duration": pl.duration(days=1), "null": pl.lit(None),
    "instant": pl.datetime(2020, 1, 1, time_zone="UTC"), "array": pl.lit([1, 2]).cast(pl.Array(pl.Int8, 2)),
    "truth": pl.lit(True), "float16": pl.lit(1.0).cast(pl.Float32),
}  # fmt: skip


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("column", ["seconds", "user", "price", "tags", "picture"])
def test_a_file_with_a_column_of_another_type_is_scored_or_told_in_a_line(tmp_path, type_, column):
    rows = pl.read_parquet(RELEASE / "rows.parquet").head(5).with_columns(TYPES[type_].alias(column))
    check_scores(Scorer(RELEASE / "bundle"), rows, 5)
    rows.write_parquet(tmp_path / "in.parquet")
    out = tmp_path / "out.parquet"
    found, message = told(
        lambda: score_file(RELEASE / "bundle", tmp_path / "in.parquet", out, max_bad_rows=1.0)
    )
    assert "\n" not in message
    assert found is not None or f'"{column}"' in message
