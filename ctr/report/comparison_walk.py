"""How sets age over the windows of a walk forward: differences by age, and the share of what was never judged."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ctr.report.canvas import GRID, INK, QUIET, SERIES, Plot, few_ticks, plot
from ctr.report.comparison_tables import bounds, number
from ctr.report.comparison_words import setting_words, whom_words
from ctr.report.tables import Cell, Table
from ctr.report.units import count, decimal, share, shown_window, signed
from ctr.report.walk_words import LINES, age_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Walk = Mapping[str, Any]
_COLORS = {"drop": SERIES[0], "keep": SERIES[3], "anew": SERIES[1]}
_MOST_FIELDS = 12


class WalkedSet(NamedTuple):
    """What the page shows of one set."""

    sentence: str
    drawing: Plot
    table: Table


def walked_sets(document: Mapping[str, Any]) -> list[WalkedSet]:
    """Of each set that was walked with; none where nothing was."""
    walk = document.get("walk_forward")
    if walk is None:
        return []
    margin = document["margin"]["max_auc_loss"]
    return [
        WalkedSet(one["sentence"], _plot(walk, one, margin, f"ageing-{place}"), _table(walk, one, place))
        for place, one in enumerate(walk["sets"])
    ]


def _plot(walk: Walk, one: Mapping[str, Any], margin: float, name: str) -> Plot:
    ages = [window["age"] for window in walk["windows"]]
    shares = [window["unjudged"]["any"] for window in walk["windows"]]
    unit = f"{walk['age_unit']}s"

    def draw(figure: "Figure", narrow: bool) -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[5, 2])
        for place, (line, points) in enumerate(one["points"].items()):
            _line(upper, ages, points, line, place - (len(one["points"]) - 1) / 2.0)
        upper.axhspan(-margin, max(margin, upper.get_ylim()[1]), color=GRID, alpha=0.45, linewidth=0)
        upper.axhline(0.0, color=INK, linewidth=1.0)
        upper.yaxis.set_major_locator(few_ticks())
        upper.yaxis.set_major_formatter(lambda tick, _: f"{tick:+.4g}" if tick else "0")
        upper.set_title("test AUC minus keep-all")
        lower.plot(ages, [100.0 * value for value in shares], color=QUIET, marker="o", markersize=4)
        lower.set_ylim(bottom=0.0)
        lower.yaxis.set_major_locator(few_ticks())
        lower.set_title("impressions with a value never judged, %" if narrow else _SHARES)
        lower.xaxis.set_major_locator(few_ticks())
        lower.set_xlabel(f"age of the set, {unit}")
        for axes in (upper, lower):
            axes.grid(axis="y")
        handles, labels = upper.get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper left", ncols=1 if narrow else 3, frameon=False, fontsize=11
        )

    told = [
        f"{LINES[line]} {', '.join(signed(point['minus_keep_all']['value']) for point in points)}"
        for line, points in one["points"].items()
    ]
    label = (
        f"{setting_words(one)} minus keep-all at the ages {', '.join(f'{age:g}' for age in ages)} {unit}: "
        f"{'; '.join(told)}. Impressions with a value never judged: {', '.join(share(value) for value in shares)}."
    )
    caption = (
        f"{setting_words(one)}: all weights are trained again for each window, on all rows before it. Bars: 95 % "
        f"intervals, which speak about other rows{_whom(one)}. Shaded: no loss beyond {margin:g}."
    )
    return plot(name, draw, (1000, 420), 480, label, caption)


_SHARES = "impressions that show a value which had no feature when the set was selected, %"


def _line(
    axes: "Axes", ages: Sequence[float], points: Sequence[Mapping[str, Any]], line: str, place: float
) -> None:
    """Differences by age; lines stand a little apart, so that no bar hides another."""
    found = [point["minus_keep_all"] for point in points]
    places = [age + 0.03 * place * (ages[1] - ages[0]) for age in ages]
    color, dashes = _COLORS[line], (0, (4, 3)) if line == "anew" else "-"
    for at, each in zip(places, found, strict=True):
        axes.plot([at, at], [each["low"], each["high"]], color=color, linewidth=1.4)
    values = [each["value"] for each in found]
    axes.plot(places, values, color=color, linestyle=dashes, marker="o", markersize=5, label=LINES[line])


def _table(walk: Walk, one: Mapping[str, Any], place: int) -> Table:
    rows = []
    for window in range(len(walk["windows"])):
        points = {line: found[window] for line, found in one["points"].items()}
        age = walk["windows"][window]["age"]
        row = [Cell(age_words(age, walk["age_unit"]), age)]
        row.append(number(next(iter(points.values()))["keep_all_auc"], decimal))
        for line, point in points.items():
            for other in ("keep_all", *(["anew"] if line != "anew" else [])):
                difference = point[f"minus_{other}"]
                row += [number(difference["value"], signed), Cell(bounds(difference), difference["low"])]
        rows.append(row)
    columns = ["age", "keep-all, test AUC"]
    for line in one["points"]:
        columns += [f"{LINES[line]}, minus keep-all", "95 %"]
        columns += [f"{LINES[line]}, minus selected anew", "95 %"] if line != "anew" else []
    caption = (
        f"{setting_words(one)} by age: test AUC of each window, paired by row and seed. Beside a set that is selected "
        "anew at each window one sees what age costs, beside keep-all what the set costs. Intervals speak about "
        f"other rows{_whom(one)}."
    )
    return Table(f"ageing-{place}", caption, columns, rows)


def _whom(one: Mapping[str, Any]) -> str:
    """Whom the intervals of a set that walks speak about."""
    return whom_words([point["minus_keep_all"] for points in one["points"].values() for point in points])


def windows_table(document: Mapping[str, Any]) -> Table | None:
    """Every window: its rows, what was trained on, looks at it."""
    walk = document.get("walk_forward")
    if walk is None:
        return None
    rows = [
        [
            Cell(shown_window([window["first"], window["end"]])),
            Cell(age_words(window["age"], walk["age_unit"]), window["age"]),
            number(window["rows"], count),
            number(window["positives"] / window["rows"], share),
            number(sum(window["trained_on"].values()), count),
            number(window["features"], count),
            number(window["unjudged"]["any"], share),
            number(window["test_reads"], count),
        ]
        for window in walk["windows"]
    ]
    columns = ["window", "age of the set", "rows", "clicks", "rows before it", "features", "never judged"]
    columns += ["looks at its rows"]
    caption = (
        f'Windows of "{walk["column"]}", each up to, not including, its end. Never judged: impressions that show a '
        "value which had no feature when the sets were selected."
    )
    return Table("windows", caption, columns, rows)


def unjudged_table(document: Mapping[str, Any]) -> Table | None:
    """By field, the share of impressions whose value no set has judged, at the first window and at the last."""
    walk = document.get("walk_forward")
    if walk is None:
        return None
    first, last = (walk["windows"][place]["unjudged"]["fields"] for place in (0, -1))
    names = sorted(last, key=lambda name: -last[name])[:_MOST_FIELDS]
    after = age_words(walk["windows"][-1]["age"], walk["age_unit"])
    rows = [[Cell(name), number(first[name], share), number(last[name], share)] for name in names]
    caption = "Impressions whose value of a field had no feature when the sets were selected, most first."
    return Table("unjudged", caption, ["field", "at the start", f"after {after}"], rows) if rows else None
