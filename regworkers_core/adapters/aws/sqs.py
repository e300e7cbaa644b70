"""An SQS queue as the engine's `Queue`: full batches; only what an answer lists as `Successful` is done. And the queue
of business events on their way to Kafka, with one envelope for all who send them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from fairdraw import scheduling
from regworkers_core.adapters.aws.answers import AwsRefusal, meaning_of_code
from regworkers_core.domain.events import PRODUCER
from regworkers_core.domain.messages import MessageType, chunks, encode
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.dependency import Dependency, T, retry_parts, waits
from regworkers_core.engine.queue import (
    MAX_RECEIVE,
    QUEUE_SERVICE,
    DepthAndRetention,
    NotHidden,
    Outgoing,
    Queue,
    QueueDepth,
    Received,
    SendFailure,
)
from regworkers_core.observability.tracing import inject

MAX_BATCH = 10
# AWS accepts a stale receipt silently; emulators refuse it. Either way the message is no longer ours.
_NO_LONGER_OURS = frozenset({"ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue"})
_DEPTH = (
    "ApproximateNumberOfMessages",
    "ApproximateNumberOfMessagesNotVisible",
    "ApproximateNumberOfMessagesDelayed",
)
_MISSING = frozenset({"AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"})
# The error of an entry that an answer lists neither as successful nor as failed.
_UNCONFIRMED: Mapping[str, Any] = {"Code": "not confirmed"}

# A message of a send, with its index.
_Numbered = tuple[int, Outgoing]


class _Refused(NamedTuple):
    failed: list[SendFailure]
    again: list[_Numbered]  # those of them that were throttled


class SqsQueue:
    """One queue by name; the URL is looked up at the first call. `retention_days` are as declared (SQS's own
    default).
    """

    def __init__(
        self, client: Any, dependency: Dependency, name: str, *, batch_bytes: int, retention_days: int = 4
    ) -> None:
        self._client = client
        self._dependency = dependency
        self.name = name
        self._batch_bytes, self._retention_days = batch_bytes, retention_days
        self._url = ""

    def send(self, messages: Sequence[Outgoing], *, within_seconds: float | None = None) -> list[SendFailure]:
        """See `Queue.send`. A call that fails as a whole reports each of its messages as a transient failure,
        so that what other calls sent still counts. Throttled parts of a call are sent again with backoff. No
        attempt except the first begins after `within_seconds`.
        """
        failures: dict[int, SendFailure] = {}
        end = math.inf if within_seconds is None else scheduling.monotonic() + within_seconds

        def ask(pending: Sequence[_Numbered]) -> list[_Numbered]:
            again: list[_Numbered] = []
            for number, batch in enumerate(self._batches(pending)):
                left = None if within_seconds is None else end - scheduling.monotonic()
                if number and left is not None and left <= 0:
                    failed = [SendFailure(index, "no time left to send it", False) for index, _ in batch]
                else:
                    failed, busy = self._send_some(batch, left)
                    again += busy
                for index, _ in batch:
                    failures.pop(index, None)
                failures.update((failure.index, failure) for failure in failed)
            return again

        retry_parts(list(enumerate(messages)), ask, self._dependency.policy, scheduling.sleep, end=end)
        return [failures[index] for index in sorted(failures)]

    def _send_some(self, batch: Sequence[_Numbered], within_seconds: float | None) -> _Refused:
        """Make one call."""
        try:
            entries = [_entry(index, message) for index, message in batch]
            refused = self._batch("send_message_batch", entries, within_seconds=within_seconds)
        except TransientFailure as failure:
            # The policy's retries are used up.
            return _Refused([SendFailure(index, failure.error, False) for index, _ in batch], [])
        busy = self._busy("SendMessageBatch", len(batch), refused)
        failed = [
            # KMS's throttling of an encrypted queue is called the sender's fault.
            SendFailure(
                int(id_),
                str(refusal.get("Code", "unknown")),
                bool(refusal.get("SenderFault")) and id_ not in busy,
            )
            for id_, refusal in refused.items()
        ]
        return _Refused(failed, [(index, message) for index, message in batch if str(index) in busy])

    def _batches(self, messages: Sequence[_Numbered]) -> Iterator[list[_Numbered]]:
        batch: list[_Numbered] = []
        size = 0
        for index, message in messages:
            length = _size(message)
            if batch and (len(batch) == MAX_BATCH or size + length > self._batch_bytes):
                yield batch
                batch, size = [], 0
            batch.append((index, message))
            size += length
        if batch:
            yield batch

    def receive(self, limit: int, wait_seconds: float, visibility_seconds: int) -> list[Received]:
        with waits(wait_seconds):
            answer = self._call(
                self._client.receive_message,
                MaxNumberOfMessages=min(limit, MAX_RECEIVE),
                WaitTimeSeconds=round(wait_seconds),
                VisibilityTimeout=visibility_seconds,
                MessageAttributeNames=["All"],
                AttributeNames=["ApproximateReceiveCount", "SentTimestamp"],
            )
        return [
            Received(
                message_id=message["MessageId"],
                receipt=message["ReceiptHandle"],
                body=message["Body"],
                attributes={
                    name: value["StringValue"]
                    for name, value in message.get("MessageAttributes", {}).items()
                    if "StringValue" in value
                },
                receive_count=int(message.get("Attributes", {}).get("ApproximateReceiveCount", 1)),
                sent_at=_sent_at(message.get("Attributes", {})),
            )
            for message in answer.get("Messages", ())
        ]

    def delete(self, messages: Sequence[Received]) -> list[Received]:
        left: list[Received] = []

        def ask(pending: Sequence[Received]) -> list[Received]:
            again: list[Received] = []
            for start in range(0, len(pending), MAX_BATCH):
                batch = pending[start : start + MAX_BATCH]
                entries = [
                    {"Id": str(index), "ReceiptHandle": message.receipt}
                    for index, message in enumerate(batch)
                ]
                refused = self._batch("delete_message_batch", entries)
                busy = self._busy("DeleteMessageBatch", len(batch), refused)
                for id_, refusal in refused.items():
                    if id_ in busy:
                        again.append(batch[int(id_)])
                    elif refusal.get("Code") not in _NO_LONGER_OURS:
                        left.append(batch[int(id_)])
            return again

        left.extend(retry_parts(messages, ask, self._dependency.policy, scheduling.sleep))
        return left

    def change_visibility(self, messages: Sequence[tuple[Received, int]]) -> NotHidden:
        lost: list[Received] = []
        failed: list[Received] = []
        for start in range(0, len(messages), MAX_BATCH):
            batch = messages[start : start + MAX_BATCH]
            entries = [
                {"Id": str(index), "ReceiptHandle": message.receipt, "VisibilityTimeout": seconds}
                for index, (message, seconds) in enumerate(batch)
            ]
            for id_, refusal in self._batch("change_message_visibility_batch", entries).items():
                gone = refusal.get("Code") in _NO_LONGER_OURS
                (lost if gone else failed).append(batch[int(id_)][0])
        return NotHidden(lost, failed)

    def _batch(
        self, operation: str, entries: Sequence[Mapping[str, Any]], *, within_seconds: float | None = None
    ) -> dict[str, Mapping[str, Any]]:
        """The entries that were not done, by id, with SQS's error. An answer without any of the entries belongs to
        another call, and the attempt has failed.
        """

        def call() -> dict[str, Mapping[str, Any]]:
            answer = getattr(self._client, operation)(QueueUrl=self._queue_url(), Entries=entries)
            done = {each["Id"] for each in answer.get("Successful", ())}
            failed = {each["Id"]: each for each in answer.get("Failed", ())}
            if not (done or failed):
                from regworkers_core.adapters.aws.clients import UnreadableAnswer

                raise UnreadableAnswer
            return {
                id_: failed.get(id_, _UNCONFIRMED)
                for id_ in (entry["Id"] for entry in entries)
                if id_ in failed or id_ not in done
            }

        refused: dict[str, Mapping[str, Any]] = self._within(within_seconds, call)
        return refused

    def _busy(self, operation: str, asked: int, refused: Mapping[str, Mapping[str, Any]]) -> set[str]:
        """The ids of throttled entries. Raises UsageError if SQS refuses access."""
        if not refused:
            self._dependency.note_parts(served=asked, throttled=0)
            return set()
        busy: set[str] = set()
        throttled = 0
        for id_, refusal in refused.items():
            meaning = meaning_of_code(self._dependency.name, str(refusal.get("Code", "")), operation)
            if isinstance(meaning, UsageError):
                raise meaning
            if meaning is not None:
                throttled += meaning.throttled
                busy.add(id_)
        self._dependency.note_parts(served=asked - len(busy), throttled=throttled)
        return busy

    def depth(self) -> QueueDepth:
        answer = self._call(self._client.get_queue_attributes, AttributeNames=list(_DEPTH))
        return _depth(answer["Attributes"])

    def state(self) -> DepthAndRetention:
        names = [*_DEPTH, "MessageRetentionPeriod"]
        answer = self._call(self._client.get_queue_attributes, AttributeNames=names)
        found = answer["Attributes"]
        retention = found.get("MessageRetentionPeriod", self._retention_days * 86_400)
        return DepthAndRetention(_depth(found), float(retention))

    def _call(self, function: Callable[..., Any], **arguments: Any) -> Any:
        return self._within(None, lambda: function(QueueUrl=self._queue_url(), **arguments))

    def _within(self, seconds: float | None, function: Callable[[], T]) -> T:
        try:
            return self._dependency.within(seconds, function)
        except AwsRefusal as error:
            if error.code in _MISSING:
                raise UsageError(f"queue {self.name} does not exist: run `regworkers provision`") from None
            # The calls are the same for every message, so the queue or this program is at fault.
            raise UsageError(
                f"SQS refuses {error.operation_name} on queue {self.name} ({error.code})"
            ) from error

    def _queue_url(self) -> str:
        if not self._url:
            self._url = self._client.get_queue_url(QueueName=self.name)["QueueUrl"]
        return self._url


def _depth(found: Mapping[str, str]) -> QueueDepth:
    return QueueDepth(*(int(found.get(name, 0)) for name in _DEPTH))


def _sent_at(attributes: Mapping[str, str]) -> float | None:
    milliseconds = attributes.get("SentTimestamp", "")
    return int(milliseconds) / 1000 if milliseconds.isdigit() else None


def _size(message: Outgoing) -> int:
    """Bytes that count against a batch: body, attribute names, types (`String`) and values."""
    return len(message.body) + sum(
        len(name) + 6 + len(value.encode()) for name, value in message.attributes.items()
    )


def _entry(index: int, message: Outgoing) -> dict[str, Any]:
    entry: dict[str, Any] = {"Id": str(index), "MessageBody": message.body.decode()}
    attributes = {
        name: {"DataType": "String", "StringValue": value}
        for name, value in message.attributes.items()
        if value
    }
    if attributes:
        entry["MessageAttributes"] = attributes
    if message.delay_seconds:
        entry["DelaySeconds"] = message.delay_seconds
    return entry


# Error codes of endpoints without ListMessageMoveTasks.
_UNKNOWN_ACTION = frozenset(
    {"InvalidAction", "UnknownOperation", "UnknownOperationException", "NotImplemented", "501", "404"}
    | {"AWS.SimpleQueueService.UnsupportedOperation", "UnsupportedOperation"}
)


class MessageMoves:
    """What moves messages off a dead-letter queue beside us. Every method raises TransientFailure when SQS cannot
    answer.
    """

    def __init__(self, client: Any, dependency: Dependency) -> None:
        self._client, self._dependency = client, dependency
        self._attributes: dict[str, Mapping[str, str]] = {}

    def moved_by_sqs(self, queue: str) -> int | None:
        """How many messages a move of SQS's own, begun in AWS's console, has moved so far; None if none runs."""
        arn = self._attributes_of(queue)["QueueArn"]
        try:
            answer = self._dependency.call(self._client.list_message_move_tasks, SourceArn=arn, MaxResults=1)
        except AwsRefusal as error:
            if error.code in _UNKNOWN_ACTION:
                return None
            raise
        for task in answer.get("Results") or []:
            if task.get("Status") in ("RUNNING", "CANCELLING"):
                return int(task.get("ApproximateNumberOfMessagesMoved") or 0)
        return None

    def has_redrive_policy(self, queue: str) -> bool:
        """Whether receives of this queue count towards a redrive limit, which browsing would reach."""
        return bool(self._attributes_of(queue).get("RedrivePolicy"))

    def _attributes_of(self, queue: str) -> Mapping[str, str]:
        if queue not in self._attributes:
            url = self._dependency.call(self._client.get_queue_url, QueueName=queue)["QueueUrl"]
            names = ["QueueArn", "RedrivePolicy"]
            answer = self._dependency.call(
                self._client.get_queue_attributes, QueueUrl=url, AttributeNames=names
            )
            self._attributes[queue] = answer["Attributes"]
        return self._attributes[queue]


class EventQueue:
    """Packs CloudEvents into messages with `correlationId`, `attempt`, `traceparent` and `producer`, which `sign` makes
    of a body.
    """

    def __init__(self, queue: Queue, sign: Callable[[bytes], str]) -> None:
        self._queue, self._sign = queue, sign

    def send(
        self, events: Sequence[Mapping[str, Any]], *, within_seconds: float | None = None
    ) -> dict[int, SendFailure]:
        """Send in as few messages as possible; returns the failure of each event that was **not** confirmed, by its
        index in `events`. A message carries the correlation id of its first event. Raises TransientFailure also
        for a key that cannot be read.
        """
        runs = list(chunks(events))
        attributes = {"attempt": "1", **inject()}
        messages = []
        for run in runs:
            correlation_id = run[0]["correlationid"]
            body = encode(MessageType.PUBLISH, correlation_id, run)
            own = {"correlationId": correlation_id, PRODUCER: self._sign(body)}
            messages.append(Outgoing(body, {**own, **attributes}))
        failures = self._queue.send(messages, within_seconds=within_seconds) if messages else []
        failed = {failure.index: failure for failure in failures}
        unconfirmed: dict[int, SendFailure] = {}
        start = 0
        for index, run in enumerate(runs):
            if index in failed:
                unconfirmed.update(dict.fromkeys(range(start, start + len(run)), failed[index]))
            start += len(run)
        return unconfirmed

    def send_all(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Send them as `send` does. Raises TransientFailure unless all are confirmed; a repeat sends the same event
        ids, which consumers drop.
        """
        if unconfirmed := self.send(events):
            error = next(iter(unconfirmed.values())).error
            raise TransientFailure(
                QUEUE_SERVICE,
                f"{len(unconfirmed)} of {len(events)} events not confirmed by analytics-queue: {error}",
            )
