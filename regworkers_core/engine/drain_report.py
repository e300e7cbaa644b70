"""What a drain did, in numbers that add up, with percentiles of durations in constant memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from regworkers_core.domain.reasons import PermanentFailure
from regworkers_core.engine.defects import fuse_message

# Buckets grow by 2 %: a percentile is exact to within that, and a day of lags fits in a few hundred buckets.
_GROWTH = math.log(1.02)
_SMALLEST_SECONDS = 0.001


class Percentiles:
    """Durations in seconds. Negative ones count as zero, because the clocks of two machines differ."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0
        self.largest = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        seconds = max(0.0, seconds)
        self._buckets[_bucket_of(seconds)] += times
        self.count += times
        self.largest = max(self.largest, seconds)

    def add_all(self, durations: Iterable[float]) -> None:
        """Equal durations, which are common within a batch, are computed once."""
        for seconds, times in Counter(durations).items():
            self.add(seconds, times)

    def at(self, percent: float) -> float | None:
        """The value below which `percent` of the durations lie (at most 2 % too high); None without any."""
        if not self.count:
            return None
        rank, seen = math.ceil(self.count * percent / 100), 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen >= rank:
                return min(self.largest, _SMALLEST_SECONDS * math.exp(bucket * _GROWTH))
        return self.largest

    def above(self, seconds: float) -> int:
        """How many durations are longer, to within 2 % of `seconds`."""
        last = _bucket_of(seconds)
        return sum(number for bucket, number in self._buckets.items() if bucket > last)

    def buckets(self) -> dict[float, int]:
        """Upper bounds in seconds with the number of durations at each."""
        return {
            min(self.largest, _SMALLEST_SECONDS * math.exp(bucket * _GROWTH)): number
            for bucket, number in sorted(self._buckets.items())
        }

    def since(self, before: Percentiles | None) -> Percentiles:
        """The durations that were added after `before`, an earlier copy; all for None. Safe beside one thread that
        adds.
        """
        later = Percentiles()
        later._buckets = Counter(self._buckets)
        if before is not None:
            later._buckets -= before._buckets
        later.count = later._buckets.total()
        later.largest = self.largest
        if before is not None and before.largest == self.largest:
            later.largest = max(later.buckets(), default=0.0)
        return later

    def summary(self) -> dict[str, float | None]:
        """`p50`, `p95`, `p99` and `max` in seconds, rounded to milliseconds; None without any duration."""
        values = {"p50": self.at(50), "p95": self.at(95), "p99": self.at(99)}
        values["max"] = self.largest if self.count else None
        return {name: None if value is None else round(value, 3) for name, value in values.items()}


def _bucket_of(seconds: float) -> int:
    return math.ceil(math.log(max(seconds, _SMALLEST_SECONDS) / _SMALLEST_SECONDS) / _GROWTH)


# What an item can end as. `applied`: written; `unchanged`: already stored; `stale`: a newer state is stored; `gone`:
# removed meanwhile; `resurrected`: live behind a newer tombstone; `dropped`: filtered or coalesced; `dead_lettered`:
# permanent; `resent`: continues alone; `returned`: kept for later.
OUTCOMES = (
    "applied", "removed", "unchanged", "stale", "gone", "resurrected",
    "sent", "dropped", "dead_lettered", "resent", "returned",
)  # fmt: skip


@dataclass(slots=True)
class DrainReport:
    """Numbers of one drain."""

    name: str
    counts: Counter[str] = field(default_factory=Counter)  # items by outcome
    # Seconds of each item from its write to its acknowledgement.
    lag: Percentiles = field(default_factory=Percentiles)
    # Seconds of each batch from its receive to its acknowledgement.
    batches: Percentiles = field(default_factory=Percentiles)
    deliveries: Counter[str] = field(default_factory=Counter)  # records or messages by what became of them
    seconds: float = 0.0  # from its start to its end
    ended: str = ""  # idle, time_limit, stopped, dependency_down or fuse_blown
    dependency: str | None = None  # what was unavailable at its end
    began: bool = False  # False if a dependency was unavailable at the start, so that nothing was received
    blind: str | None = None  # the dependency that did not answer, if the last receives all failed
    blown: PermanentFailure | None = None  # the defect that blew the fuse

    @property
    def acknowledged(self) -> int:
        """Deliveries that the source has taken as done: they never come again."""
        return self.deliveries["acknowledged"] - self.deliveries["not_acknowledged"]

    @property
    def failure(self) -> str | None:
        """Why the run has failed; None if it has not, also if a dependency ended it."""
        if self.blown is not None:
            return fuse_message(self.name, str(self.blown))
        if self.blind is not None:
            return f"{self.blind} did not answer: no receive was successful any more before the drain ended"
        return None

    @property
    def went_wrong(self) -> bool:
        """Whether it failed or a dependency ended it, whatever happened to the items."""
        return self.ended == "dependency_down" or self.failure is not None

    @property
    def adds_up(self) -> bool:
        """Whether every received item has one outcome, and every delivery was acknowledged or returned."""
        settled = self.deliveries["acknowledged"] + self.deliveries["returned"]
        return (
            self.counts["received"] == sum(self.counts[outcome] for outcome in OUTCOMES)
            and self.deliveries["received"] == settled
        )

    def as_dict(self) -> dict[str, object]:
        """The report as JSON: counts of items and deliveries, lag percentiles and duration in seconds."""
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
