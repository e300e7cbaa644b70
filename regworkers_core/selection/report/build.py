"""The report of a drawn phase, made before anyone confirms its publication."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regworkers_core.selection.report.audit import bias_audit
from regworkers_core.selection.report.funnel import funnel, transitions
from regworkers_core.selection.report.html import html_page
from regworkers_core.selection.report.inputs import ReportContext, ReportFiles, Terms
from regworkers_core.selection.report.notes import Level, Note, notes, seed_source
from regworkers_core.selection.report.odds import (
    market_odds,
    preferences_honoured,
    prepare,
    segment_odds,
)
from regworkers_core.selection.report.workspace import Workspace

MEMORY_MIB = 700


@dataclass(frozen=True, slots=True)
class DrawReport:
    """`numbers` is a JSON document without any fan's data or id; `notes` the gravest first; `plots` PNG by
    name, in the order of the page; `html` the self-contained page.
    """

    numbers: Mapping[str, Any]
    notes: Sequence[Note]
    plots: Mapping[str, bytes]
    html: str

    @property
    def findings(self) -> tuple[str, ...]:
        """What speaks against publishing; empty when nothing does."""
        return tuple(note.text for note in self.notes if note.level is Level.FINDING)

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(note.text for note in self.notes if note.level is Level.WARNING)


def build_report(
    files: ReportFiles,
    context: ReportContext | None = None,
    *,
    memory_mib: int = MEMORY_MIB,
    scratch: Path | None = None,
) -> DrawReport:
    """Read the files, count, audit, plot. Needs no server; ten million leaves within `memory_mib` for the
    process, spilling to a folder in `scratch`. Raises UsageError when the files are missing or not of one draw.
    """
    # Matplotlib takes a second to load, which no other command should pay for.
    from regworkers_core.selection.report.plots import plots

    context = context or ReportContext()
    numbers, found = measured(files, context, memory_mib=memory_mib, scratch=scratch)
    drawn = plots(numbers, context.market_names)
    return DrawReport(numbers, found, drawn, html_page(numbers, drawn, context))


def measured(
    files: ReportFiles, context: ReportContext, *, memory_mib: int = MEMORY_MIB, scratch: Path | None = None
) -> tuple[dict[str, Any], list[Note]]:
    """The report's numbers and notes, without plots and page. Raises as `build_report`."""
    terms = Terms.read(files.artefacts)
    with Workspace(files, memory_mib=memory_mib, scratch=scratch) as work:
        numbers = _numbers(files, work, terms, context)
    found = notes(numbers, terms, context)
    numbers["notes"] = [note.as_dict() for note in found]
    return numbers, found


def _numbers(files: ReportFiles, work: Workspace, terms: Terms, context: ReportContext) -> dict[str, Any]:
    prepare(work, terms)
    audit = bias_audit(work)
    return {
        "campaignId": terms.campaign_id,
        "phase": terms.phase,
        "asOf": terms.as_of,
        "rules": {
            "algorithm": terms.algorithm,
            "winsPerUnit": terms.wins_per_unit,
            "waitlistSize": terms.waitlist_size,
        },
        "hashes": {
            "root": terms.root,
            "manifestHash": terms.manifest_hash,
            "resultHash": terms.result_hash,
            "cutoffsHash": terms.cutoffs_hash,
        },
        "seedSource": seed_source(terms, context),
        "funnel": funnel(files, work),
        "markets": market_odds(work, terms),
        "segments": segment_odds(work),
        "weights": _weights(work, audit),
        "preferences": preferences_honoured(work),
        "topUp": transitions(work) if terms.phase > 1 else None,
        "audit": audit,
    }


def _weights(work: Workspace, audit: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Per weight of a unit: `units`, `winners` (entries) and candidates, and the share of its units among the
    first ranks against what the weight promises (weights with few units are pooled).
    """
    won = work.rows(
        "SELECT weight, count(*) FILTER (WHERE first), count(*), count(*) FILTER (WHERE outcome = 'WINNER')"
        " FROM leaf WHERE rank > 0 GROUP BY weight ORDER BY weight"
    )
    test = next(test for test in audit["tests"] if test["dimension"] == "weight")
    rows = []
    for group in test["groups"]:
        low, _, high = group["group"].partition(" to ")
        members = [row for row in won if int(low) <= row[0] <= int(high or low)]
        units = group["candidates"]
        winners, candidates = sum(row[3] for row in members), sum(row[2] for row in members)
        rows.append(
            {
                "weight": group["group"],
                "units": units,
                "candidates": candidates,
                "winners": winners,
                "winRate": winners / candidates if candidates else None,
                "firstShare": group["hits"] / units,
                "expectedShare": group["expected"] / units,
                "lowShare": group["low"] / units,
                "highShare": group["high"] / units,
            }
        )
    return rows
