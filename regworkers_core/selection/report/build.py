"""The report of a drawn phase: numbers, notes and plots as an HTML page and as Markdown, before its publication."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from fairdraw.documents import as_document, as_json
from fairdraw.terms import ALGORITHM
from regworkers_core.operation import Remark
from regworkers_core.reporting import counted, markdown_image, markdown_table, page, percent
from regworkers_core.selection.report.arrivals import arrivals
from regworkers_core.selection.report.audit import bias_audit
from regworkers_core.selection.report.inputs import DrawnPhase, ReportContext, ReportFiles, Workspace
from regworkers_core.selection.report.notes import notes, seed_source, stages, verdict
from regworkers_core.selection.report.odds import (
    funnel,
    group_odds,
    market_odds,
    preferences_honoured,
    prepare,
    reserves,
    strikes,
    transitions,
)

MEMORY_MIB = 700
DIMENSIONS = {
    "registrationTime": "Registration time",
    "registrationDay": "Registration day",
    "refPrefix": "First character of the ref",
    "entryIdPrefix": "First distinguishing character of the entry id",
    "mailDomain": "Mail domain",
    "householdSize": "Size of household",
    "weight": "Weight",
}
_MARKETS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class DrawReport:
    """A report on one phase."""

    # A JSON document without data or ids of fans.
    numbers: Mapping[str, Any]
    # They start with the most severe.
    notes: Sequence[Remark]
    # PNGs by name, in the order of the page.
    plots: Mapping[str, bytes]
    # The page.
    html: str

    @property
    def findings(self) -> tuple[str, ...]:
        """Reasons against the publication."""
        return tuple(note.text for note in self.notes if note.level == "finding")

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(note.text for note in self.notes if note.level == "warning")


def build_report(
    files: ReportFiles,
    context: ReportContext | None = None,
    *,
    memory_mib: int = MEMORY_MIB,
    scratch: Path | None = None,
) -> DrawReport:
    """Read the files, count, audit and plot, without any server.

    Ten million leaves need `memory_mib` for the process, the rest is spilled to a folder in `scratch`. Raises
    UsageError for files that are missing or belong to different draws.
    """
    # Imported late: Matplotlib takes a second to load, and most commands need no plots.
    from regworkers_core.selection.report.plots import plots

    context = context or ReportContext()
    numbers, found = measured(files, context, memory_mib=memory_mib, scratch=scratch)
    drawn = plots(numbers, context.market_names)
    return DrawReport(numbers, found, drawn, html_page(numbers, drawn, context))


class Measured(NamedTuple):
    numbers: dict[str, Any]
    notes: list[Remark]


def measured(
    files: ReportFiles, context: ReportContext, *, memory_mib: int = MEMORY_MIB, scratch: Path | None = None
) -> Measured:
    """A report without plots and page. Raises as `build_report`."""
    drawn = DrawnPhase.read(files)
    with Workspace(files, memory_mib=memory_mib, scratch=scratch) as work:
        numbers = _numbers(files, work, drawn, context)
    found = notes(numbers, drawn.manifest, context)
    numbers["notes"] = as_json(found)
    return Measured(numbers, found)


def _numbers(
    files: ReportFiles, work: Workspace, drawn: DrawnPhase, context: ReportContext
) -> dict[str, Any]:
    manifest = drawn.manifest
    prepare(work, files, drawn)
    markets = market_odds(work, drawn)
    return {
        **as_document(manifest, "campaign_id", "phase", "as_of"),
        "rules": {"algorithm": ALGORITHM, **as_document(manifest, "wins_per_unit", "waitlist_size")},
        "hashes": {"root": manifest.root, **drawn.hashes},
        "seedSource": seed_source(manifest, context),
        "funnel": funnel(files, work),
        "markets": markets,
        "reserves": reserves(drawn, work),
        "strikes": strikes(work, files),
        **group_odds(work),
        "preferences": preferences_honoured(work),
        "arrivals": arrivals(work, [each["marketId"] for each in markets]),
        "topUp": transitions(work) if manifest.phase > 1 else None,
        "audit": bias_audit(work),
    }


def html_page(numbers: Mapping[str, Any], plots: Mapping[str, bytes], context: ReportContext) -> str:
    """The page of a report's `numbers`, with the plots (PNG by name) inside."""
    return page(
        "draw_report",
        title=f"Draw report: {context.campaign_name or numbers['campaignId']}, phase {numbers['phase']}",
        numbers=numbers,
        plots=plots,
        context=context,
        verdict=verdict(numbers["audit"]),
        dimensions=DIMENSIONS,
    )


def images(report: DrawReport) -> dict[str, str]:
    return {name: markdown_image(name, png) for name, png in report.plots.items()}


def overview(report: DrawReport) -> str:
    """Notes, funnel, markets and the audit's verdict as Markdown, without plots."""
    numbers = report.numbers
    audit, markets = numbers["audit"], numbers["markets"]
    counts = [(stage.text, stage.entries) for stage in stages(numbers["funnel"])]
    columns = ("market", "seats", "first choice", "any choice", "winners", "win rate")
    rows = [
        (
            market["marketId"],
            market["seats"],
            market["firstChoice"],
            market["anyChoice"],
            market["winners"],
            percent(market["winRate"]),
        )
        for market in markets[:_MARKETS_SHOWN]
    ]
    lines = [f"**{note['level'].capitalize()}:** {note['text']}\n" for note in numbers["notes"]]
    lines += [markdown_table(("funnel", "entries"), counts), "", markdown_table(columns, rows)]
    if (more := len(markets) - _MARKETS_SHOWN) > 0:
        lines.append(f"\n… and {more} more in report.html")
    lines.append(
        f"\nBias audit **{verdict(audit)}**: {counted(audit['testsMade'], 'test')} over"
        f" {counted(audit['audited'], 'candidate')}."
    )
    return "\n".join(lines)
