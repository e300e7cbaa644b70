"""Keys of entries on the replication queue: putting them there for repair, backfill and the terminal; and what a save
stores for those of a batch, from its messages and the items of the demand table.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from regworkers_core.adapters.mongo.entry_documents import Write
from regworkers_core.domain.entry import Entry, Order, lenient_order
from regworkers_core.domain.keys import EntryKey, quoted
from regworkers_core.domain.messages import (
    ItemSubject,
    MessageType,
    Op,
    ReplicationItem,
    chunks,
    encode,
    fit_correlation_id,
)
from regworkers_core.domain.reasons import PermanentFailure, TransientFailure, UsageError
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
        f"no campaign has the id {quoted(campaign_id)}{runtime.campaigns.similar(campaign_id)}, and no entry belongs to"
        " one: give its campaignId, not its slug or name"
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


@dataclass(slots=True)
class KeyRequest:
    """What the messages of a batch say about one key."""

    message_id: str  # of the first message
    correlation_id: str
    removed: Order | None = None  # the order of a removed image
    also: tuple[str, ...] = ()  # ids of the other messages

    def add(self, item: ReplicationItem, message_id: str) -> None:
        if message_id != self.message_id:
            self.also += (message_id,)
        if item.op is Op.REMOVE:
            self.removed = item.order if self.removed is None else max(self.removed, item.order)


@dataclass(frozen=True, slots=True)
class StatesToSave:
    """What a save makes of some keys. Each is in one of three."""

    writes: list[Write] = field(default_factory=list)  # the states to store
    entries: dict[EntryKey, Entry] = field(default_factory=dict)  # the live ones of those
    # With the failure of its dead letter.
    refused: dict[EntryKey, tuple[ItemSubject, PermanentFailure]] = field(default_factory=dict)
    gone: list[EntryKey] = field(default_factory=list)  # nothing is to be stored of them


def states_to_save(
    wanted: Mapping[EntryKey, KeyRequest], items: Mapping[EntryKey, Mapping[str, Any]]
) -> StatesToSave:
    """The states of these keys, from the items of the demand table that exist. No I/O."""
    states = StatesToSave()
    for key, want in wanted.items():
        item = items.get(key)
        if item is not None:
            try:
                entry = Entry.parse(key, item)
            except PermanentFailure as failure:
                states.refused[key] = ItemSubject.entry(key, lenient_order(item)), failure
                continue
            states.entries[key] = entry
            states.writes.append(Write(key, entry.order, entry.fields, want.message_id, want.also))
        elif want.removed is not None:
            states.writes.append(Write(key, want.removed, None, want.message_id, want.also))
        else:
            states.gone.append(key)
    return states
