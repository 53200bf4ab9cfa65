"""An evaluation in pictures: differences, reliability, days, slices, unseen values."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ctr.report.canvas import GRID, INK, KEPT, PAPER, QUIET, SERIES, Plot, few_ticks, label_lines, plot
from ctr.report.units import Report, decimal, known, pick, share, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_FIELDS = 40
_LETTERS, _FEW_LETTERS = 34, 15  # of a name beside a wide and beside a narrow plot
_DAY_LABELS = 8


class Bar(NamedTuple):
    """A line of a plot: its name, and for each model drawn a value with its bounds, or None."""

    name: str
    intervals: Sequence[dict[str, float] | None]


def color_of(number: int) -> str:
    """The colour of the model of that number."""
    return SERIES[number % len(SERIES)]


def differences_plot(report: Report) -> Plot | None:
    """AUC of each model minus that of the first, with its interval."""
    differences = pick(report, "differences") or []
    if not differences:
        return None
    bars = [Bar(entry["name"], [_interval(entry["auc"])]) for entry in differences]
    parts = [
        f"{entry['name']} {signed(pick(entry, 'auc', 'value'))}, {signed(pick(entry, 'auc', 'low'))} to "
        f"{signed(pick(entry, 'auc', 'high'))}"
        for entry in differences
    ]
    baseline = differences[0]["baseline"]
    label = f"AUC minus that of {baseline}, with 95 % intervals: " + "; ".join(parts)
    caption = f"AUC minus that of {baseline}, on the same rows, with its paired 95 % interval."
    colors = [_verdict_color(pick(entry, "auc", "low"), pick(entry, "auc", "high")) for entry in differences]

    def draw(figure: "Figure", narrow: bool) -> None:
        _draw_bars(figure, bars, 0.0, narrow, colors, by_line=True)

    height = 56 + 34 * len(bars)
    return plot("differences", draw, (1000, height), height, label, caption)


def _verdict_color(low: float | None, high: float | None) -> str:
    if low is not None and low > 0.0:
        return KEPT
    return SERIES[1] if high is not None and high < 0.0 else QUIET


def slices_plot(report: Report, field: str, number: int) -> Plot | None:
    """AUC by slice of a field; of several models, the difference to the first one. `number` of the field names it."""
    parts = [part for part in pick(report, "slices") or [] if part["field"] == field]
    several = bool(report["differences"])
    kind = "differences" if several else "models"
    bars = [
        Bar(part["value"], [_interval(entry["auc"]) for entry in part[kind]])
        for part in parts
        if any(known(pick(entry, "auc", "value")) for entry in part[kind])
    ]
    if not bars:
        return None
    overall = report[kind][0]["auc"]["value"] if len(report[kind]) == 1 else None
    names = [entry["name"] for entry in report[kind]]
    what = f"AUC minus that of {report['models'][0]['name']}" if several else "AUC"
    shown = [
        f"{bar.name} {signed(found['value']) if several else decimal(found['value'])}"
        for bar in bars
        for found in bar.intervals[:1]
        if found
    ]
    label = f"{what}, by {field}, for {', '.join(names)}: " + "; ".join(shown[:12])
    caption = f"{what}, by {field}, with 95 % intervals."
    if overall is not None:
        caption += " Dashed: all rows."
    colors = [color_of(place + several) for place in range(len(names))]
    reference = 0.0 if several else None

    def draw(figure: "Figure", narrow: bool) -> None:
        axes = _draw_bars(figure, bars, reference, narrow, colors)
        if overall is not None:
            axes.axvline(overall, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
        _name_colors(axes, names, colors, several)

    height = 64 + (16 + 9 * len(names)) * len(bars) + (20 if len(names) > 1 else 0)
    return plot(f"slices-{number}", draw, (1000, height), height, label, caption)


def _interval(entry: dict[str, float | None]) -> dict[str, float] | None:
    return (
        {key: value for key, value in entry.items() if value is not None} if known(entry["value"]) else None
    )


def _draw_bars(
    figure: "Figure",
    bars: Sequence[Bar],
    reference: float | None,
    narrow: bool,
    colors: Sequence[str],
    *,
    by_line: bool = False,
) -> "Axes":
    """Intervals below each other. `by_line`: a colour for each line; otherwise one for each model."""
    axes: Axes = figure.add_subplot()
    if reference is not None:
        axes.axvline(reference, color=INK, linewidth=1.0, zorder=1)
    for line, bar in enumerate(bars):
        for number, found in enumerate(bar.intervals):
            if found is None:
                continue
            height = line + (number - (len(bar.intervals) - 1) / 2.0) * 0.24
            color = colors[line] if by_line else colors[number]
            low, high = found.get("low", found["value"]), found.get("high", found["value"])
            axes.plot([low, high], [height] * 2, color=color, linewidth=3.0, solid_capstyle="round", zorder=2)
            axes.plot(found["value"], height, "o", color=color, markersize=7, markeredgecolor=PAPER, zorder=3)
    letters = _FEW_LETTERS if narrow else _LETTERS
    axes.set_yticks(range(len(bars)), [_short(bar.name, letters) for bar in bars])
    axes.tick_params(axis="y", labelcolor=INK)
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.xaxis.set_major_locator(few_ticks())
    if narrow:
        axes.locator_params(axis="x", nbins=3)
    if reference == 0.0:
        axes.xaxis.set_major_formatter(lambda tick, _: f"{tick:+.4g}" if abs(tick) > 1e-12 else "0")
        low, high = axes.get_xlim()
        reach = max(abs(low), abs(high), 1e-5)
        axes.set_xlim(min(low, -0.15 * reach), max(high, 0.15 * reach))
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    return axes


def _name_colors(axes: "Axes", names: Sequence[str], colors: Sequence[str], several: bool) -> None:
    """A line above the plot that says whose colour is whose, where there is more than one."""
    if len(names) < 2:
        return
    from matplotlib.lines import Line2D

    marks = [Line2D([], [], color=color, marker="o", linewidth=3.0) for color in colors]
    axes.legend(
        marks,
        [_short(name, _LETTERS) for name in names],
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=len(names),
        frameon=False,
        borderaxespad=0.0,
        handlelength=1.2,
    )


def _short(name: str, letters: int) -> str:
    return name if len(name) <= letters else name[: letters - 1] + "…"


def reliability_plot(report: Report) -> Plot:
    """What each model promised against what came, in bins of equal mass, on logarithmic axes."""
    models = report["models"]
    errors = ", ".join(f"{entry['name']} {decimal(entry['ece'])}" for entry in models)
    label = (
        f"Share of clicks against mean probability, in bins of equally many rows. Calibration error: {errors}"
    )
    caption = "Each dot: a twentieth of the rows. Below the line: more was promised than came. Bars: 95 %."

    def draw(figure: "Figure", narrow: bool) -> None:
        axes: Axes = figure.add_subplot()
        ends: list[float] = []
        labels = []
        for number, entry in enumerate(models):
            color = color_of(number)
            bins = [
                part for part in entry["reliability"] if part["promised"] > 0.0 and part["observed"] > 0.0
            ]
            for part in bins:
                lowest = max(part["low"], 1e-9)
                axes.plot([part["promised"]] * 2, [lowest, part["high"]], color=color, linewidth=1.0)
            axes.plot(
                [part["promised"] for part in bins],
                [part["observed"] for part in bins],
                color=color,
                marker="o",
                markersize=4.5,
                linewidth=1.2,
            )
            ends += [part[key] for part in bins for key in ("promised", "observed")]
            if bins:
                labels.append((bins[-1]["observed"], _short(entry["name"], 14 if narrow else 24), color))
        low, high = (min(ends) / 1.25, min(1.0, max(ends) * 1.25)) if ends else (0.01, 1.0)
        axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
        axes.plot([low, high], [low, high], color=INK, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(_log_ticks(low, high, narrow))
            axis.set_minor_locator(_nothing())
            axis.set_major_formatter(lambda value, _: f"{100.0 * value:.3g} %")
        axes.grid(color=GRID)
        axes.set_title("share of clicks")
        axes.set_xlabel("mean probability")
        label_lines(axes, labels, 1.01, "right")

    return plot("reliability", draw, (500, 400), 340, label, caption)


def _log_ticks(low: float, high: float, narrow: bool) -> Any:
    from matplotlib.ticker import FixedLocator

    steps = (1, 2, 5) if high / low < (20 if narrow else 60) else (1, 3) if high / low < 300 else (1,)
    ticks = [step * 10.0**power for power in range(-8, 1) for step in steps]
    return FixedLocator([tick for tick in ticks if low <= tick <= high])


def _nothing() -> Any:
    from matplotlib.ticker import NullLocator

    return NullLocator()


def days_plot(report: Report) -> Plot | None:
    """AUC by day of each model, with its interval."""
    days = [
        part
        for part in pick(report, "days") or []
        if any(known(pick(entry, "auc", "value")) for entry in part["models"])
    ]
    if len(days) < 2:
        return None
    names = [entry["name"] for entry in report["models"]]
    ends = [
        f"{name} {decimal(pick(days[0]['models'][place], 'auc', 'value'))} on {days[0]['value']}, "
        f"{decimal(pick(days[-1]['models'][place], 'auc', 'value'))} on {days[-1]['value']}"
        for place, name in enumerate(names)
    ]
    label = "AUC by day: " + "; ".join(ends)
    caption = "AUC by day, with 95 % intervals. Days with one class only are left out."

    def draw(figure: "Figure", narrow: bool) -> None:
        axes: Axes = figure.add_subplot()
        labels = []
        for number, name in enumerate(names):
            color = color_of(number)
            found = [
                (place + 0.06 * number, _interval(part["models"][number]["auc"]))
                for place, part in enumerate(days)
            ]
            points = [(place, entry) for place, entry in found if entry is not None]
            for place, entry in points:
                if "low" in entry and "high" in entry:
                    axes.plot([place] * 2, [entry["low"], entry["high"]], color=color, linewidth=1.0)
            axes.plot(
                [place for place, _ in points],
                [entry["value"] for _, entry in points],
                color=color,
                marker="o",
                markersize=4.5,
            )
            if points:
                labels.append((points[-1][1]["value"], _short(name, 14 if narrow else 24), color))
        step = -(-len(days) // (3 if narrow else _DAY_LABELS))
        axes.set_xticks(range(0, len(days), step), [part["value"] for part in days[::step]])
        axes.yaxis.set_major_locator(few_ticks())
        axes.grid(axis="y")
        axes.set_title("AUC")
        label_lines(axes, labels, 1.01, "right")

    return plot("days", draw, (1000, 300), 280, label, caption)


def unseen_plot(report: Report) -> Plot | None:
    """Share of values without a feature, by field and model."""
    models = report["models"]
    shares: dict[str, list[float | None]] = {}
    for number, entry in enumerate(models):
        for field, counts in entry["unseen"].items():
            shares.setdefault(field, [None] * len(models))[number] = counts["share"]
    largest = {field: max(value or 0.0 for value in own) for field, own in shares.items()}
    ranked = sorted((field for field in shares if largest[field]), key=lambda field: -largest[field])
    ranked = ranked[:MOST_FIELDS]
    if not ranked:
        return None
    named = [f"{field} {share(largest[field])}" for field in ranked[:10]]
    label = "Share of values that a model has no feature for, by field, the largest first: " + ", ".join(
        named
    )
    caption = "Share of values without a feature of their own: never seen in training, too rare, or dropped."
    if len(ranked) < len(shares):
        caption += f" {len(ranked)} of {len(shares)} fields; the table has all."
    names = [entry["name"] for entry in models]

    def draw(figure: "Figure", narrow: bool) -> None:
        axes: Axes = figure.add_subplot()
        width = 0.7 / len(models)
        for number in range(len(models)):
            places = [place + (number - (len(models) - 1) / 2.0) * width for place in range(len(ranked))]
            values = [shares[field][number] or 0.0 for field in ranked]
            axes.barh(places, values, height=width * 0.86, color=color_of(number))
        axes.set_yticks(
            range(len(ranked)), [_short(name, _FEW_LETTERS if narrow else _LETTERS) for name in ranked]
        )
        axes.tick_params(axis="y", labelcolor=INK)
        axes.set_ylim(len(ranked) - 0.5, -0.5)
        axes.set_xlim(0.0, max(0.01, min(1.0, 1.05 * axes.get_xlim()[1])))
        axes.xaxis.set_major_locator(few_ticks())
        if narrow:
            axes.locator_params(axis="x", nbins=3)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100.0 * value:.3g} %")
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)
        _name_colors(axes, names, [color_of(number) for number in range(len(names))], False)

    height = 60 + (12 + 9 * len(models)) * len(ranked) + (20 if len(names) > 1 else 0)
    return plot("unseen", draw, (1000, height), height, label, caption)
