"""What a run of the archive did, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Ended = Literal["caught_up", "stopped", "max_seconds", "busy", "dependency_down", "superseded"]


@dataclass(slots=True)
class ArchiveReport:
    """Of this run, but for `rows`: all that the archive holds now. `lag` is how many offsets of each topic were left
    of those that there were at the start; None where nobody could be asked. `restarted` names partitions that were
    made anew and are read from their beginning.
    """

    ended: Ended = "caught_up"
    dependency: str | None = None
    read: int = 0
    written: int = 0
    repeats: int = 0
    damaged: int = 0
    lost: int = 0
    batches: int = 0
    files: int = 0
    merged_files: int = 0
    orphans: int = 0
    rows: int | None = None
    seconds: float = 0.0
    lag: dict[str, int] | None = None
    missing_topics: list[str] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)

    @property
    def adds_up(self) -> bool:
        return self.read == self.written + self.repeats + self.damaged

    @property
    def began(self) -> bool:
        """Whether it came to look at the archive at all."""
        return self.rows is not None

    @property
    def finding(self) -> bool:
        """Whether somebody has to look at it."""
        away = self.ended in ("dependency_down", "superseded")
        return bool(away or self.damaged or self.lost or self.missing_topics or self.restarted)

    def as_dict(self) -> dict[str, Any]:
        """A JSON document."""
        return {
            "ended": self.ended,
            "dependency": self.dependency,
            "read": self.read,
            "written": self.written,
            "repeats": self.repeats,
            "damaged": self.damaged,
            "lost": self.lost,
            "batches": self.batches,
            "files": self.files,
            "mergedFiles": self.merged_files,
            "orphans": self.orphans,
            "rows": self.rows,
            "lag": self.lag,
            "missingTopics": self.missing_topics,
            "restarted": self.restarted,
            "seconds": round(self.seconds, 3),
            "addsUp": self.adds_up,
        }
