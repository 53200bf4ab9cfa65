"""The canonical text, or number, of one cell that is a plain Python value: what `canonical` gives a column, by cell.

For requests of a few rows, where building a column would take longer than all the rest. Whatever is not plain is left
to the column's way (`UnplainCellError`), so that there is one authority on it.
"""

import re
from math import isinf

_WORD = 2**63  # integers within Int64 are plain
# What Rust calls white space, and `strip_chars` takes off; Python's own `strip` takes off more.
BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
# Python's `float` also takes "1_0" and digits of other scripts.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NAN = frozenset({"nan", "+nan", "-nan"})
ABSENT = frozenset({"NAType", "NaTType"})  # what pandas calls missing


class UnplainCellError(Exception):
    """The cell is of another type, or no value that its field can have."""


def text_of(cell: object) -> str | None:
    """Canonical text, None where missing.

    Raises:
        UnplainCellError: neither text, integer, float, bool nor None, or an integer beyond 64 bits.
    """
    kind = type(cell)
    if kind is str:
        return cell or None  # type: ignore[return-value]  # a str
    if cell is None:
        return None
    if kind is float:
        return float_text(cell)  # type: ignore[arg-type]  # a float
    if kind is int and -_WORD <= cell < _WORD:  # type: ignore[operator]  # an int
        return str(cell)
    if kind is bool:
        return "true" if cell else "false"
    if kind.__name__ in ABSENT:
        return None
    raise UnplainCellError


def float_text(value: float) -> str | None:
    """A whole number as an integer, any other in the shortest form that reads back the same; NaN is missing."""
    if value.is_integer() and -_WORD < value < _WORD:
        return str(int(value))
    return None if value != value else repr(value)


def number_of(cell: object, missing: frozenset[str]) -> float | None:
    """A finite number, None where missing.

    Args:
        missing: canonical texts that mean "missing".

    Raises:
        UnplainCellError: another type, no number, or infinity.
    """
    kind = type(cell)
    if kind is float:
        found: float = cell  # type: ignore[assignment]  # a float
    elif kind is str:
        text = cell.strip(BLANKS)  # type: ignore[attr-defined]  # a str
        if not text or text in missing or text.lower() in _NAN:
            return None
        if _NUMBER.fullmatch(text) is None:
            raise UnplainCellError
        found = float(text)
    elif cell is None or kind.__name__ in ABSENT:
        return None
    elif kind is bool or (kind is int and -_WORD <= cell < _WORD):  # type: ignore[operator]  # an int
        found = float(cell)  # type: ignore[arg-type]  # an int or bool
    else:
        raise UnplainCellError
    if isinf(found):
        raise UnplainCellError
    if found != found or (missing and float_text(found) in missing):
        return None
    return found
