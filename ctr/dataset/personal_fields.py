"""Which columns a schema calls personal, and the uses that their raw values would be needed for."""

from typing import Literal

from ctr.dataset import canonical
from ctr.dataset.expressions import roots
from ctr.dataset.schema import Schema
from ctr.dataset.split_spec import HashSplit
from ctr.errors import ConfigError
from ctr.settings import Strict


class PersonalField(Strict):
    """What replacing a column's cells needs to know of its field. missing_values: canonical texts, sorted."""

    name: str
    kind: Literal["categorical", "list"]
    separator: str | None
    missing_values: list[str]


def personal_fields(schema: Schema) -> list[PersonalField]:
    """The fields with `pii = true`, in the schema's order.

    Raises:
        ConfigError: one of them stands where its raw value would be needed: as a time, or as the label.
    """
    fields = [field for field in schema.fields if field.pii]
    found = [
        PersonalField(
            name=field.name,
            kind="list" if field.kind == "list" else "categorical",
            separator=field.separator,
            missing_values=sorted(canonical.texts([*schema.missing_values, *field.missing_values])),
        )
        for field in fields
    ]
    _refuse_times(schema, {field.name for field in fields})
    _refuse_lists(schema, {field.name for field in fields if field.kind == "list"})
    return found


def mentioned(schema: Schema) -> frozenset[str]:
    """Every column that a schema names, derived ones included."""
    texts = [schema.label, schema.where, schema.weight, schema.true_probability, *schema.derive.values()]
    found = {field.name for field in schema.fields} | {schema.label, *schema.derive}
    found |= {root for text in texts if text for root in {text, *roots(text)}}
    for join in schema.joins:
        found |= {name for name in (join.on, join.time, join.log_time) if name}
    by = schema.split.column if isinstance(schema.split, HashSplit) else schema.time_column
    return frozenset(found | {name for name in (by, schema.row_id) if name})


def _refuse_times(schema: Schema, personal: set[str]) -> None:
    """Refuse a time, or a label, that is computed from personal columns alone."""
    uses = [("the label", schema.label)]
    if schema.time_column is not None:
        uses.append(("the split's time", schema.time_column))
    for join in schema.joins:
        times = (join.time, schema.log_time(join))
        uses += [(f'a time of join "{join.input}"', name) for name in times if name]
    for what, text in uses:
        raw = _raw_columns(text, schema)
        if raw and raw <= personal:
            names = ", ".join(f'"{name}"' for name in sorted(raw))
            raise ConfigError(
                f'schema: "{text}" cannot be {what}: the cells of {names} are hashed on reading (pii = true)'
            )


def _refuse_lists(schema: Schema, lists: set[str]) -> None:
    """Refuse a personal list where each row needs one value: of a list, every item is hashed."""
    uses = [(f'the key of join "{join.input}"', join.on) for join in schema.joins]
    uses.append(("row_id", schema.row_id or ""))
    if isinstance(schema.split, HashSplit):
        uses.append(("split.column", schema.split.column))
    for what, name in uses:
        if name in lists:
            raise ConfigError(
                f'schema: "{name}" cannot be {what}: it is a list with pii = true, whose items are hashed one by one'
            )


def _raw_columns(text: str, schema: Schema) -> set[str]:
    """The columns that are not derived behind a column or expression."""
    found, seen = set[str](), set[str]()
    # A field's name is a column even where it could be read as SQL.
    todo = [text] if any(text == field.name for field in schema.fields) else roots(text)
    while todo:
        name = todo.pop()
        if name in schema.derive and name not in seen:
            seen.add(name)
            todo += roots(schema.derive[name])
        else:
            found.add(name)
    return found
