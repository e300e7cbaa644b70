"""Changes of the demand table to messages on the replication queue: filter, coalesce, send, confirm."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from fairdraw import scheduling
from regworkers_core.adapters.aws.streams import StreamRecord, stream_record
from regworkers_core.domain.messages import (
    MessageType,
    Op,
    RefusedRecord,
    chunks,
    encode,
)
from regworkers_core.domain.reasons import PermanentFailure, TransientFailure, UsageError
from regworkers_core.engine.defects import Fuse, FuseBlown, bisect, defect_of
from regworkers_core.engine.dependency import RESEND
from regworkers_core.engine.drain import Settlement
from regworkers_core.engine.queue import Outgoing, Queue, Received, SendFailure
from regworkers_core.engine.settling import DeadLetterPublisher, FailedItem
from regworkers_core.engine.stop import OnStep, no_step
from regworkers_core.observability.logs import Passed, entries_passed, wants_entries
from regworkers_core.observability.tracing import inject, span
from regworkers_core.replication.enqueue.changes import (
    RecordChange,
    Refused,
    drop,
    one_of_each_key,
    table_key,
    text_of,
)

log = structlog.get_logger(__name__)

_EVENTS = ("INSERT", "MODIFY", "REMOVE")
# SQS cannot refuse one of these messages for its content: keys and times keep to the grammar, `encode` escapes what SQS
# does not take, and the correlation id is printable ASCII. A permanent refusal is about the queue (its key or its
# policy) and meets every message, so nothing is dropped or dead-lettered: the shard's checkpoint stays, which shows as
# lag, and the send is repeated after this pause.
_REFUSED_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class _Message:
    pairs: Sequence[RecordChange]
    outgoing: Outgoing


class EnqueueWork:
    """The work of an enqueue drain: `engine.drain.Work[StreamRecord]`, safe to share between threads. `clock` is in
    epoch seconds.

    A record is done when SQS has confirmed the message with its key, or when it is filtered. Several records of one key
    become one item, because a save reads the current state anyway. If a removal is among them, the item is the removal
    with the highest order: should the read find no entry, the tombstone must be above every state that ended here. They
    are done together: a removal that was acknowledged before its merged item is sent would be lost if that send fails.

    A record that no message can carry becomes a dead letter with its place in the stream, and is done once that is
    confirmed. Without a `publisher` it stays undone.
    """

    def __init__(
        self,
        queue: Queue,
        *,
        publisher: DeadLetterPublisher | None = None,
        clock: Callable[[], float] = scheduling.now,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        backoff: Callable[[int], float] = RESEND.backoff,
        on_step: OnStep = no_step,
    ) -> None:
        self._queue, self._publisher = queue, publisher
        self._clock, self._new_id = clock, new_id
        self._backoff, self._on_step = backoff, on_step
        self._fuse = Fuse()
        self._lock = scheduling.lock()
        self._failures_in_a_row = 0

    def __call__(self, records: Sequence[StreamRecord]) -> Settlement[StreamRecord]:
        """Settle a batch; blocks for its sends. If it raises, it is halved until the record that raises is alone: keys
        that are sent twice do no harm, nor do records of one key in two messages.
        """
        settlement = Settlement[StreamRecord]()
        try:
            if self._fuse.blown is not None:
                raise FuseBlown
            for part in bisect(records, self._work, self._raised_alone):
                settlement.add(part)
        except FuseBlown:
            settlement = Settlement(again=[(record, _REFUSED_SECONDS) for record in records])
            settlement.counts.update(received=len(records), returned=len(records))
        settlement.blown = self._fuse.blown
        return settlement

    def _raised_alone(self, record: StreamRecord, error: Exception) -> Settlement[StreamRecord]:
        failure = defect_of(error)
        log.error("a record raised, twice and alone", error=failure.error, exc_info=error)
        self._fuse.failed(failure)
        settlement = Settlement[StreamRecord]()
        settlement.counts["received"] = 1
        self._refuse([(record, failure)], settlement)
        return settlement

    def _work(self, records: Sequence[StreamRecord]) -> Settlement[StreamRecord]:
        settlement = Settlement[StreamRecord]()
        settlement.counts["received"] = len(records)
        with span("enqueue", records=len(records)):
            pairs, refused = one_of_each_key(records, settlement)
            if refused:
                self._refuse(refused, settlement)
            messages = self._messages(pairs)
            if messages:
                failures = self._send(messages)
                self._on_step("enqueue.after_send")
                self._settle(messages, failures, settlement)
        self._fuse.passed(len(records))
        return settlement

    def _refuse(self, refused: Sequence[Refused], settlement: Settlement[StreamRecord]) -> None:
        """Confirmed on the dead-letter queue before the checkpoint passes them."""
        if self._publisher is None:
            settlement.again.extend((record, _REFUSED_SECONDS) for record, _ in refused)
            settlement.counts["returned"] += len(refused)
            return
        try:
            self._publisher.publish([_failed_item(record, failure) for record, failure in refused], [])
        except TransientFailure as failure:
            log.warning("dead letters not confirmed", dependency=failure.dependency, error=failure.error)
            settlement.again.extend((record, self._backoff(1)) for record, _ in refused)
            settlement.counts["returned"] += len(refused)
            return
        self._on_step("enqueue.after_dead_letters")
        settlement.done.extend(record for record, _ in refused)
        settlement.failed.extend(record.sequence for record, _ in refused)
        settlement.counts["dead_lettered"] += len(refused)

    def _messages(self, pairs: Sequence[RecordChange]) -> list[_Message]:
        messages: list[_Message] = []
        items = [pair.change.item.as_json() for pair in pairs]
        start = 0
        for chunk in chunks(items):
            part = pairs[start : start + len(chunk)]
            start += len(chunk)
            ids = {pair.change.correlation_id for pair in part}
            correlation_id = (ids.pop() if len(ids) == 1 else "") or self._new_id()
            attributes = {"correlationId": correlation_id, "attempt": "1", **inject()}
            body = encode(MessageType.REPLICATE, correlation_id, chunk)
            messages.append(_Message(part, Outgoing(body, attributes)))
        return messages

    def _send(self, messages: Sequence[_Message]) -> dict[int, SendFailure]:
        """Failures by index of the message."""
        try:
            failed = self._queue.send([message.outgoing for message in messages])
        except TransientFailure as failure:
            failed = [SendFailure(index, failure.error, False) for index in range(len(messages))]
        return {failure.index: failure for failure in failed}

    def _settle(
        self,
        messages: Sequence[_Message],
        failures: Mapping[int, SendFailure],
        settlement: Settlement[StreamRecord],
    ) -> None:
        with self._lock:
            self._failures_in_a_row = self._failures_in_a_row + 1 if failures else 0
            in_a_row = self._failures_in_a_row
        now = self._clock()
        for index, message in enumerate(messages):
            failure = failures.get(index)
            if failure is None:
                self._sent(message, now, settlement)
                continue
            say = log.error if failure.permanent else log.warning
            say(
                "a message was not confirmed",
                queue=self._queue.name,
                error=failure.error,
                permanent=failure.permanent,
                records=len(message.pairs),
            )
            delay = _REFUSED_SECONDS if failure.permanent else self._backoff(in_a_row)
            back = [record for pair in message.pairs for record in (*pair.before, pair.record)]
            settlement.again.extend((record, delay) for record in back)
            settlement.counts["returned"] += len(back)

    def _sent(self, message: _Message, now: float, settlement: Settlement[StreamRecord]) -> None:
        settlement.counts.update(messages=1, sent=len(message.pairs))
        for record, change, before in message.pairs:
            for earlier in before:
                drop(settlement, earlier, "coalesced")
            settlement.done.append(record)
            settlement.counts["removals" if change.item.op is Op.REMOVE else "upserts"] += 1
            if change.changed_at is not None:
                settlement.lags.append(now - change.changed_at)
        if wants_entries():
            entries_passed("entry enqueued", _passed(message))


def _passed(message: _Message) -> list[Passed]:
    """Each under its own correlation id, or that of the message if it has none."""
    shared = message.outgoing.attributes["correlationId"]
    changes = ((pair.change.correlation_id, pair.change.item.key) for pair in message.pairs)
    return [Passed(own or shared, key.campaign_id, key.entry_id) for own, key in changes]


def _failed_item(record: StreamRecord, failure: PermanentFailure) -> FailedItem:
    """Without the image: key and place are enough to find the item, and no fan's data leaves the table."""
    pk, sk = table_key(record)
    refused = RefusedRecord(record.shard_id, record.sequence, pk or "", sk or "")
    body = encode(MessageType.REPLICATE, "", [refused.as_json()])
    place = Received(f"{record.shard_id}:{record.sequence}", "", "", {}, 1)
    return FailedItem(place, body, failure, 1)


def invoke_enqueue(event: Mapping[str, Any], queue: Queue) -> dict[str, list[dict[str, str]]]:
    """Handle a Lambda event of a DynamoDB stream. Returns the sequence numbers of records that were not sent, as Lambda
    expects it. Raises UsageError naming the invalid field.
    """
    settlement = EnqueueWork(queue)(decode_stream_event(event))
    return {"batchItemFailures": [{"itemIdentifier": record.sequence} for record, _ in settlement.again]}


def decode_stream_event(event: Mapping[str, Any]) -> list[StreamRecord]:
    """The records of a Lambda event of a DynamoDB stream. Raises UsageError naming the invalid field."""
    records = event.get("Records") if isinstance(event, Mapping) else None
    if not isinstance(records, list):
        raise UsageError("Records should be a list: pass a DynamoDB stream event")
    for index, raw in enumerate(records):
        _check(f"Records[{index}]", raw)
    return [stream_record(raw, str(raw.get("eventSourceARN", ""))) for raw in records]


def _check(where: str, raw: object) -> None:
    change = _mapping(where, raw)
    if change.get("eventName") not in _EVENTS:
        raise UsageError(f"{where}.eventName should be one of {', '.join(_EVENTS)}")
    where += ".dynamodb"
    detail = _mapping(where, change.get("dynamodb"))
    sequence = detail.get("SequenceNumber")
    if not isinstance(sequence, str) or not sequence.isdecimal():
        raise UsageError(f"{where}.SequenceNumber should be a string of digits")
    keys = _mapping(f"{where}.Keys", detail.get("Keys"))
    for name in ("PK", "SK"):
        if text_of(keys, name) is None:
            raise UsageError(f'{where}.Keys.{name} should be {{"S": "..."}}')
    for name in ("NewImage", "OldImage"):
        if detail.get(name) is not None:
            _mapping(f"{where}.{name}", detail[name])


def _mapping(where: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{where} should be an object, found {type(value).__name__}")
    return value
