"""`ctr doctor`: what of a dataset makes numbers lie.

Reads the values of all parts, a column or a stretch of rows at a time, and the labels of train and valid. The labels
of test stay sealed: nothing here counts as a look at them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ctr.config import load_config
from ctr.dataset.ingest import planned
from ctr.dataset.schema import load_schema
from ctr.dataset.store import Dataset
from ctr.errors import ConfigError, nearest
from ctr.jobs import doctor_fields, doctor_labels, doctor_rows
from ctr.jobs.findings import SEVERITIES, Finding


def examine(dataset: Dataset) -> list[Finding]:
    """All findings, the worst first.

    Example:
        >>> examine(Dataset(Path("datasets/demo-a13ff141fb57")))  # doctest: +SKIP
        [Finding(severity='ok', check='same rows', ...), ...]
    """
    found = doctor_rows.rows_in_two_parts(dataset) + doctor_rows.time_of_parts(dataset)
    facts = [doctor_fields.facts_of(dataset, field) for field in dataset.fields if field.kind != "vector"]
    for check in doctor_fields.FIELD_CHECKS:
        found += check(facts)
    clicks = doctor_labels.clicks_of(dataset)
    broken = doctor_labels.classes(clicks)
    found += broken
    if not broken:
        said = [doctor_fields.label_facts(fact) for fact in facts]
        for field in dataset.fields:
            if field.kind == "vector":
                said += doctor_fields.label_facts_of_numbers(dataset, field)
        found += doctor_fields.nearly_the_label(said, clicks["valid"].clicks)
        found += doctor_labels.rates(dataset, clicks)
        auc, lines = doctor_labels.simple_model(dataset, facts)
        found += lines
        found += doctor_rows.size_of_test(dataset, clicks["train"], auc)
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


@contextmanager
def dataset_at(path: Path) -> Iterator[Dataset]:
    """The dataset that a path means: its folder, or that of a run's folder or config, encoded where that is to be done.

    Raises:
        ConfigError: nothing of that is there.
        DataError: what is there is broken.
    """
    if (path / "manifest.json").is_file():
        yield Dataset(path)
        return
    config = path / "config.toml" if path.is_dir() else path
    if not config.is_file() or config.suffix != ".toml":
        siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = "" if path.exists() else nearest(path.name, siblings)
        raise ConfigError(
            f'"{path}": expected the folder of a dataset (with "manifest.json") or of a run (with "config.toml"), or a '
            f"run config (.toml), found {'none of these' if path.exists() else 'nothing'}{hint}"
        )
    data = load_config(config).data
    schema = load_schema(data.schema_file)
    with planned(schema, data.input, Path(data.folder), encoding=data.encoding, as_of=data.as_of) as plan:
        yield Dataset(plan.build())
