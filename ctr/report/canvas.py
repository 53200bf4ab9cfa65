"""From a drawing function to inline SVG that follows the page's colours, or to a PNG.

A drawing function takes an empty matplotlib figure and whether it is narrow (a phone), and uses no colours
but those named here. In SVG each of them becomes a CSS variable: one drawing is right in light and dark.
"""

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO, StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

Draw = Callable[["Figure", bool], None]

# Light values; each is used nowhere else in a drawing, for it is found again by its text.
INK, QUIET, GRID, PAPER = "#1c2126", "#5c6670", "#dfe3e8", "#fefefe"
KEPT, DROPPED = "#0a6ebd", "#c9d0d8"
# After Okabe and Ito's colour-blind safe set, darkened until small text is readable on white.
SERIES = ("#0b6fbe", "#c2500a", "#6b747d", "#0a7d5c", "#a2457b", "#8a6d00")
VARIABLES = {
    INK: "ink",
    QUIET: "quiet",
    GRID: "grid",
    PAPER: "paper",
    KEPT: "kept",
    DROPPED: "dropped",
    **{color: f"series-{number}" for number, color in enumerate(SERIES, start=1)},
}
FONT_SIZE = 12.0  # CSS pixels


@dataclass(frozen=True)
class Plot:
    """One picture in two widths, what it shows in words, and what to know when reading it."""

    id: str
    label: str
    caption: str
    wide: str
    narrow: str


def plot(
    name: str, draw: Draw, size: tuple[float, float], phone_height: float, label: str, caption: str
) -> Plot:
    """Draw once for a page of `size` CSS pixels and once for a phone of 340 pixels width."""
    wide = svg(draw, *size, f"{name}-wide", label)
    narrow = svg(draw, 340, phone_height, f"{name}-narrow", label, narrow=True)
    return Plot(name, label, caption, wide, narrow)


@contextmanager
def _style(font_size: float) -> Iterator[None]:
    import matplotlib

    settings: Any = {
        "svg.fonttype": "none",  # text stays text: sharp, small, selectable, in the page's font
        "svg.hashsalt": "ctr",  # the same report gives the same page
        "font.family": ["DejaVu Sans"],
        "font.size": font_size,
        "axes.titlesize": font_size,
        "axes.labelsize": font_size,
        "xtick.labelsize": font_size - 1,
        "ytick.labelsize": font_size - 1,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": GRID,
        "axes.labelcolor": QUIET,
        "axes.titlecolor": QUIET,
        "text.color": INK,
        "xtick.color": QUIET,
        "ytick.color": QUIET,
        "axes.facecolor": "none",
        "figure.facecolor": "none",
        "grid.color": GRID,
        "axes.axisbelow": True,
        "xtick.major.size": 3,
        "ytick.major.size": 0,
        "lines.linewidth": 1.8,
        "text.parse_math": False,  # a field may be named "$price$"
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # Letters that the measuring font lacks are drawn by the browser's font.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield


def _figure(draw: Draw, width: float, height: float, narrow: bool) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72.0, height / 72.0), layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure, narrow)
    return figure


def svg(draw: Draw, width: float, height: float, name: str, label: str, narrow: bool = False) -> str:
    """Draw as an `<svg>` element of `width` x `height` CSS pixels that shrinks with its container.

    `name` starts every id inside, so that several drawings fit one page; `label` is read out in place of it.
    """
    from html import escape

    buffer = StringIO()
    with _style(FONT_SIZE):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        _figure(draw, width, height, narrow).savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(r"#[0-9a-f]{6}\b", lambda found: _variable(found[0]), text)
    text = re.sub(r'(\bid="|(?:xlink:)?href="#|url\(#)', rf"\g<1>{name}-", text)
    text = text.replace("'DejaVu Sans'", "var(--font)")
    opening = (
        f'<svg class="drawing" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" '
        f'role="img" aria-label="{escape(label, quote=True)}" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return opening + text[text.index(">") + 1 :].strip()


def _variable(color: str) -> str:
    return f"var(--{VARIABLES[color]})" if color in VARIABLES else color


def png(draw: Draw, width: float, height: float, path: Path) -> Path:
    """Draw on white, at twice the given size in pixels, into `path`, whose folder exists."""
    buffer = BytesIO()
    with _style(FONT_SIZE):
        _figure(draw, width, height, False).savefig(buffer, format="png", dpi=144, facecolor="white")
    part = path.with_name(path.name + ".part")
    part.write_bytes(buffer.getvalue())
    return part.replace(path)


def few_ticks() -> "Locator":
    """At most seven round ticks."""
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10])


def label_lines(
    axes: "Axes", labels: list[tuple[float, str, str]], x: float, side: Literal["left", "right"]
) -> None:
    """Write (height in data units, text, colour) beside the lines they name, apart where they would touch.

    `x` is where the texts end (`side` left) or start, as a share of the width of the axes, whose y limits are
    final.
    """
    if not labels:
        return
    low, high = axes.get_ylim()
    pixels = axes.get_window_extent().height * 72.0 / axes.figure.dpi
    gap = 1.25 * FONT_SIZE / max(pixels, 1.0)
    ordered = sorted(labels)
    shares = [
        (axes.transAxes.inverted().transform(axes.transData.transform((1.0, y)))[1]) for y, _, _ in ordered
    ]
    for (_, text, color), height in zip(ordered, spread(shares, gap), strict=True):
        axes.text(
            x,
            height,
            text,
            color=color,
            transform=axes.transAxes,
            ha="right" if side == "left" else "left",
            va="center",
            clip_on=False,
        )
    axes.set_ylim(low, high)


def spread(heights: list[float], gap: float) -> list[float]:
    """Move ascending heights as little as needed until neighbours are at least `gap` apart, within 0 and 1.

    Example:
        >>> spread([0.5, 0.5], 0.2)
        [0.4, 0.6]
    """
    clusters: list[list[float]] = []  # each [sum of wished first heights, number, first height]
    for height in heights:
        clusters.append([height, 1.0, height])
        while len(clusters) > 1 and clusters[-2][2] + clusters[-2][1] * gap > clusters[-1][2]:
            wish, number, _ = clusters.pop()
            before = clusters[-1]
            before[0] += wish - number * before[1] * gap
            before[1] += number
            before[2] = before[0] / before[1]
            top = 1.0 - (before[1] - 1.0) * gap
            before[2] = max(0.0, min(before[2], top))
    return [round(first + gap * step, 9) for _, number, first in clusters for step in range(int(number))]
