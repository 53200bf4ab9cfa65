"""A bundle of a log with personal data: it scores raw rows with the key of its training, and with no other."""

import json

import numpy as np
import polars as pl
import pytest

from ctr.dataset.feature_set import FeatureSet
from ctr.dataset.ingest import ingest
from ctr.dataset.personal_key import load_key
from ctr.dataset.schema import Schema
from ctr.dataset.store import Dataset
from ctr.errors import ConfigError, DataError
from ctr.selection.compaction import compact_architecture, compact_layout, compact_network
from ctr.serving.bundle import Bundle
from ctr.serving.scorer import Scorer, score_file
from ctr.settings import check
from tests.reference.leaks import leaks
from tests.serving.test_equality import assert_same

SECRET = "a secret of more than 16 bytes"
ROWS = 500


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.delenv("CTR_PII_KEY_FILE", raising=False)
    monkeypatch.setenv("CTR_PII_KEY", SECRET)


@pytest.fixture
def personal(tmp_path):
    """A log of 40 persons with friends and a team each, as text; and its dataset."""
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    draw = np.random.default_rng(3)
    users = draw.integers(-1, 40, ROWS)
    friends = [draw.integers(0, 40, size) for size in draw.integers(0, 4, ROWS)]
    frame = pl.DataFrame(
        {
            "click": [str(n) for n in draw.integers(0, 2, ROWS)],
            "user": ["-1" if n < 0 else f"quixote-{n:02d}" for n in users],
            "friends": ["|".join(f"quixote-{n:02d}" for n in entry) or None for entry in friends],
            "price": [f"{n:.2f}" for n in draw.normal(5, 2, ROWS)],
        }
    )
    frame.write_csv(inputs / "log.csv")
    teams = "".join(f"quixote-{n:02d},t{n % 3}\n" for n in range(30))
    (inputs / "teams.csv").write_text("user,team\n" + teams)
    friends_field = {"name": "friends", "kind": "list", "separator": "|", "shares": "user", "pii": True}
    schema = check(
        {
            "name": "log",
            "label": "click",
            "derive": {"initial": 'LEFT("user", 1)'},
            "read": {"max_bad_rows": 0.1},
            "fields": [
                {"name": "user", "pii": True, "missing_values": [-1]},
                friends_field,
                {"name": "price", "kind": "numeric", "transform": "standard"},
                {"name": "team"},
                {"name": "initial"},
            ],
            "joins": [{"input": str(inputs / "teams.csv"), "on": "user"}],
        },
        Schema,
        "schema",
    )
    dataset = Dataset(ingest(schema, inputs / "log.csv", tmp_path / "datasets"))
    return inputs / "log.csv", frame, dataset


@pytest.fixture
def trained(personal, train):
    """A network on all fields; of those named, `without`."""

    def build(*without):
        path, _, dataset = personal
        built = train(dataset=dataset, source=path)
        if without:
            kept = np.ones(dataset.features, np.bool_)
            for info in dataset.fields:
                if info.name in without:
                    kept[info.offset : info.offset + info.features] = False
            built.feature_set = FeatureSet.of(dataset, kept, np.ones(dataset.features), {})
            built.network = compact_network(built.network, dataset, built.feature_set)
            built.layout = compact_layout(dataset, built.feature_set)
            built.architecture = compact_architecture(built.architecture, built.layout)
        return built

    return build


def test_raw_rows_score_as_in_training(personal, trained, tmp_path):
    path, frame, _ = personal
    built = trained()
    bundle = built.export(tmp_path / "bundle")
    found = Scorer(bundle).score(frame)
    assert_same(built, found)
    score_file(bundle, path, tmp_path / "scores.parquet")
    np.testing.assert_allclose(pl.read_parquet(tmp_path / "scores.parquet")["probability"], found, atol=1e-6)
    assert leaks(tmp_path, "quixote", path.parent) == []


def test_fields_made_of_a_personal_column_that_is_none_itself_score_as_in_training(
    personal, trained, tmp_path
):
    built = trained("user", "friends")
    bundle = built.export(tmp_path / "bundle")
    assert [field.name for field in Bundle.open(bundle).schema.fields] == ["price", "team", "initial"]
    assert_same(built, Scorer(bundle).score(personal[1]))


def test_a_bundle_without_any_personal_column_needs_no_key_and_still_tells_nothing(
    personal, trained, tmp_path, monkeypatch
):
    built = trained("user", "friends", "team", "initial")
    bundle = built.export(tmp_path / "bundle")
    monkeypatch.delenv("CTR_PII_KEY")
    assert_same(built, Scorer(bundle).score(personal[1]))
    (tmp_path / "bad.csv").write_text("user,price\n" + "1,quixote-01\n" * 9)
    with pytest.raises(DataError, match="withheld") as caught:
        score_file(bundle, tmp_path / "bad.csv", tmp_path / "scores.parquet")
    assert "quixote" not in str(caught.value)


def test_the_manifest_says_what_is_personal_and_opening_needs_no_key(trained, tmp_path, monkeypatch):
    bundle = trained().export(tmp_path / "bundle")
    monkeypatch.delenv("CTR_PII_KEY")
    entry = json.loads((bundle / "manifest.json").read_text())["personal"]
    monkeypatch.setenv("CTR_PII_KEY", SECRET)
    assert entry["key"] == load_key([]).id
    assert [(field["name"], field["missing_values"]) for field in entry["fields"]] == [
        ("user", ["-1"]),
        ("friends", []),
    ]
    golden = Bundle.open(bundle).golden()
    assert golden["user"].drop_nulls().str.contains("^[0-9a-f]{32}$").all()
    assert golden.schema["friends"] == pl.List(pl.String)


def test_scoring_without_the_key_or_with_another_is_refused(trained, tmp_path, monkeypatch):
    bundle = trained().export(tmp_path / "bundle")
    right = load_key([]).id
    monkeypatch.delenv("CTR_PII_KEY")
    with pytest.raises(ConfigError, match=r'no key .* of "friends", "user": set the environment variable'):
        Scorer(bundle)
    monkeypatch.setenv("CTR_PII_KEY", "another secret of some bytes")
    with pytest.raises(ConfigError, match=f'key of id "{right}", found the key of id "{load_key([]).id}"'):
        Scorer(bundle)


def test_exporting_with_another_key_than_that_of_the_dataset_is_refused(trained, tmp_path, monkeypatch):
    built = trained()
    monkeypatch.setenv("CTR_PII_KEY", "another secret of some bytes")
    with pytest.raises(ConfigError, match='dataset "log": its personal data were replaced'):
        built.export(tmp_path / "bundle")


@pytest.mark.parametrize(
    "content",
    [
        "quixote-01,quixote-02,3\nquixote-01,quixote-03,5\n",  # no header
        "user,friendz,price\nquixote-01,quixote-02,3\n",
        'user,friends,price\n"quixote-02,a,1\nquixote-\xff,a,1\nquixote-01,a\n5,quixote-03,quixote-04\n',
        "quixote-01,quixote-01,price\n1,2,3\n",
    ],
    ids=["no-header", "no-such-column", "bad-rows", "equal-names"],
)
def test_errors_of_scoring_quote_nothing(content, trained, tmp_path):
    bundle = trained().export(tmp_path / "bundle")
    (tmp_path / "rows.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError) as caught:
        score_file(bundle, tmp_path / "rows.csv", tmp_path / "scores.parquet")
    assert "quixote" not in str(caught.value)


def test_a_frame_without_a_column_is_answered_without_names_that_the_schema_does_not_know(trained, tmp_path):
    scorer = Scorer(trained().export(tmp_path / "bundle"))
    frame = pl.DataFrame({"user": ["a"], "friends": ["b"], "quixote-01": ["c"], "pric": ["1"]})
    with pytest.raises(DataError, match=r'field "price": the frame has no such column$'):
        scorer.score(frame)
