"""Counts of files, kept beside the datasets, so that a file that has been counted is never counted again.

A count is found by all that it depends on: the file's bytes, how they become prepared cells, and which of the file's
rows are train rows - not by where a split cuts, so that counts of a file that lies before the cuts outlive every new
day. Counts may be deleted at any time, which costs no more than time; those that nothing has read for long go by
themselves (`CountStore.prune`).
"""

import hashlib
import json
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ctr.dataset.inputs import InputFile
from ctr.dataset.personal import Personal
from ctr.dataset.preparation import Preparation
from ctr.dataset.schema import Schema
from ctr.dataset.split_keys import TimeKey
from ctr.dataset.splitting import Ints

FOLDER = ".counts"
# Raised with every change of what is counted, or of how it is written.
_VERSION = 2
_KEY = 36  # hexadecimal characters
KEPT_DAYS = 90  # since counts were read last
KEPT_SHARE = 0.1  # of the disk, for all counts together
# What neither schema keys change in the counts of values; every other key is taken to change them.
_AFTER_COUNTING = {"min_count", "bins", "keep", "role", "serve_value", "pooling", "group", "cost"}


class CountStore:
    """The folder `<datasets>/.counts`, of files `<key>-<SHA-256 of its bytes>.parquet`.

    Several processes may use it at once: files appear and vanish whole, and what a process has fetched stays with it.
    The time at which a file was modified is that at which it was last kept or fetched.

    Args:
        datasets: where datasets are kept.
    """

    def __init__(self, datasets: Path) -> None:
        self._folder = datasets / FOLDER
        self._known: dict[str, list[Path]] = {}
        self._used: set[Path] = set()
        for path in sorted(self._folder.glob("*.parquet")):
            self._known.setdefault(path.name[:_KEY], []).append(path)

    def fetch(self, key: str, target: Path) -> bool:
        """Put the counts of `key` at `target`, a new file; whether they are known. Damaged ones are deleted."""
        for path in self._known.get(key, []):
            try:
                _link(path, target)
                intact = _sha256(target) == path.stem[_KEY + 1 :]
            except OSError:  # another process has deleted it, or it cannot be read
                intact = False
            if intact:
                self._use(path)
                return True
            target.unlink(missing_ok=True)
            with suppress(OSError):
                path.unlink()
        return False

    def keep(self, key: str, counts: Path) -> None:
        """Keep the counts at `counts`, a file beside the datasets; nothing is kept where that is not possible."""
        scratch = counts.with_name(f"{counts.name}.kept")
        with suppress(OSError):
            _link(counts, scratch)
            self._folder.mkdir(exist_ok=True)
            path = self._folder / f"{key}-{_sha256(counts)}.parquet"
            scratch.replace(path)
            self._use(path)
        scratch.unlink(missing_ok=True)

    def prune(self) -> None:
        """Delete counts that nobody has read for `KEPT_DAYS`, and beyond `KEPT_SHARE` of the disk the oldest.

        Counts that this process has kept or fetched stay, however many they are.
        """
        with suppress(OSError):
            oldest = time.time() - KEPT_DAYS * 86_400
            room = KEPT_SHARE * (shutil.disk_usage(self._folder).total or float("inf"))
            found = [(path in self._used, path.stat(), path) for path in self._folder.glob("*.parquet")]
            for used, stat, path in sorted(
                found, key=lambda entry: (entry[0], entry[1].st_mtime), reverse=True
            ):
                room -= stat.st_size
                if not used and (room < 0 or stat.st_mtime < oldest):
                    path.unlink(missing_ok=True)

    def _use(self, path: Path) -> None:
        self._used.add(path)
        with suppress(OSError):
            os.utime(path)


def _link(path: Path, target: Path) -> None:
    """A second name of a file, which outlives the first one; a copy where the file system has no links."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class TrainRows:
    """A digest of which rows of a file are train rows, and of how they lie in chunks (sums of floats depend on it)."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self.count = 0

    def add(self, rows: Ints) -> None:
        """Take in a chunk's train rows: their numbers in the file."""
        self._digest.update(len(rows).to_bytes(8, "little"))
        self._digest.update(np.ascontiguousarray(rows, "<i8").tobytes())
        self.count += len(rows)

    def hexdigest(self) -> str:
        """64 hexadecimal characters."""
        return self._digest.hexdigest()


def prepared_by(
    schema: Schema, preparation: Preparation, personal: Personal, sides: list[InputFile]
) -> dict[str, Any]:
    """All but a file's own bytes that its prepared cells and its weights depend on.

    Of the split these are the column that it goes by (joins in time go by it too) and its time zone: where it cuts
    shows in the rows that are counted.

    Args:
        preparation: after its first chunk, which decides the types of columns.
        sides: the side tables.
    """
    content = schema.model_dump(mode="json", exclude={"name", "split"})
    for field in content["fields"]:
        for name in _AFTER_COUNTING:
            del field[name]
    split, key = schema.split.model_dump(mode="json"), preparation.split_key
    return {
        "version": _VERSION,
        "polars": pl.__version__,  # evaluates expressions and parses numbers
        "schema": content,
        "split": {name: split.get(name) for name in ("by", "column", "timezone")},
        "time": key.kind if isinstance(key, TimeKey) else None,
        "types": preparation.stored_types,
        "columns": sorted(preparation.raw_columns),
        "personal": personal.entry,
        "sides": [[side.bytes, side.sha256] for side in sides],
    }


def count_key(prepared: dict[str, Any], file: InputFile, suffix: str, rows: TrainRows) -> str:
    """36 hexadecimal characters over all that the counts of a file depend on.

    Args:
        prepared: see `prepared_by`.
        file: its size and digest; not its name.
        suffix: what its name ends in, which tells the compression.
        rows: its train rows.
    """
    parts = [prepared, file.bytes, file.sha256, suffix.lower(), rows.hexdigest()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:_KEY]
