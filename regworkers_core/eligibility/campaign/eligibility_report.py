"""The judgement of a campaign for people: as markdown for the asset's metadata, and as a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, NamedTuple

from matplotlib.axes import Axes

from regworkers_core.domain.campaign import Campaign
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
    legend,
    png,
    whole_numbers,
    words,
)
from regworkers_core.reporting.markdown import image as markdown_image
from regworkers_core.reporting.page import image, page, said, table, tiles

# Ineligible ones by their primary reason; the sixth reason starts again with the first colour.
_COLOURS = (RED, ORANGE, BLUE, GREY, "#8e5ea2", "#5c7f8a")
_ELIGIBLE = "ELIGIBLE"
_MOST_MARKETS = 30
_MOST_TICKS = 16


class Report(NamedTuple):
    """`markdown` by name, the plots in it."""

    markdown: Mapping[str, str]
    html: str


def made_report(campaign: Campaign, numbers: Mapping[str, Any], codes: Sequence[str]) -> Report:
    """From `Tally.numbers`; `codes` in the order in which they are stacked."""
    names = {market.market_id: market.name for market in campaign.markets}
    plots = {}
    if numbers["entries"]:
        plots = {
            "markets": _markets(numbers["markets"], names, codes),
            "days": _days(numbers["days"], codes),
        }
    markdown = {"overview": _overview(numbers)}
    markdown |= {f"plot_{name}": markdown_image(name, plot) for name, plot in plots.items()}
    return Report(markdown, _page(campaign, numbers, plots, codes))


def _markets(
    counts: Mapping[str, Mapping[str, int]], names: Mapping[str, str], codes: Sequence[str]
) -> bytes:
    shown = sorted(counts, key=lambda market: -sum(counts[market].values()))[:_MOST_MARKETS]
    made, (axis,) = figure(rows=2 * len(shown))
    left = [0] * len(shown)
    for code, colour in _coloured(codes):
        values = [counts[market].get(code, 0) for market in shown]
        axis.barh(range(len(shown)), values, left=left, color=colour, label=words(code))
        left = [before + value for before, value in zip(left, values, strict=True)]
    axis.set_yticks(range(len(shown)), distinct([names.get(market) or market for market in shown]))
    axis.invert_yaxis()
    whole_numbers(axis.xaxis)
    more = f" (the {_MOST_MARKETS} most wanted)" if len(counts) > len(shown) else ""
    _finish(axis, f"By market{more}", "x", codes)
    return png(made)


def _days(counts: Mapping[str, Mapping[str, int]], codes: Sequence[str]) -> bytes:
    days = list(counts)
    made, (axis,) = figure(rows=9)
    bottom = [0] * len(days)
    for code, colour in _coloured(codes):
        values = [counts[day].get(code, 0) for day in days]
        axis.bar(range(len(days)), values, bottom=bottom, color=colour, label=words(code), width=0.9)
        bottom = [before + value for before, value in zip(bottom, values, strict=True)]
    ticks = range(0, len(days), -(-len(days) // _MOST_TICKS))
    axis.set_xticks(ticks, [days[n] for n in ticks], rotation=35, ha="right")
    whole_numbers(axis.yaxis)
    _finish(axis, "By day of entry (UTC)", "y", codes)
    return png(made)


def _finish(axis: Axes, title: str, grid: str, codes: Sequence[str]) -> None:
    axis.set_title(title, loc="left", color=INK)
    label = axis.set_xlabel if grid == "x" else axis.set_ylabel
    label("entries", color=MUTED)
    axis.grid(axis="x" if grid == "x" else "y", color=GRID)
    legend(axis, min(len(codes), 4))


def _coloured(codes: Sequence[str]) -> Iterable[tuple[str, str]]:
    others = [code for code in codes if code != _ELIGIBLE]
    if _ELIGIBLE in codes:
        yield _ELIGIBLE, GREEN
    for number, code in enumerate(others):
        yield code, _COLOURS[number % len(_COLOURS)]


def _overview(numbers: Mapping[str, Any]) -> str:
    lines = [
        f"{numbers['entries']:,} entries as of {numbers['asOf']}, rules {numbers['ruleSet']}.",
        "",
        "| | entries | as one reason of several |",
        "|---|---:|---:|",
        f"| eligible | {numbers['eligible']:,} | |",
    ]
    for code, count in numbers["failedRules"].items():
        lines.append(f"| {code} | {numbers['primaryReasons'].get(code, 0):,} | {count:,} |")
    for note in numbers["notes"]:
        lines += ["", note]
    return "\n".join(lines)


def _page(
    campaign: Campaign, numbers: Mapping[str, Any], plots: Mapping[str, bytes], codes: Sequence[str]
) -> str:
    names = {market.market_id: market.name for market in campaign.markets}
    shown = [code for code in codes if code != _ELIGIBLE]
    parts = [
        f"<h1>{escape(f'Eligibility: {campaign.name}')}</h1>",
        f'<p class="muted">campaign <code>{escape(campaign.campaign_id)}</code>, judged as of'
        f" {escape(numbers['asOf'])}, rules {escape(numbers['ruleSet'])}.</p>",
        tiles([(name, numbers[name]) for name in ("entries", "eligible", "ineligible")]),
        *(said("note", note) for note in numbers["notes"]),
        *_why_not(numbers),
        "<h2>By market</h2>",
        '<p class="muted">An entry counts in every market that it lists, by its first reason.</p>',
        image(plots, "markets", "Entries by market and first reason"),
        _counts("market", {names.get(name, name): each for name, each in numbers["markets"].items()}, shown),
        "<h2>By day</h2>",
        image(plots, "days", "Entries by day and first reason"),
        _counts("day", numbers["days"], shown),
    ]
    return page(f"Eligibility: {campaign.name}", "\n".join(parts))


def _why_not(numbers: Mapping[str, Any]) -> Iterable[str]:
    if numbers["failedRules"]:
        yield "<h2>Why not</h2>"
        yield table(
            ("reason", "as the first one", "at all"),
            [
                (code, numbers["primaryReasons"].get(code, 0), count)
                for code, count in numbers["failedRules"].items()
            ],
        )


def _counts(what: str, counts: Mapping[str, Mapping[str, int]], codes: Sequence[str]) -> str:
    return table(
        (what, "entries", "eligible", *codes),
        [
            (name, sum(each.values()), each.get(_ELIGIBLE, 0), *(each.get(code, 0) for code in codes))
            for name, each in counts.items()
        ],
    )
