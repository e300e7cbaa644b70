"""The place from which the core takes time and threads, what threads wait for, and
how work tells how far it is.

The real ones are Python's own. A simulation (`tests/simulation`) installs others: virtual time, and threads that a
seeded scheduler runs one at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent import futures
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, CancelledError
from typing import Any, NamedTuple, Protocol

__all__ = ["FIRST_COMPLETED", "FIRST_EXCEPTION", "CancelledError"]
# The types of what the functions below make.
Condition = threading.Condition
Event = threading.Event
Future = futures.Future
Lock = threading.Lock
Pool = futures.ThreadPoolExecutor
Thread = threading.Thread


class Progress(Protocol):
    """What long work calls to say how far it is, from any of its threads but one at a time."""

    def __call__(self, done: int, total: int | None = None, unit: str = "") -> None:
        """`done` of `total` (None: unknown) of what `unit` names."""


def no_progress(done: int, total: int | None = None, unit: str = "") -> None:
    """The default of every `on_progress`."""


class RealWorld:
    """What is installed unless a simulation replaces it: an object with the same attributes."""

    condition = staticmethod(threading.Condition)
    event = staticmethod(threading.Event)
    future: Callable[[], futures.Future[Any]] = futures.Future
    lock = staticmethod(threading.Lock)
    monotonic = staticmethod(time.monotonic)
    now = staticmethod(time.time)
    pool = staticmethod(futures.ThreadPoolExecutor)
    sleep = staticmethod(time.sleep)
    wait = staticmethod(futures.wait)

    @staticmethod
    def start(function: Callable[[], object], name: str) -> Thread:
        thread = threading.Thread(target=function, name=name, daemon=True)
        thread.start()
        return thread


_world: Any = RealWorld


def install(world: Any) -> None:
    """Take time and threads from `world` from now on. Objects that were made before stay what they are."""
    global _world
    _world = world


def monotonic() -> float:
    """Seconds on a clock that never goes back; only differences mean anything."""
    return _world.monotonic()  # type: ignore[no-any-return]


def now() -> float:
    """Seconds since the epoch by this machine's clock, which may be wrong."""
    return _world.now()  # type: ignore[no-any-return]


def sleep(seconds: float) -> None:
    _world.sleep(seconds)


def start(function: Callable[[], object], name: str) -> Thread:
    """Run `function` in a new thread, which does not keep the process alive."""
    return _world.start(function, name)  # type: ignore[no-any-return]


def pool(threads: int, name: str) -> Pool:
    """A pool of threads. The process ends only after the calls that have begun."""
    return _world.pool(threads, name)  # type: ignore[no-any-return]


class Waited(NamedTuple):
    done: set[Future[Any]]
    # Those that have not ended.
    left: set[Future[Any]]


def wait(
    pending: Iterable[Future[Any]], timeout: float | None = None, return_when: str = futures.ALL_COMPLETED
) -> Waited:
    """Block until futures have ended, for at most `timeout` seconds."""
    return Waited(*_world.wait(pending, timeout, return_when))


def condition() -> Condition:
    return _world.condition()  # type: ignore[no-any-return]


def event() -> Event:
    return _world.event()  # type: ignore[no-any-return]


def future() -> Future[Any]:
    return _world.future()  # type: ignore[no-any-return]


def lock() -> Lock:
    return _world.lock()  # type: ignore[no-any-return]
