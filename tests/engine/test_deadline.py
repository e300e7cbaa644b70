"""Of all who ask for the same thing at once one call is made, and none of them waits longer than they like."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar

import pytest

from fairdraw import scheduling
from regworkers_core.engine.deadline import NoAnswer, SingleFlight, gather
from tests.support.waiting import wait_until

CORRELATION: ContextVar[str] = ContextVar("correlation", default="none")


class Watched(SingleFlight[int]):
    """Counts who joined a flight that others had started."""

    def __init__(self, threads: int = 2) -> None:
        super().__init__("test", threads=threads)
        self.joined = 0

    def start(self, key: Hashable, call: Callable[[], int]) -> tuple[Future[int], bool]:
        flight, started = super().start(key, call)
        self.joined += not started
        return flight, started


class Call:
    """Waits for its gate; fails as often as reported, then returns the number of the call."""

    def __init__(self, failures: int = 0) -> None:
        self.gate = threading.Event()
        self.calls = 0
        self._failures = failures

    def __call__(self) -> int:
        self.calls += 1
        number = self.calls
        assert self.gate.wait(20)
        if number <= self._failures:
            raise ValueError(number)
        return number


def test_all_who_ask_while_it_flies_get_the_one_answer_and_the_next_asks_again() -> None:
    flights, call = Watched(), Call()
    with ThreadPoolExecutor(64) as pool:
        asked = [pool.submit(flights.ask, "key", call, wait_seconds=20) for _ in range(64)]
        wait_until(lambda: flights.joined == 63)
        call.gate.set()
        assert {each.result() for each in asked} == {1}
    assert call.calls == 1
    assert flights.ask("key", call, wait_seconds=20) == 2


def test_keys_fly_apart() -> None:
    flights, slow, quick = Watched(), Call(), Call()
    flights.start("slow", slow)
    quick.gate.set()
    assert flights.ask("quick", quick, wait_seconds=20) == 1
    slow.gate.set()


def test_who_joined_a_flight_that_failed_asks_once_more_and_who_started_it_is_reported() -> None:
    flights, call = Watched(), Call(failures=1)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(flights.ask, "key", call, wait_seconds=20)
        wait_until(lambda: call.calls == 1)
        second = pool.submit(flights.ask, "key", call, wait_seconds=20)
        wait_until(lambda: flights.joined == 1)
        call.gate.set()
        with pytest.raises(ValueError, match="1"):
            first.result()
        assert second.result() == 2


def test_a_second_failure_is_reported_to_all() -> None:
    flights, call = Watched(), Call(failures=9)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(flights.ask, "key", call, wait_seconds=20) for _ in range(8)]
        wait_until(lambda: flights.joined == 7)
        call.gate.set()
        assert all(isinstance(each.exception(), ValueError) for each in asked)


def test_no_one_waits_longer_than_they_like_and_the_call_goes_on_for_the_others() -> None:
    flights, call = Watched(), Call()
    with pytest.raises(NoAnswer):
        flights.ask("key", call, wait_seconds=0.01)
    flight, started = flights.start("key", call)
    assert not started
    call.gate.set()
    assert flight.result(20) == 1


def test_a_time_out_of_the_call_itself_is_its_own_failure() -> None:
    def late() -> int:
        raise TimeoutError("the call's own")

    with pytest.raises(TimeoutError, match="the call's own"):
        Watched().ask("key", late, wait_seconds=20)


def test_calls_run_in_the_context_of_who_started_them() -> None:
    seen: list[str] = []

    def call() -> int:
        seen.append(CORRELATION.get())
        return 1

    token = CORRELATION.set("abc")
    Watched().ask("key", call, wait_seconds=20)
    CORRELATION.reset(token)
    assert seen == ["abc"]


def test_the_time_of_a_call_runs_from_its_own_start(monkeypatch: pytest.MonkeyPatch) -> None:
    start, let_go = scheduling.start, threading.Event()

    def late(call: Callable[[], object], name: str) -> None:
        def begin() -> None:
            let_go.wait(0.3)
            call()

        start(begin, name)

    monkeypatch.setattr(scheduling, "start", late)
    assert gather({"a": lambda: 1}, within_seconds=0.2, name="test") == {"a": 1}
    hangs = gather({"a": threading.Event().wait}, within_seconds=0.2, name="test")
    assert isinstance(hangs["a"], NoAnswer)
