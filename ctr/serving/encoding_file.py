"""`encoding.json` of a bundle: how raw cells become ids, for programs in any language (docs/encoding.md)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ctr.dataset import canonical
from ctr.dataset.field_cells import served
from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.plain_cells import BLANKS
from ctr.dataset.preparation import side_table_path
from ctr.dataset.schema import Schema
from ctr.dataset.split_spec import parse_duration

VERSION = 2
_SINCE = {"personal": 2, "joins": 2, "types": 2, "expressions": 2}  # the version that said so first
HASH = {
    "name": "xxhash64",
    "seed": 0,
    "of": "UTF-8 bytes",
    "value": "owner, U+0000, text",
    "missing": "owner, U+0000",
    "unknown": "owner, U+0001",
    "number": "owner, U+0002",
}
PSEUDONYM = {"name": "HMAC-SHA256", "of": "'ctr value', U+0000, text, in UTF-8", "hexadecimal_characters": 32}


def describe_encoding(
    schema: Schema,
    entries: Sequence[Mapping[str, Any]],
    encoding: str,
    personal: Sequence[str],
    types: Mapping[str, str],
) -> dict[str, Any]:
    """What the file says.

    Args:
        schema: the bundle's.
        entries: of the manifest's `fields`.
        encoding: "vocabulary" or "hashed".
        personal: names of the columns whose cells are replaced by pseudonyms.
        types: of columns in expressions, by name.
    """
    specs = {spec.name: spec for spec in schema.fields}
    return {
        "version": VERSION,
        "described_in": "docs/encoding.md",
        "ids": encoding,
        "hash": HASH,
        "pseudonym": PSEUDONYM,
        "blanks": [ord(blank) for blank in BLANKS],
        "personal": sorted(personal),
        "joins": _joins(schema),
        "types": dict(types),
        "expressions": [{"name": name, "expression": text} for name, text in schema.derive.items()],
        "fields": [_field(schema, specs[entry["name"]], entry, personal) for entry in entries],
    }


def as_of(described: Mapping[str, Any], version: int) -> dict[str, Any]:
    """What a file of that version says of the same encoding."""
    said = {key: value for key, value in described.items() if _SINCE.get(key, 1) <= version}
    return {**said, "version": version}


def write_encoding(path: Path, content: Mapping[str, Any]) -> None:
    """Write it as JSON."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _joins(schema: Schema) -> list[dict[str, Any]]:
    """The side tables whose attributes rows get before expressions are evaluated, in their order."""
    found, embedded = [], 0
    for join in schema.joins:
        table = side_table_path(embedded) if join.at_scoring == "bundle" else None
        embedded += table is not None
        longest = None if join.max_age is None else parse_duration(join.max_age)
        found.append(
            {
                "table": table,
                "input": None if table else join.input,
                "on": join.on,
                "time": join.time,
                "log_time": schema.log_time(join),
                "max_age_seconds": None if longest is None else longest.total_seconds(),
                "timezone": schema.timezone,
            }
        )
    return found


def _field(
    schema: Schema, spec: FieldSpec, entry: Mapping[str, Any], personal: Sequence[str]
) -> dict[str, Any]:
    missing = canonical.texts([*schema.missing_values, *spec.missing_values])
    scale = entry["scale"] or {}
    return {
        "name": spec.name,
        "columns": entry["columns"],
        "expression": schema.derive.get(spec.name),
        "kind": spec.kind,
        "owner": spec.shares or spec.name,
        "transform": spec.transform,
        "missing_values": sorted(missing) if spec.kind != "vector" else [],
        "separator": spec.separator,
        "max_length": spec.max_length,
        "size": spec.size,
        "edges": entry["edges"],
        "shift": scale.get("shift"),
        "factor": scale.get("factor"),
        "personal": spec.name in personal,
        "always": _always(spec),
    }


def _always(spec: FieldSpec) -> str | float | None:
    """The canonical text, or number, that a bias field has in every row; None where the cell says it."""
    if spec.role != "bias":
        return None
    value: str | float | None = served(spec, 1)[0]
    return value
