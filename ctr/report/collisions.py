"""Who shares rows in hashed tables, and what that does to the rows and to the first layer."""

from typing import TYPE_CHECKING, Any

from ctr.report.canvas import QUIET, SERIES, Plot, few_ticks, plot
from ctr.report.tables import Cell, Table
from ctr.report.units import Report, count, decimal, known, pick, share

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHARES = ("merged", "within", "across", "own_noise", "other_noise")


def shipped(report: Report) -> dict[str, Any] | None:
    """The collisions of the model in the bundle."""
    found = pick(report, "collisions") or {}
    chosen: dict[str, Any] | None = found.get("selected") or found.get("baseline")
    return chosen


def collisions_table(report: Report, most: int | None = None) -> Table | None:
    """Per field, the worst hit first: rows and load, values that collide, noise on their rows, norms and angles.

    Args:
        most: fields shown; by default all.
    """
    found = shipped(report)
    if not found:
        return None
    fields = sorted(found["fields"].items(), key=lambda entry: (-entry[1]["own_noise"], entry[0]))
    rows = [
        [
            Cell(name),
            Cell(count(field["values"]), field["values"]),
            Cell(count(field["rows"]), field["rows"]),
            Cell(decimal(field["load"], 2), field["load"]),
            *(Cell(share(field[key]), field[key]) for key in _SHARES),
            _number(field["squared_norm"], 5),
            _number(field["angle"], 1),
        ]
        for name, field in fields[:most]
    ]
    columns = [
        "field",
        "values",
        "table rows",
        "values on a row",
        "merged",
        "collide within",
        "collide across",
    ]
    columns += ["rows learn from own field", "rows learn from others", "squared norm", "angle to others"]
    tables = "shared table" if found["shared"] else "separate tables"
    caption = (
        f"Collisions of the {tables} in the bundle ({found['composition']}, {count(found['values'])} values on "
        f"{count(found['rows'])} rows), the worst-hit field first. Merged: values that no one can tell from another of "
        "their field. Rows learn from: of the train rows that a value's table rows are trained on, the share with "
        "another value of the same field, with another field. Angle: degrees between what the first layer reads of "
        "this field and of others, on average; at 90 nobody disturbs anybody."
    )
    return Table("collisions", caption, columns, rows)


def _number(value: float | None, places: int) -> Cell:
    return Cell(decimal(value, places), value if known(value) else None)


def collisions_plot(report: Report) -> Plot | None:
    """Squared norm of a row against the number of values on it, and the angles before and after training."""
    found = shipped(report)
    if not found or not found["by_load"]:
        return None
    loads, angles = found["by_load"], found["angles"]
    both = bool(angles and angles["trained"])

    def draw(figure: "Figure", narrow: bool) -> None:
        panels = figure.subplots(1 + (both and narrow), 1 + (both and not narrow), squeeze=False).flat
        _draw_norms(panels[0], loads)
        if both:
            _draw_angles(panels[1], angles)

    label = "Mean squared norm of table rows: " + ", ".join(
        f"{decimal(each['squared_norm'], 5)} with {each['values']:.3g} values on a row" for each in loads
    )
    caption = "Rows on which more values meet are expected to grow longer (Coleman et al. 2023)."
    if angles:
        nearest = angles["smallest"]
        caption += (
            f" Mean angle {decimal(angles['mean'], 1)} degrees after training, {decimal(angles['mean_at_start'], 1)} "
            f"before; smallest {decimal(nearest['angle'], 1)}, of {' and '.join(nearest['fields'])}."
        )
    return plot("collisions", draw, (1000, 300), 300 * (1 + both), label, caption)


def _draw_norms(axes: Any, loads: list[dict[str, float]]) -> None:
    axes.plot(
        [each["values"] for each in loads],
        [each["squared_norm"] for each in loads],
        color=SERIES[0],
        marker="o",
        markersize=4,
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xticks([], minor=True)
    axes.yaxis.set_major_locator(few_ticks())
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    axes.set(title="mean squared norm of a row", xlabel="values on the row, log axis")


def _draw_angles(axes: Any, angles: dict[str, Any]) -> None:
    size = len(angles["fields"])
    above = [(i, j) for i in range(size) for j in range(i + 1, size)]
    lines = (("at_start", QUIET, "before training"), ("trained", SERIES[0], "after"))
    values = {key: [angles[key][i][j] for i, j in above] for key, *_ in lines}
    reach = (min(map(min, values.values())), max(map(max, values.values())))
    for key, color, name in lines:
        axes.hist(values[key], bins=40, range=reach, histtype="step", color=color, linewidth=1.8, label=name)
    axes.legend(frameon=False, loc="upper left")
    axes.yaxis.set_major_locator(few_ticks())
    axes.grid(axis="y")
    axes.set(title="pairs of fields", xlabel="angle between their first-layer weights, degrees")
