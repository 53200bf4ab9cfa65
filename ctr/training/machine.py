"""What the machine has that training asks for: a device, cores, memory."""

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import torch

from ctr.dataset.parallel import cores
from ctr.errors import ConfigError

_SYSTEM = Path("/")
_TRIED = 256  # rows and columns of the matrices by which products are timed: some milliseconds in all


def pick_device(name: str) -> torch.device:
    """`"auto"` is the GPU where there is one.

    Raises:
        ConfigError: the device is asked for by name and absent.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, number = name.partition(":")
    gpus, mps = torch.cuda.device_count(), torch.backends.mps.is_available()
    count = {"cpu": 1, "cuda": gpus, "mps": int(mps)}[kind]
    if int(number or 0) >= count:
        there = ["auto", "cpu", *(f"cuda:{gpu}" for gpu in range(gpus)), *(["mps"] if mps else [])]
        raise ConfigError(
            f'training.device: "{name}" is not available here{_reason(kind, gpus)}; use '
            + " or ".join(f'"{device}"' for device in there)
        )
    return torch.device(name)


def _reason(kind: str, gpus: int) -> str:
    """Why a device is absent, as far as PyTorch knows."""
    if kind == "mps":
        return ""
    if gpus:
        return f": found {gpus} GPU{'s' * (gpus > 1)}, counted from 0"
    if not (torch.version.cuda or torch.version.hip):
        return f": PyTorch {torch.__version__} was built without CUDA"
    return ": PyTorch finds no GPU (its driver, or CUDA_VISIBLE_DEVICES, may hide it)"


def pick_threads(stated: int) -> int:
    """Threads of PyTorch; 0 takes all cores that this process may use.

    Raises:
        ConfigError: more than there are cores, which slows every step down.
    """
    there = cores()
    if stated > there:
        raise ConfigError(
            f"training.threads = {stated}: expected at most the {there} core{'s' * (there > 1)} that this process may "
            "use here; state fewer, or 0, which takes all of them"
        )
    return stated or there


@contextmanager
def multiplying(precision: str) -> Iterator[None]:
    """Float32 matrices are multiplied as TF32 where that is the precision; what comes after it is as before."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def rounding(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Where a network is applied in it, its products are rounded to bfloat16 if that is the precision."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def bf16_speed() -> float:
    """How fast this processor multiplies matrices of bfloat16, of its speed with float32, both measured now.

    Below 1 where it has no instructions for them (AVX512-BF16, AMX, those of ARM): half, or a sixtieth (docs/speed.md).
    """
    return _seconds_of_a_product(torch.float32) / _seconds_of_a_product(torch.bfloat16)


def _seconds_of_a_product(dtype: torch.dtype) -> float:
    """The least of three, after one that is not counted."""
    matrix, seconds = torch.ones(_TRIED, _TRIED, dtype=dtype), list[float]()
    for _ in range(4):
        started = time.perf_counter()
        torch.mm(matrix, matrix)
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def free_memory(device: torch.device) -> int | None:
    """Bytes that can still be had on a device; None where that cannot be found out.

    Off a GPU this is what the system calls available, or what the control groups of this process (a container, a
    batch job) leave of their limits; where neither tells, all memory that is built in.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type != "cpu":
        return None
    found = [*_available(), *_left_by_limits()] or [*_built_in()]
    return min(found, default=None)


def _available() -> Iterator[int]:
    for line in _lines(_SYSTEM / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) << 10


def _left_by_limits() -> Iterator[int]:
    """What each control group of this process has left; pages of files are given back on demand and count as free."""
    for line in _lines(_SYSTEM / "proc/self/cgroup"):
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = _SYSTEM / "sys/fs/cgroup", ("memory.max", "memory.current", "file ")
        elif "memory" in controllers.split(","):
            root = _SYSTEM / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache ")
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                limit, used = (list(_lines(folder / name)) for name in names[:2])
                pages = [text for text in _lines(folder / "memory.stat") if text.startswith(names[2])]
                if limit and used and limit[0].isdecimal():
                    yield max(0, int(limit[0]) - int(used[0]) + sum(int(text.split()[1]) for text in pages))


def _built_in() -> Iterator[int]:
    try:
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return
    if pages > 0 and size > 0:
        yield pages * size


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
