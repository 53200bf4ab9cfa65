"""Files larger than memory, and many threads: what is true of a few rows stays true."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from ctr.dataset.ingest import ingest
from ctr.dataset.schema import Schema
from ctr.dataset.store import Dataset
from ctr.serving.scorer import Scorer, score_file
from ctr.settings import check
from tests.serving.attacks import RELEASE
from tests.serving.conftest import Trained

USERS, PRICES, TEXT = 1_000, 50, 200
SCORES = """
import json, sys
from pathlib import Path
from ctr.serving.scorer import score_file
found = score_file(sys.argv[1], sys.argv[2], sys.argv[3])
status = Path("/proc/self/status").read_text()
print(json.dumps([found.rows, int(status.partition("VmHWM:")[2].split()[0]) // 1024]))
"""


def rows(start, count):
    """Rows of a log, which follow from their number: a user in long text, a price, and a click."""
    number = pl.int_range(start, start + count, eager=True)
    return pl.DataFrame(
        {
            "user": (number * 7919 % USERS).cast(pl.String).str.pad_start(TEXT, "u"),
            "price": number % PRICES,
            "click": number % 3 % 2,
        }
    )


def write(path, count, piece=100_000):
    """A parquet file of so many rows, written piece by piece."""
    with pq.ParquetWriter(path, rows(0, 1).to_arrow().schema) as writer:
        for start in range(0, count, piece):
            writer.write_table(rows(start, min(piece, count - start)).to_arrow())
    return path


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A bundle of two fields."""
    folder = tmp_path_factory.mktemp("tiny")
    keys = {
        "name": "tiny", "label": "click", "split": {"by": "random", "valid": 0.1, "test": 0.1},
        "read": {"format": "parquet"},
        "fields": [{"name": "user"}, {"name": "price", "kind": "numeric", "transform": "minmax"}],
    }  # fmt: skip
    log = write(folder / "log.parquet", 2_000)
    dataset = Dataset(ingest(check(keys, Schema, "schema"), log, folder / "datasets"))
    return Trained(dataset, log, hidden=(4,), dim=2).export(folder / "bundle")


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the peak of memory")
def test_the_memory_of_a_file_does_not_grow_with_its_rows(tiny, tmp_path):
    """600,000 more rows, which are 120 MB of text, take next to no more memory."""
    peak = {}
    for count in (200_000, 800_000):
        log = write(tmp_path / f"{count}.parquet", count)
        command = [sys.executable, "-c", SCORES, str(tiny), str(log), str(tmp_path / "out.parquet")]
        peaks = []
        for _ in range(2):  # a busy machine lets blocks wait: the smaller peak is that of the work
            run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
            scored, reached = json.loads(run.stdout)
            assert scored == count
            peaks.append(reached)
        peak[count] = min(peaks)
    assert peak[800_000] - peak[200_000] < 60


@pytest.mark.parametrize("way", ["cell by cell", "by frames"])
@pytest.mark.parametrize("given", ["frame", "dicts"])
def test_threads_that_score_different_rows_do_not_mix_them(tiny, way, given):
    released = way == "by frames"
    scorer = Scorer(RELEASE / "bundle" if released else tiny)
    log = (pl.read_parquet(RELEASE / "rows.parquet") if released else rows(0, 2_000)).select(scorer.columns)
    expected = scorer.score(log)
    assert len(np.unique(expected)) > 10
    draw = np.random.default_rng(0)
    starts = draw.integers(0, log.height - 20, 64)
    slices = [
        (int(start), int(length)) for start, length in zip(starts, draw.integers(1, 20, 64), strict=True)
    ]
    parts = [log.slice(start, length) for start, length in slices]
    if given == "dicts":
        parts = [part.to_dicts() for part in parts]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(scorer.score, parts))
    for (start, length), scores in zip(slices, found, strict=True):
        np.testing.assert_allclose(scores, expected[start : start + length], rtol=0, atol=1e-6)


@pytest.mark.slow
def test_ten_million_rows_are_scored_in_their_order(tiny, tmp_path):
    count = 10_000_000
    log = write(tmp_path / "log.parquet", count, 1_000_000)
    summary = score_file(tiny, log, tmp_path / "out.parquet")
    assert (summary.rows, summary.null_rows) == (count, 0)
    found, scorer = pl.read_parquet(tmp_path / "out.parquet")["probability"], Scorer(tiny)
    assert (len(found), found.null_count()) == (count, 0)
    assert found.is_between(0.0, 1.0).all()
    for start in (0, 65_530, 1_234_567, 5_000_000, count - 100):
        few = scorer.score(rows(start, 100))
        np.testing.assert_allclose(found[start : start + 100].to_numpy(), few, rtol=0, atol=1e-6)
