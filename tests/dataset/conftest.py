"""Small click logs and schemas that tests of ingest share."""

from pathlib import Path

import polars as pl
import pytest

from ctr.dataset.ingest import ingest
from ctr.dataset.schema import Schema
from ctr.settings import check


@pytest.fixture
def make_schema():
    """A schema from keyword arguments; unless said otherwise label `click` and one field `user`."""

    def build(**keys) -> Schema:
        return check(
            {"name": "log", "label": "click", "fields": [{"name": "user"}], **keys}, Schema, "schema"
        )

    return build


@pytest.fixture
def write(tmp_path):
    """Writes text or bytes to a file of the test's folder and returns its path."""

    def to_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return to_file


@pytest.fixture
def run(tmp_path, make_schema):
    """Ingests a file under a schema given by keywords and returns the dataset's folder."""

    def build(path: Path, **keys) -> Path:
        return ingest(make_schema(**keys), path, tmp_path / "datasets")

    return build


@pytest.fixture
def rows_of():
    """All rows of a dataset's part, in order."""

    def read(folder: Path, part: str) -> pl.DataFrame:
        return pl.concat(pl.read_parquet(path) for path in sorted((folder / part).glob("*.parquet")))

    return read


@pytest.fixture
def small_log():
    """Text of a log of 400 rows: click, user (20 values), price (every tenth missing), tags, day."""
    lines = ["click,user,price,tags,day"]
    for row in range(400):
        price = "" if row % 10 == 0 else str(row % 7)
        tags = "|".join("abc"[: row % 4])
        lines.append(f"{row % 3 == 0:d},u{row % 20},{price},{tags},2024-01-{row // 20 + 1:02d}")
    return "\n".join(lines) + "\n"
