"""Calls in threads of their own, callers that give up at a deadline, and whether the threads of a drain get on.

The threads are daemons and carry the caller's context (correlation id, trace). The standard library's pool waits for
its threads when the process ends, so one server that hangs would keep the process alive.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from fairdraw import scheduling

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class NoAnswer(Exception):
    """The call did not end in time. It continues without its caller."""


def run_in_thread(call: Callable[[], T], *, name: str) -> scheduling.Future[T]:
    """Run `call` in a new daemon thread. Does not block; the future has the result or the exception."""
    future: scheduling.Future[T] = scheduling.future()
    context = copy_context()
    scheduling.start(partial(_complete, future, context, call), name)
    return future


def gather(
    calls: Mapping[K, Callable[[], T]], *, within_seconds: float | None, name: str
) -> dict[K, T | Exception]:
    """Run all calls at once and return each result, or the exception that the call raised, in the order of `calls`.

    Each call has `within_seconds` (None: no limit) from its own start, so this blocks for at most twice that time on a
    machine that is slow to start threads. A call that is late has NoAnswer. Never raises.
    """
    began: dict[K, float] = {}

    def timed(key: K, call: Callable[[], T]) -> T:
        began[key] = scheduling.monotonic()
        return call()

    limit = math.inf if within_seconds is None else within_seconds
    last = scheduling.monotonic() + 2 * limit
    futures = {
        key: run_in_thread(partial(timed, key, call), name=f"{name} {key}") for key, call in calls.items()
    }
    found: dict[K, T | Exception] = {}
    for key, future in futures.items():
        while key not in found:
            start = began.get(key)
            give_up = min(last, (scheduling.monotonic() if start is None else start) + limit)
            try:
                found[key] = result_by(future, None if give_up == math.inf else give_up)
            except NoAnswer as late:
                # A call that had not begun may have begun while this waited.
                if start is not None or scheduling.monotonic() >= last:
                    found[key] = late
            except Exception as error:
                found[key] = error
    return found


def result_by(future: scheduling.Future[T], give_up: float | None) -> T:
    """The result of `future`. Blocks until `give_up` (monotonic; None: no limit), then raises NoAnswer. Raises what
    the call raised.
    """
    try:
        return future.result(None if give_up is None else max(0.0, give_up - scheduling.monotonic()))
    except TimeoutError:
        if future.done():
            raise
        raise NoAnswer from None


def _complete(future: scheduling.Future[T], context: Context, call: Callable[[], T]) -> None:
    if future.set_running_or_notify_cancel():
        try:
            future.set_result(context.run(call))
        except BaseException as error:
            future.set_exception(error)


class CallPool:
    """At most `threads` daemon threads that are reused; further calls queue. One pool per dependency, so that a slow
    one delays no other.
    """

    def __init__(self, name: str, threads: int) -> None:
        self._name, self._threads = name, threads
        self._changed = scheduling.condition()
        self._started = self._idle = 0
        self._calls: deque[tuple[scheduling.Future[Any], Context, Callable[[], Any]]] = deque()

    def submit(self, call: Callable[[], T]) -> scheduling.Future[T]:
        """Queue a call. Does not block. A future that is cancelled before its call begins is skipped."""
        future: scheduling.Future[T] = scheduling.future()
        with self._changed:
            self._calls.append((future, copy_context(), call))
            if self._idle:
                self._idle -= 1
                self._changed.notify()
            elif self._started < self._threads:
                self._started += 1
                scheduling.start(self._work, f"{self._name}-{self._started}")
        return future

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._calls)
                future, context, call = self._calls.popleft()
            _complete(future, context, call)
            # A result must not live until the next call.
            del future, context, call
            with self._changed:
                self._idle += 1


class Background:
    """Makes at most one call at a time for each key; its caller does not wait for it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = scheduling.lock()
        self._running: dict[Hashable, scheduling.Future[Any]] = {}

    def start(self, call: Callable[[], object], key: Hashable = "") -> bool:
        """Begin the call; False if the previous one of this key still runs. Does not block."""
        with self._lock:
            running = self._running.get(key)
            if running is not None and not running.done():
                return False
            self._running[key] = run_in_thread(call, name=f"{self._name} {key}".strip())
            return True

    def wait(self, seconds: float) -> None:
        """Block until no call runs, for at most `seconds`. Exceptions of the calls are dropped."""
        give_up = scheduling.monotonic() + seconds
        with self._lock:
            running = list(self._running.values())
        for future in running:
            try:
                result_by(future, give_up)
            except Exception:  # noqa: S112 (the call reports its own failure)
                continue


class Flight(NamedTuple, Generic[T]):
    call: scheduling.Future[T]
    started: bool  # by this caller


class SingleFlight(Generic[T]):
    """One of all callers that ask for the same key at the same time makes the call, and all get its result. At most
    `threads` calls run at once. The process ends only after those that have begun.
    """

    def __init__(self, name: str, *, threads: int) -> None:
        self._pool = scheduling.pool(threads, name)
        self._lock = scheduling.lock()
        self._flying: dict[Hashable, scheduling.Future[T]] = {}

    def start(self, key: Hashable, call: Callable[[], T]) -> Flight[T]:
        """The running call of `key`. Does not block."""
        context = copy_context()
        with self._lock:
            flight = self._flying.get(key)
            if flight is not None:
                return Flight(flight, False)
            flight = self._flying[key] = self._pool.submit(context.run, self._fly, key, call)
            return Flight(flight, True)

    def ask(self, key: Hashable, call: Callable[[], T], *, wait_seconds: float) -> T:
        """What `call` returns or raises. Blocks for at most `wait_seconds`, then raises NoAnswer.

        A caller that joined a call which failed asks once more: that call began earlier, and its cause may be over.
        """
        give_up = scheduling.monotonic() + wait_seconds
        flight, started = self.start(key, call)
        try:
            return result_by(flight, give_up)
        except NoAnswer:
            raise
        except Exception:
            if started:
                raise
        flight, _ = self.start(key, call)
        return result_by(flight, give_up)

    def _fly(self, key: Hashable, call: Callable[[], T]) -> T:
        try:
            return call()
        finally:
            # Before the result is out: a later caller makes a new call.
            with self._lock:
                del self._flying[key]


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
