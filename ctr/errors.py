"""The errors that a user can cause, each with the exit code of the command line.

A message says what was expected, what was found, where, and what to do; it never needs a traceback.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches


class CtrError(Exception):
    """Anything that ends a command with one message. Exit code 1."""

    exit_code = 1


class ConfigError(CtrError):
    """A wrong configuration or wrong arguments. Exit code 2."""

    exit_code = 2


class DataError(CtrError):
    """Data that break the schema. Exit code 3."""

    exit_code = 3


class ThresholdError(CtrError):
    """A stated threshold was missed; everything is written, nothing is registered. Exit code 4."""

    exit_code = 4


def printable(text: str) -> str:
    r"""The text with control characters, but for ends of lines, as their escapes: a terminal would obey them.

    Example:
        >>> printable("a\x1b[31mb")
        'a\\x1b[31mb'
    """
    return "".join(each if each.isprintable() or each == "\n" else ascii(each)[1:-1] for each in text)


def nearest(name: str, options: Iterable[str]) -> str:
    """A hint that names the closest of `options`, or all of them where they are few, or nothing.

    Example:
        >>> nearest("user", ["user_id", "item_id"])
        '; the nearest name is "user_id"'
    """
    names = list(options)
    lowered = {option.lower(): option for option in names}
    close = get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.5)
    if close:
        return f'; the nearest name is "{lowered[close[0]]}"'
    if 0 < len(names) <= 12:
        return "; expected one of " + ", ".join(f'"{option}"' for option in names)
    return ""


def shown_bytes(value: float) -> str:
    """Bytes in decimal units, three digits.

    Example:
        >>> shown_bytes(1_230_000)
        '1.23 MB'
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= scale:
            scaled = value / scale
            return f"{scaled:.{2 if scaled < 10 else 1 if scaled < 100 else 0}f} {unit}"
    return f"{value:.0f} B"


# PyTorch has one class for GPUs and none for the rest; neither is imported here.
_MEMORY = ("out of memory", "DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED")


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or off it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _MEMORY)


@contextmanager
def memory_told(advice: str) -> Iterator[None]:
    """Say in one message that memory ran out, and what to do.

    Raises:
        CtrError: memory ran out in the context.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        asked = re.search(r"[Tt]ried to allocate ([\d.]+ \w+)", str(error))
        amount = f" ({asked[1]} more were asked for)" if asked else ""
        where = "of the GPU " if "CUDA" in str(error) or "HIP" in str(error) else ""
        raise CtrError(f"the memory {where}ran out{amount}; {advice}") from error
