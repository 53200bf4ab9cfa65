"""Raw cells that tell encodings apart: traps known from other languages, and values that the field has.

Each cell is a type and a text, so that a file can hold it whatever language reads it:

    null                        (no text)
    text                        itself
    integer, float, boolean     decimal; shortest text that reads back the same, or nan, inf, -inf; true or false
    texts, integers, floats     a JSON array of such texts, null where an item is null
"""

import json
import random
from collections.abc import Iterator, Sequence
from itertools import islice
from math import exp, inf, nan, nextafter, sqrt
from typing import Any, NamedTuple

from ctr.dataset.field_spec import FieldSpec

CELLS = 200  # of each field
_NUMBERS = 20_000  # at most about as many in the vectors of a field
_LONG = "x" * 300
_TEXTS = (
    *("", " ", "0", "-0", "1", "1.0", "01", "+1", "1e3", "-1", "?", "true", "True", "nan", "NaN", "null", "None"),
    *("inf", "\u00e9", "e\u0301", "\u00a0", "\u2003x ", "\u0000", "\U0001f642", "a|b", "a b", "a,b", '"', _LONG),
    *("9223372036854775807", "-9223372036854775808", "18446744073709551615", "9007199254740993"),
    *("0.1", "0.30000000000000004", "1e+22", "\uff11", "\ufeffa", "\ud7ff", "\uffff", "\u0130", "\u00df", "\r\n"),
)  # fmt: skip
_INTEGERS = (0, 1, -1, 2, 3, 2**31, 2**53 + 1, 2**63 - 1, -(2**63))
_FLOATS = (
    *(-0.0, 0.0, 1.0, 2.0, -1.5, 0.1, 0.1 + 0.2, 1e-5, 1e-4, 1e15, 1e16, 123456789012345680.0, 1e22, 1e300, -1e300),
    *(5e-324, 2.0**53 + 2, 2.0**63, -(2.0**63), 9223372036854774784.0, nextafter(2.0, inf), nan, inf, -inf),
)  # fmt: skip
_NUMERALS = (
    *("", " ", "1", "+1", "-1", " 1", "1\t", "\u00a07\u2003", "\x1c1", "1.", ".5", ".", "1e5", "1E-5", "1e400", "1e"),
    *("1_0", "\u0661", "0x10", "nan", "-NaN", "++nan", "inf", "-Infinity", "1,5", "00012", "-0", "-0.0", "a lot", "?"),
    *(" ? ", "123456789012345678901234567890", "0.1000000000000000055511151231257827", "4.9e-324", "9007199254740993"),
)  # fmt: skip


class TypedCell(NamedTuple):
    """A raw cell: its type, and the Python value."""

    type: str
    value: Any

    @property
    def text(self) -> str | None:
        """As a file holds it."""
        if self.type.endswith("s"):
            return json.dumps([_shown(item) for item in self.value], ensure_ascii=False)
        return _shown(self.value)


def read_cell(type: str, text: str | None) -> Any:
    """The Python value of what a file holds.

    Raises:
        ValueError: there is no such type, or no such text of it.
    """
    if type == "null" or text is None:
        return None
    if type.endswith("s"):
        try:
            items = json.loads(text)
        except RecursionError:
            raise ValueError("lists of lists are no cell") from None
        return [read_cell(type[:-1], item) for item in items]
    if type == "text":
        return text
    if type == "boolean" and text in ("true", "false"):
        return text == "true"
    if type in ("integer", "float"):
        if type == "float":
            return float(text)
        number = int(text)
        if not -(2**63) <= number < 2**64:
            raise ValueError("a whole number has at most 64 bits")
        return number
    raise ValueError(f'there is no cell of the type "{type}"')


def golden_cells(spec: FieldSpec, values: Sequence[str], edges: Sequence[float]) -> list[TypedCell]:
    """`CELLS` cells of a field: traps first, then values of its own and others that it does not have.

    Args:
        values: of its vocabulary; empty where it has none. edges: of a quantile field.
    """
    if spec.kind == "numeric":
        found = _numbers(spec.name, edges)
    elif spec.kind == "vector":
        found = _vectors(spec)
    elif spec.kind == "list":
        found = _lists(spec, values)
    else:
        found = _categories(values)
    distinct = {(cell.type, cell.text): cell for cell in islice(found, 4 * CELLS)}
    return list(distinct.values())[:CELLS]


def _shown(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if value is None or isinstance(value, str) else repr(value)


def _plain() -> Iterator[TypedCell]:
    yield TypedCell("null", None)
    yield from (TypedCell("boolean", value) for value in (True, False))
    yield from (TypedCell("integer", value) for value in _INTEGERS)
    yield from (TypedCell("float", value) for value in _FLOATS)


def _categories(values: Sequence[str]) -> Iterator[TypedCell]:
    yield from _plain()
    yield from (TypedCell("text", text) for text in _TEXTS)
    for number, value in enumerate(_spread(values, CELLS // 3)):
        yield TypedCell("text", value)
        if _is_integer(value):
            yield TypedCell("integer", int(value))
            yield TypedCell("float", float(value))
        else:
            yield TypedCell("text", (value + " ", value.upper(), value[:-1])[number % 3])
    yield from (TypedCell("text", f"{number} never seen") for number in range(CELLS))


def _numbers(name: str, edges: Sequence[float]) -> Iterator[TypedCell]:
    yield from _plain()
    yield from (TypedCell("text", text) for text in _NUMERALS)
    for edge in _spread(edges, 10):
        yield from (TypedCell("float", near) for near in (nextafter(edge, -inf), edge, nextafter(edge, inf)))
    yield from (TypedCell("float", exp(sqrt(square + 0.5))) for square in range(20))
    draw = random.Random(name)
    for _ in range(CELLS):
        value = draw.lognormvariate(0.0, 4.0) * draw.choice([-1, 1, 1])
        yield from (
            TypedCell("float", value),
            TypedCell("text", repr(value)),
            TypedCell("integer", int(value)),
        )


def _lists(spec: FieldSpec, values: Sequence[str]) -> Iterator[TypedCell]:
    yield TypedCell("null", None)
    yield TypedCell("texts", [])
    yield TypedCell("texts", [None, ""])
    yield from (TypedCell("texts", [text]) for text in _TEXTS)
    yield TypedCell("integers", list(_INTEGERS))
    yield from (TypedCell("floats", [value, 1.0]) for value in _FLOATS)
    some = _spread(values, CELLS // 3) or ["a", "b", "c"]
    for number, value in enumerate(some):
        items = [value, some[number * 7 % len(some)], f"{number} never seen", *some[: number % 5]]
        yield TypedCell("texts", items)
        if spec.separator:
            yield TypedCell("text", spec.separator.join(["", *items, *items]))
    for number in range(CELLS):
        items = [f"{number} never seen", *some[number % len(some) :][: number % 4]]
        yield TypedCell("texts", items)


def _vectors(spec: FieldSpec) -> Iterator[TypedCell]:
    draw, size = random.Random(spec.name), spec.size or 1
    yield TypedCell("null", None)
    yield TypedCell("floats", [])
    for value in _FLOATS:
        yield TypedCell("floats", [value, *([0.5] * (size - 1))])
    yield TypedCell("floats", [0.5] * (size + 1))
    yield TypedCell("integers", [3] * size)
    yield TypedCell("texts", ["1", *([" 2.5"] * (size - 1))])
    yield TypedCell("floats", [None, *([0.5] * (size - 1))])
    # Very long vectors are told by fewer examples: golden pairs stay small beside the tables.
    for _ in range(max(8, min(CELLS, _NUMBERS // size))):
        numbers = [round(draw.gauss(0.0, 3.0), 2) for _ in range(size)]
        yield TypedCell("floats", numbers)
        if spec.separator:
            yield TypedCell("text", spec.separator.join(map(repr, numbers)))


def _spread(values: Sequence[Any], count: int) -> list[Any]:
    """Up to `count` of the values, at equal distances."""
    step = max(1, -(-len(values) // count))
    return list(values[::step])


def _is_integer(text: str) -> bool:
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 19 and str(int(text)) == text
