"""Percentiles of a stream of durations in constant memory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

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
