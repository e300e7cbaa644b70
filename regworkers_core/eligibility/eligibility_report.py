"""The report of a campaign's judgement: Markdown for the asset's metadata, and an HTML page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from regworkers_core.domain.campaign import Campaign
from regworkers_core.reporting import markdown_image, markdown_table, page, words
from regworkers_core.reporting.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    distinct,
    figure,
    png,
    stacked_columns,
    titled,
    whole_numbers,
)

# Ineligible entries by primary reason; a seventh reason starts again with the first colour.
_COLOURS = (RED, ORANGE, BLUE, GREY, PURPLE, "#5c7f8a")
_ELIGIBLE = "ELIGIBLE"
_MOST_MARKETS = 30


class Report(NamedTuple):
    """`markdown` by name, including the plots."""

    markdown: Mapping[str, str]
    html: str


def made_report(campaign: Campaign, numbers: Mapping[str, Any], codes: Sequence[str]) -> Report:
    """Make the report from `Tally.numbers`; `codes` are in the order in which they are stacked."""
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
    titled(axis, f"By market{more}", "entries", columns=min(len(codes), 4))
    return png(made)


def _days(counts: Mapping[str, Mapping[str, int]], codes: Sequence[str]) -> bytes:
    series = {words(code): [day.get(code, 0) for day in counts.values()] for code, _ in _coloured(codes)}
    colours = [colour for _, colour in _coloured(codes)]
    return stacked_columns("By day of entry (UTC)", "entries", list(counts), series, colours)


def _coloured(codes: Sequence[str]) -> Iterable[tuple[str, str]]:
    others = [code for code in codes if code != _ELIGIBLE]
    if _ELIGIBLE in codes:
        yield _ELIGIBLE, GREEN
    for number, code in enumerate(others):
        yield code, _COLOURS[number % len(_COLOURS)]


def _overview(numbers: Mapping[str, Any]) -> str:
    rows = [("eligible", numbers["eligible"], "")]
    rows += [
        (code, numbers["primaryReasons"].get(code, 0), count)
        for code, count in numbers["failedRules"].items()
    ]
    lines = [
        f"{numbers['entries']:,} entries as of {numbers['asOf']}, rules {numbers['ruleSet']}.",
        "",
        markdown_table(("", "entries", "as one reason of several"), rows),
    ]
    for note in numbers["notes"]:
        lines += ["", note]
    return "\n".join(lines)


def _page(
    campaign: Campaign, numbers: Mapping[str, Any], plots: Mapping[str, bytes], codes: Sequence[str]
) -> str:
    names = {market.market_id: market.name for market in campaign.markets}
    reasons = [code for code in codes if code != _ELIGIBLE]
    markets = {names.get(name, name): each for name, each in numbers["markets"].items()}
    return page(
        "eligibility",
        title=f"Eligibility: {campaign.name}",
        campaign=campaign,
        numbers=numbers,
        plots=plots,
        reasons=reasons,
        markets=_rows(markets, reasons),
        days=_rows(numbers["days"], reasons),
    )


def _rows(counts: Mapping[str, Mapping[str, int]], reasons: Sequence[str]) -> list[tuple[object, ...]]:
    """Name, entries, eligible entries, and the entries of each reason."""
    return [
        (name, sum(each.values()), each.get(_ELIGIBLE, 0), *(each.get(code, 0) for code in reasons))
        for name, each in counts.items()
    ]
