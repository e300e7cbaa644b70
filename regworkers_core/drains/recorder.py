"""Writes down what a drain does, minute by minute, while it works: the collection `drain_log`.

A drain adds to a tally in memory; a thread of its own writes that, so that a log which cannot be written costs the
drain nothing.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Self

import structlog

from regworkers_core.adapters.mongo.drain_log import DrainMinute, minute_of
from regworkers_core.domain.reasons import Failure, UsageError
from regworkers_core.engine.drain import DrainReport
from regworkers_core.engine.percentiles import Percentiles
from regworkers_core.observability.logs import describe
from regworkers_core.observability.memory import peak_mib

FLUSH_SECONDS = 15.0
# How long a drain that has ended waits for its last words to be written.
LAST_WORDS_SECONDS = 1.0
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Meters:
    """Calls, seconds within them, and calls that were throttled so far, by dependency."""

    calls: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    throttles: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Minute:
    """`began` is what the meters showed when it began."""

    name: str
    began: Meters
    counts: Counter[str] = field(default_factory=Counter)
    batches: Percentiles = field(default_factory=Percentiles)


class Tally:
    """The numbers of one drain, by minute; safe to share between threads. `clock` is in epoch seconds.

    `limit_seconds` is how long a batch is the drain's own without a heartbeat, `memory` the MiB that the process took.
    """

    def __init__(
        self,
        drain: str,
        run_id: str,
        *,
        limit_seconds: float,
        clock: Callable[[], float],
        meters: Callable[[], Meters],
        memory: Callable[[], float] = peak_mib,
    ) -> None:
        self._drain, self._run_id, self._limit_seconds = drain, run_id, limit_seconds
        self._clock, self._meters, self._memory = clock, meters, memory
        self._lock = threading.Lock()
        self._told: Counter[str] = Counter()
        self._lag: float | None = None
        self._past: list[DrainMinute] = []
        self._minute = _Minute(minute_of(clock()), meters())

    def batch(self, counts: Mapping[str, int], seconds: float) -> None:
        """A batch was settled."""
        with self._lock:
            minute = self._current()
            minute.counts.update(counts)
            minute.batches.add(seconds)
            self._told.update(counts)

    def progress(self, report: DrainReport) -> None:
        self._lag = report.lag.at(95)

    def take(self) -> list[DrainMinute]:
        """What is to be written now: the minutes that are over and were not taken yet, and the current one as it is."""
        with self._lock:
            self._current()
            past, self._past = self._past, []
            return [*past, self._as_of_now("")]

    def end(self, report: DrainReport | None) -> list[DrainMinute]:
        """The same for the last time, with what no batch has counted: records that a source found to be lost, say.
        None for a drain that raised; one that reports a failure has `failed`, too.
        """
        with self._lock:
            minute = self._current()
            if report is not None:
                minute.counts.update(report.counts - self._told)
                self._lag = report.lag.at(95)
            past, self._past = self._past, []
            ended = "failed" if report is None or report.failure is not None else report.ended
            return [*past, self._as_of_now(ended)]

    def _current(self) -> _Minute:
        name = minute_of(self._clock())
        # A clock that was set back does not open a minute anew that was written already.
        if name > self._minute.name:
            self._past.append(self._as_of_now(""))
            self._minute = _Minute(name, self._meters())
        return self._minute

    def _as_of_now(self, ended: str) -> DrainMinute:
        minute, now = self._minute, self._meters()
        before = minute.began
        calls = {name: number - before.calls.get(name, 0) for name, number in now.calls.items()}
        throttles = {name: number - before.throttles.get(name, 0) for name, number in now.throttles.items()}
        waited = {name: total - before.seconds.get(name, 0.0) for name, total in now.seconds.items()}
        some = minute.batches.count
        return DrainMinute(
            drain=self._drain,
            run_id=self._run_id,
            minute=minute.name,
            counts={name: number for name, number in minute.counts.items() if number},
            batches=some,
            batch_p95_seconds=minute.batches.at(95),
            batch_max_seconds=minute.batches.largest if some else None,
            batch_limit_seconds=self._limit_seconds,
            lag_p95_seconds=self._lag,
            calls={name: number for name, number in calls.items() if number},
            waited_seconds={name: round(waited[name], 3) for name, number in calls.items() if number},
            ended=ended,
            memory_mib=round(self._memory(), 1),
            throttles={name: number for name, number in throttles.items() if number},
        )


class Recorder:
    """As a context manager around a drain: hands its minutes to `put`, in a thread of its own. The drain leaves its
    `report` here. That something cannot be written is logged once; the drain is held up by no more than
    `last_words_seconds`, at its end.
    """

    def __init__(
        self,
        tally: Tally,
        put: Callable[[DrainMinute], None],
        *,
        flush_seconds: float = FLUSH_SECONDS,
        last_words_seconds: float = LAST_WORDS_SECONDS,
    ) -> None:
        self._tally, self._put = tally, put
        self._flush_seconds, self._last_words_seconds = flush_seconds, last_words_seconds
        self._ended = threading.Event()
        self._last_words: list[DrainMinute] = []
        self._failed = False
        self.report: DrainReport | None = None
        # A daemon: a server that hangs must not hold up the end of the process either.
        self._thread = threading.Thread(
            target=copy_context().run, args=(self._run,), name="drain-recorder", daemon=True
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._last_words = self._tally.end(self.report)
        self._ended.set()
        self._thread.join(self._last_words_seconds)

    def _run(self) -> None:
        # Also before the first batch: a drain that hangs in it is seen.
        self._write(self._tally.take())
        while not self._ended.wait(self._flush_seconds):
            self._write(self._tally.take())
        self._write(self._last_words)

    def _write(self, minutes: Sequence[DrainMinute]) -> None:
        for minute in minutes:
            try:
                self._put(minute)
            except Exception as error:
                # Whatever it is: the drain has better things to do than to fail for its log.
                if not self._failed:
                    self._failed = True
                    known = isinstance(error, Failure | UsageError)
                    log.warning("drain log not written", error=str(error) if known else describe(error))
                return
