"""Which files an input names: a path, a glob or a URL; remote files are copied before they are read."""

import glob
import os
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from ctr.errors import ConfigError, DataError, nearest

_COPY_BYTES = 8 << 20


@dataclass(frozen=True)
class Source:
    """One input file: the `name` that manifests and messages use, and where its bytes lie."""

    name: str
    path: Path


class InputFile(NamedTuple):
    """What a manifest says about an input file."""

    name: str
    bytes: int
    sha256: str


def is_url(text: str) -> bool:
    """Whether `text` is a URL such as `s3://bucket/log.csv.gz`, not a path."""
    scheme, found, _ = text.partition("://")
    return bool(found) and scheme.isalnum()


@contextmanager
def located(given: str | Path, what: str = "input") -> Iterator[list[Source]]:
    """The files behind `given`, sorted by name; copies of remote files live as long as the context.

    Raises:
        ConfigError: nothing is there, no file matches the pattern, or it is a folder.
        DataError: a remote file cannot be fetched.
    """
    if not is_url(str(given)):
        yield find_files(given, what)
        return
    with tempfile.TemporaryDirectory(prefix="ctr-") as folder:
        yield fetch(str(given), Path(folder), what)


def find_files(given: str | Path, what: str = "input") -> list[Source]:
    """Local files behind a path or a glob, sorted by path; names are relative to their common folder.

    Raises:
        ConfigError: see `located`.
    """
    path = Path(given)
    if path.is_file():
        return [Source(path.name, path)]
    if path.is_dir():
        raise ConfigError(
            f'{what} "{given}": expected a file, found a folder; a pattern such as "{given}/*" reads many'
        )
    if not glob.has_magic(str(given)):
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        close = nearest(path.name, siblings) if len(siblings) <= 1000 else ""
        raise ConfigError(f'{what} "{given}": no such file{close if "nearest" in close else ""}')
    found = sorted(Path(match) for match in glob.glob(str(given), recursive=True) if Path(match).is_file())  # noqa: PTH207
    if not found:
        raise ConfigError(f'{what} "{given}": no file matches this pattern')
    parent = os.path.commonpath([match.parent for match in found])
    return [Source(match.relative_to(parent).as_posix(), match) for match in found]


def fetch(url: str, folder: Path, what: str = "input") -> list[Source]:
    """Copies the files behind a URL into `folder`; globs work where the file system can list (s3, gs, hdfs).

    Raises:
        ConfigError: the URL's scheme is unknown, or nothing is there.
        DataError: the transfer fails.
    """
    if url.startswith(("http://", "https://")):
        name = PurePosixPath(url.partition("?")[0]).name or "input"
        target = folder / name
        try:
            with urllib.request.urlopen(url, timeout=60) as response, target.open("wb") as out:
                shutil.copyfileobj(response, out, _COPY_BYTES)
        except urllib.error.HTTPError as error:
            raise ConfigError(f'{what} "{url}": the server answers {error.code} {error.reason}') from None
        except (urllib.error.URLError, TimeoutError) as error:
            raise DataError(f'{what} "{url}": cannot be fetched: {getattr(error, "reason", error)}') from None
        return [Source(name, target)]
    return _fetch_from_store(url, folder, what)


def _fetch_from_store(url: str, folder: Path, what: str) -> list[Source]:
    import pyarrow as pa
    from pyarrow import fs

    try:
        system, path = fs.FileSystem.from_uri(url)
        names = _remote_names(system, path)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ImportError) as error:
        raise ConfigError(f'{what} "{url}": cannot be opened: {_first_line(error)}') from None
    except OSError as error:
        raise DataError(f'{what} "{url}": cannot be reached: {_first_line(error)}') from None
    if not names:
        raise ConfigError(f'{what} "{url}": no such file, or no file matches this pattern')
    parent = os.path.commonpath([str(PurePosixPath(name).parent) for name in names])
    sources = []
    for number, name in enumerate(names):
        # The suffix stays: it tells the compression.
        target = folder / f"{number:05d}-{PurePosixPath(name).name}"
        try:
            with system.open_input_stream(name, compression=None) as stream, target.open("wb") as out:
                shutil.copyfileobj(stream, out, _COPY_BYTES)
        except OSError as error:
            raise DataError(f'{what} "{url}": cannot be fetched: {_first_line(error)}') from None
        sources.append(Source(os.path.relpath(name, parent), target))
    return sources


def _remote_names(system: Any, path: str) -> list[str]:
    from pyarrow import fs

    if not glob.has_magic(path):
        return [path] if system.get_file_info(path).type == fs.FileType.File else []
    fixed = PurePosixPath(path)
    while glob.has_magic(str(fixed)):
        fixed = fixed.parent
    listed = system.get_file_info(fs.FileSelector(str(fixed), recursive=True, allow_not_found=True))
    return sorted(
        entry.path for entry in listed if entry.type == fs.FileType.File and fnmatch(entry.path, path)
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
