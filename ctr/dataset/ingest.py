"""A raw click log and its schema -> a dataset folder of encoded rows.

Guaranteed: rows are split before anything is counted, and counts come from train rows alone; memory grows with the
vocabulary of one field, not with the rows; the same bytes and schema give the same files; a dataset that is already
there is not built again; a failure leaves nothing behind. Given up: the log is written once to temporary files beside
the dataset (about as many bytes as the encoded rows), and read from there three times.
"""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import polars as pl

from ctr.dataset import manifest
from ctr.dataset.inputs import Source, find_files, fingerprint, is_url, located
from ctr.dataset.passes import Passes, Progress
from ctr.dataset.schema import Schema
from ctr.dataset.split_spec import FilesSplit
from ctr.dataset.splitting import PARTS
from ctr.errors import ConfigError, CtrError

_UNFINISHED = ".unfinished-"


def ingest(schema: Schema, input: str | Path, folder: Path, *, progress: Progress | None = None) -> Path:
    """Encode a click log.

    Args:
        schema: the schema.
        input: path, glob or URL of the log; for `split.by = "files"` the folder that the patterns are relative to.
        folder: where datasets are kept.
        progress: called with a stage and the share of it that is done.

    Returns:
        The dataset's folder, `<folder>/<schema.name>-<12 characters of its digest>`.

    Raises:
        ConfigError: there is no such input, or the schema cannot be meant for it.
        DataError: the data break the schema.
        CtrError: the disk is full.
    """
    with ExitStack() as stack:
        parted = _sources(schema, input, stack)
        sides = [_only(stack.enter_context(located(join.input, "join")), join.input) for join in schema.joins]
        inputs = fingerprint([*(source for source, _ in parted), *sides])
        digest = manifest.dataset_digest(schema, inputs)
        target = folder / f"{schema.name}-{digest[:12]}"
        if manifest.is_intact(target, digest):
            return target
        with _building(folder, target) as (scratch, built):
            work = Passes(schema, scratch, built, progress or (lambda stage, share: None))
            work.run(parted, sides)
            manifest.write(built, schema, digest, inputs, work.summary)
    return target


def _sources(schema: Schema, given: str | Path, stack: ExitStack) -> list[tuple[Source, str | None]]:
    """The input files, with their part where the schema assigns files to parts."""
    split = schema.split
    if not isinstance(split, FilesSplit):
        return [(source, None) for source in stack.enter_context(located(given))]
    folder = Path(given)
    if is_url(str(given)) or not folder.is_dir():
        raise ConfigError(
            f'input "{given}": split.by = "files" expects the folder that train, valid and test lie in'
        )
    parted: list[tuple[Source, str | None]] = []
    taken: dict[Path, str] = {}
    for part, pattern in zip(PARTS, (split.train, split.valid, split.test), strict=True):
        for source in find_files(folder / pattern, f"split.{part}"):
            if source.path in taken:
                raise ConfigError(
                    f'file "{source.path}" belongs to split.{taken[source.path]} and to split.{part}'
                )
            taken[source.path] = part
            parted.append((Source(source.path.relative_to(folder).as_posix(), source.path), part))
    return parted


def _only(sources: list[Source], given: str) -> Source:
    if len(sources) != 1:
        raise ConfigError(f'join "{given}": expected one file, found {len(sources)}')
    return sources[0]


@contextmanager
def _building(folder: Path, target: Path) -> Iterator[tuple[Path, Path]]:
    """Two empty folders, for scratch and for the dataset; the second becomes `target` at the end, both go on failure.

    Raises:
        CtrError: the folder cannot be written, or the disk is full.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        temporary = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=folder))
        lock = _locked(temporary)
    except OSError as error:
        raise CtrError(f'folder "{folder}": cannot be written: {error.strerror}') from None
    try:
        (temporary / "built").mkdir()
        yield temporary / "scratch", temporary / "built"
        if target.exists():  # damaged, or written by another process meanwhile
            target.rename(temporary / "old")
        (temporary / "built").rename(target)
    except (OSError, pl.exceptions.PolarsError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            free = shutil.disk_usage(folder).free >> 20
            raise CtrError(
                f'folder "{folder}": the disk is full ({free} MB were left); the unfinished dataset has been removed'
            ) from None
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """A lock on a folder that ends with this process, however it ends; None where another process holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_abandoned(folder: Path) -> None:
    """Delete what processes that were killed have left behind."""
    for left in folder.glob(f"{_UNFINISHED}*"):
        if (lock := _locked(left)) is not None:
            shutil.rmtree(left, ignore_errors=True)
            os.close(lock)
