"""The screen of pairs: equal to nested loops, planted pairs found, what is left out keeps its row."""

import numpy as np
import polars as pl
import pytest

from ctr.dataset.ingest import ingest
from ctr.dataset.layout import Layout
from ctr.dataset.pairs import chosen_pairs
from ctr.dataset.schema import load_schema
from ctr.dataset.store import Dataset
from ctr.dataset.synthetic import write_log
from ctr.selection import pair_screen
from ctr.selection.pair_screen import Screen, pair_nats, screen
from ctr.selection.pair_space import PairSpace
from tests.reference import pair_screen as reference

PAIRS = [("a", "b"), ("a", "c"), ("b", "c")]
ROWS = 90


@pytest.fixture
def rows():
    """Numbers of features, a joint effect of a and b, weights, halves; value 0 is dropped."""
    draw = np.random.default_rng(4)
    columns = {
        "a": draw.integers(0, 4, ROWS),
        "b": draw.integers(5, 8, ROWS),
        "c": draw.integers(9, 30, ROWS),
    }
    labels = ((columns["a"] + columns["b"]) % 2 == (draw.random(ROWS) < 0.8)).astype(np.uint8)
    weights = draw.uniform(0.5, 3.0, ROWS).astype(np.float32)
    return columns, labels, weights, draw.random(ROWS) < 0.5


@pytest.mark.parametrize("weighted", [False, True])
def test_nats_are_those_of_nested_loops(rows, weighted):
    columns, labels, weights, half = rows
    found = pair_nats(columns, PAIRS, labels, weights if weighted else None, half)
    plain = [
        dict(zip(columns, values, strict=True)) for values in zip(*map(list, columns.values()), strict=True)
    ]
    constants = {
        "shrink": pair_screen.SHRINK,
        "prior": pair_screen.PRIOR,
        "sweeps": pair_screen.SWEEPS,
        "furthest": pair_screen.FURTHEST,
    }
    own = weights.tolist() if weighted else [1.0] * ROWS
    for pair, nats in zip(PAIRS, found, strict=True):
        expected = reference.nats(plain, pair, labels.tolist(), own, half.tolist(), **constants)
        assert nats == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert found[0] > max(1.0, *found[1:])


def test_a_row_that_weighs_two_is_two_rows_and_one_that_weighs_nothing_none(rows):
    columns, labels, _, half = rows
    weights = np.random.default_rng(0).integers(0, 3, ROWS)
    repeated = np.repeat(np.arange(ROWS), weights)
    found = pair_nats(columns, PAIRS, labels, weights.astype(np.float32), half)
    columns = {name: column[repeated] for name, column in columns.items()}
    np.testing.assert_allclose(found, pair_nats(columns, PAIRS, labels[repeated], None, half[repeated]))


def test_swapped_halves_and_swapped_places_give_the_same_nats(rows):
    columns, labels, weights, half = rows
    found = pair_nats(columns, PAIRS, labels, weights, half)
    np.testing.assert_allclose(found, pair_nats(columns, PAIRS, labels, weights, ~half))
    turned = [(b, a) for a, b in PAIRS]
    np.testing.assert_allclose(found, pair_nats(columns, turned, labels, weights, half))


@pytest.mark.parametrize("label", [0, 1])
def test_rows_that_all_have_one_label_or_are_none_say_nothing(rows, label):
    columns, _, weights, half = rows
    assert pair_nats(columns, PAIRS, np.full(ROWS, label, np.uint8), weights, half).max() < 1.0
    none = {name: column[:0] for name, column in columns.items()}
    assert pair_nats(none, PAIRS, np.zeros(0, np.uint8), None, half[:0]).tolist() == [0.0, 0.0, 0.0]


def test_where_clicks_are_rare_a_value_with_many_of_them_upsets_nothing():
    """Newton's first step is far too long there; and what is left of the effect must not pass for one of pairs."""
    draw = np.random.default_rng(0)
    columns = {name: draw.integers(1, 9, 20_000) for name in "abc"}
    columns["a"][:200] = 9
    labels = (draw.random(20_000) < np.where(columns["a"] == 9, 0.9, 0.001)).astype(np.uint8)
    assert pair_nats(columns, PAIRS, labels, None, draw.random(20_000) < 0.5).max() < 10.0


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """190 pairs, 16 of them planted, 24 thousand train rows."""
    folder = tmp_path_factory.mktemp("pairs")
    truth = write_log("pairs", folder / "log", rows=30_000)
    schema = load_schema(folder / "log" / "schema.toml")
    dataset = Dataset(ingest(schema, folder / "log" / "log.parquet", folder))
    space = PairSpace(dataset, Layout(dataset), chosen_pairs(schema.fields, None), min_count=2, dim=2)
    real = truth.pairs().filter(pl.col("kind") != "none")
    return dataset, space, set(zip(real["field_a"], real["field_b"], strict=True))


@pytest.mark.parametrize("seed", [0, 1])
def test_planted_pairs_of_both_kinds_are_among_the_best_and_in_schema_order(planted, seed):
    dataset, space, real = planted
    part = dataset.part("train")
    found = screen(space, part.labels, part.weights, 24, seed)
    assert real <= set(found.kept)
    assert found.kept == [pair for pair in space.pairs if pair in set(found.kept)]
    assert len(found.kept) == 24


def test_a_screen_reads_train_alone(planted, monkeypatch):
    dataset, space, _ = planted
    part, names = dataset.part("train"), []
    read = Dataset.part
    monkeypatch.setattr(Dataset, "part", lambda self, name: names.append(name) or read(self, name))
    screen(space, part.labels, part.weights, 24, 0)
    assert set(names) == {"train"}


def test_equals_are_kept_in_schema_order(mixed):
    space = PairSpace(mixed, Layout(mixed), [("user", "item"), ("user", "day")], min_count=2, dim=2)
    rows = len(mixed.part("train"))
    assert screen(space, np.zeros(rows, np.uint8), np.zeros(rows, np.float32), 1, 0).kept == [
        ("user", "item")
    ]


def test_a_pair_that_was_screened_out_is_naive_and_has_no_strength():
    chosen = pl.DataFrame(
        {
            "field_a": ["a"],
            "field_b": ["c"],
            "method": ["memorize"],
            "memorize": [0.75],
            "factorize": [0.125],
            "naive": [0.125],
            "strength": [4.0],
        }
    )
    found = Screen(PAIRS, np.array([0.5, 9.0, 0.0]), [("a", "c")]).with_all(chosen)
    assert found.rows() == [
        ("a", "b", "naive", 0.0, 0.0, 1.0, None, 0.5),
        ("a", "c", "memorize", 0.75, 0.125, 0.125, 4.0, 9.0),
        ("b", "c", "naive", 0.0, 0.0, 1.0, None, 0.0),
    ]
    assert found.columns == [*chosen.columns, "screened_nats"]
