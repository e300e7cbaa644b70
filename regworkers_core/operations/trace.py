"""One entry, traced through all flows: both stores, its failures, its events, its draw, and what would help.

Orders, times, flags, reasons and the entry's random ref only; no mail, no names, no ids of people.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from shlex import quote
from typing import Any, NamedTuple

from regworkers_core.adapters.mongo.entry_documents import Stored
from regworkers_core.domain.entry import Entry, lenient_order
from regworkers_core.domain.events import EventType, event_id
from regworkers_core.domain.keys import EntryKey, is_selection_id
from regworkers_core.domain.messages import fit_correlation_id
from regworkers_core.domain.reasons import Failure, PermanentFailure, UsageError
from regworkers_core.domain.timestamps import seconds
from regworkers_core.replication.enqueue.stream_probe import stream_lag
from regworkers_core.replication.reconcile.classify import (
    EXPLANATIONS,
    REPAIRABLE,
    EntrySide,
    Kind,
    classify,
    of_replica,
    of_source,
)
from regworkers_core.runtime import Runtime

UNREAD = "could not read"
# A message holds keys of up to a hundred entries, and a queue cannot be searched.
_NOT_SEARCHED = "whether this entry's key is among them cannot be seen"
Item = Mapping[str, Any]
IN_SYNC, GONE, UNKNOWN = "in_sync", "gone", "unknown"
_CUSTODY = ("replicatedAt", "messageId", "runId")
_DEAD_LETTER = (
    "queue",
    "messageId",
    "reason",
    "error",
    "fingerprint",
    "firstFailedAt",
    "lastFailedAt",
    "count",
)


def trace_entry(runtime: Runtime, key: EntryKey) -> dict[str, Any]:
    """What both stores and the dead letters say about one entry, as a JSON document. Raises TransientFailure when a
    store cannot answer.

    `verdict` is in_sync, gone (removed, with a tombstone), unknown (on neither side), missing, stale, orphaned,
    resurrected, rejected, ahead or erased; `explanation` says it in words, `command` is what helps or None, `young`
    whether the difference may be mere lag; `ref` is what `regworkers draw receipt` takes.
    `lagSeconds` is None unless in sync.
    """
    stored = runtime.replica.get([key]).get(key)
    item = runtime.demand_table.get([key]).get(key)
    dead_letters = runtime.dead_letters.of_entry(key)
    source = None if item is None else of_source(key, item)
    replica = None if stored is None else of_replica(key, stored)
    verdict = _verdict(source, replica, dead_letters)
    objective = runtime.settings.replication.lag_objective_seconds
    updated_at = None if source is None else source.updated_at
    young = verdict in REPAIRABLE and updated_at is not None and runtime.clock() - updated_at <= objective
    return {
        "id": key.document_id,
        "ref": _ref(item, stored),
        "verdict": str(verdict),
        "explanation": _explanation(verdict, source, replica, dead_letters, objective if young else None),
        "command": _command(verdict, key),
        "young": young,
        "lagSeconds": _lag(stored) if verdict == IN_SYNC else None,
        "source": _source(key, item),
        "replica": _replica(stored),
        "deadLetters": [_dead_letter(dead_letter) for dead_letter in dead_letters],
        "events": _events(source, replica),
    }


def _ref(item: Item | None, stored: Stored | None) -> str | None:
    """None also for a value that is not a ref, because it may not be random."""
    fields = item if item is not None else stored.fields if stored is not None else None
    ref = (fields or {}).get("ref")
    return ref if isinstance(ref, str) and is_selection_id(ref) else None


def _verdict(source: EntrySide | None, replica: EntrySide | None, dead_letters: Sequence[Item]) -> str:
    kind = classify(source, replica)
    if kind is None:
        if source is not None:
            return IN_SYNC
        return UNKNOWN if replica is None else GONE
    refused = {
        lenient_order(dead_letter.get("entryOrder") or {})
        for dead_letter in dead_letters
        if dead_letter.get("status") == "open"
    }
    # An orphan, or a state that is ahead, has other causes than a refusal.
    refusable = kind in (Kind.MISSING, Kind.STALE, Kind.RESURRECTED)
    return Kind.REJECTED if refusable and source is not None and source.order in refused else kind


def _explanation(
    verdict: str,
    source: EntrySide | None,
    replica: EntrySide | None,
    dead_letters: Sequence[Item],
    young_within: float | None,
) -> str:
    if verdict == IN_SYNC:
        return "Source and replica hold the same state."
    if verdict == GONE and replica is not None and replica.erased_at is not None:
        return (
            f"The fan was erased at {replica.erased_at}: the tombstone refuses every state from before that."
        )
    if verdict == GONE:
        return "The entry was removed from the source, and the replica has its tombstone."
    if verdict == UNKNOWN:
        return "Neither the source nor the replica knows this entry: check the ids."
    text = EXPLANATIONS[Kind(verdict)]
    if young_within is not None:
        text += f" It changed less than {young_within:g} s ago, so this may be mere lag: trace it again after that."
    elif source is not None and source.invalid and verdict != Kind.REJECTED:
        text += " The source's state is not a valid entry, the save drain will refuse it."
    return text


def _command(verdict: str, key: EntryKey) -> str | None:
    if verdict in (Kind.MISSING, Kind.STALE, Kind.ORPHANED):
        return f"regworkers replicate {quote(key.campaign_id)} {quote(key.entry_id)}"
    if verdict == Kind.ERASED:
        return f"regworkers erasures repeat --campaign {quote(key.campaign_id)}"
    if verdict in (Kind.RESURRECTED, Kind.AHEAD):
        # Entries that are ahead are listed first: to accept the source one has to type their number.
        apply = " --apply" if verdict == Kind.RESURRECTED else ""
        return f"regworkers reconcile --campaign {quote(key.campaign_id)} --repair{apply}"
    return None


def _source(key: EntryKey, item: Item | None) -> dict[str, Any] | None:
    if item is None:
        return None
    problem = None
    try:
        Entry.parse(key, item)
    except PermanentFailure as failure:
        problem = failure.error
    return {
        **lenient_order(item).as_fields(),
        "needsReplication": item.get("needsReplication") is True,
        "replicatedVersion": item.get("replicatedVersion"),
        "replicatedAt": item.get("replicatedAt"),
        "correlationId": fit_correlation_id(item.get("correlationId")) or None,
        "problem": problem,
    }


def _replica(stored: Stored | None) -> dict[str, Any] | None:
    if stored is None:
        return None
    return {
        **stored.order.as_fields(),
        "state": "tombstone" if stored.fields is None else "live",
        "deletedAt": stored.deleted_at,
        "erasedAt": stored.erased_at,
        **{name: stored.custody.get(name) for name in _CUSTODY},
    }


def _dead_letter(dead_letter: Item) -> dict[str, Any]:
    order = dead_letter.get("entryOrder")
    return {
        **{name: dead_letter.get(name) for name in _DEAD_LETTER},
        "status": dead_letter.get("status"),
        "order": lenient_order(order).as_fields() if isinstance(order, Mapping) else None,
    }


def _events(source: EntrySide | None, replica: EntrySide | None) -> list[dict[str, str]]:
    """Ids of the events that the states on both sides have, or will have once they are saved."""
    wanted = []
    if source is not None and not source.invalid:
        wanted.append((source, EventType.ENTRY_REPLICATED))
    if replica is not None:
        wanted.append((replica, EventType.ENTRY_REPLICATED if replica.live else EventType.ENTRY_REMOVED))
    found = {event_id(state.key, state.order, kind): kind for state, kind in wanted}
    return [{"id": id_, "type": kind.value} for id_, kind in found.items()]


def _lag(stored: Stored | None) -> float | None:
    """Seconds from the state's `updatedAt` to its last write into the replica."""
    if stored is None:
        return None
    saved, changed = (
        seconds(text) if isinstance(text, str) else None
        for text in (stored.custody.get("replicatedAt"), stored.order.updated_at)
    )
    return None if saved is None or changed is None else round(saved - changed, 3)


@dataclass(frozen=True, slots=True)
class Hop:
    """One step on an entry's way."""

    name: str
    # A few words.
    state: str
    # An ISO time, or None.
    at: str | None = None
    # Nothing in it is a fan's data.
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"hop": self.name, "state": self.state, "at": self.at, **self.facts}


def hop(name: str, read: Callable[[], Hop]) -> Hop:
    """What `read` finds. A dependency that does not answer hides no other hop."""
    try:
        return read()
    except (Failure, UsageError) as failure:
        return Hop(name, UNREAD, None, {"why": str(failure)})


class Traced(NamedTuple):
    document: dict[str, Any]
    hops: list[Hop]


def trace_hops(runtime: Runtime, key: EntryKey) -> Traced:
    """The document of `trace_entry` with `hops`, `correlationId` and `logs` (a command), and the hops from the demand
    table to the outbox. Raises TransientFailure when source or replica do not answer; other hops show it themselves.
    """
    trace = trace_entry(runtime, key)
    source, replica, events, ref = trace["source"], trace["replica"], trace["events"], trace["ref"]
    since = next((each["updatedAt"] for each in (source, replica) if each), None)
    hops = [
        _table_hop(source),
        hop("stream", lambda: _stream_hop(runtime, source)),
        hop("replication queue", lambda: _replication_hop(runtime)),
        _replica_hop(replica),
        hop("analytics event", lambda: _event_hop(runtime, events)),
        hop("archive", lambda: _archive_hop(runtime, events, since)),
    ]
    if ref is None:
        hops += [Hop("selection", "no ref"), Hop("outbox", "no ref")]
    else:
        hops += [
            hop("selection", lambda: _selection_hop(runtime, key.campaign_id, ref)),
            hop("outbox", lambda: _outbox_hop(runtime, key.campaign_id, ref)),
        ]
    hops.append(_dead_letters_hop(trace))
    found = (source or {}).get("correlationId")
    correlation_id = found if isinstance(found, str) and found else None
    place = f"--campaign {quote(key.campaign_id)} --entry {quote(key.entry_id)}"
    document = {
        **trace,
        "correlationId": correlation_id,
        "hops": [each.as_dict() for each in hops],
        "logs": f"regworkers logs --correlation-id {quote(correlation_id)} {place}"
        if correlation_id
        else f"regworkers logs {place}",
    }
    return Traced(document, hops)


def _dead_letters_hop(trace: dict[str, Any]) -> Hop:
    """The last hop, which no entry should reach."""
    dead_letters = trace["deadLetters"]
    if not dead_letters:
        return Hop("dead letters", "none")
    open_ = [dead_letter for dead_letter in dead_letters if dead_letter["status"] == "open"]
    newest = max(dead_letters, key=lambda dead_letter: str(dead_letter["lastFailedAt"]))
    state = f"{len(open_)} open of {len(dead_letters)}"
    facts = {"reason": newest["reason"], "queue": newest["queue"], "messageId": newest["messageId"]}
    return Hop("dead letters", state, newest["lastFailedAt"], facts)


def _table_hop(source: dict[str, Any] | None) -> Hop:
    if source is None:
        return Hop("demand table", "absent")
    facts = {"version": source["version"], "correlationId": source["correlationId"]}
    return Hop("demand table", "refused" if source["problem"] else "there", source["updatedAt"], facts)


def _stream_hop(runtime: Runtime, source: dict[str, Any] | None) -> Hop:
    if source is not None and not source["needsReplication"]:
        return Hop("stream", "read", source["replicatedAt"])
    lag = stream_lag(runtime.streams, runtime.leases, now=runtime.clock())
    facts = {"oldestUnreadSeconds": lag if lag is None else round(lag, 1)}
    if lag is None:
        return Hop("stream", "not known", None, facts)
    return Hop("stream", "unread records wait" if lag > 0 else "nothing unread", None, facts)


def _replication_hop(runtime: Runtime) -> Hop:
    depth = runtime.queue(runtime.names.replication_queue).depth()
    waiting = depth.visible + depth.in_flight + depth.delayed
    if not waiting:
        return Hop("replication queue", "empty")
    return Hop("replication queue", f"{waiting} messages wait", None, {"note": _NOT_SEARCHED})


def _replica_hop(replica: dict[str, Any] | None) -> Hop:
    if replica is None:
        return Hop("replica", "absent")
    facts = {name: replica[name] for name in ("version", "messageId", "runId")}
    return Hop("replica", replica["state"], replica["replicatedAt"], facts)


def _event_hop(runtime: Runtime, events: Sequence[dict[str, str]]) -> Hop:
    if not events:
        return Hop("analytics event", "none")
    depth = runtime.queue(runtime.names.analytics_queue).depth()
    waiting = depth.visible + depth.in_flight + depth.delayed
    state = f"{waiting} messages wait for Kafka" if waiting else "nothing waits for Kafka"
    return Hop("analytics event", state, None, {each["type"]: each["id"] for each in events})


def _archive_hop(runtime: Runtime, events: Sequence[dict[str, str]], since: str | None) -> Hop:
    ids = [each["id"] for each in events]
    if not ids:
        return Hop("archive", "none")
    # Imported here: DuckDB and pandas would delay every other command of the terminal.
    from regworkers_core.analytics.archive.reading import EventFilter, opened

    # An event is archived under the day of its own time, which no later hop precedes.
    wanted = EventFilter(since=(since or "")[:10], types=frozenset(each["type"] for each in events))
    with opened(runtime.objects, wanted) as database:
        rows: list[tuple[Any, ...]] = database.execute(
            "SELECT id, time FROM events WHERE id IN (SELECT unnest(?))", [ids]
        ).fetchall()
    found = {str(row[0]): str(row[1]) for row in rows}
    if not found:
        return Hop("archive", "not there yet")
    return Hop("archive", f"{len(found)} of {len(set(ids))} there", min(found.values()))


def _selection_hop(runtime: Runtime, campaign_id: str, ref: str) -> Hop:
    won = runtime.selections.of_entry(campaign_id, ref)
    if not won:
        return Hop("selection", "none")
    facts = {f"phase {each['phase']}": f"{each['marketId']}, position {each['position']}" for each in won}
    facts["runId"] = won[-1]["runId"]
    return Hop("selection", f"won in {len(won)}", max(str(each["selectedAt"]) for each in won), facts)


def _outbox_hop(runtime: Runtime, campaign_id: str, ref: str) -> Hop:
    rows = runtime.outbox.of_entry(campaign_id, ref)
    if not rows:
        return Hop("outbox", "nothing owed")
    sent = [each for each in rows if each.get("sentAt")]
    facts = {each["type"]: each["status"] for each in rows}
    if sent:
        facts["runId"] = str(sent[-1].get("sentBy"))
    at = max((str(each["sentAt"]) for each in sent), default=str(rows[0].get("enqueuedAt")))
    return Hop("outbox", f"{len(sent)} of {len(rows)} sent", at, facts)
