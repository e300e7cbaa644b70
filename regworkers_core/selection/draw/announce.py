"""Tell Kafka's readers what a draw has published: hashes, never a fan's data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from regworkers_core.domain.events import EventType, draw_event
from regworkers_core.runtime import Runtime

COMMITTED = EventType.DRAW_COMMITTED
DRAWN = EventType.DRAW_DRAWN


def announce(
    runtime: Runtime,
    campaign_id: str,
    phase: int,
    kind: EventType,
    data: Mapping[str, Any],
    *,
    at: str,
    replaced: int = 0,
) -> None:
    """Queue one event. A repeat has the same id, so readers drop it; after a manifest was replaced (`replaced` times)
    it is another one. Raises TransientFailure.
    """
    runtime.event_queue.send_all([draw_event(campaign_id, phase, kind, data, at, replaced=replaced)])
