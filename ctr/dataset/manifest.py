"""`manifest.json`: what a dataset folder holds, and the digests by which it is recognised and checked."""

import hashlib
import json
import operator
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from ctr.dataset.inputs import InputFile
from ctr.dataset.parallel import threaded
from ctr.dataset.personal import Personal
from ctr.dataset.schema import Schema

FORMAT = 1
# Raised with every change of the encoding, so that datasets of an older one are built again.
_ENCODING_VERSION = 2


Encoding = Literal["vocabulary", "hashed"]


def dataset_digest(
    schema: Schema,
    inputs: Sequence[InputFile],
    as_of: str | int | None = None,
    encoding: Encoding = "vocabulary",
) -> str:
    """36 hexadecimal characters over schema, input bytes, as-of date, encoding and the personal data's key id.

    Raises:
        ConfigError: there are personal data, but no key (see `Personal.of`).
    """
    parts = [schema.digest(), [list(entry) for entry in inputs], FORMAT, _ENCODING_VERSION, as_of]
    if personal := Personal.of(schema).entry:
        parts.append(personal["key"])
    if encoding == "hashed":
        parts.append(encoding)
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:36]


def write(
    folder: Path,
    schema: Schema,
    digest: str,
    inputs: Sequence[InputFile],
    summary: dict[str, Any],
    encoding: Encoding = "vocabulary",
) -> None:
    """Write the manifest of a finished folder; it holds no time and no absolute path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    content = {
        "format": FORMAT,
        "name": schema.name,
        "digest": digest,
        "schema": schema.model_dump(mode="json"),
        "encoding": encoding,
        "inputs": [entry._asdict() for entry in inputs],
        **summary,
        "files": {
            path.relative_to(folder).as_posix(): sha256
            for path, sha256 in zip(files, threaded(_sha256, files), strict=True)
        },
    }
    content["checksum"] = _checksum(content)
    (folder / "manifest.json").write_text(
        json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def is_intact(folder: Path, digest: str) -> bool:
    """Whether `folder` holds the dataset `digest`, with every byte as it was written."""
    try:
        content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        claimed = content.pop("checksum")
        if content["digest"] != digest or claimed != _checksum(content):
            return False
        found = threaded(_sha256, [folder / name for name in content["files"]])
        return all(map(operator.eq, found, content["files"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
