"""The replica against its source: compare, repair, compare again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from regworkers_core.operations.runbooks.runbook_report import Finding, RunbookReport

NAME = "out-of-sync"


@dataclass(frozen=True, slots=True)
class Compared:
    """What one comparison found: `differences` by class, those that are only late left out, with `meanings` of them
    and a few ids as `samples`; `advice` is what its repair says, empty: it made none, or nothing is left to do.
    """

    clean: bool
    source: int
    replica: int
    differences: Mapping[str, int]
    seconds: float
    meanings: Mapping[str, str] = field(default_factory=dict)
    samples: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    advice: str = ""


def judged(
    campaign_id: str | None, before: Compared, repaired: str = "", after: Compared | None = None
) -> RunbookReport:
    """`repaired` is what the repair did in one line, `after` the comparison that followed it."""
    last = after or before
    tables = {
        "differences": [
            {
                "class": name,
                "found": number,
                "left": None if after is None else after.differences.get(name, 0),
                "forExample": ", ".join(before.samples.get(name, ())[:3]),
                "meaning": before.meanings.get(name, ""),
            }
            for name, number in {**dict.fromkeys(last.differences, 0), **before.differences}.items()
        ]
    }
    facts = {
        "campaign": campaign_id or "all",
        "source": last.source,
        "replica": last.replica,
        "differences": sum(last.differences.values()),
        "seconds": round(before.seconds + (after.seconds if after else 0.0), 3),
    }
    of = f" --campaign {campaign_id}" if campaign_id else ""
    repair = f"regworkers runbook {NAME}{of} --yes"
    # No repair heals these by itself: an operator says that the source is right.
    cures = {"ahead": f"regworkers reconcile{of} --repair --dry-run"}
    findings = tuple(
        Finding(f"{number} entries are {name}", cures.get(name) or last.advice or repair)
        for name, number in last.differences.items()
        if number
    )
    if last.clean:
        summary = f"{last.source} entries agree" + (" after the repair" if after and not before.clean else "")
    else:
        found = ", ".join(f"{number} {name}" for name, number in last.differences.items() if number)
        summary = f"{found}" + (" left after the repair" if after else "")
    steps = [cures.get(name, repair) for name in last.differences]
    next_step = "" if last.clean or after or not steps else repair if repair in steps else steps[0]
    return RunbookReport(NAME, summary, facts, tables, findings, repaired, next_step)
