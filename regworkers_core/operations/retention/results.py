"""What one part of the housekeeping found and did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple


class Size(NamedTuple):
    """How much there is: of documents, files or databases. `bytes` None: the server does not say."""

    number: int
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Tidied:
    """Of one kind of data. `older_than_days` None: it is kept for ever, and nothing was looked for. `over` is what is
    older, `deleted` of it what went (0 in a dry run); `more` when a cap left some for the next time. `trouble` says who
    did not answer, empty: all did; a size that could not be read is None.
    """

    name: str
    older_than_days: float | None
    over: int = 0
    deleted: int = 0
    before: Size | None = None
    after: Size | None = None
    more: bool = False
    note: str = ""
    trouble: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "olderThanDays": self.older_than_days,
            "over": self.over,
            "deleted": self.deleted,
            "more": self.more,
            "before": _size(self.before),
            "after": _size(self.after),
            "note": self.note or None,
            "trouble": self.trouble or None,
        }


def _size(size: Size | None) -> dict[str, int | None] | None:
    return None if size is None else {"number": size.number, "bytes": size.bytes}


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of data: `tidy` deletes unless it is told that this is a dry run. Raises what its stores raise."""

    name: str
    older_than_days: float | None
    tidy: Callable[[bool], Tidied]


@dataclass(frozen=True, slots=True)
class Housekeeping:
    parts: tuple[Tidied, ...]
    dry_run: bool

    @property
    def deleted(self) -> int:
        return sum(part.deleted for part in self.parts)

    @property
    def fine(self) -> bool:
        return not any(part.trouble for part in self.parts)

    def as_dict(self) -> dict[str, Any]:
        """A JSON document."""
        return {
            "dryRun": self.dry_run,
            "fine": self.fine,
            "over": sum(part.over for part in self.parts),
            "deleted": self.deleted,
            "parts": [part.as_dict() for part in self.parts],
        }
