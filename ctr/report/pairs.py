"""How pairs of fields interact: a map of methods and strengths, and the pairs that pay."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctr.report.canvas import DROPPED, INK, PAPER, QUIET, SERIES, Plot, plot, png
from ctr.report.tables import Cell, Table
from ctr.report.units import Report, count, decimal, pick, signed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {"memorize": SERIES[0], "factorize": SERIES[1], "naive": DROPPED}
_MOST_FIELDS = 60


def pairs_plot(report: Report) -> Plot | None:
    """A square for each pair: colour by method, the stronger the fuller."""
    found = pick(report, "interactions", "pairs")
    if not found:
        return None
    names = _shown_names(found)
    counts = {method: sum(pair["method"] == method for pair in found) for method in COLOURS}

    def draw(figure: "Figure", narrow: bool) -> None:
        _draw(figure, names, found, narrow)

    text = ", ".join(f"{count(number)} {method}" for method, number in counts.items())
    label = f"Pairs of {len(names)} fields by method: {text}."
    caption = (
        "Blue: memorized, orange: factorized, grey: naive. The fuller a square, the more the better of memorizing and "
        "factorizing saved in the search."
    )
    if screened := sum(pair["strength"] is None for pair in found):
        caption += f" Dots: {count(screened)} pairs that were screened out before it."
    width, height = _size(names)
    return plot("pairs", draw, (width, height), min(height, 360), label, caption)


def pairs_png(report: Report, path: Path) -> Path | None:
    """Draw the same map as a PNG (for MLflow), title included; returns `path`, or None where there are no pairs."""
    found = pick(report, "interactions", "pairs")
    if not found:
        return None
    names = _shown_names(found)

    def draw(figure: "Figure", narrow: bool) -> None:
        _draw(figure, names, found, narrow)
        title = "memorized blue, factorized orange, naive grey"
        figure.suptitle(f"{report.get('name', 'run')}: {title}", x=0.01, ha="left")

    width, height = _size(names)
    return png(draw, max(width, 480), height + 30, path)


def _shown_names(pairs: list[Mapping[str, Any]]) -> list[str]:
    """The fields of the map; where they are too many, those that take part in an interaction."""
    names = list(dict.fromkeys(name for pair in pairs for name in (pair["field_a"], pair["field_b"])))
    used = {
        name for pair in pairs if pair["method"] != "naive" for name in (pair["field_a"], pair["field_b"])
    }
    if len(names) > _MOST_FIELDS:
        names = [name for name in names if name in used][:_MOST_FIELDS] or names[:_MOST_FIELDS]
    return names


def _size(names: list[str]) -> tuple[int, int]:
    height = max(220, 110 + 17 * len(names))
    return min(1000, height + 160), height


def _draw(figure: "Figure", names: list[str], pairs: list[Mapping[str, Any]], narrow: bool) -> None:
    place = {name: number for number, name in enumerate(names)}
    axes = figure.add_subplot()
    strongest = max((pair["strength"] or 0.0 for pair in pairs), default=0.0)
    for pair in pairs:
        if pair["field_a"] not in place or pair["field_b"] not in place:
            continue
        side = 0.1 if pair["strength"] is None else 0.25
        if pair["method"] != "naive":
            share = max(pair["strength"], 0.0) / strongest if strongest > 0 else 1.0
            side += 0.65 * share**0.5
        row, column = place[pair["field_a"]], place[pair["field_b"]]
        axes.bar(
            column, side, side, row - side / 2, color=COLOURS[pair["method"]], edgecolor=PAPER, linewidth=0.3
        )
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_aspect("equal")
    step = -(-len(names) // (12 if narrow else 60))
    ticks = list(range(0, len(names), step))
    axes.set_xticks(ticks, [names[tick][:14] for tick in ticks], rotation=90, color=QUIET)
    axes.set_yticks(ticks, [names[tick][:14] for tick in ticks], color=INK)


def strongest(shown: int, in_use: int) -> str:
    """How many of the pairs in use are listed."""
    told = f"{count(shown)} of {count(in_use)} pairs in use"
    return f"{told}, the strongest" if shown < in_use else told


def pairs_table(report: Report) -> Table | None:
    """The pairs that were switched off, those that pay most first."""
    found = pick(report, "interactions", "switched_off")
    if not found:
        return None
    rows = []
    for pair in found:
        lost = pair["auc_lost"]
        text = f"{signed(lost['value'])} ({signed(lost['low'])} to {signed(lost['high'])})"
        rows.append(
            [
                Cell(f"{pair['field_a']} x {pair['field_b']}"),
                Cell(pair["method"]),
                Cell(decimal(pair["strength"], 2), pair["strength"]),
                Cell(text, lost["value"]),
                Cell("yes" if lost["low"] > 0 else "not shown", float(lost["low"] > 0)),
            ]
        )
    rows_of_valid = count(pick(report, "interactions", "valid_rows"))
    in_use = sum(pair["method"] != "naive" for pair in pick(report, "interactions", "pairs"))
    caption = (
        f"AUC that {rows_of_valid} rows of valid lose when a pair has the same vector for every row (paired 95 "
        f"% interval); {strongest(len(found), in_use)}. Valid also chose the number of steps: this ranks pairs, the "
        "verdict is on test."
    )
    return Table("pairs", caption, ["pair", "method", "strength", "AUC lost (95 %)", "pays"], rows)
