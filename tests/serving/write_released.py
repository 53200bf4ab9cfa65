"""Writes the fixtures that the format of today still lacks: `python -m tests.serving.write_released`.

Each is written once, by code that writes its format. A format that was released keeps its fixtures for ever, and
`test_released_formats.py` scores them with whatever the code has become. (That of format 1 was written by this script
at 4e1f9fe, the last commit of that format.)
"""

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from ctr.dataset.ingest import ingest
from ctr.dataset.schema import Schema
from ctr.dataset.store import Dataset
from ctr.network.network import build
from ctr.selection.pair_space import PairSpace, cross_index
from ctr.serving.manifest import FORMAT_VERSION
from ctr.serving.scorer import Scorer
from ctr.settings import check
from tests.serving.conftest import Trained, everything, loud, write_log

RELEASED = Path(__file__).parent / "released"
ROWS = 150
FEW = {"fields": ("user", "item", "price", "tags", "shop"), "joins": [], "derive": {}}  # of `everything`
PAIRS = [("user", "item"), ("item", "shop"), ("user", "shop")]


def of_everything(source: Path, keys: dict[str, Any]) -> tuple[Trained, dict[str, Any]]:
    """A network with all kinds of fields, side tables and expressions; and how to export it."""
    return Trained(_dataset(source, keys), source, share=0.7), {}


def of_int8(source: Path, keys: dict[str, Any]) -> tuple[Trained, dict[str, Any]]:
    """Rows wide enough to be whole numbers with a scale."""
    return Trained(_dataset(source, _few(keys)), source, share=0.7, dim=8), {"dtype": "int8"}


def of_hashed(source: Path, keys: dict[str, Any]) -> tuple[Trained, dict[str, Any]]:
    """No vocabulary, one table for all fields, one of them with lookups of its own."""
    placing = {"composition": "lookup", "shared": True, "rows": 40, "field_lookups": {"user": 1}}
    return Trained(_dataset(source, _few(keys), "hashed"), source, share=0.7, placing=placing), {}


def of_two_tables(source: Path, keys: dict[str, Any]) -> tuple[Trained, dict[str, Any]]:
    """A vocabulary of hashed rows, put together from two tables; small fields have rows of their own."""
    placing = {"composition": "multi_hash", "shared": False, "rows": 60, "collision_free": 6}
    return Trained(_dataset(source, _few(keys)), source, share=0.7, placing=placing), {}


def of_pairs(source: Path, keys: dict[str, Any]) -> tuple[Trained, dict[str, Any]]:
    """Crosses by key, each with a row of its own; and factorized pairs."""
    return _with_pairs(Trained(_dataset(source, _few(keys)), source, share=0.8), {})


def of_a_sketch(source: Path, keys: dict[str, Any]) -> tuple[Trained, dict[str, Any]]:
    """Crosses in a sketch, which share rows; float16."""
    trained = Trained(_dataset(source, _few(keys)), source, share=0.8, dim=8)
    trained, crosses = _with_pairs(trained, {"cross_bytes": 320, "sketch_bytes": 4096})
    return trained, {**crosses, "dtype": "float16"}


FORMS: dict[str, Callable[[Path, dict[str, Any]], tuple[Trained, dict[str, Any]]]] = {
    f"format_{FORMAT_VERSION}": of_everything,
    f"format_{FORMAT_VERSION}_int8": of_int8,
    f"format_{FORMAT_VERSION}_hashed": of_hashed,
    f"format_{FORMAT_VERSION}_two_tables": of_two_tables,
    f"format_{FORMAT_VERSION}_pairs": of_pairs,
    f"format_{FORMAT_VERSION}_sketch": of_a_sketch,
}


def _few(keys: dict[str, Any]) -> dict[str, Any]:
    fields = [spec for spec in keys["fields"] if spec["name"] in FEW["fields"]]
    return {**keys, **FEW, "fields": fields}


def _dataset(source: Path, keys: dict[str, Any], encoding: str = "vocabulary") -> Dataset:
    schema = check(keys, Schema, "schema")
    return Dataset(ingest(schema, source, source.parent / "datasets", encoding=encoding))


def _with_pairs(trained: Trained, budget: dict[str, int]) -> tuple[Trained, dict[str, Any]]:
    """The same network with two memorized pairs and a factorized one."""
    space = PairSpace(trained.dataset, trained.layout, PAIRS, min_count=2, dim=3, **budget)
    crosses, pairs = space.keys(PAIRS[:2]), space.layout(PAIRS[:2], PAIRS[2:])
    trained.architecture = replace(trained.architecture, pairs=pairs)
    trained.network = loud(build(trained.architecture, index=cross_index(crosses)))
    return trained, {"crosses": crosses}


def write(folder: Path, form: Callable[[Path, dict[str, Any]], tuple[Trained, dict[str, Any]]]) -> None:
    """`folder/bundle`, and `folder/rows.parquet`: raw rows with the probability that they had when it was written."""
    with tempfile.TemporaryDirectory() as scratch:
        log = write_log(Path(scratch))
        trained, keys = form(Path(scratch) / "log.csv", everything(Path(scratch)))
        trained.export(folder / "bundle", **keys)
    scorer = Scorer(folder / "bundle")
    rows = log.tail(ROWS).select(scorer.columns)  # late ones, with values that train has never seen
    rows.with_columns(pl.Series("expected", scorer.score(rows))).write_parquet(folder / "rows.parquet")


if __name__ == "__main__":
    for name, form in FORMS.items():
        if not (RELEASED / name).exists():
            write(RELEASED / name, form)
