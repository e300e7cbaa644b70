"""What a drain did: in a minute, as `drain_log` has it, and within a window, added up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from regworkers_core.domain.timestamps import seconds

MINUTE_SECONDS = 60.0
# A run writes its minute every 15 s: one that has not ended and was silent for this long has died.
SILENT_SECONDS = 120.0
# Calls that write the log and the heartbeat are not part of the work.
_OVERHEAD = frozenset({"drain-log", "heartbeats"})


@dataclass(frozen=True, slots=True)
class LiveEntries:
    """How many live entries of a campaign came to the replica, less those that were removed."""

    campaign_id: str
    number: int
    lag_seconds: float | None = None  # the longest from a change to its save; None: none was measured


def keep_longest(kept: dict[str, float], others: Mapping[str, float]) -> None:
    """Keep of each name the longer one."""
    for name, length in others.items():
        kept[name] = max(length, kept.get(name, length))


@dataclass(frozen=True, slots=True)
class DrainMinute:
    """What one run of a drain did within a minute. The p95 of batches and lags are those of this minute."""

    drain: str
    run_id: str
    minute: str  # an ISO time without seconds
    counts: Mapping[str, int]  # items by outcome, `received` among them
    batches: int
    batch_p95_seconds: float | None
    batch_max_seconds: float | None
    batch_limit_seconds: float
    lag_p95_seconds: float | None = None
    calls: Mapping[str, int] = field(default_factory=dict)  # by dependency
    waited_seconds: Mapping[str, float] = field(default_factory=dict)  # time within those calls
    ended: str = ""  # why the run ended in it; empty: it went on
    memory_mib: float | None = None  # the most that the process took so far
    # Calls that a dependency refused because it was asked too much.
    throttles: Mapping[str, int] = field(default_factory=dict)
    measured: int = 0  # lags that were measured
    late: int = 0  # those of them above the objective (`replication.lagObjectiveSeconds`)
    # It has the campaigns that changed the most; the next reconcile counts the others.
    live: Sequence[LiveEntries] = ()

    @property
    def failed(self) -> int:
        return self.counts.get("dead_lettered", 0) + self.counts.get("returned", 0)


@dataclass(slots=True)
class DrainWindow:
    """What the runs of one drain did within a window: their minutes, added up."""

    name: str
    window_seconds: float = 0.0
    # Minutes of runs: two runs of one minute are two.
    minutes: int = 0
    # Items by outcome, `received` among them.
    counts: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    # The p95 of the batches of each minute, in seconds: percentiles of minutes cannot be combined.
    batch_p95s: list[float] = field(default_factory=list)
    batch_max_seconds: float = 0.0
    # How long a batch may take; the least, if that was changed.
    batch_limit_seconds: float | None = None
    # The p95 of the worst minute; None: no lag was measured.
    lag_p95_seconds: float | None = None
    # Lags that were measured.
    measured: int = 0
    late: int = 0  # those of them above the objective
    # Calls of each dependency, and seconds within them.
    calls: Counter[str] = field(default_factory=Counter)
    waited_seconds: dict[str, float] = field(default_factory=dict)
    # Calls that a dependency refused because it was asked too much.
    throttles: Counter[str] = field(default_factory=Counter)
    # Runs by how they ended.
    ends: Counter[str] = field(default_factory=Counter)
    # The most that one process took; None: not recorded.
    memory_mib: float | None = None
    # The latest minute of each run, by its id.
    latest: dict[str, DrainMinute] = field(default_factory=dict)
    # Runs that had neither ended nor fallen silent when it ended.
    active_runs: int = 0
    # The ISO time of the last minute of any run, also of one before the window; None: never.
    last_seen_at: str | None = None
    # Entries that its second look found to differ, by class.
    differing: Mapping[str, int] = field(default_factory=dict)
    # One is to be resident now.
    wanted: bool = False

    @property
    def received(self) -> int:
        return self.counts["received"]

    @property
    def dead_lettered(self) -> int:
        return self.counts["dead_lettered"]

    @property
    def failed(self) -> int:
        """Items that became dead letters or went back."""
        return self.counts["dead_lettered"] + self.counts["returned"]

    @property
    def error_rate(self) -> float | None:
        """Failed of received; None without any."""
        return self.failed / self.received if self.received else None

    @property
    def batch_p95_seconds(self) -> float | None:
        """From the receive of a batch to its acknowledgement, in the worst minute."""
        return max(self.batch_p95s, default=None)

    @property
    def typical_seconds(self) -> float | None:
        """The median of the minutes' p95, which one bad minute does not change."""
        return median(self.batch_p95s) if self.batch_p95s else None

    @property
    def running_seconds(self) -> float:
        """To the minute."""
        return self.minutes * MINUTE_SECONDS

    @property
    def rate(self) -> float:
        """Items received per second and run."""
        return self.received / self.running_seconds if self.minutes else 0.0

    @property
    def items_of_a_batch(self) -> float | None:
        return self.received / self.batches if self.batches else None

    def mean_wait(self, dependency: str) -> float | None:
        """Seconds per call; None without calls."""
        calls = self.calls[dependency]
        return self.waited_seconds.get(dependency, 0.0) / calls if calls else None

    def busy(self, concurrency: int, dependencies: Iterable[str]) -> float:
        """The share of its threads' time that was spent waiting for these, 0 to 1."""
        waited = sum(self.waited_seconds.get(name, 0.0) for name in dependencies)
        return min(1.0, waited / (self.running_seconds * concurrency)) if self.minutes else 0.0

    def add(self, minute: DrainMinute) -> None:
        """Minutes come oldest first."""
        self.minutes += 1
        if minute.batch_p95_seconds is not None:
            self.batch_p95s.append(minute.batch_p95_seconds)
        if minute.ended:
            self.ends[minute.ended] += 1
        self.latest[minute.run_id] = minute
        self.last_seen_at = minute.minute
        self._sum(minute)

    def merge(self, later: DrainWindow) -> None:
        """Add what it did within the window that follows."""
        self.minutes += later.minutes
        self.window_seconds += later.window_seconds
        self.batch_p95s += later.batch_p95s
        self.ends.update(later.ends)
        self.latest |= later.latest
        self.last_seen_at = later.last_seen_at or self.last_seen_at
        self._sum(later)

    def _sum(self, other: DrainMinute | DrainWindow) -> None:
        self.counts.update(other.counts)
        self.throttles.update(other.throttles)
        self.calls.update({name: calls for name, calls in other.calls.items() if name not in _OVERHEAD})
        for name, waited in other.waited_seconds.items():
            if name not in _OVERHEAD:
                self.waited_seconds[name] = self.waited_seconds.get(name, 0.0) + waited
        self.batches += other.batches
        self.measured += other.measured
        self.late += other.late
        self.batch_max_seconds = max(self.batch_max_seconds, other.batch_max_seconds or 0.0)
        limits = [each for each in (self.batch_limit_seconds, other.batch_limit_seconds) if each]
        self.batch_limit_seconds = min(limits, default=None)
        self.lag_p95_seconds = _greater(self.lag_p95_seconds, other.lag_p95_seconds)
        self.memory_mib = _greater(self.memory_mib, other.memory_mib)

    def count_active(self, now: float) -> None:
        """Set `active_runs` as of `now` (epoch seconds)."""
        self.active_runs = sum(
            not each.ended and now - (seconds(each.minute) or 0.0) < SILENT_SECONDS
            for each in self.latest.values()
        )


def _greater(one: float | None, other: float | None) -> float | None:
    return max((each for each in (one, other) if each is not None), default=None)
