"""Where the events of one entry are: on their queue, in the archive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from regworkers_core.domain.hop import Hop, hop
from regworkers_core.runtime import Runtime


def hops(runtime: Runtime, events: Sequence[dict[str, str]], since: str | None) -> list[Hop]:
    """`events` have id and type; `since` is the ISO time before which none of them was made, None: not known."""
    return [
        hop("analytics event", lambda: _queue(runtime, events)),
        hop("archive", lambda: _archive(runtime, events, since)),
    ]


def _queue(runtime: Runtime, events: Sequence[dict[str, str]]) -> Hop:
    if not events:
        return Hop("analytics event", "none")
    depth = runtime.queue(runtime.names.analytics_queue).depth()
    waiting = depth.visible + depth.in_flight + depth.delayed
    state = f"{waiting} messages wait for Kafka" if waiting else "nothing waits for Kafka"
    return Hop("analytics event", state, None, {each["type"]: each["id"] for each in events})


def _archive(runtime: Runtime, events: Sequence[dict[str, str]], since: str | None) -> Hop:
    ids = [each["id"] for each in events]
    if not ids:
        return Hop("archive", "none")
    # Imported here: it brings DuckDB and pandas, which no other command of the terminal waits for.
    from regworkers_core.analytics.archive.archived_events import Wanted, opened

    # An event is archived under the day of its own time, which no later hop precedes.
    wanted = Wanted(since=(since or "")[:10], types=frozenset(each["type"] for each in events))
    with opened(runtime.objects, wanted) as database:
        rows: list[tuple[Any, ...]] = database.execute(
            "SELECT id, time FROM events WHERE id IN (SELECT unnest(?))", [ids]
        ).fetchall()
    found = {str(row[0]): str(row[1]) for row in rows}
    if not found:
        return Hop("archive", "not there yet")
    return Hop("archive", f"{len(found)} of {len(set(ids))} there", min(found.values()))
