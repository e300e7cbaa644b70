"""Whether a resident could work: by its own calls, by probes of what it does not call, and by its threads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import pytest
from structlog.testing import capture_logs

from fairdraw import scheduling
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.drains.residency import BLIND_SECONDS, Sight
from regworkers_core.engine.deadline import Steps, step
from regworkers_core.engine.dependency import Dependency, RetryPolicy
from tests.support.waiting import Clock, wait_until

LONGEST_CALL = 10.0


class Reached:
    """A dependency that answers or does not."""

    def __init__(self, clock: Clock, name: str) -> None:
        self.answers, self.probes = True, 0
        self.guard = Dependency(name, lambda error: error, policy=RetryPolicy(attempts=1), clock=clock)

    def _serve(self) -> None:
        if not self.answers:
            raise TransientFailure(self.guard.name, "refused")

    def call(self) -> None:
        """As the work does."""
        with suppress(TransientFailure):
            self.guard.call(self._serve)

    def probe(self) -> None:
        self.probes += 1
        self.guard.call(self._serve)


class World:
    def __init__(self) -> None:
        self.clock, self.steps = Clock(), Steps()
        self.sqs, self.mongo = Reached(self.clock, "sqs"), Reached(self.clock, "mongo")
        needs = {each.guard.name: (each.guard, each.probe) for each in (self.sqs, self.mongo)}
        self.sight = Sight(needs, LONGEST_CALL, clock=self.clock)

    def look(self, seconds: float = 0.0) -> str:
        """After the seconds, one look a second; each probe has ended before the next."""
        for _ in range(max(1, round(seconds))):
            self.clock.now += float(seconds > 0)
            found = self.sight.look(self.steps)
            self.sight._probing.wait(5.0)
        return found


@pytest.fixture
def world() -> Iterator[World]:
    with capture_logs():
        yield World()


def test_it_is_blind_once_the_last_call_failed_and_none_succeeded_for_five_seconds(world: World) -> None:
    world.mongo.answers = False
    world.mongo.call()
    assert world.look(BLIND_SECONDS - 1) == ""
    assert world.look(1) == "mongo does not answer"
    world.mongo.answers = True
    world.mongo.call()
    assert world.look() == "", "one call that succeeds is enough for the one that works"


def test_one_call_of_several_that_succeeds_is_enough(world: World) -> None:
    for _ in range(20):
        for answers in (False, True):
            world.mongo.answers = answers
            world.mongo.call()
        assert world.look(1) == ""


def test_what_was_not_called_for_five_seconds_is_probed_and_only_that(world: World) -> None:
    for _ in range(20):
        world.sqs.call()
        world.look(1)
    assert world.sqs.probes == 0 and 3 <= world.mongo.probes <= 4
    world.mongo.answers = False
    world.look(BLIND_SECONDS + 1)
    assert world.look(BLIND_SECONDS) == "mongo does not answer", "without a call of the work"


def test_it_is_steady_again_only_after_five_seconds_without_a_failure(world: World) -> None:
    world.mongo.answers = False
    world.look(12)
    world.mongo.answers = True
    world.look(1)
    assert not world.sight.steady
    world.look(BLIND_SECONDS)
    assert world.sight.steady


def test_probes_neither_open_a_breaker_nor_wait_for_it(world: World) -> None:
    world.mongo.answers = False
    world.look(60)
    assert not world.mongo.guard.breaker.is_open


def test_it_is_confirmed_only_by_answers_that_came_since(world: World) -> None:
    assert world.sight.confirmed(5.0)
    world.mongo.answers = False
    assert not world.sight.confirmed(5.0)


def test_an_answer_that_does_not_come_confirms_nothing_and_is_not_waited_for(world: World) -> None:
    hangs = scheduling.event()
    needs = {"mongo": (world.mongo.guard, hangs.wait)}
    sight = Sight(needs, LONGEST_CALL, clock=world.clock)
    world.clock.now += 1.0
    assert not sight.confirmed(0.01)
    sight.look(world.steps)
    hangs.set()


def test_a_thread_that_ends_no_step_for_longer_than_any_call_makes_it_blind() -> None:
    steps, over = Steps(), scheduling.event()
    sight = Sight({}, -BLIND_SECONDS + 0.2)
    begun = scheduling.event()

    def hang() -> None:
        with steps.watched():
            begun.set()
            over.wait()

    thread = scheduling.start(hang, "hangs")
    begun.wait()
    with capture_logs():
        wait_until(lambda: sight.look(steps))
        assert sight.hangs(steps)
        over.set()
        thread.join()
        assert sight.look(steps) == "" and steps.still_seconds() == 0.0


def test_a_call_that_ends_is_a_step_of_the_thread_that_made_it() -> None:
    steps = Steps()
    guard = Dependency("mongo", lambda error: error, policy=RetryPolicy())
    with steps.watched():
        wait_until(lambda: steps.still_seconds() > 0.05)
        guard.call(lambda: None)
        assert steps.still_seconds() < 0.05
        wait_until(lambda: steps.still_seconds() > 0.05)
        step()
        assert steps.still_seconds() < 0.05
