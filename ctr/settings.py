"""A TOML file checked against a pydantic model, with every mistake reported in one message."""

import tomllib
from collections.abc import Iterable, Mapping
from datetime import date
from pathlib import Path
from typing import Any, TypeVar, get_args

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from ctr.errors import ConfigError, nearest

Model = TypeVar("Model", bound=BaseModel)


class Strict(BaseModel):
    """Base of everything read from TOML: unknown keys refused, no silent conversion, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def as_text(value: Any) -> Any:
    """A TOML date or time as the ISO text that it is written as; everything else as it is."""
    return value.isoformat() if isinstance(value, date) else value


def load_toml(path: Path, what: str) -> dict[str, Any]:
    """Parse a TOML file.

    Raises:
        ConfigError: the file is missing, a folder, no UTF-8 or no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        siblings = [other.name for other in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        hint = nearest(path.name, siblings)
        raise ConfigError(f'{what} "{path}": no such file{hint}') from None
    except IsADirectoryError:
        raise ConfigError(f'{what} "{path}": expected a TOML file, found a folder') from None
    except UnicodeDecodeError as error:
        raise ConfigError(
            f'{what} "{path}": expected UTF-8 text, found byte {error.start} that is not'
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f'{what} "{path}": no valid TOML: {error}') from None


def check(values: Mapping[str, Any], model: type[Model], origin: str) -> Model:
    """Build `model` from `values`.

    Raises:
        ConfigError: one line per broken rule, all of them, headed by `origin`.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = _merged(_line(detail, model) for detail in error.errors(include_url=False))
        count = f"{len(lines)} mistakes" if len(lines) > 1 else "1 mistake"
        raise ConfigError("\n".join([f"{origin}: {count}", *("  " + line for line in lines)])) from None


def _merged(lines: Iterable[str]) -> list[str]:
    """Pydantic reports each type of a union that a value is not; one line says them all."""
    merged: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        where, _, rest = line.partition(": expected a valid ")
        expected, _, found = rest.partition(", found ")
        merged.setdefault((where, found), []).append(expected)
    return [
        f"{where}: expected a valid {' or '.join(expected)}, found {found}" if found else where
        for (where, found), expected in merged.items()
    ]


def _line(detail: ErrorDetails, model: type[BaseModel]) -> str:
    where, _ = _walk(model, detail["loc"])
    found = detail.get("input")
    context = detail.get("ctx", {})
    kind = detail["type"]
    if kind == "extra_forbidden":
        return f"{where}: unknown key{nearest(str(detail['loc'][-1]), _walk(model, detail['loc'][:-1])[1])}"
    if kind == "missing":
        return f"{where}: this key is required"
    if kind in ("value_error", "assertion_error"):
        return f"{where}: {context['error']}" if where else str(context["error"])
    if kind in ("literal_error", "union_tag_invalid"):
        expected = str(context.get("expected") or context.get("expected_tags")).replace("'", '"')
        shown = found.get(str(context["discriminator"]).strip("'")) if kind == "union_tag_invalid" else found
        return f"{where}: expected {expected}, found {_shown(shown)}"
    if kind == "union_tag_not_found":
        return f"{where}: needs the key {str(context['discriminator']).replace(chr(39), chr(34))}"
    message = detail["msg"].removeprefix("Input should be ").replace("'", '"')
    return f"{where}: expected {message}, found {_shown(found)}"


def _shown(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _walk(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[str, list[str]]:
    """A location as the TOML spells it, and the keys known there.

    Pydantic's locations also name the tag of a union's member and the type tried; neither is in the file.
    """
    path, candidates, is_table = "", [model], False
    for part in location:
        fields = [found.model_fields[part] for found in candidates if part in found.model_fields]
        if isinstance(part, int):
            path += f"[{part + 1}]"
        elif fields or is_table or path == "":
            path += f".{part}" if path else str(part)
            is_table = any("dict[" in str(field.annotation) for field in fields)
            candidates = [found for field in fields for found in _models(field.annotation)]
        elif tagged := [c for c in candidates if f"'{part}'" in str(c.model_fields.get("by"))]:
            candidates = tagged
        elif candidates:  # an unknown key
            path += f".{part}"
    return path, sorted({key for candidate in candidates for key in candidate.model_fields})


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in _models(argument)]


def dump_toml(values: Mapping[str, Any]) -> str:
    """TOML text of nested values; None, which TOML cannot say, is left out."""

    def stated(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: stated(entry) for key, entry in value.items() if entry is not None}
        return [stated(entry) for entry in value] if isinstance(value, list) else value

    return tomli_w.dumps(stated(values))
