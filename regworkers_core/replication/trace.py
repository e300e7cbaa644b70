"""Everything that is known about one entry: both stores, its failures, its events, and what would help.

Orders, times, flags, reasons and the entry's random ref only; no mail, no names, no ids of people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from shlex import quote
from typing import Any

from regworkers_core.adapters.mongo.entry_documents import Stored
from regworkers_core.domain.entry import Entry
from regworkers_core.domain.events import EventType, event_id
from regworkers_core.domain.keys import EntryKey, is_selection_id
from regworkers_core.domain.messages import fit_correlation_id
from regworkers_core.domain.order import lenient_order
from regworkers_core.domain.reasons import PermanentFailure
from regworkers_core.domain.timestamps import seconds
from regworkers_core.replication.reconcile.classify import EXPLANATIONS, REPAIRABLE, Kind, classify
from regworkers_core.replication.reconcile.states import State, of_replica, of_source
from regworkers_core.runtime import Runtime

Item = Mapping[str, Any]
IN_SYNC, GONE, UNKNOWN = "in_sync", "gone", "unknown"
_CUSTODY = ("replicatedAt", "messageId", "runId")
_LETTER = ("queue", "messageId", "reason", "error", "fingerprint", "firstFailedAt", "lastFailedAt", "count")


def trace_entry(runtime: Runtime, key: EntryKey) -> dict[str, Any]:
    """A JSON document; raises TransientFailure when a store cannot answer.

    `verdict` is in_sync, gone (removed, with a tombstone), unknown (on neither side), missing, stale, orphaned,
    resurrected, rejected, ahead or erased; `explanation` says it in words, `command` is what helps or None, `young`
    whether the difference may still be on its way; `ref` is what `regworkers draw receipt` takes.
    `lagSeconds` is None unless in sync.
    """
    stored = runtime.replica.get([key]).get(key)
    item = runtime.demand_table.get([key]).get(key)
    letters = runtime.dead_letters.of_entry(key)
    source = None if item is None else of_source(key, item)
    replica = None if stored is None else of_replica(key, stored)
    verdict = _verdict(source, replica, letters)
    objective = runtime.settings.replication.lag_objective_seconds
    updated_at = None if source is None else source.updated_at
    young = verdict in REPAIRABLE and updated_at is not None and runtime.clock() - updated_at <= objective
    return {
        "id": key.document_id,
        "ref": _ref(item, stored),
        "verdict": str(verdict),
        "explanation": _explanation(verdict, source, replica, letters, objective if young else None),
        "command": _command(verdict, key),
        "young": young,
        "lagSeconds": _lag(stored) if verdict == IN_SYNC else None,
        "source": _source(key, item),
        "replica": _replica(stored),
        "deadLetters": [_letter(letter) for letter in letters],
        "events": _events(source, replica),
    }


def _ref(item: Item | None, stored: Stored | None) -> str | None:
    """None also for something else than a ref, which nobody knows to be random."""
    fields = item if item is not None else stored.fields if stored is not None else None
    ref = (fields or {}).get("ref")
    return ref if isinstance(ref, str) and is_selection_id(ref) else None


def _verdict(source: State | None, replica: State | None, letters: Sequence[Item]) -> str:
    kind = classify(source, replica)
    if kind is None:
        if source is not None:
            return IN_SYNC
        return UNKNOWN if replica is None else GONE
    refused = {
        lenient_order(letter.get("entryOrder") or {}) for letter in letters if letter.get("status") == "open"
    }
    # An orphan or a state that is ahead has other causes than a refusal.
    if (
        kind in (Kind.MISSING, Kind.STALE, Kind.RESURRECTED)
        and source is not None
        and source.order in refused
    ):
        return Kind.REJECTED
    return kind


def _explanation(
    verdict: str,
    source: State | None,
    replica: State | None,
    letters: Sequence[Item],
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
        text += (
            f" It changed less than {young_within:g} s ago, so this may be mere lag: look again after that."
        )
    elif source is not None and source.invalid and verdict != Kind.REJECTED:
        text += " The source's state is not a valid entry, the save drain will refuse it."
    return text


def _command(verdict: str, key: EntryKey) -> str | None:
    if verdict in (Kind.MISSING, Kind.STALE, Kind.ORPHANED):
        return f"regworkers replicate {quote(key.campaign_id)} {quote(key.entry_id)}"
    if verdict == Kind.ERASED:
        return f"regworkers erase --pending --campaign {quote(key.campaign_id)}"
    if verdict in (Kind.RESURRECTED, Kind.AHEAD):
        listing = " --dry-run" if verdict == Kind.AHEAD else ""
        return f"regworkers reconcile --campaign {quote(key.campaign_id)} --repair{listing}"
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


def _letter(letter: Item) -> dict[str, Any]:
    order = letter.get("entryOrder")
    return {
        **{name: letter.get(name) for name in _LETTER},
        "status": letter.get("status"),
        "order": lenient_order(order).as_fields() if isinstance(order, Mapping) else None,
    }


def _events(source: State | None, replica: State | None) -> list[dict[str, str]]:
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
