"""The one retry policy: what is tried again, how often, how long, and what the breaker makes of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairdraw import scheduling
from regworkers_core.domain.reasons import (
    DependencyDown,
    PermanentFailure,
    Reason,
    TransientFailure,
    UsageError,
)
from regworkers_core.engine.dependency import (
    PART_ATTEMPTS,
    CircuitBreaker,
    Dependency,
    RetryPolicy,
    apart,
    retry_parts,
)
from tests.support.waiting import Clock, wait_until

QUICK = RetryPolicy(attempts=4, total_seconds=5, first_cap_seconds=0, last_cap_seconds=0)


def classify(error: Exception) -> Exception:
    return TransientFailure("fake", type(error).__name__) if isinstance(error, OSError) else error


def dependency(policy: RetryPolicy = QUICK, failures: int = 3, clock: Clock | None = None) -> Dependency:
    breaker = CircuitBreaker("fake", failures=failures, reset_seconds=15, clock=clock or Clock())
    return Dependency("fake", classify, policy=policy, breaker=breaker, clock=clock or time.monotonic)


class Service:
    """Raises its `errors` one after the other, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self._errors:
            raise self._errors.pop(0)
        return "answer"


@given(st.integers(1, 100), st.floats(0, 1), st.floats(0, 10), st.floats(0, 100))
def test_the_backoff_is_a_full_jitter_under_a_growing_cap(
    attempt: int, draw: float, first: float, last: float
) -> None:
    policy = RetryPolicy(first_cap_seconds=first, last_cap_seconds=last)
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return low + draw * (high - low)

    seconds = policy.backoff(attempt, uniform)
    assert asked == [(0.0, min(last, first * 2 ** min(attempt - 1, 30)))]
    assert 0 <= seconds <= last


def test_real_draws_fill_the_whole_range() -> None:
    draws = [RetryPolicy(first_cap_seconds=1, last_cap_seconds=4).backoff(3) for _ in range(2000)]
    assert min(draws) < 0.4 and max(draws) > 3.6 and max(draws) <= 4
    assert 1.8 < sum(draws) / len(draws) < 2.2


def test_a_transient_failure_is_tried_again_until_it_answers() -> None:
    service = Service(OSError(), OSError())
    made = dependency()
    assert made.call(service) == "answer"
    assert (service.calls, made.calls, made.breaker.is_open) == (3, 3, False)


def test_attempts_are_capped() -> None:
    service = Service(*[OSError() for _ in range(10)])
    with pytest.raises(TransientFailure) as caught:
        dependency().call(service)
    assert service.calls == 4
    assert (caught.value.dependency, caught.value.error) == ("fake", "OSError")


def test_each_wait_is_longer_than_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(RetryPolicy, "backoff", lambda _policy, attempt: float(attempt))
    monkeypatch.setattr(scheduling, "sleep", waits.append)
    with pytest.raises(TransientFailure):
        dependency().call(Service(*[OSError() for _ in range(10)]))
    assert waits == [1.0, 2.0, 3.0]


def test_time_is_capped_although_attempts_are_left() -> None:
    policy = RetryPolicy(
        attempts=100_000, total_seconds=0.05, first_cap_seconds=0.002, last_cap_seconds=0.002
    )
    service = Service(*[OSError() for _ in range(100_000)])
    with pytest.raises(TransientFailure):
        dependency(policy).call(service)
    assert 1 < service.calls < 10_000


def test_the_first_attempt_counts_in_the_time_that_all_of_them_have() -> None:
    policy = RetryPolicy(attempts=4, total_seconds=0.02, first_cap_seconds=0, last_cap_seconds=0)
    service = Service(*[OSError() for _ in range(4)])

    def slow() -> str:
        over = time.monotonic() + 0.02
        wait_until(lambda: time.monotonic() >= over)
        return service()

    with pytest.raises(TransientFailure):
        dependency(policy).call(slow)
    assert service.calls == 1


def test_what_ends_the_process_is_neither_an_answer_nor_a_failure() -> None:
    clock = Clock()
    made = dependency(failures=1, clock=clock)

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(TransientFailure):
        made.once(Service(*[OSError() for _ in range(4)]))
    assert made.breaker.is_open
    clock.now += 15
    with pytest.raises(KeyboardInterrupt):
        made.call(interrupted)
    assert made.breaker.is_open


def test_a_call_that_must_not_be_repeated_is_made_once() -> None:
    service = Service(OSError())
    with pytest.raises(TransientFailure):
        dependency().once(service)
    assert service.calls == 1


def test_a_wait_that_the_dependency_asks_for_is_kept_up_to_the_cap() -> None:
    policy = RetryPolicy(attempts=4, total_seconds=5, first_cap_seconds=0, last_cap_seconds=0.1)

    def busy(seconds: float) -> Service:
        return Service(TransientFailure("fake", "busy", retry_after_seconds=seconds))

    short, long = busy(0.1), busy(0.2)
    started = time.monotonic()
    assert dependency(policy).call(short) == "answer"
    assert time.monotonic() - started >= 0.1
    with pytest.raises(TransientFailure):
        dependency(policy).call(long)
    assert (short.calls, long.calls) == (2, 1)


def test_no_attempt_begins_after_the_time_that_the_caller_gives() -> None:
    clock = Clock()
    service = Service(*[OSError() for _ in range(10)])

    def slow() -> str:
        clock.now += 1.0
        return service()

    with pytest.raises(TransientFailure):
        dependency(clock=clock).within(2.5, slow)
    assert service.calls == 3
    with pytest.raises(TransientFailure):
        dependency(clock=clock).call(slow)
    assert service.calls == 7, "without one the policy alone decides"


def test_what_is_not_transient_is_not_tried_again_and_comes_out_as_it_is() -> None:
    refused = ValueError("the item's fault")
    service = Service(refused)
    with pytest.raises(ValueError) as caught:
        dependency().call(service)
    assert caught.value is refused and service.calls == 1


def test_a_permanent_failure_after_a_transient_one_ends_the_attempts() -> None:
    service = Service(OSError(), PermanentFailure(Reason.INVALID_ENTRY, "no"))
    with pytest.raises(PermanentFailure):
        dependency().call(service)
    assert service.calls == 2


def test_the_breaker_opens_after_a_number_of_failed_calls_and_then_nothing_is_asked() -> None:
    made = dependency(failures=2)
    for _ in range(2):
        with pytest.raises(TransientFailure):
            made.call(Service(*[OSError() for _ in range(4)]))
    service = Service()
    with pytest.raises(DependencyDown):
        made.call(service)
    assert made.breaker.is_open and service.calls == 0


def test_an_answer_that_refuses_the_item_keeps_the_breaker_closed_and_closes_it_after_a_probe() -> None:
    clock = Clock()
    made = dependency(failures=1, clock=clock)
    for _ in range(5):
        with pytest.raises(ValueError):
            made.call(Service(ValueError()))
    assert not made.breaker.is_open
    with pytest.raises(TransientFailure):
        made.call(Service(*[OSError() for _ in range(4)]))
    assert made.breaker.is_open
    clock.now += 15
    with pytest.raises(ValueError):
        made.call(Service(ValueError()))
    assert not made.breaker.is_open


def test_a_slow_call_does_not_hold_up_the_others() -> None:
    made = dependency()
    inside, leave = threading.Event(), threading.Event()

    def slow() -> None:
        inside.set()
        assert leave.wait(10)

    thread = threading.Thread(target=lambda: made.call(slow))
    thread.start()
    assert inside.wait(10)
    assert made.call(Service()) == "answer"
    leave.set()
    thread.join()


# Parts of a batch that was answered


def refused(made: Dependency, clock: Clock, calls: int, *, parts: int = 25, seconds: float = 1.0) -> None:
    for _ in range(calls):
        made.note_parts(served=0, throttled=parts)
        clock.now += seconds


def test_refused_parts_are_counted_and_open_the_breaker_once_nothing_gets_through() -> None:
    clock = Clock()
    made = dependency(clock=clock)
    refused(made, clock, 5)
    assert made.throttles == 125 and not made.breaker.is_open, "not in the first seconds"
    refused(made, clock, 1)
    assert made.throttles == 150 and made.breaker.is_open


def test_few_refused_parts_tell_nothing_however_long_they_take() -> None:
    clock = Clock()
    made = dependency(clock=clock)
    refused(made, clock, 99, parts=1, seconds=60)
    assert not made.breaker.is_open
    refused(made, clock, 1, parts=1)
    assert made.breaker.is_open


@pytest.mark.parametrize("parts", [{"served": 1, "throttled": 24}, {"served": 25, "throttled": 0}])
def test_one_part_that_gets_through_starts_the_count_from_zero(parts: dict[str, int]) -> None:
    clock = Clock()
    made = dependency(clock=clock)
    for _ in range(50):
        refused(made, clock, 3)
        made.note_parts(**parts)
    assert not made.breaker.is_open


def test_a_refusal_says_which_dependency_it_is_from() -> None:
    guard = Dependency("fake", lambda _: UsageError("access denied"), policy=QUICK)
    with pytest.raises(UsageError, match="access denied") as raised:
        guard.call(Service(OSError()))
    assert raised.value.dependency == "fake"


# What it knows of its latest attempts


def test_a_refusal_by_load_or_by_rights_is_no_answer_and_any_other_error_is_one() -> None:
    clock = Clock()
    made = dependency(clock=clock)
    with pytest.raises(ValueError):
        made.once(Service(ValueError()))
    assert not made.failing and made.answered_at == clock.now
    clock.now += 7.0
    for error in (OSError(), UsageError("access refused")):
        with pytest.raises((TransientFailure, UsageError)):
            made.once(Service(error))
        assert made.failing and (made.answered_at, made.failed_at) == (clock.now - 7.0, clock.now)
        assert made.seconds_since_call == 0.0
    made.once(Service())
    assert not made.failing and made.answered_at == clock.now


def test_a_call_apart_is_one_attempt_that_no_breaker_refuses_or_counts() -> None:
    clock = Clock()
    made = dependency(failures=2, clock=clock)
    with apart():
        for _ in range(5):
            service = Service(*[OSError()] * 9)
            with pytest.raises(TransientFailure):
                made.call(service)
            assert service.calls == 1
    assert not made.breaker.is_open
    for _ in range(2):
        with pytest.raises(TransientFailure):
            made.once(Service(OSError()))
    assert made.breaker.is_open
    with apart():
        assert made.call(Service()) == "answer"
    assert made.breaker.is_open, "what only asks leaves the breaker to the work"


POLICY = RetryPolicy(first_cap_seconds=1.0, last_cap_seconds=4.0)


class Partly:
    """Does `does` of what it is asked for, and then the next number."""

    def __init__(self, *does: int) -> None:
        self._does = list(does)
        self.asked: list[int] = []
        self.slept: list[float] = []

    def __call__(self, pending: Sequence[int]) -> Sequence[int]:
        self.asked.append(len(pending))
        return pending[self._does.pop(0) if self._does else 0 :]


def left_of(count: int, partly: Partly, *, whole: bool = False) -> int:
    return len(retry_parts(range(count), partly, POLICY, partly.slept.append, whole=whole))


def test_only_what_is_left_is_asked_for_again_after_a_wait_each_time() -> None:
    partly = Partly(4, 3, 3)
    assert left_of(10, partly) == 0
    assert partly.asked == [10, 6, 3] and len(partly.slept) == 2


def test_nothing_to_ask_for_is_nothing_asked() -> None:
    partly = Partly()
    assert left_of(0, partly) == 0 and partly.asked == []


def test_a_part_is_asked_for_so_often_however_many_others_got_done() -> None:
    partly = Partly(*[1] * 14)
    assert left_of(20, partly) == 6
    assert len(partly.asked) == PART_ATTEMPTS and len(partly.slept) == PART_ATTEMPTS - 1


def test_each_wait_for_a_part_is_longer_than_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryPolicy, "backoff", lambda _policy, attempt: float(attempt))
    partly = Partly()
    left_of(3, partly)
    assert partly.slept == [float(number) for number in range(1, PART_ATTEMPTS)]


def test_what_is_worth_nothing_without_the_rest_is_asked_for_as_long_as_it_gets_on() -> None:
    partly = Partly(*[1] * 30)
    assert left_of(30, partly, whole=True) == 0
    stuck = Partly(*[1] * 30)
    assert left_of(31, stuck, whole=True) == 1
    assert len(stuck.asked) == 30 + PART_ATTEMPTS


def test_no_wait_goes_beyond_the_end() -> None:
    clock, asked, slept = Clock(), list[int](), list[float]()

    def ask(pending: Sequence[int]) -> Sequence[int]:
        asked.append(len(pending))
        clock.now += 5.0
        return pending

    left = retry_parts([1], ask, POLICY, slept.append, end=clock.now + 12.0, monotonic=clock)
    assert left == [1] and len(asked) in (2, 3) and len(slept) == len(asked) - 1
