"""What was kept: per field, per gate, and by how often a value occurs."""

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

import polars as pl

from ctr.report.canvas import DROPPED, GRID, INK, KEPT, PAPER, QUIET, Plot, few_ticks, plot
from ctr.report.units import Report, count, pick, share, short

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_FIELDS = 60


def fields_plot(report: Report) -> Plot | None:
    """Kept and dropped values of each field, in schema order: shares, and numbers on a log axis."""
    fields = {
        name: counts
        for name, counts in (pick(report, "feature_set", "fields") or {}).items()
        if counts["total"]
    }
    if not fields:
        return None
    largest = sorted(fields, key=lambda name: -fields[name]["total"])[:MOST_FIELDS]
    shown = {name: counts for name, counts in fields.items() if name in set(largest)}
    caption = "Blue: kept, grey: dropped. Fields in schema order, values without unknown and missing."
    if len(shown) < len(fields):
        caption += f" The {MOST_FIELDS} largest of {len(fields)} fields; the table has all."
    emptied = [name for name, counts in fields.items() if counts["kept"] == 0]
    label = f"Values kept and dropped for {len(fields)} fields. {len(emptied)} fields keep none"
    label += f": {', '.join(emptied[:8])}." if emptied else "."
    height = 64 + 21 * len(shown)

    def draw(figure: "Figure", narrow: bool) -> None:
        _draw_fields(figure, shown, narrow)

    return plot("fields-kept", draw, (1000, height), height, label, caption)


def _draw_fields(figure: "Figure", fields: Mapping[str, Mapping[str, int]], narrow: bool) -> None:
    places = list(range(len(fields)))
    kept = [counts["kept"] for counts in fields.values()]
    total = [counts["total"] for counts in fields.values()]
    shares = [some / all_ for some, all_ in zip(kept, total, strict=True)]
    panels = figure.subplots(1, 1 if narrow else 2, squeeze=False, sharey=True)[0]
    axes = panels[0]
    axes.barh(places, shares, color=KEPT, height=0.72)
    axes.barh(places, [1.0 - part for part in shares], left=shares, color=DROPPED, height=0.72)
    axes.set(xlim=(0, 1), title="share of values kept")
    axes.xaxis.set_major_formatter(lambda value, _: f"{100.0 * value:.0f} %")
    axes.set_yticks(places, [_name(name, 14 if narrow else 24) for name in fields], color=INK)
    axes.set_ylim(len(fields) - 0.5, -0.5)
    for place, some, all_ in zip(places, kept, total, strict=True):
        text = f"{short(some)} / {short(all_)}" if narrow else f"{count(some)} of {count(all_)}"
        axes.text(1.015, place, text, va="center", color=QUIET, fontsize=11, clip_on=False)
    if not narrow:
        panels[1].barh(places, total, color=DROPPED, height=0.72)
        panels[1].barh(places, kept, color=KEPT, height=0.72)
        panels[1].set(xscale="log", title="number of values, log axis")
        panels[1].set_xlim(0.8, 1.3 * max(total))
        panels[1].xaxis.set_major_formatter(lambda value, _: short(value))
        panels[1].set_xticks([], minor=True)
    for panel in panels:
        panel.spines["left"].set_visible(False)


def _name(name: str, longest: int) -> str:
    """Write a field's name for an axis: printable, and cut where it is long."""
    clean = "".join(letter if letter.isprintable() else "?" for letter in name)
    return clean if len(clean) <= longest else clean[: longest - 1] + "\u2026"


def gates_plot(report: Report) -> Plot | None:
    """Histogram of the final gate logits."""
    gates = pick(report, "gates")
    if not gates or not sum(gates["kept"]) + sum(gates["dropped"]):
        return None
    edges, kept, dropped = gates["edges"], gates["kept"], gates["dropped"]

    def draw(figure: "Figure", narrow: bool) -> None:
        axes = figure.add_subplot()
        widths = [after - before for before, after in pairwise(edges)]
        axes.bar(edges[:-1], dropped, widths, align="edge", color=DROPPED, edgecolor=PAPER, linewidth=0.5)
        axes.bar(edges[:-1], kept, widths, dropped, align="edge", color=KEPT, edgecolor=PAPER, linewidth=0.5)
        axes.axvline(0.0, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
        axes.yaxis.set_major_locator(few_ticks())
        axes.yaxis.set_major_formatter(lambda value, _: short(value))
        axes.grid(axis="y")
        axes.set_xlabel("final gate logit")
        axes.set_title("number of features")
        axes.text(
            0.01, 0.97, f"{count(sum(dropped))} dropped", transform=axes.transAxes, color=QUIET, va="top"
        )
        kept_text = f"{count(sum(kept))} kept"
        axes.text(0.99, 0.97, kept_text, transform=axes.transAxes, color=KEPT, va="top", ha="right")
        axes.set_ylim(0, 1.2 * max(some + rest for some, rest in zip(kept, dropped, strict=True)))

    label = (
        f"Histogram of final gate logits: {count(sum(kept))} features kept, {count(sum(dropped))} dropped."
    )
    caption = "Dashed: a logit of zero. A gap around it means that the choice was clear."
    return plot("gates", draw, (490, 320), 280, label, caption)


def counts_plot(features: pl.DataFrame | None) -> Plot | None:
    """Share of values kept against how often a value occurs in train."""
    bins = _by_count(features) if features is not None else None
    if bins is None or bins.is_empty():
        return None
    lows, shares, sizes = (bins[column].to_list() for column in ("low", "share", "values"))

    def draw(figure: "Figure", narrow: bool) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
        places = list(range(len(lows)))
        above.bar(places, shares, color=KEPT, width=0.8)
        above.bar(places, [1.0 - part for part in shares], bottom=shares, color=DROPPED, width=0.8)
        above.yaxis.set_major_formatter(lambda value, _: f"{100.0 * value:.0f} %")
        above.set_ylim(0, 1)
        above.set_title("share of values kept")
        below.bar(places, sizes, color=QUIET, width=0.8)
        below.set_yscale("log")
        below.set_ylim(0.7, 2.0 * max(sizes))
        below.yaxis.set_major_formatter(lambda value, _: short(value))
        below.set_yticks([], minor=True)
        below.set_title("number of values, log axis")
        step = -(-len(lows) // (6 if narrow else 10))
        below.set_xticks(places[::step], [short(low) for low in lows[::step]])
        below.set_xlabel("train rows of the value, at least")
        for axes in (above, below):
            axes.spines["bottom"].set_color(GRID)
            axes.tick_params(axis="x", size=0)

    parts = ", ".join(f"from {short(low)} rows {share(part)}" for low, part in zip(lows, shares, strict=True))
    caption = "A plain frequency cut would be a step from 0 to 100 %."
    return plot("counts", draw, (490, 320), 320, f"Share of values kept by train count: {parts}", caption)


def _by_count(features: pl.DataFrame) -> pl.DataFrame:
    """Values in bins of 1, 2, 5, 10, 20, 50, ... train rows: low, share (kept), values."""
    values = features.filter((pl.col("role") == "value") & (pl.col("count") > 0))
    if values.is_empty():
        return pl.DataFrame(schema={"low": pl.Int64, "share": pl.Float64, "values": pl.UInt32})
    digits = len(str(values["count"].max()))
    edges = [step * 10**power for power in range(digits) for step in (1, 2, 5)]
    lows = pl.DataFrame({"low": edges}, schema={"low": pl.Int64})
    return (
        values.select(pl.col("count").cast(pl.Int64), pl.col("kept").cast(pl.Float64))
        .sort("count")
        .join_asof(lows, left_on="count", right_on="low")
        .group_by("low")
        .agg(pl.col("kept").mean().alias("share"), pl.len().alias("values"))
        .sort("low")
    )
