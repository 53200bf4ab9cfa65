"""Training path = bundle on raw rows: the same encoding, the same network, the same probabilities."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from ctr.dataset.batches import Batches
from ctr.dataset.ingest import ingest
from ctr.dataset.schema import Schema, load_schema
from ctr.dataset.store import Dataset
from ctr.dataset.synthetic import write_log
from ctr.network.backbones import BACKBONES
from ctr.serving.scorer import Scorer, score_file
from ctr.settings import check
from ctr.training.predict import predict

TOLERANCE = 1e-6
REPOSITORY = Path(__file__).parents[2]


def assert_same(trained, found):
    """`found` (rows of the input,) against the probabilities of the training path, on all parts."""
    dataset = trained.dataset
    compared = 0
    for part in (dataset.part("train"), dataset.part("valid"), dataset.sealed_test()):
        expected = predict(trained.network, Batches(part, trained.layout.at_serving(), 128))
        assert expected.std() > 0.001  # or nothing is compared
        np.testing.assert_allclose(found[np.asarray(part.rows)], expected, rtol=0, atol=TOLERANCE)
        compared += len(part)
    assert compared > 300


ALL = list(product(BACKBONES, [None, 0.6, 0.1]))
# Each backbone once, with shares in turn.
SOME = [(backbone, (0.6, None, 0.1)[number % 3]) for number, backbone in enumerate(BACKBONES)]


def assert_raw_rows_score_as_in_training(log, train, folder, backbone, share):
    trained = train(backbone, share)
    scorer = Scorer(trained.export(folder / "bundle"))
    assert_same(trained, scorer.score(log[1]))


@pytest.mark.parametrize(("backbone", "share"), SOME)
def test_raw_rows_score_as_in_training_whatever_the_backbone(log, train, tmp_path, backbone, share):
    assert_raw_rows_score_as_in_training(log, train, tmp_path, backbone, share)


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "share"), [case for case in ALL if case not in SOME])
def test_raw_rows_score_as_in_training_whatever_is_kept(log, train, tmp_path, backbone, share):
    assert_raw_rows_score_as_in_training(log, train, tmp_path, backbone, share)


@pytest.mark.parametrize(
    "keys", [{"norm": "batch"}, {"norm": "layer", "dropout": 0.3}, {"first_order": False}]
)
def test_norms_dropout_and_first_order_terms_are_those_of_training(log, train, tmp_path, keys):
    trained = train("deepfm", 0.6, **keys)
    assert_same(trained, Scorer(trained.export(tmp_path / "bundle")).score(log[1]))


@pytest.mark.parametrize(
    ("backbone", "keys"),
    [
        ("dcnv2", {"extra": (("layers", 2), ("rank", 3))}),
        ("pin", {"extra": (("subnet_units", 3),), "norm": "layer"}),
    ],
)
def test_settings_of_a_backbone_travel_with_it(log, train, tmp_path, backbone, keys):
    trained = train(backbone, 0.6, **keys)
    assert_same(trained, Scorer(trained.export(tmp_path / "bundle")).score(log[1]))


@pytest.mark.parametrize(("seed", "share"), list(enumerate([0.03, 0.2, 0.5, 0.9, 0.99])))
def test_any_feature_set_scores_as_in_training(log, train, tmp_path, seed, share):
    trained = train("fnn", share, seed=seed)
    scorer = Scorer(trained.export(tmp_path / "bundle"))
    assert set(scorer.fields) == set(trained.layout.fields)
    assert_same(trained, scorer.score(log[1]))


def test_the_file_scores_as_the_frame(log, bundle, tmp_path):
    folder, frame, _ = log
    summary = score_file(bundle, folder / "log.csv", tmp_path / "scores.parquet")
    scores = pl.read_parquet(tmp_path / "scores.parquet")
    assert scores.schema == {"probability": pl.Float64}
    assert (summary.rows, summary.null_rows) == (600, 0)
    np.testing.assert_allclose(
        scores["probability"].to_numpy(), Scorer(bundle).score(frame), rtol=0, atol=TOLERANCE
    )


def test_synthetic_demo_scores_as_in_training(train, tmp_path):
    write_log("demo", tmp_path / "log", rows=4000, seed=3)
    source = tmp_path / "log" / "log.parquet"
    dataset = Dataset(ingest(load_schema(tmp_path / "log" / "schema.toml"), source, tmp_path / "datasets"))
    trained = train("deepfm", 0.5, dataset=dataset, source=source)
    scores = tmp_path / "scores.parquet"
    score_file(trained.export(tmp_path / "bundle"), source, scores)
    assert_same(trained, pl.read_parquet(scores)["probability"].to_numpy())


def test_a_logistic_regression_by_hand(train, tmp_path):
    """Two users and a list: bias + weight of the user + mean of the weights of the tags."""
    rows = [f"{n % 2},u{n % 3 % 2},{'a|b' if n % 2 else 'a'}" for n in range(60)]
    (tmp_path / "log.csv").write_text("click,user,tags\n" + "\n".join(rows) + "\n")
    keys = {"label": "click", "split": {"by": "random", "valid": 0.2, "test": 0.2}}
    fields = [{"name": "user", "min_count": 2}, {"name": "tags", "kind": "list", "separator": "|"}]
    schema = check({"name": "log", **keys, "fields": fields}, Schema, "schema")
    dataset = Dataset(ingest(schema, tmp_path / "log.csv", tmp_path / "datasets"))
    trained = train("lr", dataset=dataset, source=tmp_path / "log.csv")
    names = {
        (field, value or role): row + 1
        for row, (field, role, value) in enumerate(
            dataset.vocabulary.select("field", "role", "value").iter_rows()
        )
    }
    weights = trained.network.table.weight.data
    weights[:] = 0.0
    weights[names["user", "u0"]], weights[names["user", "u1"]] = 1.0, -2.0
    weights[names["user", "unknown"]], weights[names["user", "missing"]] = 0.5, 0.25
    weights[names["tags", "a"]], weights[names["tags", "b"]] = 4.0, 2.0
    weights[names["tags", "missing"]], weights[names["tags", "unknown"]] = -1.0, 0.0
    trained.network.bias.data[:] = -3.0
    trained.network.slope.fill_(1.0)
    trained.network.intercept.fill_(0.0)
    scorer = Scorer(trained.export(tmp_path / "bundle"))
    found = scorer.score(pl.DataFrame({"user": ["u0", "u1", "new", None], "tags": ["a|b", "b", "a|new", ""]}))
    logits = [-3 + 1 + 3, -3 - 2 + 2, -3 + 0.5 + 2, -3 + 0.25 - 1]
    assert found == pytest.approx([1 / (1 + math.exp(-logit)) for logit in logits], abs=1e-7)


def test_scoring_leaves_the_random_stream_alone(bundle, log):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Scorer(bundle).score(log[1].head(3))
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.real
def test_movie_ratings_score_as_in_training_with_and_without_their_label(train, tmp_path, monkeypatch):
    source = REPOSITORY.parent / "shared" / "data" / "ml100k" / "u.data"
    if not source.is_file():
        pytest.skip(f"no {source}")
    monkeypatch.chdir(REPOSITORY)  # the schema's side tables are relative to it
    schema = load_schema("data/schemas/ml100k.toml")
    dataset = Dataset(ingest(schema, source, tmp_path / "datasets"))
    trained = train("deepfm", 0.4, dataset=dataset, source=source)
    bundle = trained.export(tmp_path / "bundle")
    columns = ["user_id", "item_id", "rating", "timestamp"]
    log = pl.read_csv(source, separator="\t", has_header=False, new_columns=columns)
    log.drop("rating").write_csv(tmp_path / "requests.tsv", separator="\t", include_header=False)
    for path in (source, tmp_path / "requests.tsv"):
        score_file(bundle, path, tmp_path / "scores.parquet")
        assert_same(trained, pl.read_parquet(tmp_path / "scores.parquet")["probability"].to_numpy())
