"""What a drain did, in numbers that add up."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from regworkers_core.domain.reasons import PermanentFailure
from regworkers_core.engine.defects import fuse_message
from regworkers_core.engine.percentiles import Percentiles

# What an item can end as. `applied`: written; `unchanged`: already stored; `stale`: a newer state is stored; `gone`:
# removed meanwhile; `resurrected`: live behind a newer tombstone; `dropped`: filtered or coalesced; `dead_lettered`:
# permanent; `resent`: continues alone; `returned`: kept for later.
OUTCOMES = (
    "applied", "removed", "unchanged", "stale", "gone", "resurrected",
    "sent", "dropped", "dead_lettered", "resent", "returned",
)  # fmt: skip


@dataclass(slots=True)
class DrainReport:
    """Numbers of one drain."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)  # items by outcome
    # Seconds of each item from its write to its acknowledgement.
    lag: Percentiles = field(default_factory=Percentiles)
    # Seconds of each batch from its receive to its acknowledgement.
    batches: Percentiles = field(default_factory=Percentiles)
    deliveries: Counter[str] = field(default_factory=Counter)  # records or messages by what became of them
    seconds: float = 0.0  # from its start to its end
    ended: str = ""  # idle, time_limit, stopped, dependency_down or fuse_blown
    dependency: str | None = None  # what was unavailable at its end
    began: bool = False  # False if a dependency was unavailable at the start, so that nothing was received
    blind: str | None = None  # the dependency that did not answer, if the last receives all failed
    blown: PermanentFailure | None = None  # the defect that blew the fuse

    @property
    def acknowledged(self) -> int:
        """Deliveries that the source has taken as done: they never come again."""
        return self.deliveries["acknowledged"] - self.deliveries["not_acknowledged"]

    @property
    def failure(self) -> str | None:
        """Why the run has failed; None if it has not, also if a dependency ended it."""
        if self.blown is not None:
            return fuse_message(self.name, str(self.blown))
        if self.blind is not None:
            return f"{self.blind} did not answer: no receive was successful any more before the drain ended"
        return None

    @property
    def went_wrong(self) -> bool:
        """Whether it failed or a dependency ended it, whatever happened to the items."""
        return self.ended == "dependency_down" or self.failure is not None

    @property
    def adds_up(self) -> bool:
        """Whether every received item has one outcome, and every delivery was acknowledged or returned."""
        settled = self.deliveries["acknowledged"] + self.deliveries["returned"]
        return (
            self.counts["received"] == sum(self.counts[outcome] for outcome in OUTCOMES)
            and self.deliveries["received"] == settled
        )

    def as_dict(self) -> dict[str, object]:
        """The report as JSON: counts of items and deliveries, lag percentiles and duration in seconds."""
        return {
            "drain": self.name,
            "ended": self.ended,
            "dependency": self.dependency,
            "failure": self.failure,
            "seconds": round(self.seconds, 3),
            "items": {name: number for name, number in sorted(self.counts.items()) if number},
            "deliveries": {name: number for name, number in sorted(self.deliveries.items()) if number},
            "lagSeconds": self.lag.summary(),
            "addsUp": self.adds_up,
        }
