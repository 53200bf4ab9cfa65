"""What an expression of a schema may ask for: a schema may come with a bundle that somebody else has written.

Polars parses and works on expressions by recursion, and in time that grows with the square of their terms; and a few
nested functions can turn a word into gigabytes. So a text is looked at before it is parsed, and how long the text in
its cells may become is known before it is evaluated.
"""

import re
from typing import NamedTuple

from ctr.errors import DataError

CELL = 1 << 16  # bytes of text in a derived cell
DERIVED = 1000  # columns
_CHARACTERS, _WORDS, _GROWTH, _PADDED = 10_000, 400, 10_000, 1000
_TOKEN = re.compile(
    r"""(?P<text>'(?:[^']|'')*')|(?P<name>"(?:[^"]|"")*")|(?P<number>\d[\w.]*)|(?P<word>\w+)|(?P<sign>--|/\*|\S)"""
)
_STRANGE = {
    "--",
    "/*",
    "$",
    "`",
    "#",
    "\\",
    "'",
    '"',
}  # comments and other quotes, in which anything can hide
_REFUSED = {
    "array_agg",
    "array_fill",
    "generate_series",
    "group_concat",
    "listagg",
    "range",
    "repeat",
    "string_agg",
}
_REPLACING, _PADDING = {"replace", "regexp_replace"}, {"lpad", "rpad"}
# Bytes that one byte may become: letters of other cases, decomposed letters, items of lists.
_LONGER = {"upper": 3, "lower": 3, "initcap": 3, "normalize": 18, "string_to_array": 20}
_PLAIN_CELL = 40  # bytes of a number or an instant as text


class Growth(NamedTuple):
    """How long a cell can become. words: cells that it is made of, at most. times: each. more: bytes beside them."""

    words: int
    times: int
    more: int

    def bytes(self, longest: int) -> int:
        """Of a cell, where those of text that it is made of have at most `longest`."""
        return self.times * (self.words * max(longest, _PLAIN_CELL) + self.more)


def growth(what: str, text: str) -> Growth:
    """Look at a SQL expression before it is parsed.

    Args:
        what: where it stands, for messages.

    Raises:
        DataError: it is too long, has too many terms, or may build text without bounds.
    """
    if len(text) > _CHARACTERS:
        raise DataError(f"{what}: expected at most {_CHARACTERS} characters, found {len(text)}")
    found = list(_TOKEN.finditer(text))
    tokens = [match[0] for match in found]
    kinds = [match.lastgroup for match in found]
    words = sum(
        kind == "word" or (kind == "sign" and token not in "(),")
        for kind, token in zip(kinds, tokens, strict=True)
    )
    if words > _WORDS:
        raise DataError(f"{what}: expected at most {_WORDS} names, words and signs, found {words}")
    times, more = 1, sum(len(token.encode()) for token in tokens)
    called = [
        token.lower().strip('"') if tokens[at + 1 : at + 2] == ["("] else ""
        for at, token in enumerate(tokens)
    ]
    for at, name in enumerate(called):
        if tokens[at] in _STRANGE or (kinds[at] == "text" and at and _touches(found[at - 1], found[at])):
            raise DataError(
                f"{what}: expected no {tokens[at][:20]} where it stands: no comments and no other quotes"
            )
        if name in _REFUSED:
            raise DataError(
                f"{what}: {name.upper()} is not for rows, whose values are computed from their own columns"
            )
        if name in _REPLACING:
            times *= _replaced(what, name, _arguments(tokens, at + 1))
        elif name in _PADDING:
            more += _padded(what, name, _arguments(tokens, at + 1))
    for name in set(called) & set(_LONGER):
        times *= _LONGER[name]
    if times > _GROWTH:
        raise DataError(f"{what}: text may grow {times} times as long, at most {_GROWTH} times is allowed")
    return Growth(words, times, more)


def _touches(before: re.Match[str], text: re.Match[str]) -> bool:
    """Whether a letter stands right before a quote, as in E'': backslashes may count within."""
    return before.end() == text.start() and before.lastgroup in ("word", "number", "name")


def _arguments(tokens: list[str], at: int) -> list[list[str]]:
    """Tokens of each argument of a call whose bracket stands at `at`."""
    depth, found = 0, list[list[str]]([[]])
    for token in tokens[at:]:
        depth += (token in "([{") - (token in ")]}")
        if depth == 0:
            break
        if token == "," and depth == 1:
            found.append([])
        else:
            found[-1].append(token)
    return found


def _replaced(what: str, name: str, arguments: list[list[str]]) -> int:
    """Bytes that one byte may become."""
    if len(arguments) < 3 or not all(_is_text(each) for each in arguments[1:3]):
        raise DataError(
            f"{what}: {name.upper()} takes a column and two texts in single quotes, the second for the first"
        )
    pattern, by = (len(each[0].encode()) - 2 for each in arguments[1:3])
    return 1 + by if name != "replace" or pattern == 0 else max(1, -(-by // pattern))


def _padded(what: str, name: str, arguments: list[list[str]]) -> int:
    """Bytes beyond those that are there."""
    length = arguments[1] if len(arguments) > 1 else []
    if len(length) != 1 or not length[0].isdecimal() or int(length[0]) > _PADDED:
        raise DataError(f"{what}: {name.upper()} takes a length of at most {_PADDED}, as a number")
    return 4 * _PADDED


def _is_text(tokens: list[str]) -> bool:
    return len(tokens) == 1 and tokens[0].startswith("'")
