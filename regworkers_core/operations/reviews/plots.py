"""The plots of the reviews."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from regworkers_core.reporting.figures import (
    BLUE,
    GREEN,
    GREY,
    GRID,
    INK,
    MUTED,
    ORANGE,
    RED,
    distinct,
    figure,
    horizontal_bars,
    legend,
    png,
    short,
    whole_numbers,
)

COLOURS = (BLUE, ORANGE, GREEN, "#8e5ea2", RED, GREY)
_MOST_TICKS = 16


def lines(
    title: str,
    unit: str,
    places: Sequence[str],
    series: Mapping[str, Sequence[float | None]],
    *,
    limit: tuple[str, float] | None = None,
) -> bytes:
    """One line per series over the same places, with gaps for missing values. `limit` is a named dashed line."""
    made, (axis,) = figure(rows=9)
    for number, (name, values) in enumerate(series.items()):
        found = [float("nan") if value is None else value for value in values]
        axis.plot(
            range(len(places)), found, color=COLOURS[number % len(COLOURS)], label=name, marker="o", ms=4
        )
    if limit is not None:
        axis.axhline(limit[1], color=RED, linestyle="--", linewidth=1, label=limit[0])
    ticks = range(0, len(places), -(-len(places) // _MOST_TICKS) or 1)
    axis.set_xticks(list(ticks), [places[at] for at in ticks], rotation=35, ha="right")
    most = max((value for values in series.values() for value in values if value is not None), default=0.0)
    axis.set_ylim(0, 1.15 * max(most, limit[1] if limit else 0.0) or None)
    axis.set_title(title, loc="left", color=INK)
    axis.set_ylabel(unit, color=MUTED)
    axis.grid(axis="y", color=GRID)
    legend(axis, min(len(series) + (limit is not None), 4))
    return png(made)


def columns(title: str, unit: str, places: Sequence[str], series: Mapping[str, Sequence[int]]) -> bytes:
    """Stacked columns, one per place."""
    made, (axis,) = figure(rows=9)
    below = [0] * len(places)
    for number, (name, values) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        axis.bar(range(len(places)), values, bottom=below, color=colour, label=short(name), width=0.7)
        below = [under + value for under, value in zip(below, values, strict=True)]
    axis.set_xticks(range(len(places)), list(places), rotation=35, ha="right")
    whole_numbers(axis.yaxis)
    axis.set_title(title, loc="left", color=INK)
    axis.set_ylabel(unit, color=MUTED)
    axis.grid(axis="y", color=GRID)
    legend(axis, min(len(series), 3))
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
    """One bar per name, those in `red` in that colour. `limit` is a named dashed line."""
    made, (axis,) = figure(rows=2 * len(values))
    colours = [RED if name in red else BLUE for name in values]
    horizontal_bars(axis, distinct(list(values), 40), list(values.values()), colours, texts)
    if limit is not None:
        axis.axvline(limit[1], color=RED, linestyle="--", linewidth=1, label=limit[0])
        legend(axis, 1)
    axis.set_title(title, loc="left", color=INK)
    axis.set_xlabel(unit, color=MUTED)
    return png(made)
