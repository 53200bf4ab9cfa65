"""A raw click log and its schema -> a dataset folder of encoded rows.

Guaranteed: rows are split before anything is counted, and counts come from train rows alone; memory grows with the
vocabulary of one field, not with the rows; the same bytes and schema give the same files; a dataset that is already
there is not built again; a log that is too large for the disk is refused before it is read; a failure leaves nothing
behind. Given up: the log is written once to temporary files beside the dataset (about as many bytes as the encoded
rows), and read from there three times; twice where ids are keys. Of several files those that were counted before are
read twice (`ctr.dataset.count_store`).
"""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

import polars as pl

from ctr.dataset import manifest
from ctr.dataset.count_store import CountStore
from ctr.dataset.counted_files import CountedFiles
from ctr.dataset.disk_space import require_space
from ctr.dataset.fingerprints import Fingerprints
from ctr.dataset.inputs import Source, find_files, is_url, located
from ctr.dataset.manifest import Encoding
from ctr.dataset.passes import Passes, Progress
from ctr.dataset.schema import Schema
from ctr.dataset.split_spec import FilesSplit, TimeSplit
from ctr.dataset.splitting import PARTS
from ctr.dataset.unsealing import READS
from ctr.errors import ConfigError, CtrError

_UNFINISHED = ".unfinished-"


class PlannedDataset:
    """A dataset that is known by its digest, whether or not it has been built; made by `planned`.

    digest: over schema, input bytes and as-of date. folder: where it is, or will be. counts: after `build`, how many
    files were counted and how many were known, in words; None where one file was counted, or nothing was.
    """

    def __init__(
        self,
        schema: Schema,
        as_of: str | int | None,
        folder: Path,
        parted: list[tuple[Source, str | None]],
        sides: list[Source],
        encoding: Encoding,
    ) -> None:
        self._encoding: Encoding = encoding
        self._schema, self._as_of, self._datasets = schema, as_of, folder
        self._parted, self._sides = parted, sides
        self._known = Fingerprints(folder)
        self._inputs = self._known.of([*(source for source, _ in parted), *sides])
        self.digest = manifest.dataset_digest(schema, self._inputs, as_of, encoding)
        self.folder = folder / f"{schema.name}-{self.digest[:12]}"
        self.counts: str | None = None

    def build(self, *, progress: Progress | None = None) -> Path:
        """Encode the log, unless the dataset is there with every byte as it was written; see `ingest`."""
        if not manifest.is_intact(self.folder, self.digest):
            with _building(self._datasets, self.folder, self.digest) as (scratch, built):
                shown = progress or (lambda stage, share: None)
                hashed = self._encoding == "hashed"
                sources = [source for source, _ in self._parted]
                require_space(self._schema, sources, self._sides, self._datasets, hashed=hashed)
                files = None if hashed or len(self._parted) == 1 else self._counted_files(scratch / "counts")
                work = Passes(self._schema, scratch, built, shown, self._as_of, hashed, files)
                work.run(self._parted, self._sides)
                self.counts = files.told if files else None
                manifest.write(built, self._schema, self.digest, self._inputs, work.summary, self._encoding)
        self._known.save()
        return self.folder

    def _counted_files(self, scratch: Path) -> CountedFiles:
        sources, count = [source for source, _ in self._parted], len(self._parted)
        inputs, sides = self._inputs[:count], self._inputs[count:]
        store = CountStore(self._datasets)
        return CountedFiles(sources, inputs, sides, scratch, store, self._known.unchanged)


@contextmanager
def planned(
    schema: Schema,
    input: str | Path,
    folder: Path,
    *,
    as_of: str | int | None = None,
    encoding: Encoding = "vocabulary",
) -> Iterator[PlannedDataset]:
    """Tell a dataset's digest, and write nothing yet; copies of remote files live as long as the context.

    Raises:
        ConfigError: there is no such input, or the schema or the as-of date cannot be meant for it.
        DataError: a remote file cannot be fetched.
    """
    _check_as_of(schema, as_of)
    with ExitStack() as stack:
        parted = _sources(schema, input, stack)
        sides = [_only(stack.enter_context(located(join.input, "join")), join.input) for join in schema.joins]
        yield PlannedDataset(schema, as_of, folder, parted, sides, encoding)


def ingest(
    schema: Schema,
    input: str | Path,
    folder: Path,
    *,
    as_of: str | int | None = None,
    encoding: Encoding = "vocabulary",
    progress: Progress | None = None,
) -> Path:
    """Encode a click log.

    Args:
        schema: the schema.
        input: path, glob or URL of the log; for `split.by = "files"` the folder that the patterns are relative to.
        folder: where datasets are kept.
        as_of: an instant of the split's time column; rows from then on are left out.
        encoding: `hashed` counts nothing: ids are 64-bit keys of field and value (`ctr.dataset.hashing`).
        progress: called with a stage and the share of it that is done.

    Returns:
        The dataset's folder, `<folder>/<schema.name>-<12 characters of its digest>`.

    Raises:
        ConfigError: there is no such input, the schema or the as-of date cannot be meant for it, or the disk has no
            room for the dataset, about.
        DataError: the data break the schema.
        CtrError: the disk is full.
    """
    with planned(schema, input, folder, as_of=as_of, encoding=encoding) as dataset:
        return dataset.build(progress=progress)


def _check_as_of(schema: Schema, as_of: str | int | None) -> None:
    if as_of is None:
        return
    if not isinstance(schema.split, TimeSplit):
        raise ConfigError(
            f'data.as_of = "{as_of}" needs a split by time, found split.by = "{schema.split.by}"; '
            "split by time or leave data.as_of out"
        )
    if isinstance(as_of, str):
        try:
            datetime.fromisoformat(as_of)
        except ValueError:
            raise ConfigError(
                f'data.as_of: expected an instant such as "2014-10-30" or "2014-10-30T12:00", found "{as_of}"'
            ) from None


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
def _building(folder: Path, target: Path, digest: str) -> Iterator[tuple[Path, Path]]:
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
        # Where another process was faster, its files are the same, and may be being read.
        if not manifest.is_intact(target, digest):
            if target.exists():
                if (target / READS).is_file():  # what was altered may be built again, but not unread
                    shutil.copy2(target / READS, temporary / "built" / READS)
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
