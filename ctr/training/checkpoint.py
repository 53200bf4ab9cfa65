"""Checkpoints: tensors in safetensors, everything else in JSON that names them. No pickle."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ctr.errors import CtrError

_TENSOR = "@tensor"


def save_checkpoint(folder: Path, state: Mapping[str, Any]) -> None:
    """Write a nested state (dicts, lists, tensors, numbers, text) to `folder`, replacing what was there.

    `state.json` names the file with the tensors, and is replaced in one move once that file is complete: whenever
    the process dies, the folder holds the old state or the new one.

    Raises:
        CtrError: the folder cannot be written, or the disk is full; the old state is still there.
    """
    tensors: dict[str, Tensor] = {}
    content = _split(dict(state), tensors, "")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = folder / ".tensors"
        save_file(tensors, scratch)
        digest = _sha256(scratch)
        scratch.replace(folder / _tensor_file(digest))
        scratch = folder / ".state"
        text = json.dumps({"tensors": digest, "checksum": _checksum(content), "state": content})
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(folder / "state.json")
        for file in folder.iterdir():
            if file.name not in ("state.json", _tensor_file(digest)):
                file.unlink()
    except (OSError, SafetensorError) as error:
        raise CtrError(
            f'checkpoint "{folder}" cannot be written ({error}); make room or allow writing there, '
            "and run the same command again: it goes on from the checkpoint before"
        ) from None


def load_checkpoint(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """The state saved in `folder`, or None where there is none.

    Raises:
        CtrError: the checkpoint is damaged or was altered.
    """
    try:
        content = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if content["checksum"] != _checksum(content["state"]):
            raise ValueError("state.json was altered after it was written")
        file = folder / _tensor_file(content["tensors"])
        if content["tensors"] != _sha256(file):
            raise ValueError(f"{file.name} was altered after it was written")
        state: dict[str, Any] = _join(content["state"], load_file(file, device=str(device)))
    except (FileNotFoundError, NotADirectoryError) as error:
        if not (folder / "state.json").is_file():
            return None
        raise damaged(folder, error) from None
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise damaged(folder, error) from None
    return state


def share_checkpoints(source: Path, target: Path) -> None:
    """Put a folder of checkpoints elsewhere too, whole or not at all; nothing where it is not, or is there already.

    No byte is copied where the disk can link files: what is saved later replaces a file, and changes none.
    """
    if target.exists() or not source.is_dir():
        return
    scratch = target.with_name(f".{target.name}")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        shutil.copytree(source, scratch, copy_function=os.link)
    except (OSError, shutil.Error):
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.copytree(source, scratch)
    scratch.replace(target)


def damaged(folder: Path, error: Exception) -> CtrError:
    """What to say of a checkpoint that cannot be taken up."""
    return CtrError(
        f'checkpoint "{folder}" is damaged ({error}); delete it, or use --force to start the run again'
    )


def _tensor_file(digest: str) -> str:
    return f"{digest[:16]}.safetensors"


def _checksum(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _split(value: Any, tensors: dict[str, Tensor], path: str) -> Any:
    if isinstance(value, Tensor):
        tensors[path] = value.detach().contiguous()
        return {_TENSOR: path}
    if isinstance(value, Mapping):
        return {str(key): _split(entry, tensors, f"{path}/{key}") for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_split(entry, tensors, f"{path}/{n}") for n, entry in enumerate(value)]
    return value


def _join(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _join(entry, tensors) for key, entry in value.items()}
    if isinstance(value, list):
        return [_join(entry, tensors) for entry in value]
    return value
