"""The simulated SQS's queues, created, described and deleted, and its tasks that move messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.simulation.gate import Gate
from tests.simulation.servers.client import METADATA, Refused, operation
from tests.simulation.servers.queue import Message, Queue

MAX_BYTES = 1024 * 1024
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


class QueueSettings:
    """An account's queues in a region."""

    def __init__(self, region: str, account: str) -> None:
        self.region, self.account = region, account
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
