"""From messages to settled messages: decode, save, then acknowledge, give back, split or dead-letter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import structlog

from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MessageType, ReplicationItem, decode
from regworkers_core.domain.reasons import (
    Failure,
    ItemFailure,
    PermanentFailure,
    Reason,
    TransientFailure,
    UsageError,
)
from regworkers_core.engine.dependency import RetryPolicy
from regworkers_core.engine.drain import Settlement
from regworkers_core.engine.ports import Received
from regworkers_core.engine.steps import OnStep, no_step
from regworkers_core.observability.tracing import span
from regworkers_core.replication.save.dead_letters import DeadLetterOffice, Letter
from regworkers_core.replication.save.saver import Saved, Saver, Wanted

log = structlog.get_logger(__name__)
# How long a message stays hidden after a failure, by the number of its receives. A dependency that is away
# opens its breaker, so these waits are for short troubles.
REDELIVERY = RetryPolicy(first_cap_seconds=2.0, last_cap_seconds=30.0)


@dataclass(slots=True)
class Decoded:
    """One message: its items in order, each with its raw form, and either parsed or refused."""

    message: Received
    correlation_id: str = ""
    items: list[tuple[Any, ReplicationItem | PermanentFailure]] = field(default_factory=list)
    refused: PermanentFailure | None = None

    @property
    def size(self) -> int:
        """What the message counts for in `received`: a body that cannot be read counts as one item."""
        return 1 if self.refused else len(self.items)


def decode_message(message: Received) -> Decoded:
    """Never raises: what is wrong with the body or with an item is part of the answer."""
    try:
        envelope = decode(message.body, MessageType.REPLICATE)
    except PermanentFailure as failure:
        return Decoded(
            message, message.attributes.get("correlationId") or message.message_id, refused=failure
        )
    correlation_id = envelope.correlation_id or message.attributes.get("correlationId") or message.message_id
    decoded = Decoded(message, correlation_id)
    for raw in envelope.items:
        try:
            decoded.items.append((raw, ReplicationItem.parse(raw)))
        except PermanentFailure as failure:
            decoded.items.append((raw, failure))
    return decoded


def gather(messages: Iterable[Decoded]) -> dict[EntryKey, Wanted]:
    """One wish per key, whoever asked first."""
    wanted: dict[EntryKey, Wanted] = {}
    for decoded in messages:
        for _, item in decoded.items:
            if isinstance(item, ReplicationItem):
                wish = wanted.setdefault(item.key, Wanted(decoded.message.message_id, decoded.correlation_id))
                wish.add(item)
    return wanted


class SaveWork:
    """The drain's work on replication messages: `Work[Received]`."""

    def __init__(
        self,
        saver: Saver,
        office: DeadLetterOffice,
        *,
        max_attempts: int,
        on_step: OnStep = no_step,
    ) -> None:
        self._saver = saver
        self._office = office
        self._max_attempts = max_attempts
        self._on_step = on_step

    def __call__(self, messages: Sequence[Received]) -> Settlement[Received]:
        settlement = Settlement[Received]()
        batch = [decode_message(message) for message in messages]
        with span(
            "save", sources=[message.attributes for message in messages], messages=len(messages)
        ) as current:
            try:
                saved = self._saver.save(gather(batch))
                current.set_attribute("entries", len(saved.outcomes))
            except TransientFailure as failure:
                log.warning("batch given back", dependency=failure.dependency, error=failure.error)
                for decoded in batch:
                    self._return(decoded, settlement)
                return settlement
            settlement.lags.extend(saved.lags)
            settlement.counts.update(saved.counts)
            counted: set[EntryKey] = set()
            for decoded in batch:
                self._settle(decoded, saved, counted, settlement)
        self._on_step("save.before_delete")
        return settlement

    def _settle(
        self, decoded: Decoded, saved: Saved, counted: set[EntryKey], settlement: Settlement[Received]
    ) -> None:
        outcomes = [
            item if isinstance(item, PermanentFailure) else saved.outcomes[item.key]
            for _, item in decoded.items
        ]
        if any(isinstance(outcome, TransientFailure) for outcome in outcomes):
            # A dependency's failure keeps the message whole.
            self._return(decoded, settlement)
            return
        letters, alone = self._failed(decoded, outcomes, saved)
        if alone and len(decoded.items) == 1:
            # A single-item message is never sent again: its receives are its attempts.
            self._return(decoded, settlement)
            return
        try:
            self._office.post(letters, alone)
        except TransientFailure as failure:
            log.warning("dead letters not confirmed", dependency=failure.dependency, error=failure.error)
            self._return(decoded, settlement)
            return
        settlement.done.append(decoded.message)
        settlement.counts["received"] += decoded.size
        settlement.counts["dead_lettered"] += len(letters)
        settlement.counts["resent"] += len(alone)
        for (_, item), outcome in zip(decoded.items, outcomes, strict=True):
            if isinstance(outcome, str) and isinstance(item, ReplicationItem):
                # The second message that names a key had nothing left to do.
                settlement.counts["dropped" if item.key in counted else outcome] += 1
                counted.add(item.key)

    def _failed(
        self, decoded: Decoded, outcomes: Sequence[str | Failure], saved: Saved
    ) -> tuple[list[Letter], list[Letter]]:
        """Dead letters, and items that go on alone."""
        message = decoded.message
        attempt = _attempt(message)
        if decoded.refused:
            return [Letter(message, message.body.encode(), decoded.refused, attempt)], []
        letters, alone = [], []
        single = len(decoded.items) == 1
        for (raw, item), outcome in zip(decoded.items, outcomes, strict=True):
            if not isinstance(outcome, Failure):
                continue
            key = item.key if isinstance(item, ReplicationItem) else None
            order = saved.refused.get(item.key, item.order) if isinstance(item, ReplicationItem) else None
            body = self._office.body_of(raw, decoded.correlation_id)
            attempts = attempt + (message.receive_count - 1 if single else 0)
            if isinstance(outcome, PermanentFailure):
                letters.append(Letter(message, body, outcome, attempts, key, order))
            elif attempts >= self._max_attempts:
                exhausted = PermanentFailure(Reason.ATTEMPTS_EXHAUSTED, f"{attempts} attempts: {outcome}")
                letters.append(Letter(message, body, exhausted, attempts, key, order))
            elif isinstance(outcome, ItemFailure):
                alone.append(Letter(message, body, outcome, attempts + 1, key, order))
        return letters, alone

    def _return(self, decoded: Decoded, settlement: Settlement[Received]) -> None:
        seconds = max(1.0, REDELIVERY.backoff(decoded.message.receive_count))
        settlement.again.append((decoded.message, seconds))
        settlement.counts["received"] += decoded.size
        settlement.counts["returned"] += decoded.size


def _attempt(message: Received) -> int:
    text = message.attributes.get("attempt", "1")
    return max(1, int(text)) if text.isascii() and text.isdigit() else 1


def invoke_save(event: Any, saver: Saver) -> dict[str, list[dict[str, str]]]:
    """Answer an SQS event as the old saveEntries did: failed messages by id, everything else is saved.

    Nothing is split or dead-lettered here: whoever sent the event decides. Raises UsageError for an event
    that is not one.
    """
    batch = [decode_message(message) for message in _records(event)]
    failed: list[str] = []
    try:
        saved = saver.save(gather(batch))
    except TransientFailure as failure:
        log.warning("event not saved", dependency=failure.dependency, error=failure.error)
        return {"batchItemFailures": [{"itemIdentifier": each.message.message_id} for each in batch]}
    for decoded in batch:
        problems: list[Failure] = [decoded.refused] if decoded.refused else []
        for _, item in decoded.items:
            outcome = item if isinstance(item, PermanentFailure) else saved.outcomes[item.key]
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
        attributes = {
            name: value["stringValue"]
            for name, value in (record.get("messageAttributes") or {}).items()
            if isinstance(value, dict) and isinstance(value.get("stringValue"), str)
        }
        text = body if isinstance(body, str) else orjson.dumps(body).decode()
        messages.append(Received(record["messageId"], "", text, attributes, 1, 0.0))
    return messages
