"""An entry's way from the demand table to the replica, hop by hop."""

from __future__ import annotations

from typing import Any

from regworkers_core.domain.hop import Hop, hop
from regworkers_core.replication.enqueue.peek import stream_lag
from regworkers_core.runtime import Runtime

# A message holds keys of up to a hundred entries, and a queue cannot be searched.
_NOT_SEARCHED = "whether this entry's key is among them cannot be seen"


def hops(runtime: Runtime, trace: dict[str, Any]) -> list[Hop]:
    """Of what `trace_entry` found: demand table, stream, replication queue, replica."""
    return [
        _table(trace["source"]),
        hop("stream", lambda: _stream(runtime, trace["source"])),
        hop("replication queue", lambda: _queue(runtime)),
        _replica(trace["replica"]),
    ]


def dead_letters(trace: dict[str, Any]) -> Hop:
    """The last hop, which nobody should reach."""
    letters = trace["deadLetters"]
    if not letters:
        return Hop("dead letters", "none")
    open_ = [letter for letter in letters if letter["status"] == "open"]
    newest = max(letters, key=lambda letter: str(letter["lastFailedAt"]))
    state = f"{len(open_)} open of {len(letters)}"
    facts = {"reason": newest["reason"], "queue": newest["queue"], "messageId": newest["messageId"]}
    return Hop("dead letters", state, newest["lastFailedAt"], facts)


def _table(source: dict[str, Any] | None) -> Hop:
    if source is None:
        return Hop("demand table", "absent")
    facts = {"version": source["version"], "correlationId": source["correlationId"]}
    return Hop("demand table", "refused" if source["problem"] else "there", source["updatedAt"], facts)


def _stream(runtime: Runtime, source: dict[str, Any] | None) -> Hop:
    if source is not None and not source["needsReplication"]:
        return Hop("stream", "read", source["replicatedAt"])
    lag = stream_lag(runtime.streams, runtime.leases, now=runtime.clock())
    facts = {"oldestUnreadSeconds": lag if lag is None else round(lag, 1)}
    if lag is None:
        return Hop("stream", "not known", None, facts)
    return Hop("stream", "unread records wait" if lag > 0 else "nothing unread", None, facts)


def _queue(runtime: Runtime) -> Hop:
    depth = runtime.queue(runtime.names.replication_queue).depth()
    waiting = depth.visible + depth.in_flight + depth.delayed
    if not waiting:
        return Hop("replication queue", "empty")
    return Hop("replication queue", f"{waiting} messages wait", None, {"note": _NOT_SEARCHED})


def _replica(replica: dict[str, Any] | None) -> Hop:
    if replica is None:
        return Hop("replica", "absent")
    facts = {name: replica[name] for name in ("version", "messageId", "runId")}
    return Hop("replica", replica["state"], replica["replicatedAt"], facts)
