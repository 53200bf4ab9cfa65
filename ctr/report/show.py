"""What `ctr show PATH` prints: a dataset, run, feature set, bundle, schema or run config, recognised by its files."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import RenderableType

from ctr.errors import ConfigError, DataError, nearest
from ctr.report import settings_views, views

_EXPECTED = (
    'expected a folder with "manifest.json" (dataset or bundle), "report.json" or "config.toml" (run) or '
    '"feature_set.json" (feature set), or a schema or run config (.toml)'
)
_MARKS = ("feature_set.json", "manifest.json", "report.json", "config.toml")


def show(path: Path) -> RenderableType:
    """A readable summary of what lies at `path`.

    Args:
        path: a folder, the file that marks one (such as `report.json`), or a TOML file.

    Raises:
        ConfigError: nothing is there, or nothing that is known; or a TOML file breaks its rules.
        DataError: a file of it cannot be read.
    """
    if not path.exists():
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        close = nearest(path.name, siblings)
        raise ConfigError(f'"{path}": no such file or folder{close if "nearest" in close else ""}')
    if path.is_dir():
        return _folder(path)
    if path.name in _MARKS:
        return _folder(path.parent)
    if path.suffix == ".toml":
        return _toml(path)
    raise ConfigError(f'"{path}": {_EXPECTED}; found a file that is none of these')


def _folder(path: Path) -> RenderableType:
    view = _view(path)
    if view is None:
        raise ConfigError(f'"{path}": {_EXPECTED}; found {_contents(path)}')
    try:
        return view(path)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f'"{path}": its files are not as this version writes them ({error!r})') from None


def _view(path: Path) -> Callable[[Path], RenderableType] | None:
    if (path / "feature_set.json").is_file():
        return lambda folder: views.feature_set(folder, _json(folder / "feature_set.json"))
    if (path / "manifest.json").is_file():
        content = _json(path / "manifest.json")
        if "format_version" in content:
            return lambda folder: views.bundle(folder, content)
        if "fields" in content and "rows" in content:
            return lambda folder: views.dataset(folder, content)
        return None
    if (path / "report.json").is_file():
        return lambda folder: views.run(folder, _json(folder / "report.json"))
    if (path / "config.toml").is_file():
        return views.unfinished_run
    return None


def _contents(path: Path) -> str:
    """What is in a folder instead; most often the wanted folders lie one level below."""
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    inside = [
        entry for entry in entries if entry.is_dir() and any((entry / mark).is_file() for mark in _MARKS)
    ]
    shown = inside or entries
    if not shown:
        return "an empty folder"
    names = ", ".join(f'"{entry.name}"' for entry in shown[:8]) + (", ..." if len(shown) > 8 else "")
    return f"folders that can be shown: {names}" if inside else names


def _toml(path: Path) -> RenderableType:
    from ctr.dataset.schema import load_schema

    try:
        keys = tomllib.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f'"{path}": no valid TOML: {error}') from None
    if "fields" in keys or "label" in keys:
        return settings_views.schema(load_schema(path))
    if "data" in keys:
        from ctr.config import load_config

        return settings_views.config(load_config(path))
    raise ConfigError(f'"{path}": expected a schema (label, fields) or a run config (data), found neither')


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f'"{path}": no valid JSON: {error}') from None
    if not isinstance(content, dict):
        raise DataError(f'"{path}": expected a JSON object, found {type(content).__name__}')
    return content
