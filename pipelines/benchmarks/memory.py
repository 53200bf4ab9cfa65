"""Peak memory of a process of its own, and whether a large part fits."""

import multiprocessing
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pipelines.benchmarks.steps import DIM

Result = TypeVar("Result")
_STATUS, _MEMORY = Path("/proc/self/status"), Path("/proc/meminfo")
# Of a feature with lazy Adam: weights and two moments of float32, and the step at which it was read.
BYTES_OF_A_FEATURE = 3 * 4 * (DIM + 1) + 8


def in_own_process(function: Callable[..., Result], *arguments: object) -> Result:
    """What a function of a module gives in a new process, whose memory is its own."""
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        return pool.apply(function, arguments)


def peak_rss_bytes() -> int:
    """Most memory that this process has held at once."""
    # On Linux ru_maxrss of a new process starts at what its parent held; VmHWM is its own.
    if _STATUS.exists():
        return _kilobytes(_STATUS, "VmHWM") * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def resident_bytes() -> int:
    """Memory that this process holds now; its peak where that cannot be known."""
    return _kilobytes(_STATUS, "VmRSS") * 1024 if _STATUS.exists() else peak_rss_bytes()


def fits(part: str, needed: float) -> bool:
    """Whether `needed` bytes are free; says so where they are not. Where that cannot be known, they are."""
    if not _MEMORY.exists() or (free := _kilobytes(_MEMORY, "MemAvailable") * 1024) >= needed:
        return True
    print(f"{part}: left out, needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} GB are free")
    return False


def _kilobytes(file: Path, key: str) -> int:
    return next(
        int(line.split()[1]) for line in file.read_text(encoding="utf-8").splitlines() if line.startswith(key)
    )
