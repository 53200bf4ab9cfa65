"""AUC and log loss against what a set keeps, and weighs: a line for each selector, alternatives beside them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ctr.report.canvas import INK, QUIET, SERIES, Plot, few_ticks, plot
from ctr.report.comparison_words import setting_words
from ctr.report.curve import SELECTOR_COLORS
from ctr.report.units import decimal, known, short, size

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Settings = Sequence[Mapping[str, Any]]
_MARKERS = ("s", "D", "^", "v", "P", "X")  # of alternatives
_PANELS = (("auc", "valid"), ("auc", "test"), ("logloss", "valid"), ("logloss", "test"))
_NAMES = {"auc": "AUC", "logloss": "log loss, nats"}


class _Axis(NamedTuple):
    key: str
    words: str


_AXES = (
    _Axis("kept", "values kept"),
    _Axis("parameters", "parameters"),
    _Axis("bundle_bytes", "bytes of the bundle"),
)


def curve_plots(document: Mapping[str, Any]) -> list[Plot]:
    """For each backbone and embedding: against values kept, parameters and bytes of the bundle."""
    pairs = dict.fromkeys((each["backbone"], each["embedding"]) for each in document["settings"])
    found = []
    for number, (backbone, embedding) in enumerate(pairs):
        own = [e for e in document["settings"] if (e["backbone"], e["embedding"]) == (backbone, embedding)]
        for axis in _AXES:
            there = [each for each in own if known(each[axis.key])]
            if any(each["role"] == "selector" for each in there):
                suffix = f"-{number}" if len(pairs) > 1 else ""
                of = f" of {backbone} with {embedding} embeddings" if len(pairs) > 1 else ""
                found.append(_curves(there, axis, f"curve-{axis.key.replace('_', '-')}{suffix}", of))
    return found


def _curves(settings: Settings, axis: _Axis, name: str, of: str) -> Plot:
    def draw(figure: "Figure", narrow: bool) -> None:
        panels = figure.subplots(4 if narrow else 2, 1 if narrow else 2, sharex=True, squeeze=False)
        for axes, (metric, part) in zip(panels.flat, _PANELS, strict=True):
            _draw(axes, settings, axis, metric, part)
        for axes in panels[-1]:
            axes.set_xlabel(f"{axis.words}, log axis")
        handles, labels = panels.flat[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper left", ncols=2 if narrow else 5, frameon=False, fontsize=11
        )

    parts = [
        f"{setting_words(each)} {decimal(each['valid']['auc']['mean'])} and {decimal(each['test']['auc']['mean'])}"
        for each in settings
    ]
    label = f"AUC and log loss{of} against {axis.words}. Valid and test AUC: {'; '.join(parts)}."
    spread = any(len(each["seeds"]) > 1 for each in settings)
    seeds = "mean over seeds, bars from the worst to the best seed" if spread else "of one seed"
    caption = f"Quality{of} against {axis.words}: {seeds}. Dashed: keep-all."
    if any(each["chosen"] for each in settings):
        caption += " Every choice was made on valid; test stands beside it."
    return plot(name, draw, (1000, 560), 900, label, caption)


def _draw(axes: "Axes", settings: Settings, axis: _Axis, metric: str, part: str) -> None:
    labels = list(dict.fromkeys(each["label"] for each in settings if each["role"] == "selector"))
    others = list(dict.fromkeys(each["label"] for each in settings if each["role"] == "alternative"))
    for each in settings:
        if each["role"] == "keep_all":
            axes.axhline(each[part][metric]["mean"], color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
            _points(axes, [each], axis, part, metric, {"color": INK, "marker": "o", "label": "keep all"})
    for label in labels:
        own = [each for each in settings if each["label"] == label and each["role"] == "selector"]
        _points(
            axes, own, axis, part, metric, {**selector_style(label, labels), "marker": "o", "label": label}
        )
    for number, label in enumerate(others):
        own = [each for each in settings if each["label"] == label and each["role"] == "alternative"]
        style = {"color": QUIET, "linestyle": "none", "marker": _MARKERS[number % len(_MARKERS)]}
        _points(axes, own, axis, part, metric, {**style, "markerfacecolor": "none", "label": label})
    values = [float(each[axis.key]) for each in settings]
    low, high = min((value for value in values if value), default=1.0), max(*values, 1.0)
    ticks = _ticks(low, high)
    if min(values) > 0:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.15, high * 1.15)
    else:  # a set that keeps nothing: no logarithm has a place for it
        axes.set_xscale("symlog", linthresh=low)
        axes.set_xlim(-0.15 * low, high * 1.15)
        ticks = [0.0, *ticks]
    axes.set_xticks([], minor=True)
    axes.set_xticks(ticks)
    write = size if axis.key == "bundle_bytes" else short
    axes.xaxis.set_major_formatter(lambda value, _: write(value))
    axes.yaxis.set_major_locator(few_ticks())
    axes.grid(axis="y")
    axes.margins(y=0.08)
    axes.set_title(f"{part} {_NAMES[metric]}")


def _points(
    axes: "Axes", settings: Settings, axis: _Axis, part: str, metric: str, style: Mapping[str, Any]
) -> None:
    ordered = sorted(settings, key=lambda each: float(each[axis.key]))
    places = [each[axis.key] for each in ordered]
    axes.plot(places, [each[part][metric]["mean"] for each in ordered], markersize=5, **style)
    for place, each in zip(places, ordered, strict=True):
        seeds = each[part][metric]["by_seed"]
        if len(seeds) > 1:
            axes.plot([place, place], [min(seeds), max(seeds)], color=style["color"], linewidth=1.0)
        if each["chosen"]:
            axes.plot(
                place,
                each[part][metric]["mean"],
                marker="o",
                markersize=12,
                markerfacecolor="none",
                color=style["color"],
            )


def selector_style(label: str, labels: Sequence[str]) -> dict[str, Any]:
    """The line of a selector: the same colour in every plot of a page; dashed once the colours are used up."""
    taken = set(SELECTOR_COLORS.values())
    free = [color for color in SERIES if color not in taken]
    others = [each for each in labels if each not in SELECTOR_COLORS]
    if label in SELECTOR_COLORS:
        return {"color": SELECTOR_COLORS[label], "linestyle": "-"}
    number = others.index(label)
    return {"color": free[number % len(free)], "linestyle": "-" if number < len(free) else (0, (3, 2))}


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers within an axis: 1, 2, 5 or, over a wide one, powers of ten."""
    ratio = high / low
    steps = (1, 1.5, 2, 3, 5, 7) if ratio < 5 else (1, 2, 5) if ratio < 300 else (1,)
    ticks = [step * 10.0**power for power in range(13) for step in steps]
    inside = [tick for tick in ticks if low / 1.1 <= tick <= high * 1.1]
    return inside or [low]
