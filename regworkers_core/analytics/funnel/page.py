"""The funnel for people: as markdown for the asset's metadata, and as a self-contained page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import NamedTuple

import pandas as pd
from matplotlib.axes import Axes

from regworkers_core.analytics.funnel.funnel_report import Funnel
from regworkers_core.analytics.funnel.stages import STAGES, Stage
from regworkers_core.reporting.figures import (
    BAND,
    BLUE,
    GREEN,
    GREY,
    GRID,
    INK,
    MUTED,
    ORANGE,
    distinct,
    figure,
    horizontal_bars,
    legend,
    png,
    short,
    whole_numbers,
)
from regworkers_core.reporting.markdown import image as markdown_image
from regworkers_core.reporting.page import image, page, percent, said, table

NOT_YET = "not yet"
_COLOURS = dict(zip(STAGES, (GREY, BAND, BLUE, ORANGE, "#8e5ea2", GREEN), strict=True))
_MOST_ROWS = 20
_MOST_DAYS = 400
_MOST_TICKS = 16


class Shown(NamedTuple):
    """`markdown` by name, the plots in it; `html` is the page."""

    markdown: Mapping[str, str]
    html: str


def shown(funnel: Funnel) -> Shown:
    """A second for the plots; nothing of a single entry in either."""
    plots = _plots(funnel)
    markdown = {"overview": _overview(funnel)}
    markdown |= {f"plot_{name}": markdown_image(name, plot) for name, plot in plots.items()}
    return Shown(markdown, _page(funnel, plots))


def _plots(funnel: Funnel) -> dict[str, bytes]:
    if not any(funnel.counts.totals.values()):
        return {}
    names = {market.market_id: market.name for market in funnel.campaign.markets}
    return {
        "funnel": _bars(funnel),
        "markets": _groups(funnel, funnel.counts.markets, "By market", names),
        "segments": _groups(funnel, funnel.counts.segments, "By segment", {}),
        "days": _days(funnel),
    }


def _bars(funnel: Funnel) -> bytes:
    made, (axis,) = figure(rows=len(STAGES))
    numbers = [funnel.number(stage) for stage in STAGES]
    texts = [NOT_YET if number is None else f"{number:,}" for number in numbers]
    colours = [_COLOURS[stage] for stage in STAGES]
    horizontal_bars(axis, list(STAGES), [number or 0 for number in numbers], colours, texts)
    axis.set_title(f"Funnel of {short(funnel.campaign.name, 50)}", loc="left", color=INK)
    axis.set_xlabel("entries", color=MUTED)
    return png(made)


def _groups(funnel: Funnel, frame: pd.DataFrame, title: str, names: Mapping[str, str]) -> bytes:
    """A group of bars for each of the largest rows, one bar a stage that was reached."""
    largest = frame.assign(most=frame.max(axis=1)).nlargest(_MOST_ROWS, "most").index
    drawn = frame.loc[[key for key in frame.index if key in set(largest)]]
    stages = _reached(funnel)
    made, (axis,) = figure(rows=len(drawn) * (1 + 0.6 * len(stages)))
    height = 0.8 / len(stages)
    for at, stage in enumerate(stages):
        places = [row + (at - (len(stages) - 1) / 2) * height for row in range(len(drawn))]
        axis.barh(
            places, drawn[stage.value].tolist(), height=height, color=_COLOURS[stage], label=stage.value
        )
    axis.set_yticks(range(len(drawn)), distinct([names.get(str(key)) or str(key) for key in drawn.index]))
    axis.invert_yaxis()
    whole_numbers(axis.xaxis)
    more = f" (the {_MOST_ROWS} largest)" if len(frame) > len(drawn) else ""
    _finish(axis, title + more, "x", len(stages))
    return png(made)


def _days(funnel: Funnel) -> bytes:
    frame = funnel.counts.days.tail(_MOST_DAYS)
    made, (axis,) = figure(rows=9)
    for stage in _reached(funnel):
        axis.plot(
            range(len(frame)),
            frame[stage.value].tolist(),
            color=_COLOURS[stage],
            label=stage.value,
            marker=".",
        )
    ticks = range(0, len(frame), -(-len(frame) // _MOST_TICKS))
    axis.set_xticks(ticks, [str(frame.index[at]) for at in ticks], rotation=35, ha="right")
    axis.set_ylim(bottom=0)
    whole_numbers(axis.yaxis)
    _finish(axis, "By day of registration (UTC)", "y", len(_reached(funnel)))
    return png(made)


def _finish(axis: Axes, title: str, grid: str, columns: int) -> None:
    axis.set_title(title, loc="left", color=INK)
    label = axis.set_xlabel if grid == "x" else axis.set_ylabel
    label("entries", color=MUTED)
    axis.grid(axis="x" if grid == "x" else "y", color=GRID)
    legend(axis, min(columns, 3))


def _reached(funnel: Funnel) -> list[Stage]:
    return [stage for stage in STAGES if stage not in funnel.pending]


def stage_rows(funnel: Funnel) -> list[tuple[str, str, str]]:
    """Stage, entries, share of those registered; or why there is no number."""
    registered = funnel.number(Stage.REGISTERED) or 0
    rows = []
    for stage in STAGES:
        number = funnel.number(stage)
        if number is None:
            rows.append((stage.value, NOT_YET, funnel.pending[stage]))
        else:
            rows.append((stage.value, f"{number:,}", percent(number / registered if registered else None)))
    return rows


def _overview(funnel: Funnel) -> str:
    lines = ["| | entries | of those registered |", "|---|---:|---:|"]
    lines += [f"| {name} | {number} | {share} |" for name, number, share in stage_rows(funnel)]
    lines += ["", *(f"- **{remark.level}**: {remark.text}" for remark in funnel.remarks)]
    return "\n".join(lines)


def _page(funnel: Funnel, plots: Mapping[str, bytes]) -> str:
    campaign = funnel.campaign
    names = {market.market_id: market.name for market in campaign.markets}
    drawn = "" if funnel.phase is None else f", phase {funnel.phase} of its draw"
    parts = [
        f"<h1>{escape(f'Funnel: {campaign.name}')}</h1>",
        f'<p class="muted">campaign <code>{escape(campaign.campaign_id)}</code>, {campaign.status.value}{drawn}, '
        f"as of {escape(funnel.at)}.</p>",
        *(said(remark.level, remark.text) for remark in funnel.remarks),
        table(("stage", "entries", "of those registered"), stage_rows(funnel)),
        image(plots, "funnel", "entries by stage"),
        "<h2>By market</h2>",
        "<p>Up to eligible an entry counts in every market that it wishes for, from won on in the one it won: the "
        "first columns add up to more than there are entries.</p>",
        _table(funnel, funnel.counts.markets, names),
        image(plots, "markets", "entries by market and stage"),
        "<h2>By segment</h2>",
        "<p>An entry counts in each of its segments.</p>",
        _table(funnel, funnel.counts.segments, {}),
        image(plots, "segments", "entries by segment and stage"),
        "<h2>By day</h2>",
        "<p>By the day (UTC) of registration in every column, so each column adds up to its stage.</p>",
        image(plots, "days", "entries by day of registration and stage"),
        _table(funnel, funnel.counts.days, {}),
        *_beside(funnel),
        "<h2>Where the numbers come from</h2>",
        "<dl>" + "".join(f"<dt>{stage}</dt><dd>{escape(stage.source)}</dd>" for stage in STAGES) + "</dl>",
    ]
    return page(f"Funnel of {campaign.name}", "\n".join(parts))


def _beside(funnel: Funnel) -> list[str]:
    """What is no stage: why entries were excluded, who else was told something."""
    parts: list[str] = []
    for title, columns, counts in (
        ("Excluded by the judgement", ("first reason", "entries"), funnel.excluded),
        ("Messages sent", ("type", "entries"), funnel.counts.told),
        ("Messages superseded, and never sent", ("type", "entries"), funnel.counts.superseded),
    ):
        if counts:
            parts += [
                f"<h2>{title}</h2>",
                table(
                    columns, [(name, counts[name]) for name in sorted(counts, key=lambda each: -counts[each])]
                ),
            ]
    return parts


def _table(funnel: Funnel, frame: pd.DataFrame, names: Mapping[str, str]) -> str:
    head = str(frame.index.name)
    rows: list[Sequence[object]] = []
    for each in funnel.rows(frame):
        numbers = [NOT_YET if each[stage.value] is None else each[stage.value] for stage in STAGES]
        rows.append((names.get(each[head]) or each[head], *numbers))
    return table((head, *STAGES), rows)
