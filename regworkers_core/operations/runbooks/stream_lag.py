"""Why the stream of the demand table lags: each thing that can bound it, as a number beside its limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from regworkers_core.domain.snapshot import QueueState, Reading, Unread
from regworkers_core.operations.health.status import command_in
from regworkers_core.operations.runbooks.runbook_report import Finding, Row, RunbookReport
from regworkers_core.operations.runbooks.worked import Worked
from regworkers_core.settings import Settings

NAME = "stream-lag"
# AWS serves five reads a second and shard, to all readers together.
_READS_OF_A_SHARD = 5.0
# Records of a batch that a slow queue confirms in one call: what fails or is cut off then repeats no more than these.
_SMALL_BATCH = 100
# Of a limit: from there on it is what bounds. With nothing to read a drain makes four of the five reads.
_FULL = 0.8
_THROTTLED = 0.95
_THROTTLED_SHARE = 0.01
_THROTTLED_ADVICE = "fewer drains, not more: lower drain.maxSaveDrains, or raise the limit of the account"
# Far beyond what a call takes that is not throttled and meets a healthy service.
_SLOW_SECONDS = 0.5
# Not SQS of save: its reads wait for work.
_WAITS = {"enqueue": ("streams", "sqs", "dynamodb"), "save": ("dynamodb", "mongo")}


@dataclass(frozen=True, slots=True)
class Shards:
    """`workable` of the `listed` shards may be read now, `held` of these by a drain."""

    listed: int
    workable: int
    held: int


@dataclass(frozen=True, slots=True)
class Look:
    """`unread_seconds` is the age of the oldest record that no checkpoint covers; 0: all is read, None: not known.
    `drains` is what they did within the last `minutes`.
    """

    unread_seconds: float | None
    shards: Reading[Shards]
    queue: Reading[QueueState]
    drains: Reading[Mapping[str, Worked]]
    minutes: float


@dataclass(frozen=True, slots=True)
class Bound:
    """`now` beside its `limit`, and the setting that moves the limit; empty: none does."""

    name: str
    now: float | None
    limit: float | None
    setting: str = ""

    @property
    def full(self) -> bool:
        return self.now is not None and self.limit is not None and self.now >= _FULL * self.limit

    def as_row(self) -> Row:
        now = None if self.now is None else round(self.now, 2)
        return {"bound": self.name, "now": now, "limit": self.limit, "setting": self.setting}


@dataclass(slots=True)
class _Judgement:
    findings: list[Finding] = field(default_factory=list)

    def add(self, text: str, advice: str) -> None:
        self.findings.append(Finding(text, advice))


def judged(look: Look, settings: Settings) -> RunbookReport:
    """What bounds it and which setting to change; fine while the age is within `replication.lagObjectiveSeconds`."""
    objective = settings.replication.lag_objective_seconds
    drains = {} if isinstance(look.drains, Unread) else look.drains
    enqueue, save = drains.get("enqueue", Worked("enqueue")), drains.get("save", Worked("save"))
    shards = None if isinstance(look.shards, Unread) else look.shards
    queue = None if isinstance(look.queue, Unread) else look.queue
    bounds = _bounds(shards, queue, enqueue, save, settings)
    judgement = _Judgement()
    for what in (look.shards, look.queue, look.drains):
        if isinstance(what, Unread):
            judgement.add(what.why, command_in(what.why))
    if look.unread_seconds is None:
        judgement.add(
            "how old the oldest unread record is cannot be told: the stream does not answer, or has dropped records",
            "regworkers runbook out-of-sync",
        )
    elif look.unread_seconds > objective:
        _judge_enqueue(judgement, bounds, enqueue, shards)
    if queue is not None and queue.waiting >= settings.drain.messages_per_drain:
        _judge_save(judgement, bounds, save, queue, settings)
    facts = {
        "oldestUnreadSeconds": None if look.unread_seconds is None else round(look.unread_seconds, 1),
        "objectiveSeconds": objective,
        "lagP95Seconds": None if save.lag_p95_seconds is None else round(save.lag_p95_seconds, 3),
        "shards": shards.listed if shards else None,
        "messagesWaitingForSave": queue.waiting if queue else None,
        "enqueuedPerSecond": round(enqueue.rate, 1),
        "savedPerSecond": round(save.rate, 1),
        "minutes": look.minutes,
    }
    waits = [
        {
            "drain": each.drain,
            "dependency": name,
            "calls": each.calls[name],
            "waitedSeconds": round(each.waited.get(name, 0.0), 2),
            "meanMs": None if mean is None else round(1000 * mean, 1),
            "throttled": each.throttles[name],
        }
        for each in (enqueue, save)
        for name in _WAITS[each.drain]
        for mean in [each.mean_wait(name)]
    ]
    tables: dict[str, Sequence[Row]] = {
        "bounds": [bound.as_row() for bound in bounds.values()],
        "waits": waits,
    }
    return RunbookReport(NAME, _summary(look, objective, judgement), facts, tables, tuple(judgement.findings))


def _summary(look: Look, objective: float, judgement: _Judgement) -> str:
    if look.unread_seconds is None:
        age = "the age of the oldest unread record is not known"
    elif look.unread_seconds == 0:
        age = "every record of the stream is read"
    else:
        age = f"the oldest unread record is {look.unread_seconds:.0f} s old, the objective is {objective:g} s"
    return age if not judgement.findings else f"{age}; {judgement.findings[-1].text}"


def _bounds(
    shards: Shards | None, queue: QueueState | None, enqueue: Worked, save: Worked, settings: Settings
) -> dict[str, Bound]:
    reads = enqueue.calls["streams"] / enqueue.seconds if enqueue.minutes else None
    # All runs of the period read all shards together.
    if reads is not None and shards is not None:
        reads = reads * max(1, enqueue.active) / max(1, shards.workable)
    found = (
        Bound("enqueue drains", enqueue.active, settings.drain.max_enqueue_drains, "drain.maxEnqueueDrains"),
        Bound("shards held", shards.held if shards else None, shards.workable if shards else None),
        Bound("reads a second and shard", reads, _READS_OF_A_SHARD, "enqueue.emptyReadPauseSeconds"),
        Bound(
            "enqueue batches at once",
            enqueue.busy(settings.enqueue.concurrency, _WAITS["enqueue"]) * settings.enqueue.concurrency,
            settings.enqueue.concurrency,
            "enqueue.concurrency",
        ),
        Bound(
            "records of a batch",
            enqueue.items_of_a_batch,
            settings.enqueue.batch_records,
            "enqueue.batchRecords",
        ),
        Bound(
            "messages waiting for save",
            queue.waiting if queue else None,
            settings.drain.messages_per_drain,
            "drain.messagesPerDrain",
        ),
        Bound("save drains", save.active, settings.drain.max_save_drains, "drain.maxSaveDrains"),
        Bound(
            "save batches at once",
            save.busy(settings.save.concurrency, _WAITS["save"]) * settings.save.concurrency,
            settings.save.concurrency,
            "save.concurrency",
        ),
    )
    return {bound.name: bound for bound in found}


def _judge_enqueue(
    judgement: _Judgement,
    bounds: Mapping[str, Bound],
    enqueue: Worked,
    shards: Shards | None,
) -> None:
    """The first that holds bounds it: what comes after is bounded by that."""
    if not enqueue.active and not (shards and shards.held):
        judgement.add("nobody reads the stream", "regworkers drain enqueue; then docs/runbooks/scheduler.md")
        return
    if enqueue.ends["dependency_down"]:
        text = f"{enqueue.ends['dependency_down']} enqueue drains ended because a dependency was down"
        judgement.add(text, "regworkers runbook time-outs")
    reads = bounds["reads a second and shard"].now
    if reads is not None and reads >= _THROTTLED * _READS_OF_A_SHARD:
        text = f"{reads:.1f} reads a second and shard: AWS throttles at five"
        judgement.add(text, "take other readers off the stream; raise enqueue.emptyReadPauseSeconds")
    elif throttled := _throttled(enqueue):
        judgement.add(f"enqueue: {throttled}", _THROTTLED_ADVICE)
    elif slow := _slowest(enqueue):
        helps = "regworkers runbook time-outs"
        if enqueue.items_of_a_batch > _SMALL_BATCH:
            helps += f"; while it lasts, lower enqueue.batchRecords to {_SMALL_BATCH}"
        judgement.add(f"enqueue waits for {slow}", helps)
    elif shards and shards.held < shards.workable:
        text = f"{shards.workable - shards.held} of {shards.workable} shards are read by nobody"
        at_limit = bounds["enqueue drains"].full
        helps = "raise drain.maxEnqueueDrains" if at_limit else "regworkers drain enqueue"
        judgement.add(text, helps)
    elif bounds["enqueue batches at once"].full:
        judgement.add("all threads of the enqueue drain wait", "raise enqueue.concurrency")
    elif bounds["records of a batch"].full:
        judgement.add("batches are full", "raise enqueue.batchRecords (up to 10000)")
    elif shards and shards.workable > 1 and bounds["enqueue drains"].full:
        text = f"{shards.workable} shards share {enqueue.active} drains, and none of their limits is reached"
        judgement.add(text, "raise drain.maxEnqueueDrains")
    else:
        text = (
            f"nothing is at its limit: it reads {enqueue.rate:.0f} records a second in order, and catches up"
        )
        judgement.add(text, "look again in a few minutes: regworkers runbook stream-lag")


def _judge_save(
    judgement: _Judgement,
    bounds: Mapping[str, Bound],
    save: Worked,
    queue: QueueState,
    settings: Settings,
) -> None:
    text = f"save is behind: {queue.waiting} messages wait"
    if not save.active:
        judgement.add(
            f"{text} and nobody takes them", "regworkers drain save; then docs/runbooks/scheduler.md"
        )
    elif save.ends["dependency_down"]:
        judgement.add(f"{text}, drains end because a dependency is down", "regworkers runbook time-outs")
    elif throttled := _throttled(save):
        judgement.add(f"{text}; {throttled}", _THROTTLED_ADVICE)
    elif slow := _slowest(save):
        judgement.add(f"{text}, and save waits for {slow}", "regworkers runbook time-outs")
    elif save.active < settings.drain.max_save_drains:
        helps = "its sensor starts more: if it does not, docs/runbooks/scheduler.md"
        judgement.add(f"{text} for {save.active} of {settings.drain.max_save_drains} drains", helps)
    elif bounds["save batches at once"].full:
        judgement.add(f"{text}, and all threads of all drains wait", "raise save.concurrency")
    else:
        judgement.add(f"{text} for {save.active} drains, which is the limit", "raise drain.maxSaveDrains")


def _throttled(worked: Worked) -> str:
    """Who refused calls because they are too many; a few pass."""
    found = [
        f"{name} throttled {number} of {worked.calls[name]} calls"
        for name, number in worked.throttles.most_common()
        if number > _THROTTLED_SHARE * worked.calls[name]
    ]
    return ", ".join(found)


def _slowest(worked: Worked) -> str:
    """The dependency whose calls take longest, if that is long."""
    waits = {name: worked.mean_wait(name) or 0.0 for name in _WAITS[worked.drain]}
    name = max(waits, key=lambda each: waits[each])
    return f"{name}, {waits[name]:.1f} s a call" if waits[name] > _SLOW_SECONDS else ""
