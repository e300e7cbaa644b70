"""The drain of the analytics queue, wired."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from regworkers_core.adapters.mongo.activity import QueueMarks
from regworkers_core.analytics.candidates import Candidate
from regworkers_core.analytics.event_publisher import PublishHandler
from regworkers_core.analytics.topics import topics_by_type
from regworkers_core.domain.reasons import Failure
from regworkers_core.drains.runner import DrainSpec, Pace, queue_parts
from regworkers_core.engine.drain import Settlement
from regworkers_core.engine.message_work import MessageWork
from regworkers_core.engine.queue import QueueSource, Received
from regworkers_core.engine.stop import OnStep, StopSignal, no_step
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings

log = structlog.get_logger(__name__)
# Precise enough for an age that is measured against days.
_MARK_SECONDS = 10.0


class MarkedWork:
    """The work of the drain, which keeps in mind now and then that something was delivered."""

    def __init__(
        self, work: MessageWork[Candidate], marks: QueueMarks, queue: str, clock: Callable[[], float]
    ) -> None:
        self._work, self._marks, self._queue, self._clock = work, marks, queue, clock
        self._lock = threading.Lock()
        self._due_at = 0.0

    def __call__(self, messages: Sequence[Received]) -> Settlement[Received]:
        settlement = self._work(messages)
        now = self._clock()
        with self._lock:
            due = settlement.counts["sent"] > 0 and now >= self._due_at
            if due:
                self._due_at = now + _MARK_SECONDS
        if due:
            try:
                self._marks.delivered(self._queue, now)
            except Failure as failure:
                # It only makes the queue look older than it is.
                log.warning("delivery not noted", error=str(failure))
        return settlement


def publisher(runtime: Runtime, on_step: OnStep = no_step) -> PublishHandler:
    """The handler over the runtime's producer and topics."""
    return PublishHandler(
        runtime.events,
        runtime.dependency("kafka"),
        topics_by_type(runtime.names),
        tolerance_seconds=runtime.settings.analytics.clock_tolerance_seconds,
        clock=runtime.clock,
        on_step=on_step,
    )


def _publish(
    runtime: Runtime, run_id: str, _stop: StopSignal, on_step: OnStep
) -> tuple[QueueSource, MarkedWork]:
    settings, queue = runtime.settings.analytics, runtime.names.analytics_queue
    source, work = queue_parts(
        runtime,
        PUBLISH.name,
        queue,
        publisher(runtime, on_step),
        batch_messages=settings.batch_messages,
        receive_wait_seconds=settings.receive_wait_seconds,
        visibility_seconds=settings.visibility_seconds,
        max_attempts=settings.max_attempts,
        run_id=run_id,
        on_step=on_step,
    )
    return source, MarkedWork(work, runtime.queue_marks, queue, runtime.clock)


def _pace(settings: Settings) -> Pace:
    analytics = settings.analytics
    return Pace(analytics.concurrency, analytics.prefetch, analytics.visibility_seconds)


PUBLISH: DrainSpec[Received] = DrainSpec(
    name="publish",
    worker="sendData",
    summary="Take events off the analytics queue and publish them to Kafka.",
    # Not MongoDB: only dead letters need it, and their messages can wait.
    needs=("sqs", "kafka"),
    outcomes=("received", "sent", "dropped", "dead_lettered", "resent", "returned"),
    pace=_pace,
    parts=_publish,
)
DRAINS: tuple[DrainSpec[Any], ...] = (PUBLISH,)
