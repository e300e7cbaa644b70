"""Changes of the demand table to messages on the replication queue: filter, coalesce, send, confirm."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from regworkers_core.adapters.aws.streams import StreamRecord
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MessageType, Op, chunks, encode, fit_correlation_id
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.dependency import RetryPolicy
from regworkers_core.engine.drain import Settlement
from regworkers_core.engine.ports import Outgoing, Queue, SendFailure
from regworkers_core.engine.steps import OnStep, no_step
from regworkers_core.observability.tracing import inject, span
from regworkers_core.replication.enqueue.events import Change, change_of, decode_stream_event

log = structlog.get_logger(__name__)

# No message of ours can be refused for what it says: keys and times are short, `encode` escapes what SQS does not
# take, and the correlation id is printable ASCII. A refusal for good is about the queue (its key or its policy)
# and meets every message, so nothing is dropped or dead-lettered: the shard's checkpoint stays, which shows as
# lag, and it is tried again this seldom.
_REFUSED_SECONDS = 30.0
_BACKOFF = RetryPolicy(first_cap_seconds=0.5, last_cap_seconds=10.0)

Pair = tuple[StreamRecord, Change]


@dataclass(frozen=True, slots=True)
class _Message:
    pairs: Sequence[Pair]
    outgoing: Outgoing


class EnqueueWork:
    """The work of an enqueue drain; safe to call from several threads. `clock` gives epoch seconds.

    A record is done when SQS has confirmed the message with its key, or when it does not count. Of several
    records of one key only the last goes out: a save reads the current state anyway.
    """

    def __init__(
        self,
        queue: Queue,
        *,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
        backoff: Callable[[int], float] = _BACKOFF.backoff,
        on_step: OnStep = no_step,
    ) -> None:
        self._queue, self._clock, self._new_id = queue, clock, new_id
        self._backoff, self._on_step = backoff, on_step
        self._lock = threading.Lock()
        self._failures_in_a_row = 0

    def __call__(self, records: Sequence[StreamRecord]) -> Settlement[StreamRecord]:
        settlement = Settlement[StreamRecord]()
        settlement.counts["received"] = len(records)
        with span("enqueue", records=len(records)):
            messages = self._messages(self._last_of_each_key(records, settlement))
            if messages:
                failures = self._send(messages)
                self._on_step("enqueue.after_send")
                self._settle(messages, failures, settlement)
        return settlement

    def _last_of_each_key(
        self, records: Sequence[StreamRecord], settlement: Settlement[StreamRecord]
    ) -> list[Pair]:
        last: dict[EntryKey, Pair] = {}
        # In the order of the stream: records that were given back come again in the order of their delays.
        for record in sorted(records, key=lambda record: int(record.sequence)):
            change = change_of(record)
            if change is None:
                self._dropped(settlement, record, "filtered")
                continue
            earlier = last.pop(change.item.key, None)
            if earlier is not None:
                # Safe to acknowledge: the checkpoint cannot pass the later record before that one is sent.
                self._dropped(settlement, earlier[0], "coalesced")
            last[change.item.key] = (record, change)
        return list(last.values())

    @staticmethod
    def _dropped(settlement: Settlement[StreamRecord], record: StreamRecord, why: str) -> None:
        settlement.done.append(record)
        settlement.counts.update(("dropped", why))

    def _messages(self, pairs: Sequence[Pair]) -> list[_Message]:
        messages: list[_Message] = []
        items = [change.item.as_json() for _, change in pairs]
        start = 0
        for chunk in chunks(items):
            part = pairs[start : start + len(chunk)]
            start += len(chunk)
            ids = {fit_correlation_id(change.correlation_id) for _, change in part}
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
            settlement.again.extend((record, delay) for record, _ in message.pairs)
            settlement.counts["returned"] += len(message.pairs)

    @staticmethod
    def _sent(message: _Message, now: float, settlement: Settlement[StreamRecord]) -> None:
        settlement.counts.update(messages=1, sent=len(message.pairs))
        for record, change in message.pairs:
            settlement.done.append(record)
            settlement.counts["removals" if change.item.op is Op.REMOVE else "upserts"] += 1
            if change.changed_at is not None:
                settlement.lags.append(now - change.changed_at)


def invoke_enqueue(event: Mapping[str, Any], queue: Queue) -> dict[str, list[dict[str, str]]]:
    """One Lambda event of a DynamoDB stream, answered as Lambda wants it: what was not sent, by sequence
    number. Raises UsageError naming the field when the event is malformed.
    """
    settlement = EnqueueWork(queue)(decode_stream_event(event))
    return {"batchItemFailures": [{"itemIdentifier": record.sequence} for record, _ in settlement.again]}
