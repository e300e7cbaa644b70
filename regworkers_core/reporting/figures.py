"""Plots of all reports: one look, each as a PNG below 60 KB so that it also fits into an event of the orchestrator.

Figures are objects of their own: no state is shared with whoever else draws in this process.
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
# Of a legend's line across the figure, and what the mark before a label takes of it.
_LEGEND_CHARACTERS, _LEGEND_HANDLE = 110, 8


def figure(rows: float, panels: int = 1) -> tuple[Figure, Sequence[Axes]]:
    """An empty figure with one or more panels below each other, high enough for `rows` lines of text."""
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
    """With a palette of 64 colours, which a chart does not exceed visibly and which halves the size."""
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
    """One bar a row, its text at the end, the first row on top. `texts` default to the values. Values that are no
    whole numbers want a formatter of their own.
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
    """Below the figure, in `columns` columns at most: room is made for it, so it touches neither title nor labels."""
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
    """An axis of numbers of something: there is no half of an entry."""
    axis.set_major_locator(MaxNLocator(integer=True))
    axis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:,.0f}"))


def percents() -> FuncFormatter:
    """An axis in percent, with as many decimals as its ticks have; beyond 100, which leaves room for labels, none."""
    return FuncFormatter(lambda value, _place: f"{value:.3g} %" if value <= 100 else "")


def words(name: str) -> str:
    """NO_MARKET as people read it."""
    return name.replace("_", " ").lower()


def short(text: str, most: int = 28) -> str:
    """Cut to `most` characters, the last of which then says so."""
    return text if len(text) <= most else text[: most - 1] + "…"


def distinct(texts: Sequence[str], most: int = 28) -> list[str]:
    """Each cut to `most` characters; those that would read the same are numbered."""
    cut = [short(text, most) for text in texts]
    seen: Counter[str] = Counter()
    labels = []
    for text in cut:
        seen[text] += 1
        labels.append(text if cut.count(text) == 1 else f"{text} ({seen[text]})")
    return labels
