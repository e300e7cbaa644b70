"""The dead-letter queues by the names that people use for them."""

from __future__ import annotations

from dataclasses import dataclass

from regworkers_core.domain.messages import MessageType
from regworkers_core.domain.reasons import UsageError
from regworkers_core.settings import Names


@dataclass(frozen=True, slots=True)
class DeadQueue:
    """One dead-letter queue: `source` is the queue whose failures it holds, `name` its own, `kind` what they carry."""

    source: str
    name: str
    kind: MessageType


def dead_queues(names: Names) -> tuple[DeadQueue, ...]:
    kinds = {
        names.replication_queue: MessageType.REPLICATE,
        names.selection_queue: MessageType.ASSIGN,
        names.notification_queue: MessageType.NOTIFY,
        names.analytics_queue: MessageType.PUBLISH,
    }
    return tuple(DeadQueue(source, names.dead_letter_queue(source), kinds[source]) for source in names.queues)


def dead_queue(names: Names, text: str) -> DeadQueue:
    """By its name, its source's, or the first word of that, with or without the prefix. Raises UsageError."""
    wanted = text.strip().removesuffix("-dlq").removesuffix("-queue")
    known = dead_queues(names)
    for queue in known:
        if wanted in (stem := queue.source.removesuffix("-queue"), stem.removeprefix(names.prefix)):
            return queue
    listed = ", ".join(queue.name for queue in known)
    raise UsageError(f"{text!r} is no queue with dead letters: choose one of {listed}")
