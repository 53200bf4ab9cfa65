"""What two feature sets disagree on, as tables for a terminal."""

from typing import TYPE_CHECKING

import polars as pl
from rich.console import Group, RenderableType
from rich.table import Table

from ctr.report.terminal import fact_sheet, heading, ruled_table, shortened
from ctr.report.units import count, share, signed, size

if TYPE_CHECKING:
    from pathlib import Path

_NAMED = 10  # values listed on each side


def shown(
    paths: "tuple[Path, Path]",
    *,
    added: pl.DataFrame,
    dropped: pl.DataFrame,
    fields: pl.DataFrame,
    facts: dict[str, str | None],
    pairs: list[tuple[str, str, str, str]],
) -> RenderableType:
    """Facts, fields, the most frequent values on each side, and pairs."""
    lines = [
        [row["field"], count(row["added"]), count(row["dropped"]), share(row["touched"])]
        for row in fields.iter_rows(named=True)
    ]
    found: list[RenderableType] = [heading("Difference", f"{paths[0]} -> {paths[1]}"), fact_sheet(facts)]
    if lines:
        found.append(ruled_table(["field", "added", "dropped", "train rows touched"], lines))
    found += [
        _values(f"The most frequent features {words}", frame)
        for words, frame in (("added", added), ("dropped", dropped))
        if frame.height
    ]
    if pairs:
        found.append(
            ruled_table(["field", "field ", "before", "after"], pairs, left=("field ", "before", "after"))
        )
    return Group(*found)


def _values(title: str, frame: pl.DataFrame) -> Table:
    top = frame.sort(["count", "field", "value"], descending=[True, False, False], nulls_last=True).head(
        _NAMED
    )
    lines = [
        [row["field"], row["role"] if row["value"] is None else shortened(row["value"]), count(row["count"])]
        for row in top.iter_rows(named=True)
    ]
    return ruled_table(["field", "value", "train rows"], lines, left=("field", "value"), title=title)


def byte_change(before: int | None, after: int | None) -> str | None:
    """`206 kB -> 102 kB`; None where one is not known."""
    return None if before is None or after is None else f"{size(before)} -> {size(after)}"


def interval_words(value: float, low: float, high: float) -> str:
    """`+0.0012 (95 % interval -0.0010 to +0.0034)`."""
    return f"{signed(value)} (95 % interval {signed(low)} to {signed(high)})"
