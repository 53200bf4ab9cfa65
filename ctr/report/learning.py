"""Learning curves of the stages."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ctr.report.canvas import SERIES, Plot, few_ticks, label_lines, plot
from ctr.report.units import Report, decimal, known, pick, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

History = Mapping[str, list[dict[str, Any]]]

_MARKED = 30  # looks, above which their points would hide the line
STAGES = {"baseline": SERIES[2], "search": SERIES[1], "retrain": SERIES[0]}


def learning_plot(report: Report) -> Plot | None:
    """Draw valid AUC and log loss of each stage, look by look, and how the search closes gates."""
    history = {stage: rows for stage in STAGES if (rows := pick(report, "history", stage))}
    if not history:
        return None
    panels = [("valid AUC", "valid_auc"), ("log loss: valid, train (thin)", "valid_logloss")]
    panels += [("share of gates open", "open"), ("gate temperature", "temperature")]
    shown = [
        (title, key)
        for title, key in panels
        if any(known(row.get(key)) for rows in history.values() for row in rows)
    ]

    def draw(figure: "Figure", narrow: bool) -> None:
        columns = 1 if narrow or len(shown) == 1 else 2
        grid = figure.subplots(-(-len(shown) // columns), columns, squeeze=False)
        for axes, (title, key) in zip(grid.flat, shown, strict=False):
            _draw_learning(axes, history, title, key)
        for axes in list(grid.flat)[len(shown) :]:
            axes.remove()
        for axes, (_, key) in zip(grid.flat, shown, strict=False):
            ends = [(rows[-1][key], stage, STAGES[stage]) for stage, rows in _recorded(history, key).items()]
            label_lines(axes, ends, 1.02, "right")

    ends = "; ".join(
        f"{stage} ends at {decimal(rows[-1].get('valid_auc'))}" for stage, rows in history.items()
    )
    rows = -(-len(shown) // 2)
    label = f"Learning curves over the epochs. Valid AUC: {ends}"
    caption = (
        "One point per look at valid; of a large valid, all looks read the same sample. "
        "Baseline and retrain keep the weights of their best look."
    )
    return plot("learning", draw, (1000, 60 + 200 * rows), 60 + 170 * len(shown), label, caption)


def _recorded(history: History, key: str) -> dict[str, list[dict[str, Any]]]:
    found = {stage: [row for row in rows if known(row.get(key))] for stage, rows in history.items()}
    return {stage: rows for stage, rows in found.items() if rows}


def _draw_learning(axes: "Axes", history: History, title: str, key: str) -> None:
    from matplotlib.ticker import MaxNLocator

    for stage, rows in _recorded(history, key).items():
        epochs = [row.get("passes", row["epoch"]) for row in rows]  # runs of one look an epoch tell no passes
        size = 3.5 if len(rows) <= _MARKED else 0.0
        axes.plot(epochs, [row[key] for row in rows], color=STAGES[stage], marker="o", markersize=size)
        if key == "valid_logloss" and all(known(row.get("train_logloss")) for row in rows):
            axes.plot(epochs, [row["train_logloss"] for row in rows], color=STAGES[stage], linewidth=0.9)
    axes.set_title(title)
    axes.grid(axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8))
    axes.set_xlabel("epochs")
    if key == "temperature":
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: short(value))
        axes.set_yticks([], minor=True)
    else:
        axes.yaxis.set_major_locator(few_ticks())
    if key == "open":
        axes.yaxis.set_major_formatter(lambda value, _: f"{100.0 * value:g} %")
        axes.set_ylim(-0.03, 1.03)
