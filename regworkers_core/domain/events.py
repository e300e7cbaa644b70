"""Business events as CloudEvents 1.0 (data contract v1): without mail, names or ids of people."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from regworkers_core.domain.entry import Entry, Order
from regworkers_core.domain.keys import EntryKey, is_selection_id
from regworkers_core.domain.selection import MarketPhase, Notice, Planned, is_market_id
from regworkers_core.domain.timestamps import iso, seconds

SOURCE = "regworkers/replication"
SELECTION_SOURCE = "regworkers/selection"
ELIGIBILITY_SOURCE = "regworkers/eligibility"


class EventType(StrEnum):
    ENTRY_REPLICATED = "entry.replicated"
    ENTRY_REMOVED = "entry.removed"
    DRAW_COMMITTED = "draw.committed"
    DRAW_DRAWN = "draw.drawn"
    SELECTION_MADE = "selection.made"
    NOTIFICATION_QUEUED = "notification.queued"
    ELIGIBILITY_JUDGED = "eligibility.judged"


def event_id(key: EntryKey, order: Order, kind: EventType) -> str:
    """SHA-256 over (entry, createdAt, version, updatedAt, type), so that a consumer drops repeats."""
    return _digest(key.document_id, order.created_at, str(order.version), order.updated_at, kind.value)


def entry_replicated(entry: Entry, replicated_at: str, correlation_id: str) -> dict[str, Any]:
    """The event of one saved state of a live entry."""
    ref = entry.fields.get("ref")
    data = {
        # Anything else than an id may be a mail address, and could not take part in a draw.
        "ref": ref if ref is not None and is_selection_id(ref) else None,
        "markets": [market for market in entry.fields.get("markets", ()) if is_market_id(market)],
        "segments": [segment for segment in entry.fields.get("segments", ()) if is_selection_id(segment)],
    }
    return _event(entry.key, entry.order, EventType.ENTRY_REPLICATED, replicated_at, correlation_id, data)


def entry_removed(key: EntryKey, order: Order, replicated_at: str, correlation_id: str) -> dict[str, Any]:
    """The event of a tombstone; `order` is that of the removed image."""
    return _event(key, order, EventType.ENTRY_REMOVED, replicated_at, correlation_id, {})


def eligibility_judged(
    key: EntryKey, order: Order, verdict: Mapping[str, Any], correlation_id: str
) -> dict[str, Any]:
    """The event of an entry that was judged and written; `order` is the entry's. `verdict` holds `status`, `reasons`
    (codes), `ruleSet` and `asOf`.
    """
    data = {"campaignId": key.campaign_id, "entryId": key.entry_id, **order.as_fields(), **verdict}
    kind = EventType.ELIGIBILITY_JUDGED
    id_ = event_id(key, order, kind)
    written = seconds(order.updated_at)
    # Another writer's entry may hold a time that is none.
    at = verdict["asOf"] if written is None else iso(written)
    return _envelope(id_, ELIGIBILITY_SOURCE, kind, key.document_id, at, correlation_id, data)


def draw_event(
    campaign_id: str, phase: int, kind: EventType, data: Mapping[str, Any], at: str, *, replaced: int = 0
) -> dict[str, Any]:
    """What a phase of a draw has published: `data` are hashes and counts. It concerns no single entry, so its
    subject and key are `<campaignId>:draw`. A manifest that took the place of the `replaced`-th is an event of its own.
    """
    subject = f"{campaign_id}:draw"
    which = (f"replaced-{replaced}",) if replaced else ()
    return _envelope(
        _digest(subject, str(phase), kind.value, *which),
        SELECTION_SOURCE,
        kind,
        subject,
        at,
        f"draw-{campaign_id}-{phase}",
        {"campaignId": campaign_id, "phase": phase, **data},
    )


def selection_made(
    market: MarketPhase, winner: Planned, result_hash: str, at: str, correlation_id: str
) -> dict[str, Any]:
    """The event of one winner. The code stays where it is kept."""
    data = {"rank": winner.rank, "position": winner.position, "selectedAt": at}
    named = (market, winner.ref, winner.entry_id, result_hash)
    return _selection_event(*named, EventType.SELECTION_MADE, at, correlation_id, data)


def notification_queued(notice: Notice, at: str, correlation_id: str) -> dict[str, Any]:
    """The event of one message that the mailer's queue has confirmed."""
    data = {"type": notice.type.value, "notBefore": notice.not_before, "queuedAt": at}
    named = (notice.market, notice.ref, notice.entry_id, notice.result_hash)
    return _selection_event(*named, EventType.NOTIFICATION_QUEUED, at, correlation_id, data)


def _selection_event(
    market: MarketPhase,
    ref: str,
    entry_id: str,
    result_hash: str,
    kind: EventType,
    at: str,
    correlation_id: str,
    data: dict[str, Any],
) -> dict[str, Any]:
    """Its id is SHA-256 over (market, phase and ref; result; type), so that a repeat is the same event."""
    return _envelope(
        _digest(market.key(ref), result_hash, kind.value),
        SELECTION_SOURCE,
        kind,
        f"{market.campaign_id}:{entry_id}",
        at,
        correlation_id,
        {**market.as_fields(), "entryId": entry_id, "ref": ref, "resultHash": result_hash, **data},
    )


def _event(
    key: EntryKey, order: Order, kind: EventType, at: str, correlation_id: str, data: dict[str, Any]
) -> dict[str, Any]:
    return _envelope(
        event_id(key, order, kind),
        SOURCE,
        kind,
        key.document_id,
        at,
        correlation_id,
        {
            "campaignId": key.campaign_id,
            "entryId": key.entry_id,
            **order.as_fields(),
            "replicatedAt": at,
            **data,
        },
    )


def _envelope(
    id_: str,
    source: str,
    kind: EventType,
    subject: str,
    at: str,
    correlation_id: str,
    data: dict[str, Any],
) -> dict[str, Any]:
    """CloudEvents 1.0 around `data`; the subject is the key on Kafka, too."""
    return {
        "specversion": "1.0",
        "id": id_,
        "source": source,
        "type": kind.value,
        "subject": subject,
        "time": at,
        "datacontenttype": "application/json",
        "partitionkey": subject,
        "correlationid": correlation_id,
        "data": data,
    }


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
