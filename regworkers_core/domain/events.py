"""Business events as CloudEvents 1.0 (data contract v1): without mail, names or ids of people."""

from __future__ import annotations

import hashlib
from enum import StrEnum
from typing import Any

from regworkers_core.domain.entry import Entry
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.order import Order

SOURCE = "regworkers/replication"


class EventType(StrEnum):
    ENTRY_REPLICATED = "entry.replicated"
    ENTRY_REMOVED = "entry.removed"


def event_id(key: EntryKey, order: Order, kind: EventType) -> str:
    """SHA-256 over (entry, createdAt, version, updatedAt, type), so that a consumer drops repeats."""
    parts = (key.document_id, order.created_at, str(order.version), order.updated_at, kind.value)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def entry_replicated(entry: Entry, replicated_at: str, correlation_id: str) -> dict[str, Any]:
    """The event of one saved state of a live entry."""
    data = {
        "ref": entry.fields.get("ref"),
        "markets": entry.fields.get("markets", []),
        "segments": entry.fields.get("segments", []),
    }
    return _event(entry.key, entry.order, EventType.ENTRY_REPLICATED, replicated_at, correlation_id, data)


def entry_removed(key: EntryKey, order: Order, replicated_at: str, correlation_id: str) -> dict[str, Any]:
    """The event of a tombstone; `order` is that of the removed image."""
    return _event(key, order, EventType.ENTRY_REMOVED, replicated_at, correlation_id, {})


def _event(
    key: EntryKey, order: Order, kind: EventType, at: str, correlation_id: str, data: dict[str, Any]
) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": event_id(key, order, kind),
        "source": SOURCE,
        "type": kind.value,
        "subject": key.document_id,
        "time": at,
        "datacontenttype": "application/json",
        "partitionkey": key.document_id,
        "correlationid": correlation_id,
        "data": {
            "campaignId": key.campaign_id,
            "entryId": key.entry_id,
            **order.as_fields(),
            "replicatedAt": at,
            **data,
        },
    }
