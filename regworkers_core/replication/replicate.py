"""Putting one entry's key on the replication queue, whatever its flag says."""

from __future__ import annotations

import uuid
from typing import Any

from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import Op, ReplicationItem
from regworkers_core.replication.reconcile.classify import EXPLANATIONS, Kind, classify
from regworkers_core.replication.reconcile.sides import Sides
from regworkers_core.replication.send import send_keys
from regworkers_core.runtime import Runtime


def replicate(runtime: Runtime, key: EntryKey) -> dict[str, Any]:
    """Send the key after a consistent read; where the source has no such entry, a live one in the replica is
    removed and otherwise nothing is sent.

    A JSON document: `id`, `sent`, `op` (None unless sent), `correlationId`, `explanation`. Raises
    TransientFailure when a store cannot answer or SQS did not confirm.
    """
    source, replica = Sides(runtime.demand_table, runtime.replica, runtime.dead_letters).read([key])[key]
    kind = classify(source, replica)
    queue = runtime.queue(runtime.names.replication_queue)
    correlation_id = uuid.uuid4().hex
    item: ReplicationItem | None = None
    if source is not None and kind is not Kind.ERASED:
        item = ReplicationItem(key, Op.UPSERT, source.order)
    elif kind is Kind.ORPHANED and replica is not None:
        item = ReplicationItem(key, Op.REMOVE, replica.order)
    if item is not None:
        send_keys(queue, [item], correlation_id)
    return {
        "id": key.document_id,
        "sent": item is not None,
        "op": item.op.value if item else None,
        "correlationId": correlation_id if item else None,
        "explanation": _explain(item, kind, known=replica is not None),
    }


def _explain(item: ReplicationItem | None, kind: Kind | None, *, known: bool) -> str:
    if kind is Kind.ERASED:
        return f"Nothing sent. {EXPLANATIONS[kind]}"
    if item is None and known:
        return "Nothing sent: the entry was removed from the source, and the replica has its tombstone."
    if item is None:
        return "Nothing sent: neither the source nor the replica knows this entry. Check the ids."
    if kind is Kind.RESURRECTED or kind is Kind.AHEAD:
        repair = " Run `regworkers reconcile --repair`." if kind is Kind.RESURRECTED else ""
        return f"Sent, but it will change nothing. {EXPLANATIONS[kind]}{repair}"
    if item.op is Op.REMOVE:
        return "Sent as a removal: the source no longer has the entry. `regworkers drain save` buries it."
    return "Sent: `regworkers drain save` (or its sensor) saves the source's current state."
