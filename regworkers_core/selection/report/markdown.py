"""The report for a metadata view that renders markdown: plots inline, tables short."""

from __future__ import annotations

from regworkers_core.reporting.markdown import image
from regworkers_core.selection.report.build import DrawReport
from regworkers_core.selection.report.notes import verdict

_MARKETS_SHOWN = 20


def images(report: DrawReport) -> dict[str, str]:
    """Every plot as markdown, by name."""
    return {name: image(name, png) for name, png in report.plots.items()}


def overview(report: DrawReport) -> str:
    """Notes, funnel, markets and the audit's verdict, without plots."""
    numbers = report.numbers
    funnel = numbers["funnel"]
    lines = [f"**{note.level.capitalize()}:** {note.text}\n" for note in report.notes]
    lines += ["| funnel | entries |", "|---|---:|", f"| registered | {funnel['registered']:,} |"]
    lines += [f"| excluded: {reason} | {count:,} |" for reason, count in funnel["reasons"].items()]
    lines += [f"| eligible | {funnel['eligible']:,} |", f"| candidates | {funnel['candidates']:,} |"]
    lines += [f"| {outcome} | {count:,} |" for outcome, count in funnel["outcomes"].items()]
    lines += [
        "",
        "| market | seats | first choice | any choice | winners | win rate |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for market in numbers["markets"][:_MARKETS_SHOWN]:
        rate = "–" if market["winRate"] is None else f"{100 * market['winRate']:.3g} %"
        lines.append(
            f"| {market['marketId']} | {market['seats']:,} | {market['firstChoice']:,} | {market['anyChoice']:,}"
            f" | {market['winners']:,} | {rate} |"
        )
    if (more := len(numbers["markets"]) - _MARKETS_SHOWN) > 0:
        lines.append(f"\n… and {more} more in report.html")
    audit = numbers["audit"]
    lines.append(
        f"\nBias audit **{verdict(audit)}**: {audit['testsMade']} tests over {audit['audited']:,} candidates."
    )
    return "\n".join(lines)
