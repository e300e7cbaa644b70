"""One step on an entry's way, as it is found afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from regworkers_core.domain.reasons import Failure, UsageError

UNREAD = "could not read"


@dataclass(frozen=True, slots=True)
class Hop:
    """`state` in a few words, `at` an ISO time or None, `facts` plain values without a fan's data."""

    name: str
    state: str
    at: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"hop": self.name, "state": self.state, "at": self.at, **self.facts}


def hop(name: str, read: Callable[[], Hop]) -> Hop:
    """What `read` finds; who does not answer hides no other hop."""
    try:
        return read()
    except (Failure, UsageError) as failure:
        return Hop(name, UNREAD, None, {"why": str(failure)})
