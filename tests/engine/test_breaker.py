"""The circuit breaker and the token bucket: when a call may be made, who may probe, when it closes."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regworkers_core.domain.reasons import DependencyDown
from regworkers_core.engine.dependency import CircuitBreaker, TokenBucket
from tests.support.waiting import Clock


def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker("mongo", failures=3, reset_seconds=15.0, clock=clock)


def opened(clock: Clock) -> CircuitBreaker:
    made = breaker(clock)
    for _ in range(3):
        made.failed()
    return made


def allowed(made: CircuitBreaker) -> bool:
    try:
        made.before_call()
    except DependencyDown as refused:
        assert refused.dependency == "mongo"
        return False
    return True


def test_it_opens_at_the_last_of_a_number_of_failures_in_a_row() -> None:
    made = breaker(Clock())
    for _ in range(2):
        made.failed()
        assert allowed(made) and not made.is_open
    made.failed()
    assert made.is_open and not allowed(made)


def test_a_success_in_between_starts_the_count_again() -> None:
    made = breaker(Clock())
    for _ in range(2):
        made.failed()
        made.failed()
        made.succeeded()
    made.failed()
    assert not made.is_open


def test_after_the_reset_time_one_call_probes_and_the_others_are_still_refused() -> None:
    clock = Clock()
    made = opened(clock)
    clock.now += 14.9
    assert not allowed(made)
    clock.now += 0.1
    assert [allowed(made) for _ in range(3)] == [True, False, False]


def test_of_many_threads_one_probes() -> None:
    clock = Clock()
    made = opened(clock)
    clock.now += 15
    start, through = threading.Barrier(16), []

    def probe() -> None:
        start.wait()
        if allowed(made):
            through.append(1)

    threads = [threading.Thread(target=probe) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert through == [1]


@pytest.mark.parametrize("answers", [True, False])
def test_the_probe_decides(answers: bool) -> None:
    clock = Clock()
    made = opened(clock)
    clock.now += 15
    assert allowed(made)
    if answers:
        made.succeeded()
        assert not made.is_open and allowed(made)
    else:
        made.failed()
        clock.now += 14.9
        assert made.is_open and not allowed(made)


def test_a_probe_that_never_came_back_is_followed_by_another() -> None:
    clock = Clock()
    made = opened(clock)
    clock.now += 15
    assert allowed(made)
    clock.now += 15
    assert allowed(made)


def test_one_that_a_caller_trips_stays_open_whatever_calls_under_way_bring() -> None:
    clock = Clock()
    made = breaker(clock)
    made.trip()
    made.succeeded()
    assert made.is_open and not allowed(made)
    clock.now += 15.0
    assert allowed(made)
    made.succeeded()
    assert not made.is_open and allowed(made)


@given(
    st.lists(st.tuples(st.integers(1, 50), st.floats(0, 5)), min_size=1, max_size=30),
    st.sampled_from([0.5, 3.0, 20.0]),
)
def test_never_more_passes_than_the_burst_and_the_rate_since_the_start(
    requests: list[tuple[int, float]], rate: float
) -> None:
    clock = Clock(100.0)
    bucket = TokenBucket(rate, burst=10, clock=clock, sleep=clock.sleep)
    passed = 0
    for amount, idle in requests:
        clock.now += idle
        assert bucket.take(amount)
        passed += amount
        assert passed <= 10 + rate * (clock.now - 100.0) + 1e-6


def test_a_steady_taker_gets_the_whole_rate() -> None:
    clock = Clock(100.0)
    bucket = TokenBucket(50.0, burst=1, clock=clock, sleep=clock.sleep)
    for _ in range(100):
        bucket.take(10)
    assert clock.now - 100.0 <= 1000 / 50.0


def test_an_interrupted_wait_lets_nothing_pass() -> None:
    clock = Clock(100.0)
    bucket = TokenBucket(1.0, burst=1, clock=clock, sleep=lambda _seconds: True)
    assert bucket.take(1)
    assert not bucket.take(1)
