"""From registered to winner: every entry is counted once, and the counts add up."""

from __future__ import annotations

from typing import Any

from regworkers_core.selection.report.inputs import ReportFiles
from regworkers_core.selection.report.workspace import OUTCOMES, Workspace


def funnel(files: ReportFiles, work: Workspace) -> dict[str, Any]:
    """Counts: `registered` = `eligible` + `excluded` (by `reasons`); `eligible` = the sum of `outcomes`;
    `candidates` hold a rank (struck ones keep theirs); `addsUp` says whether all of that holds.
    """
    reasons = {}
    if files.exclusions is not None:
        reasons = dict(
            work.rows(
                "SELECT reason, count(*) FROM read_parquet($path) GROUP BY reason ORDER BY 2 DESC, 1",
                {"path": str(files.exclusions)},
            )
        )
    found = dict(work.rows("SELECT outcome, count(*) FROM leaf GROUP BY outcome"))
    outcomes = {name: found.pop(name, 0) for name in OUTCOMES}
    eligible = work.number("SELECT count(*) FROM leaf")
    candidates, struck_candidates = work.row(
        "SELECT count(*) FILTER (WHERE rank > 0), count(*) FILTER (WHERE rank > 0 AND outcome = 'STRUCK')"
        " FROM leaf"
    )
    excluded = sum(reasons.values())
    decided = outcomes["WINNER"] + outcomes["WAITLIST"] + outcomes["UNSELECTED"]
    return {
        "registered": eligible + excluded,
        "excluded": excluded,
        "reasons": reasons,
        "eligible": eligible,
        "candidates": candidates,
        "outcomes": outcomes,
        "addsUp": not found
        and sum(outcomes.values()) == eligible
        and candidates == decided + struck_candidates,
    }


def transitions(work: Workspace) -> dict[str, Any]:
    """A later phase against the one before: entries by (`from`, `to`), `newWinners`, `struck` now but not
    before, `keptWinners`, and `moved`: winners whose market changed, which must be none.
    """
    moves = work.rows("SELECT previous, outcome, count(*) FROM leaf GROUP BY ALL ORDER BY 1, 2")
    moved = work.number(
        "SELECT count(*) FROM leaf WHERE previous = 'WINNER' AND outcome = 'WINNER'"
        " AND market <> previous_market"
    )

    def total(wanted: str, *, before: bool, after: bool) -> int:
        return sum(n for old, new, n in moves if (old == wanted) is before and (new == wanted) is after)

    return {
        "changes": [{"from": old, "to": new, "entries": n} for old, new, n in moves],
        "keptWinners": total("WINNER", before=True, after=True),
        "newWinners": total("WINNER", before=False, after=True),
        "lostWinners": total("WINNER", before=True, after=False),
        "struck": total("STRUCK", before=False, after=True),
        "moved": moved,
    }
