"""`analytics-queue`: business events on their way to Kafka, one envelope for all who queue them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from regworkers_core.domain.messages import MessageType, chunks, encode
from regworkers_core.domain.producers import PRODUCER
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.queue import QUEUE_SERVICE, Outgoing, Queue, SendFailure
from regworkers_core.observability.tracing import inject


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
