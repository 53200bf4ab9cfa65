"""The schema of a synthetic log, and its TOML."""

import json
from typing import Any, Literal

from ctr.dataset.schema import Schema
from ctr.dataset.synthetic_production import Production
from ctr.dataset.synthetic_spec import Categorical, Listed, Numeric, Planted, SyntheticSpec
from ctr.settings import check


def schema_of(
    spec: SyntheticSpec,
    format: Literal["parquet", "csv"] = "parquet",
    production: Production | None = None,
) -> Schema:
    """Give the schema of a synthetic log: split by time where it has one, else at random."""
    production = production or Production()
    content: dict[str, Any] = {"name": spec.name, "label": spec.label, "true_probability": "true_probability"}
    content |= production.schema_keys()
    hours = [field.name for field in spec.fields if field.kind == "hour"]
    hour = "CAST(SUBSTR(timestamp, 12, 2) AS INT)" if format == "csv" else "DATE_PART('hour', timestamp)"
    content["derive"] = dict.fromkeys(hours, hour)
    content["read"] = {"format": format}
    if format == "csv":
        content["read"]["separator"] = spec.separator
        if not spec.header:
            time = ["timestamp"] if spec.days else []
            fields = [field.name for field in spec.fields if field.kind != "hour"]
            content["read"] |= {
                "has_header": False,
                "columns": [spec.label, *time, *fields, "true_probability", *production.columns],
            }
    by = {"by": "time", "column": "timestamp"} if spec.days else {"by": "random", "seed": 0}
    content["split"] = {**by, "valid": 0.1, "test": 0.1, **production.split_keys()}
    content["fields"] = [*(_field(field) for field in spec.fields), *production.schema_fields()]
    return check(content, Schema, f'schema of the synthetic log "{spec.name}"')


def _field(field: Planted) -> dict[str, Any]:
    if isinstance(field, Listed):
        return {"name": field.name, "kind": "list", "separator": "|", "min_count": field.min_count}
    if isinstance(field, Categorical):
        return {"name": field.name, "kind": "categorical", "min_count": field.min_count}
    if isinstance(field, Numeric):
        bins = {"bins": field.bins} if field.transform == "quantile" else {}
        return {"name": field.name, "kind": "numeric", "transform": field.transform, **bins}
    return {"name": field.name, "kind": "categorical"}


def schema_toml(schema: Schema) -> str:
    """Write what was set of a schema as TOML. A JSON text, number or list of texts is TOML as well."""
    content = schema.model_dump(mode="json", exclude_unset=True)
    tables = {key: content.pop(key) for key in ("derive", "read", "split") if content.get(key)}
    fields = content.pop("fields")
    content.pop("derive", None)
    lines = [f"{key} = {json.dumps(value)}" for key, value in content.items()]
    for key, table in [*tables.items(), *(("fields", field) for field in fields)]:
        lines.append("\n[[fields]]" if key == "fields" else f"\n[{key}]")
        lines += [f"{name} = {json.dumps(value)}" for name, value in table.items()]
    return "\n".join(lines) + "\n"
