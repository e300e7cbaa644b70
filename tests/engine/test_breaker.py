"""The circuit breaker: when it opens, who may probe, when it closes."""

from __future__ import annotations

import threading

import pytest

from regworkers_core.domain.reasons import DependencyDown
from regworkers_core.engine.dependency import CircuitBreaker
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
