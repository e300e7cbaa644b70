"""The drain: take work from a source until it has been idle for a while, a time limit or a stop signal.

Order of a batch: receive, decode, write, confirm, acknowledge. A source hands out deliveries, the work
turns a batch of them into a settlement, and only what the settlement calls done is acknowledged. At most
`concurrency + prefetch` batches exist at any time, so memory is bounded whatever the backlog.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import structlog

from regworkers_core.domain.reasons import PermanentFailure, TransientFailure, UsageError
from regworkers_core.engine.defects import in_parts
from regworkers_core.engine.fuse import blown_in_words
from regworkers_core.engine.percentiles import Percentiles
from regworkers_core.engine.stop import StopSignal

D = TypeVar("D")
log = structlog.get_logger(__name__)


class Source(Protocol[D]):
    """Where work comes from. Called from the drain's threads, so implementations lock what they share."""

    def receive(self) -> list[D]:
        """The next batch; empty after a bounded wait when there is none. Raises TransientFailure."""
        ...

    def acknowledge(self, done: Sequence[D]) -> None:
        """The work is durable: never hand these out again."""
        ...

    def give_back(self, again: Sequence[tuple[D, float]]) -> None:
        """Not done: hand each out again, to anyone, after so many seconds."""
        ...

    def heartbeat(self) -> None:
        """Keep what is held (visibility, leases). Called every `heartbeat_seconds` by a thread of its own."""
        ...

    def may_idle(self) -> bool:
        """Whether an empty receive means that there is no work (and not that others hold the leases)."""
        ...

    def close(self) -> None:
        """Checkpoint, release leases, give back what was received and not settled. Called once, last."""
        ...

    def counts(self) -> Counter[str]:
        """Counters of the source's own, added to the report (records lost to trimming, say)."""
        ...


@dataclass(slots=True)
class Settlement(Generic[D]):
    """What became of a batch. Every delivery is in `done` or in `again` (with seconds to wait), once.

    `counts` are of items and add up: `received` = the sum of `OUTCOMES`. `lags` are seconds. `blown` is what blew the
    fuse of the work: the drain ends. `failed` names deliveries in `done` of which something did not go well. `defects`
    are exceptions of items that cannot become dead letters: several of them end the drain.
    """

    done: list[D] = field(default_factory=list)
    again: list[tuple[D, float]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    lags: list[float] = field(default_factory=list)
    blown: PermanentFailure | None = None
    failed: list[str] = field(default_factory=list)
    defects: list[Exception] = field(default_factory=list)

    def add(self, other: Settlement[D]) -> None:
        """Of other deliveries of the same batch."""
        self.done.extend(other.done)
        self.again.extend(other.again)
        self.counts.update(other.counts)
        self.lags.extend(other.lags)
        self.blown = self.blown or other.blown
        self.failed.extend(other.failed)
        self.defects.extend(other.defects)


# What an item can end as. `applied`: written; `unchanged`: nothing to do, proven; `stale`: a newer state is
# stored; `gone`: removed meanwhile; `resurrected`: live behind a newer tombstone; `dropped`: filtered or
# coalesced; `dead_lettered`: permanent; `resent`: goes on alone; `returned`: kept for later.
OUTCOMES = (
    "applied", "removed", "unchanged", "stale", "gone", "resurrected",
    "sent", "dropped", "dead_lettered", "resent", "returned",
)  # fmt: skip

Work = Callable[[Sequence[D]], Settlement[D]]
# A batch that nobody could settle stays hidden for so long, and so many of them end the drain: every
# receive counts on the queue, and whoever is on call must see a failed run, not a green one that went in circles.
DEFECT_PAUSE_SECONDS = 30.0
_MAX_DEFECTS = 5
# Returns the name of a dependency that is away, or None.
Health = Callable[[], str | None]
# Gets the counts of a batch that was settled, and the seconds from its receive to its acknowledgement.
OnBatch = Callable[[Mapping[str, int], float], None]


@dataclass(frozen=True, slots=True)
class DrainLimits:
    """`idle_seconds` without work or `max_seconds` in all end the drain."""

    idle_seconds: float = 10.0
    max_seconds: float = 120.0
    concurrency: int = 4
    prefetch: int = 1
    heartbeat_seconds: float = 3.0
    # How long a source that failed is left alone before the next receive.
    pause_seconds: float = 0.5
    # A drain without a successful receive in its last seconds, this many, has failed, however it ends.
    blind_seconds: float = 120.0


@dataclass(slots=True)
class DrainReport:
    """Numbers of one drain; `ended` is idle, time_limit, stopped, dependency_down or fuse_blown. `began` is False when
    a dependency was away at the start already, so that nothing was even tried.

    `blind` says of a drain whose last receives all failed which dependency did not answer; `blown` is the defect that
    blew its fuse.
    """

    name: str
    counts: Counter[str] = field(default_factory=Counter)
    lag: Percentiles = field(default_factory=Percentiles)
    deliveries: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    ended: str = ""
    dependency: str | None = None
    began: bool = False
    blind: str | None = None
    blown: PermanentFailure | None = None

    @property
    def failure(self) -> str | None:
        """Why its run has failed, whatever it did; None for one that is fine, also if a dependency ended it."""
        if self.blown is not None:
            return blown_in_words(self.name, str(self.blown))
        if self.blind is not None:
            return f"{self.blind} did not answer: no receive was successful any more before the drain ended"
        return None

    @property
    def went_wrong(self) -> bool:
        """Whether it failed or a dependency ended it, whatever became of the items."""
        return self.ended == "dependency_down" or self.failure is not None

    @property
    def adds_up(self) -> bool:
        """Every received item has exactly one outcome, every delivery is acknowledged or returned."""
        settled = self.deliveries["acknowledged"] + self.deliveries["returned"]
        return (
            self.counts["received"] == sum(self.counts[outcome] for outcome in OUTCOMES)
            and self.deliveries["received"] == settled
        )

    def as_dict(self) -> dict[str, object]:
        """JSON shape: counts of items and deliveries, lag percentiles and duration in seconds."""
        return {
            "drain": self.name,
            "ended": self.ended,
            "dependency": self.dependency,
            "failure": self.failure,
            "seconds": round(self.seconds, 3),
            "items": {name: number for name, number in sorted(self.counts.items()) if number},
            "deliveries": {name: number for name, number in sorted(self.deliveries.items()) if number},
            "lagSeconds": self.lag.summary(),
            "addsUp": self.adds_up,
        }


def drain(
    name: str,
    source: Source[D],
    work: Work[D],
    limits: DrainLimits,
    *,
    probe: Health,
    down: Health,
    stop: StopSignal,
    clock: Callable[[], float] = time.monotonic,
    on_progress: Callable[[DrainReport], None] | None = None,
    on_batch: OnBatch | None = None,
) -> DrainReport:
    """Run one drain to its end and report.

    `probe` asks the dependencies before the first receive; `down` names one whose breaker opened. A batch that
    `work` raises for instead of settling it is halved until the delivery that it raises for is alone. That one is given
    back as a defect; several of them end the drain with the last one. What no delivery can have caused (MemoryError,
    OSError, ImportError) gives the whole batch back, and a UsageError (access refused, a table that is gone) ends the
    drain at once.
    """
    return _Drain(name, source, work, limits, down, stop, clock, on_progress, on_batch).run(probe)


def _name(delivery: object) -> str:
    """What it is called where it comes from: the id of a message, the sequence number of a stream record."""
    return str(getattr(delivery, "message_id", "") or getattr(delivery, "sequence", ""))


class _Drain(Generic[D]):
    def __init__(
        self,
        name: str,
        source: Source[D],
        work: Work[D],
        limits: DrainLimits,
        down: Health,
        stop: StopSignal,
        clock: Callable[[], float],
        on_progress: Callable[[DrainReport], None] | None,
        on_batch: OnBatch | None,
    ) -> None:
        self._source, self._work, self._limits = source, work, limits
        self._down, self._stop, self._clock = down, stop, clock
        self._on_progress, self._on_batch = on_progress, on_batch
        self._report = DrainReport(name)
        self._defects: list[Exception] = []
        # When (by the clock) a receive was last successful, or there was no room for one; and what failed since.
        self._saw_at = 0.0
        self._unseen: TransientFailure | None = None
        self._flying: set[Future[tuple[Settlement[D], float]]] = set()

    def run(self, probe: Health) -> DrainReport:
        started = self._clock()
        report = self._report
        away = probe()
        if away is not None:
            report.ended, report.dependency = "dependency_down", away
            return self._finished(started)
        report.began = True
        self._saw_at = started - self._limits.blind_seconds
        quit_beating = threading.Event()
        beat = threading.Thread(
            target=copy_context().run, args=(self._beat, quit_beating), name=f"{report.name}-heartbeat"
        )
        beat.daemon = True
        beat.start()
        pool = ThreadPoolExecutor(self._limits.concurrency, thread_name_prefix=report.name)
        try:
            report.ended = self._loop(pool, started)
        finally:
            # Also on the way out of an exception: what is in flight is finished and settled first.
            try:
                self._collect(until_empty=True)
            finally:
                pool.shutdown(wait=True)
                quit_beating.set()
                beat.join()
                self._close()
                self._finished(started)
        return report

    def _finished(self, started: float) -> DrainReport:
        now = self._clock()
        self._report.seconds = now - started
        if self._unseen is not None and now - self._saw_at >= self._limits.blind_seconds:
            self._report.blind = self._unseen.dependency
        self._report.counts.update(self._source.counts())
        return self._report

    def _loop(self, pool: ThreadPoolExecutor, started: float) -> str:
        limits, report = self._limits, self._report
        idle_since: float | None = None
        while True:
            self._collect(until_empty=False)
            self._raise_defects()
            if self._stop.is_set:
                return "stopped"
            if self._clock() - started >= limits.max_seconds:
                return "time_limit"
            report.dependency = self._down()
            if report.dependency is not None:
                return "dependency_down"
            if report.blown is not None:
                return "fuse_blown"
            if len(self._flying) >= limits.concurrency + limits.prefetch:
                wait(self._flying, timeout=0.5, return_when=FIRST_COMPLETED)
                self._saw_at = self._clock()
                continue
            try:
                batch = self._source.receive()
            except TransientFailure as failure:
                log.warning("receive failed", dependency=failure.dependency, error=failure.error)
                self._unseen = failure
                self._stop.wait(limits.pause_seconds)
                continue
            self._saw_at, self._unseen = self._clock(), None
            if batch:
                idle_since = None
                report.deliveries["received"] += len(batch)
                # With the caller's context: log lines of a worker thread carry its identifiers, too.
                self._flying.add(pool.submit(copy_context().run, self._process, batch, self._clock()))
            elif self._flying or not self._source.may_idle():
                idle_since = None
            else:
                idle_since = self._clock() if idle_since is None else idle_since
                if self._clock() - idle_since >= limits.idle_seconds:
                    return "idle"

    def _collect(self, *, until_empty: bool) -> None:
        while self._flying:
            finished, _ = wait(self._flying, timeout=None if until_empty else 0, return_when=FIRST_COMPLETED)
            if not finished:
                return
            self._flying -= finished
            for future in finished:
                self._add(*future.result())
            if self._on_progress is not None:
                self._on_progress(self._report)

    def _add(self, settlement: Settlement[D], seconds: float) -> None:
        self._report.counts.update(settlement.counts)
        self._report.blown = self._report.blown or settlement.blown
        if self._on_batch is not None:
            self._on_batch(settlement.counts, seconds)
        self._report.lag.add_all(settlement.lags)
        self._report.deliveries["acknowledged"] += len(settlement.done)
        self._report.deliveries["returned"] += len(settlement.again)

    def _raise_defects(self) -> None:
        """What no retry and no dead letter can answer for: refused access at once, defects once they pile up."""
        refused = next((error for error in self._defects if isinstance(error, UsageError)), None)
        if refused is not None:
            raise refused
        if len(self._defects) >= _MAX_DEFECTS:
            raise self._defects[-1]

    def _process(self, batch: Sequence[D], received_at: float) -> tuple[Settlement[D], float]:
        """In a worker thread: do the work, then settle it with the source; how long that took since its receive,
        the wait for this thread included.
        """
        settlement = Settlement[D]()
        try:
            for part in in_parts(batch, self._work, lambda delivery, error: self._defect([delivery], error)):
                settlement.add(part)
        except Exception as error:
            settlement = self._defect(batch, error)
        self._defects.extend(settlement.defects)
        # A failed acknowledgement costs a repeat, never an item: the delivery comes again.
        with suppress(TransientFailure):
            self._source.acknowledge(settlement.done)
        with suppress(TransientFailure):
            self._source.give_back(settlement.again)
        seconds = self._clock() - received_at
        self._log(settlement, len(batch), seconds)
        return settlement, seconds

    def _log(self, settlement: Settlement[D], deliveries: int, seconds: float) -> None:
        """One line a batch. `batchItemFailures` is what a Lambda would answer: a text, for the saved queries of the
        operations manual compare it with "[]".
        """
        failed = [*settlement.failed, *filter(None, (_name(delivery) for delivery, _ in settlement.again))]
        log.info(
            "batch settled",
            drain=self._report.name,
            deliveries=deliveries,
            items=settlement.counts["received"],
            durationMs=round(seconds * 1000),
            batchItemFailures=json.dumps(failed),
        )

    def _defect(self, batch: Sequence[D], error: Exception) -> Settlement[D]:
        log.error("the work failed without settling what it got", error=type(error).__name__, exc_info=error)
        again = [(delivery, DEFECT_PAUSE_SECONDS) for delivery in batch]
        settlement = Settlement[D](again=again, defects=[error])
        settlement.counts.update(received=len(batch), returned=len(batch))
        return settlement

    def _beat(self, quit_beating: threading.Event) -> None:
        while not quit_beating.wait(self._limits.heartbeat_seconds):
            try:
                self._source.heartbeat()
            except TransientFailure as failure:
                log.warning("heartbeat failed", dependency=failure.dependency, error=failure.error)
            except Exception as error:
                # Whatever it was, a drain without a heartbeat would lose all that it holds.
                log.error("heartbeat failed", error=type(error).__name__, exc_info=True)

    def _close(self) -> None:
        try:
            self._source.close()
        except TransientFailure as failure:
            log.warning("close failed", dependency=failure.dependency, error=failure.error)
