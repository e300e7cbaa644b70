"""Putting keys on the replication queue: for repair, backfill and the terminal."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from regworkers_core.domain.keys import EntryKey, quoted
from regworkers_core.domain.messages import (
    MessageType,
    ReplicationItem,
    chunks,
    encode,
    fit_correlation_id,
)
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.queue import QUEUE_SERVICE, Outgoing, Queue
from regworkers_core.observability.tracing import inject
from regworkers_core.runtime import Runtime


def require_campaign(runtime: Runtime, campaign_id: str | None) -> None:
    """Raises UsageError for an id without a campaign and without an entry on either side: a typing error must not look
    like a campaign in order. Replication needs no campaign, so entries are enough. TransientFailure if it cannot be
    read.
    """
    if campaign_id is None:
        return
    if not EntryKey(campaign_id, "").can_be_in_table:
        raise UsageError(
            f"no campaign has the id {quoted(campaign_id)}: campaignId has up to 64 bytes of UTF-8"
        )
    # The table first: a campaign with entries needs no other store.
    if runtime.demand_table.query(campaign_id, limit=1).items:
        return
    if runtime.campaigns.known({campaign_id}) or runtime.replica.has_campaign(campaign_id):
        return
    raise UsageError(
        f"no campaign has the id {quoted(campaign_id)}, and no entry belongs to one: give its campaignId, not its slug"
        " or name"
    )


def send_keys(
    queue: Queue, items: Sequence[ReplicationItem], correlation_id: str = "", *, delay_seconds: int = 0
) -> int:
    """Send `items` in messages of up to 100 keys, hidden for their first `delay_seconds`. Returns the number of
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
        raise TransientFailure(QUEUE_SERVICE, f"{len(failures)} of {len(messages)} messages not confirmed")
    return len(messages)
