"""What reviews read: the work of the drains over weeks, from `drain_log`, and the depth and retention of queues.

The drain log is read one day at a time, so that memory does not grow with the period.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

from regworkers_core.adapters.mongo.activity import DrainLog, DrainMinute, minute_of
from regworkers_core.domain.timestamps import iso
from regworkers_core.runtime import Runtime

DAY_SECONDS = 24 * 3600.0


@dataclass(slots=True)
class Day:
    """The work of one drain on one day (UTC), as far as the day is in the period.

    `p95s` and `lags` have one value per minute, in seconds. `batch_limit_seconds` is the smallest visibility timeout of
    the day. `memory_mib` is the maximum of one process, None if not recorded.
    """

    day: str
    drain: str
    minutes: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    p95s: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    longest_seconds: float = 0.0
    batch_limit_seconds: float | None = None
    calls: Counter[str] = field(default_factory=Counter)
    waited: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    memory_mib: float | None = None

    @property
    def received(self) -> int:
        return self.counts["received"]

    @property
    def failed(self) -> int:
        return self.counts["dead_lettered"] + self.counts["returned"]

    @property
    def failure_rate(self) -> float | None:
        """Failed items as a share of those received, None if there were none."""
        return self.failed / self.received if self.received else None

    @property
    def typical_seconds(self) -> float | None:
        """The median of the minutes' p95, which one bad minute does not change."""
        return median(self.p95s) if self.p95s else None

    def add(self, minute: DrainMinute) -> None:
        self.minutes += 1
        self.counts.update(minute.counts)
        self.batches += minute.batches
        if minute.batch_p95_seconds is not None:
            self.p95s.append(minute.batch_p95_seconds)
        if minute.lag_p95_seconds is not None:
            self.lags.append(minute.lag_p95_seconds)
        self.longest_seconds = max(self.longest_seconds, minute.batch_max_seconds or 0.0)
        self.calls.update(minute.calls)
        self.waited.update(minute.waited_seconds)
        if minute.ended:
            self.ends[minute.ended] += 1
        self._bound(minute)

    def merge(self, other: Day) -> None:
        self.minutes += other.minutes
        self.counts.update(other.counts)
        self.batches += other.batches
        self.p95s += other.p95s
        self.lags += other.lags
        self.longest_seconds = max(self.longest_seconds, other.longest_seconds)
        self.calls.update(other.calls)
        self.waited.update(other.waited)
        self.ends.update(other.ends)
        self._bound(other)

    def _bound(self, other: Day | DrainMinute) -> None:
        limits = [each for each in (self.batch_limit_seconds, other.batch_limit_seconds) if each]
        self.batch_limit_seconds = min(limits, default=None)
        known = [each for each in (self.memory_mib, other.memory_mib) if each is not None]
        self.memory_mib = max(known, default=None)


def read_days(log: DrainLog, start: float, end: float) -> list[Day]:
    """Read the days from `start` to `end` (epoch seconds), by day and then drain. Raises TransientFailure."""
    found: list[Day] = []
    for begin, until in _days(start, end):
        of_day: dict[str, Day] = {}
        for minute in log.between(minute_of(begin), minute_of(until)):
            of_day.setdefault(minute.drain, Day(iso(begin)[:10], minute.drain)).add(minute)
        found += [of_day[drain] for drain in sorted(of_day)]
    return found


def by_drain(days: Iterable[Day]) -> dict[str, Day]:
    """Merge all days of each drain. The result has the date of the first."""
    merged: dict[str, Day] = {}
    for each in days:
        merged.setdefault(each.drain, Day(each.day, each.drain)).merge(each)
    return dict(sorted(merged.items()))


def by_week(days: Sequence[Day], start: float) -> dict[str, list[Day]]:
    """The days in weeks from `start` on, by the date on which each week begins."""
    weeks: dict[str, list[Day]] = defaultdict(list)
    starts = sorted({iso(start + number * 7 * DAY_SECONDS)[:10] for number in range(60)})
    for each in days:
        weeks[max(date for date in starts if date <= each.day)].append(each)
    return dict(sorted(weeks.items()))


def _days(start: float, end: float) -> Iterator[tuple[float, float]]:
    """The period, split at each midnight."""
    while start < end:
        midnight = (start // DAY_SECONDS + 1) * DAY_SECONDS
        yield start, min(midnight, end)
        start = midnight


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """`depth` counts messages in all states."""

    name: str
    depth: int
    retention_seconds: float


def read_queues(runtime: Runtime, names: Iterable[str]) -> list[QueueFacts]:
    """Depth and retention of queues, in order. Raises TransientFailure, UsageError for a queue that does not exist."""
    states = ((name, *runtime.queue(name).state()) for name in names)
    return [QueueFacts(name, depth.total, retention) for name, depth, retention in states]
