"""Whether the threads of a drain get on: since when each has not ended a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from fairdraw import scheduling

# The time of the last step, of the thread that runs here and of those that it starts.
_last: ContextVar[list[float] | None] = ContextVar("last_step", default=None)


def step() -> None:
    """A call to a dependency ended, or a turn of a loop. Does nothing in a thread that is not watched."""
    if (mine := _last.get()) is not None:
        mine[0] = scheduling.monotonic()


class Steps:
    """The threads of one drain that are watched; any other thread may ask."""

    def __init__(self) -> None:
        self._lock = scheduling.lock()
        self._threads: list[list[float]] = []

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around what the calling thread does."""
        mine = [scheduling.monotonic()]
        with self._lock:
            self._threads.append(mine)
        token = _last.set(mine)
        try:
            yield
        finally:
            _last.reset(token)
            with self._lock:
                # They are compared by identity: two threads may have taken their steps at the same time.
                self._threads = [each for each in self._threads if each is not mine]

    def still_seconds(self) -> float:
        """For how long one of the threads has not ended a step; 0 if none is watched."""
        with self._lock:
            return max((scheduling.monotonic() - last for (last,) in self._threads), default=0.0)
