"""Side tables at scoring: in the bundle, at a path or in the rows; all three score as in training."""

import shutil
import sys

import numpy as np
import polars as pl
import pytest

from ctr import cli
from ctr.dataset.batches import Batches
from ctr.dataset.ingest import ingest
from ctr.dataset.schema import Schema
from ctr.dataset.store import Dataset
from ctr.errors import ConfigError, DataError
from ctr.jobs.evaluated_models import NamedBundle
from ctr.jobs.evaluation_pass import score_log
from ctr.jobs.verify import verify
from ctr.serving.bundle import Bundle
from ctr.serving.scorer import Scorer, score_file
from ctr.settings import check
from ctr.training.predict import predict
from tests.serving.attacks import refused, rewritten

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
    scorer = Scorer(folder, allow_paths=True)
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
        score_file(folder, tmp_path / "log.csv", tmp_path / "scores.parquet", allow_paths=True)
        found = pl.read_parquet(tmp_path / "scores.parquet")["probability"].to_numpy()
        np.testing.assert_allclose(found, expected_of(trained), atol=1e-6, rtol=0)


def test_a_table_at_a_path_is_read_when_a_scorer_is_made_and_may_have_changed(made, tmp_path):
    folder, _, log = made("path", "bundle")
    before = Scorer(folder, allow_paths=True)
    text = (tmp_path / "prices.csv").read_text()
    (tmp_path / "prices.csv").write_text(text + "i5,2023-12-31T00:00:00,1,s1\n")
    after = Scorer(folder, allow_paths=True)  # the golden rows hold the attributes that they had
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
        Scorer(folder, allow_paths=True)


def test_a_table_at_a_path_without_its_key_is_refused(made, tmp_path):
    folder, _, _ = made("path", "row")
    (tmp_path / "prices.csv").write_text("thing,since,price,shop\ni1,2024-01-01,1,s1\n")
    with pytest.raises(DataError, match=r'prices\.csv": has no key column "item"'):
        Scorer(folder, allow_paths=True)


def test_rows_without_the_attributes_that_they_must_bring_are_refused(made, tmp_path):
    folder, _, log = made("row", "row")
    with pytest.raises(
        DataError, match='field "cheap" needs the column "price": the frame has no such column'
    ):
        Scorer(folder, allow_paths=True).score(log)


def test_a_bundle_without_its_embedded_table_is_refused(made):
    folder, _, _ = made("bundle", "path")
    shutil.rmtree(folder / "side_tables")
    with pytest.raises(DataError, match=r'the file "side_tables/00000\.parquet" is missing'):
        Bundle.open(folder)


def test_a_path_is_read_only_by_who_allows_it(made, tmp_path, capsys, monkeypatch):
    folder, _, _ = made("bundle", "path")
    (tmp_path / "shops.csv").write_text("secret:x:0:0\n")
    told = r'bundle ".*bundle" reads a side table from outside, ".*shops\.csv": if you trust .* add --allow-paths'
    for score in (
        lambda: Scorer(folder),
        lambda: score_file(folder, tmp_path / "log.csv", tmp_path / "out.parquet"),
        lambda: verify(folder, None, run=None, log=None),
    ):
        with pytest.raises(ConfigError, match=told) as caught:
            score()
        assert "secret" not in str(caught.value)
    (tmp_path / "shops.csv").write_text("shop,city,staff\ns0,Rome,3\ns1,Oslo,5\ns2,Rome,8\n")

    def run_cli(words):
        monkeypatch.setattr(sys, "argv", ["ctr", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code

    arguments = ["score", str(folder), str(tmp_path / "log.csv"), "--out", str(tmp_path / "out.parquet")]
    assert run_cli(arguments) == 2
    assert "--allow-paths" in capsys.readouterr().err
    assert run_cli([*arguments, "--allow-paths"]) == 0
    assert run_cli(["verify", str(folder)]) == 2
    assert run_cli(["verify", str(folder), "--allow-paths"]) == 0


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "/dev/zero", "http://127.0.0.1:9/x.csv", "/**/*.csv", "../secret"]
)
def test_a_foreign_bundle_reads_nothing_that_it_names(made, tmp_path, path):
    folder, _, _ = made("path", "bundle")
    rewritten(folder, "schema.json", lambda content: content["joins"][0].update(input=path, max_bad_rows=1.0))
    assert f'reads a side table from outside, "{path}"' in refused(folder)


def test_a_run_of_ours_is_evaluated_with_its_path_and_a_bundle_when_that_is_allowed(made, tmp_path):
    folder, _, _ = made("path", "bundle")
    data, keep = [str(tmp_path / "log.csv")], tmp_path / "scores.parquet"
    ours = NamedBundle("ours", str(tmp_path), folder)
    bare = NamedBundle("bare", str(folder), folder)
    score_log(ours, data, [], keep)
    score_log(bare, data, [], tmp_path / "bare.parquet", allow_paths=True)
    assert pl.read_parquet(keep).equals(pl.read_parquet(tmp_path / "bare.parquet"))
    with pytest.raises(ConfigError, match=r'model "bare": .* allow_paths = true'):
        score_log(bare, data, [], keep)
