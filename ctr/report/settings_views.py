"""Schemas and run configs as tables for a terminal."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType

from ctr.dataset.field_spec import FieldSpec
from ctr.dataset.schema import Schema
from ctr.report.terminal import fact_sheet, heading, ruled_table, setting_text, settings_text
from ctr.report.units import ABSENT

if TYPE_CHECKING:
    from ctr.config import Config


def schema(found: Schema) -> RenderableType:
    """What it reads, and every field."""
    facts = {
        "label": found.label,
        "where": found.where,
        "read": settings_text(
            found.read.model_dump(exclude_defaults=True, exclude={"columns"}) | {"format": found.read.format}
        ),
        "split": settings_text(found.split.model_dump(exclude_none=True)),
        "joins": ", ".join(f"{join.input} on {join.on}" for join in found.joins),
    }
    facts |= {f"derive {name}": text for name, text in found.derive.items()}
    lines = [[field.name, field.kind, field.transform or ABSENT, _details(field)] for field in found.fields]
    columns = ["field", "kind", "transform", "settings"]
    return Group(
        heading("Schema", found.name), fact_sheet(facts), ruled_table(columns, lines, left=tuple(columns))
    )


def _details(field: FieldSpec) -> str:
    shown = field.model_dump(exclude={"name", "kind", "transform"}, exclude_defaults=True)
    return settings_text(shown) or ABSENT


def config(found: "Config") -> RenderableType:
    """Every key of a run config, defaults included."""
    values = found.model_dump(mode="json", by_alias=True)
    plain = {key: setting_text(value) for key, value in values.items() if not isinstance(value, Mapping)}
    lines = [
        [section, key, setting_text(value)]
        for section, keys in values.items()
        if isinstance(keys, Mapping)
        for key, value in keys.items()
        if value is not None
    ]
    columns = ["section", "key", "value"]
    return Group(
        heading("Run config", found.name), fact_sheet(plain), ruled_table(columns, lines, left=tuple(columns))
    )
