"""The scheduler: one thread at a time, in an order of the seed's, on virtual time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from fairdraw import scheduling
from regworkers_core.engine.deadline import CallPool, NoAnswer, SingleFlight
from regworkers_core.engine.stop import StopSignal
from tests.simulation.scheduler import Process, Scheduler, Stuck


@pytest.fixture
def scheduler() -> Iterator[Scheduler]:
    made = Scheduler(1)
    scheduling.install(made)
    yield made
    scheduling.install(scheduling.RealWorld)


def _play(seed: int, play: Callable[[list[str]], None]) -> list[str]:
    made, said = Scheduler(seed), list[str]()
    scheduling.install(made)
    try:
        made.run(lambda: play(said))
    finally:
        scheduling.install(scheduling.RealWorld)
    return said


def _three_threads(said: list[str]) -> None:
    lock = scheduling.lock()

    def work(name: str) -> None:
        for step in range(3):
            with lock:
                scheduling.sleep(0.0)
                said.append(f"{name}{step}")
            scheduling.sleep(0.0)

    for thread in [scheduling.start(lambda name=name: work(name), name) for name in "abc"]:
        thread.join()


def test_one_seed_makes_one_order_and_seeds_differ() -> None:
    orders = {tuple(_play(seed, _three_threads)) for seed in range(20)}
    assert len(orders) > 5
    assert _play(7, _three_threads) == _play(7, _three_threads)


def test_an_hour_of_waiting_takes_no_time(scheduler: Scheduler) -> None:
    began = time.monotonic()
    slept: list[float] = []

    def main() -> None:
        before = scheduling.monotonic(), scheduling.now()
        stop = StopSignal()
        assert not stop.wait(1800)
        scheduling.sleep(1800)
        slept.extend((scheduling.monotonic() - before[0], scheduling.now() - before[1]))

    scheduler.run(main)
    assert slept == [3600, 3600]
    assert time.monotonic() - began < 60


def test_the_threads_of_a_dead_process_do_nothing_more(scheduler: Scheduler) -> None:
    victim, did = Process("victim"), list[str]()

    def work() -> None:
        try:
            did.append("began")
            scheduling.sleep(10)
            did.append("went on")
        finally:
            scheduling.sleep(0)
            did.append("cleaned up")

    def main() -> None:
        scheduler.spawn(work, "work", victim)
        scheduling.sleep(5)
        scheduler.kill(victim)
        scheduling.sleep(10)

    scheduler.run(main)
    assert did == ["began"]


def test_a_frozen_process_goes_on_later(scheduler: Scheduler) -> None:
    frozen, at = Process("frozen"), list[float]()

    def work() -> None:
        scheduling.sleep(1)
        at.append(scheduling.monotonic())

    def main() -> None:
        begun = scheduling.monotonic()
        frozen.frozen_until = scheduler.time + 60
        scheduler.spawn(work, "work", frozen).join()
        assert at == [begun + 61]

    scheduler.run(main)


def test_a_skewed_clock_is_wrong_and_counts_seconds_rightly(scheduler: Scheduler) -> None:
    read: list[float] = []
    scheduler.run(
        lambda: scheduler.spawn(
            lambda: read.extend((scheduling.now(), scheduling.monotonic())), "clock", Process("late", -3600)
        ).join()
    )
    assert read[0] == scheduler.time - 3600
    assert read[1] == scheduler.monotonic()


def test_threads_that_wait_for_each_other_are_found(scheduler: Scheduler) -> None:
    one, two = scheduling.lock(), scheduling.lock()

    def cross(first: scheduling.Lock, second: scheduling.Lock) -> None:
        with first:
            scheduling.sleep(1)
            with second:
                pass

    def main() -> None:
        threads = [
            scheduling.start(lambda: cross(one, two), "ab"),
            scheduling.start(lambda: cross(two, one), "ba"),
        ]
        for thread in threads:
            thread.join()

    with pytest.raises(Stuck, match="ab"):
        scheduler.run(main)


def test_pools_futures_and_conditions_are_those_that_the_product_knows(scheduler: Scheduler) -> None:
    def main() -> None:
        began = scheduling.monotonic()
        with scheduling.pool(2, "pool") as pool:
            slow = [pool.submit(scheduling.sleep, 1) for _ in range(4)]
            done, left = scheduling.wait(slow, return_when=scheduling.FIRST_COMPLETED)
            assert done and left
            assert scheduling.wait(slow, 0.5)[1]
            broken = pool.submit(lambda: 1 // 0)
        assert scheduling.monotonic() - began == 2
        with pytest.raises(ZeroDivisionError):
            broken.result()
        calls = CallPool("calls", 1)
        assert [calls.submit(lambda number=number: number).result() for number in (1, 2)] == [1, 2]
        flight = SingleFlight[None]("flight", threads=1)
        with pytest.raises(NoAnswer):
            flight.ask("key", lambda: scheduling.sleep(10), wait_seconds=1)

    scheduler.run(main)


def test_an_exception_of_the_main_thread_is_raised(scheduler: Scheduler) -> None:
    with pytest.raises(ZeroDivisionError):
        scheduler.run(lambda: 1 // 0)
