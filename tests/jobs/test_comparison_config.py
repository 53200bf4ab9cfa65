"""What a comparison's file may say, and the cells that come of it."""

from pathlib import Path

import pytest

from ctr.config import Config
from ctr.errors import ConfigError
from ctr.jobs.cells import cell_config
from ctr.jobs.comparison_config import load_comparison
from ctr.settings import check, dump_toml
from tests.jobs.comparison_logs import content

ROOT = Path(__file__).parents[2]


def write(tmp_path, **sections):
    path = tmp_path / "comparison.toml"
    path.write_text(dump_toml(content(tmp_path, tmp_path / "runs", **sections)))
    return path


@pytest.mark.parametrize(
    "path", sorted((ROOT / "pipelines/comparisons").glob("*.toml")), ids=lambda path: path.stem
)
def test_every_comparison_of_the_project_loads_and_is_named_as_its_file(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    comparison = load_comparison(path)
    assert comparison.name == path.stem
    assert len(comparison.grid.seeds) >= 3


def test_a_run_may_stand_in_the_file_or_be_named_by_it(tmp_path):
    inline = load_comparison(write(tmp_path))
    (tmp_path / "run.toml").write_text(dump_toml(content(tmp_path, tmp_path / "runs")["run"]))
    named = load_comparison(write(tmp_path, run=str(tmp_path / "run.toml")))
    assert inline == named


def test_changes_reach_the_grid_the_rules_and_the_run(tmp_path):
    changes = [
        "grid.seeds=[7]",
        "compare.max_auc_loss=0.01",
        "run.training.epochs=4",
        'compare.max_bytes="2kB"',
    ]
    found = load_comparison(write(tmp_path), changes)
    assert found.grid.seeds == [7]
    assert found.run.training.epochs == 4
    assert found.compare.budget == {"max_bytes": 2000.0}
    assert found.compare.max_auc_loss == 0.01


def test_all_mistakes_are_reported_together_with_the_nearest_names(tmp_path):
    sections = {
        "grid": {"selectors": ["optfss", "frequency"], "sizes": [0.5, 0.5], "backbones": ["deepfn"]},
        "compare": {"alternatives": ["unified", "unified"], "jobz": 2},
    }
    with pytest.raises(ConfigError) as told:
        load_comparison(write(tmp_path, **sections))
    text = str(told.value)
    assert "5 mistakes" in text
    assert '"optfss" is no selector; the nearest name is "optfs"' in text
    assert '"deepfn" is no backbone; the nearest name is "deepfm"' in text
    assert "expected entries that differ, found 0.5 more than once" in text
    assert 'expected entries that differ, found "unified" more than once' in text
    assert 'compare.jobz: unknown key; the nearest name is "jobs"' in text


@pytest.mark.parametrize(
    ("grid", "selector", "message"),
    [
        (
            {"selectors": ["optfs", "frequency"], "choices": ["memorize"]},
            {},
            'grid: choices are of selectors that choose pairs, "optinter" and "optfs+optinter"; found "optfs" and '
            '"frequency" alone',
        ),
        (
            {"selectors": ["optinter"], "choices": ["memorise"]},
            {},
            'grid.choices: "memorise" is no choice; the nearest name is "memorize"',
        ),
        (
            {"selectors": ["optinter"], "choices": ["search", "random"]},
            {"kind": "optinter"},
            'grid.choices: "random" needs run.selector.random_counts = [memorized, factorized]',
        ),
    ],
)
def test_choices_of_pairs_that_cannot_be_compared_are_refused(tmp_path, grid, selector, message):
    run = content(tmp_path, tmp_path / "runs")["run"] | {"selector": selector}
    with pytest.raises(ConfigError) as told:
        load_comparison(write(tmp_path, grid=grid, run=run))
    assert message in str(told.value)
    assert "1 mistake" in str(told.value)


def test_each_choice_of_pairs_has_a_name_and_other_selectors_have_theirs(tmp_path):
    grid = {"selectors": ["frequency", "optfs+optinter"], "choices": ["search", "naive"]}
    found = load_comparison(write(tmp_path, grid=grid)).grid.choosers()
    assert found == {
        "frequency": {"kind": "frequency"},
        "optfs+optinter search": {"kind": "optfs+optinter", "choice": "search"},
        "optfs+optinter naive": {"kind": "optfs+optinter", "choice": "naive"},
    }


def test_the_configuration_of_a_single_run_is_told_from_a_comparison(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(dump_toml(content(tmp_path, tmp_path / "runs")["run"]))
    with pytest.raises(ConfigError, match="found the configuration of a single run; state run ="):
        load_comparison(path)


def shared(tmp_path, **sections):
    return check({**content(tmp_path, tmp_path / "runs")["run"], **sections}, Config, "run")


def test_a_cell_is_the_run_with_what_is_compared_changed_and_nothing_else(tmp_path):
    run = shared(tmp_path, export={"min_auc": 0.9}, selector={"kind": "optfs", "epochs": 2, "penalty": 3.0})
    found = cell_config(
        run,
        "cell",
        "deepfm",
        5,
        {"selector": {"kind": "random", "ratio": [0.1]}, "embedding": {"kind": "table"}},
    )
    assert (found.name, found.seed) == ("cell", 5)
    assert (found.selector.kind, found.selector.ratio, found.selector.penalty) == ("random", [0.1], None)
    assert found.selector.epochs == 2
    assert found.selector.referees == []
    assert found.training == run.training.model_copy(update={"threads": 1})
    assert found.export.min_auc is None
    assert found.tracking.uri == "off"


def test_settings_of_pairs_and_of_a_backbone_stay_with_those_that_have_them(tmp_path):
    run = shared(
        tmp_path,
        backbone={"kind": "dcnv2", "layers": 2, "rank": 4},
        selector={"kind": "optinter", "choice": "memorize", "pair_dim": 4, "epochs": 1},
    )
    sized = {
        "selector": {"kind": "frequency", "ratio": [0.5]},
        "embedding": {"kind": "unified", "bytes": 900},
    }
    found = cell_config(run, "cell", "deepfm", 0, sized)
    assert found.backbone.layers is None
    assert (found.embedding.kind, found.embedding.bytes, found.embedding.dim) == ("unified", 900, 4)
    same = cell_config(
        run, "cell", "dcnv2", 0, {"selector": {"kind": "optinter"}, "embedding": {"kind": "table"}}
    )
    assert (same.backbone.rank, same.selector.choice, same.selector.pair_dim) == (4, "memorize", 4)


@pytest.mark.parametrize("choice", ["search", "memorize", "random"])
def test_a_choice_has_all_settings_of_the_run_but_those_of_other_choices(tmp_path, choice):
    own = {"kind": "optinter", "choice": "random", "random_counts": [1, 0], "shadow": 0.0, "pair_dim": 2}
    run = shared(tmp_path, selector={**own, "sketch_bytes": 900, "cross_bytes": 400})
    asked = {"selector": {"kind": "optinter", "choice": choice}, "embedding": {"kind": "table"}}
    found = cell_config(run, "cell", "deepfm", 0, asked).selector
    assert found.random_counts == ([1, 0] if choice == "random" else None)
    assert (found.choice, found.pair_dim, found.cross_bytes, found.sketch_bytes) == (choice, 2, 400, 900)
