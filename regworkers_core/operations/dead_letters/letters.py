"""A message of a dead-letter queue, read: why it is there, since when, and what it is about. Ids only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from regworkers_core.domain.dead_letter import attempt_of, fingerprint
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import (
    MessageType,
    RefusedRecord,
    ReplicationItem,
    decode,
)
from regworkers_core.domain.reasons import PermanentFailure, Reason
from regworkers_core.domain.selection import Chunk
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.engine.ports import Outgoing, Received
from regworkers_core.operations.dead_letters.queues import DeadQueue

# Of a message that its queue's own redrive policy moved: nobody was left to say why.
TOO_OFTEN = "received too often without an answer: workers died on it, or gave it back each time"
# What a failure left on a message: sent again it starts anew. correlationId and traceparent stay.
OF_A_FAILURE = frozenset({"reason", "error", "fingerprint", "firstFailedAt", "source", "attempt"})
_HASH_DIGITS = 64
# Of a message whose attributes another program wrote: every sender may put a fan's data there.
FOREIGN = "FOREIGN"
NOT_SHOWN = "no worker of ours wrote this message's attributes, so they are not shown"
_REASONS = frozenset(reason.value for reason in Reason)


@dataclass(frozen=True, slots=True)
class Item:
    """One item. `id` is what people call it, empty where it has none; `fields` are those of its document in
    `dead_letters`; `subject` is what the truth is asked about; `problem` says why it cannot be read.
    """

    id: str = ""
    campaign_id: str = ""
    fields: Mapping[str, str | int] = field(default_factory=dict)
    subject: EntryKey | Chunk | str | Mapping[str, Any] | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """One message. `first_failed` and `last_failed` in epoch seconds, None where nothing tells; `unreadable` says
    what is wrong with its body.
    """

    queue: DeadQueue
    message: Received
    reason: str
    error: str
    fingerprint: str
    first_failed: float | None
    last_failed: float | None
    items: Sequence[Item] = ()
    unreadable: str | None = None

    @property
    def id(self) -> str:
        return self.message.message_id

    @property
    def correlation_id(self) -> str:
        return self.message.correlation_id

    @property
    def attempt(self) -> int:
        return attempt_of(self.message.attributes)

    @property
    def first_failed_at(self) -> str | None:
        return None if self.first_failed is None else iso(self.first_failed)

    @property
    def size(self) -> int:
        """What it counts for under a rate of items."""
        return max(1, len(self.items))

    def revived(self) -> Outgoing:
        """The same message as if it had never failed: its attempts count from the start."""
        kept = {name: value for name, value in self.message.attributes.items() if name not in OF_A_FAILURE}
        return Outgoing(self.message.body.encode(), {**kept, "attempt": "1", "origin": self.message.origin})


def is_ours(attributes: Mapping[str, str]) -> bool:
    """Whether a worker of ours wrote what failed: a known reason, and the fingerprint of it and the error."""
    reason, error = attributes.get("reason", ""), attributes.get("error", "")
    return reason in _REASONS and attributes.get("fingerprint") == fingerprint(reason, error)


def read_message(queue: DeadQueue, message: Received) -> DeadMessage:
    """Never raises: what is wrong with a message is part of the answer."""
    attributes = message.attributes
    reason = attributes.get("reason") or Reason.RECEIVED_TOO_OFTEN.value
    error = attributes.get("error", "" if attributes.get("reason") else TOO_OFTEN)
    # Causes of every sender are told apart; only what the workers wrote is shown.
    cause = fingerprint(reason, error)
    if reason not in _REASONS:
        reason, error = FOREIGN, NOT_SHOWN
    elif error and not is_ours(attributes) and error != TOO_OFTEN:
        error = NOT_SHOWN
    first = seconds(attributes.get("firstFailedAt", "")) or message.sent_at
    items: Sequence[Item] = ()
    unreadable = None
    try:
        items = [_item(queue.kind, raw) for raw in decode(message.body, queue.kind).items]
        if queue.kind is MessageType.REPLICATE and items and all(item.problem for item in items):
            # No key that replication takes, whatever becomes of the entry: sent again it fails again.
            unreadable = items[0].problem
    except PermanentFailure as failure:
        unreadable = failure.error
    return DeadMessage(
        queue=queue,
        message=message,
        reason=reason,
        error=error,
        fingerprint=cause,
        first_failed=first,
        last_failed=message.sent_at or first,
        items=items,
        unreadable=unreadable,
    )


def _item(kind: MessageType, raw: Any) -> Item:
    try:
        if kind is MessageType.REPLICATE:
            if (record := RefusedRecord.parse(raw)) is not None:
                return _refused(record)
            key = ReplicationItem.parse(raw).key
            entry = {"campaignId": key.campaign_id, "entryId": key.entry_id}
            return Item(key.document_id, key.campaign_id, entry, key)
        if kind is MessageType.ASSIGN:
            chunk = Chunk.parse(raw)
            fields = {**chunk.market.as_fields(), "chunk": chunk.chunk}
            return Item(chunk.id, chunk.market.campaign_id, fields, chunk)
    except PermanentFailure as failure:
        return Item(problem=failure.error)
    if not isinstance(raw, dict):
        return Item(problem=f"an item should be an object, found {type(raw).__name__}")
    return _notice(raw) if kind is MessageType.NOTIFY else _event(raw)


def _refused(record: RefusedRecord) -> Item:
    key = EntryKey.parse(record.pk, record.sk)
    problem = f"{record.place} names a key that replication refuses"
    return Item(problem=problem) if key is None else Item(key.shown, key.campaign_id, problem=problem)


def _notice(raw: Mapping[str, Any]) -> Item:
    key, fields = raw.get("key"), _texts(raw, "campaignId", "entryId")
    if not isinstance(key, str) or not key:
        return Item(campaign_id=str(fields.get("campaignId", "")), problem="field key is missing")
    return Item(key, str(fields.get("campaignId", "")), fields, key)


def _event(raw: Mapping[str, Any]) -> Item:
    """An event's id is a hash of ours or nothing: a foreign one may be anything, and is not shown."""
    data = raw.get("data")
    fields = _texts(data, "campaignId", "entryId") if isinstance(data, dict) else {}
    given = raw.get("id")
    is_hash = isinstance(given, str) and len(given) == _HASH_DIGITS and given.isalnum()
    return Item(str(given) if is_hash else "", str(fields.get("campaignId", "")), fields, raw)


def _texts(raw: Mapping[str, Any], *names: str) -> dict[str, str | int]:
    return {name: raw[name] for name in names if isinstance(raw.get(name), str)}
