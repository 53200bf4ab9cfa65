"""The text of an inferred schema: TOML with the reason of each choice beside it."""

import json
import tomllib
from collections.abc import Mapping, Sequence

from ctr.dataset.guessing import Guess
from ctr.dataset.log_sample import Sample
from ctr.dataset.schema import Read, Schema
from ctr.settings import check

_WIDTH = 100


def schema_text(
    *,
    name: str,
    label: str,
    sample: Sample,
    derive: Mapping[str, str],
    split: str | None,
    why: str,
    fields: Sequence[Guess],
    left_out: Sequence[Guess],
) -> str:
    """TOML text of a schema, checked to be one.

    Args:
        name: the schema's name.
        label: column or expression.
        sample: what it was inferred from.
        derive: names and SQL expressions.
        split: the column of times to split by; None splits at random.
        why: the reason for that.
        fields: their keys, in order.
        left_out: columns that are no fields.

    Raises:
        ConfigError: it breaks a rule of schemas, as a name with a blank does.
    """
    share = {"valid": 0.1, "test": 0.1}
    by: dict[str, object] = {"by": "time", "column": split} if split else {"by": "random", "seed": 0}
    head = f"# Inferred from {sample.origin}: read it before you trust it.\n"
    parts = [
        head + _table(None, {"name": name, "label": label}),
        _table("[derive]", derive) if derive else "",
        _table("[read]", _reading(sample.read)),
        f"# {_comment(why)}\n" + _table("[split]", by | share),
        *(_field(field) for field in fields),
        _omissions(left_out),
    ]
    text = "\n".join(part for part in parts if part)
    check(tomllib.loads(text), Schema, "the inferred schema")
    return text


def _field(guess: Guess) -> str:
    return f"# {_comment(guess.why)}\n" + _table("[[fields]]", {"name": guess.name, **(guess.keys or {})})


def _table(head: str | None, keys: Mapping[str, object]) -> str:
    lines = [] if head is None else [head]
    return "\n".join([*lines, *(f"{_key(key)} = {_value(value)}" for key, value in keys.items())]) + "\n"


def _reading(read: Read) -> dict[str, object]:
    """The keys that differ from their defaults, and the format."""
    given = {
        key: value for key, value in read.model_dump().items() if value != Read.model_fields[key].default
    }
    if read.format == "csv" and read.quote is None:
        given["quote"] = ""
    return {"format": read.format} | given


def _omissions(left_out: Sequence[Guess]) -> str:
    if not left_out:
        return ""
    lines = [f"#   {_comment(_value(guess.name))}: {_comment(guess.why)}" for guess in left_out]
    return "\n".join(["# Left out:", *lines]) + "\n"


def _key(name: str) -> str:
    return name if name.replace("_", "a").replace("-", "a").isalnum() and name.isascii() else _value(name)


def _value(value: object) -> str:
    """TOML's strings, numbers and booleans are JSON's, but for DEL."""
    if isinstance(value, list):
        one_line = ", ".join(_value(entry) for entry in value)
        return f"[{one_line}]" if len(one_line) <= _WIDTH else _wrapped([_value(entry) for entry in value])
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _wrapped(entries: Sequence[str]) -> str:
    lines, line = ["["], "   "
    for entry in entries:
        if len(line) + len(entry) > _WIDTH:
            lines.append(line)
            line = "   "
        line += f" {entry},"
    return "\n".join([*lines, line, "]"])


def _comment(text: str) -> str:
    """Text on one line, without the control characters that TOML refuses in comments."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
