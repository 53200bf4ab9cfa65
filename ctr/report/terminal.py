"""What terminal views are made of: titles, facts, tables, and settings in words."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from ctr.report.units import ABSENT


def heading(kind: str, name: str, folder: Path | None = None) -> Text:
    """The first line of a view."""
    return Text.assemble((f"{kind} ", "bold"), (name, "bold cyan"), f"  {folder}" if folder else "")


def fact_sheet(facts: Mapping[str, str | None]) -> Table:
    """Name and value side by side; what does not apply is left out."""
    found = Table.grid(padding=(0, 2))
    found.add_column(style="dim", no_wrap=True)
    found.add_column(overflow="fold")
    for name, value in facts.items():
        if value:
            found.add_row(Text(name), Text(value))
    return found


def ruled_table(
    columns: Sequence[str],
    lines: Iterable[Sequence[str | None]],
    *,
    left: Sequence[str] = (),
    title: str | None = None,
) -> Table:
    """A table whose first column is text and whose others are numbers, but for those named in `left`."""
    found = Table(title=title, title_justify="left", title_style="dim")
    for number, column in enumerate(columns):
        text = number == 0 or column in left
        found.add_column(Text(column), justify="left" if text else "right", overflow="fold")
    for line in lines:
        # As Text: a value such as "[red]" is no markup.
        found.add_row(*(Text(cell or ABSENT) for cell in line))
    return found


def settings_text(values: Mapping[str, Any]) -> str:
    """Settings on one line; those without a value are left out."""
    return ", ".join(
        f"{key} {setting_text(value)}" for key, value in values.items() if value not in (None, [], {})
    )


def setting_text(value: Any) -> str | None:
    """A setting as one reads it; None where there is none."""
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return f"({settings_text(value)})"
    if isinstance(value, list):
        return ", ".join(str(setting_text(entry)) for entry in value)
    return f"{value:g}" if isinstance(value, float) else repr(value) if value == "\t" else str(value)


def shortened(value: Any) -> str:
    """A value on one line of at most 40 characters."""
    text = " ".join(str(value).split()) or '""'
    return text if len(text) <= 40 else text[:37] + "..."
