"""What a reconcile found and, where it was asked to, what its repair did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from regworkers_core.replication.reconcile.acceptance import AcceptanceReport
from regworkers_core.replication.reconcile.classify import EXPLANATIONS, REPAIRABLE, Kind

Counts = Mapping[Kind, int]


def _is_clean(counts: Counts) -> bool:
    return not any(number for kind, number in counts.items() if kind is not Kind.NOT_YET)


@dataclass(frozen=True, slots=True)
class RepairReport:
    """`sent` keys were queued (`removals` of them to bury orphans), `tombstones_deleted` before that; `withheld`
    orphans were left alone, for they would be too many; `healed` agree again, `remaining` is what differs at the
    end, by kind, beyond repair included.
    """

    sent: int
    removals: int
    tombstones_deleted: int
    healed: int
    remaining: Counts
    seconds: float
    withheld: int = 0
    withheld_because: str = ""

    @property
    def in_words(self) -> str:
        """One line: what the repair did."""
        left = sum(number for kind, number in self.remaining.items() if kind is not Kind.NOT_YET)
        return (
            f"repair: queued {self.sent} keys ({self.removals} of them removals), deleted"
            f" {self.tombstones_deleted} tombstones; {self.healed} healed, {left} left after {self.seconds:.1f} s"
        )

    @property
    def advice(self) -> str:
        """What is left to do, empty when nothing is."""
        still = sum(self.remaining[kind] for kind in REPAIRABLE) - self.withheld
        parts = []
        if self.withheld:
            parts.append(
                f"{self.withheld} removals refused: {self.withheld_because}; if the source is the right one,"
                f" repeat with `--yes-remove {self.withheld}` (in Dagster `yes_remove: {self.withheld}`)"
            )
        if still:
            parts.append(
                f"{still} entries were queued and did not arrive yet: run `regworkers drain save` (or see that its"
                " sensor is on), then `regworkers reconcile` once more"
            )
        return "; ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        return {
            "sent": self.sent,
            "removals": self.removals,
            "withheld": self.withheld,
            "tombstonesDeleted": self.tombstones_deleted,
            "healed": self.healed,
            "remaining": {kind.value: number for kind, number in self.remaining.items()},
            "seconds": round(self.seconds, 3),
            "advice": self.advice,
        }


@dataclass(frozen=True, slots=True)
class ReconcileResult:
    """`counts` has every kind, zeros included, as found before any repair; `totals` are `source`, `replica`
    (live), `tombstones`, `matched` and `only_in_replica`; `samples` a few ids (`campaignId:entryId`) by kind.
    """

    campaign_id: str | None
    counts: Counts
    totals: Mapping[str, int]
    samples: Mapping[Kind, tuple[str, ...]]
    generations: int
    seconds: float
    repair: RepairReport | None = None
    acceptance: AcceptanceReport | None = None

    @property
    def clean(self) -> bool:
        """Whether no finding stands: none was found, or the repair has healed them all."""
        return _is_clean(self.repair.remaining if self.repair else self.counts)

    @property
    def numbers(self) -> dict[str, Any]:
        """What a repair did, for the audit log; empty without one."""
        if self.repair is None:
            return {}
        repair, accepted = self.repair, self.acceptance
        made = {} if accepted is None else {"acceptance": accepted.acceptance, "accepted": accepted.accepted}
        return {"sent": repair.sent, "removals": repair.removals, "healed": repair.healed, **made}

    @property
    def adds_up(self) -> bool:
        """Whether each entry of either side is counted exactly once."""
        entries = self.totals["source"] + self.totals["only_in_replica"]
        return entries == self.totals["matched"] + sum(self.counts.values())

    @property
    def explanations(self) -> dict[Kind, str]:
        """A sentence for each kind that was found."""
        return {kind: EXPLANATIONS[kind] for kind, number in self.counts.items() if number}

    def as_dict(self) -> dict[str, Any]:
        """A JSON document."""
        return {
            "campaignId": self.campaign_id,
            "clean": self.clean,
            "counts": {kind.value: number for kind, number in self.counts.items()},
            "totals": {
                "source": self.totals["source"],
                "replica": self.totals["replica"],
                "tombstones": self.totals["tombstones"],
                "matched": self.totals["matched"],
                "onlyInReplica": self.totals["only_in_replica"],
            },
            "samples": {kind.value: list(ids) for kind, ids in self.samples.items()},
            "explanations": {kind.value: text for kind, text in self.explanations.items()},
            "generations": self.generations,
            "seconds": round(self.seconds, 3),
            "repair": None if self.repair is None else self.repair.as_dict(),
            "acceptance": None if self.acceptance is None else self.acceptance.as_dict(),
        }
