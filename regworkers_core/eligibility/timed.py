"""Calls that are given up at a deadline: a fact that is late is missing."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import TypeVar

import structlog

from regworkers_core.domain.eligibility import Missing
from regworkers_core.domain.reasons import Failure, TransientFailure, UsageError
from regworkers_core.engine.deadline import CallPool
from regworkers_core.observability.logs import describe

T = TypeVar("T")
log = structlog.get_logger(__name__)


class TimedCalls:
    """Calls to one dependency, at most `threads` at once; the others queue, and give up when their time is over.

    One pool a dependency, so that a slow one delays nobody else.
    """

    def __init__(self, dependency: str, threads: int) -> None:
        self.dependency = dependency
        self._pool = CallPool(dependency, threads)
        self._reported: set[str] = set()

    def start(self, function: Callable[[], T]) -> Future[T]:
        """Begin, in the caller's context (correlation, trace). Does not block."""
        return self._pool.submit(function)

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
        """A failure that waiting does not repair: logged once, not with every check."""
        if error not in self._reported:
            self._reported.add(error)
            log.warning("a fact is missing", dependency=self.dependency, error=error)
        return Missing(self.dependency, error)
