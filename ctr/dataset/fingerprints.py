"""SHA-256 of input files, remembered beside the datasets, so that a log that has not changed is not read to name it."""

import hashlib
import json
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ctr.dataset.inputs import InputFile, Source
from ctr.errors import ConfigError

FILE = ".fingerprints.json"
_GRAIN = (
    2.0  # seconds: the coarsest clock of a file system; a file younger than that may change and not show it
)
_SMALL = 64 << 10  # bytes: below that hashing costs no more than remembering
_LARGE = 256 << 20  # bytes that take longer to read than the grain lasts, or nearly

Mark = list[int]


class Fingerprints:
    """The digests of `<folder>/.fingerprints.json`: by absolute path, with the marks of the file that was hashed.

    A file is hashed again as soon as its size, inode or one of its times (contents, attributes) differs. What cannot
    be read there is forgotten, and costs no more than time.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._known = _read(self._path)
        self._fresh: dict[str, tuple[Mark, str]] = {}
        self._told: dict[Path, Mark] = {}

    def of(self, sources: Sequence[Source]) -> list[InputFile]:
        """Name, size and SHA-256 of each file.

        Raises:
            ConfigError: a file cannot be opened.
        """
        return [self._one(source) for source in sources]

    def unchanged(self, source: Source) -> bool:
        """Whether a file is as it was when `of` told its digest."""
        try:
            return _mark(source.path) == self._told.get(source.path)
        except OSError:
            return False

    def save(self) -> None:
        """Remember what was hashed since; nothing is written where that is nothing, or where writing is forbidden."""
        if not self._fresh:
            return
        # Another process may have saved meanwhile; what is gone from the disk can go from here.
        known = {
            path: entry for path, entry in (_read(self._path) | self._fresh).items() if Path(path).exists()
        }
        scratch = self._path.with_name(f"{FILE}-{uuid.uuid4().hex}")
        try:
            scratch.write_text(json.dumps(known), encoding="utf-8")
            scratch.replace(self._path)
        except OSError:
            with suppress(OSError):
                scratch.unlink()

    def _one(self, source: Source) -> InputFile:
        path = str(source.path.absolute())
        try:
            mark = self._told[source.path] = _mark(source.path)
            if path in self._known and self._known[path][0] == mark:
                return InputFile(source.name, mark[0], self._known[path][1])
            if mark[0] >= _LARGE and 0.0 <= _age(mark) < _GRAIN:
                time.sleep(_GRAIN - _age(mark))  # cheaper than to hash it again the next time
            settled = _age(mark) >= _GRAIN
            with source.path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            after = _mark(source.path)
        except OSError as error:
            raise ConfigError(f'input "{source.path}": cannot be read: {error.strerror}') from None
        if settled and after == mark and mark[0] >= _SMALL:
            self._fresh[path] = mark, digest
        return InputFile(source.name, after[0], digest)


def _mark(path: Path) -> Mark:
    """Size, inode, and when contents and attributes last changed, in nanoseconds."""
    found = path.stat()
    return [found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns]


def _age(mark: Mark) -> float:
    """Seconds since the contents changed; negative where that lies ahead of this machine's clock."""
    return time.time() - mark[2] / 1e9


def _read(path: Path) -> dict[str, tuple[Mark, str]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = {name: (list(map(int, mark)), str(digest)) for name, (mark, digest) in content.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return {name: entry for name, entry in found.items() if len(entry[0]) == 4 and len(entry[1]) == 64}
