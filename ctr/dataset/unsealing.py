"""How often the test rows of a dataset have been read: counted in `reads.json` beside its manifest.

The manifest itself never changes once it is written: datasets are recognised by it. Every read counts, also that of a
run that is resumed or redone. Rows are told by what they are, not by where they lie: datasets of other schemas in the
same folder that hold out the same rows of the same inputs share one count. What is not seen: rows held out by another
cut, and what was read before a folder was deleted.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ctr.errors import CtrError, DataError

READS = "reads.json"


class SealedRead(NamedTuple):
    """One read of test rows. at: in UTC; run: who read; purpose: what for; dataset: the name of its folder."""

    at: str
    run: str
    purpose: str
    dataset: str


def rows_digest(inputs: list[Mapping[str, Any]], rows: npt.NDArray[np.int64]) -> str:
    """36 hexadecimal characters over the bytes of the inputs and the numbers (N,) of the rows in them."""
    found = hashlib.sha256(json.dumps([entry["sha256"] for entry in inputs]).encode())
    found.update(np.ascontiguousarray(rows, np.int64).data)
    return found.hexdigest()[:36]


def record_read(folder: Path, digest: str, run: str, purpose: str) -> None:
    """Count one read of the rows `digest`; two processes may do so at once.

    Raises:
        DataError: the count that is there cannot be read.
        CtrError: the folder cannot be written.
    """
    path = folder / READS
    entry = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "run": run, "purpose": purpose}
    try:
        with _locked(folder):
            entries = _entries(path)
            scratch = path.with_name(f".{READS}")
            content = {"rows": digest, "reads": [*entries, entry]}
            scratch.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            scratch.replace(path)
    except OSError as error:
        raise CtrError(
            f'"{path}": the read of the test rows cannot be counted ({error}); '
            "make room or allow writing there, and run the same command again"
        ) from None


def sealed_reads(folder: Path) -> list[SealedRead]:
    """All reads of the test rows of the dataset at `folder`, oldest first, whichever dataset they were read from.

    Raises:
        DataError: the dataset's own count cannot be read.
    """
    own = folder / READS
    if not own.is_file():
        return []
    digest, found = _digest(own), _of(own)
    for other in folder.parent.glob(f"*/{READS}"):
        if other.parent.resolve() != folder.resolve() and not other.parent.name.startswith("."):
            try:
                found += _of(other) if _digest(other) == digest else []
            except DataError:
                continue  # what is wrong with another dataset is told where that one is read
    return sorted(found, key=lambda read: read.at)  # of one second, as they were counted


def _of(path: Path) -> list[SealedRead]:
    return [
        SealedRead(entry["at"], entry["run"], entry["purpose"], path.parent.name) for entry in _entries(path)
    ]


def _entries(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    entries = _content(path).get("reads")
    keys = {"at", "run", "purpose"}
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and keys <= entry.keys() for entry in entries
    ):
        raise _broken(path, 'expected "reads", a list of entries with at, run and purpose')
    return entries


def _digest(path: Path) -> Any:
    return _content(path).get("rows")


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _broken(path, str(error)) from None
    if not isinstance(content, dict):
        raise _broken(path, f"expected an object, found {type(content).__name__}")
    return content


def _broken(path: Path, found: str) -> DataError:
    return DataError(
        f'"{path}": how often the test rows were read is no longer known ({found}); '
        "put the file back as it was, or delete it and count from zero"
    )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone with the count of a dataset; the lock ends with the process, however that ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
