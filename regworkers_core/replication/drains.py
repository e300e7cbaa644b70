"""The two drains of replication, wired: the same in a test, in the terminal and in a Dagster run."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import Literal, TypeVar

import structlog

from regworkers_core.engine.collector import seldom_collecting
from regworkers_core.engine.drain import DrainLimits, DrainReport, Source, Work, drain
from regworkers_core.engine.queue_source import QueueSource
from regworkers_core.engine.steps import OnStep, no_step
from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.enqueue.source import StreamLimits, StreamSource
from regworkers_core.replication.enqueue.work import EnqueueWork
from regworkers_core.replication.save.dead_letters import DeadLetterOffice
from regworkers_core.replication.save.saver import Saver
from regworkers_core.replication.save.work import SaveWork
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings

log = structlog.get_logger(__name__)
D = TypeVar("D")
DrainName = Literal["enqueue", "save"]
OnProgress = Callable[[DrainReport], None]
# What each drain cannot do without: probed before it starts, and its end when a breaker opens.
NEEDS: Mapping[DrainName, tuple[str, ...]] = {
    "enqueue": ("dynamodb", "streams", "sqs"),
    "save": ("dynamodb", "sqs", "mongo"),
}


def drain_limits(
    settings: Settings,
    name: DrainName,
    *,
    resident: bool = False,
    idle_seconds: float | None = None,
    max_seconds: float | None = None,
) -> DrainLimits:
    """The limits of a drain: `resident` for runs that sensors start; explicit values win."""
    drains = settings.drain
    if resident:
        idle, longest = drains.resident_idle_seconds, drains.resident_max_seconds
    else:
        idle, longest = drains.idle_seconds, drains.max_seconds
    flow = settings.enqueue if name == "enqueue" else settings.save
    # A third of what is kept alive: two beats may fail before it is lost.
    keep = settings.enqueue.lease_seconds if name == "enqueue" else settings.save.visibility_seconds
    return DrainLimits(
        idle_seconds=idle if idle_seconds is None else idle_seconds,
        max_seconds=longest if max_seconds is None else max_seconds,
        concurrency=flow.concurrency,
        prefetch=flow.prefetch,
        heartbeat_seconds=keep / 3,
    )


def run_drain(
    runtime: Runtime,
    name: DrainName,
    limits: DrainLimits,
    *,
    stop: StopSignal,
    run_id: str = "",
    on_progress: OnProgress | None = None,
    on_step: OnStep = no_step,
) -> DrainReport:
    """Run one drain to its end, log one summary line and publish its metrics.

    Raises UsageError when tables, queues, addresses or credentials are missing.
    """
    needs = NEEDS[name]
    run_id = run_id or uuid.uuid4().hex

    def run(parts: tuple[Source[D], Work[D]]) -> DrainReport:
        return drain(
            name,
            *parts,
            limits,
            probe=lambda: runtime.probe(*needs),
            down=lambda: runtime.down(*needs),
            stop=stop,
            on_progress=on_progress,
        )

    with seldom_collecting():
        if name == "enqueue":
            report = run(_enqueue(runtime, run_id, stop, on_step))
        else:
            report = run(_save(runtime, run_id, on_step))
    log.info("drain ended", **report.as_dict())
    if runtime.settings.observability.cloudwatch_enabled and report.counts["received"]:
        runtime.metrics.publish(report)
    return report


def _enqueue(
    runtime: Runtime, run_id: str, stop: StopSignal, on_step: OnStep
) -> tuple[StreamSource, EnqueueWork]:
    settings = runtime.settings.enqueue
    source = StreamSource(
        runtime.streams,
        runtime.leases,
        StreamLimits(
            batch_records=settings.batch_records,
            max_unacknowledged=settings.max_unacknowledged,
            lease_seconds=settings.lease_seconds,
            empty_read_pause_seconds=settings.empty_read_pause_seconds,
        ),
        # A run that is retried keeps its id, an owner must never come twice.
        owner=f"{run_id}-{uuid.uuid4().hex[:8]}",
        sleep=stop.wait,
        on_step=on_step,
    )
    work = EnqueueWork(runtime.queue(runtime.names.replication_queue), clock=runtime.clock, on_step=on_step)
    return source, work


def _save(runtime: Runtime, run_id: str, on_step: OnStep) -> tuple[QueueSource, SaveWork]:
    settings = runtime.settings.save
    queue = runtime.queue(runtime.names.replication_queue)
    source = QueueSource(
        queue,
        batch_messages=settings.batch_messages,
        wait_seconds=settings.receive_wait_seconds,
        visibility_seconds=settings.visibility_seconds,
    )
    office = DeadLetterOffice(
        queue,
        runtime.queue(runtime.names.dead_letter_queue(queue.name)),
        runtime.dead_letters,
        run_id=run_id,
        clock=runtime.clock,
    )
    work = SaveWork(
        saver(runtime, run_id, on_step),
        office,
        max_attempts=settings.max_attempts,
        on_step=on_step,
    )
    return source, work


def saver(runtime: Runtime, run_id: str, on_step: OnStep = no_step) -> Saver:
    """The save steps over the runtime's tables and queues."""
    return Saver(
        runtime.demand_table,
        runtime.replica,
        runtime.campaigns,
        runtime.queue(runtime.names.replication_queue),
        runtime.queue(runtime.names.analytics_queue),
        run_id=run_id,
        clock=runtime.clock,
        on_step=on_step,
    )
