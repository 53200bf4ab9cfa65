"""AUC against size, and the difference that it comes down to."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ctr.report.canvas import INK, KEPT, PAPER, QUIET, SERIES, Plot, few_ticks, label_lines, plot, png
from ctr.report.units import Report, decimal, known, pick, share, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SELECTOR_COLORS = {"frequency": SERIES[1], "random": SERIES[2]}
SHARE_TICKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def figure_png(report: Report, path: Path) -> Path:
    """Draw the AUC-against-size curve as a PNG (for MLflow, a README), title included; returns `path`."""

    def draw(figure: "Figure", narrow: bool) -> None:
        _draw_curve(report, figure)
        figure.suptitle(f"{report.get('name', 'run')}: test AUC against features kept", x=0.01, ha="left")

    return png(draw, 760, 430, path)


def curve_plot(report: Report) -> Plot | None:
    """Test AUC against the share of features kept, a line per selector."""
    lines = _selectors(report)
    if not lines:
        return None
    parts = []
    for name, points in lines.items():
        seen = [f"{decimal(pick(point, 'test', 'auc'))} at {share(point['ratio'])}" for point in points]
        parts.append(f"{name} {', '.join(seen)}")
    keep_all = decimal(pick(report, "baseline", "test", "auc"))
    label = f"Test AUC against the share of features kept. Keep all {keep_all}; " + "; ".join(parts)
    caption = "Bars: paired 95 % interval of the difference to keep-all, drawn around its AUC. "
    caption += "Ring: the one that is shipped."
    return plot("curve", lambda figure, _: _draw_curve(report, figure), (1000, 400), 330, label, caption)


def _selectors(report: Report) -> dict[str, list[dict[str, Any]]]:
    """Points of each selector that can be drawn, by share kept; keep-all is a line of its own."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for point in pick(report, "curve") or []:
        if point["selector"] != "all" and known(pick(point, "test", "auc")) and point["ratio"]:
            lines.setdefault(str(point["selector"]), []).append(point)
    return {name: sorted(points, key=lambda point: float(point["ratio"])) for name, points in lines.items()}


def _draw_curve(report: Report, figure: "Figure") -> None:
    axes: Axes = figure.add_subplot()
    lines = _selectors(report)
    keep_all = pick(report, "baseline", "test", "auc")
    ratios = [point["ratio"] for points in lines.values() for point in points]
    lowest = min(ratios, default=0.1)
    axes.set_xscale("log")
    axes.set_xlim(_room_for_names(figure, lines, lowest), 1.06)
    if known(keep_all):
        axes.axhline(keep_all, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
        axes.plot(1.0, keep_all, marker="o", markersize=4.5, color=INK)
    free = [color for color in SERIES if color not in SELECTOR_COLORS.values()]
    labels = []
    for number, (name, points) in enumerate(lines.items()):
        color = SELECTOR_COLORS.get(name) or free[number % len(free)]
        shift = 1.0 + 0.012 * (number - (len(lines) - 1) / 2.0)  # so that bars at one size stand side by side
        _draw_line(axes, points, keep_all, shift, color)
        labels.append((points[0]["test"]["auc"], name, color))
    axes.margins(y=0.08)
    axes.set_xticks(_apart([tick for tick in SHARE_TICKS if lowest * 0.95 <= tick], axes), minor=False)
    axes.set_xticks([], minor=True)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100.0 * value:g} %")
    axes.yaxis.set_major_locator(few_ticks())
    axes.grid(axis="y")
    axes.set_title("test AUC")
    axes.set_xlabel("share of features kept")
    first = axes.transAxes.inverted().transform(axes.transData.transform((lowest, axes.get_ylim()[0])))[0]
    label_lines(axes, labels, first - 9.0 / (72.0 * figure.get_figwidth()), "left")
    if known(keep_all):
        label_lines(axes, [(keep_all, f"keep all\n{decimal(keep_all)}", INK)], 1.01, "right")


def _room_for_names(figure: "Figure", names: Iterable[str], lowest: float) -> float:
    """Where a logarithmic axis up to 1.06 must begin to leave room for names before `lowest`."""
    letters = max((len(name) for name in names), default=0)
    taken = min(0.5, (18.0 + 6.6 * letters) / (72.0 * figure.get_figwidth() - 110.0))
    return float(lowest / (1.06 / lowest) ** (taken / (1.0 - taken)))


def _apart(ticks: list[float], axes: "Axes") -> list[float]:
    """Those of ascending `ticks` whose labels do not touch; the last one always stays."""
    places = axes.transData.transform([(tick, 1.0) for tick in ticks])[:, 0] * 72.0 / axes.figure.dpi
    kept: list[float] = []
    last = float("inf")
    for tick, place in zip(reversed(ticks), reversed(places), strict=True):
        if last - place > 42.0:
            kept.append(tick)
            last = place
    return kept


def _draw_line(
    axes: "Axes", points: list[dict[str, Any]], keep_all: float | None, shift: float, color: str
) -> None:
    heights = [point["test"]["auc"] for point in points]
    places = [point["ratio"] * shift for point in points]
    axes.plot(places, heights, color=color, marker="o", markersize=4.5, markeredgewidth=0.0, zorder=3)
    for place, height, point in zip(places, heights, points, strict=True):
        low, high = (pick(point, "difference", bound) for bound in ("low", "high"))
        if known(low) and known(high) and keep_all is not None:
            axes.plot([place, place], [keep_all + low, keep_all + high], color=color, linewidth=1.2, zorder=2)
        if point.get("chosen"):
            axes.plot(place, height, marker="o", markersize=12, markerfacecolor="none", color=color, zorder=4)
            top = keep_all + high if known(high) and keep_all is not None else height
            axes.annotate(
                "chosen",
                (place, top),
                (0, 7),
                textcoords="offset points",
                color=color,
                ha="center",
                va="bottom",
            )


def difference_plot(report: Report) -> Plot | None:
    """Draw the interval of the AUC difference against zero."""
    interval = pick(report, "difference", "test_auc")
    if not all(known(pick(interval, part)) for part in ("value", "low", "high")):
        return None
    value, low, high = interval["value"], interval["low"], interval["high"]
    label = (
        f"Test AUC, selected minus keep all: {signed(value)}, 95 % interval {signed(low)} to {signed(high)}"
    )

    def draw(figure: "Figure", narrow: bool) -> None:
        axes = figure.add_subplot()
        color = KEPT if low > 0 else SERIES[1] if high < 0 else QUIET
        axes.axvline(0.0, color=INK, linewidth=1.0)
        axes.plot([low, high], [0.0, 0.0], color=color, linewidth=5.0, solid_capstyle="round")
        axes.plot(
            value, 0.0, marker="o", markersize=11, color=color, markeredgecolor=PAPER, markeredgewidth=2.0
        )
        reach = 1.25 * max(abs(low), abs(high), 1e-5)
        axes.set(xlim=(-reach, reach), ylim=(-1, 1), yticks=[])
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(few_ticks())
        axes.xaxis.set_major_formatter(lambda tick, _: f"{tick:+.4g}" if tick else "0")
        axes.annotate("selected is worse", (0, 1), xycoords="axes fraction", color=QUIET, va="bottom")
        axes.annotate(
            "selected is better", (1, 1), xycoords="axes fraction", color=QUIET, ha="right", va="bottom"
        )

    caption = (
        "Difference of test AUC with its paired 95 % interval (DeLong): other test rows, these very models."
    )
    return plot("difference", draw, (480, 110), 100, label, caption)
