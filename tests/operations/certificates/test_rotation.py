"""The swap of two producers, step by step on fakes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from regworkers_core.adapters.kafka.producer import OutgoingRecord, RotatingProducer
from regworkers_core.adapters.kafka.security import MaterialInUse
from regworkers_core.domain.reasons import Failure, UsageError
from tests.support.waiting import wait_until

RECORDS = [("t", "k", b"v", None)]


class FakeProducer:
    """Notes what is done to it; `hold` keeps its sends from ending."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self._notes = name, notes
        self.go = threading.Event()
        self.go.set()
        self.closed = False

    def send(self, records: Sequence[OutgoingRecord]) -> list[Failure | None]:
        assert not self.closed, "a send through a producer that was closed"
        self._notes.append(f"send {self.name}")
        self.go.wait(20)
        assert not self.closed, "closed under a send"
        return [None] * len(records)

    def close(self) -> None:
        self._notes.append(f"close {self.name}")
        self.closed = True


class FakeCredentials:
    """Material is a name."""

    check_seconds = 0.01
    may_change = False

    def __init__(self) -> None:
        self.name = "old"
        self.error: Exception | None = None
        self.looks = 0

    def accepted(self) -> MaterialInUse:
        return MaterialInUse({"name": self.name}, self.name, verified=True)

    def check(self) -> MaterialInUse:
        self.looks += 1
        if self.error is not None:
            raise self.error
        return self.accepted()


class World:
    def __init__(self, wait_seconds: float = 20.0) -> None:
        self.notes: list[str] = []
        self.made: dict[str, FakeProducer] = {}
        self.credentials = FakeCredentials()
        credentials: Any = self.credentials
        self.events = RotatingProducer(credentials, self._make, wait_seconds=wait_seconds)

    def _make(self, options: Mapping[str, str]) -> FakeProducer:
        made = self.made[options["name"]] = FakeProducer(options["name"], self.notes)
        return made


def in_background(what: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=what)
    thread.start()
    return thread


def test_the_old_one_is_closed_after_the_swap() -> None:
    world = World()
    world.events.send(RECORDS)
    world.credentials.name = "new"
    assert world.events.renew() is True
    world.events.send(RECORDS)
    assert world.notes == ["send old", "close old", "send new"]


def test_without_other_material_nothing_happens() -> None:
    world = World()
    world.events.send(RECORDS)
    assert world.events.renew() is False and world.notes == ["send old"]


def test_before_the_first_send_there_is_nothing_to_swap() -> None:
    world = World()
    world.credentials.name = "new"
    assert world.events.renew() is False
    world.events.send(RECORDS)
    assert world.notes == ["send new"]


def test_a_batch_in_flight_ends_on_the_old_one_and_the_next_waits_for_the_new_one() -> None:
    world = World()
    world.events.send(RECORDS)
    old = world.made["old"]
    old.go.clear()
    under_way = in_background(lambda: world.events.send(RECORDS))
    wait_until(lambda: world.notes.count("send old") == 2)
    world.credentials.name = "new"
    swap = in_background(world.events.renew)
    wait_until(lambda: "new" in world.made)
    waiting = in_background(lambda: world.events.send(RECORDS))
    assert "send new" not in world.notes
    old.go.set()
    for thread in (under_way, swap, waiting):
        thread.join()
    assert world.notes[:2] == ["send old", "send old"]
    assert sorted(world.notes[2:]) == ["close old", "send new"]


def test_a_batch_that_does_not_end_keeps_its_producer_and_delays_no_other() -> None:
    world = World(wait_seconds=0.05)
    world.events.send(RECORDS)
    old = world.made["old"]
    old.go.clear()
    stuck = in_background(lambda: world.events.send(RECORDS))
    wait_until(lambda: world.notes.count("send old") == 2)
    world.credentials.name = "new"
    assert world.events.renew() is True
    world.events.send(RECORDS)
    assert world.notes[-1] == "send new" and not old.closed
    old.go.set()
    stuck.join()
    assert old.closed


def test_many_senders_and_many_swaps_lose_no_batch() -> None:
    world = World()
    stop = threading.Event()
    outcomes: list[Failure | None] = []

    def send() -> None:
        while not stop.is_set():
            outcomes.extend(world.events.send(RECORDS))

    threads = [in_background(send) for _ in range(4)]
    for number in range(20):
        done = len(outcomes)
        wait_until(lambda done=done: len(outcomes) > done)
        world.credentials.name = f"n{number}"
        world.events.renew()
    stop.set()
    for thread in threads:
        thread.join()
    assert set(outcomes) == {None}
    assert sum(producer.closed for producer in world.made.values()) == len(world.made) - 1


def test_closed_it_lets_go_and_a_later_send_builds_another_one() -> None:
    world = World()
    world.events.send(RECORDS)
    world.events.close()
    world.events.close()
    world.events.send(RECORDS)
    assert world.notes == ["send old", "close old", "send old"]


def test_a_thread_looks_on_through_errors_and_ends_with_a_close() -> None:
    world = World()
    world.credentials.may_change = True
    world.credentials.error = UsageError("gone")
    world.events.send(RECORDS)
    wait_until(lambda: world.credentials.looks > 2)
    world.credentials.error = RuntimeError("a defect")
    looks = world.credentials.looks
    wait_until(lambda: world.credentials.looks > looks + 1)
    world.credentials.error, world.credentials.name = None, "new"
    wait_until(lambda: "close old" in world.notes)
    world.events.close()
    wait_until(lambda: not [each for each in threading.enumerate() if each.name == "certificates"])
