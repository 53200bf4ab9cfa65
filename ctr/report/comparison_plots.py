"""Differences with their intervals, stability of choices, and importances among runs of equal quality."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ctr.report.canvas import GRID, INK, PAPER, QUIET, SERIES, Plot, few_ticks, plot
from ctr.report.comparison_curves import selector_style
from ctr.report.comparison_words import setting_words, whom_words
from ctr.report.units import decimal, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_ROWS = 60
_MOST_FIELDS = 30
_ROW = 21  # CSS pixels


def differences_plot(document: Mapping[str, Any]) -> Plot | None:
    """Test AUC minus keep-all's, a row for each setting, with intervals that hold for all at once."""
    found = [each for each in document["settings"] if "keep_all" in each["differences"]][:_MOST_ROWS]
    if not found:
        return None
    where = len({(each["backbone"], each["embedding"]) for each in document["settings"]}) > 1
    margin = document["margin"]["max_auc_loss"]
    labels = _selector_labels(document)

    def draw(figure: "Figure", narrow: bool) -> None:
        axes = figure.add_subplot()
        for place, each in enumerate(found):
            color = selector_style(each["label"], labels)["color"] if each["role"] == "selector" else QUIET
            _interval(axes, place, each["differences"]["keep_all"], color, each["chosen"])
        axes.axvspan(-margin, axes.get_xlim()[1], color=GRID, alpha=0.45, linewidth=0)
        axes.axvline(0.0, color=INK, linewidth=1.0)
        names = [setting_words(each, where=where and not narrow) for each in found]
        axes.set_yticks(range(len(found)), [_short(name, 20 if narrow else 60) for name in names], color=INK)
        axes.set_ylim(len(found) - 0.4, -0.6)
        axes.xaxis.set_major_locator(few_ticks())
        axes.xaxis.set_major_formatter(lambda tick, _: f"{tick:+.4g}" if tick else "0")
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("test AUC minus keep-all")

    parts = [f"{setting_words(e)} {signed(e['differences']['keep_all']['auc']['value'])}" for e in found]
    caption = (
        "Thick: 95 % interval of this difference alone; thin: intervals that hold for all "
        f"{document['comparisons']} comparisons at once. They speak about other rows"
        f"{whom_words([each['differences']['keep_all'] for each in found])}. Shaded: no loss beyond {margin:g}. Ring: "
        "chosen on valid."
    )
    height = 60 + _ROW * len(found)
    return plot(
        "differences", draw, (1000, height), height, f"Differences to keep-all: {'; '.join(parts)}.", caption
    )


def _interval(axes: "Axes", place: int, difference: Mapping[str, Any], color: str, chosen: bool) -> None:
    auc, wide = difference["auc"], difference["auc_corrected"]
    axes.plot([wide["low"], wide["high"]], [place, place], color=color, linewidth=1.2)
    axes.plot([auc["low"], auc["high"]], [place, place], color=color, linewidth=4.0, solid_capstyle="butt")
    axes.plot(auc["value"], place, marker="o", markersize=6.5, color=color, markeredgecolor=PAPER)
    if chosen:
        axes.plot(auc["value"], place, marker="o", markersize=13, markerfacecolor="none", color=color)


def stability_plot(document: Mapping[str, Any]) -> Plot | None:
    """Nogueira's index of the kept features, by selector and size."""
    found = [each for each in document["stability"] if each["features"]["nogueira"] is not None][:_MOST_ROWS]
    if not found:
        return None
    labels = _selector_labels(document)

    def draw(figure: "Figure", narrow: bool) -> None:
        axes = figure.add_subplot()
        for place, each in enumerate(found):
            value, low, high = (each["features"]["nogueira"][key] for key in ("value", "low", "high"))
            color = selector_style(each["label"], labels)["color"]
            axes.plot(
                [max(low, -0.05), high], [place, place], color=color, linewidth=4.0, solid_capstyle="butt"
            )
            axes.plot(value, place, marker="o", markersize=7, color=color, markeredgecolor=PAPER)
        names = [_short(_stable_name(each), 20 if narrow else 60) for each in found]
        axes.set_yticks(range(len(found)), names, color=INK)
        axes.set(xlim=(-0.06, 1.03), ylim=(len(found) - 0.4, -0.6))
        axes.axvline(0.0, color=INK, linewidth=1.0)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(
            "0 as by chance, 1 the same" if narrow else "stability: 0 as by chance, 1 always the same"
        )

    parts = [f"{_stable_name(e)} {decimal(e['features']['nogueira']['value'], 2)}" for e in found]
    caption = (
        "Nogueira's index of the features kept, with its 95 % interval; of two runs that is all it can be."
    )
    height = 60 + _ROW * len(found)
    return plot(
        "stability", draw, (1000, height), height, f"Stability of features: {'; '.join(parts)}.", caption
    )


def _stable_name(each: Mapping[str, Any]) -> str:
    over = f" over {each['runs']} runs" if each["backbone"] == "all" else ""
    return setting_words(each) + over


def importance_plot(document: Mapping[str, Any]) -> Plot | None:
    """A swarm: what each field is worth to each of the runs of practically equal AUC."""
    importance: Mapping[str, Sequence[float]] = document["equal_runs"]["importance"]
    if not importance:
        return None
    ordered = sorted(importance, key=lambda name: -float(np.median(importance[name])))
    runs, within = len(document["equal_runs"]["importance_of"]), document["equal_runs"]["within"]
    caption = (
        f"A dot for each of {runs} runs whose valid AUC is within {within:.2g} of the best: a wide row is a field that "
        "one good model leans on and another does without."
    )
    rows = {name: importance[name] for name in ordered[:_MOST_FIELDS]}
    worth = ("valid AUC lost when the field is shuffled", "valid AUC lost by shuffling")
    return _swarm_plot("importance", "fields", rows, worth, caption)


def pair_importance_plot(document: Mapping[str, Any]) -> Plot | None:
    """The same of pairs of fields: what shuffling both costs beyond what each costs alone."""
    found = document["equal_runs"].get("pair_importance")
    if not found:
        return None
    ordered = sorted(found, key=lambda pair: -abs(float(np.median(pair["values"]))))[:_MOST_FIELDS]
    caption = (
        "The same of pairs, among the fields that matter most to a run. Right of zero both tell the same, and one "
        "stands in for the other; left of it each is of use beside the other. A wide row: good models do not agree."
    )
    rows = {" x ".join(pair["fields"]): pair["values"] for pair in ordered}
    worth = (
        "valid AUC lost when both are shuffled, beyond what each costs alone",
        "AUC lost beyond each alone",
    )
    return _swarm_plot("pair-importance", "pairs", rows, worth, caption)


def _swarm_plot(
    name: str, of: str, rows: Mapping[str, Sequence[float]], worth: tuple[str, str], caption: str
) -> Plot:
    """A row of dots for each name; `worth` names the axis, on a page and on a phone."""

    def draw(figure: "Figure", narrow: bool) -> None:
        axes = figure.add_subplot()
        reach = max(abs(value) for values in rows.values() for value in values) or 1.0
        for place, own in enumerate(rows.values()):
            values = np.asarray(own)
            heights = place + swarm((values / reach).tolist())
            axes.scatter(values, heights, s=16, color=SERIES[0], alpha=0.75, linewidths=0)
            axes.plot([values.min(), values.max()], [place, place], color=GRID, linewidth=1.2, zorder=0)
        axes.axvline(0.0, color=INK, linewidth=1.0)
        axes.set_yticks(range(len(rows)), [_short(name, 14 if narrow else 28) for name in rows], color=INK)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.xaxis.set_major_locator(few_ticks())
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(worth[1] if narrow else worth[0])

    parts = [f"{each} {decimal(min(values))} to {decimal(max(values))}" for each, values in rows.items()]
    height = 60 + 24 * len(rows)
    return plot(name, draw, (1000, height), height, f"Importance of {of}: {'; '.join(parts)}.", caption)


def swarm(places: Sequence[float], width: float = 0.012) -> Any:
    """Heights, within a row of height 1, that keep dots at nearly equal places apart: 0, then below and above it."""
    heights = np.zeros(len(places))
    bins: dict[int, int] = {}
    for number in np.argsort(places, kind="stable"):
        column = int(np.floor(places[number] / width))
        before = bins.get(column, 0)
        bins[column] = before + 1
        heights[number] = (before + 1) // 2 * (0.11 if before % 2 else -0.11)
    return np.clip(heights, -0.42, 0.42)


def _selector_labels(document: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(each["label"] for each in document["settings"] if each["role"] == "selector"))


def _short(name: str, longest: int) -> str:
    clean = "".join(letter if letter.isprintable() else "?" for letter in name)
    return clean if len(clean) <= longest else clean[: longest - 1] + "\u2026"
