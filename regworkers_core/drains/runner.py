"""Drains of all flows, run in one way: the same in a test, in the terminal and in a Dagster run."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import structlog
from structlog.contextvars import bound_contextvars, get_contextvars

from regworkers_core.domain.dead_letter import fingerprint
from regworkers_core.domain.reasons import PermanentFailure, TransientFailure, UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.heartbeat import Heartbeat
from regworkers_core.drains.recorder import Meters, Recorder, Tally
from regworkers_core.engine.collector import seldom_collecting
from regworkers_core.engine.dead_letters import DeadLetterOffice, History
from regworkers_core.engine.drain import DrainLimits, DrainReport, Source, Work, drain
from regworkers_core.engine.fuse import BlownFuse, blown_fuse, keep_blown, remove_blown
from regworkers_core.engine.handling import Handler
from regworkers_core.engine.marks import Marks
from regworkers_core.engine.message_work import MessageWork
from regworkers_core.engine.ports import Queue
from regworkers_core.engine.queue_source import QueueSource
from regworkers_core.engine.steps import OnStep, no_step
from regworkers_core.engine.stop import StopSignal
from regworkers_core.observability.code_version import code_version
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings

log = structlog.get_logger(__name__)
D = TypeVar("D")
I = TypeVar("I")  # noqa: E741 (an item)
OnProgress = Callable[[DrainReport], None]


@dataclass(frozen=True, slots=True)
class Pace:
    """How a drain works: batches at once, batches held beside them, and for how many seconds what it holds
    (messages, leases) is kept without a heartbeat.
    """

    concurrency: int
    prefetch: int
    keep_seconds: float


@dataclass(frozen=True, slots=True)
class DrainSpec(Generic[D]):
    """One drain of a flow.

    `worker` is its name in logs; `needs` are the dependencies that it cannot do without: probed before it
    starts, and its end when a breaker opens. `parts` wires source and work for one run. `outcomes` are the
    counts that every report shows, also when zero.
    """

    name: str
    worker: str
    summary: str
    needs: tuple[str, ...]
    outcomes: tuple[str, ...]
    pace: Callable[[Settings], Pace]
    parts: Callable[[Runtime, str, StopSignal, OnStep], tuple[Source[D], Work[D]]]


def drain_limits(
    settings: Settings,
    spec: DrainSpec[D],
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
    pace = spec.pace(settings)
    return DrainLimits(
        idle_seconds=idle if idle_seconds is None else idle_seconds,
        max_seconds=longest if max_seconds is None else max_seconds,
        concurrency=pace.concurrency,
        prefetch=pace.prefetch,
        # A third of what is kept alive: two beats may fail before it is lost.
        heartbeat_seconds=pace.keep_seconds / 3,
        blind_seconds=settings.alerts.blind_seconds,
    )


def run_drain(
    runtime: Runtime,
    spec: DrainSpec[D],
    limits: DrainLimits,
    *,
    stop: StopSignal,
    run_id: str = "",
    on_progress: OnProgress | None = None,
    on_step: OnStep = no_step,
) -> DrainReport:
    """Run one drain to its end, show that it lives, write down by the minute what it does, log one summary line,
    publish its metrics.

    Raises UsageError when tables, queues, addresses or credentials are missing, and while the drain's fuse is blown.
    """
    run_id = run_id or uuid.uuid4().hex
    _pass_fuse(runtime, spec.name)
    source, work = spec.parts(runtime, run_id, stop, on_step)
    tally = Tally(
        spec.name,
        run_id,
        limit_seconds=spec.pace(runtime.settings).keep_seconds,
        clock=runtime.clock,
        meters=lambda: Meters(runtime.calls, runtime.waited_seconds, runtime.strain.throttles),
    )

    life = Heartbeat(
        lambda: runtime.heartbeats,
        spec.name,
        run_id,
        started_at=iso(runtime.clock()),
        idle_seconds=limits.idle_seconds,
        max_seconds=limits.max_seconds,
    )
    before = runtime.strain

    def tell(report: DrainReport) -> None:
        tally.progress(report)
        if on_progress is not None:
            on_progress(report)

    recording = Recorder(tally, lambda minute: runtime.drain_log.put(minute))
    named = bound_contextvars(**{"worker": spec.worker, "runId": run_id, **get_contextvars()})
    with named, seldom_collecting(), life, recording as recorder:
        recorder.report = report = drain(
            spec.name,
            source,
            work,
            limits,
            probe=lambda: runtime.probe(*spec.needs),
            down=lambda: runtime.down(*spec.needs),
            stop=stop,
            on_progress=tell,
            on_batch=tally.batch,
        )
        # Saved queries look for ERROR where a run fails.
        (log.error if report.went_wrong else log.info)("drain ended", **report.as_dict())
        if report.blown is not None:
            _leave_fuse(runtime, spec.name, report.blown, run_id)
    strain = runtime.strain.since(before)
    if runtime.settings.observability.cloudwatch_enabled and (report.counts["received"] or strain.any):
        runtime.metrics.publish(report, strain)
    return report


def fuse_in_force(runtime: Runtime, name: str) -> BlownFuse | None:
    """The blown fuse that keeps the drain from starting: one that this very code blew. Raises TransientFailure."""
    blown = blown_fuse(runtime.leases, name)
    return blown if blown is not None and blown.code_version == code_version() else None


def _pass_fuse(runtime: Runtime, name: str) -> None:
    """Raises UsageError while the fuse is blown. One that other code blew is removed: this code gets its own try."""
    try:
        blown = blown_fuse(runtime.leases, name)
        if blown is not None and blown.code_version != code_version():
            remove_blown(runtime.leases, name)
            log.info("another version blew this fuse: removed", drain=name, **blown.as_dict())
            return
    except TransientFailure as failure:
        # Kafka's events do not wait for DynamoDB. At worst this drain blows its fuse again.
        log.warning("fuse not read", drain=name, dependency=failure.dependency, error=failure.error)
        return
    if blown is not None:
        raise UsageError(blown.in_words)


def _leave_fuse(runtime: Runtime, name: str, cause: PermanentFailure, run_id: str) -> None:
    blown = BlownFuse(
        name,
        fingerprint(cause.reason, cause.error),
        str(cause),
        iso(runtime.clock()),
        code_version(),
        run_id,
    )
    try:
        keep_blown(runtime.leases, blown)
    except TransientFailure as failure:
        log.error(
            "blown fuse not written: the next drain starts, and blows its own",
            drain=name,
            dependency=failure.dependency,
            error=failure.error,
        )
    log.error("the fuse blew", drain=name, **blown.as_dict())


def queue_parts(
    runtime: Runtime,
    name: str,
    queue_name: str,
    handler: Handler[I],
    *,
    batch_messages: int,
    receive_wait_seconds: float,
    visibility_seconds: int,
    max_attempts: int,
    run_id: str,
    on_step: OnStep,
) -> tuple[QueueSource, MessageWork[I]]:
    """Source and work of the drain `name` that takes messages from a queue and hands their items to `handler`."""
    queue = runtime.queue(queue_name)
    source = QueueSource(
        queue,
        batch_messages=batch_messages,
        wait_seconds=receive_wait_seconds,
        visibility_seconds=visibility_seconds,
    )
    office = dead_letter_office(runtime, queue, runtime.dead_letters, run_id=run_id)
    marks = Marks(runtime.leases, queue_name)
    return source, MessageWork(name, handler, office, marks, max_attempts=max_attempts, on_step=on_step)


def dead_letter_office(runtime: Runtime, queue: Queue, history: History, *, run_id: str) -> DeadLetterOffice:
    """That of a queue; `history` keeps what its dead letters are about."""
    return DeadLetterOffice(
        queue,
        runtime.queue(runtime.names.dead_letter_queue(queue.name)),
        history,
        run_id=run_id,
        clock=runtime.clock,
        on_unsent=runtime.note_unsent_dead_letters,
    )
