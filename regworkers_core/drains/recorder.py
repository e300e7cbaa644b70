"""What a drain records while it works: statistics per minute in the collection `drain_log`, metrics once a minute and
at its end, and when it last acknowledged something.

The drain adds to counters in memory. Threads of their own write them, so a log that cannot be written costs the drain
nothing.

The last acknowledgement of each drain is one row in `worker-leases`, which outlives its runs. Alerts compare the row at
two evaluations: work that waits while the counter does not move is not worked off, whether no drain runs, one hangs, or
one cannot reach what it needs. The counter is compared, never the time of another machine.
"""

from __future__ import annotations

import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from fairdraw import scheduling
from regworkers_core.adapters.aws.cloudwatch import Strain
from regworkers_core.adapters.aws.lease_table import DynamoLeaseTable
from regworkers_core.adapters.mongo.activity import minute_of
from regworkers_core.domain.activity import DrainMinute, LiveEntries, keep_longest
from regworkers_core.domain.snapshot import LastAcknowledged
from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.heartbeat import BEAT_SECONDS, LAST_WRITE_SECONDS, PeriodicWriter, row_that_stays
from regworkers_core.engine.drain_report import DrainReport, Percentiles
from regworkers_core.engine.leases import LeaseRow, LeaseTable
from regworkers_core.observability.metrics import (
    BATCH_DURATION,
    DEPENDENCY_DOWN,
    DONE,
    DRAIN_SECONDS,
    FAILED,
    INVOCATIONS,
    LAG,
    MESSAGES,
    RECEIVED,
    RETRIES,
    THROTTLES,
    UNSENT,
    Histogram,
    Instrument,
    Metering,
)

# Linux counts in KiB, macOS in bytes.
_UNITS_PER_MIB = 1024 * 1024 if sys.platform == "darwin" else 1024


def peak_mib() -> float:
    """The peak resident memory of this process in MiB, without its children."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / _UNITS_PER_MIB


FLUSH_SECONDS = 15.0
# A row is written every 15 s: 200 ids of up to 64 bytes are less than 20 KB.
_MOST_CAMPAIGNS = 200


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
    live: Counter[str] = field(
        default_factory=Counter
    )  # live entries that came, less those that went, by campaign
    slowest: dict[str, float] = field(default_factory=dict)  # the longest of the lags, by campaign
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

    def batch(
        self,
        counts: Mapping[str, int],
        seconds: float,
        live: Mapping[str, int],
        slowest: Mapping[str, float],
    ) -> None:
        with self._lock:
            minute = self._current()
            minute.counts.update(counts)
            minute.live.update(live)
            keep_longest(minute.slowest, slowest)
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
            live=_largest(minute.live, minute.slowest),
        )


def _largest(live: Mapping[str, int], slowest: Mapping[str, float]) -> list[LiveEntries]:
    found = [LiveEntries(id_, live.get(id_, 0), slowest.get(id_)) for id_ in {**live, **slowest}]
    changed = [each for each in found if each.number or each.lag_seconds is not None]
    return sorted(changed, key=lambda each: -abs(each.number))[:_MOST_CAMPAIGNS]


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


# CloudWatch's smallest period of our metrics.
PUBLISH_SECONDS = 60.0
# The end of a drain waits for its last values: more than CloudWatch takes for a call.
_LAST_PUT_SECONDS = 5.0
_DONE = ("applied", "removed", "unchanged", "sent")


@dataclass(frozen=True, slots=True)
class _Totals:
    """What a drain did so far."""

    counts: Counter[str] = field(default_factory=Counter)  # items by outcome
    messages: int = 0
    batches: Percentiles = field(default_factory=Percentiles)
    lag: Percentiles = field(default_factory=Percentiles)  # seconds of each item
    strain: Strain = field(default_factory=Strain)

    @classmethod
    def of(cls, report: DrainReport | None, strain: Strain) -> _Totals:
        if report is None:
            return cls(strain=strain)
        # The drain goes on counting: copies, each made at once.
        return cls(
            Counter(report.counts),
            report.deliveries["received"],
            report.batches.since(None),
            report.lag.since(None),
            strain,
        )


class DrainMeter(PeriodicWriter):
    """A context manager around a drain, which leaves its report here as it goes. `strain` is that of the process so
    far, `system` what the drain receives from.
    """

    def __init__(
        self,
        put: Callable[[Sequence[Metering]], None],
        drain: str,
        strain: Callable[[], Strain],
    ) -> None:
        super().__init__(
            "drain-metrics",
            self.publish,
            self._publish_last,
            every_seconds=PUBLISH_SECONDS,
            warning="metrics not published",
            last_write_seconds=_LAST_PUT_SECONDS,
        )
        self._put, self._drain, self._strain = put, drain, strain
        self._before = _Totals(strain=strain())
        self.report: DrainReport | None = None

    def publish(self) -> None:
        """What has come since the last time, if anything has."""
        readings = self._since_last_time()
        if readings:
            self._put(readings)

    def _publish_last(self) -> None:
        readings, report = self._since_last_time(), self.report
        ended_by_dependency = report is not None and report.ended == "dependency_down"
        if report is not None and (readings or report.counts["received"] or ended_by_dependency):
            readings.append(self._reading(DRAIN_SECONDS, report.seconds))
            readings.append(self._reading(DEPENDENCY_DOWN, ended_by_dependency))
            self._put(readings)

    def _since_last_time(self) -> list[Metering]:
        before, now = self._before, _Totals.of(self.report, self._strain())
        self._before = now
        counts, strain = now.counts - before.counts, now.strain.since(before.strain)
        batches, lag = now.batches.since(before.batches), now.lag.since(before.lag)
        if not (counts["received"] or batches.count or strain.any):
            return []
        found = [
            self._reading(INVOCATIONS, batches.count),
            self._reading(MESSAGES, now.messages - before.messages),
            self._reading(RECEIVED, counts["received"]),
            self._reading(DONE, sum(counts[name] for name in _DONE)),
            self._reading(FAILED, counts["dead_lettered"] + counts["returned"]),
            self._reading(UNSENT, strain.unsent_dead_letters),
            *self._of_dependencies(strain),
        ]
        found += [self._reading(BATCH_DURATION, batches)] if batches.count else []
        return found + ([self._reading(LAG, lag)] if lag.count else [])

    def _of_dependencies(self, strain: Strain) -> Iterator[Metering]:
        for instrument, numbers in ((RETRIES, strain.retries), (THROTTLES, strain.throttles)):
            yield self._reading(instrument, sum(numbers.values()))
            for dependency, number in numbers.items():
                yield self._reading(instrument, number, Dependency=dependency)

    def _reading(self, instrument: Instrument, value: float | Histogram, **more: str) -> Metering:
        return Metering(instrument, value, {"Drain": self._drain, **more})


_AT = "acknowledgedAt"


class AcknowledgementWriter(PeriodicWriter):
    """A context manager around a drain, which leaves its report here as it goes. `clock` is in epoch seconds."""

    def __init__(self, table: Callable[[], LeaseTable], drain: str, clock: Callable[[], float]) -> None:
        super().__init__(
            f"{drain}-acknowledged",
            self.write,
            self.write,
            every_seconds=BEAT_SECONDS,
            warning="last acknowledgement not written",
        )
        self._table, self._key, self._clock = table, row_that_stays(drain), clock
        self._written = 0
        self.report: DrainReport | None = None

    def write(self) -> None:
        """Move the counter if this drain has acknowledged something since the last call. Raises TransientFailure."""
        number = self.report.acknowledged if self.report else 0
        if number == self._written:
            return
        table = self._table()
        seen = table.get(self._key)
        state = {_AT: iso(self._clock())}
        # If another run was faster, the counter has moved.
        table.swap(LeaseRow(self._key, counter=1 + (seen.counter if seen else 0), state=state), seen)
        self._written = number


def last_acknowledged(table: DynamoLeaseTable, drains: Iterable[str]) -> tuple[LastAcknowledged, ...]:
    """The rows of the drains that ever acknowledged something. Raises TransientFailure."""
    keys = {row_that_stays(drain): drain for drain in drains}
    return tuple(
        LastAcknowledged(keys[key], row.counter, row.state.get(_AT, ""))
        for key, row in table.several(list(keys)).items()
    )
