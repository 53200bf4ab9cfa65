"""Golden pairs of a bundle: met by a reference that reads its files alone, and by both of our own ways."""

import ast
import json
import sys
import unicodedata
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from ctr.serving.bundle import Bundle
from ctr.serving.cell_encoder import CellEncoder
from ctr.serving.golden_pairs import mismatches
from ctr.serving.scorer import Scorer
from tests.reference import bundle_encoding
from tests.serving.conftest import Trained


@pytest.fixture(scope="module")
def folders(bundle, log, keyed, tmp_path_factory):
    work = tmp_path_factory.mktemp("keys")
    placing = {"shared": True, "rows": 90}
    hashed = Trained(keyed, log[0] / "log.csv", share=0.7, placing=placing).export(work / "bundle")
    return {"vocabulary": bundle, "hashed": hashed}


ENCODINGS = pytest.mark.parametrize("encoding", ["vocabulary", "hashed"])


@ENCODINGS
def test_a_reference_that_reads_the_bundle_alone_meets_every_golden_pair(folders, encoding):
    reference = bundle_encoding.Encoding(folders[encoding])
    pairs = pq.read_table(folders[encoding] / "golden_pairs.parquet").to_pylist()
    assert {pair["field"] for pair in pairs} == set(reference.fields)
    for pair in pairs:
        found = reference.encode(pair["field"], bundle_encoding.parsed(pair["type"], pair["raw"]))
        assert found == (pair["ids"], pair["numbers"], pair["broken"]), pair


@ENCODINGS
def test_both_of_our_ways_meet_them(folders, encoding):
    scorer = Scorer(folders[encoding])
    pairs = scorer.bundle.pairs()
    assert list(mismatches(pairs, scorer.bundle.schema, scorer.encoder)) == []
    wrong = pairs.with_columns(pl.col("ids").list.eval(pl.element() + 1))
    found = list(mismatches(wrong, scorer.bundle.schema, scorer.encoder))
    assert {miss.way for miss in found} == {"by columns", "cell by cell"}
    assert len(found) > pairs.height


def test_the_reference_stands_on_nothing_of_ours():
    nodes = ast.walk(ast.parse(Path(bundle_encoding.__file__).read_text(encoding="utf-8")))
    names = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    nodes = ast.walk(ast.parse(Path(bundle_encoding.__file__).read_text(encoding="utf-8")))
    names |= {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert {name.split(".")[0] for name in names} - sys.stdlib_module_names == {"pyarrow"}


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_the_hash_of_the_reference_is_xxhash(data):
    assert bundle_encoding.xxhash64(data) == xxhash.xxh64_intdigest(data)


@ENCODINGS
def test_there_are_200_pairs_a_field_and_the_known_traps_are_among_them(folders, encoding):
    opened = Bundle.open(folders[encoding])
    pairs = opened.pairs()
    assert set(pairs["field"].value_counts()["count"]) == {200}
    item = pairs.filter(pl.col("field") == "item").select("type", "raw").rows()
    for trap in [
        ("float", "-0.0"), ("float", "nan"), ("text", "nan"), ("text", ""), ("null", None), ("text", " "),
        ("integer", "9223372036854775807"), ("integer", "-9223372036854775808"), ("boolean", "true"),
        ("text", unicodedata.normalize("NFC", "é")), ("text", unicodedata.normalize("NFD", "é")), ("text", "\u00a0"),
    ]:  # fmt: skip
        assert trap in item
    seen = opened.vocabulary()["value"].to_list() if encoding == "vocabulary" else []
    if seen:
        texts = {raw for kind, raw in item if kind == "text"}
        assert texts & set(seen)
        assert texts - set(seen)
    assert pairs.filter(pl.col("field") == "income")["broken"].sum() > 5


@ENCODINGS
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_reference_agrees_on_values_that_nobody_chose(folders, encoding, data):
    folder = folders[encoding]
    reference, scorer = _opened(folder)
    name = data.draw(st.sampled_from([field.name for field in scorer.encoder.fields if field.role != "bias"]))
    kind = reference.fields[name]["kind"]
    plain = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=8)
    if kind == "vector":
        plain = st.none()
    cell = data.draw(st.lists(st.floats(), max_size=4) if kind in ("list", "vector") else plain)
    own = next(own for own in scorer.encoder.encoders if own.spec.name == name)
    found = CellEncoder(own, scorer.bundle.schema.missing_values, scorer.personal).cells([cell])
    ids, _, broken = reference.encode(name, cell)
    assert [int(i) for i in found.rows.ids] == ids
    assert bool(len(found.broken)) == broken


_OPEN: dict = {}


def _opened(folder):
    if folder not in _OPEN:
        _OPEN[folder] = bundle_encoding.Encoding(folder), Scorer(folder)
    return _OPEN[folder]


def test_the_description_names_neither_python_nor_our_library(folders):
    text = (folders["vocabulary"] / "encoding.json").read_text(encoding="utf-8")
    assert not [word for word in ("python", "polars", "numpy", "ctr.") if word in text.lower()]
    assert json.loads(text)["version"] == 2
