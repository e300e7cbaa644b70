"""Records per-minute statistics of a drain in the collection `drain_log` while it works.

The drain adds to counters in memory. A thread of its own writes them, so a log that cannot be written costs the drain
nothing.
"""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fairdraw import scheduling
from regworkers_core.adapters.mongo.activity import minute_of
from regworkers_core.domain.activity import DrainMinute
from regworkers_core.drains.heartbeat import LAST_WRITE_SECONDS, PeriodicWriter
from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.engine.percentiles import Percentiles

# Linux counts in KiB, macOS in bytes.
_UNITS_PER_MIB = 1024 * 1024 if sys.platform == "darwin" else 1024


def peak_mib() -> float:
    """The peak resident memory of this process in MiB, without its children."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _UNITS_PER_MIB


FLUSH_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class DependencyUsage:
    """Totals so far, by dependency: calls, seconds within them, and calls that were throttled."""

    calls: Mapping[str, int] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    throttles: Mapping[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Minute:
    """What a drain did in one minute."""

    name: str
    began: DependencyUsage  # the usage at its start
    lags: Percentiles = field(default_factory=Percentiles)  # those of the drain so far
    counts: Counter[str] = field(default_factory=Counter)  # items by outcome
    batches: Percentiles = field(default_factory=Percentiles)


class MinuteCounters:
    """The numbers of one drain, by minute; safe to share between threads. `clock` is in epoch seconds.

    `limit_seconds` is how long a batch may take; a lag above `late_seconds` is late.
    """

    def __init__(
        self,
        drain: str,
        run_id: str,
        *,
        limit_seconds: float,
        late_seconds: float,
        clock: Callable[[], float],
        usage: Callable[[], DependencyUsage],
    ) -> None:
        self._drain, self._run_id, self._limit_seconds = drain, run_id, limit_seconds
        self._late_seconds, self._lags = late_seconds, Percentiles()
        self._clock, self._usage = clock, usage
        self._lock = scheduling.lock()
        self._counted: Counter[str] = Counter()
        self._past: list[DrainMinute] = []
        self._minute = _Minute(minute_of(clock()), usage())

    def batch(self, counts: Mapping[str, int], seconds: float) -> None:
        with self._lock:
            minute = self._current()
            minute.counts.update(counts)
            minute.batches.add(seconds)
            self._counted.update(counts)

    def progress(self, report: DrainReport) -> None:
        with self._lock:
            self._current()
            self._measure(report)

    def _measure(self, report: DrainReport) -> None:
        # A copy: the drain goes on adding.
        self._lags = report.lag.since(None)

    def take(self) -> list[DrainMinute]:
        """What is to be written now: past minutes that were not taken yet, and the current one as it is."""
        with self._lock:
            self._current()
            past, self._past = self._past, []
            return [*past, self._as_of_now("")]

    def end(self, report: DrainReport | None) -> list[DrainMinute]:
        """What is to be written last, including what no batch has counted, such as records lost to trimming. `report`
        is None for a drain that raised; that one, and one that reports a failure, ended as `failed`.
        """
        with self._lock:
            minute = self._current()
            if report is not None:
                minute.counts.update(report.counts - self._counted)
                self._measure(report)
            past, self._past = self._past, []
            ended = "failed" if report is None or report.failure is not None else report.ended
            return [*past, self._as_of_now(ended)]

    def _current(self) -> _Minute:
        name = minute_of(self._clock())
        # A clock that was set back does not open a minute again that was written already.
        if name > self._minute.name:
            self._past.append(self._as_of_now(""))
            self._minute = _Minute(name, self._usage(), self._lags)
        return self._minute

    def _as_of_now(self, ended: str) -> DrainMinute:
        minute, now = self._minute, self._usage()
        before = minute.began
        calls = {name: number - before.calls.get(name, 0) for name, number in now.calls.items()}
        throttles = {name: number - before.throttles.get(name, 0) for name, number in now.throttles.items()}
        waited = {name: total - before.seconds.get(name, 0.0) for name, total in now.seconds.items()}
        batches, lags = minute.batches.count, self._lags.since(minute.lags)
        return DrainMinute(
            drain=self._drain,
            run_id=self._run_id,
            minute=minute.name,
            counts={name: number for name, number in minute.counts.items() if number},
            batches=batches,
            batch_p95_seconds=minute.batches.at(95),
            batch_max_seconds=minute.batches.largest if batches else None,
            batch_limit_seconds=self._limit_seconds,
            lag_p95_seconds=lags.at(95),
            calls={name: number for name, number in calls.items() if number},
            waited_seconds={name: round(waited[name], 3) for name, number in calls.items() if number},
            ended=ended,
            memory_mib=round(peak_mib(), 1),
            throttles={name: number for name, number in throttles.items() if number},
            measured=lags.count,
            late=lags.above(self._late_seconds),
        )


class Recorder(PeriodicWriter):
    """A context manager around a drain: writes its minutes with `put`. The drain leaves its `report` here."""

    def __init__(
        self,
        counters: MinuteCounters,
        put: Callable[[DrainMinute], None],
        *,
        flush_seconds: float = FLUSH_SECONDS,
        last_write_seconds: float = LAST_WRITE_SECONDS,
    ) -> None:
        super().__init__(
            "drain-recorder",
            # The first write comes before the first batch, so that a drain which hangs in it is seen.
            lambda: self._put_all(counters.take()),
            lambda: self._put_all(self._last),
            every_seconds=flush_seconds,
            warning="drain log not written",
            last_write_seconds=last_write_seconds,
        )
        self._counters, self._put = counters, put
        self._last: list[DrainMinute] = []
        self.report: DrainReport | None = None

    def __exit__(self, *_: object) -> None:
        self._last = self._counters.end(self.report)
        super().__exit__()

    def _put_all(self, minutes: Sequence[DrainMinute]) -> None:
        for minute in minutes:
            self._put(minute)
