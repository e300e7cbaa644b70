"""Stream lag: everything that can limit the replication of the demand table's stream, as a number beside its limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from regworkers_core.domain.activity import DrainWindow
from regworkers_core.domain.snapshot import QueueState, Reading, Unread
from regworkers_core.engine.queue import QUEUE_SERVICE
from regworkers_core.flows import DRAIN
from regworkers_core.operation import Remark, Report
from regworkers_core.operations.dependency_status import command_in
from regworkers_core.operations.health.activity import Activity
from regworkers_core.operations.health.sources import read_queue
from regworkers_core.operations.runbook import Row, read_or_unread, runbook_report
from regworkers_core.replication.drains import ENQUEUE, SAVE
from regworkers_core.replication.enqueue.stream_probe import ShardCounts, shard_counts
from regworkers_core.replication.enqueue.stream_probe import stream_lag as oldest_unread
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings

NAME = "stream-lag"
# AWS allows five reads per second and shard, for all readers together.
_READS_PER_SHARD = 5.0
# Records of a batch that a slow queue confirms in one call: a failure then repeats no more than these.
_SMALL_BATCH = 100
# Share of a limit from which on it is the bottleneck. A drain with nothing to read makes four of the five reads.
_FULL = 0.8
_THROTTLED = 0.95
_THROTTLED_SHARE = 0.01
_THROTTLED_ADVICE = "fewer drains, not more: lower drain.maxSaveDrains, or raise the limit of the account"
# Far longer than a call to a healthy service takes that is not throttled.
_SLOW_SECONDS = 0.5


def _waits(work: DrainWindow) -> list[str]:
    """What the drain waits for. Not a read of its queue, which waits for work."""
    spec = DRAIN[work.name]
    return [name for name in spec.needs if name != QUEUE_SERVICE or spec.fills]


@dataclass(frozen=True, slots=True)
class LagReading:
    """What the runbook reads."""

    # The age of the oldest record that no checkpoint covers; 0: everything is read; None: unknown.
    unread_seconds: float | None
    shards: Reading[ShardCounts]
    # The queue of replication.
    queue: Reading[QueueState]
    # Their work of the last `minutes`.
    drains: Reading[Mapping[str, DrainWindow]]
    # The window.
    minutes: float


def run(runtime: Runtime, *, minutes: float = 15.0) -> Report:
    """What limits replication now. Changes nothing."""
    reading = LagReading(
        oldest_unread(runtime.streams, runtime.leases, now=runtime.clock()),
        read_or_unread(lambda: shard_counts(runtime.streams, runtime.leases)),
        read_or_unread(read_queue, runtime, runtime.names.replication_queue),
        read_or_unread(lambda: Activity(runtime).last(60 * minutes)),
        minutes,
    )
    return assess(reading, runtime.settings)


@dataclass(frozen=True, slots=True)
class Bound:
    """A number beside its limit."""

    name: str
    # The number; None: unknown.
    now: float | None
    # None: there is none.
    limit: float | None
    # What moves the limit; empty: no setting does.
    setting: str = ""

    @property
    def full(self) -> bool:
        return self.now is not None and self.limit is not None and self.now >= _FULL * self.limit

    def as_row(self) -> Row:
        now = None if self.now is None else round(self.now, 2)
        return {"bound": self.name, "now": now, "limit": self.limit, "setting": self.setting}


def assess(reading: LagReading, settings: Settings) -> Report:
    """Names the bottleneck and the setting to change. Fine while the age is within the lag objective."""
    objective = settings.replication.lag_objective_seconds
    drains = {} if isinstance(reading.drains, Unread) else reading.drains
    enqueue, save = (drains.get(name, DrainWindow(name)) for name in (ENQUEUE.name, SAVE.name))
    shards = None if isinstance(reading.shards, Unread) else reading.shards
    queue = None if isinstance(reading.queue, Unread) else reading.queue
    bounds = _bounds(shards, queue, enqueue, save, settings)
    findings: list[Remark] = []
    for read in (reading.shards, reading.queue, reading.drains):
        if isinstance(read, Unread):
            findings.append(Remark("finding", read.why, command_in(read.why)))
    if reading.unread_seconds is None:
        text = "the age of the oldest unread record is unknown: the stream does not answer, or has dropped records"
        findings.append(Remark("finding", text, "regworkers runbook out-of-sync"))
    elif reading.unread_seconds > objective:
        findings += _enqueue_findings(bounds, enqueue, shards)
    if queue is not None and queue.waiting >= settings.drain.messages_per_drain:
        findings.append(_save_finding(bounds, save, queue, settings))
    facts = {
        "oldestUnreadSeconds": None if reading.unread_seconds is None else round(reading.unread_seconds, 1),
        "objectiveSeconds": objective,
        "lagP95Seconds": None if save.lag_p95_seconds is None else round(save.lag_p95_seconds, 3),
        "shards": shards.known if shards else None,
        "messagesWaitingForSave": queue.waiting if queue else None,
        "enqueuedPerSecond": round(enqueue.rate, 1),
        "savedPerSecond": round(save.rate, 1),
        "minutes": reading.minutes,
    }
    waits = [
        {
            "drain": each.name,
            "dependency": name,
            "calls": each.calls[name],
            "waitedSeconds": round(each.waited_seconds.get(name, 0.0), 2),
            "meanMs": None if mean is None else round(1000 * mean, 1),
            "throttled": each.throttles[name],
        }
        for each in (enqueue, save)
        for name in _waits(each)
        for mean in [each.mean_wait(name)]
    ]
    tables: dict[str, Sequence[Row]] = {
        "bounds": [bound.as_row() for bound in bounds.values()],
        "waits": waits,
    }
    return runbook_report(NAME, _summary(reading, objective, findings), facts, tables, tuple(findings))


def _summary(reading: LagReading, objective: float, findings: list[Remark]) -> str:
    if reading.unread_seconds is None:
        age = "the age of the oldest unread record is unknown"
    elif reading.unread_seconds == 0:
        age = "every record of the stream is read"
    else:
        age = f"the oldest unread record is {reading.unread_seconds:.0f} s old, the objective is {objective:g} s"
    return age if not findings else f"{age}; {findings[-1].text}"


def _bounds(
    shards: ShardCounts | None,
    queue: QueueState | None,
    enqueue: DrainWindow,
    save: DrainWindow,
    settings: Settings,
) -> dict[str, Bound]:
    reads = enqueue.calls["streams"] / enqueue.running_seconds if enqueue.minutes else None
    # All runs of the period share all shards.
    if reads is not None and shards is not None:
        reads = reads * max(1, enqueue.active_runs) / max(1, shards.workable)
    found = (
        Bound(
            "enqueue drains", enqueue.active_runs, settings.drain.max_enqueue_drains, "drain.maxEnqueueDrains"
        ),
        Bound("shards held", shards.held if shards else None, shards.workable if shards else None),
        Bound("reads a second and shard", reads, _READS_PER_SHARD, "stream.readsPerSecond"),
        Bound(
            "enqueue batches at once",
            enqueue.busy(settings.enqueue.concurrency, _waits(enqueue)) * settings.enqueue.concurrency,
            settings.enqueue.concurrency,
            "enqueue.concurrency",
        ),
        Bound(
            "records of a batch",
            enqueue.items_of_a_batch or 0.0,
            settings.enqueue.batch_records,
            "enqueue.batchRecords",
        ),
        Bound(
            "messages waiting for save",
            queue.waiting if queue else None,
            settings.drain.messages_per_drain,
            "drain.messagesPerDrain",
        ),
        Bound("save drains", save.active_runs, settings.drain.max_save_drains, "drain.maxSaveDrains"),
        Bound(
            "save batches at once",
            save.busy(settings.save.concurrency, _waits(save)) * settings.save.concurrency,
            settings.save.concurrency,
            "save.concurrency",
        ),
    )
    return {bound.name: bound for bound in found}


def _enqueue_findings(
    bounds: Mapping[str, Bound], enqueue: DrainWindow, shards: ShardCounts | None
) -> list[Remark]:
    if not enqueue.active_runs and not (shards and shards.held):
        advice = "regworkers drain enqueue; then docs/runbooks/scheduler.md"
        return [Remark("finding", "no drain reads the stream", advice)]
    found = []
    if down := enqueue.ends["dependency_down"]:
        text = f"{down} enqueue drains ended because a dependency was down"
        found.append(Remark("finding", text, "regworkers runbook time-outs"))
    return [*found, _enqueue_bottleneck(bounds, enqueue, shards)]


def _enqueue_bottleneck(
    bounds: Mapping[str, Bound], enqueue: DrainWindow, shards: ShardCounts | None
) -> Remark:
    """The first limit that is reached is the bottleneck: it limits what comes after."""
    reads = bounds["reads a second and shard"].now
    if reads is not None and reads >= _THROTTLED * _READS_PER_SHARD:
        text = f"{reads:.1f} reads a second and shard: AWS throttles at five"
        return Remark("finding", text, "stop other readers of the stream; lower stream.readsPerSecond")
    if throttled := _throttled(enqueue):
        return Remark("finding", f"enqueue: {throttled}", _THROTTLED_ADVICE)
    if slow := _slowest(enqueue):
        advice = "regworkers runbook time-outs"
        if (enqueue.items_of_a_batch or 0.0) > _SMALL_BATCH:
            advice += f"; while it lasts, lower enqueue.batchRecords to {_SMALL_BATCH}"
        return Remark("finding", f"enqueue waits for {slow}", advice)
    at_limit = bounds["enqueue drains"].full
    if shards and shards.held < shards.workable:
        text = f"{shards.workable - shards.held} of {shards.workable} shards are read by no drain"
        return Remark(
            "finding", text, "raise drain.maxEnqueueDrains" if at_limit else "regworkers drain enqueue"
        )
    if bounds["enqueue batches at once"].full:
        return Remark("finding", "all threads of the enqueue drain wait", "raise enqueue.concurrency")
    if bounds["records of a batch"].full:
        return Remark("finding", "batches are full", "raise enqueue.batchRecords (up to 10000)")
    if shards and shards.workable > 1 and at_limit:
        text = f"{shards.workable} shards share {enqueue.active_runs} drains, and none of their limits is reached"
        return Remark("finding", text, "raise drain.maxEnqueueDrains")
    text = f"no limit is reached: it reads {enqueue.rate:.0f} records a second in order, and catches up"
    return Remark("finding", text, "check again in a few minutes: regworkers runbook stream-lag")


def _save_finding(
    bounds: Mapping[str, Bound], save: DrainWindow, queue: QueueState, settings: Settings
) -> Remark:
    text, limit = f"save is behind: {queue.waiting} messages wait", settings.drain.max_save_drains
    if not save.active_runs:
        return Remark(
            "finding",
            f"{text} and no drain takes them",
            "regworkers drain save; then docs/runbooks/scheduler.md",
        )
    if save.ends["dependency_down"]:
        return Remark(
            "finding", f"{text}, drains end because a dependency is down", "regworkers runbook time-outs"
        )
    if throttled := _throttled(save):
        return Remark("finding", f"{text}; {throttled}", _THROTTLED_ADVICE)
    if slow := _slowest(save):
        return Remark("finding", f"{text}, and save waits for {slow}", "regworkers runbook time-outs")
    if save.active_runs < limit:
        advice = "its sensor starts more: if it does not, docs/runbooks/scheduler.md"
        return Remark("finding", f"{text} for {save.active_runs} of {limit} drains", advice)
    if bounds["save batches at once"].full:
        return Remark("finding", f"{text}, and all threads of all drains wait", "raise save.concurrency")
    return Remark(
        "finding", f"{text} for {save.active_runs} drains, which is the limit", "raise drain.maxSaveDrains"
    )


def _throttled(work: DrainWindow) -> str:
    """The dependencies that throttled more than a few calls."""
    found = [
        f"{name} throttled {number} of {work.calls[name]} calls"
        for name, number in work.throttles.most_common()
        if number > _THROTTLED_SHARE * work.calls[name]
    ]
    return ", ".join(found)


def _slowest(work: DrainWindow) -> str:
    """The dependency with the slowest calls, if they are slow."""
    waits = {name: work.mean_wait(name) or 0.0 for name in _waits(work)}
    name = max(waits, key=lambda each: waits[each])
    return f"{name}, {waits[name]:.1f} s a call" if waits[name] > _SLOW_SECONDS else ""
