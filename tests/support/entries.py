"""Entries as the platform's writers put them into the demand table."""

from __future__ import annotations

import itertools
import time
from typing import Any

from regworkers_core.adapters.aws.tables import attributes
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime

_ABSENT = object()
_numbers = itertools.count(1)


def key(entry_id: str, campaign_id: str = "summer") -> EntryKey:
    return EntryKey(campaign_id, entry_id)


def item(entry: EntryKey, **changes: Any) -> dict[str, Any]:
    """A whole, valid item; `field=None` leaves the field out."""
    now = iso(time.time())
    fields = {
        "PK": entry.pk,
        "SK": entry.sk,
        "entityType": "ENTRY",
        "campaignId": entry.campaign_id,
        "entryId": entry.entry_id,
        "ref": f"ref-{next(_numbers)}",
        "email": f"{entry.entry_id}@example.com",
        "firstName": "Zoë",
        "lastName": "Łukasz",
        "markets": ["berlin", "paris"],
        "attributes": {"source": "app"},
        "version": 1,
        "createdAt": now,
        "updatedAt": now,
        "correlationId": "corr-1",
        "needsReplication": True,
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not None}


def put(runtime: Runtime, entry: EntryKey, **changes: Any) -> dict[str, Any]:
    """Write it as a writer would and return it."""
    written = item(entry, **changes)
    runtime.dynamodb.put_item(TableName=runtime.names.demand_table, Item=attributes(written))
    return written


def remove(runtime: Runtime, entry: EntryKey) -> None:
    runtime.dynamodb.delete_item(
        TableName=runtime.names.demand_table, Key=attributes({"PK": entry.pk, "SK": entry.sk})
    )


def set_flag(runtime: Runtime, entry: EntryKey, *, to: bool = True) -> None:
    """By hand, or as a save clears it but with a call that the emulator's stream shows, too."""
    runtime.dynamodb.update_item(
        TableName=runtime.names.demand_table,
        Key=attributes({"PK": entry.pk, "SK": entry.sk}),
        UpdateExpression="SET needsReplication = :flag",
        ExpressionAttributeValues=attributes({":flag": to}),
    )


def source(runtime: Runtime, entry: EntryKey) -> dict[str, Any] | None:
    """The item as the table holds it now."""
    return runtime.demand_table.get([entry]).get(entry)


def document(runtime: Runtime, entry: EntryKey) -> dict[str, Any] | None:
    """The replica's document, raw."""
    found = runtime.database["entries"].find_one({"_id": entry.document_id})
    return None if found is None else dict(found)
