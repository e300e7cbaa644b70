"""Messages that may be killing workers, in virtual time: processes die, visibility runs out, others go on."""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from regworkers_core.domain.reasons import ItemFailure, TransientFailure
from regworkers_core.engine.handling import Handled, Requested
from regworkers_core.engine.marks import UNANSWERED, Marks, Solo
from regworkers_core.engine.queue import Received
from tests.engine.message_world import Died, World, items_of, message, reasons_of
from tests.support.waiting import wait_until

UNAVAILABLE = TransientFailure("mongo", "unavailable")
VISIBILITY_SECONDS = 60.0
# Until a message that is visible again is received.
LATE_SECONDS = 5.0
RESTART_SECONDS = 15.0
BATCH_MESSAGES = 5


@pytest.fixture
def world() -> World:
    return World()


class VirtualQueue:
    """Messages with the time at which each is visible again, and their receives."""

    def __init__(self, *messages: Received) -> None:
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, Received]] = []
        self.now = 0.0
        for each in messages:
            self.put(each, 0.0)

    def put(self, each: Received, seconds: float) -> None:
        heapq.heappush(self._waiting, (self.now + seconds, next(self._order), each))

    def receive(self, limit: int) -> list[Received]:
        """What is visible, received; the clock moves on to the next message where none is."""
        if self._waiting:
            self.now = max(self.now, self._waiting[0][0])
        batch: list[Received] = []
        while self._waiting and self._waiting[0][0] <= self.now and len(batch) < limit:
            each = heapq.heappop(self._waiting)[2]
            batch.append(replace(each, receive_count=each.receive_count + 1))
        return batch

    def __bool__(self) -> bool:
        return bool(self._waiting)


class Life:
    """Workers one after the other, until nothing is left on the queue."""

    def __init__(self, world: World, queue: VirtualQueue) -> None:
        self.world, self.queue = world, queue
        self.deaths = 0
        # When each item was last handled without a death.
        self.saved_at: dict[str, float] = {}
        self.on_batch: Callable[[], None] = lambda: None
        self.receives = 0

    def until_empty(self, steps: int = 2000) -> None:
        work = self.world.process()
        for _ in range(steps):
            if not self.queue:
                return
            self.on_batch()
            batch = self.queue.receive(BATCH_MESSAGES)
            self.receives = max(self.receives, *(each.receive_count for each in batch))
            before = len(self.world.handler.asked)
            try:
                with capture_logs():
                    settlement = work(batch)
            except Died:
                self._saved(before, self.world.handler.deadly)
                self.deaths += 1
                for each in batch:
                    # As the source keeps it.
                    share = 1.0 if each.receive_count <= UNANSWERED else 0.5
                    self.queue.put(each, VISIBILITY_SECONDS * share + LATE_SECONDS)
                self.queue.now += RESTART_SECONDS
                work = self.world.process()
                continue
            self._saved(before, set())
            for each, seconds in settlement.again:
                self.queue.put(each, seconds)
        raise AssertionError("the queue does not get empty")

    def _saved(self, before: int, deadly: set[str]) -> None:
        asked = self.world.handler.asked[before:]
        # What was asked for in the call that died was not done.
        done = asked[: len(asked) - self.world.handler.last] if deadly else asked
        for each in done:
            self.saved_at.setdefault(each.item, self.queue.now)


def waiting(*items: str, number: int = 1) -> Received:
    return message(*items, number=number, receives=0)


def names(number: int, prefix: str = "i") -> list[str]:
    return [f"{prefix}{index}" for index in range(number)]


def test_an_item_that_ends_the_process_leaves_its_neighbours_saved_within_five_minutes(world: World) -> None:
    world.handler.deadly = {"i42"}
    life = Life(world, VirtualQueue(waiting(*names(100))))
    life.until_empty()
    assert set(life.saved_at) == set(names(100)) - {"i42"}
    assert max(life.saved_at.values()) <= 300.0
    assert reasons_of(world.dead) == ["KILLED"] and items_of(world.dead) == [["i42"]]
    assert life.deaths == UNANSWERED + 2, "it is not tried when it is marked for the third time"
    assert not world.table.stored, "what is over leaves nothing behind"


def test_messages_that_were_beside_it_when_the_process_died_are_saved_and_not_accused(world: World) -> None:
    world.handler.deadly = {"bad"}
    others = [waiting(*names(10, f"m{number}-"), number=number) for number in range(2, 30)]
    life = Life(world, VirtualQueue(waiting("bad"), *others))
    life.until_empty()
    assert len(life.saved_at) == 280 and max(life.saved_at.values()) <= 300.0
    assert items_of(world.dead) == [["bad"]] and reasons_of(world.dead) == ["KILLED"]


def test_several_such_items_of_one_message_are_found_one_by_one(world: World) -> None:
    world.handler.deadly = {"i3", "i7", "i99"}
    life = Life(world, VirtualQueue(waiting(*names(100))))
    life.until_empty()
    assert sorted(map(str, items_of(world.dead))) == ["['i3']", "['i7']", "['i99']"]
    assert reasons_of(world.dead) == ["KILLED"] * 3
    assert len(life.saved_at) == 97


@pytest.mark.parametrize("phase", ["parse", "subject"])
def test_a_message_that_kills_before_or_after_its_items_are_handled_is_a_dead_letter_as_it_came(
    phase: str,
) -> None:
    world = World(b=ItemFailure("maybe"))
    well = getattr(world.handler, phase)

    def deadly(item: str, *kind: object) -> object:
        if item == "b":
            raise Died
        return well(item, *kind)

    setattr(world.handler, phase, deadly)
    life = Life(world, VirtualQueue(waiting("a", "b", number=1), waiting("c", number=2)))
    life.until_empty()
    assert reasons_of(world.dead) == ["KILLED"] and items_of(world.dead) == [["a", "b"]]
    assert life.deaths == UNANSWERED + 2


def test_an_outage_of_an_hour_with_sixty_receives_kills_and_exhausts_nothing(world: World) -> None:
    messages = [waiting(*names(3, f"m{number}-"), number=number) for number in range(2, 10)]
    life = Life(world, VirtualQueue(waiting("alone"), *messages))

    def outage() -> None:
        world.handler.raises = UNAVAILABLE if life.receives < 60 else None

    life.on_batch = outage
    life.until_empty()
    assert life.receives >= 60 and not world.dead.sent and not world.queue.sent
    assert len(life.saved_at) == 25
    assert not world.table.stored


def test_after_an_outage_messages_are_handled_together_again(world: World) -> None:
    world.handler.raises = UNAVAILABLE
    with capture_logs():
        for receives in range(1, 11):
            world.settle(*(message(f"i{number}", number=number, receives=receives) for number in range(3)))
    world.handler.raises, before = None, world.handler.calls
    world.settle(*(message(f"i{number}", number=number, receives=11) for number in range(3)))
    assert world.handler.calls == before + 1


def test_a_mark_of_a_message_that_comes_back_for_a_dependency_counts_for_nothing(world: World) -> None:
    for receives in range(4, 40, 2):
        world.handler.deadly = {"a"}
        with pytest.raises(Died):
            world.process()([message("a", receives=receives)])
        world.handler.deadly, world.handler.raises = set(), UNAVAILABLE
        with capture_logs():
            assert world.process()([message("a", receives=receives + 1)]).counts["returned"] == 1
    world.handler.raises = None
    assert world.process()([message("a", receives=40)]).counts["applied"] == 1
    assert not world.dead.sent and not world.table.stored


def test_an_older_copy_of_a_message_is_no_attempt_while_a_later_one_is_handled(world: World) -> None:
    first, second, handle = world.process(), world.process(), world.handler.handle
    of_older = []

    def handled_twice(asked: Any) -> Any:
        world.handler.handle = handle  # type: ignore[method-assign]
        of_older.append(second([message("a", receives=6)]).counts["returned"])
        return handle(asked)

    world.handler.handle = handled_twice  # type: ignore[method-assign]
    with capture_logs():
        assert first([message("a", receives=7)]).counts["applied"] == 1
    assert of_older == [1] and not world.dead.sent


def test_an_exception_that_is_not_the_items_is_an_outcome_for_the_process_lives(world: World) -> None:
    world.handler.errors["a"] = MemoryError()
    for receives in range(1, 40):
        with capture_logs(), pytest.raises(MemoryError):
            world.process()([message("a", receives=receives)])
    world.handler.errors.clear()
    assert world.process()([message("a", receives=40)]).counts["applied"] == 1


def test_a_message_that_cannot_be_marked_goes_back_unread(world: World) -> None:
    world.table.gate.down = True
    with capture_logs():
        settlement = world.settle(message("a", receives=4, number=1), message("b", number=2))
    assert [each.message_id for each in settlement.done] == ["m2"]
    assert [each.item for each in world.handler.asked] == ["b"]


def test_an_outage_of_the_marks_for_hours_does_not_use_up_the_receives_of_a_message(world: World) -> None:
    world.table.gate.down = True
    queue = VirtualQueue(message("a", receives=UNANSWERED))
    with capture_logs():
        while queue.now < 6 * 3600.0:
            (each,) = queue.receive(1)
            for given_back, seconds in world.settle(each).again:
                queue.put(given_back, seconds)
    assert each.receive_count < 100, "then SQS moves it to the dead-dead_letter queue, without a reason"
    world.table.gate.down = False
    assert world.settle(*queue.receive(1)).done


def test_messages_that_came_up_to_three_times_cost_no_call(world: World) -> None:
    world.table.gate.down = True
    for receives in range(1, UNANSWERED + 1):
        assert world.settle(message("a", receives=receives)).done
    world.handler.raises = UNAVAILABLE
    with capture_logs() as logs:
        for receives in range(1, UNANSWERED):
            assert world.settle(message("a", receives=receives)).again
    assert [line for line in logs if line["event"] == "outcome not noted"] == []


def test_two_drains_that_hold_one_message_do_not_both_handle_it(world: World) -> None:
    first, second = (Marks(world.table, "fake-queue") for _ in range(2))
    both = message("a", receives=4)
    assert first.suspects(both) and second.suspects(both)
    assert first.begin(both) == 1
    with pytest.raises(TransientFailure):
        second.begin(both)


def test_a_mark_whose_confirmation_got_lost_is_known_again(world: World) -> None:
    swap = world.table.swap

    def unheard(*words: object) -> bool:
        swap(*words)  # type: ignore[arg-type]
        return False

    world.table.swap = unheard  # type: ignore[method-assign,assignment]
    assert Marks(world.table, "fake-queue").begin(message("a", receives=4)) == 1


def test_a_message_that_came_too_often_waits_until_nothing_else_is_in_hand() -> None:
    world, release = World(), threading.Event()
    handle = world.handler.handle

    def slowly(asked: Sequence[Requested[str]]) -> Handled:
        if asked[0].item == "slow":
            release.wait(20)
        return handle(asked)

    world.handler.handle = slowly  # type: ignore[method-assign]
    slow = threading.Thread(target=world.work, args=([message("slow", number=1)],))
    often = threading.Thread(target=world.work, args=([message("often", number=2, receives=4)],))
    slow.start()
    often.start()
    often.join(0.2)
    assert world.handler.asked == []
    release.set()
    for thread in (slow, often):
        thread.join(20)
    assert [each.item for each in world.handler.asked] == ["slow", "often"]


def test_what_is_suspected_is_handled_with_nothing_beside_it() -> None:
    solo, log = Solo(), list[str]()
    release = threading.Event()

    def beside() -> None:
        with solo.beside():
            log.append("beside begins")
            release.wait(20)
            log.append("beside ends")

    def alone() -> None:
        with solo.alone():
            log.append("alone")

    def later() -> None:
        with solo.beside():
            log.append("later")

    threads = []
    for run in (beside, alone):
        threads.append(threading.Thread(target=run))
        threads[-1].start()
        if run is beside:
            wait_until(lambda: log == ["beside begins"])
    wait_until(lambda: solo._waiting == 1)
    threads.append(threading.Thread(target=later))
    threads[-1].start()
    release.set()
    for thread in threads:
        thread.join(20)
    assert log == ["beside begins", "beside ends", "alone", "later"]
