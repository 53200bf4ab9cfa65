"""Writes the fixture of the format that bundles have now: `python -m tests.serving.write_released`.

Run once for each format, by the last code that writes it. A format that was released keeps its fixture for ever, and
`test_released_formats.py` scores it with whatever the code has become.
"""

import tempfile
from pathlib import Path

import polars as pl

from ctr.dataset.ingest import ingest
from ctr.dataset.schema import Schema
from ctr.dataset.store import Dataset
from ctr.serving.manifest import FORMAT_VERSION
from ctr.serving.scorer import Scorer
from ctr.settings import check
from tests.serving.conftest import Trained, everything, write_log

RELEASED = Path(__file__).parent / "released"
ROWS = 150


def write(folder: Path) -> None:
    """`folder/bundle`, and `folder/rows.parquet`: raw rows with the probability that they had when it was written."""
    with tempfile.TemporaryDirectory() as scratch:
        log = write_log(Path(scratch))
        schema = check(everything(Path(scratch)), Schema, "schema")
        dataset = Dataset(ingest(schema, Path(scratch) / "log.csv", Path(scratch) / "datasets"))
        Trained(dataset, Path(scratch) / "log.csv", share=0.7).export(folder / "bundle")
    rows = log.tail(ROWS)  # late ones, with values that train has never seen
    expected = Scorer(folder / "bundle").score(rows)
    rows.with_columns(pl.Series("expected", expected)).write_parquet(folder / "rows.parquet")


if __name__ == "__main__":
    write(RELEASED / f"format_{FORMAT_VERSION}")
