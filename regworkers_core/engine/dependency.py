"""How every call to a dependency is made: the one retry policy, behind the dependency's circuit breaker."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

import stamina
import stamina.instrumentation
import structlog

from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.breaker import CircuitBreaker

P = ParamSpec("P")
T = TypeVar("T")
log = structlog.get_logger(__name__)
# What waits on purpose (a long poll) is given more.
SLOW_SECONDS = 2.0
# Parts of batches that are refused in a row, over so long, before nothing at all is believed to get through. Where nine
# in ten are refused, that many in a row come once in forty thousand times; a part is repeated for about twice the time.
_REFUSED_IN_A_ROW = 100
_REFUSED_SECONDS = 5.0

# The library's own retry log prints the exception, and a driver's exception may print a document.
stamina.instrumentation.set_on_retry_hooks([])


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Full jitter (a uniform draw between 0 and an exponentially growing cap), bounded in count and time."""

    attempts: int = 4
    total_seconds: float = 10.0
    first_cap_seconds: float = 0.1
    last_cap_seconds: float = 2.0

    def backoff(self, attempt: int, uniform: Callable[[float, float], float] = random.uniform) -> float:
        """Seconds to wait after failed attempt number `attempt`, counted from 1."""
        return uniform(0.0, min(self.last_cap_seconds, self.first_cap_seconds * 2 ** min(attempt - 1, 30)))


# Maps a driver's exception to what it means; an exception that it does not know is returned as it is.
Classify = Callable[[Exception], Exception]


class Dependency:
    """One dependency, by name. `call` retries transient failures and trips the breaker when they persist.

    `classify` turns the driver's exceptions into TransientFailure, PermanentFailure or ItemFailure. `calls`,
    `seconds`, `retries` and `throttles` add up over its life: attempts, the time within them, those that repeated one,
    and those that it refused because it was asked too much. An attempt above `slow_seconds` is logged.
    `before_attempt` gets the name; what it raises ends the attempt as if the dependency had raised it.
    """

    def __init__(
        self,
        name: str,
        classify: Classify,
        *,
        policy: RetryPolicy,
        breaker: CircuitBreaker | None = None,
        clock: Callable[[], float] = time.monotonic,
        slow_seconds: float = SLOW_SECONDS,
        before_attempt: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self._before_attempt = before_attempt
        self._slow_seconds = slow_seconds
        self._classify = classify
        self.policy = policy
        self._clock = clock
        self.breaker = breaker or CircuitBreaker(name, failures=3, reset_seconds=15.0, clock=clock)
        self.calls = 0
        self.seconds = 0.0
        self.retries = 0
        self.throttles = 0
        self._parts = threading.Lock()
        self._refused_in_a_row = 0
        self._refused_since = 0.0

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return `function(*args, **kwargs)`, retried by the policy. The arguments are evaluated once, so a cursor is
        no argument: `function` opens it.

        Raises DependencyDown at once while the breaker is open, TransientFailure when the policy is used up, and
        whatever else `classify` makes of the driver's exception. A wait that the dependency asks for is kept, but one
        above the policy's cap is not waited for: the call ends.
        """
        return self._guarded(partial(function, *args, **kwargs), retry=True, within_seconds=None)

    def once(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """As `call`, without a retry."""
        return self._guarded(partial(function, *args, **kwargs), retry=False, within_seconds=None)

    def within(
        self, seconds: float | None, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """As `call`, but no attempt begins after `seconds`; `function` bounds how long one takes."""
        return self._guarded(partial(function, *args, **kwargs), retry=True, within_seconds=seconds)

    def _guarded(self, function: Callable[[], T], *, retry: bool, within_seconds: float | None) -> T:
        self.breaker.before_call()
        began = time.monotonic()
        last_start = math.inf if within_seconds is None else self._clock() + within_seconds
        first: TransientFailure | None = None
        try:
            try:
                # Outside of the retry library, which costs ten times as much as the rest of a call that goes well.
                result = self._once(function)
            except TransientFailure as failure:
                if not retry:
                    raise
                first = failure
            if first is not None:
                result = self._again(function, first, began, last_start)
        except TransientFailure:
            self.breaker.failed()
            raise
        except Exception:
            # The dependency answered; what it said is the caller's business.
            self.breaker.succeeded()
            raise
        self.breaker.succeeded()
        return result

    def note_parts(self, *, served: int, throttled: int) -> None:
        """Of the parts of a batch that it answered: how many it did, and for how many it was asked too much.

        Single refusals are what the caller repeats. The breaker opens once nothing gets through any more.
        """
        if not throttled and not self._refused_in_a_row:
            return
        with self._parts:
            self.throttles += throttled
            if served or not throttled:
                self._refused_in_a_row = 0
                return
            if not self._refused_in_a_row:
                self._refused_since = self._clock()
            self._refused_in_a_row += throttled
            refused_seconds = self._clock() - self._refused_since
            if self._refused_in_a_row < _REFUSED_IN_A_ROW or refused_seconds < _REFUSED_SECONDS:
                return
            self._refused_in_a_row = 0
        self.breaker.trip()

    def _again(
        self, function: Callable[[], T], first: TransientFailure, began: float, last_start: float
    ) -> T:
        """The attempts that the policy leaves after one that began at `began` (monotonic seconds) and failed with
        `first`. It is the first attempt of the retry library too, so that count, time and waits include it.
        """
        failures = 0
        made: TransientFailure | None = first

        def transient(error: Exception) -> bool | float:
            nonlocal failures
            failures += 1
            if not isinstance(error, TransientFailure):
                return False
            asked = error.retry_after_seconds or 0.0
            wait = max(asked, self.policy.backoff(failures))
            in_time = asked <= self.policy.last_cap_seconds and self._clock() + wait <= last_start
            return wait if in_time else False

        left_seconds = self.policy.total_seconds - (time.monotonic() - began)
        for attempt in stamina.retry_context(
            on=transient, attempts=self.policy.attempts, timeout=left_seconds
        ):
            with attempt:
                if made is not None:
                    failure, made = made, None
                    raise failure
                self.retries += 1
                result = self._once(function)
        return result

    def _once(self, function: Callable[[], T]) -> T:
        self.calls += 1
        began = time.perf_counter()
        try:
            if self._before_attempt is not None:
                self._before_attempt(self.name)
            return function()
        except Exception as error:
            meaning = self._classify(error)
            if isinstance(meaning, TransientFailure) and meaning.throttled:
                self.throttles += 1
            if meaning is error:
                raise
            raise meaning from error
        finally:
            seconds = time.perf_counter() - began
            self.seconds += seconds
            if seconds >= self._slow_seconds:
                log.warning("slow call", dependency=self.name, durationMs=round(seconds * 1000))
