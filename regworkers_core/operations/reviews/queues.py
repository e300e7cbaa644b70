"""What queues hold and how long they keep it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from regworkers_core.runtime import Runtime


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """`depth` counts messages in every state. `retention_seconds` None: the server does not say."""

    name: str
    depth: int
    retention_seconds: int | None


def read_queues(runtime: Runtime, names: Iterable[str]) -> list[QueueFacts]:
    """In their order. Raises TransientFailure, and UsageError for one that does not exist."""
    client, call = runtime.sqs, runtime.dependency("sqs").call
    found = []
    for name in names:
        depth = runtime.queue(name).depth().total
        url = call(client.get_queue_url, QueueName=name)["QueueUrl"]
        attributes = call(
            client.get_queue_attributes, QueueUrl=url, AttributeNames=["MessageRetentionPeriod"]
        ).get("Attributes", {})
        kept = attributes.get("MessageRetentionPeriod")
        found.append(QueueFacts(name, depth, None if kept is None else int(kept)))
    return found
