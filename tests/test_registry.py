"""Versions and aliases on a SQLite store."""

import pytest

from ctr.errors import ConfigError
from ctr.registry import CANDIDATE, CHAMPION, aliases, crown, note, register
from ctr.tracking import Tracker

pytest.importorskip("sqlalchemy", reason="MLflow is not installed")


@pytest.fixture
def tracked(tmp_path):
    """A client, and the id of a run with a bundle."""
    (tmp_path / "run" / "bundle").mkdir(parents=True)
    (tmp_path / "run" / "bundle" / "manifest.json").write_text("{}")
    tracker = Tracker.open(None, "toy", fallback=tmp_path / "runs")
    with tracker.job("toy", config={}, config_text="", tags={}, datasets=[]) as job:
        job.files(tmp_path / "run")
    return tracker._connection._client, job.run_id


def no_model():
    """The artifact is not looked at here."""


def tags(run, bundle):
    return {"run": run, "bundle_sha256": bundle}


def test_a_bundle_becomes_a_version_once_and_the_newest_is_the_candidate(tracked):
    client, run_id = tracked
    first = register(client, "ads", run_id, tags("ads-1", "aa"), no_model)
    second = register(client, "ads", run_id, tags("ads-2", "bb"), no_model)
    assert (first.number, second.number) == (1, 2)
    assert second.tags == tags("ads-2", "bb")
    assert register(client, "ads", run_id, tags("ads-1", "aa"), no_model).number == 1
    assert aliases(client, "ads").numbers == (None, 2)  # and the alias did not move back
    assert len(client.search_model_versions("name = 'ads'")) == 2
    assert (
        register(client, "ads", run_id, tags("ads-1", "cc"), no_model).number == 3
    )  # redone, with other weights


def test_a_version_whose_alias_was_never_set_gets_it(tracked):
    client, run_id = tracked
    register(client, "ads", run_id, tags("ads-1", "aa"), no_model)
    client.delete_registered_model_alias("ads", CANDIDATE)
    register(client, "ads", run_id, tags("ads-1", "aa"), no_model)
    assert aliases(client, "ads").numbers == (None, 1)


def test_the_champion_is_another_alias_and_notes_are_tags(tracked):
    client, run_id = tracked
    version = register(client, "ads", run_id, tags("ads-1", "aa"), no_model)
    note(client, version, {"promotion.outcome": "promoted"})
    crown(client, version)
    found = aliases(client, "ads")
    assert found.champion == found.candidate
    assert found.champion.tags["promotion.outcome"] == "promoted"
    assert int(client.get_model_version_by_alias("ads", CHAMPION).version) == 1


def test_an_unknown_model_is_named_with_the_nearest(tracked):
    client, run_id = tracked
    with pytest.raises(ConfigError, match="no model is registered there"):
        aliases(client, "ads")
    register(client, "ads", run_id, tags("ads-1", "aa"), no_model)
    with pytest.raises(ConfigError, match='no registered model "adds"; the nearest name is "ads"'):
        aliases(client, "adds")
