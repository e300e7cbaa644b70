"""Dead letters as the commands see them: queues, messages read from them, and filters. Ids only, never a fan's data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from regworkers_core.domain.keys import EntryKey, quoted, similar
from regworkers_core.domain.messages import (
    QUEUES,
    MessageType,
    RefusedRecord,
    ReplicationItem,
    attempt_of,
    decode,
    fingerprint,
)
from regworkers_core.domain.reasons import PermanentFailure, Reason, UsageError
from regworkers_core.domain.redemption import Statement
from regworkers_core.domain.selection import Chunk
from regworkers_core.domain.timestamps import iso, seconds, span_seconds
from regworkers_core.engine.queue import Outgoing, Received
from regworkers_core.settings import Names

# Attributes that describe a failure. A redrive removes them; correlationId and traceparent stay.
FAILURE_ATTRIBUTES = frozenset({"reason", "error", "fingerprint", "firstFailedAt", "source", "attempt"})
# The error of a message that the queue's own redrive policy moved, so that no worker recorded a reason.
MOVED_BY_SQS = "received too often without an answer: workers died on it, or gave it back each time"
# The reason shown for attributes that another program wrote: any sender may put a fan's data there.
FOREIGN = "FOREIGN"
NOT_SHOWN = "no worker of ours wrote this message's attributes, so they are not shown"
_REASONS = frozenset(reason.value for reason in Reason)
_HASH_DIGITS = 64


@dataclass(frozen=True, slots=True)
class DeadQueue:
    """A dead-letter queue: `source` is the queue whose failures it holds, `name` its own name, `kinds` its messages."""

    source: str
    name: str
    kinds: tuple[MessageType, ...]


def dead_queues(names: Names) -> tuple[DeadQueue, ...]:
    sources = zip(names.queues, QUEUES.values(), strict=True)
    return tuple(DeadQueue(source, names.dead_letter_queue(source), kinds) for source, kinds in sources)


def dead_queue(names: Names, text: str) -> DeadQueue:
    """Find a queue by its name, its source's name or the first word of that, with or without the prefix.

    Raises UsageError for an unknown name.
    """
    wanted = text.strip().removesuffix("-dlq").removesuffix("-queue")
    known = {queue.source.removesuffix("-queue"): queue for queue in dead_queues(names)}
    for stem, queue in known.items():
        if wanted in (stem, stem.removeprefix(names.prefix)):
            return queue
    near = similar(wanted, [stem.removeprefix(names.prefix) for stem in known])
    listed = ", ".join(queue.name for queue in known.values())
    raise UsageError(f"{quoted(text)} is not a queue with dead letters{near}: choose one of {listed}")


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a message."""

    # What operators call it; empty where it has none.
    id: str = ""
    campaign_id: str = ""
    # They identify its document in `dead_letters`.
    fields: Mapping[str, str | int] = field(default_factory=dict)
    # What its verdict is read for.
    subject: EntryKey | Chunk | Statement | str | Mapping[str, Any] | None = None
    # Why the item cannot be read.
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class DeadMessage:
    """One message."""

    queue: DeadQueue
    # The first of its queue where the body cannot be read.
    kind: MessageType
    # The message as the queue gave it.
    received: Received
    reason: str
    # What failed.
    error: str
    fingerprint: str
    # Epoch seconds; None if unknown.
    first_failed: float | None
    # Epoch seconds; None if unknown.
    last_failed: float | None
    items: Sequence[Item] = ()
    # What is wrong with its body.
    unreadable: str | None = None

    @property
    def id(self) -> str:
        return self.received.message_id

    @property
    def attempt(self) -> int:
        return attempt_of(self.received.attributes)

    @property
    def first_failed_at(self) -> str | None:
        return None if self.first_failed is None else iso(self.first_failed)

    @property
    def size(self) -> int:
        """Its share of a rate limit in items."""
        return max(1, len(self.items))

    def is_about(self, wanted: str) -> bool:
        """Whether this is the id of the message, or of one of its items."""
        return wanted in (self.id, *(item.id for item in self.items))

    def revived(self) -> Outgoing:
        """The message as a redrive sends it: without its failure, its attempts counted from the start."""
        given = self.received.attributes.items()
        kept = {name: value for name, value in given if name not in FAILURE_ATTRIBUTES}
        return Outgoing(self.received.body.encode(), {**kept, "attempt": "1", "origin": self.received.origin})


def is_ours(attributes: Mapping[str, str]) -> bool:
    """Whether a worker of ours wrote the failure: a known reason, and the fingerprint of that reason and error."""
    reason, error = attributes.get("reason", ""), attributes.get("error", "")
    return reason in _REASONS and attributes.get("fingerprint") == fingerprint(reason, error)


def read_message(queue: DeadQueue, message: Received) -> DeadMessage:
    """Never raises: what is wrong with a message is part of the result."""
    attributes = message.attributes
    reason = attributes.get("reason") or Reason.RECEIVED_TOO_OFTEN.value
    error = attributes.get("error", "" if attributes.get("reason") else MOVED_BY_SQS)
    # The fingerprint distinguishes the causes of every sender; reason and error are shown only if they are ours.
    cause = fingerprint(reason, error)
    if reason not in _REASONS:
        reason, error = FOREIGN, NOT_SHOWN
    elif error and not is_ours(attributes) and error != MOVED_BY_SQS:
        error = NOT_SHOWN
    first = seconds(attributes.get("firstFailedAt", "")) or message.sent_at
    items: Sequence[Item] = ()
    kind, unreadable = queue.kinds[0], None
    try:
        envelope = decode(message.body, *queue.kinds)
        kind, items = envelope.type, [_item(envelope.type, raw) for raw in envelope.items]
        if kind is MessageType.REPLICATE and items and all(item.problem for item in items):
            # Replication accepts none of its keys: the message fails again whatever happens to the entry.
            unreadable = items[0].problem
    except PermanentFailure as failure:
        unreadable = failure.error
    return DeadMessage(
        queue=queue,
        kind=kind,
        received=message,
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
                key = EntryKey.parse(record.pk, record.sk)
                problem = f"{record.place} names a key that replication refuses"
                return (
                    Item(problem=problem)
                    if key is None
                    else Item(key.shown, key.campaign_id, problem=problem)
                )
            key = ReplicationItem.parse(raw).key
            entry = {"campaignId": key.campaign_id, "entryId": key.entry_id}
            return Item(key.document_id, key.campaign_id, entry, key)
        if kind is MessageType.ASSIGN:
            chunk = Chunk.parse(raw)
            fields = {**chunk.market.as_fields(), "chunk": chunk.chunk}
            return Item(chunk.id, chunk.market.campaign_id, fields, chunk)
        if kind in QUEUES["redemption-queue"]:
            stated = Statement.parse(raw, kind)
            return Item(
                stated.digest or stated.at, stated.campaign_id, {"campaignId": stated.campaign_id}, stated
            )
    except PermanentFailure as failure:
        return Item(problem=failure.error)
    if not isinstance(raw, dict):
        return Item(problem=f"an item should be an object, found {type(raw).__name__}")
    return _notification(raw) if kind is MessageType.NOTIFY else _event(raw)


def _notification(raw: Mapping[str, Any]) -> Item:
    key, fields = raw.get("key"), _entry_fields(raw)
    campaign_id = str(fields.get("campaignId", ""))
    if not isinstance(key, str) or not key:
        return Item(campaign_id=campaign_id, problem="field key is missing")
    return Item(key, campaign_id, fields, key)


def _event(raw: Mapping[str, Any]) -> Item:
    """Only an id that looks like one of our hashes is shown: the id of a foreign event may be anything."""
    data = raw.get("data")
    fields = _entry_fields(data) if isinstance(data, dict) else {}
    given = raw.get("id")
    is_hash = isinstance(given, str) and len(given) == _HASH_DIGITS and given.isalnum()
    return Item(str(given) if is_hash else "", str(fields.get("campaignId", "")), fields, raw)


def _entry_fields(raw: Mapping[str, Any]) -> dict[str, str | int]:
    return {name: raw[name] for name in ("campaignId", "entryId") if isinstance(raw.get(name), str)}


@dataclass(frozen=True, slots=True)
class Choice:
    """A filter on dead letters; an empty field does not restrict. `fingerprint` may be a prefix, ages are seconds
    since the first failure.
    """

    reason: str = ""
    campaign_id: str = ""
    fingerprint: str = ""
    older_than: float | None = None
    newer_than: float | None = None

    @classmethod
    def parse(
        cls, *, reason: str = "", campaign: str = "", fingerprint: str = "", older: str = "", newer: str = ""
    ) -> Choice:
        """From an operator's options. Raises UsageError."""
        return cls(
            reason.strip().upper(),
            campaign.strip(),
            fingerprint.strip().lower(),
            parse_age(older) if older else None,
            parse_age(newer) if newer else None,
        )

    def matches(self, message: DeadMessage, now: float) -> bool:
        """A message without a known time has no age: no limit on age matches it."""
        if self.reason and message.reason != self.reason:
            return False
        if self.fingerprint and not message.fingerprint.startswith(self.fingerprint):
            return False
        if self.campaign_id and all(item.campaign_id != self.campaign_id for item in message.items):
            return False
        if self.older_than is None and self.newer_than is None:
            return True
        if message.first_failed is None:
            return False
        age = now - message.first_failed
        return (self.older_than is None or age >= self.older_than) and (
            self.newer_than is None or age <= self.newer_than
        )

    def may_send(self, message: DeadMessage) -> bool:
        """Whether a redrive of this choice sends a message that it matches: one whose sender is not known, only if its
        reason or its cause is named.
        """
        return message.reason != Reason.FORGED or bool(self.reason or self.fingerprint)

    def as_dict(self) -> dict[str, Any]:
        """The fields that restrict, for the record of an action."""
        given = {
            "reason": self.reason,
            "campaignId": self.campaign_id,
            "fingerprint": self.fingerprint,
            "olderThanSeconds": self.older_than,
            "newerThanSeconds": self.newer_than,
        }
        return {name: value for name, value in given.items() if value not in ("", None)}


def parse_age(text: str) -> float:
    """`90s`, `15m`, `2h`, `3d` in seconds. Raises UsageError."""
    age = span_seconds(text)
    if age is None:
        raise UsageError(f"{text!r} is not an age: write 90s, 15m, 2h or 3d")
    return age
