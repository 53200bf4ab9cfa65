import gzip
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest

from ctr.dataset.ingest import ingest
from ctr.dataset.schema import Schema
from ctr.dataset.store import Dataset
from ctr.errors import ConfigError, CtrError, DataError
from ctr.serving import probability_file
from ctr.serving.scorer import Scorer, score_file
from ctr.settings import check
from tests.serving.conftest import everything


@pytest.fixture(scope="module")
def scorer(bundle):
    return Scorer(bundle)


@pytest.fixture(scope="module")
def expected(scorer, log):
    return scorer.score(log[1])


@pytest.fixture
def scored(bundle, tmp_path):
    """Scores a file of text with the bundle; returns the probabilities and the summary."""

    def score(name, content, **keys):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        summary = score_file(keys.pop("bundle", bundle), path, tmp_path / "scores.parquet", **keys)
        return pl.read_parquet(tmp_path / "scores.parquet")["probability"], summary

    return score


def same(found, expected):
    np.testing.assert_allclose(np.asarray(found), expected, rtol=0, atol=1e-6)


def test_order_of_columns_extra_columns_and_the_label_do_not_matter(scorer, log, expected):
    needed = log[1].select(scorer.columns)
    same(scorer.score(needed.select(reversed(needed.columns))), expected)
    same(scorer.score(needed.with_columns(colour=pl.lit("blue"), country=pl.lit("xx"))), expected)


def test_rows_that_training_filters_are_scored(log, expected):
    assert (log[1]["rating"] == "3").sum() > 50
    assert np.isfinite(expected).all()


def test_an_empty_frame_gives_no_probabilities(scorer, log):
    assert scorer.score(log[1].head(0)).shape == (0,)


@pytest.mark.parametrize("batch_size", [1, 7, 600, 10_000])
def test_the_batch_size_changes_nothing(bundle, log, expected, batch_size):
    same(Scorer(bundle, batch_size).score(log[1].head(100)), expected[:100])


def test_a_large_frame_is_scored_piece_by_piece(scorer, log, expected):
    frame = pl.concat([log[1]] * 120)  # 72,000 rows, more than one piece
    same(scorer.score(frame), np.tile(expected, 120))


def test_threads_share_a_scorer(scorer, log, expected):
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(scorer.score, [log[1]] * 8):
            same(found, expected)


def test_rows_that_break_the_schema_have_no_probability_and_harm_no_other(scorer, log, expected):
    income, visits = log[1]["income"].to_list(), log[1]["visits"].to_list()
    income[3], visits[5] = "a lot", "inf"
    found = scorer.score(log[1].with_columns(pl.Series("income", income), pl.Series("visits", visits)))
    assert np.flatnonzero(np.isnan(found)).tolist() == [3, 5]
    same(np.delete(found, [3, 5]), np.delete(expected, [3, 5]))


def test_values_never_seen_share_one_probability(scorer, log):
    rows = pl.concat([log[1].head(1)] * 2).with_columns(pl.Series("user", ["nobody", "somebody"]))
    # One by one: ONNX Runtime adds up the rows of a batch in different orders.
    first, second = (scorer.score(rows[place]) for place in (0, 1))
    assert first == second


def test_a_frame_that_lacks_a_column_names_field_column_and_the_nearest_name(scorer, log):
    with pytest.raises(
        DataError, match='field "item": the frame has no such column; the nearest name is "items"'
    ):
        scorer.score(log[1].rename({"item": "items"}))
    with pytest.raises(DataError, match=r'field "hour" needs the column "seconds".*"second"'):
        scorer.score(log[1].rename({"seconds": "second"}))


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_has_rows(bundle, batch_size):
    with pytest.raises(ConfigError, match="batch_size: expected at least 1"):
        Scorer(bundle, batch_size)


def typed(frame):
    """The log with the types that a parquet file would have."""
    return frame.with_columns(
        pl.col("seconds", "rating").cast(pl.Int64),
        pl.col("price", "age", "income").cast(pl.Float64),
        pl.col("visits").cast(pl.Int32),
        pl.col("tags").str.split("|"),
    )


def test_a_bundle_trained_on_csv_scores_parquet_and_json_lines(scorer, log, bundle, tmp_path, expected):
    same(scorer.score(typed(log[1])), expected)
    typed(log[1]).write_parquet(tmp_path / "log.parquet")
    typed(log[1]).write_ndjson(tmp_path / "log.jsonl")
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress((log[0] / "log.csv").read_bytes()))
    for name in ("log.parquet", "log.jsonl", "log.csv.gz"):
        score_file(bundle, tmp_path / name, tmp_path / "scores.parquet")
        same(pl.read_parquet(tmp_path / "scores.parquet")["probability"], expected)


def test_a_bundle_trained_on_parquet_scores_csv_and_tsv(log, train, tmp_path):
    folder, frame, _ = log
    typed(frame).write_parquet(tmp_path / "log.parquet")
    keys = {**everything(folder), "read": {"format": "parquet"}}
    dataset = Dataset(ingest(check(keys, Schema, "schema"), tmp_path / "log.parquet", tmp_path / "datasets"))
    bundle = train(share=0.7, dataset=dataset, source=tmp_path / "log.parquet").export(tmp_path / "bundle")
    expected = Scorer(bundle).score(typed(frame))
    frame.write_csv(tmp_path / "log.tsv", separator="\t")
    for path in (folder / "log.csv", tmp_path / "log.tsv", tmp_path / "log.parquet"):
        score_file(bundle, path, tmp_path / "scores.parquet")
        same(pl.read_parquet(tmp_path / "scores.parquet")["probability"], expected)


def test_many_files_are_scored_in_the_order_of_their_names(log, bundle, tmp_path, expected):
    for number in range(3):
        log[1].slice(200 * number, 200).write_csv(tmp_path / f"part-{number}.csv")
    seen = []
    summary = score_file(
        bundle,
        str(tmp_path / "part-*.csv"),
        tmp_path / "scores.parquet",
        progress=lambda stage, share: seen.append((stage, share)),
    )
    assert summary.rows == 600
    assert seen[-1] == ("score", 1.0)
    same(pl.read_parquet(tmp_path / "scores.parquet")["probability"], expected)


@pytest.fixture(scope="module")
def headless(log, tmp_path_factory):
    """A bundle of the log without a header, and its text."""
    from tests.serving.conftest import Trained

    folder, frame, _ = log
    work = tmp_path_factory.mktemp("headless")
    frame.write_csv(work / "log.csv", include_header=False)
    read = {"format": "csv", "has_header": False, "columns": frame.columns}
    schema = check({**everything(folder), "read": read}, Schema, "schema")
    dataset = Dataset(ingest(schema, work / "log.csv", work / "datasets"))
    return Trained(dataset, work / "log.csv", share=0.7).export(work / "bundle"), frame


def test_a_file_without_header_may_lack_the_label(headless, scored, expected):
    bundle, frame = headless
    assert Scorer(bundle).score(frame) == pytest.approx(expected, abs=1e-6)
    with_label, _ = scored("a.csv", frame.write_csv(include_header=False), bundle=bundle)
    without, _ = scored("b.csv", frame.drop("rating").write_csv(include_header=False), bundle=bundle)
    same(with_label, expected)
    same(without, expected)


def test_a_file_without_header_must_have_the_columns_of_the_schema(headless, scored):
    bundle, frame = headless
    text = frame.drop("rating", "user").write_csv(include_header=False)
    with pytest.raises(
        DataError, match="expected 19 columns as in the schema, or 18 without the label, found 17"
    ):
        scored("a.csv", text, bundle=bundle)


def test_ragged_lines_and_broken_cells_keep_their_place_with_null(log, scored, expected):
    lines = (log[0] / "log.csv").read_text().splitlines()
    lines[10] += ",more"  # data row 9, from 0
    lines[20] = "short"
    cells = lines[30].split(",")
    cells[log[1].columns.index("income")] = "a lot"
    lines[30] = ",".join(cells)
    found, summary = scored("log.csv", "\n".join(lines) + "\n")
    assert (summary.rows, summary.null_rows) == (600, 3)
    assert found.is_null().arg_true().to_list() == [9, 19, 29]
    same(np.delete(found.to_numpy(), [9, 19, 29]), np.delete(expected, [9, 19, 29]))


def test_bad_rows_of_a_later_file_keep_their_place(log, bundle, tmp_path):
    lines = (log[0] / "log.csv").read_text().splitlines()
    (tmp_path / "a.csv").write_text("\n".join(lines[:50]) + "\n")
    (tmp_path / "b.csv").write_text("\n".join([*lines[:7], "short", *lines[7:50]]) + "\n")
    score_file(bundle, str(tmp_path / "?.csv"), tmp_path / "scores.parquet")
    found = pl.read_parquet(tmp_path / "scores.parquet")["probability"]
    assert found.is_null().arg_true().to_list() == [49 + 6]


def test_bad_rows_of_a_later_chunk_keep_their_place(log, bundle, tmp_path, expected):
    frame = pl.concat([typed(log[1])] * 120)  # 72,000 rows, read in two chunks
    price = frame["price"].to_list()
    price[70_001] = float("inf")
    frame.with_columns(pl.Series("price", price)).write_parquet(tmp_path / "log.parquet")
    summary = score_file(bundle, tmp_path / "log.parquet", tmp_path / "scores.parquet")
    found = pl.read_parquet(tmp_path / "scores.parquet")["probability"].to_numpy()
    assert (summary.rows, summary.null_rows) == (72_000, 1)
    assert np.flatnonzero(np.isnan(found)).tolist() == [70_001]
    same(np.delete(found, 70_001), np.delete(np.tile(expected, 120), 70_001))


def test_too_many_bad_rows_stop_and_write_nothing(log, scored, tmp_path):
    lines = (log[0] / "log.csv").read_text().splitlines()
    text = "\n".join([*lines[:5], "short", *lines[5:9]]) + "\n"
    with pytest.raises(
        DataError, match=r"1 of 9 rows \(11\.11%\).*max_bad_rows = 0\.05(.|\n)*row 5.*1 column"
    ):
        scored("log.csv", text)
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]
    _, summary = scored("log.csv", text, max_bad_rows=0.2)
    assert summary.null_rows == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.csv", "", "the file is empty"),
        ("log.csv", "seconds,user\n1,2\n", 'field "item": file "log.csv" has no such column'),
        ("log.parquet", "no parquet", "expected a parquet file"),
        ("log.jsonl", "", "the file is empty"),
    ],
)
def test_bad_files_have_one_message_and_leave_nothing(scored, tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        scored(name, content)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_header_without_rows_is_refused(log, scored):
    with pytest.raises(DataError, match="expected rows, found none"):
        scored("log.csv", (log[0] / "log.csv").read_text().splitlines()[0] + "\n")


def test_out_must_be_a_file_to_write_and_not_the_input(log, bundle, tmp_path):
    source = log[0] / "log.csv"
    with pytest.raises(ConfigError, match="found a folder"):
        score_file(bundle, source, tmp_path)
    with pytest.raises(ConfigError, match="there is no folder"):
        score_file(bundle, source, tmp_path / "none" / "scores.parquet")
    with pytest.raises(ConfigError, match="is the input itself"):
        score_file(bundle, source, source)
    with pytest.raises(ConfigError, match="no such file"):
        score_file(bundle, tmp_path / "none.csv", tmp_path / "scores.parquet")
    with pytest.raises(ConfigError, match="expected a share"):
        score_file(bundle, source, tmp_path / "scores.parquet", max_bad_rows=1.5)


def test_a_full_disk_is_said_and_leaves_nothing(log, bundle, tmp_path, monkeypatch):
    class Full:
        def __init__(self, path, *_, **__):
            path.write_bytes(b"half")

        def write_table(self, *_, **__):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(probability_file.pq, "ParquetWriter", Full)
    with pytest.raises(CtrError, match="cannot be written: No space left on device"):
        score_file(bundle, log[0] / "log.csv", tmp_path / "scores.parquet")
    assert list(tmp_path.iterdir()) == []
