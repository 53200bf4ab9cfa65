"""What could not be sent to MLflow: calls in their order, kept in a folder as `unsent.json` until they can be.

Paths are kept relative to the folder, which may so be moved. Its owner alone may read the file, for a tracking URI may
hold a password.
"""

import base64
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ctr.errors import CtrError

UNSENT = "unsent.json"


class Entry(NamedTuple):
    """A call: of the run with this number, by name, with its arguments as JSON."""

    run: int
    call: str
    arguments: list[Any]


@dataclass(frozen=True)
class Unsent:
    """Calls that wait.

    uri, experiment, fallback: where to, as `ctr.tracking.Tracker.open` takes them.
    runs: MLflow ids of the job and of its stages; None where the run is not made yet.
    """

    uri: str
    experiment: str
    fallback: str
    runs: list[str | None]
    entries: list[Entry]


def keep(folder: Path, unsent: Unsent) -> None:
    """Write `unsent.json`, whole or not at all."""
    scratch = folder / f".{UNSENT}"
    scratch.unlink(missing_ok=True)
    scratch.touch(mode=0o600)
    scratch.write_text(json.dumps(asdict(unsent), default=str), encoding="utf-8")
    scratch.replace(folder / UNSENT)


def load(folder: Path) -> Unsent:
    """What `keep` wrote.

    Raises:
        CtrError: it is missing or was altered.
    """
    path = folder / UNSENT
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        content["entries"] = [Entry(*entry) for entry in content["entries"]]
        found = Unsent(**content)
        if not found.runs or any(entry.run >= len(found.runs) for entry in found.entries):
            raise ValueError("a call names a run that is not listed")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CtrError(f'"{path}" is missing or was altered: {error}') from None
    return found


def found_below(folder: Path) -> Iterator[Path]:
    """Folders that keep something unsent, in order: this one and all below it."""
    for path in sorted(folder.rglob(UNSENT)):
        if path.is_file():
            yield path.parent


def packed(value: Any, folder: Path) -> Any:
    """A value as JSON can hold it: bytes and paths are marked."""
    if isinstance(value, bytes):
        return {"@bytes": base64.b64encode(value).decode()}
    if isinstance(value, Path):
        return {"@path": os.path.relpath(value.absolute(), folder.absolute())}
    return value


def unpacked(value: Any, folder: Path) -> Any:
    """The value that `packed` was given."""
    if isinstance(value, dict) and set(value) == {"@bytes"}:
        return base64.b64decode(value["@bytes"])
    if isinstance(value, dict) and set(value) == {"@path"}:
        return folder / value["@path"]
    return value
