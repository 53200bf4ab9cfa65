"""Runs with referees of values and of fields: what they choose, at which size, and what is told before training."""

import io
import json
import shutil

import numpy as np
import polars as pl
import pytest
import torch
from rich.console import Console

import ctr.jobs.train as job
from ctr.config import Config
from ctr.dataset.feature_set import FeatureSet
from ctr.errors import ConfigError
from ctr.selection import field_referees
from ctr.settings import check
from ctr.training.checkpoint import load_checkpoint

FIELDS = ("field_mutual_information", "field_chi2", "field_l1", "field_permutation", "field_gates")
# What would show if a training went another way: dropout draws numbers, and rows that nobody reads decay.
TRAINING = {"batch_size": 128, "epochs": 2, "learning_rate": 0.03, "threads": 1}
HARD = {
    "training": {**TRAINING, "weight_decay": 0.1, "patience": 9.0},
    "backbone": {"hidden": [8], "dropout": 0.2},
}
SCHEMA = """
name = "small"
label = "click"
[split]
by = "random"
[[fields]]
name = "user"
[[fields]]
name = "noise"
[[fields]]
name = "words"
kind = "list"
separator = "|"
"""


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Half of 8 users click far more; 40 values of noise and 30 words tell nothing."""
    folder, draw, rows = tmp_path_factory.mktemp("small"), np.random.default_rng(5), 1600
    user = draw.integers(0, 8, rows)
    pl.DataFrame(
        {
            "click": (draw.random(rows) < np.where(user % 2, 0.85, 0.15)).astype(int),
            "user": [f"u{n}" for n in user],
            "noise": [f"n{n}" for n in draw.integers(0, 40, rows)],
            "words": ["|".join(f"w{n}" for n in draw.integers(0, 30, 2)) for _ in range(rows)],
        }
    ).write_csv(folder / "log.csv")
    (folder / "schema.toml").write_text(SCHEMA)
    return folder


@pytest.fixture
def run(log, tmp_path):
    """Runs the job; sections by keyword."""

    def start(selector, **sections):
        content = {
            "name": "small",
            "data": {
                "schema": str(log / "schema.toml"),
                "input": str(log / "log.csv"),
                "folder": str(log / "datasets"),
                **sections.pop("data", {}),
            },
            "embedding": {"dim": 4},
            "backbone": {"hidden": [8]},
            "selector": {"epochs": 2, "referees": [], "compare_dropped_reads": False, **selector},
            "training": TRAINING,
            "tracking": {"uri": "off"},
            "output": {"folder": str(tmp_path / "runs")},
            **sections,
        }
        config = check(content, Config, "config")
        return job.train(config, console=Console(file=io.StringIO(), width=200))

    return start


def kept_of(run):
    counts = FeatureSet.load(run / "feature_set").counts()
    return {name: entry["kept"] for name, entry in counts["fields"].items()}


def test_saliency_is_a_selector_and_fields_are_its_referees(run):
    folder = run({"kind": "saliency", "ratio": 0.1, "referees": ["frequency", *FIELDS]})
    report = json.loads((folder / "report.json").read_text())
    assert kept_of(folder)["user"] == 8
    points = {point["selector"]: point for point in report["curve"]}
    assert list(points) == ["saliency", "frequency", *FIELDS]
    for name in FIELDS:
        assert points[name]["kept"] == 8  # the field of users, and no other
        assert points[name]["valid"]["auc"] > 0.75
    assert (folder / "checkpoints" / "search-fields-2.5").is_dir()


@pytest.mark.parametrize("rule", ["fisher", "second_order"])
def test_the_rule_of_saliency_is_kept_with_the_set(rule, run):
    folder = run({"kind": "saliency", "ratio": 0.1, "saliency": rule})
    assert FeatureSet.load(folder / "feature_set").provenance["saliency"] == rule


def test_a_trial_tries_rankings_on_valid_and_keeps_what_decides(run):
    folder = run({"kind": "trial", "ratio": 0.1, "referees": ["frequency"]})
    assert kept_of(folder)["user"] == 8
    provenance = FeatureSet.load(folder / "feature_set").provenance
    assert provenance["tried"][provenance["ranking"]] == max(provenance["tried"].values())


def weights_and_passes(folder):
    baseline = folder / "checkpoints" / "baseline"
    passes = [load_checkpoint(baseline / f"pass-{epoch}") for epoch in (1, 2)]
    return load_checkpoint(baseline / "last")["network"], passes


def same(one, other):
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    "lost",
    [(), ("baseline/pass-2",), ("baseline/pass-1", "baseline/pass-2"), ("baseline/pass-2", "trial-0.1")],
)
def test_a_trial_that_was_interrupted_chooses_the_same_again(lost, run):
    folder = run({"kind": "trial", "ratio": 0.1}, **HARD)
    before, taken = FeatureSet.load(folder / "feature_set"), weights_and_passes(folder)[1]
    (folder / "DONE").unlink()
    for name in lost:
        shutil.rmtree(folder / "checkpoints" / name)
    after = FeatureSet.load(run({"kind": "trial", "ratio": 0.1}, **HARD) / "feature_set")
    assert after.provenance["tried"] == before.provenance["tried"]
    assert after.digest() == before.digest()
    assert all(map(same, taken, weights_and_passes(folder)[1]))


def test_a_trial_asks_keep_all_on_the_way_and_changes_nothing_of_it(run):
    asked, passes = weights_and_passes(run({"kind": "trial", "ratio": 0.1}, **HARD))
    plain, none = weights_and_passes(run({"kind": "frequency", "ratio": 0.1}, **HARD))
    assert same(asked, plain)
    assert none == [None, None]
    assert not same(*passes)


@pytest.mark.parametrize("shorter", [{"epochs": 1}, {"patience": 0.1}])
def test_where_keep_all_stops_before_the_second_pass_a_network_goes_on(shorter, run):
    training = {**HARD["training"], "learning_rate": 0.3}
    folder = run({"kind": "trial", "ratio": 0.1}, **{**HARD, "training": {**training, **shorter}})
    assert (folder / "checkpoints" / "trial-network").is_dir()
    _, short = weights_and_passes(folder)
    _, long = weights_and_passes(run({"kind": "trial", "ratio": 0.1}, **{**HARD, "training": training}))
    assert all(map(same, short, long))


@pytest.mark.parametrize("kind", ["saliency", "trial", "field_gates", "field_permutation", "field_l1"])
def test_logs_without_a_vocabulary_are_judged_as_well(kind, run):
    embedding = {"kind": "unified", "dim": 4, "bytes": "40kB"}
    folder = run({"kind": kind, "ratio": 0.1}, data={"encoding": "hashed"}, embedding=embedding)
    assert kept_of(folder)["user"] == 8


def test_a_library_that_is_not_there_is_told_before_anything_is_trained(run, monkeypatch, tmp_path):
    monkeypatch.setattr(field_referees.importlib.util, "find_spec", lambda name: None)
    for selector in ({"kind": "field_gain", "ratio": 0.1}, {"ratio": 0.1, "referees": ["field_gain"]}):
        with pytest.raises(ConfigError, match='"field_gain" needs LightGBM'):
            run(selector)
    assert not list(tmp_path.glob("runs/*/checkpoints"))


def test_a_referee_as_selector_needs_a_ratio(run):
    for kind in ("saliency", "trial", *FIELDS):
        with pytest.raises(ConfigError, match=f'kind = "{kind}" needs ratio'):
            run({"kind": kind})
