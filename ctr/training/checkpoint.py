"""Checkpoints: tensors in safetensors, everything else in JSON, both replaced in one move. No pickle."""

import hashlib
import json
import shutil
import tempfile
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

    The old checkpoint stays until the new one is complete on disk.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        tensors: dict[str, Tensor] = {}
        content = _split(dict(state), tensors, "")
        save_file(tensors, scratch / "tensors.safetensors")
        text = json.dumps({"sha256": _sha256(scratch / "tensors.safetensors"), "state": content})
        (scratch / "state.json").write_text(text, encoding="utf-8")
        if folder.exists():
            old = scratch.with_name(scratch.name + "-old")
            folder.replace(old)
            scratch.replace(folder)
            shutil.rmtree(old)
        else:
            scratch.replace(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def load_checkpoint(folder: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """The state saved in `folder`, or None where there is none.

    Raises:
        CtrError: the checkpoint is damaged.
    """
    if not folder.is_dir():
        return None
    try:
        content = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if content["sha256"] != _sha256(folder / "tensors.safetensors"):
            raise ValueError("tensors.safetensors was altered after it was written")
        tensors = load_file(folder / "tensors.safetensors", device=str(device))
        state: dict[str, Any] = _join(content["state"], tensors)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CtrError(
            f'checkpoint "{folder}" is damaged ({error}); delete it, or use --force to start the run again'
        ) from None
    return state


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
