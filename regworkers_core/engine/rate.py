"""A rate limit shared by threads: a token bucket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class TokenBucket:
    """Lets `per_second` through on average, and up to `burst` (default: one second's worth) at once.

    A request above the burst is let through after its share of waiting: those behind it wait the longer.
    """

    def __init__(
        self,
        per_second: float,
        *,
        burst: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        if per_second <= 0:
            raise ValueError("a rate is above 0")
        self._per_second = per_second
        self._burst = max(1.0, per_second) if burst is None else burst
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._tokens, self._counted_at = self._burst, clock()

    def take(self, amount: float) -> bool:
        """Wait until `amount` may pass; False when `sleep` was interrupted (`StopSignal.wait` says True)."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self._burst, self._tokens + (now - self._counted_at) * self._per_second)
            self._counted_at = now
            self._tokens -= amount
            seconds = -self._tokens / self._per_second
        return seconds <= 0 or not self._sleep(seconds)
