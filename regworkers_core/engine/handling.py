"""What a flow does with the items of its messages (`Handler`), and how messages become items: decoded, never raising.

The legacy Lambda handlers call a `Handler` too, with an SQS event in place of a queue (`answer_event`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import structlog

from regworkers_core.domain.activity import keep_longest
from regworkers_core.domain.messages import ItemSubject, MessageType, decode, json_text
from regworkers_core.domain.reasons import Failure, PermanentFailure, TransientFailure, UsageError
from regworkers_core.engine.defects import unforeseen
from regworkers_core.engine.queue import Received

I = TypeVar("I")  # noqa: E741 (an item)
log = structlog.get_logger(__name__)


# Not frozen: one is made for every item, and that would triple its cost.
@dataclass(slots=True)
class Requested(Generic[I]):
    """One parsed item, and the message that requested it: the first one, if the item was sent on since."""

    item: I
    message_id: str
    correlation_id: str


@dataclass(slots=True)
class Handled:
    """What a handler did with the items of a batch."""

    # The outcome of each item by its key: one of `drain_report.OUTCOMES`, or a Failure.
    outcomes: dict[Any, str | Failure] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)  # further counters
    lags: list[float] = field(default_factory=list)  # seconds of each item from its write to now
    live: Counter[str] = field(
        default_factory=Counter
    )  # live entries that came, less those that went, by campaign
    slowest: dict[str, float] = field(default_factory=dict)  # the longest of the lags, by campaign
    # The subject of a failed key's dead letter, where it differs from the item's.
    subjects: dict[Any, ItemSubject] = field(default_factory=dict)

    def add(self, other: Handled) -> None:
        """Add what was done for other keys."""
        self.outcomes.update(other.outcomes)
        self.counts.update(other.counts)
        self.lags.extend(other.lags)
        self.live.update(other.live)
        keep_longest(self.slowest, other.slowest)
        self.subjects.update(other.subjects)


class Seal(Protocol):
    """How a queue's messages prove who sent them. The drain's threads call it, and its methods may block.

    Its methods raise TransientFailure when what they need cannot be read.
    """

    def check(self, message: Received, items: Sequence[Any]) -> None:
        """Raises PermanentFailure for a message that its sender may not send: as a whole it becomes a dead letter, with
        the attributes that `kept` returns.
        """
        ...

    def kept(self, message: Received) -> Mapping[str, str]:
        """The proof that the message came with, good or bad."""
        ...

    def attributes(self, body: bytes) -> Mapping[str, str]:
        """The proof for a message of ours, made of one that `check` has let pass."""
        ...


class Handler(Protocol[I]):
    """What a flow does with the items of its messages. The drain's threads call it, and its methods may block.

    An exception that is neither transient nor the operator's is taken for an item's: `handle` is called again with
    fewer of the same items until the one that raises is found, so it must be idempotent.
    """

    @property
    def kinds(self) -> tuple[MessageType, ...]:
        """The types of message that it takes."""
        ...

    @property
    def seal(self) -> Seal | None:
        """None where everybody who may send to the queue may send all of it."""
        ...

    def parse(self, raw: object, kind: MessageType) -> I:
        """Read one raw item of a message of this type. Raises PermanentFailure: the item becomes a dead letter."""
        ...

    def key(self, item: I) -> Hashable:
        """Items of one batch with equal keys are the same work: the second one counts as `dropped`."""
        ...

    def subject(self, item: I) -> ItemSubject:
        """What a dead letter of this item is about."""
        ...

    def handle(self, requested: Sequence[Requested[I]]) -> Handled:
        """Do the work of a batch: the items of all its messages, possibly none, possibly several of one key. Raises
        TransientFailure when a dependency failed for the batch as a whole: all is kept.
        """
        ...


@dataclass(slots=True)
class Decoded(Generic[I]):
    """One message: its items in order, each parsed or refused."""

    message: Received
    kind: MessageType  # as the message says; the first of its queue if it cannot be read
    correlation_id: str = ""
    items: list[I | PermanentFailure] = field(default_factory=list)  # refused items are failures
    refused: PermanentFailure | None = None  # why the message as a whole is refused

    @property
    def size(self) -> int:
        """What the message counts for in `received`: a body that cannot be read counts as one item."""
        return 1 if self.refused else len(self.items)

    def raw(self) -> Sequence[Any]:
        """The items before parsing, decoded again. Only failures need them, and they are most of a batch's memory."""
        return decode(self.message.body, self.kind).items


def refused_message(message: Received, handler: Handler[I], failure: PermanentFailure) -> Decoded[I]:
    """A message that cannot be read, or must not be."""
    return Decoded(message, handler.kinds[0], message.known_as, refused=failure)


def decode_message(message: Received, handler: Handler[I]) -> Decoded[I]:
    """Problems of the body, of its seal or of an item are part of the result. Raises only what no item can have caused,
    TransientFailure for a seal that cannot be checked now.
    """
    try:
        envelope = decode(message.body, *handler.kinds)
        if handler.seal is not None:
            handler.seal.check(message, envelope.items)
    except PermanentFailure as failure:
        return refused_message(message, handler, failure)
    except TransientFailure:
        raise
    except Exception as error:
        return refused_message(message, handler, unforeseen(error))
    decoded: Decoded[I] = Decoded(message, envelope.type, envelope.correlation_id or message.known_as)
    items, parse = decoded.items, handler.parse
    for raw in envelope.items:
        try:
            items.append(parse(raw, envelope.type))
        except PermanentFailure as failure:
            items.append(failure)
        except Exception as error:
            items.append(unforeseen(error))
    return decoded


def readable_items(batch: Sequence[Decoded[I]]) -> list[Requested[I]]:
    """The parsed items, in the order of their messages."""
    requested: list[Requested[I]] = []
    for decoded in batch:
        origin, correlation_id = decoded.message.origin, decoded.correlation_id
        requested += [
            Requested(item, origin, correlation_id)
            for item in decoded.items
            if not isinstance(item, PermanentFailure)
        ]
    return requested


def answer_event(event: Any, handler: Handler[I]) -> dict[str, list[dict[str, str]]]:
    """Handle an SQS event (`{"Records": [...]}`) and return the ids of the messages that failed, as Lambda expects it.
    Everything in the others is done.

    Splits and dead-letters nothing: that is left to the sender of the event. Raises UsageError if it is no SQS event.
    """
    messages = _records(event)
    failed: list[str] = []
    try:
        batch = [decode_message(message, handler) for message in messages]
        handled = handler.handle(readable_items(batch))
    except TransientFailure as failure:
        log.warning("event not handled", dependency=failure.dependency, error=failure.error)
        return {"batchItemFailures": [{"itemIdentifier": each.message_id} for each in messages]}
    for decoded in batch:
        problems: list[Failure] = [decoded.refused] if decoded.refused else []
        for item in decoded.items:
            outcome = item if isinstance(item, PermanentFailure) else handled.outcomes[handler.key(item)]
            if isinstance(outcome, Failure):
                problems.append(outcome)
        if problems:
            failed.append(decoded.message.message_id)
            log.warning("message failed", messageId=decoded.message.message_id, error=str(problems[0]))
    return {"batchItemFailures": [{"itemIdentifier": message_id} for message_id in failed]}


def _records(event: Any) -> list[Received]:
    records = event.get("Records") if isinstance(event, dict) else None
    if not isinstance(records, list):
        raise UsageError(
            'an SQS event is {"Records": [{"messageId": "...", "body": "..."}]}: Records is missing'
        )
    messages = []
    for index, record in enumerate(records):
        if not isinstance(record, dict) or not isinstance(record.get("messageId"), str):
            raise UsageError(f"Records[{index}].messageId is missing or not a string")
        body = record.get("body", "")
        given = record.get("messageAttributes") or {}
        if not isinstance(given, dict):
            raise UsageError(f"Records[{index}].messageAttributes should be an object")
        attributes = {
            name: value["stringValue"]
            for name, value in given.items()
            if isinstance(value, dict) and isinstance(value.get("stringValue"), str)
        }
        text = body if isinstance(body, str) else json_text(body).decode()
        messages.append(Received(record["messageId"], "", text, attributes, 1))
    return messages
