"""Calls that are waited for so long and no longer: what is late is missing.

Threads of our own, because those of the standard library's pool are waited for when the process ends.
"""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

import structlog

from regworkers_core.domain.eligibility import Missing
from regworkers_core.domain.reasons import Failure, TransientFailure, UsageError
from regworkers_core.observability.logs import describe

T = TypeVar("T")
log = structlog.get_logger(__name__)


class TimedCalls:
    """Calls to one dependency, at most `threads` at once; the others queue, and give up when their time is over.

    One pool a dependency, so that a slow one delays nobody else.
    """

    def __init__(self, dependency: str, threads: int) -> None:
        self.dependency = dependency
        self._most = threads
        self._lock = threading.Lock()
        self._started = 0
        self._idle = 0
        self._told: set[str] = set()
        self._calls: queue.SimpleQueue[tuple[Future[Any], contextvars.Context, Callable[[], Any]]]
        self._calls = queue.SimpleQueue()

    def start(self, function: Callable[[], T]) -> Future[T]:
        """Begin; the context (correlation, trace) is the caller's."""
        future: Future[T] = Future()
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif self._started < self._most:
                self._started += 1
                name = f"{self.dependency}-{self._started}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
        self._calls.put((future, contextvars.copy_context(), function))
        return future

    def result(self, future: Future[T], deadline: float) -> T | Missing:
        """What it gave by `deadline` (monotonic seconds), else Missing; never raises for a dependency."""
        found = self.here(lambda: future.result(timeout=max(0.0, deadline - time.monotonic())))
        if isinstance(found, Missing):
            future.cancel()
        return found

    def here(self, function: Callable[[], T]) -> T | Missing:
        """A call in the caller's own thread, for one that bounds its own time: to hand it to another thread and
        back costs more than a check's rules.
        """
        try:
            return function()
        except (TimeoutError, CancelledError):
            return Missing(self.dependency, "too late")
        except TransientFailure as failure:
            return Missing(failure.dependency, failure.error)
        except (Failure, UsageError) as failure:
            return self._missing(str(failure))
        except Exception as error:
            # Without the driver's text, which may print a fan's data.
            return self._missing(describe(error))

    def _missing(self, error: str) -> Missing:
        """Of what waiting does not mend: told once, not with every check."""
        if error not in self._told:
            self._told.add(error)
            log.warning("a fact is missing", dependency=self.dependency, error=error)
        return Missing(self.dependency, error)

    def _work(self) -> None:
        while True:
            future, context, function = self._calls.get()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(context.run(function))
                except BaseException as error:
                    future.set_exception(error)
            # What it held must not outlive it.
            del future, context, function
            with self._lock:
                self._idle += 1
