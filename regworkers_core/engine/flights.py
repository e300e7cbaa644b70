"""Single flight: of all who ask for the same thing at once, one call is made, and all get what it brought."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Generic, TypeVar

T = TypeVar("T")


class NoAnswer(Exception):
    """The call did not end in time; it goes on without those who waited."""


class Flights(Generic[T]):
    """Calls by key, in threads of their own: a slow one holds nobody longer than they care to wait, and at most
    `threads` calls are made at once. The process ends once those in flight have ended.
    """

    def __init__(self, name: str, *, threads: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._clock = clock
        self._lock = threading.Lock()
        self._flying: dict[Hashable, Future[T]] = {}

    def start(self, key: Hashable, call: Callable[[], T]) -> tuple[Future[T], bool]:
        """The flight of `key` and whether this call started it, in a copy of the caller's context."""
        context = copy_context()
        with self._lock:
            flight = self._flying.get(key)
            if flight is not None:
                return flight, False
            flight = self._flying[key] = self._pool.submit(context.run, self._fly, key, call)
            return flight, True

    def ask(self, key: Hashable, call: Callable[[], T], *, wait_seconds: float) -> T:
        """What `call` returns or raises; NoAnswer after `wait_seconds`.

        Whoever joined a flight that failed asks once more: it began before they did, and what was wrong may be
        over.
        """
        give_up = self._clock() + wait_seconds
        flight, started = self.start(key, call)
        try:
            return self._outcome(flight, give_up)
        except NoAnswer:
            raise
        except Exception:
            if started:
                raise
        flight, _ = self.start(key, call)
        return self._outcome(flight, give_up)

    def _outcome(self, flight: Future[T], give_up: float) -> T:
        try:
            return flight.result(max(0.0, give_up - self._clock()))
        except TimeoutError:
            if flight.done():
                raise
            raise NoAnswer from None

    def _fly(self, key: Hashable, call: Callable[[], T]) -> T:
        try:
            return call()
        finally:
            # Before the outcome is out: who comes now asks anew.
            with self._lock:
                del self._flying[key]
