"""What a recovery drill found: how long the replica takes to be rebuilt, and whether it comes out equal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from fairdraw.documents import as_document

Ended: TypeAlias = Literal["finished", "most_entries", "stopped", "dependency_down"]


@dataclass(frozen=True, slots=True)
class DrillResult:
    """One drill: entries of the source are replayed into an empty replica, which is then compared."""

    ended: Ended  # how
    read: int  # entries of the source that were replayed
    saved: int  # those of them that the replica took
    refused: int  # those without a valid entry: live saves refuse them, too
    gone: int  # those removed since they were listed
    # How many entries the rebuilt replica holds otherwise than the source was read, by class.
    differences: Mapping[str, int]
    samples: tuple[str, ...]  # ids of some of those, as `campaignId:entryId`
    seconds: float  # of the rebuild alone
    compare_seconds: float
    total: int | None  # entries that a whole rebuild would replay; None: not known
    limit_per_second: float  # the rate above which no backfill sends
    objective_seconds: float
    scratch: str  # the name of the rebuilt database
    dropped: bool  # whether that was deleted
    unavailable: str = ""  # the dependency that ended the drill
    refused_example: str = ""  # the id of one that was refused

    @property
    def per_second(self) -> float | None:
        """Entries a second, of one process; None when nothing was replayed."""
        return self.read / self.seconds if self.read and self.seconds > 0 else None

    @property
    def estimate_seconds(self) -> float | None:
        """How long all entries would take at this rate."""
        rate = self.per_second
        return None if rate is None or self.total is None else self.total / rate

    @property
    def processes_needed(self) -> int | None:
        """How many save drains at this rate keep the objective; 0 when there is nothing to rebuild."""
        estimate = self.estimate_seconds
        return None if estimate is None else math.ceil(estimate / self.objective_seconds)

    @property
    def findings(self) -> list[str]:
        """The findings, a line each; empty if the drill passed."""
        found = []
        if self.ended == "stopped":
            found.append("the drill was stopped before its end: it proves nothing")
        if self.ended == "dependency_down":
            found.append(f"{self.unavailable} did not answer: the drill did not come to its end")
        differing = sum(self.differences.values())
        if differing:
            kinds = ", ".join(f"{number:,} {kind}" for kind, number in self.differences.items() if number)
            found.append(
                f"the rebuilt replica differs from the source: {kinds}; for example {', '.join(self.samples)}"
            )
        if not self.dropped:
            found.append(f"the scratch database {self.scratch} could not be dropped: it holds fans' data")
        estimate = self.estimate_seconds
        if estimate is not None and estimate > self.objective_seconds:
            found.append(
                f"one process rebuilds {self.total:,} entries in {estimate / 60:,.0f} minutes, the objective is "
                f"{self.objective_seconds / 60:,.0f}: {self.processes_needed} save drains are needed"
            )
        if self.total is not None and self.total / self.limit_per_second > self.objective_seconds:
            found.append(
                f"a backfill of {self.total:,} entries at {self.limit_per_second:,.0f} a second "
                "(replication.backfillItemsPerSecond) alone takes longer than the objective"
            )
        return found

    @property
    def passed(self) -> bool:
        return not self.findings

    def as_dict(self) -> dict[str, Any]:
        return {
            **as_document(self, "passed", "ended", "read", "saved", "refused"),
            "refusedExample": self.refused_example or None,
            **as_document(self, "gone", "differences", "samples"),
            "seconds": round(self.seconds, 3),
            "compareSeconds": round(self.compare_seconds, 3),
            "perSecond": _rounded(self.per_second),
            "totalEntries": self.total,
            "estimateSeconds": _rounded(self.estimate_seconds),
            **as_document(self, "objective_seconds", "processes_needed"),
            "backfillPerSecond": self.limit_per_second,
            "scratchDatabase": self.scratch,
            "scratchDropped": self.dropped,
            "findings": self.findings,
        }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
