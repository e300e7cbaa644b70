"""The simulated SQS's queues: created, described and deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tests.simulation.gate import Gate
from tests.simulation.servers.client import Refused, operation
from tests.simulation.servers.queue import Queue

MAX_BYTES = 1024 * 1024
PURGE_SECONDS = 60.0
_DEFAULTS = {
    "DelaySeconds": "0",
    "MaximumMessageSize": str(MAX_BYTES),
    "MessageRetentionPeriod": "345600",
    "ReceiveMessageWaitTimeSeconds": "0",
    "VisibilityTimeout": "30",
}


class QueueSettings:
    """An account's queues in a region."""

    def __init__(self, region: str, account: str) -> None:
        self.region, self.account = region, account
        self.queues: dict[str, Queue] = {}
        self._number = 0

    def _queue(self, url: str, gate: Gate) -> Queue:
        queue = self.queues.get(url.rpartition("/")[2])
        if queue is None:
            raise _missing()
        queue.show(gate.now())
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
        return {"QueueUrl": queue.url}

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
        return {}

    @operation
    def get_queue_url(self, gate: Gate, *, QueueName: str) -> dict[str, Any]:
        if QueueName not in self.queues:
            raise _missing()
        return {"QueueUrl": self.queues[QueueName].url}

    @operation
    def list_queues(self, gate: Gate, *, QueueNamePrefix: str = "", **more: Any) -> dict[str, Any]:
        urls = [queue.url for name, queue in sorted(self.queues.items()) if name.startswith(QueueNamePrefix)]
        return {**({"QueueUrls": urls} if urls else {})}

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
        return {"Attributes": found}

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
        return {}

    @operation
    def delete_queue(self, gate: Gate, *, QueueUrl: str) -> dict[str, Any]:
        del self.queues[self._queue(QueueUrl, gate).name]
        return {}

    @operation
    def list_message_move_tasks(self, gate: Gate, *, SourceArn: str, MaxResults: int = 1) -> dict[str, Any]:
        """None: the product starts no task of SQS."""
        return {"Results": []}


def _missing() -> Refused:
    return Refused("AWS.SimpleQueueService.NonExistentQueue", "The specified queue does not exist.")
