"""SQS's own mover of whole dead-letter queues (message move tasks), where the endpoint has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from regworkers_core.adapters.aws.clients import error_code
from regworkers_core.domain.reasons import UsageError
from regworkers_core.engine.dependency import Dependency

# AWS's own bound on the rate of one task.
MOST_PER_SECOND = 500
RUNNING = "RUNNING"
# What endpoints answer to an action that they do not have.
_UNKNOWN_ACTION = frozenset(
    {"InvalidAction", "UnknownOperation", "UnknownOperationException", "NotImplemented", "501", "404"}
    | {"AWS.SimpleQueueService.UnsupportedOperation", "UnsupportedOperation"}
)


@dataclass(frozen=True, slots=True)
class MoveTask:
    """One task as ListMessageMoveTasks shows it. `handle` is empty unless it runs; counts are approximate."""

    status: str
    handle: str
    moved: int
    to_move: int | None
    failure: str

    @property
    def runs(self) -> bool:
        return self.status in (RUNNING, "CANCELLING")


class MessageMoves:
    """Every method raises TransientFailure when SQS cannot answer. Queues are given by name."""

    def __init__(self, client: Any, dependency: Dependency) -> None:
        self._client, self._dependency = client, dependency
        self._attributes: dict[str, Mapping[str, str]] = {}

    def latest(self, queue: str) -> MoveTask | None:
        """The most recent task of a dead-letter queue; None when there was none. Raises Unsupported."""
        with _supported():
            answer = self._dependency.call(
                self._client.list_message_move_tasks, SourceArn=self.arn(queue), MaxResults=1
            )
        found = answer.get("Results") or []
        return _task(found[0]) if found else None

    def start(self, queue: str, destination: str, per_second: int) -> str:
        """Move all of `queue` to `destination`; returns the task's handle. Raises Unsupported, and UsageError while
        another task of this queue runs.
        """
        try:
            with _supported():
                # Once: a repeat of one whose answer was lost would meet its own task.
                answer = self._dependency.once(
                    self._client.start_message_move_task,
                    SourceArn=self.arn(queue),
                    DestinationArn=self.arn(destination),
                    MaxNumberOfMessagesPerSecond=max(1, min(per_second, MOST_PER_SECOND)),
                )
        except ClientError as error:
            raise UsageError(f"SQS does not start to move {queue}: {error_code(error)}") from None
        return str(answer["TaskHandle"])

    def cancel(self, handle: str) -> None:
        """What is moved stays moved. A task that has ended meanwhile is fine."""
        try:
            with _supported():
                self._dependency.call(self._client.cancel_message_move_task, TaskHandle=handle)
        except ClientError as error:
            if "NotFound" not in error_code(error) and "Invalid" not in error_code(error):
                raise

    def has_redrive_policy(self, queue: str) -> bool:
        """Whether receives of this queue are counted against a limit: then a look would use them up."""
        return bool(self._attributes_of(queue).get("RedrivePolicy"))

    def arn(self, queue: str) -> str:
        return self._attributes_of(queue)["QueueArn"]

    def _attributes_of(self, queue: str) -> Mapping[str, str]:
        if queue not in self._attributes:
            url = self._dependency.call(self._client.get_queue_url, QueueName=queue)["QueueUrl"]
            names = ["QueueArn", "RedrivePolicy"]
            answer = self._dependency.call(
                self._client.get_queue_attributes, QueueUrl=url, AttributeNames=names
            )
            self._attributes[queue] = answer["Attributes"]
        return self._attributes[queue]


class Unsupported(Exception):
    """The endpoint has no message move tasks."""


@contextmanager
def _supported() -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        if error_code(error) in _UNKNOWN_ACTION:
            raise Unsupported from None
        raise


def _task(result: Mapping[str, Any]) -> MoveTask:
    to_move = result.get("ApproximateNumberOfMessagesToMove")
    return MoveTask(
        str(result.get("Status", "")),
        str(result.get("TaskHandle") or ""),
        int(result.get("ApproximateNumberOfMessagesMoved") or 0),
        None if to_move is None else int(to_move),
        str(result.get("FailureReason") or ""),
    )
