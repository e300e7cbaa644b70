"""A circuit breaker per dependency: stop asking a dependency that does not answer, let one call probe it.

Of our own because the kept libraries hold a lock around the guarded call, so that threads queue up
behind one slow call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from regworkers_core.domain.reasons import DependencyDown


class CircuitBreaker:
    """Closed until `failures` calls in a row failed; then open for `reset_seconds`; then one call probes."""

    def __init__(
        self, dependency: str, *, failures: int, reset_seconds: float, clock: Callable[[], float]
    ) -> None:
        self.dependency = dependency
        self._limit = failures
        self._reset_seconds = reset_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._failed_in_a_row = 0
        self._retry_at: float | None = None
        self._tripped = False

    @property
    def is_open(self) -> bool:
        """Whether calls are refused, or only a probe is let through."""
        return self._retry_at is not None

    def before_call(self) -> None:
        """Raises DependencyDown while open; once the reset time is over, lets exactly one caller probe."""
        with self._lock:
            if self._retry_at is None:
                return
            now = self._clock()
            if now < self._retry_at:
                raise DependencyDown(self.dependency, "the circuit is open after repeated failures")
            self._retry_at, self._tripped = now + self._reset_seconds, False

    def succeeded(self) -> None:
        with self._lock:
            if not self._tripped:
                self._failed_in_a_row, self._retry_at = 0, None

    def failed(self) -> None:
        with self._lock:
            self._failed_in_a_row += 1
            if self._failed_in_a_row >= self._limit:
                self._retry_at = self._clock() + self._reset_seconds

    def trip(self) -> None:
        """Open at once, for a caller that counts by itself. Calls go well meanwhile as far as they know, so that only
        one after the reset time closes it.
        """
        with self._lock:
            self._retry_at, self._tripped = self._clock() + self._reset_seconds, True
