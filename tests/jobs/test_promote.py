"""Promotion by the rule, and by nothing else."""

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

import ctr.jobs.evaluate as evaluation
import ctr.jobs.promote as job
from ctr import cli
from ctr.errors import ConfigError, CtrError, ThresholdError
from ctr.jobs.run_registration import version_tags
from ctr.registry import Aliases, Version, aliases, crown
from ctr.tracking import Tracker
from tests.mlflow_server import mlflow_server

pytest.importorskip("sqlalchemy", reason="MLflow is not installed")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """In a folder of its own, with a page that is quickly made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        evaluation,
        "write_evaluation",
        lambda report, out: (out / "evaluation.html").write_text(report["verdict"]),
    )


@pytest.fixture
def client(tmp_path):
    return Tracker.open(None, "ctr", fallback=tmp_path / "runs")._connection._client


def registered(tmp_path, run):
    """The version that a finished run becomes."""
    tracker = Tracker.open(None, "ctr", fallback=tmp_path / "runs")
    with tracker.job(run.name, config={}, config_text="", tags={}, datasets=[]) as tracked:
        tracked.files(run)
        tags = version_tags(run, json.loads((run / "report.json").read_text()))
        tracked.register("ads", tags, run / "bundle")
    return tracked.registered


def promoted(finished, name="ads", **keys):
    data = [str(finished.folder / "test.parquet")]
    return job.promote(name, data, out="out", console=Console(file=io.StringIO()), **keys)


def promotion_in(folder):
    return json.loads((folder / "evaluation.json").read_text())["promotion"]


def logged_promotion(client, folder, into):
    """What MLflow's copy of an evaluation says of its promotion."""
    into.mkdir()
    run_id = json.loads((folder / "evaluation.json").read_text())["mlflow_run"]
    path = Path(client.download_artifacts(run_id, "evaluation.json", str(into)))
    return json.loads(path.read_text())["promotion"]


def test_a_candidate_that_gains_becomes_the_champion(finished, tmp_path, client):
    crown(client, registered(tmp_path, finished.candidate))
    registered(tmp_path, finished.champion)  # which is the better one on this log, and smaller
    found = promoted(finished, margin=0.9)
    assert (found.version.number, aliases(client, "ads").numbers) == (2, (2, 2))
    assert "The rule for promotion is met" in found.sentence
    promotion = promotion_in(tmp_path / "out")
    assert promotion["bytes"]["candidate"] < promotion["bytes"]["champion"]
    assert (promotion["champion"], promotion["candidate"], promotion["outcome"]) == (1, 2, "promoted")
    assert found.sentence in (tmp_path / "out" / "evaluation.html").read_text()
    assert logged_promotion(client, tmp_path / "out", tmp_path / "copy") == promotion
    tags = client.get_model_version("ads", "2").tags
    assert tags["promotion.outcome"] == "promoted"
    assert tags["promotion.rule"] == "low > 0, or low >= -0.9 and fewer bytes"
    assert float(tags["promotion.auc_difference.low"]) == promotion["auc_difference"]["low"]
    assert tags["promotion.champion"] == "1"
    again = promoted(finished)  # by a scheduler that repeats itself
    assert again.folder is None
    assert "nothing to do" in again.sentence


@pytest.mark.slow
def test_on_a_server_a_candidate_becomes_the_champion_too(finished, tmp_path):
    (tmp_path / "server").mkdir()
    with mlflow_server(tmp_path / "server") as uri:
        tracker = Tracker.open(uri, "ctr", fallback=tmp_path / "runs")
        versions = []
        for run in (finished.candidate, finished.champion):
            with tracker.job(run.name, config={}, config_text="", tags={}, datasets=[]) as tracked:
                tracked.files(run)
                tags = version_tags(run, json.loads((run / "report.json").read_text()))
                tracked.register("ads", tags, run / "bundle")
            versions.append(tracked.registered)
        first = job.promote("ads", [], tracking=uri, first=True)
        assert first.version.number == 2  # the newest candidate
        client = tracker._connection._client
        crown(client, versions[0])
        found = promoted(finished, tracking=uri, margin=0.9)
        assert aliases(client, "ads").numbers == (2, 2)
        assert logged_promotion(client, tmp_path / "out", tmp_path / "copy")["outcome"] == "promoted"
        assert client.get_model_version("ads", "2").tags["promotion.sentence"] == found.sentence


def test_a_candidate_that_the_rule_does_not_let_pass_is_not_promoted(finished, tmp_path, client):
    crown(client, registered(tmp_path, finished.champion))
    registered(tmp_path, finished.candidate)
    with pytest.raises(ThresholdError, match="version 2 was not promoted") as told:
        promoted(finished, margin=0.0)
    assert told.value.exit_code == 4
    assert aliases(client, "ads").numbers == (1, 2)
    assert client.get_model_version("ads", "2").tags["promotion.outcome"] == "not promoted"
    assert promotion_in(tmp_path / "out")["outcome"] == "not promoted"
    assert logged_promotion(client, tmp_path / "out", tmp_path / "copy")["outcome"] == "not promoted"


def test_the_first_champion_is_named_by_hand(finished, tmp_path, client):
    registered(tmp_path, finished.champion)
    with pytest.raises(ConfigError, match=r'no version has the alias "champion".*--first'):
        promoted(finished)
    assert aliases(client, "ads").numbers == (None, 1)
    assert promoted(finished, first=True).version.number == 1
    assert aliases(client, "ads").numbers == (1, 1)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_compared_says_why(finished, tmp_path, client):
    with pytest.raises(ConfigError, match='no registered model "ads"; no model is registered there'):
        promoted(finished)
    version = registered(tmp_path, finished.champion)
    with pytest.raises(ConfigError, match='"adds"; the nearest name is "ads"'):
        promoted(finished, "adds")
    client.delete_registered_model_alias("ads", "candidate")
    with pytest.raises(
        ConfigError, match=r'no version has the alias "candidate"; a run with tracking\.register'
    ):
        promoted(finished)
    crown(client, version)
    registered(tmp_path, finished.candidate)
    with pytest.raises(ConfigError, match="--data"):
        job.promote("ads", [], out="out")
    with pytest.raises(CtrError, match="Connection refused"):
        promoted(finished, tracking="http://127.0.0.1:9")
    with pytest.raises(ConfigError, match="tracking is off"):
        promoted(finished, tracking="off")


def test_an_alias_that_moves_meanwhile_stops_the_promotion(finished, tmp_path, client, monkeypatch):
    crown(client, registered(tmp_path, finished.candidate))
    candidate = registered(tmp_path, finished.champion)
    real = job.evaluate

    def moved(*arguments, **keys):
        crown(client, candidate)
        return real(*arguments, **keys)

    monkeypatch.setattr(job, "evaluate", moved)
    with pytest.raises(CtrError, match="champion is now version 2, candidate version 2; nothing was changed"):
        promoted(finished, margin=0.9)
    assert "promotion.outcome" not in client.get_model_version("ads", "2").tags
    assert promotion_in(tmp_path / "out")["outcome"] is None


VERSIONS = Aliases(Version("ads", 3, {}), Version("ads", 5, {}))


def evaluation_of(auc, sizes, overlap=(None, None)):
    """As far as the rule reads it."""
    models = [
        {
            "name": name,
            "bundle": {"bytes": value},
            "overlap": None if rows is None else {"rows": rows, "window": []},
        }
        for (name, value), rows in zip(sizes.items(), overlap, strict=True)
    ]
    return {"models": models, "differences": [{"auc": auc}]}


@pytest.mark.parametrize(
    ("overlap", "passed"), [((0, 0), True), ((None, 0), True), ((0, 7), False), ((5, 0), False)]
)
def test_rows_that_one_of_the_two_was_trained_on_promote_nothing_unless_allowed(overlap, passed):
    gain = {"value": 0.02, "low": 0.01, "high": 0.03}
    report = evaluation_of(gain, {"champion": 100, "candidate": 90}, overlap)
    found = job.judged(report, margin=0.001, versions=VERSIONS)
    assert found["passed"] is passed
    assert ("--allow-overlap" in found["sentence"]) is not passed
    allowed = job.judged(report, margin=0.001, versions=VERSIONS, overlap=True)
    assert allowed["passed"]
    assert ("which was allowed" in allowed["sentence"]) is not passed
    assert allowed["overlap"]["allowed"]


def test_a_log_that_both_were_trained_on_moves_no_alias_until_that_is_allowed(finished, tmp_path, client):
    crown(client, registered(tmp_path, finished.candidate))
    registered(tmp_path, finished.champion)
    log = str(finished.folder / "log.parquet")
    console = Console(file=io.StringIO())
    with pytest.raises(
        ThresholdError, match=r"rows of this log lie in a training window, [\d,]+ that champion was"
    ):
        job.promote("ads", [log], out="out", console=console, margin=0.9)
    assert aliases(client, "ads").numbers == (1, 2)
    assert "not met" in client.get_model_version("ads", "2").tags["promotion.sentence"]
    job.promote("ads", [log], out="out", console=console, margin=0.9, overlap=True)
    assert aliases(client, "ads").numbers == (2, 2)
    tags = client.get_model_version("ads", "2").tags
    assert "which was allowed" in tags["promotion.sentence"]
    assert tags["promotion.overlap_rows"].startswith("champion ")


@pytest.mark.parametrize(
    ("low", "size", "passed"),
    [
        (1e-6, 200, True),  # a gain, though larger
        (0.0, 200, False),
        (0.0, 100, False),  # a copy is no reason
        (0.0, 99, True),
        (-0.001, 99, True),  # just at the margin
        (-0.0011, 99, False),
        (None, 99, False),
    ],
)
def test_the_rule(low, size, passed):
    sizes = {"champion": 100, "candidate": size}
    auc = {"value": None if low is None else low + 0.002, "low": low, "high": 0.004}
    found = job.judged(evaluation_of(auc, sizes), margin=0.001, versions=VERSIONS)
    assert found["passed"] is passed
    assert (found["champion"], found["candidate"], found["bytes"]) == (3, 5, sizes)
    assert found["sentence"].startswith(f"The rule for promotion is {'met' if passed else 'not met'}: ")


def spoken(monkeypatch, capsys, *words):
    """Exit code, and what the command line says."""
    monkeypatch.setattr(sys, "argv", ["ctr", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    streams = capsys.readouterr()
    return end.value.code or 0, streams.out + streams.err


def test_the_command_line_tells_and_ends_with_its_code(finished, tmp_path, client, monkeypatch, capsys):
    crown(client, registered(tmp_path, finished.candidate))
    registered(tmp_path, finished.champion)
    data = str(finished.folder / "test.parquet")
    code, text = spoken(monkeypatch, capsys, "promote", "ads", "--data", data, "--margin", "0.9")
    assert code == 0
    assert "champion: models:/ads/2" in text
    assert "page: runs/ads-promotion-2-over-1/evaluation.html" in text
    code, text = spoken(monkeypatch, capsys, "sync")
    assert (code, text) == (
        0,
        'nothing to send: neither "runs" nor a folder below it keeps anything for MLflow\n',
    )
    code, text = spoken(monkeypatch, capsys, "sync", "nowhere")
    assert code == 2
    assert "expected the folder of runs" in text
