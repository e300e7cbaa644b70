"""SQS: standard queues with visibility, delays, redrive to a dead-letter queue and long polls."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from random import Random
from typing import Any

from tests.simulation.gate import Gate
from tests.simulation.servers.client import Refused, operation
from tests.simulation.servers.queue import Message, Queue
from tests.simulation.servers.queue_settings import MAX_BYTES, QueueSettings
from tests.simulation.servers.values import text_bytes

MAX_BATCH = 10
MAX_IN_FLIGHT = 120_000
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# The code of a part of a batch that was not done, in turn.
_BUSY = ("InternalError", "ServiceUnavailable", "RequestThrottled")


@dataclass(slots=True)
class Chaos:
    """What a standard queue may do: how often a receive leaves its message visible, how often a deleted message comes
    back once, and whether messages come in another order.
    """

    random: Random
    duplicates: float = 0.0
    returns: float = 0.0
    shuffles: bool = True


class Queues(QueueSettings):
    """The messages of an account's queues. Without `chaos` each comes once, in the order of sending."""

    def __init__(self, region: str, account: str, *, chaos: Chaos | None = None) -> None:
        super().__init__(region, account)
        self.chaos = chaos
        self.old_receipts_delete = False

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
        return {"MessageId": self._send(queue, entry, gate.now())}

    @operation
    def send_message_batch(
        self, gate: Gate, *, QueueUrl: str, Entries: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        queue, now = self._queue(QueueUrl, gate), gate.now()
        if sum(map(_bytes, _distinct(Entries))) > MAX_BYTES:
            code = "AWS.SimpleQueueService.BatchRequestTooLong"
            raise Refused(code, f"Batch requests cannot be longer than {MAX_BYTES} bytes.")

        def send(entry: Mapping[str, Any]) -> dict[str, Any]:
            return {"MessageId": self._send(queue, entry, now)}

        return _batch(gate, "SendMessageBatch", Entries, send)

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
            return {}
        wanted = {*AttributeNames, *MessageSystemAttributeNames}
        messages = [_received(queue, each, wanted, MessageAttributeNames) for each in found]
        return {"Messages": messages}

    def _receive(self, queue: Queue, number: int, hide: int, now: float) -> Iterator[Message]:
        if len(queue.messages) - len(queue.ready) >= MAX_IN_FLIGHT:
            raise Refused("OverLimit", "Too many messages are in flight.", 403)
        chaos, redrive = self.chaos, queue.redrive
        target = self.queues.get(redrive[0].rpartition(":")[2]) if redrive else None
        # Of which it looks whether they were received too often: those that may be received now.
        first = len(queue.ready) if chaos is not None and chaos.shuffles else number
        while redrive and target is not None:
            over = [each for each in islice(queue.ready.values(), first) if each.receives >= redrive[1]]
            if not over:
                break
            for message in over:
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
    def delete_message_batch(
        self, gate: Gate, *, QueueUrl: str, Entries: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        queue = self._queue(QueueUrl, gate)

        def delete(entry: Mapping[str, Any]) -> dict[str, Any]:
            self._delete(queue, entry["ReceiptHandle"], gate.now())
            return {}

        return _batch(gate, "DeleteMessageBatch", _distinct(Entries), delete)

    def _delete(self, queue: Queue, handle: str, now: float) -> None:
        """An old receipt is accepted. Amazon says that it "might not" delete: it does with `old_receipts_delete`."""
        message, current = _held(queue, handle)
        if message is None or not (current or self.old_receipts_delete):
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
        return {}

    @operation
    def change_message_visibility_batch(
        self, gate: Gate, *, QueueUrl: str, Entries: Sequence[Mapping[str, Any]]
    ) -> dict[str, Any]:
        queue = self._queue(QueueUrl, gate)

        def change(entry: Mapping[str, Any]) -> dict[str, Any]:
            self._change(queue, entry["ReceiptHandle"], entry["VisibilityTimeout"], gate.now())
            return {}

        return _batch(gate, "ChangeMessageVisibilityBatch", _distinct(Entries), change)

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


def _batch(
    gate: Gate,
    operation_: str,
    entries: Sequence[Mapping[str, Any]],
    act: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """What becomes of each entry; some are refused by a busy server. Empty lists are left out."""
    skipped = frozenset(gate.fails("sqs", operation_, len(entries)))
    parts: dict[str, list[dict[str, Any]]] = {"Successful": [], "Failed": []}
    for number, entry in enumerate(entries):
        if number in skipped:
            parts["Failed"].append(_failure(entry["Id"], _BUSY[number % len(_BUSY)], sender=False))
            continue
        try:
            parts["Successful"].append({"Id": entry["Id"], **act(entry)})
        except Refused as refused:
            parts["Failed"].append(_failure(entry["Id"], refused.code, sender=True))
    return {name: part for name, part in parts.items() if part}


def _failure(id_: str, code: str, *, sender: bool) -> dict[str, Any]:
    return {"Id": id_, "Code": code, "SenderFault": sender, "Message": code}


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
