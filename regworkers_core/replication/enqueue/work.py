"""Changes of the demand table to messages on the replication queue: filter, coalesce, send, confirm."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import structlog

from regworkers_core.adapters.aws.streams import StreamRecord
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MessageType, Op, RefusedRecord, chunks, encode
from regworkers_core.domain.reasons import PermanentFailure, TransientFailure
from regworkers_core.engine.dead_letters import DeadLetterOffice, Letter
from regworkers_core.engine.defects import defect_of, in_parts
from regworkers_core.engine.dependency import RetryPolicy
from regworkers_core.engine.drain import Settlement
from regworkers_core.engine.fuse import Fuse, FuseBlown
from regworkers_core.engine.ports import Outgoing, Queue, Received, SendFailure
from regworkers_core.engine.steps import OnStep, no_step
from regworkers_core.observability.logs import Passed, entries_passed, wants_entries
from regworkers_core.observability.tracing import inject, span
from regworkers_core.replication.enqueue.events import Change, change_of, decode_stream_event, table_key

log = structlog.get_logger(__name__)

# No message of ours can be refused for what it says: keys and times keep to the grammar, `encode` escapes what SQS does
# not take, and the correlation id is printable ASCII. A refusal for good is about the queue (its key or its policy)
# and meets every message, so nothing is dropped or dead-lettered: the shard's checkpoint stays, which shows as
# lag, and it is tried again this seldom.
_REFUSED_SECONDS = 30.0
_BACKOFF = RetryPolicy(first_cap_seconds=0.5, last_cap_seconds=10.0)

Refused = tuple[StreamRecord, PermanentFailure]


class Pair(NamedTuple):
    """A record and what it asks for; `before` are older records of its key, whose removals `change` speaks for."""

    record: StreamRecord
    change: Change
    before: tuple[StreamRecord, ...] = ()

    @classmethod
    def of(cls, record: StreamRecord, change: Change, earlier: Pair | None) -> Pair:
        if earlier is None:
            return cls(record, change)
        return cls(record, change.after(earlier.change), (*earlier.before, earlier.record))


@dataclass(frozen=True, slots=True)
class _Message:
    pairs: Sequence[Pair]
    outgoing: Outgoing


class EnqueueWork:
    """The work of an enqueue drain; safe to call from several threads. `clock` gives epoch seconds.

    A record is done when SQS has confirmed the message with its key, or when it does not count. Of several
    records of one key only one item goes out: a save reads the current state anyway. Where a removal is among them it
    goes out as that removal, the one with the highest order: should the read find nothing, the tombstone has to stand
    above every life of the entry that ended here. They are done together: a removal that was acknowledged before the
    item that speaks for it is sent would be lost with the first sending that fails.

    A record that no message can carry goes to `office` as a dead letter, which names its place in the stream, and is
    done once that is confirmed. Without an office it stays undone.
    """

    def __init__(
        self,
        queue: Queue,
        *,
        office: DeadLetterOffice | None = None,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        backoff: Callable[[int], float] = _BACKOFF.backoff,
        on_step: OnStep = no_step,
    ) -> None:
        self._queue, self._office = queue, office
        self._clock, self._new_id = clock, new_id
        self._backoff, self._on_step = backoff, on_step
        self._fuse = Fuse()
        self._lock = threading.Lock()
        self._failures_in_a_row = 0

    def __call__(self, records: Sequence[StreamRecord]) -> Settlement[StreamRecord]:
        """Where a batch raises, its halves are done until the record that raises is alone. Keys that are sent again do
        no harm, nor do records of one key in two messages: they are hints.
        """
        settlement = Settlement[StreamRecord]()
        try:
            if self._fuse.blown is not None:
                raise FuseBlown
            for part in in_parts(records, self._work, self._raised_alone):
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
            pairs, refused = self._one_of_each_key(records, settlement)
            if refused:
                self._refuse(refused, settlement)
            messages = self._messages(pairs)
            if messages:
                failures = self._send(messages)
                self._on_step("enqueue.after_send")
                self._settle(messages, failures, settlement)
        self._fuse.passed(len(records))
        return settlement

    def _one_of_each_key(
        self, records: Sequence[StreamRecord], settlement: Settlement[StreamRecord]
    ) -> tuple[list[Pair], list[Refused]]:
        last: dict[EntryKey, Pair] = {}
        refused: dict[object, Refused] = {}
        # In the order of the stream: records that were given back come again in the order of their delays.
        for record in sorted(records, key=lambda record: int(record.sequence)):
            try:
                change = change_of(record)
            except PermanentFailure as failure:
                key = table_key(record)
                if (earlier := refused.pop(key, None)) is not None:
                    # One letter tells of the key, and the checkpoint cannot pass the later record without it.
                    self._dropped(settlement, earlier[0], "coalesced")
                refused[key] = (record, failure)
                continue
            if change is None:
                self._dropped(settlement, record, "filtered")
                continue
            last[change.item.key] = Pair.of(record, change, last.pop(change.item.key, None))
        return list(last.values()), list(refused.values())

    def _refuse(self, refused: Sequence[Refused], settlement: Settlement[StreamRecord]) -> None:
        """Confirmed on the dead-letter queue before the checkpoint passes them."""
        if self._office is None:
            settlement.again.extend((record, _REFUSED_SECONDS) for record, _ in refused)
            settlement.counts["returned"] += len(refused)
            return
        try:
            self._office.post([_letter(record, failure) for record, failure in refused], [])
        except TransientFailure as failure:
            log.warning("dead letters not confirmed", dependency=failure.dependency, error=failure.error)
            settlement.again.extend((record, self._backoff(1)) for record, _ in refused)
            settlement.counts["returned"] += len(refused)
            return
        self._on_step("enqueue.after_letters")
        settlement.done.extend(record for record, _ in refused)
        settlement.failed.extend(record.sequence for record, _ in refused)
        settlement.counts["dead_lettered"] += len(refused)

    @staticmethod
    def _dropped(settlement: Settlement[StreamRecord], record: StreamRecord, why: str) -> None:
        settlement.done.append(record)
        settlement.counts.update(("dropped", why))

    def _messages(self, pairs: Sequence[Pair]) -> list[_Message]:
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
                self._dropped(settlement, earlier, "coalesced")
            settlement.done.append(record)
            settlement.counts["removals" if change.item.op is Op.REMOVE else "upserts"] += 1
            if change.changed_at is not None:
                settlement.lags.append(now - change.changed_at)
        if wants_entries():
            entries_passed("entry enqueued", _passed(message))


def _passed(message: _Message) -> list[Passed]:
    """Each by its own correlation id, which goes on with the entry; where it has none, by that of the message."""
    shared = message.outgoing.attributes["correlationId"]
    changes = ((pair.change.correlation_id, pair.change.item.key) for pair in message.pairs)
    return [Passed(own or shared, key.campaign_id, key.entry_id) for own, key in changes]


def _letter(record: StreamRecord, failure: PermanentFailure) -> Letter:
    """Without the image: key and place are enough to find the item, and no fan's data leaves the table."""
    pk, sk = table_key(record)
    refused = RefusedRecord(record.shard_id, record.sequence, pk or "", sk or "")
    body = encode(MessageType.REPLICATE, "", [refused.as_json()])
    place = Received(f"{record.shard_id}:{record.sequence}", "", "", {}, 1)
    return Letter(place, body, failure, 1)


def invoke_enqueue(event: Mapping[str, Any], queue: Queue) -> dict[str, list[dict[str, str]]]:
    """One Lambda event of a DynamoDB stream, answered as Lambda wants it: what was not sent, by sequence
    number. Raises UsageError naming the field when the event is malformed.
    """
    settlement = EnqueueWork(queue)(decode_stream_event(event))
    return {"batchItemFailures": [{"itemIdentifier": record.sequence} for record, _ in settlement.again]}
