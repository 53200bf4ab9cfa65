"""Side tables at scoring: in the bundle, at a path or in the rows; all three score as in training."""

import shutil

import numpy as np
import polars as pl
import pytest

from ctr.dataset.batches import Batches
from ctr.dataset.ingest import ingest
from ctr.dataset.schema import Schema
from ctr.dataset.store import Dataset
from ctr.errors import ConfigError, DataError
from ctr.serving.bundle import Bundle
from ctr.serving.scorer import Scorer, score_file
from ctr.settings import check
from ctr.training.predict import predict

PLACES = ("bundle", "path", "row")


@pytest.fixture
def made(tmp_path, train):
    """A bundle of 400 rows joined in time with prices and, through these, with shops; and what it is made of."""

    def build(prices="bundle", shops="bundle", **keys):
        draw = np.random.default_rng(0)
        log = pl.DataFrame(
            {
                "click": [n % 3 % 2 for n in range(400)],
                "item": [f"i{n}" for n in draw.integers(0, 6, 400)],
                "at": [f"2024-01-{n // 20 + 1:02d}T{n % 20:02d}:30:00" for n in range(400)],
            }
        )
        log.write_csv(tmp_path / "log.csv")
        moments = [
            (f"i{n % 5}", f"2024-01-{n // 2 + 1:02d}T{n % 7:02d}:00:00", n % 9, f"s{n % 4}")
            for n in range(36)
        ]
        table = pl.DataFrame(moments, schema=["item", "since", "price", "shop"], orient="row")
        table.write_csv(tmp_path / "prices.csv")
        (tmp_path / "shops.csv").write_text("shop,city,staff\ns0,Rome,3\ns1,Oslo,5\ns2,Rome,8\n")
        content = {
            "name": "log",
            "label": "click",
            "derive": {"cheap": "price < 4"},
            "split": {"by": "time", "column": "at", "valid": 0.2, "test": 0.2},
            "fields": [{"name": "item"}, {"name": "cheap"}, {"name": "shop"}, {"name": "city"}],
            "joins": [
                {
                    "input": str(tmp_path / "prices.csv"),
                    "on": "item",
                    "time": "since",
                    "max_age": "5d",
                    "at_scoring": prices,
                },
                {"input": str(tmp_path / "shops.csv"), "on": "shop", "at_scoring": shops},
            ],
            **keys,
        }
        dataset = Dataset(ingest(check(content, Schema, "s"), tmp_path / "log.csv", tmp_path / "data"))
        trained = train("deepfm", dataset=dataset, source=tmp_path / "log.csv")
        return (
            trained.export(tmp_path / "bundle"),
            trained,
            pl.read_csv(tmp_path / "log.csv", infer_schema=False),
        )

    return build


def expected_of(trained):
    parts = [trained.dataset.part("train"), trained.dataset.part("valid"), trained.dataset.sealed_test()]
    return np.concatenate([predict(trained.network, Batches(part, trained.layout, 64)) for part in parts])


def with_attributes(log, folder, prices, shops):
    """The log with the attributes that its rows must bring along, by nested loops."""
    table = pl.read_csv(folder / "prices.csv", infer_schema=False).rows(named=True)
    cities = {"s0": "Rome", "s1": "Oslo", "s2": "Rome"}
    rows = []
    for row in log.iter_rows(named=True):
        earlier = [entry for entry in table if entry["item"] == row["item"] and entry["since"] < row["at"]]
        latest = max(
            earlier, key=lambda entry: entry["since"], default={"price": None, "shop": None, "since": None}
        )
        if latest["since"] and np.datetime64(row["at"]) - np.datetime64(latest["since"]) > np.timedelta64(
            5, "D"
        ):
            latest = {"price": None, "shop": None}
        brought = {"price": latest["price"], "shop": latest["shop"]} if prices == "row" else {}
        brought |= {"city": cities.get(latest["shop"])} if shops == "row" else {}
        rows.append(row | brought)
    return pl.DataFrame(rows, infer_schema_length=None)


@pytest.mark.parametrize("prices", PLACES)
@pytest.mark.parametrize("shops", PLACES)
def test_wherever_the_tables_are_rows_score_as_in_training(made, tmp_path, prices, shops):
    folder, trained, log = made(prices, shops)
    scorer = Scorer(folder)
    given = with_attributes(log, tmp_path, prices, shops)
    needs = {
        "item",
        *(["price", "shop"] if prices == "row" else ["at"]),
        *(["city"] if shops == "row" else []),
    }
    assert set(scorer.columns) == needs
    np.testing.assert_allclose(scorer.score(given.select(needs)), expected_of(trained), atol=1e-6, rtol=0)
    embedded = (
        sorted(path.name for path in (folder / "side_tables").glob("*"))
        if "bundle" in (prices, shops)
        else []
    )
    assert len(embedded) == (prices, shops).count("bundle")
    if "row" not in (prices, shops):
        score_file(folder, tmp_path / "log.csv", tmp_path / "scores.parquet")
        found = pl.read_parquet(tmp_path / "scores.parquet")["probability"].to_numpy()
        np.testing.assert_allclose(found, expected_of(trained), atol=1e-6, rtol=0)


def test_a_table_at_a_path_is_read_when_a_scorer_is_made_and_may_have_changed(made, tmp_path):
    folder, _, log = made("path", "bundle")
    before = Scorer(folder)
    text = (tmp_path / "prices.csv").read_text()
    (tmp_path / "prices.csv").write_text(text + "i5,2023-12-31T00:00:00,1,s1\n")
    after = Scorer(folder)  # the golden rows hold the attributes that they had
    changed = before.score(log) != after.score(log)
    # The new row is five days old at most on the first five days, less the half hour.
    assert set(log.filter(changed)["item"]) == {"i5"}
    assert max(log.filter(changed)["at"]) < "2024-01-05"


def test_opening_a_bundle_reads_no_path_and_a_missing_one_is_told(made, tmp_path):
    folder, _, _ = made("path", "row")
    (tmp_path / "prices.csv").unlink()
    assert Bundle.open(folder).schema.joins[0].at_scoring == "path"
    with pytest.raises(
        ConfigError, match=r'bundle ".*bundle" reads a side table.*: join ".*prices.csv": no such file'
    ):
        Scorer(folder)


def test_a_table_at_a_path_without_its_key_is_refused(made, tmp_path):
    folder, _, _ = made("path", "row")
    (tmp_path / "prices.csv").write_text("thing,since,price,shop\ni1,2024-01-01,1,s1\n")
    with pytest.raises(DataError, match=r'prices\.csv": has no key column "item"'):
        Scorer(folder)


def test_rows_without_the_attributes_that_they_must_bring_are_refused(made, tmp_path):
    folder, _, log = made("row", "row")
    with pytest.raises(
        DataError, match='field "cheap" needs the column "price": the frame has no such column'
    ):
        Scorer(folder).score(log)


def test_a_bundle_without_its_embedded_table_is_refused(made):
    folder, _, _ = made("bundle", "path")
    shutil.rmtree(folder / "side_tables")
    with pytest.raises(DataError, match=r'the file "side_tables/00000\.parquet" is missing'):
        Bundle.open(folder)
