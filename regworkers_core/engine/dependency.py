"""How every call to a dependency is made: one retry policy behind one circuit breaker; and rate limits."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

import structlog

from fairdraw import scheduling
from regworkers_core.domain.reasons import DependencyDown, TransientFailure, UsageError
from regworkers_core.engine.deadline import step

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")
log = structlog.get_logger(__name__)
# Calls that wait on purpose have a higher limit (`waits`).
SLOW_SECONDS = 2.0
# Refused parts in a row, and for how long, before the breaker opens. Where nine in ten are refused, this many in a row
# occur once in forty thousand times; a part is repeated for about twice this time.
_REFUSED_IN_A_ROW = 100
_REFUSED_SECONDS = 5.0
# Attempts for one part of a batch. Where four in five are refused, 35 parts in a thousand are left after these. The
# waits add up to about 11 s, which is less than the visibility time of a message.
PART_ATTEMPTS = 15


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Full jitter (a uniform draw between 0 and an exponentially growing cap), bounded in count and time."""

    attempts: int = 4
    total_seconds: float = 10.0  # no attempt begins later than this after the first
    first_cap_seconds: float = 0.1  # the longest pause before the second attempt; it doubles with each one
    last_cap_seconds: float = 2.0  # the longest pause before any attempt

    def backoff(self, attempt: int, uniform: Callable[[float, float], float] = random.uniform) -> float:
        """Seconds to wait after failed attempt number `attempt`, counted from 1."""
        return uniform(0.0, min(self.last_cap_seconds, self.first_cap_seconds * 2 ** min(attempt - 1, 30)))


# How long work that was given back rests, by the number of its failures: a message stays hidden, a stream's records are
# not sent again. These waits are for short problems: a dependency that stays unavailable opens its breaker.
REDELIVERY = RetryPolicy(first_cap_seconds=2.0, last_cap_seconds=30.0)
RESEND = RetryPolicy(first_cap_seconds=0.5, last_cap_seconds=10.0)


class CircuitBreaker:
    """Closed until `failures` calls in a row failed, then open for `reset_seconds`; after that one call probes.

    Not a library's, because those hold a lock around the guarded call: threads would queue behind one slow call.
    """

    def __init__(
        self, dependency: str, *, failures: int, reset_seconds: float, clock: Callable[[], float]
    ) -> None:
        self.dependency = dependency
        self._limit = failures
        self._reset_seconds = reset_seconds
        self._clock = clock
        self._lock = scheduling.lock()
        self._failed_in_a_row = 0
        self._retry_at: float | None = None
        self._tripped = False

    @property
    def is_open(self) -> bool:
        """Whether calls are refused, or only a probe is let through."""
        return self._retry_at is not None

    def before_call(self) -> None:
        """Raises DependencyDown while open. After the reset time it lets exactly one caller probe."""
        # It is nearly always closed, which needs no lock.
        if self._retry_at is None:
            return
        with self._lock:
            if self._retry_at is None:
                return
            now = self._clock()
            if now < self._retry_at:
                raise DependencyDown(self.dependency, "the circuit is open after repeated failures")
            self._retry_at, self._tripped = now + self._reset_seconds, False

    def succeeded(self) -> None:
        if self._retry_at is None and not self._failed_in_a_row:
            return
        with self._lock:
            if not self._tripped:
                self._failed_in_a_row, self._retry_at = 0, None

    def failed(self) -> None:
        with self._lock:
            self._failed_in_a_row += 1
            if self._failed_in_a_row >= self._limit:
                self._retry_at = self._clock() + self._reset_seconds

    def trip(self) -> None:
        """Open at once, for a caller that counts refusals itself. Calls succeed meanwhile as far as they can see, so
        only a success after the reset time closes it.
        """
        with self._lock:
            self._retry_at, self._tripped = self._clock() + self._reset_seconds, True


_apart: ContextVar[bool] = ContextVar("apart", default=False)


@contextmanager
def apart() -> Iterator[None]:
    """Inside, a call is one attempt beside its breaker, which neither refuses nor counts it: what only asks whether a
    dependency answers must not hold up the work.
    """
    token = _apart.set(True)
    try:
        yield
    finally:
        _apart.reset(token)


_on_purpose: ContextVar[float] = ContextVar("on purpose", default=0.0)


@contextmanager
def waits(seconds: float) -> Iterator[None]:
    """Inside, an attempt takes that much longer on purpose: a long poll of a queue without messages is not slow."""
    token = _on_purpose.set(seconds)
    try:
        yield
    finally:
        _on_purpose.reset(token)


# Maps a driver's exception to what it means; an unknown exception is returned as it is.
Classify = Callable[[Exception], Exception]


class Dependency:
    """One dependency, by name. `call` retries transient failures and trips the breaker when they persist.

    `classify` turns the driver's exceptions into TransientFailure, PermanentFailure or ItemFailure. `calls`, `seconds`,
    `retries` and `throttles` are totals: attempts, time within them, repeated attempts, and requests that the
    dependency refused because of its load. `answered_at`, `failed_at` (on the clock) and `failing` say how the latest
    attempts ended. An attempt above `slow_seconds` is logged. `before_attempt` gets the name;
    an exception from it counts as the dependency's.
    """

    def __init__(
        self,
        name: str,
        classify: Classify,
        *,
        policy: RetryPolicy,
        breaker: CircuitBreaker | None = None,
        clock: Callable[[], float] = scheduling.monotonic,
        slow_seconds: float = SLOW_SECONDS,
        before_attempt: Callable[[str], None] | None = None,
    ) -> None:
        self.name = name
        self.policy = policy
        self.breaker = breaker or CircuitBreaker(name, failures=3, reset_seconds=15.0, clock=clock)
        self._classify, self._clock = classify, clock
        self._slow_seconds, self._before_attempt = slow_seconds, before_attempt
        self.calls = self.retries = self.throttles = 0
        self.seconds = 0.0
        self.answered_at = self._called_at = clock()
        self.failed_at, self.failing = -math.inf, False
        self._parts = scheduling.lock()
        self._refused_in_a_row = 0
        self._refused_since = 0.0

    @property
    def seconds_since_call(self) -> float:
        """Since the last attempt ended."""
        return self._clock() - self._called_at

    def call(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Return `function(*args, **kwargs)`, retried by the policy. Blocks for the attempts and the waits between.

        Raises DependencyDown at once while the breaker is open, TransientFailure when the policy is used up, and
        whatever else `classify` makes of the driver's exception. If the dependency asks for a longer wait, that is
        kept; above the policy's cap the call ends instead. Arguments are evaluated once, so a cursor cannot be one:
        `function` opens it.
        """
        return self._guarded(partial(function, *args, **kwargs), retry=True, within_seconds=None)

    def once(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it as `call` does, without a retry."""
        return self._guarded(partial(function, *args, **kwargs), retry=False, within_seconds=None)

    def within(
        self, seconds: float | None, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call it as `call` does, but no attempt begins after `seconds`; `function` bounds how long one takes."""
        return self._guarded(partial(function, *args, **kwargs), retry=True, within_seconds=seconds)

    def _guarded(self, function: Callable[[], T], *, retry: bool, within_seconds: float | None) -> T:
        if _apart.get():
            return self._attempt(function)
        self.breaker.before_call()
        began = scheduling.monotonic()
        last_start = math.inf if within_seconds is None else self._clock() + within_seconds
        first: TransientFailure | None = None
        try:
            try:
                result = self._attempt(function)
            except TransientFailure as failure:
                if not retry:
                    raise
                first = failure
            if first is not None:
                result = self._retried(function, first, began, last_start)
        except TransientFailure:
            self.breaker.failed()
            raise
        except Exception:
            # The dependency answered; its answer is the caller's business.
            self.breaker.succeeded()
            raise
        self.breaker.succeeded()
        return result

    def _retried(
        self, function: Callable[[], T], failure: TransientFailure, began: float, last_start: float
    ) -> T:
        """The attempts that the policy leaves after one that began at `began` (monotonic seconds) and ended with
        `failure`.
        """
        # Ours, because a loop of tenacity, which passes the same tests, is a little longer: it needs functions of ours
        # for each wait (the dependency may ask for one) and each end (two limits, on a clock that a simulation lends).
        # It also takes 15 times as long around a call that succeeds.
        for failures in range(1, self.policy.attempts):
            asked = failure.retry_after_seconds or 0.0
            wait = max(asked, self.policy.backoff(failures))
            late = scheduling.monotonic() - began >= self.policy.total_seconds
            if late or asked > self.policy.last_cap_seconds or self._clock() + wait > last_start:
                break
            scheduling.sleep(wait)
            self.retries += 1
            try:
                return self._attempt(function)
            except TransientFailure as again:
                failure = again
        raise failure

    def _attempt(self, function: Callable[[], T]) -> T:
        self.calls += 1
        began = scheduling.monotonic()
        try:
            if self._before_attempt is not None:
                self._before_attempt(self.name)
            result = function()
        except Exception as error:
            meaning = self._classify(error)
            self._note(failed=isinstance(meaning, TransientFailure | UsageError))
            if isinstance(meaning, TransientFailure) and meaning.throttled:
                self.throttles += 1
            if isinstance(meaning, UsageError):
                meaning.dependency = meaning.dependency or self.name
            if meaning is error:
                raise
            raise meaning from error
        else:
            self._note(failed=False)
            return result
        finally:
            seconds = scheduling.monotonic() - began
            self.seconds += seconds
            if seconds >= self._slow_seconds + _on_purpose.get():
                log.warning("slow call", dependency=self.name, durationMs=round(seconds * 1000))

    def _note(self, *, failed: bool) -> None:
        """How an attempt ended. Any other failure is an answer, which is its caller's business."""
        self._called_at = now = self._clock()
        self.failing = failed
        if failed:
            self.failed_at = now
        else:
            self.answered_at = now
        step()

    def note_parts(self, *, served: int, throttled: int) -> None:
        """Count the parts of an answered batch: how many were done, how many were refused because of load.

        The caller repeats single refusals. The breaker opens once no part gets through any more.
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


def retry_parts(
    pending: Sequence[U],
    send: Callable[[Sequence[U]], Sequence[U]],
    policy: RetryPolicy,
    sleep: Callable[[float], object],
    *,
    whole: bool = False,
    end: float = math.inf,
    monotonic: Callable[[], float] = scheduling.monotonic,
) -> Sequence[U]:
    """`send` the parts of a batch, and again with backoff those that it returns as not done; return what is left.

    A loaded dependency answers a batch call and refuses some of its parts. Repeating the whole batch would load it
    further. Each part gets at most PART_ATTEMPTS; with `whole`, where the parts are useless without each other, only
    attempts that got nothing done count. No wait goes beyond `end`. Raises what `send` raises.
    """
    attempt = 0
    while pending:
        left = send(pending)
        attempt = 0 if whole and len(left) < len(pending) else attempt + 1
        pending = left
        if not left or attempt >= PART_ATTEMPTS:
            break
        wait = policy.backoff(max(1, attempt))
        if monotonic() + wait > end:
            break
        sleep(wait)
    return pending


class TokenBucket:
    """A rate limit shared by threads: `per_second` on average, up to `burst` (default: one second's worth) at once.

    A request above the burst passes after waiting for its share; those behind it wait longer.
    """

    def __init__(
        self,
        per_second: float,
        *,
        burst: float | None = None,
        clock: Callable[[], float] = scheduling.monotonic,
        sleep: Callable[[float], object] = scheduling.sleep,
    ) -> None:
        if per_second <= 0:
            raise ValueError(f"a rate must be above 0, got {per_second}")
        self._per_second = per_second
        self._burst = max(1.0, per_second) if burst is None else burst
        self._clock, self._sleep = clock, sleep
        self._lock = scheduling.lock()
        self._tokens, self._counted_at = self._burst, clock()

    def take(self, amount: float) -> bool:
        """Block until `amount` may pass; False when `sleep` was interrupted (`StopSignal.wait` returns True)."""
        with self._lock:
            now = self._clock()
            self._tokens = min(self._burst, self._tokens + (now - self._counted_at) * self._per_second)
            self._counted_at = now
            self._tokens -= amount
            seconds = -self._tokens / self._per_second
        return seconds <= 0 or not self._sleep(seconds)
