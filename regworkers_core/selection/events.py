"""Business events of this flow onto the analytics queue: confirmed before what they tell counts as done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from regworkers_core.domain.messages import MessageType, chunks, encode
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.queue import Outgoing
from regworkers_core.observability.tracing import inject
from regworkers_core.runtime import Runtime


def send_events(runtime: Runtime, events: Sequence[dict[str, Any]], correlation_id: str) -> None:
    """In as few messages as possible. Raises TransientFailure unless all are confirmed; a repeat sends the same
    ids again, which readers drop.
    """
    queue = runtime.queue(runtime.names.analytics_queue)
    attributes = {"correlationId": correlation_id, "attempt": "1", **inject()}
    messages = [
        Outgoing(encode(MessageType.PUBLISH, correlation_id, run), attributes) for run in chunks(events)
    ]
    if failed := queue.send(messages):
        raise TransientFailure(
            "sqs", f"{queue.name}: {len(failed)} of {len(messages)} messages not confirmed: {failed[0].error}"
        )
