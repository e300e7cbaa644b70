"""The plots of a draw's report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.reporting.figures import (
    BAND,
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    INK,
    MOST_TICKS,
    MUTED,
    ORANGE,
    RED,
    distinct,
    figure,
    horizontal_bars,
    legend,
    percents,
    png,
    short,
    titled,
    whole_numbers,
)
from regworkers_core.selection.report.arrivals import ALL, HOUR_SECONDS, LISTED
from regworkers_core.selection.report.notes import Stage, stages

# First hour since the epoch, hours, entries an hour.
_Rates = list[tuple[int, int, float]]
OUTCOME_COLOURS = {
    "WINNER": GREEN,
    "WAITLIST": BLUE,
    "UNSELECTED": GREY,
    "HOUSEHOLD_LIMIT": ORANGE,
    "STRUCK": RED,
    "UNCLAIMED": RED,
}
# Curves of the hours in which entries were made.
ARRIVALS = {
    "arrivals": "Entries by hour",
    "arrivals-markets": "Entries that listed a market, by hour",
    "arrivals-householdSizes": "Entries by hour and size of household",
    "arrivals-vouchers": "Entries by hour and who vouched for the address",
}
_GROUPS = {
    "householdSizes": "Win rate by size of household",
    "weights": "Win rate by weight",
    "segments": "Win rate by segment",
}
# Bar charts are readable up to this number; the tables list all rows.
_MOST_BARS = 30
# Labels have two lines of up to ten characters.
_MOST_BAR_LABELS = 8


def plots(
    numbers: Mapping[str, Any], names: Mapping[str, str], written: Callable[[Figure], bytes] = png
) -> dict[str, bytes]:
    """The plots of a report's numbers by name, as PNG or as `written` makes them; without data there is no plot.
    `names` are market names by id.
    """
    made: dict[str, bytes] = {}
    _plot = partial(_plotted, written)
    counts = stages(numbers["funnel"])
    made["funnel"] = _plot(_funnel, counts, rows=len(counts))
    if numbers["markets"]:
        shown = sorted(numbers["markets"], key=lambda market: -market["anyChoice"])[:_MOST_BARS]
        more = f" (the {_MOST_BARS} most wanted)" if len(numbers["markets"]) > _MOST_BARS else ""
        labels = distinct([names.get(market["marketId"]) or market["marketId"] for market in shown])
        made["markets"] = _plot(_demand, shown, labels, more, rows=2 * len(shown))
        made["win-rates"] = _plot(_win_rates, shown, labels, more, rows=2 * len(shown))
    if sum(place["winners"] for place in numbers["preferences"]):
        made["preferences"] = _plot(_preferences, numbers["preferences"][:_MOST_BARS], rows=8)
    for name, title in _GROUPS.items():
        if len(rows := numbers[name]) > 1:
            many = len(rows) > _MOST_BARS
            shown = sorted(rows, key=lambda row: -row["entries"])[:_MOST_BARS] if many else rows
            made[name] = _plot(_groups, shown, title, rows=2 * len(shown))
    made |= {name: _plot(_arrived, *curves, rows=9) for name, curves in _curves(numbers["arrivals"], names)}
    by_dimension: dict[str, list[Mapping[str, Any]]] = {}
    for test in numbers["audit"]["tests"]:
        if test["p"] is not None:
            by_dimension.setdefault(test["dimension"], []).append(test)
    for dimension, tests in by_dimension.items():
        made[f"audit-{dimension}"] = _plot(_audited, tests, rows=9 * len(tests), panels=len(tests))
    return made


def _plotted(
    written: Callable[[Figure], bytes], draw: Callable[..., None], *values: Any, rows: float, panels: int = 1
) -> bytes:
    made, axes = figure(rows, panels)
    draw(axes if panels > 1 or draw is _audited else axes[0], *values)
    return written(made)


def _funnel(axis: Axes, shown: Sequence[Stage]) -> None:
    colours = [OUTCOME_COLOURS.get(each.outcome, RED if each.text[0] == "–" else INK) for each in shown]
    horizontal_bars(axis, [each.text for each in shown], [each.entries for each in shown], colours)
    titled(axis, "From registered to winner", "entries")


def _demand(axis: Axes, markets: Sequence[Mapping[str, Any]], labels: Sequence[str], more: str) -> None:
    places = range(len(markets))
    series = (
        ("any choice", [market["anyChoice"] for market in markets], BAND, 0.8),
        ("first choice", [market["firstChoice"] for market in markets], BLUE, 0.5),
    )
    for name, values, colour, height in series:
        axis.barh(places, values, height=height, color=colour, label=f"entries, {name}")
    axis.plot(
        [market["seats"] for market in markets], places, "|", ms=16, mew=2.5, color=ORANGE, label="seats"
    )
    axis.set_yticks(places, labels)
    axis.invert_yaxis()
    whole_numbers(axis.xaxis)
    titled(axis, f"Demand and seats by market{more}", "entries", columns=3)


def _win_rates(axis: Axes, markets: Sequence[Mapping[str, Any]], labels: Sequence[str], more: str) -> None:
    rates = [100 * (market["winRate"] or 0) for market in markets]
    texts = [
        f"{rate:.3g} %  ({market['winners']:,} of {market['anyChoice']:,})"
        for rate, market in zip(rates, markets, strict=True)
    ]
    horizontal_bars(axis, labels, rates, [GREEN] * len(rates), texts)
    titled(axis, f"Win rate by market{more}", "winners per 100 entries that listed the market")
    axis.xaxis.set_major_formatter(percents())


def _preferences(axis: Axes, places: Sequence[Mapping[str, Any]]) -> None:
    values = [place["winners"] for place in places]
    bars = axis.bar([str(place["place"]) for place in places], values, color=GREEN)
    if len(places) <= _MOST_BAR_LABELS:
        axis.bar_label(
            bars,
            [f"{place['winners']:,}\n{100 * (place['share'] or 0):.1f} %" for place in places],
            padding=3,
            fontsize=9,
        )
    axis.margins(y=0.22)
    axis.set_title("Which of their choices winners got", loc="left", color=INK)
    axis.set_xlabel("place in the fan's preferences", color=MUTED)
    axis.set_ylabel("winners", color=MUTED)
    whole_numbers(axis.yaxis)


def _groups(axis: Axes, groups: Sequence[Mapping[str, Any]], title: str) -> None:
    rates = [100 * (row["winRate"] or 0) for row in groups]
    texts = [
        f"{rate:.3g} %  ({row['winners']:,} of {row['entries']:,})"
        for rate, row in zip(rates, groups, strict=True)
    ]
    horizontal_bars(axis, distinct([row["group"] for row in groups]), rates, [BLUE] * len(rates), texts)
    titled(axis, title, "winners per 100 entries")
    axis.xaxis.set_major_formatter(percents())


def _curves(
    arrivals: Mapping[str, Any], names: Mapping[str, str]
) -> Iterator[tuple[str, tuple[str, dict[str, _Rates]]]]:
    """The plots of arrivals: name, title and curves, of which there is at least one."""
    by_market = {
        names.get(market) or market: rates
        for market, bins in arrivals["markets"].items()
        if (rates := _rates(bins, LISTED))
    }
    most = sorted(by_market, key=lambda name: -sum(hours * rate for _, hours, rate in by_market[name]))
    curves = {
        "arrivals": {"all": _rates(arrivals["all"], ALL)},
        "arrivals-markets": {name: by_market[name] for name in most[: len(COLOURS)]},
        "arrivals-householdSizes": _by_class(arrivals["householdSizes"]),
        "arrivals-vouchers": _by_class(arrivals["vouchers"]),
    }
    return ((name, (ARRIVALS[name], each)) for name, each in curves.items() if any(each.values()))


def _by_class(bins: Sequence[Mapping[str, Any]]) -> dict[str, _Rates]:
    classes = dict.fromkeys(class_ for each in bins for class_ in each["entries"])
    return {class_: _rates(bins, class_) for class_ in classes}


def _rates(bins: Sequence[Mapping[str, Any]], class_: str) -> _Rates:
    """Each bin as its first hour, its hours, and its entries an hour."""
    found = [(each, each["entries"].get(class_, 0)) for each in bins]
    return [
        (int((seconds(each["from"]) or 0) // HOUR_SECONDS), each["hours"], entries / each["hours"])
        for each, entries in found
    ]


def _arrived(axis: Axes, title: str, curves: Mapping[str, _Rates]) -> None:
    begin = min(rates[0][0] for rates in curves.values() if rates)
    for colour, (name, rates) in zip(cycle(COLOURS), curves.items(), strict=False):
        edges, values = [begin], list[float]()
        for first, hours, rate in rates:
            # No entry came between two bins.
            gap = [(first, 0.0)] if first > edges[-1] else []
            for end, value in (*gap, (first + hours, rate)):
                edges.append(end)
                values.append(value)
        axis.stairs(values, [edge - begin for edge in edges], color=colour, label=short(name))
    axis.xaxis.set_major_formatter(
        FuncFormatter(lambda hour, _place: iso((begin + hour) * HOUR_SECONDS)[5:16].replace("T", " "))
    )
    axis.tick_params(axis="x", rotation=35)
    axis.set_ylim(bottom=0)
    titled(axis, title, "entries an hour", along="y", columns=4 if len(curves) > 1 else 0)


def _audited(axes: Sequence[Axes], tests: Sequence[Mapping[str, Any]]) -> None:
    for axis, test in zip(axes, tests, strict=True):
        groups = test["groups"]
        places = range(len(groups))
        expected = [group["expected"] or 1 for group in groups]
        found = [group["hits"] / e for group, e in zip(groups, expected, strict=True)]
        low = [group["low"] / e for group, e in zip(groups, expected, strict=True)]
        high = [group["high"] / e for group, e in zip(groups, expected, strict=True)]
        axis.bar(
            places,
            [h - lo for h, lo in zip(high, low, strict=True)],
            bottom=low,
            color=BAND,
            width=0.9,
            label="99.9 % of fair draws",
        )
        axis.axhline(1, color=MUTED, lw=1)
        outside = [not lo <= value <= hi for lo, value, hi in zip(low, found, high, strict=True)]
        axis.scatter(
            places, found, c=[RED if out else BLUE for out in outside], s=26, zorder=3, label="found"
        )
        step = -(-len(groups) // MOST_TICKS)
        ticks = range(0, len(groups), step)
        long = max(len(str(groups[n]["group"])) for n in ticks) > 4
        axis.set_xticks(
            ticks,
            distinct([str(groups[n]["group"]).split(" to ")[0] for n in ticks], 26),
            rotation=35 if long else 0,
            ha="right" if long else "center",
        )
        what = "first ranks" if test["question"] == "order" else "winners among equal preferences"
        verdict = "even" if test["passed"] else "NOT EVEN"
        axis.set_title(
            f"{test['title'].capitalize()}: {what} are {verdict} (p = {test['p']:.2g})",
            loc="left",
            color=INK if test["passed"] else RED,
            fontsize=11,
        )
        axis.set_ylabel("found / expected", color=MUTED)
        axis.set_ylim(bottom=0, top=max(1.3, 1.08 * max([*found, *high])))
        axis.yaxis.set_major_locator(MaxNLocator(5))
    legend(axes[0], 2)
