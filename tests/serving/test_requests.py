"""Rows as programs hold them: dicts, lists of dicts, pandas, and candidates in one context, all as the frame."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest

from ctr.dataset.ingest import ingest
from ctr.dataset.schema import Schema
from ctr.dataset.store import Dataset
from ctr.errors import DataError
from ctr.serving.request_scorer import _FRAME
from ctr.serving.row_encoder import RowEncoder
from ctr.serving.scorer import Scorer
from ctr.settings import check
from tests.serving.conftest import FIELDS, Trained, everything
from tests.serving.test_scorer import typed

ENCODINGS = pytest.mark.parametrize("encoding", ["vocabulary", "hashed"])


def plain_schema(folder) -> Schema:
    """The log with everything that is a column: no side tables, nothing derived."""
    keys = everything(folder)
    keys |= {"joins": [], "derive": {}, "fields": [f for f in FIELDS if f["name"] not in JOINED]}
    return check(keys, Schema, "schema")


JOINED = {"hour", "brand", "weight", "country"}


@pytest.fixture(scope="module")
def scorers(log, tmp_path_factory):
    """Scorers of bundles whose fields are columns, in both encodings, and one of the log with everything."""
    folder, _, dataset = log
    work = tmp_path_factory.mktemp("requests")
    found = {"joined": Scorer(Trained(dataset, folder / "log.csv", share=0.7).export(work / "joined"))}
    for encoding in ("vocabulary", "hashed"):
        plain = Dataset(
            ingest(plain_schema(folder), folder / "log.csv", work / "datasets", encoding=encoding)
        )
        placing = {"shared": True, "rows": 90} if encoding == "hashed" else None
        trained = Trained(plain, folder / "log.csv", share=0.7, placing=placing)
        found[encoding] = Scorer(trained.export(work / encoding))
    return found


WAYS = pytest.mark.parametrize("way", ["vocabulary", "hashed", "joined"])


def same(found, expected):
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def by_columns(scorer, frame):
    """The same rows in a frame that is long enough for the way of whole columns."""
    return scorer.score(pl.concat([frame] * (_FRAME // frame.height + 1)))[: frame.height]


def broken(frame):
    """The log with cells that break the schema, in two rows."""
    income, visits = frame["income"].to_list(), frame["visits"].to_list()
    income[3], visits[5] = "a lot", "inf"
    return frame.with_columns(pl.Series("income", income), pl.Series("visits", visits))


@WAYS
def test_a_dict_a_list_of_dicts_and_a_pandas_frame_score_as_the_frame(scorers, log, way):
    scorer = scorers[way]
    for frame in (broken(log[1].head(100)), typed(log[1].head(100))):
        expected = by_columns(scorer, frame)
        same(scorer.score(frame), expected)
        same(scorer.score(frame.to_dicts()), expected)
        same(scorer.score(frame.to_pandas()), expected)
        for row in (0, 3, 17):
            found = scorer.score(frame.row(row, named=True))
            assert found.shape == (1,)
            same(found, expected[row : row + 1])
    assert np.isnan(scorer.score(broken(log[1].head(50)).to_dicts())).sum() == 2


@WAYS
def test_cells_of_several_types_count_each_alone(scorers, log, way):
    scorer, rows = scorers[way], log[1].head(12).to_dicts()
    mixed = [
        row
        if number % 2
        else {**row, "visits": row["visits"] and int(row["visits"]), "shop": float("nan"), "tags": []}
        for number, row in enumerate(rows)
    ]
    expected = np.concatenate([scorer.score(pl.DataFrame([row], infer_schema_length=1)) for row in mixed])
    same(scorer.score(mixed), expected)
    same(scorer.score(pl.DataFrame(rows).to_pandas().assign(shop=[row["shop"] for row in mixed])), scorer.score(
        [{**row, "shop": other["shop"]} for row, other in zip(rows, mixed, strict=True)]))  # fmt: skip


@WAYS
def test_order_of_keys_extra_keys_and_no_rows_do_not_matter(scorers, log, way):
    scorer, row = scorers[way], log[1].row(0, named=True)
    expected = scorer.score(row)
    assert scorer.score({**dict(reversed(row.items())), "colour": object()}) == expected
    assert scorer.score([]).shape == scorer.score(log[1].head(0).to_pandas()).shape == (0,)
    assert scorer.score({}, []).shape == (0,)


@WAYS
def test_a_missing_key_is_named_with_its_row_and_the_nearest_name(scorers, log, way):
    scorer, row = scorers[way], log[1].row(0, named=True)
    lacking = {name: cell for name, cell in row.items() if name != "item"}
    with pytest.raises(
        DataError, match='field "item": the row has no such column; the nearest name is "itme"'
    ):
        scorer.score({**lacking, "itme": "i1"})
    with pytest.raises(DataError, match='row 2 has no key "item", which row 1 has; state None'):
        scorer.score([row, lacking])
    with pytest.raises(DataError, match='field "item": the context with its candidates has no such column'):
        scorer.score({"user": "u1"}, [{**lacking}] if "user" not in lacking else [
            {name: cell for name, cell in lacking.items() if name != "user"}])  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (5, "found int"),
        ("text", "found str"),
        ([1], "expected a dict for each row, found int as row 1"),
        ({"item": {1: 2}}, r'field "item"|column "item"'),
        ({"item": object()}, r'field "item"|column "item"'),
        ({"item": "\ud800"}, r'field "item"|column "item"'),
        ({"item": ["a"]}, r'field "item": found lists|column "item".*found List'),
    ],
)
@WAYS
def test_what_is_no_row_is_refused_in_one_line(scorers, log, way, rows, message):
    given = {**log[1].row(0, named=True), **rows} if isinstance(rows, dict) else rows
    with pytest.raises(DataError, match=message) as caught:
        scorers[way].score(given)
    assert "\n" not in str(caught.value)


CONTEXT = ("user", "age", "tags", "picture", "topics", "seconds", "visits")


@WAYS
@pytest.mark.parametrize("batch", [None, 7])
def test_candidates_score_as_rows_that_repeat_the_context(scorers, log, way, batch):
    scorer = scorers[way] if batch is None else Scorer(scorers[way].bundle, batch)
    for frame in (log[1].head(20), typed(log[1]).head(20)):
        context = {name: frame[name][5] for name in CONTEXT}
        context = {n: c.to_list() if isinstance(c, pl.Series) else c for n, c in context.items()}
        whole = frame.with_columns(pl.Series(name, [frame[name][5]] * 20) for name in CONTEXT)
        candidates = frame.drop(CONTEXT)
        expected = by_columns(scorer, whole)
        same(scorer.score(context, candidates), expected)
        same(scorer.score(context, candidates.to_dicts()), expected)
        same(scorer.score(context, candidates.to_pandas()), expected)


@WAYS
def test_a_context_that_breaks_the_schema_leaves_no_candidate_a_probability(scorers, log, way):
    frame = log[1].head(20)
    context = {**{name: frame[name][5] for name in CONTEXT}, "visits": "many"}
    assert np.isnan(scorers[way].score(context, frame.drop(CONTEXT))).all()


@WAYS
def test_a_column_stands_in_the_context_or_in_the_candidates(scorers, log, way):
    row = log[1].row(0, named=True)
    with pytest.raises(DataError, match='"user" is in the context and in the candidates'):
        scorers[way].score({"user": "u1"}, [row])
    with pytest.raises(DataError, match="expected the context as a dict, found list"):
        scorers[way].score([row], [row])


@WAYS
def test_threads_share_the_scorer(scorers, log, way):
    scorer, frame = scorers[way], log[1].head(10)
    expected, rows = by_columns(scorer, frame), frame.to_dicts()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(scorer.score, [row for row in rows for _ in range(2)]))
    same(np.concatenate(found), np.repeat(expected, 2))


@ENCODINGS
def test_plain_rows_do_not_go_the_way_of_frames(scorers, log, encoding, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a frame was built")

    scorer, row = scorers[encoding], log[1].row(0, named=True)
    expected = scorer.score(row)
    monkeypatch.setattr(Scorer, "_score_frame", refuse)
    monkeypatch.setattr(pl, "DataFrame", type("Refused", (), {"__init__": refuse}))
    assert scorer.score(row) == expected
    assert isinstance(scorer._requests._encoder, RowEncoder)


@ENCODINGS
def test_only_large_frames_are_worked_on_by_whole_columns(scorers, log, encoding, monkeypatch):
    frame, seen = pl.concat([log[1]] * 9), []
    monkeypatch.setattr(scorers[encoding]._requests, "_frames", lambda frame: seen.append(frame.height) or [])
    for rows in (1, _FRAME - 1, _FRAME, frame.height):
        scorers[encoding].score(frame.head(rows))
        scorers[encoding].score(frame.head(rows).to_pandas())
    assert seen == [_FRAME] * 2 + [frame.height] * 2
