"""The main job on a log as production has it: weights, sampling, bias fields, refits, one pass, dropped reads."""

import io
import json

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

import ctr.jobs.train as job
from ctr.config import Config
from ctr.dataset.store import Dataset
from ctr.report.log_facts import log_facts
from ctr.serving.scorer import Scorer
from ctr.settings import check

ROWS = 3000
SCHEMA = """
name = "made"
label = "click"
weight = "w"
negative_keep_rate = 0.5
row_id = "id"
missing_values = ["-"]
[read]
format = "parquet"
[split]
by = "time"
column = "time"
valid = 0.15
test = 0.15
[[fields]]
name = "user"
[[fields]]
name = "noise"
group = "crm"
cost = 3
[[fields]]
name = "seen"
kind = "list"
shares = "user"
max_length = 2
pooling = "sum"
[[fields]]
name = "picture"
kind = "vector"
size = 2
[[fields]]
name = "place"
role = "bias"
serve_value = 1
[[fields]]
name = "shop"
keep = "always"
[[fields]]
name = "secret"
keep = "never"
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A folder with log.parquet and schema.toml."""
    folder = tmp_path_factory.mktemp("made")
    draw = np.random.default_rng(5)
    user, place = draw.integers(0, 8, ROWS), draw.integers(1, 4, ROWS)
    picture = draw.normal(size=(ROWS, 2))
    logit = np.where(user % 2, 1.2, -1.2) - 0.8 * (place - 1) + picture[:, 0]
    pl.DataFrame(
        {
            "time": np.arange(ROWS),
            "click": (draw.random(ROWS) < 1 / (1 + np.exp(-logit))).astype(int),
            "id": [f"row-{n}" for n in range(ROWS)],
            "w": draw.choice([0.5, 1.0, 2.0], ROWS),
            "user": [f"u{n}" for n in user],
            "noise": [f"n{n}" for n in draw.integers(0, 60, ROWS)],
            "seen": [[f"u{n}" for n in draw.integers(0, 9, size)] for size in draw.integers(0, 4, ROWS)],
            "picture": [row.tolist() if n % 6 else None for n, row in enumerate(picture)],
            "place": place,
            "shop": [f"s{n}" if n else "-" for n in draw.integers(0, 5, ROWS)],
            "secret": [f"x{n}" for n in draw.integers(0, 5, ROWS)],
        }
    ).write_parquet(folder / "log.parquet")
    (folder / "schema.toml").write_text(SCHEMA)
    return folder


@pytest.fixture
def run(log, tmp_path, monkeypatch):
    """Runs the job with sections by keyword; returns its folder and its report."""
    monkeypatch.setattr(
        job, "write_report", lambda report, run, **_: (run / "report.html").write_text("page")
    )
    monkeypatch.setattr(job, "figure_png", lambda report, path: path.write_bytes(b"picture"))

    def train(**sections):
        content = {
            "name": "made",
            "data": {
                "schema": str(log / "schema.toml"),
                "input": str(log / "log.parquet"),
                "folder": str(log / "datasets"),
            },
            "embedding": {"dim": 4},
            "backbone": {"kind": "deepfm", "hidden": [8]},
            "selector": {"epochs": 2, "referees": [], "compare_dropped_reads": False},
            "training": {"batch_size": 128, "epochs": 3, "learning_rate": 1e-2, "threads": 1},
            "tracking": {"uri": "off"},
            "output": {"folder": str(tmp_path / "runs")},
        }
        for name, section in sections.items():
            content[name] = {**content[name], **section} if name in content else section
        folder = job.train(check(content, Config, "config"), console=Console(file=io.StringIO(), width=200))
        return folder, json.loads((folder / "report.json").read_text())

    return train


def scored_like_the_run(folder, log, column):
    """Probabilities of the bundle on the test rows, beside those that the run wrote."""
    table = pl.read_parquet(folder / "scores" / "test.parquet")
    frame = pl.read_parquet(log / "log.parquet").drop("place", "click", "w")
    return Scorer(folder / "bundle").score(frame)[table["row"].to_numpy()], table[column].to_numpy()


def test_everything_survives_compaction_and_bundle(run, log):
    folder, report = run()
    found, expected = scored_like_the_run(folder, log, "selected_at_serving")
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)
    table = pl.read_parquet(folder / "scores" / "test.parquet")
    assert table["row_id"].to_list()[0] == f"row-{table['row'][0]}"
    assert not np.allclose(table["selected"], table["selected_at_serving"], atol=1e-3)
    fields = report["feature_set"]["fields"]
    assert fields["place"]["kept"] == fields["place"]["total"] == 3
    assert fields["shop"]["kept"] == fields["shop"]["total"] == 4
    assert fields["secret"]["kept"] == 0
    assert "seen" not in fields  # its values are those of user
    assert report["feature_set"]["groups"] == {
        "crm": {"kept": int(fields["noise"]["kept"] > 0), "total": 1, "cost": 3.0}
    }
    assert report["selected"]["test_at_serving"]["auc"] != report["selected"]["test"]["auc"]
    assert report["bias"] == {"place": 1}
    facts = dict(log_facts(report))
    assert facts["bias fields"] == "place (at scoring always 1)"
    assert facts["sampling"].startswith("50.0 % of the rows without click were kept")
    assert facts["lists cut off"].startswith("seen in ")
    manifest = json.loads((folder / "bundle" / "manifest.json").read_text())
    assert manifest["sampling"]["negative_keep_rate"] == 0.5
    assert manifest["sampling"]["correction"] == "p = q / (q + (1 - q) / negative_keep_rate)"


def test_metrics_are_those_of_the_unsampled_world(run):
    folder, report = run(selector={"kind": "none"})
    table = pl.read_parquet(folder / "scores" / "test.parquet")
    weight = table["weight"] * pl.Series(np.where(table["label"] == 0, 2.0, 1.0))
    expected = (table["baseline"] * weight).sum() / (table["label"] * weight).sum()
    assert report["baseline"]["test"]["calibration_ratio"] == pytest.approx(expected, rel=1e-6)
    assert 0.8 < expected < 1.25  # without the correction about one and a half
    sampling = json.loads((folder / "bundle" / "manifest.json").read_text())["sampling"]
    assert (sampling["slope"], sampling["intercept"]) != (1.0, 0.0)


def test_the_better_reading_of_dropped_values_is_reported_and_can_be_asked_for(run, log):
    _, report = run(selector={"ratio": 0.2, "compare_dropped_reads": True})
    compared = report["dropped_reads"]
    assert compared["used"] == "zero"
    assert 0.5 < compared["valid_auc"]["zero"] != compared["valid_auc"]["unknown"]
    assert compared["better"] == max(("zero", "unknown"), key=compared["valid_auc"].get)
    other, asked = run(selector={"ratio": 0.2, "dropped_reads": "unknown"})
    assert asked["selected"]["valid"]["auc"] == pytest.approx(compared["valid_auc"]["unknown"], abs=1e-9)
    assert asked["feature_set"]["kept"] == report["feature_set"]["kept"]
    np.testing.assert_allclose(*scored_like_the_run(other, log, "selected_at_serving"), atol=1e-6, rtol=0)
    assert json.loads((other / "feature_set" / "feature_set.json").read_text())["dropped_reads"] == "unknown"


@pytest.mark.parametrize("selector", ["optfs", "none"])
@pytest.mark.parametrize("refit", ["valid", "all"])
def test_a_refit_ships_another_model_and_leaves_the_verdict_alone(run, log, selector, refit):
    keys = {"selector": {"kind": selector}}
    _, plain = run(**keys)
    folder, report = run(export={"refit": refit}, **keys)
    for key in ("baseline", "selected", "difference", "curve"):
        assert report[key] == plain[key], key
    model = json.loads((folder / "bundle" / "manifest.json").read_text())["model"]
    assert model == report["model"]
    assert model["refit"] == refit
    assert model["shipped"]["metrics"] is None
    assert model["evaluated"]["metrics"]["test"] == (report["selected"] or report["baseline"])["test"]
    window = Dataset(next((log / "datasets").glob("made-*"))).manifest["window"]
    assert model["evaluated"]["window"] == window["train"]
    assert model["shipped"]["window"] == [
        window["train"][0],
        window["valid" if refit == "valid" else "test"][1],
    ]
    assert model["shipped"]["steps"] == model["evaluated"]["steps"]
    column = "selected_at_serving" if selector == "optfs" else "baseline_at_serving"
    found, expected = scored_like_the_run(folder, log, column)
    assert not np.allclose(found, expected, atol=1e-4)  # another model
    assert np.corrcoef(found, expected)[0, 1] > 0.9  # of the same world
    assert report["seconds"]["refit"] > 0


@pytest.mark.parametrize("selector", ["none", "optfs", "all", "frequency", "random"])
def test_every_selector_works_with_one_pass_in_the_order_of_time(run, log, selector):
    keys = {"kind": selector, "epochs": 1, "rewind_epoch": 0.5 if selector == "optfs" else 0}
    keys |= {"ratio": 0.3} if selector in ("frequency", "random") else {}
    folder, report = run(selector=keys, training={"epochs": 1, "order": "time", "learning_rate": 0.03})
    assert [row["epoch"] for row in report["history"]["baseline"]] == [1] * 10
    assert report["baseline"]["test"]["auc"] > 0.6
    if selector == "optfs":
        assert len(report["history"]["search"]) == 10
        assert report["history"]["search"][-1]["temperature"] > 100
        kept = report["feature_set"]["fields"]
        assert kept["noise"]["kept"] / kept["noise"]["total"] < 0.3
        assert kept["user"]["kept"] >= 6
    if selector != "none":
        column = "selected_at_serving"
        np.testing.assert_allclose(*scored_like_the_run(folder, log, column), atol=1e-6, rtol=0)
