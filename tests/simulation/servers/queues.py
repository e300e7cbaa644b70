"""SQS: standard queues with visibility, delays, redrive to a dead-letter queue, long polls and message moves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import islice
from random import Random
from typing import Any

from tests.simulation.gate import Gate
from tests.simulation.servers.client import METADATA, Refused, operation
from tests.simulation.servers.values import text_bytes

MAX_BATCH, MAX_BYTES = 10, 1024 * 1024
MAX_IN_FLIGHT = 120_000
PURGE_SECONDS = 60.0
# Messages that a move task moves in a second, when it names no number.
MOVES_PER_SECOND = 500
_DEFAULTS = {
    "DelaySeconds": "0",
    "MaximumMessageSize": str(MAX_BYTES),
    "MessageRetentionPeriod": "345600",
    "ReceiveMessageWaitTimeSeconds": "0",
    "VisibilityTimeout": "30",
}
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# The code of a part of a batch that was not done, in turn.
_BUSY = ("InternalError", "ServiceUnavailable", "RequestThrottled")


@dataclass(slots=True, eq=False)
class Message:
    """`receipt` counts how often its receipt changed; `visible_at` is when it can be received next."""

    id: str
    body: str
    attributes: Mapping[str, Any]
    sent_at: float
    visible_at: float
    receives: int = 0
    receipt: int = 0
    first_received_at: float | None = None
    source: str = ""


@dataclass(slots=True)
class Chaos:
    """What a standard queue may do: how often a receive leaves its message visible, how often a deleted message comes
    back once, and whether messages come in another order.
    """

    random: Random
    duplicates: float = 0.0
    returns: float = 0.0
    shuffles: bool = True


@dataclass(slots=True, eq=False)
class Queue:
    name: str
    arn: str
    url: str
    attributes: dict[str, str]
    messages: dict[str, Message] = field(default_factory=dict)
    # Those that can be received now, in order, and those that become visible later.
    ready: dict[str, Message] = field(default_factory=dict)
    hidden: list[tuple[float, int, Message]] = field(default_factory=list)
    purged_at: float | None = None
    _number: int = 0

    def hide(self, message: Message, until: float) -> None:
        self.ready.pop(message.id, None)
        message.visible_at = until
        self._number += 1
        heappush(self.hidden, (until, self._number, message))

    def show(self, now: float) -> None:
        """Move those whose time has come to `ready`, and drop those past the retention."""
        while self.hidden and self.hidden[0][0] <= now:
            at, _, message = heappop(self.hidden)
            # Its time may have changed since.
            if message.visible_at == at and self.messages.get(message.id) is message:
                self.ready[message.id] = message
        oldest = now - float(self.attributes["MessageRetentionPeriod"])
        while self.messages and next(iter(self.messages.values())).sent_at <= oldest:
            self.drop(next(iter(self.messages.values())))

    def drop(self, message: Message) -> None:
        self.messages.pop(message.id, None)
        self.ready.pop(message.id, None)

    def add(self, message: Message, now: float) -> None:
        self.messages[message.id] = message
        if message.visible_at > now:
            self.hide(message, message.visible_at)
        else:
            self.ready[message.id] = message

    @property
    def redrive(self) -> tuple[str, int] | None:
        """The ARN of the dead-letter queue, and how often a message is received before it goes there."""
        policy = self.attributes.get("RedrivePolicy")
        if not policy:
            return None
        found = json.loads(policy)
        return str(found["deadLetterTargetArn"]), int(found["maxReceiveCount"])


@dataclass(slots=True, eq=False)
class _Move:
    handle: str
    source: Queue
    destination: Queue | None
    per_second: int
    started_at: float
    to_move: int
    moved: int = 0
    status: str = "RUNNING"


class Queues:
    """An account's queues in a region. Without `chaos` every message comes once, in the order of sending."""

    def __init__(self, region: str, account: str, *, chaos: Chaos | None = None) -> None:
        self.region, self.account, self.chaos = region, account, chaos
        self.queues: dict[str, Queue] = {}
        self._moves: list[_Move] = []
        self._number = 0

    def _queue(self, url: str, gate: Gate) -> Queue:
        queue = self.queues.get(url.rpartition("/")[2])
        if queue is None:
            raise _missing()
        now = gate.now()
        self._move(now)
        queue.show(now)
        return queue

    def _by_arn(self, arn: str) -> Queue:
        queue = self.queues.get(arn.rpartition(":")[2])
        if queue is None:
            raise Refused("ResourceNotFoundException", "The resource that you specified does not exist", 404)
        return queue

    def _id(self) -> str:
        self._number += 1
        return f"00000000-0000-4000-8000-{self._number:012x}"

    # Queues

    @operation
    def create_queue(
        self, gate: Gate, *, QueueName: str, Attributes: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        queue = self.queues.get(QueueName)
        wanted = {**(Attributes or {})}
        if queue is None:
            arn = f"arn:aws:sqs:{self.region}:{self.account}:{QueueName}"
            url = f"https://sqs.{self.region}.amazonaws.com/{self.account}/{QueueName}"
            queue = self.queues[QueueName] = Queue(QueueName, arn, url, {**_DEFAULTS})
            self._set(queue, wanted)
        elif any(queue.attributes.get(name) != value for name, value in wanted.items()):
            raise Refused(
                "QueueAlreadyExists", "A queue already exists with the same name and a different value"
            )
        return {"QueueUrl": queue.url, "ResponseMetadata": METADATA}

    @staticmethod
    def _set(queue: Queue, wanted: Mapping[str, str]) -> None:
        for name, value in wanted.items():
            if name in _DEFAULTS and not str(value).isdigit():
                raise Refused("InvalidAttributeValue", f"Invalid value for the parameter {name}.")
            if value == "":
                queue.attributes.pop(name, None)
            else:
                queue.attributes[name] = str(value)

    @operation
    def set_queue_attributes(
        self, gate: Gate, *, QueueUrl: str, Attributes: Mapping[str, str]
    ) -> dict[str, Any]:
        self._set(self._queue(QueueUrl, gate), Attributes)
        return {"ResponseMetadata": METADATA}

    @operation
    def get_queue_url(self, gate: Gate, *, QueueName: str) -> dict[str, Any]:
        if QueueName not in self.queues:
            raise _missing()
        return {"QueueUrl": self.queues[QueueName].url, "ResponseMetadata": METADATA}

    @operation
    def list_queues(self, gate: Gate, *, QueueNamePrefix: str = "", **more: Any) -> dict[str, Any]:
        urls = [queue.url for name, queue in sorted(self.queues.items()) if name.startswith(QueueNamePrefix)]
        return {**({"QueueUrls": urls} if urls else {}), "ResponseMetadata": METADATA}

    @operation
    def get_queue_attributes(
        self, gate: Gate, *, QueueUrl: str, AttributeNames: Sequence[str] = ()
    ) -> dict[str, Any]:
        queue = self._queue(QueueUrl, gate)
        hidden = [each for each in queue.messages.values() if each.id not in queue.ready]
        delayed = sum(1 for each in hidden if not each.receives)
        found = {
            **queue.attributes,
            "QueueArn": queue.arn,
            "ApproximateNumberOfMessages": str(len(queue.ready)),
            "ApproximateNumberOfMessagesNotVisible": str(len(hidden) - delayed),
            "ApproximateNumberOfMessagesDelayed": str(delayed),
        }
        if "All" not in AttributeNames:
            found = {name: found[name] for name in AttributeNames if name in found}
        return {"Attributes": found, "ResponseMetadata": METADATA}

    @operation
    def purge_queue(self, gate: Gate, *, QueueUrl: str) -> dict[str, Any]:
        queue, now = self._queue(QueueUrl, gate), gate.now()
        if queue.purged_at is not None and now - queue.purged_at < PURGE_SECONDS:
            code = "AWS.SimpleQueueService.PurgeQueueInProgress"
            raise Refused(
                code, f"Only one PurgeQueue operation on {queue.name} is allowed every 60 seconds.", 403
            )
        queue.purged_at = now
        queue.messages.clear()
        queue.ready.clear()
        return {"ResponseMetadata": METADATA}

    @operation
    def delete_queue(self, gate: Gate, *, QueueUrl: str) -> dict[str, Any]:
        del self.queues[self._queue(QueueUrl, gate).name]
        return {"ResponseMetadata": METADATA}

    @operation
    def list_dead_letter_source_queues(self, gate: Gate, *, QueueUrl: str) -> dict[str, Any]:
        arn = self._queue(QueueUrl, gate).arn
        urls = [each.url for each in self.queues.values() if each.redrive and each.redrive[0] == arn]
        return {"queueUrls": urls, "ResponseMetadata": METADATA}

    # Sending

    @operation
    def send_message(
        self,
        gate: Gate,
        *,
        QueueUrl: str,
        MessageBody: str,
        MessageAttributes: Mapping[str, Any] | None = None,
        DelaySeconds: int | None = None,
    ) -> dict[str, Any]:
        queue = self._queue(QueueUrl, gate)
        entry: dict[str, Any] = {"MessageBody": MessageBody, "MessageAttributes": MessageAttributes or {}}
        if DelaySeconds is not None:
            entry["DelaySeconds"] = DelaySeconds
        return {"MessageId": self._send(queue, entry, gate.now()), "ResponseMetadata": METADATA}

    @operation
    def send_message_batch(
        self, gate: Gate, *, QueueUrl: str, Entries: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        queue, now = self._queue(QueueUrl, gate), gate.now()
        if sum(map(_bytes, _distinct(Entries))) > MAX_BYTES:
            code = "AWS.SimpleQueueService.BatchRequestTooLong"
            raise Refused(code, f"Batch requests cannot be longer than {MAX_BYTES} bytes.")
        done: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        for entry in _served(gate, "SendMessageBatch", Entries, failed):
            try:
                done.append({"Id": entry["Id"], "MessageId": self._send(queue, entry, now)})
            except Refused as refused:
                failed.append(_failure(entry["Id"], refused.code, sender=True))
        return _batch(done, failed)

    def _send(self, queue: Queue, entry: Mapping[str, Any], now: float) -> str:
        body = entry["MessageBody"]
        if not body:
            raise Refused("MissingParameter", "The request must contain the parameter MessageBody.")
        if not body.isprintable() and _FORBIDDEN.search(body):
            raise Refused(
                "InvalidMessageContents", "The message contains characters outside the allowed set."
            )
        if _bytes(entry) > int(queue.attributes["MaximumMessageSize"]):
            raise Refused(
                "InvalidParameterValue", "One or more parameters are invalid: the message is too long."
            )
        delay = entry.get("DelaySeconds")
        delay = int(queue.attributes["DelaySeconds"]) if delay is None else delay
        if not 0 <= delay <= 900:
            raise Refused("InvalidParameterValue", f"Value {delay} for parameter DelaySeconds is invalid.")
        message = Message(self._id(), body, {**entry.get("MessageAttributes", {})}, now, now + delay)
        queue.add(message, now)
        return message.id

    # Receiving

    @operation
    def receive_message(
        self,
        gate: Gate,
        *,
        QueueUrl: str,
        MaxNumberOfMessages: int = 1,
        WaitTimeSeconds: int | None = None,
        VisibilityTimeout: int | None = None,
        AttributeNames: Sequence[str] = (),
        MessageSystemAttributeNames: Sequence[str] = (),
        MessageAttributeNames: Sequence[str] = (),
    ) -> dict[str, Any]:
        queue = self._queue(QueueUrl, gate)
        if not 1 <= MaxNumberOfMessages <= MAX_BATCH:
            raise Refused("InvalidParameterValue", "Value for parameter MaxNumberOfMessages is invalid.")
        wait = WaitTimeSeconds
        wait = int(queue.attributes["ReceiveMessageWaitTimeSeconds"]) if wait is None else wait
        if not 0 <= wait <= 20:
            raise Refused("InvalidParameterValue", "Value for parameter WaitTimeSeconds is invalid.")
        hide = int(queue.attributes["VisibilityTimeout"]) if VisibilityTimeout is None else VisibilityTimeout
        until = gate.now() + wait
        while True:
            found = list(self._receive(queue, MaxNumberOfMessages, hide, gate.now()))
            left = until - gate.now()
            if found or left <= 0:
                break
            gate.wait(min(left, max(0.0, queue.hidden[0][0] - gate.now())) if queue.hidden else left)
            queue = self._queue(QueueUrl, gate)
        if not found:
            return {"ResponseMetadata": METADATA}
        wanted = {*AttributeNames, *MessageSystemAttributeNames}
        messages = [_received(queue, each, wanted, MessageAttributeNames) for each in found]
        return {"Messages": messages, "ResponseMetadata": METADATA}

    def _receive(self, queue: Queue, number: int, hide: int, now: float) -> Iterator[Message]:
        if len(queue.messages) - len(queue.ready) >= MAX_IN_FLIGHT:
            raise Refused("OverLimit", "Too many messages are in flight.", 403)
        chaos, redrive = self.chaos, queue.redrive
        target = self.queues.get(redrive[0].rpartition(":")[2]) if redrive else None
        if redrive and target is not None:
            for message in [each for each in queue.ready.values() if each.receives >= redrive[1]]:
                queue.drop(message)
                message.source, message.visible_at = queue.arn, now
                target.add(message, now)
        if chaos is not None and chaos.shuffles:
            some = chaos.random.sample(list(queue.ready.values()), min(number, len(queue.ready)))
        else:
            some = list(islice(queue.ready.values(), number))
        for message in some:
            message.receives += 1
            message.receipt += 1
            message.first_received_at = message.first_received_at or now
            twice = chaos is not None and chaos.duplicates and chaos.random.random() < chaos.duplicates
            if hide and not twice:
                queue.hide(message, now + hide)
            yield message

    # Receipts

    @operation
    def delete_message(self, gate: Gate, *, QueueUrl: str, ReceiptHandle: str) -> dict[str, Any]:
        self._delete(self._queue(QueueUrl, gate), ReceiptHandle, gate.now())
        return {"ResponseMetadata": METADATA}

    @operation
    def delete_message_batch(
        self, gate: Gate, *, QueueUrl: str, Entries: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        queue = self._queue(QueueUrl, gate)
        done: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        for entry in _served(gate, "DeleteMessageBatch", _distinct(Entries), failed):
            try:
                self._delete(queue, entry["ReceiptHandle"], gate.now())
            except Refused as refused:
                failed.append(_failure(entry["Id"], refused.code, sender=True))
            else:
                done.append({"Id": entry["Id"]})
        return _batch(done, failed)

    def _delete(self, queue: Queue, handle: str, now: float) -> None:
        """An old receipt is accepted and deletes nothing."""
        message, current = _held(queue, handle)
        if message is None or not current:
            return
        chaos = self.chaos
        if (
            chaos is not None
            and chaos.returns
            and chaos.random.random() < chaos.returns
            and not message.source
        ):
            # A copy on a server that did not get the delete, which is received once more.
            message.source = "returned"
            return
        queue.drop(message)

    @operation
    def change_message_visibility(
        self, gate: Gate, *, QueueUrl: str, ReceiptHandle: str, VisibilityTimeout: int
    ) -> dict[str, Any]:
        self._change(self._queue(QueueUrl, gate), ReceiptHandle, VisibilityTimeout, gate.now())
        return {"ResponseMetadata": METADATA}

    @operation
    def change_message_visibility_batch(
        self, gate: Gate, *, QueueUrl: str, Entries: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        queue = self._queue(QueueUrl, gate)
        done: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        for entry in _served(gate, "ChangeMessageVisibilityBatch", _distinct(Entries), failed):
            try:
                self._change(queue, entry["ReceiptHandle"], entry["VisibilityTimeout"], gate.now())
            except Refused as refused:
                failed.append(_failure(entry["Id"], refused.code, sender=True))
            else:
                done.append({"Id": entry["Id"]})
        return _batch(done, failed)

    @staticmethod
    def _change(queue: Queue, handle: str, seconds: int, now: float) -> None:
        message, current = _held(queue, handle)
        if not 0 <= seconds <= 43_200:
            raise Refused("InvalidParameterValue", "Value for parameter VisibilityTimeout is invalid.")
        if message is None or not current or message.id in queue.ready:
            reason = "Message does not exist or is not available for visibility timeout change."
            raise Refused(
                "InvalidParameterValue", f"Value for parameter ReceiptHandle is invalid. Reason: {reason}"
            )
        if seconds:
            queue.hide(message, now + seconds)
        else:
            message.visible_at = now
            queue.ready[message.id] = message

    # Message moves

    @operation
    def start_message_move_task(
        self,
        gate: Gate,
        *,
        SourceArn: str,
        DestinationArn: str = "",
        MaxNumberOfMessagesPerSecond: int = MOVES_PER_SECOND,
    ) -> dict[str, Any]:
        now = gate.now()
        self._move(now)
        source = self._by_arn(SourceArn)
        if any(each.source is source and each.status == "RUNNING" for each in self._moves):
            raise Refused("UnsupportedOperation", "There is already a task running. Only one is allowed.")
        if not any(each.redrive and each.redrive[0] == source.arn for each in self.queues.values()):
            raise Refused("InvalidParameterValue", "Source queue must be configured as a Dead Letter Queue.")
        destination = self._by_arn(DestinationArn) if DestinationArn else None
        handle = f"move-{self._id()}"
        number = len(source.messages)
        self._moves.append(_Move(handle, source, destination, MaxNumberOfMessagesPerSecond, now, number))
        return {"TaskHandle": handle, "ResponseMetadata": METADATA}

    def _move(self, now: float) -> None:
        """Do what the running tasks have done by now. A moved message is new, with its id, time and count."""
        for task in self._moves:
            if task.status != "RUNNING":
                continue
            task.source.show(now)
            due = int((now - task.started_at) * task.per_second) + 1 - task.moved
            for message in list(task.source.ready.values())[: max(0, due)]:
                task.source.drop(message)
                target = task.destination or self.queues.get(message.source.rpartition(":")[2])
                if target is not None:
                    target.add(Message(self._id(), message.body, message.attributes, now, now), now)
                task.moved += 1
            if task.moved >= task.to_move or not task.source.messages:
                task.status = "COMPLETED"

    @operation
    def list_message_move_tasks(self, gate: Gate, *, SourceArn: str, MaxResults: int = 1) -> dict[str, Any]:
        self._move(gate.now())
        source = self._by_arn(SourceArn)
        tasks = [each for each in reversed(self._moves) if each.source is source][:MaxResults]
        return {"Results": [_task(each) for each in tasks], "ResponseMetadata": METADATA}

    @operation
    def cancel_message_move_task(self, gate: Gate, *, TaskHandle: str) -> dict[str, Any]:
        self._move(gate.now())
        for task in self._moves:
            if task.handle == TaskHandle and task.status == "RUNNING":
                task.status = "CANCELLED"
                return {"ApproximateNumberOfMessagesMoved": task.moved, "ResponseMetadata": METADATA}
        raise Refused("ResourceNotFoundException", "Task does not exist or is not running.", 404)


def _task(task: _Move) -> dict[str, Any]:
    handle = {"TaskHandle": task.handle} if task.status == "RUNNING" else {}
    return {
        **handle,
        "Status": task.status,
        "SourceArn": task.source.arn,
        "MaxNumberOfMessagesPerSecond": task.per_second,
        "ApproximateNumberOfMessagesMoved": task.moved,
        "ApproximateNumberOfMessagesToMove": task.to_move,
        "StartedTimestamp": int(task.started_at * 1000),
    }


def _missing() -> Refused:
    return Refused("AWS.SimpleQueueService.NonExistentQueue", "The specified queue does not exist.")


def _bytes(entry: Mapping[str, Any]) -> int:
    """Body and attributes with their names and types."""
    return text_bytes(entry["MessageBody"]) + sum(
        len(name) + len(value["DataType"]) + text_bytes(value.get("StringValue", ""))
        for name, value in entry.get("MessageAttributes", {}).items()
    )


def _distinct(entries: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    prefix = "AWS.SimpleQueueService."
    if not entries:
        raise Refused(f"{prefix}EmptyBatchRequest", "There should be at least one entry in the request.")
    if len(entries) > MAX_BATCH:
        raise Refused(
            f"{prefix}TooManyEntriesInBatchRequest", "Maximum number of entries per request are 10."
        )
    if len({entry["Id"] for entry in entries}) < len(entries):
        raise Refused(f"{prefix}BatchEntryIdsNotDistinct", "An Id is repeated.")
    return entries


def _served(
    gate: Gate, operation_: str, entries: Sequence[Mapping[str, Any]], failed: list[dict[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    """The entries that are processed; the others are put into `failed`."""
    skipped = frozenset(gate.fails("sqs", operation_, len(entries)))
    for number, entry in enumerate(entries):
        if number in skipped:
            failed.append(_failure(entry["Id"], _BUSY[number % len(_BUSY)], sender=False))
        else:
            yield entry


def _failure(id_: str, code: str, *, sender: bool) -> dict[str, Any]:
    return {"Id": id_, "Code": code, "SenderFault": sender, "Message": code}


def _batch(done: list[dict[str, Any]], failed: list[dict[str, Any]]) -> dict[str, Any]:
    # Empty lists are left out.
    parts = {"Successful": done, "Failed": failed}
    return {**{name: part for name, part in parts.items() if part}, "ResponseMetadata": METADATA}


def _held(queue: Queue, handle: str) -> tuple[Message | None, bool]:
    """The message of a receipt, None if it is gone, and whether the receipt is its latest."""
    name, _, rest = handle.partition("#")
    id_, _, number = rest.partition("#")
    if name != queue.name or not number.isdigit():
        raise Refused("ReceiptHandleIsInvalid", f"The input receipt handle {handle!r} is not valid.", 404)
    message = queue.messages.get(id_)
    return message, message is not None and message.receipt == int(number)


def _received(queue: Queue, message: Message, wanted: set[str], attributes: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "MessageId": message.id,
        "ReceiptHandle": f"{queue.name}#{message.id}#{message.receipt}",
        "Body": message.body,
    }
    system = {
        "ApproximateReceiveCount": str(message.receives),
        "SentTimestamp": str(int(message.sent_at * 1000)),
        "ApproximateFirstReceiveTimestamp": str(int((message.first_received_at or 0) * 1000)),
    }
    if message.source.startswith("arn:"):
        system["DeadLetterQueueSourceArn"] = message.source
    if wanted:
        found["Attributes"] = {
            name: value for name, value in system.items() if name in wanted or "All" in wanted
        }
    if message.attributes and attributes:
        every = "All" in attributes
        chosen = {name: value for name, value in message.attributes.items() if every or name in attributes}
        if chosen:
            found["MessageAttributes"] = chosen
    return found
