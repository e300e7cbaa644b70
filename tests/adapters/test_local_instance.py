"""Whose server answers: the process that the stack started is trusted, any other one has to show the id."""

from __future__ import annotations

import itertools
import threading

import pytest
from confluent_kafka import KafkaException

from regworkers_core.adapters.local_instance import InstanceCheck, kafka_id
from regworkers_core.domain.reasons import TransientFailure
from tests.support.waiting import wait_until


class World:
    """A stack's state file, its process table, its server and a clock."""

    def __init__(self, carried: str | None) -> None:
        self.now, self.alive, self.carried = 0.0, True, carried
        self.asked = 0
        self.check = InstanceCheck(
            "mongo",
            lambda: {"id": "ours", "instance": "default", "pids": {"mongo": 7}, "started": {"mongo": 1.0}},
            self._read,
            alive=lambda pid, started: self.alive and (pid, started) == (7, 1.0),
            clock=lambda: self.now,
        )

    def _read(self) -> str | None:
        self.asked += 1
        return self.carried


def test_a_running_process_of_the_stack_gets_no_call() -> None:
    world = World("theirs")
    world.check("mongo")
    assert world.asked == 0


def test_a_process_that_the_stack_did_not_start_is_accepted_by_its_id() -> None:
    world = World("ours")
    world.alive = False
    world.check("mongo")
    assert world.asked == 1


@pytest.mark.parametrize("carried", ["theirs", None])
def test_a_server_with_another_id_or_none_is_refused_each_time(carried: str | None) -> None:
    world = World(carried)
    world.alive = False
    for _ in range(2):
        with pytest.raises(TransientFailure, match="run `regworkers local up`"):
            world.check("mongo")
    assert world.asked == 2


def test_a_process_that_ended_is_noticed_before_another_one_can_have_taken_its_port() -> None:
    world = World("theirs")
    world.check("mongo")
    world.alive = False
    world.check("mongo")
    world.now = 0.3
    with pytest.raises(TransientFailure, match="another instance's server"):
        world.check("mongo")


def test_threads_do_not_wait_for_an_unavailable_server_one_after_the_other() -> None:
    asked: list[int] = []
    moments = itertools.count()
    let_go = threading.Event()

    def unavailable() -> str | None:
        asked.append(1)
        let_go.wait(20)
        raise TransientFailure("mongo", "unavailable")

    def clock() -> float:
        nonlocal now
        now = next(moments)
        return now

    now = 0
    check = InstanceCheck("mongo", lambda: {"id": "ours"}, unavailable, clock=clock)
    failures: list[str] = []

    def call() -> None:
        try:
            check("mongo")
        except TransientFailure as failure:
            failures.append(failure.error)

    threads = [threading.Thread(target=call) for _ in range(5)]
    for thread in threads:
        thread.start()
    # Each has asked what time it is, and the one that holds the lock a second time.
    wait_until(lambda: now == len(threads))
    let_go.set()
    for thread in threads:
        thread.join(20)
    assert failures == ["unavailable"] * 5 and len(asked) == 1


def test_an_unavailable_kafka_prints_nothing_of_its_own(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KafkaException):
        kafka_id("127.0.0.1:1")
    assert capfd.readouterr() == ("", "")
