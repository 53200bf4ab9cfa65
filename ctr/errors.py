"""The errors that a user can cause, each with the exit code of the command line.

A message says what was expected, what was found, where, and what to do; it never needs a traceback.
"""

from collections.abc import Iterable
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
