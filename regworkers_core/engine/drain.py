"""The drain: take work from a source until it has been idle for a while, a time limit or a stop signal.

Order of a batch: receive, decode, write, confirm, acknowledge. A source hands out deliveries, the work turns a batch of
them into a settlement, and only what the settlement calls done is acknowledged. At most `concurrency + prefetch`
batches exist at any time, so memory is bounded whatever the backlog.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Generic, NamedTuple, Protocol, TypeVar

import structlog

from fairdraw import scheduling
from regworkers_core.domain.activity import keep_longest
from regworkers_core.domain.reasons import PermanentFailure, TransientFailure, UsageError
from regworkers_core.engine.deadline import Steps, step
from regworkers_core.engine.defects import bisect
from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.engine.stop import StopSignal

D = TypeVar("D")
log = structlog.get_logger(__name__)
# How long a batch whose work raised stays hidden, and how many of them end the drain: every receive counts on the
# queue, so the run must fail instead of looping silently.
DEFECT_PAUSE_SECONDS = 30.0
_MAX_DEFECTS = 5
# How soon a drain gives back what it holds once another one works in its place.
_GIVE_WAY_SECONDS = 0.5


class Source(Protocol[D]):
    """Where work comes from. The drain's threads call it, so implementations lock what they share. Every method may
    block for a call to a service and raises TransientFailure if that fails.
    """

    def receive(self) -> list[D]:
        """The next batch; empty after a bounded wait when there is none."""
        ...

    def acknowledge(self, done: Sequence[D]) -> None:
        """The work is durable: never hand these out again."""
        ...

    def give_back(self, again: Sequence[tuple[D, float]]) -> None:
        """Not done: hand each out again, to any consumer, after its seconds."""
        ...

    def heartbeat(self) -> None:
        """Keep what is held (visibility, leases). Called every `heartbeat_seconds` by a thread of its own, also while
        the drain stands by and has not received anything.
        """
        ...

    def may_idle(self) -> bool:
        """Whether an empty receive means that there is no work, and not that others hold the leases."""
        ...

    def let_go(self) -> None:
        """Another drain works in the place of this one: checkpoint, release leases, give back what was received and not
        settled. It may receive again later.
        """
        ...

    def close(self) -> None:
        """Checkpoint, release leases, give back what was received and not settled. Called once, last."""
        ...

    def counts(self) -> Counter[str]:
        """Counters of the source itself for the report, such as records lost to trimming. Does not block."""
        ...


@dataclass(slots=True)
class Settlement(Generic[D]):
    """How a batch ended. Every delivery is in one of the first two lists, once."""

    done: list[D] = field(default_factory=list)  # settled with the source
    # Given back, with the seconds until they may come again.
    again: list[tuple[D, float]] = field(default_factory=list)
    # Items by outcome: `received` is the sum of `OUTCOMES`.
    counts: Counter[str] = field(default_factory=Counter)
    lags: list[float] = field(default_factory=list)  # seconds of each item from its write to now
    live: Counter[str] = field(
        default_factory=Counter
    )  # live entries that came, less those that went, by campaign
    slowest: dict[str, float] = field(default_factory=dict)  # the longest of the lags, by campaign
    blown: PermanentFailure | None = None  # the defect that blew the fuse: the drain ends
    failed: list[str] = field(default_factory=list)  # deliveries in `done` of which some part failed
    # Exceptions of items that cannot become dead letters: several of them end the drain.
    defects: list[Exception] = field(default_factory=list)
    acknowledged: bool = False  # whether the source has taken what is done

    def add(self, other: Settlement[D]) -> None:
        self.done.extend(other.done)
        self.again.extend(other.again)
        self.counts.update(other.counts)
        self.lags.extend(other.lags)
        self.live.update(other.live)
        keep_longest(self.slowest, other.slowest)
        self.blown = self.blown or other.blown
        self.failed.extend(other.failed)
        self.defects.extend(other.defects)


# Settles a batch. What it raises gives deliveries back (see `drain`).
Work = Callable[[Sequence[D]], Settlement[D]]
# Returns the name of a dependency that is unavailable, or None.
Health = Callable[[], str | None]
# The same; it asks those that it is given, without any all that the drain needs.
Probe = Callable[..., str | None]
# Gets the counts of a settled batch, the seconds from its receive to its acknowledgement, and by campaign what it did
# to the number of live entries, and its longest lag.
OnBatch = Callable[[Mapping[str, int], float, Mapping[str, int], Mapping[str, float]], None]


class Post:
    """The place of a drain among others of its kind: whether it works or stands by, and whether it may end. This one is
    that of a drain on its own. Asked at every turn, so it answers at once. `steps` are those of the drain's threads.
    """

    def __init__(self) -> None:
        self.steps = Steps()

    def works(self) -> bool:
        """Whether it receives."""
        return True

    def gives_way(self, *, busy: bool) -> bool:
        """Whether it has to give back what it holds, now that another one works; `busy`: some of it is in flight."""
        return False

    def may_end(self, why: str) -> bool:
        """Whether it may end as `idle`, at its `time_limit` or for `dependency_down`."""
        return True


@dataclass(frozen=True, slots=True)
class DrainLimits:
    """When a drain ends, and how much it does at a time."""

    idle_seconds: float = 10.0  # it ends after this long without work
    max_seconds: float = 120.0  # it ends after this long in total
    concurrency: int = 4  # batches at work at the same time
    prefetch: int = 1  # batches that wait for a thread
    heartbeat_seconds: float = 3.0  # between two extensions of what the drain holds
    # The pause between a failed receive and the next one.
    pause_seconds: float = 0.5
    # A drain without a successful receive for this long at its end has failed, however it ends.
    blind_seconds: float = 120.0
    # A dependency that is unavailable for this long ends the drain. Until then it receives nothing and keeps what it
    # holds.
    outage_seconds: float = 0.0


class _Settled(NamedTuple, Generic[D]):
    settlement: Settlement[D]
    seconds: float  # since its receive, the wait for a thread included


@dataclass(slots=True, eq=False)
class Drain(Generic[D]):
    """One drain, which runs once."""

    name: str
    source: Source[D]
    work: Work[D]
    limits: DrainLimits
    _: KW_ONLY
    # It asks the dependencies before the first receive and during an outage.
    probe: Probe
    # A dependency whose breaker opened.
    down: Health
    stop: StopSignal
    clock: Callable[[], float] = scheduling.monotonic
    # It is called after each settled batch.
    on_progress: Callable[[DrainReport], None] = lambda _report: None
    on_batch: OnBatch = lambda _counts, _seconds, _live, _slowest: None
    post: Post = field(default_factory=Post)
    report: DrainReport = field(init=False)
    defects: list[Exception] = field(default_factory=list)  # of all batches so far
    # When (by the clock) a receive last succeeded, or there was no room for one; and what has failed since.
    saw_at: float = 0.0
    unseen: TransientFailure | None = None  # the last failure of a receive since then
    # When the present outage began; None while all dependencies answer.
    outage_since: float | None = None
    # Whether it may hold something.
    holds: bool = False
    # Batches at work.
    flying: set[scheduling.Future[_Settled[D]]] = field(default_factory=set)

    def run(self) -> DrainReport:
        """Run to the end and report. Blocks for at most `limits.max_seconds` and what is in flight then, or until its
        `post` lets it end.

        If `work` raises, the batch is halved until the delivery that it raises for is alone; that one is given back as
        a defect. Several defects end the drain with the last one. An exception that no delivery can have caused
        (MemoryError, OSError, ImportError) gives the whole batch back. A UsageError (access refused, a table that is
        missing) ends the drain at once.
        """
        self.report = DrainReport(self.name)
        with self.post.steps.watched():
            return self._run()

    def _run(self) -> DrainReport:
        started = self.clock()
        report = self.report
        while (unavailable := self.probe()) is not None:
            if self.stop.is_set or not self._waits_for(unavailable):
                report.ended, report.dependency = "dependency_down", unavailable
                return self._finished(started)
        report.began = True
        self.saw_at = started - self.limits.blind_seconds
        quit_beating = scheduling.event()
        beat = scheduling.start(
            partial(copy_context().run, self._beat, quit_beating), f"{report.name}-heartbeat"
        )
        pool = scheduling.pool(self.limits.concurrency, report.name)
        try:
            report.ended = self._loop(pool, started)
        finally:
            # Also after an exception: what is in flight is finished and settled first.
            try:
                self._collect(until_empty=True)
            finally:
                pool.shutdown(wait=True)
                quit_beating.set()
                beat.join()
                try:
                    self.source.close()
                except TransientFailure as failure:
                    log.warning("close failed", dependency=failure.dependency, error=failure.error)
                finally:
                    self._finished(started)
        return report

    def _finished(self, started: float) -> DrainReport:
        now = self.clock()
        self.report.seconds = now - started
        if self.unseen is not None and now - self.saw_at >= self.limits.blind_seconds:
            self.report.blind = self.unseen.dependency
        self.report.counts.update(self.source.counts())
        return self.report

    def _loop(self, pool: scheduling.Pool, started: float) -> str:
        limits, report = self.limits, self.report
        idle_since: float | None = None
        while True:
            step()
            self._collect(until_empty=False)
            self._raise_defects()
            if self.stop.is_set:
                return "stopped"
            if self.clock() - started >= limits.max_seconds and self.post.may_end("time_limit"):
                return "time_limit"
            if report.blown is not None:
                return "fuse_blown"
            unavailable = self.down()
            if unavailable is not None:
                if self._waits_for(unavailable):
                    continue
                report.dependency = unavailable
                return "dependency_down"
            self._answers_again()
            if len(self.flying) >= limits.concurrency + limits.prefetch:
                scheduling.wait(self.flying, timeout=0.5, return_when=scheduling.FIRST_COMPLETED)
                self.saw_at = self.clock()
                continue
            works = self.post.works()
            try:
                batch = self._receive() if works else self._nothing()
            except TransientFailure as failure:
                log.warning("receive failed", dependency=failure.dependency, error=failure.error)
                self.unseen = failure
                self.stop.wait(limits.pause_seconds)
                continue
            self.saw_at, self.unseen = self.clock(), None
            if batch:
                idle_since = None
                report.deliveries["received"] += len(batch)
                # The caller's context comes along: log lines of a worker thread carry its identifiers, too.
                self.flying.add(pool.submit(copy_context().run, self._process, batch, self.clock()))
            elif self.flying or (works and not self.source.may_idle()):
                idle_since = None
            else:
                idle_since = self.clock() if idle_since is None else idle_since
                if self.clock() - idle_since >= limits.idle_seconds and self.post.may_end("idle"):
                    return "idle"

    def _receive(self) -> list[D]:
        self.holds = True
        try:
            return self.source.receive()
        finally:
            # It may have given way meanwhile.
            self.holds = True

    def _nothing(self) -> list[D]:
        self.stop.wait(self.limits.pause_seconds)
        return []

    def _waits_for(self, dependency: str) -> bool:
        """Pause, then ask the dependency; False once the outage has lasted too long. An election of MongoDB takes 5 to
        12 s: a drain that ended for it would cost the start of its successor on top.
        """
        now = self.clock()
        longest = math.inf
        if self.post.may_end("dependency_down"):
            longest = min(self.limits.outage_seconds, self.limits.max_seconds)
        if self.outage_since is None:
            self.outage_since = now
            if longest:
                log.warning("the drain pauses", drain=self.report.name, dependency=dependency)
        if now - self.outage_since >= longest:
            return False
        self.stop.wait(self.limits.pause_seconds)
        self.probe(dependency)
        return True

    def _answers_again(self) -> None:
        if self.outage_since is not None:
            paused = round(self.clock() - self.outage_since, 1)
            log.warning("the drain goes on", drain=self.report.name, pausedSeconds=paused)
            self.outage_since = None

    def _collect(self, *, until_empty: bool) -> None:
        while self.flying:
            finished, _ = scheduling.wait(
                self.flying, timeout=None if until_empty else 0, return_when=scheduling.FIRST_COMPLETED
            )
            if not finished:
                return
            self.flying -= finished
            for future in finished:
                self._add(*future.result())
            self.on_progress(self.report)

    def _add(self, settlement: Settlement[D], seconds: float) -> None:
        self.report.counts.update(settlement.counts)
        self.report.blown = self.report.blown or settlement.blown
        self.on_batch(settlement.counts, seconds, settlement.live, settlement.slowest)
        self.report.lag.add_all(settlement.lags)
        self.report.batches.add(seconds)
        self.report.deliveries["acknowledged"] += len(settlement.done)
        if not settlement.acknowledged:
            self.report.deliveries["not_acknowledged"] += len(settlement.done)
        self.report.deliveries["returned"] += len(settlement.again)

    def _raise_defects(self) -> None:
        """Raises what neither a retry nor a dead letter solves: refused access at once, defects once they pile up."""
        refused = next((error for error in self.defects if isinstance(error, UsageError)), None)
        if refused is not None:
            raise refused
        if len(self.defects) >= _MAX_DEFECTS:
            raise self.defects[-1]

    def _process(self, batch: Sequence[D], received_at: float) -> _Settled[D]:
        """Do the work in a worker thread, then settle it with the source."""
        with self.post.steps.watched():
            return self._worked(batch, received_at)

    def _worked(self, batch: Sequence[D], received_at: float) -> _Settled[D]:
        settlement = Settlement[D]()
        try:
            for part in bisect(batch, self.work, lambda delivery, error: self._defect([delivery], error)):
                settlement.add(part)
        except Exception as error:
            settlement = self._defect(batch, error)
        self.defects.extend(settlement.defects)
        # A failed acknowledgement costs a repeat, never an item: the delivery comes again.
        with suppress(TransientFailure):
            self.source.acknowledge(settlement.done)
            settlement.acknowledged = True
        with suppress(TransientFailure):
            self.source.give_back(settlement.again)
        seconds = self.clock() - received_at
        failed = [*settlement.failed, *filter(None, (_name(delivery) for delivery, _ in settlement.again))]
        log.info(
            "batch settled",
            drain=self.report.name,
            deliveries=len(batch),
            items=settlement.counts["received"],
            durationMs=round(seconds * 1000),
            # What a Lambda would answer, as text, and only if something failed: the operations manual counts the lines
            # that have it (`like /.+/`), and compares it with "[]".
            **({"batchItemFailures": json.dumps(failed)} if failed else {}),
        )
        return _Settled(settlement, seconds)

    def _defect(self, batch: Sequence[D], error: Exception) -> Settlement[D]:
        log.error("the work failed without settling what it got", error=type(error).__name__, exc_info=error)
        again = [(delivery, DEFECT_PAUSE_SECONDS) for delivery in batch]
        settlement = Settlement[D](again=again, defects=[error])
        settlement.counts.update(received=len(batch), returned=len(batch))
        return settlement

    def _let_go(self) -> None:
        # First: what is received meanwhile is held again.
        self.holds = False
        try:
            self.source.let_go()
        except TransientFailure:
            self.holds = True
            raise

    def _beat(self, quit_beating: scheduling.Event) -> None:
        every = self.limits.heartbeat_seconds
        pause, passed = min(every, _GIVE_WAY_SECONDS), 0.0
        while not quit_beating.wait(pause):
            passed += pause
            try:
                if self.holds and self.post.gives_way(busy=bool(self.flying)):
                    self._let_go()
                elif passed >= every:
                    passed = 0.0
                    self.source.heartbeat()
            except TransientFailure as failure:
                log.warning("heartbeat failed", dependency=failure.dependency, error=failure.error)
            except Exception as error:
                # Without a heartbeat the drain would lose all that it holds.
                log.error("heartbeat failed", error=type(error).__name__, exc_info=True)


def _name(delivery: object) -> str:
    """The id of a message, or the sequence number of a stream record."""
    return str(getattr(delivery, "message_id", "") or getattr(delivery, "sequence", ""))
