"""How values are written for a reader: thousands, shares, bytes, seconds; "-" for what does not apply."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ctr.errors import shown_bytes

Report = Mapping[str, Any]

ABSENT = "-"


def pick(record: Mapping[str, Any] | None, *keys: str) -> Any:
    """Follow a path of keys; None as soon as a step is missing or null.

    Example:
        >>> pick({"test": {"auc": 0.75}}, "test", "auc"), pick({"test": None}, "test", "auc")
        (0.75, None)
    """
    found: Any = record
    for key in keys:
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found


def known(value: float | None) -> bool:
    """Whether there is a number to show."""
    return value is not None and math.isfinite(value)


def decimal(value: float | None, places: int = 4) -> str:
    """`0.7512`."""
    return ABSENT if value is None or not math.isfinite(value) else f"{value:.{places}f}"


def signed(value: float | None, places: int = 4) -> str:
    """`+0.0012`; what rounds to zero has no sign."""
    if value is None or not math.isfinite(value):
        return ABSENT
    return f"{value:+.{places}f}" if float(f"{value:.{places}f}") else f"{0:.{places}f}"


def count(value: float | None) -> str:
    """`1,234,567`."""
    return ABSENT if value is None or not math.isfinite(value) else f"{value:,.0f}"


def share(value: float | None) -> str:
    """`31.2 %`; small shares keep two digits, and only all is 100 %."""
    if value is None or not math.isfinite(value):
        return ABSENT
    percent = 100.0 * value
    if percent in (0.0, 100.0) or abs(percent) >= 1000.0:
        return f"{percent:.0f} %"
    if 99.95 <= percent < 100.0:
        return "> 99.9 %"
    return f"{percent:.1f} %" if abs(percent) >= 1.0 else f"{percent:.2g} %"


def change(before: float | None, after: float | None) -> str:
    """`-69 %`, from the first value to the second."""
    if before is None or after is None or before == 0:
        return ABSENT
    text = f"{100.0 * (after / before - 1.0):+.1f}"
    return "0 %" if float(text) == 0.0 else f"{text} %"


def size(value: float | None) -> str:
    """Bytes in decimal units, three digits: `1.23 MB` is 1,230,000."""
    return ABSENT if value is None or not math.isfinite(value) else shown_bytes(value)


def duration(seconds: float | None) -> str:
    """`0.42 s`, `12.3 s`, `3 min 05 s`, `1 h 02 min`."""
    if seconds is None or not math.isfinite(seconds):
        return ABSENT
    if seconds < 59.95:
        return f"{seconds:.{2 if seconds < 1 else 1}f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def shown_window(ends: Sequence[str | int | float]) -> str:
    """A stretch of time as manifests give it: `2024-01-01 00:00:11 to 2024-01-08 23:59:57 UTC`.

    Times that are mere numbers stay so.
    """
    texts = [str(end).replace("T", " ") for end in ends]
    if all(text.endswith("+00:00") for text in texts):
        return " to ".join(text.removesuffix("+00:00") for text in texts) + " UTC"
    return " to ".join(texts)


def short(value: float) -> str:
    """Write a count for an axis with three digits at most: `500`, `20k`, `1.23M`."""
    rounded = float(f"{value:.3g}")
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(rounded) >= scale:
            return f"{rounded / scale:g}{unit}"
    return f"{rounded:g}"
