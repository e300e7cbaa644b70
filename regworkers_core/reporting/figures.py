"""Plots of all reports in one style, each a PNG below 60 KB, so that it fits into an event of the orchestrator.

Figures are created without pyplot, so no state is shared with other code that plots in this process.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

INK, MUTED, GRID = "#1f2933", "#66727f", "#dde2e7"
BLUE, ORANGE, GREEN, GREY, RED, BAND = "#2f6db5", "#d9822b", "#3c8d5a", "#a9b3bd", "#c0392b", "#cfe0f3"
PURPLE = "#8e5ea2"
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, RED, GREY)
MOST_TICKS = 16
_WIDTH_INCHES = 8.4
_DPI = 100
# Characters in one line of a legend, and the characters that the mark before a label takes.
_LEGEND_CHARACTERS, _LEGEND_HANDLE = 110, 8


class _Figure(Figure):
    def draw(self, renderer: Any) -> None:
        # Names of markets are text: a `$` in one does not begin a formula.
        for text in self.findobj(Text):
            text.set_parse_math(False)
        super().draw(renderer)


class Panels(NamedTuple):
    figure: Figure
    axes: Sequence[Axes]  # from top to bottom


def figure(rows: float, panels: int = 1) -> Panels:
    """An empty figure with `panels` axes below each other, high enough for `rows` lines of text."""
    made = _Figure(figsize=(_WIDTH_INCHES, 1.3 + 0.26 * max(rows, 6)), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(made)
    axes = made.subplots(panels, 1, squeeze=False)[:, 0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(GREY)
        axis.tick_params(colors=INK, labelsize=9)
        axis.set_axisbelow(True)
    return Panels(made, list(axes))


def png(made: Figure) -> bytes:
    """The figure as PNG with a palette of 64 colours, which halves the size without a visible difference."""
    raw = io.BytesIO()
    made.savefig(raw, format="png", facecolor="white")
    out = io.BytesIO()
    with Image.open(raw) as image:
        image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(out, format="PNG", optimize=True)
    return out.getvalue()


def svg(made: Figure) -> bytes:
    """The figure as SVG, the same bytes for the same figure: text stays text, in a font of the reader."""
    out = io.BytesIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "regworkers", "font.family": "sans-serif"}):
        made.savefig(out, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    return out.getvalue()


def lines(
    title: str,
    unit: str,
    names: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    colours: Sequence[str] = COLOURS,
) -> bytes:
    """Plot one line per series over `names`, with gaps for missing values."""
    made, (axis,) = figure(rows=9)
    found = [value for values in series.values() for value in values if value is not None]
    for number, (name, values) in enumerate(series.items()):
        shown = [float("nan") if value is None else value for value in values]
        colour = colours[number % len(colours)]
        axis.plot(range(len(names)), shown, color=colour, label=name, marker="o", ms=4)
    ticks(axis, names)
    axis.set_ylim(0, 1.15 * max(found, default=0.0) or None)
    if all(isinstance(value, int) for value in found):
        whole_numbers(axis.yaxis)
    titled(axis, title, unit, along="y", columns=min(len(series), 4))
    return png(made)


def stacked_columns(
    title: str,
    unit: str,
    names: Sequence[str],
    series: Mapping[str, Sequence[int]],
    colours: Sequence[str] = COLOURS,
) -> bytes:
    """Plot one column per name, with the series on top of each other."""
    made, (axis,) = figure(rows=9)
    below = [0] * len(names)
    for number, (name, values) in enumerate(series.items()):
        colour = colours[number % len(colours)]
        axis.bar(range(len(names)), values, bottom=below, color=colour, label=short(name), width=0.8)
        below = [under + value for under, value in zip(below, values, strict=True)]
    ticks(axis, names)
    whole_numbers(axis.yaxis)
    titled(axis, title, unit, along="y", columns=min(len(series), 4))
    return png(made)


def bars(
    title: str,
    unit: str,
    values: Mapping[str, float],
    *,
    texts: Sequence[str] | None = None,
    red: frozenset[str] = frozenset(),
    limit: tuple[str, float] | None = None,
) -> bytes:
    """Plot one bar per name, those in `red` in that colour. `limit` is a named dashed line."""
    made, (axis,) = figure(rows=2 * len(values))
    colours = [RED if name in red else BLUE for name in values]
    horizontal_bars(axis, distinct(list(values), 40), list(values.values()), colours, texts)
    if limit is not None:
        axis.axvline(limit[1], color=RED, linestyle="--", linewidth=1, label=limit[0])
    titled(axis, title, unit, columns=1)
    return png(made)


def horizontal_bars(
    axis: Axes,
    labels: Sequence[str],
    values: Sequence[float],
    colours: Sequence[str],
    texts: Sequence[str] | None = None,
) -> None:
    """Draw one bar per row with its text at the end, the first row on top. `texts` default to the values.

    For values that are not whole numbers the caller sets the formatter of the axis.
    """
    bars = axis.barh(range(len(values)), values, color=list(colours))
    axis.bar_label(bars, texts or [f"{value:,}" for value in values], padding=4, fontsize=9, color=INK)
    axis.set_yticks(range(len(values)), labels)
    axis.invert_yaxis()
    axis.margins(x=0.28)
    if all(isinstance(value, int) for value in values):
        whole_numbers(axis.xaxis)
    axis.grid(axis="x", color=GRID)


def titled(axis: Axes, title: str, unit: str, *, along: Literal["x", "y"] = "x", columns: int = 0) -> None:
    """Set the title, the unit and grid of the values along an axis, and a legend of at most `columns` columns."""
    axis.set_title(title, loc="left", color=INK)
    set_label = axis.set_xlabel if along == "x" else axis.set_ylabel
    set_label(unit, color=MUTED)
    axis.grid(axis=along, color=GRID)
    if columns:
        legend(axis, columns)


def ticks(axis: Axes, names: Sequence[str]) -> None:
    """Label at most MOST_TICKS positions of the x axis with their names."""
    shown = range(0, len(names), -(-len(names) // MOST_TICKS) or 1)
    axis.set_xticks(shown, [names[at] for at in shown], rotation=35, ha="right")


def legend(axis: Axes, columns: int) -> None:
    """Add a legend below the figure, in at most `columns` columns. The layout reserves space for it."""
    handles, labels = axis.get_legend_handles_labels()
    root = axis.get_figure(root=True)
    if not labels or root is None:
        return
    fitting = _LEGEND_CHARACTERS // (max(map(len, labels)) + _LEGEND_HANDLE)
    root.legend(
        handles,
        labels,
        loc="outside lower right",
        ncols=max(1, min(columns, fitting)),
        frameon=False,
        fontsize=8.5,
    )


def whole_numbers(axis: Axis) -> None:
    """Show only whole numbers on an axis that counts something."""
    axis.set_major_locator(MaxNLocator(integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:,.0f}"))


def percents() -> FuncFormatter:
    """Format ticks as percentages. Ticks above 100 %, which only make room for labels, stay empty."""
    return FuncFormatter(lambda value, _place: f"{value:.3g} %" if value <= 100 else "")


def short(text: str, most: int = 28) -> str:
    """`text`, cut to `most` characters with an ellipsis at the end."""
    return text if len(text) <= most else text[: most - 1] + "…"


def distinct(texts: Sequence[str], most: int = 28) -> list[str]:
    """Labels of at most `most` characters each. Those that become equal are numbered."""
    cut = [short(text, most) for text in texts]
    seen: Counter[str] = Counter()
    labels = []
    for text in cut:
        seen[text] += 1
        labels.append(text if cut.count(text) == 1 else f"{text} ({seen[text]})")
    return labels
