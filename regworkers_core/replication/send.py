"""Putting keys on the replication queue: for repair, backfill and the terminal."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from regworkers_core.domain.messages import (
    MessageType,
    ReplicationItem,
    chunks,
    encode,
    fit_correlation_id,
)
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.ports import Outgoing, Queue
from regworkers_core.observability.tracing import inject


def send_keys(
    queue: Queue, items: Sequence[ReplicationItem], correlation_id: str = "", *, delay_seconds: int = 0
) -> int:
    """Send `items` in messages of up to 100 keys, hidden for their first `delay_seconds`, and return the number of
    messages.

    Raises TransientFailure unless every message is confirmed; sending all again is harmless.
    """
    correlation_id = fit_correlation_id(correlation_id) or uuid.uuid4().hex
    attributes = {"correlationId": correlation_id, "attempt": "1", **inject()}
    messages = [
        Outgoing(encode(MessageType.REPLICATE, correlation_id, chunk), attributes, delay_seconds)
        for chunk in chunks([item.as_json() for item in items])
    ]
    failures = queue.send(messages)
    if failures:
        raise TransientFailure("sqs", f"{len(failures)} of {len(messages)} messages not confirmed")
    return len(messages)
