"""Versions of a registered model, and the aliases `candidate` and `champion`: functions of an MLflow client.

`ctr.tracking` makes the client. Each function may be repeated: nothing is registered twice, and an alias never moves
back to an older candidate.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ctr.errors import ConfigError, nearest

CANDIDATE, CHAMPION = "candidate", "champion"
MODEL = "model"  # the artifact that versions are
_BUNDLE = "bundle_sha256"  # the tag that tells versions apart


class Version(NamedTuple):
    """A version of a registered model, with its tags."""

    name: str
    number: int
    tags: dict[str, str]


class Aliases(NamedTuple):
    """The versions that the two aliases name; None where an alias is not set."""

    champion: Version | None
    candidate: Version | None

    @property
    def numbers(self) -> tuple[int | None, int | None]:
        """Of champion and candidate."""
        return (
            self.champion.number if self.champion else None,
            self.candidate.number if self.candidate else None,
        )


def register(
    client: Any, name: str, run_id: str, tags: Mapping[str, str], add_model: Callable[[], None]
) -> Version:
    """Register the model of a run as a version and as `candidate`; one that is registered already stays as it is.

    Args:
        client: of MLflow.
        name: of the registered model, made where it does not exist.
        run_id: of the MLflow run, whose artifact `model/` it is.
        tags: of the version; `run` and `bundle_sha256` say which bundle it holds.
        add_model: makes that artifact; called where there is something to register.
    """
    _made(client, name)
    wanted = f"name = '{name}' and tags.{_BUNDLE} = '{tags[_BUNDLE]}'"
    same = [v for v in client.search_model_versions(wanted) if v.tags.get("run") == tags["run"]]
    if same:
        version = _version(min(same, key=lambda found: int(found.version)))
    else:
        add_model()
        source = f"{client.get_run(run_id).info.artifact_uri}/{MODEL}"
        version = _version(client.create_model_version(name, source, run_id, tags=dict(tags)))
    newest = aliases(client, name).candidate
    if newest is None or newest.number < version.number:
        client.set_registered_model_alias(name, CANDIDATE, str(version.number))
    return version


def aliases(client: Any, name: str) -> Aliases:
    """What the two aliases of a registered model name now.

    Raises:
        ConfigError: there is no such model.
    """
    try:
        named = client.get_registered_model(name).aliases
    except Exception as error:  # of MLflow, which this file does not import
        if getattr(error, "error_code", "") != "RESOURCE_DOES_NOT_EXIST":
            raise
        known = [model.name for model in client.search_registered_models(max_results=200)]
        hint = nearest(name, known) or "; no model is registered there" * (not known)
        raise ConfigError(f'MLflow has no registered model "{name}"{hint}') from None
    found = {
        alias: _version(client.get_model_version(name, str(named[alias])))
        for alias in (CHAMPION, CANDIDATE)
        if alias in named
    }
    return Aliases(found.get(CHAMPION), found.get(CANDIDATE))


def note(client: Any, version: Version, tags: Mapping[str, str]) -> None:
    """Set tags of a version; those that it has already get new values."""
    for key, value in tags.items():
        client.set_model_version_tag(version.name, str(version.number), key, value)


def crown(client: Any, version: Version) -> None:
    """Move the alias `champion` to a version; `candidate` stays where it is."""
    client.set_registered_model_alias(version.name, CHAMPION, str(version.number))


def _made(client: Any, name: str) -> None:
    try:
        client.create_registered_model(name)
    except Exception as error:  # of MLflow, which this file does not import
        if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
            raise


def _version(found: Any) -> Version:
    return Version(str(found.name), int(found.version), dict(found.tags))
