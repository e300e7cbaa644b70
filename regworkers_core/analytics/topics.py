"""Which topic an event goes to, by its type."""

from __future__ import annotations

from collections.abc import Mapping

from regworkers_core.domain.events import EventType
from regworkers_core.settings import Names

_FLOWS: Mapping[EventType, str] = {
    EventType.ENTRY_REPLICATED: "entries",
    EventType.ENTRY_REMOVED: "entries",
    EventType.ELIGIBILITY_JUDGED: "eligibility",
    EventType.DRAW_COMMITTED: "selections",
    EventType.DRAW_DRAWN: "selections",
    EventType.SELECTION_MADE: "selections",
    EventType.NOTIFICATION_QUEUED: "notifications",
}


def topics_by_type(names: Names) -> Mapping[EventType, str]:
    """The full name of the topic of every type."""
    return {kind: names.topic(flow) for kind, flow in _FLOWS.items()}
