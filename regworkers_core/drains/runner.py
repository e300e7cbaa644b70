"""Runs the drains of all flows in one way: in a test, in the terminal and in a Dagster run."""

from __future__ import annotations

import gc
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Literal, NamedTuple, TypeVar

import structlog
from structlog.contextvars import bound_contextvars, get_contextvars

from fairdraw import scheduling
from regworkers_core.domain.messages import fingerprint
from regworkers_core.domain.reasons import PermanentFailure, TransientFailure, UsageError
from regworkers_core.domain.snapshot import BlownFuse, PausedDrain, Reading, Snapshot
from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.heartbeat import (
    BEAT_SECONDS,
    RESIDENT_BEAT_SECONDS,
    Heartbeat,
)
from regworkers_core.drains.recorder import (
    AcknowledgementWriter,
    DependencyUsage,
    DrainMeter,
    MinuteCounters,
    Recorder,
)
from regworkers_core.drains.residency import AFTER_CLOSING_SECONDS, residency_of
from regworkers_core.engine.defects import code_version, fuse_message, hold_of, remove_hold, store_fuse
from regworkers_core.engine.drain import Drain, DrainLimits, Post, Source, Work
from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.engine.handling import Handler
from regworkers_core.engine.marks import Marks
from regworkers_core.engine.message_work import MessageWork
from regworkers_core.engine.queue import Beside, Queue, QueueSource, Received
from regworkers_core.engine.settling import DeadLetterPublisher, History
from regworkers_core.engine.stop import OnStep, StopSignal, no_step
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings

log = structlog.get_logger(__name__)
D = TypeVar("D")
I = TypeVar("I")  # noqa: E741 (an item)
# A batch makes a hundred thousand dicts and lists, none of them in a cycle, and releases them all. With Python's own
# thresholds (700, 10, 10) the collector takes a quarter of a drain's CPU to scan them.
_GC_THRESHOLDS = (50_000, 20, 100)
_gc_lock = scheduling.lock()
_gc_inside = 0
_gc_before = gc.get_threshold()


class Parts(NamedTuple, Generic[D]):
    source: Source[D]
    work: Work[D]


@dataclass(frozen=True, slots=True)
class DrainSpec(Generic[D]):
    """One drain of a flow, with all that others know of a drain (`regworkers_core.flows`). A text with a dot names a
    setting.
    """

    name: str
    # Its name in logs.
    worker: str
    # One sentence: the help of its command, the description of its job.
    summary: str
    # The job in Dagster that runs it; its sensor is `<job>_sensor`.
    job: str
    # Whose account and secret its pods have: a role in infrastructure/policies.
    duty: Literal["replication", "selection", "analytics"]
    # The dependencies that it cannot do without: probed before it starts; it pauses when a breaker opens, and ends if
    # that lasts.
    needs: tuple[str, ...]
    # The counts that every report shows, also when zero.
    outcomes: tuple[str, ...]
    # Source and work of one run.
    parts: Callable[[Runtime, str, StopSignal, OnStep], Parts[D]]
    # The queue, without the environment's prefix, that it empties or fills. Its dead letters are on `<queue>-dlq`.
    queue: str
    # For how many seconds what it holds (messages, leases) stays its own without a heartbeat. `concurrency` and
    # `prefetch` of that section are the batches that it works on at once, and those that it holds beside them.
    keep: str
    # The most items of one batch.
    most_items: Callable[[Settings], int]
    # How many of it sensors start at most (a setting, or a number), and for each of how many waiting messages one more.
    most_drains: str | int
    messages_each: str | int = "drain.messagesPerDrain"
    # It fills its queue, and this is the work that it could do now, in words; empty: none. None: it empties its queue.
    due: Callable[[Snapshot], Reading[str]] | None = None
    # What it receives from, whose measure scales its residents.
    system: str = "aws_sqs"
    # The seconds in which it acknowledges nothing of what is due, after which an alert says that it is stuck.
    stalled: str = "alerts.drainStalledSelectionSeconds"
    # No fan waits for it: its standstill and the outage of a dependency only warn.
    can_wait: bool = False
    # A page below docs/runbooks for its standstill and for the depth of its queue; empty: the one of the alert.
    runbook: str = ""
    # It is on an entry's way from its registration to the replica and to Kafka: while a campaign is open, some stay.
    residents: bool = False

    @property
    def fills(self) -> bool:
        return self.due is not None

    def section(self, settings: Settings) -> Any:
        return settings.at(self.keep.partition(".")[0])


def number_of(settings: Settings, limit: str | int) -> int:
    """The number of a limit, which is one, or names the setting that has it."""
    return limit if isinstance(limit, int) else int(settings.at(limit))


def drain_limits(
    settings: Settings,
    spec: DrainSpec[D],
    *,
    sensor: bool = False,
    resident: bool = False,
    idle_seconds: float | None = None,
    max_seconds: float | None = None,
) -> DrainLimits:
    """The limits of a drain: `sensor` for runs that sensors start, and of these for a `resident`. Explicit values
    win.
    """
    drains = settings.drain
    if resident:
        idle, longest = AFTER_CLOSING_SECONDS, drains.resident_max_seconds
    elif sensor:
        idle, longest = drains.resident_idle_seconds, drains.resident_max_seconds
    else:
        idle, longest = drains.idle_seconds, drains.max_seconds
    section = spec.section(settings)
    return DrainLimits(
        idle_seconds=idle if idle_seconds is None else idle_seconds,
        max_seconds=longest if max_seconds is None else max_seconds,
        concurrency=section.concurrency,
        prefetch=section.prefetch,
        # Four beats may fail before what is held is lost.
        heartbeat_seconds=settings.at(spec.keep) / 5,
        blind_seconds=settings.alerts.blind_seconds,
        outage_seconds=drains.outage_seconds,
    )


class Life(NamedTuple):
    """How a drain lives beside others."""

    # It runs until another one works (`drains.residency`).
    resident: bool = False
    # It waits for the end of a pause or of a blown fuse, and shows meanwhile that it lives.
    patient: bool = False
    # It is called after each heartbeat that was written.
    on_beat: Callable[[], None] = lambda: None


# Until it is idle, or its limit.
_ALONE = Life()


def run_drain(
    runtime: Runtime,
    spec: DrainSpec[D],
    limits: DrainLimits,
    *,
    stop: StopSignal,
    run_id: str = "",
    life: Life = _ALONE,
    on_progress: Callable[[DrainReport], None] = lambda _report: None,
    on_step: OnStep = no_step,
) -> DrainReport:
    """Run one drain to its end with heartbeat and statistics, log one summary line, publish its metrics. Blocks for at
    most `limits.max_seconds` and what is in flight then, or as its `life` says.

    Raises UsageError when tables, queues, addresses or credentials are missing, and, unless it is patient, while the
    drain's fuse is blown and while it is paused. One that is paused later stops as at a stop signal.
    """
    run_id = run_id or uuid.uuid4().hex
    if not life.patient and (reason := _held(runtime, spec.name)):
        raise UsageError(reason)
    source, work = spec.parts(runtime, run_id, stop, on_step)
    used = runtime.dependencies
    counters = MinuteCounters(
        spec.name,
        run_id,
        limit_seconds=batch_limit(runtime.settings),
        clock=runtime.clock,
        usage=lambda: DependencyUsage(used.calls, used.waited_seconds, used.strain.throttles),
        late_seconds=runtime.settings.replication.lag_objective_seconds,
    )
    residency = None
    if life.resident:
        residency = residency_of(runtime, spec.name, spec.needs, run_id, limits.max_seconds, stop)

    waiting = life.patient
    if residency is not None:
        residency.held = life.patient

    def look() -> None:
        # A pod whose drain hangs is to be restarted.
        if residency is None or not residency.hangs:
            life.on_beat()
        if not waiting:
            _stop_if_paused(runtime, spec.name, stop)
        if residency is not None:
            residency.look()

    heartbeat = Heartbeat(
        lambda: runtime.heartbeats,
        spec.name,
        run_id,
        started_at=iso(runtime.clock()),
        idle_seconds=limits.idle_seconds,
        max_seconds=limits.max_seconds,
        look=look,
        more=residency.state if residency else dict,
        beat_seconds=RESIDENT_BEAT_SECONDS if life.resident else BEAT_SECONDS,
    )
    meter = DrainMeter(lambda readings: runtime.metrics.put(readings), spec.name, lambda: used.strain)
    acknowledging = AcknowledgementWriter(lambda: runtime.heartbeats, spec.name, runtime.clock)

    def progress(report: DrainReport) -> None:
        counters.progress(report)
        meter.report = acknowledging.report = report
        on_progress(report)

    recording = Recorder(counters, lambda minute: runtime.drain_log.put(minute))
    named = bound_contextvars(**{"worker": spec.worker, "runId": run_id, **get_contextvars()})
    with named, relaxed_gc(), heartbeat, acknowledging, meter, recording as recorder:
        if life.patient:
            _wait_while_held(runtime, spec.name, stop)
        waiting = False
        if residency is not None:
            residency.held = False
        recorder.report = meter.report = acknowledging.report = report = Drain(
            spec.name,
            source,
            work,
            limits,
            probe=lambda *names: runtime.probe(*(names or spec.needs)),
            down=lambda: used.down(*spec.needs),
            stop=stop,
            on_progress=progress,
            on_batch=counters.batch,
            post=residency or Post(),
        ).run()
        # Saved queries look for ERROR where a run fails.
        (log.error if report.went_wrong else log.info)("drain ended", **report.as_dict())
        if report.blown is not None:
            _store_fuse(runtime, spec.name, report.blown, run_id)
    return report


def batch_limit(settings: Settings) -> float:
    """Seconds that a batch may take from its receive to its acknowledgement: its items are late beyond."""
    return settings.replication.lag_objective_seconds


@contextmanager
def relaxed_gc() -> Iterator[None]:
    """Raise the thresholds of the cyclic garbage collector while inside. They belong to the process: drains in several
    threads share them, and the last one out restores them.
    """
    global _gc_inside, _gc_before
    with _gc_lock:
        if _gc_inside == 0:
            _gc_before = gc.get_threshold()
            gc.set_threshold(*_GC_THRESHOLDS)
        _gc_inside += 1
    try:
        yield
    finally:
        with _gc_lock:
            _gc_inside -= 1
            if _gc_inside == 0:
                gc.set_threshold(*_gc_before)


def fuse_in_force(runtime: Runtime, name: str) -> BlownFuse | None:
    """The fuse that keeps the drain from starting: one that this version of the code blew. Raises TransientFailure."""
    blown = hold_of(runtime.leases, BlownFuse, name)
    return blown if blown is not None and blown.code_version == code_version() else None


def _wait_while_held(runtime: Runtime, name: str, stop: StopSignal) -> None:
    """Block while the drain is paused or its fuse is blown, and until a stop signal at most. A process that ended
    instead would be restarted later and later, and not be there once it is needed.
    """
    said = ""
    while reason := _held(runtime, name):
        if reason != said:
            said = reason
            log.warning("the resident waits", drain=name, reason=reason)
        if stop.wait(BEAT_SECONDS):
            return


def _held(runtime: Runtime, name: str) -> str:
    """Why the drain may not work: its pause, or its blown fuse. Empty if it may. A fuse that another version blew is
    removed.
    """
    try:
        if (paused := hold_of(runtime.leases, PausedDrain, name)) is not None:
            return f"the drain {name} is {paused.text}; `regworkers drain resume {name}` ends that"
        if (blown := hold_of(runtime.leases, BlownFuse, name)) is None:
            return ""
        if blown.code_version == code_version():
            return fuse_message(name, blown.reason, blown.tripped_at)
        remove_hold(runtime.leases, BlownFuse, name)
        log.info("another version blew this fuse: removed", drain=name, **blown.as_dict())
    except TransientFailure as failure:
        # Events for Kafka do not wait for DynamoDB. At worst this drain blows its fuse again.
        log.warning("fuse not read", drain=name, dependency=failure.dependency, error=failure.error)
    return ""


def _stop_if_paused(runtime: Runtime, name: str, stop: StopSignal) -> None:
    paused = None if stop.is_set else hold_of(runtime.heartbeats, PausedDrain, name)
    if paused is not None:
        log.warning("the drain is paused: it stops", drain=name, **paused.as_dict())
        stop.set()


def _store_fuse(runtime: Runtime, name: str, cause: PermanentFailure, run_id: str) -> None:
    blown = BlownFuse(
        name,
        fingerprint(cause.reason, cause.error),
        str(cause),
        iso(runtime.clock()),
        run_id,
        code_version(),
    )
    try:
        store_fuse(runtime.leases, blown)
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
    spec: DrainSpec[Received],
    handler: Handler[I],
    *,
    run_id: str,
    on_step: OnStep,
    beside: Beside | None = None,
) -> Parts[Received]:
    """The parts of a drain that takes messages from its queue and hands their items to `handler`."""
    queue, settings = runtime.queue(runtime.names.prefix + spec.queue), spec.section(runtime.settings)
    source = QueueSource(
        queue,
        batch_messages=settings.batch_messages,
        wait_seconds=settings.receive_wait_seconds,
        visibility_seconds=settings.visibility_seconds,
    )
    source.beside = beside
    publisher = dead_letter_publisher(runtime, queue, runtime.dead_letters, run_id=run_id)
    marks = Marks(runtime.leases, queue.name)
    work = MessageWork(
        spec.name, handler, publisher, marks, max_attempts=settings.max_attempts, on_step=on_step
    )
    return Parts(source, work)


def dead_letter_publisher(
    runtime: Runtime, queue: Queue, history: History, *, run_id: str
) -> DeadLetterPublisher:
    """The publisher of a queue's dead letters; `history` records their subjects."""
    return DeadLetterPublisher(
        queue,
        runtime.queue(runtime.names.dead_letter_queue(queue.name)),
        history,
        run_id=run_id,
        clock=runtime.clock,
        on_unsent=runtime.dependencies.note_unsent_dead_letters,
    )
