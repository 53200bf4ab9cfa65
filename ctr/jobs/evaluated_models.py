"""Which bundle a user means: its folder, the run that made it, or a model in an MLflow registry."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ctr.errors import ConfigError
from ctr.serving.manifest import MANIFEST, SCHEMA
from ctr.tracking import fetch_model

RESERVED = ("row", "label", "weight", "row_id")
_REMOTE = re.compile(r"(models|runs):/")


@dataclass(frozen=True)
class NamedBundle:
    """A model that is evaluated.

    name: what reports call it. given: how the user named it. folder: of its bundle.
    """

    name: str
    given: str
    folder: Path


def found_bundles(
    given: Sequence[str], names: Sequence[str], *, uri: str | None, store: Path, scratch: Path
) -> list[NamedBundle]:
    """The bundles behind what was given, each with a name of its own.

    Args:
        given: folders of bundles or of runs, or MLflow references.
        names: one per model; empty tells them from where the bundles lie.
        uri, store: of MLflow, as `ctr.tracking.fetch_model` takes them.
        scratch: a folder for what is downloaded.

    Raises:
        ConfigError: nothing is there, no bundle is, or two models have one name.
        CtrError: MLflow does not answer, or does not know the model.
    """
    folders = []
    for number, text in enumerate(given):
        if _REMOTE.match(text):
            inside = fetch_model(text, uri, fallback=store, into=scratch / str(number))
            folders.append(_downloaded(inside, text))
        else:
            folders.append(_local(Path(text)))
    chosen = list(names) or _apart([_name(text, folder) for text, folder in zip(given, folders, strict=True)])
    twice = [name for name, count in Counter(chosen).items() if count > 1]
    if twice:
        raise ConfigError(f'two models are named "{twice[0]}"; expected a name of its own for each')
    wrong = [name for name in chosen if name in RESERVED or name.startswith("@") or not name.strip()]
    if wrong:
        raise ConfigError(
            f'a model cannot be named "{wrong[0]}": that is a column of the scores; take another name'
        )
    return [NamedBundle(*parts) for parts in zip(chosen, given, folders, strict=True)]


def _local(path: Path) -> Path:
    """The folder of a bundle: the one that is given, or the one in a run."""
    if (path / MANIFEST).is_file():
        return path
    if (path / "bundle" / MANIFEST).is_file():
        return path / "bundle"
    if path.is_dir() and (path / "config.toml").is_file():
        raise ConfigError(
            f'run "{path}": has no bundle, so it is not finished; the command that started it goes on'
        )
    if path.is_dir():
        raise ConfigError(
            f'model "{path}": expected a bundle ("{MANIFEST}") or a finished run ("bundle/{MANIFEST}"), found neither'
        )
    if path.is_file():
        raise ConfigError(f'model "{path}": expected the folder of a bundle or of a run, found a file')
    raise ConfigError(
        f'model "{path}": no such folder; expected a bundle, a run, or an MLflow reference such as '
        '"models:/NAME@champion"'
    )


def _downloaded(folder: Path, given: str) -> Path:
    found = [path.parent for path in sorted(folder.rglob(MANIFEST)) if (path.parent / SCHEMA).is_file()]
    if len(found) != 1:
        raise ConfigError(f'model "{given}": expected one bundle among its files, found {len(found)}')
    return found[0]


def _name(given: str, folder: Path) -> str:
    """Where a bundle lies, in a word: `ads@champion`, or the run's or the bundle's folder."""
    if _REMOTE.match(given):
        return _REMOTE.sub("", given).strip("/").replace("/", " ")
    resolved = folder.resolve()
    return resolved.parent.name if resolved.name == "bundle" and resolved.parent.name else resolved.name


def _apart(names: Sequence[str]) -> list[str]:
    """Names of several models, numbered where they are the same."""
    seen: Counter[str] = Counter()
    result = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return result
