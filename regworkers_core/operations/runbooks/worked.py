"""What the drains did lately, added up from the minutes of `drain_log`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from regworkers_core.adapters.mongo.drain_log import DrainMinute
from regworkers_core.domain.timestamps import iso, seconds

MINUTE_SECONDS = 60.0
# A run writes its minute once it is over, or a little later: one that is silent for longer has ended or died.
_SILENT_SECONDS = 180.0
# What writes the log and shows that the drain lives is no part of the work.
_ASIDE = frozenset({"drain-log", "heartbeats"})


@dataclass(slots=True)
class Worked:
    """Of one drain. `minutes` counts minutes of runs (two runs of one minute are two), `active` runs that did not
    end. `waited` are seconds within calls, by dependency, `throttles` calls that it refused as too many; `ends` counts
    runs by how they ended.
    """

    drain: str
    minutes: int = 0
    active: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    batch_p95_seconds: float | None = None
    batch_limit_seconds: float | None = None
    lag_p95_seconds: float | None = None
    calls: Counter[str] = field(default_factory=Counter)
    waited: dict[str, float] = field(default_factory=dict)
    throttles: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)

    @property
    def seconds(self) -> float:
        """Of running, to the minute."""
        return self.minutes * MINUTE_SECONDS

    @property
    def rate(self) -> float:
        """Items received a second and run."""
        return self.counts["received"] / self.seconds if self.minutes else 0.0

    @property
    def items_of_a_batch(self) -> float:
        return self.counts["received"] / self.batches if self.batches else 0.0

    def mean_wait(self, dependency: str) -> float | None:
        """Seconds within one call; None without calls."""
        calls = self.calls[dependency]
        return self.waited.get(dependency, 0.0) / calls if calls else None

    def busy(self, concurrency: int, dependencies: Iterable[str]) -> float:
        """The part of its threads' time that went into waiting for these, 0 to 1."""
        waited = sum(self.waited.get(name, 0.0) for name in dependencies)
        return min(1.0, waited / (self.seconds * concurrency)) if self.minutes else 0.0


def worked(log: Iterable[DrainMinute], *, now: float) -> Mapping[str, Worked]:
    """By drain; `log` is oldest first, `now` in epoch seconds."""
    found: dict[str, Worked] = {}
    latest: dict[tuple[str, str], DrainMinute] = {}
    for entry in log:
        of = found.setdefault(entry.drain, Worked(entry.drain))
        of.minutes += 1
        of.counts.update(entry.counts)
        of.batches += entry.batches
        of.batch_p95_seconds = _larger(of.batch_p95_seconds, entry.batch_p95_seconds)
        of.batch_limit_seconds = entry.batch_limit_seconds
        of.lag_p95_seconds = (
            entry.lag_p95_seconds if entry.lag_p95_seconds is not None else of.lag_p95_seconds
        )
        of.calls.update({name: calls for name, calls in entry.calls.items() if name not in _ASIDE})
        of.throttles.update(entry.throttles)
        for name, waited in entry.waited_seconds.items():
            if name not in _ASIDE:
                of.waited[name] = of.waited.get(name, 0.0) + waited
        latest[entry.drain, entry.run_id] = entry
    for (drain, _), entry in latest.items():
        if entry.ended:
            found[drain].ends[entry.ended] += 1
        elif now - (seconds(entry.minute) or 0.0) <= _SILENT_SECONDS:
            found[drain].active += 1
    return found


def minute_before(now: float, minutes: float) -> str:
    """The first minute of a look back, as `drain_log` writes it."""
    return iso(now - minutes * MINUTE_SECONDS)[:16]


def _larger(one: float | None, other: float | None) -> float | None:
    known = [each for each in (one, other) if each is not None]
    return max(known) if known else None
