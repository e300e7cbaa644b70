"""The funnel for people: Markdown for the metadata of the asset, and the stored HTML page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from regworkers_core.analytics.funnel.funnel_report import Funnel, make_funnel
from regworkers_core.analytics.funnel.staging import STAGES, Stage
from regworkers_core.domain.campaign import Campaign
from regworkers_core.reporting.figures import (
    BAND,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    distinct,
    figure,
    horizontal_bars,
    lines,
    png,
    short,
    titled,
    whole_numbers,
)
from regworkers_core.reporting.pages import markdown_image, markdown_table, page, percent
from regworkers_core.runtime import Runtime

NOT_YET = "not yet"
_COLOURS = dict(zip(STAGES, (GREY, BAND, BLUE, ORANGE, PURPLE, GREEN), strict=True))
_MOST_ROWS = 20
_MOST_DAYS = 400


class RenderedFunnel(NamedTuple):
    """The rendered funnel: `markdown` by name, with inline plots, and the page."""

    markdown: Mapping[str, str]
    html: str


def shown(funnel: Funnel) -> RenderedFunnel:
    """Render the funnel, without data of single entries. The plots take about a second."""
    plots = _plots(funnel)
    markdown = {"overview": _overview(funnel)}
    markdown |= {f"plot_{name}": markdown_image(name, plot) for name, plot in plots.items()}
    return RenderedFunnel(markdown, _page(funnel, plots))


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
    titled(axis, f"Funnel of {short(funnel.campaign.name, 50)}", "entries")
    return png(made)


def _groups(funnel: Funnel, frame: pd.DataFrame, title: str, names: Mapping[str, str]) -> bytes:
    """A group of bars for each of the largest rows, with one bar per stage that was reached."""
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
    titled(axis, title + more, "entries", columns=min(len(stages), 3))
    return png(made)


def _days(funnel: Funnel) -> bytes:
    frame, stages = funnel.counts.days.tail(_MOST_DAYS), _reached(funnel)
    series = {stage.value: [int(number) for number in frame[stage.value]] for stage in stages}
    colours = [_COLOURS[stage] for stage in stages]
    return lines("By day of registration (UTC)", "entries", list(map(str, frame.index)), series, colours)


def _reached(funnel: Funnel) -> list[Stage]:
    return [stage for stage in STAGES if stage not in funnel.pending]


def stage_rows(funnel: Funnel) -> list[tuple[str, str, str]]:
    """Stage, entries and share of those registered, or the reason for which there is no number."""
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
    table = markdown_table(("", "entries", "of those registered"), stage_rows(funnel))
    return "\n".join([table, "", *(f"- **{remark.level}**: {remark.text}" for remark in funnel.remarks)])


def _page(funnel: Funnel, plots: Mapping[str, bytes]) -> str:
    names = {market.market_id: market.name for market in funnel.campaign.markets}
    return page(
        "funnel",
        title=f"Funnel: {funnel.campaign.name}",
        funnel=funnel,
        plots=plots,
        stages=STAGES,
        stage_rows=stage_rows(funnel),
        markets=_rows(funnel, funnel.counts.markets, names),
        segments=_rows(funnel, funnel.counts.segments, {}),
        days=_rows(funnel, funnel.counts.days, {}),
        # Why entries were excluded, and messages that are no stage.
        other_counts=(
            ("Excluded as ineligible", "first reason", funnel.excluded),
            ("Messages sent", "type", funnel.counts.sent),
            ("Messages superseded and never sent", "type", funnel.counts.superseded),
        ),
    )


def _rows(funnel: Funnel, frame: pd.DataFrame, names: Mapping[str, str]) -> list[Sequence[object]]:
    name = str(frame.index.name)
    return [
        (
            names.get(each[name]) or each[name],
            *(NOT_YET if each[stage.value] is None else each[stage.value] for stage in STAGES),
        )
        for each in funnel.rows(frame)
    ]


class PublishedFunnel(NamedTuple):
    """A stored funnel. `where` is the address of the page."""

    funnel: Funnel
    shown: RenderedFunnel
    where: str


def publish_funnel(
    runtime: Runtime, campaign: Campaign, tell: Callable[[str], None] = lambda _text: None
) -> PublishedFunnel:
    """Make the funnel and replace its stored page. Raises TransientFailure."""
    funnel = make_funnel(runtime, campaign, tell)
    made = shown(funnel)
    key = f"reports/{campaign.campaign_id}/funnel.html"
    runtime.objects.put_bytes(key, made.html.encode())
    return PublishedFunnel(funnel, made, f"s3://{runtime.objects.bucket}/{key}")
