"""Plots of all reports in one style, each a PNG below 60 KB, so that it fits into an event of the orchestrator.

Figures are created without pyplot, so no state is shared with other code that plots in this process.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

INK, MUTED, GRID = "#1f2933", "#66727f", "#dde2e7"
BLUE, ORANGE, GREEN, GREY, RED, BAND = "#2f6db5", "#d9822b", "#3c8d5a", "#a9b3bd", "#c0392b", "#cfe0f3"
_WIDTH_INCHES = 8.4
_DPI = 100
# Characters in one line of a legend, and the characters that the mark before a label takes.
_LEGEND_CHARACTERS, _LEGEND_HANDLE = 110, 8


def figure(rows: float, panels: int = 1) -> tuple[Figure, Sequence[Axes]]:
    """An empty figure with `panels` axes below each other, high enough for `rows` lines of text."""
    made = Figure(figsize=(_WIDTH_INCHES, 1.3 + 0.26 * max(rows, 6)), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(made)
    axes = made.subplots(panels, 1, squeeze=False)[:, 0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color(GREY)
        axis.tick_params(colors=INK, labelsize=9)
        axis.set_axisbelow(True)
    return made, list(axes)


def png(made: Figure) -> bytes:
    """The figure as PNG with a palette of 64 colours, which halves the size without a visible difference."""
    raw = io.BytesIO()
    made.savefig(raw, format="png", facecolor="white")
    out = io.BytesIO()
    with Image.open(raw) as image:
        image.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(out, format="PNG", optimize=True)
    return out.getvalue()


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


def legend(axis: Axes, columns: int) -> None:
    """Add a legend below the figure, in at most `columns` columns. The layout reserves space for it."""
    handles, labels = axis.get_legend_handles_labels()
    if not labels:
        return
    fitting = _LEGEND_CHARACTERS // (max(map(len, labels)) + _LEGEND_HANDLE)
    axis.get_figure(root=True).legend(  # type: ignore[union-attr]
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


def words(name: str) -> str:
    """A code such as NO_MARKET as lower-case words."""
    return name.replace("_", " ").lower()


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
