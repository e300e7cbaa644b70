"""A queue as a drain's source: what it holds, keeps hidden, releases and gives back."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import pytest

from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.marks import UNANSWERED
from regworkers_core.engine.queue import QueueSource, Received
from tests.engine.fakes import FakeQueue, unavailable


def source(
    queue: FakeQueue,
    batch_messages: int = 10,
    wait_seconds: float = 2.0,
    clock: Callable[[], float] = time.monotonic,
) -> QueueSource:
    return QueueSource(
        queue, batch_messages=batch_messages, wait_seconds=wait_seconds, visibility_seconds=30, clock=clock
    )


def holding(messages: int) -> tuple[FakeQueue, QueueSource, list[Received]]:
    """A source that has received all of its queue."""
    queue = FakeQueue(waiting=messages)
    made = source(queue)
    return queue, made, list(made.receive())


def test_more_calls_follow_only_while_they_come_back_full_and_only_the_first_one_waits() -> None:
    queue = FakeQueue(waiting=23)
    assert len(source(queue, 100).receive()) == 23
    assert queue.receive_calls == [(10, 2.0, 30), (10, 0.0, 30), (10, 0.0, 30)]


def test_a_batch_is_never_larger_than_asked_for() -> None:
    queue = FakeQueue(waiting=100)
    assert len(source(queue, 25).receive()) == 25
    assert [call[0] for call in queue.receive_calls] == [10, 10, 5]


def test_what_was_received_before_a_call_failed_is_handed_out() -> None:
    queue = FakeQueue(waiting=23)
    queue.failing_receives = {2, 3}
    made = source(queue, 100)
    assert len(made.receive()) == 10
    with pytest.raises(TransientFailure):
        made.receive()
    assert len(made.receive()) == 13


def test_a_heartbeat_hides_what_is_held_for_another_visibility_time() -> None:
    queue, made, _ = holding(2)
    made.heartbeat()
    made.heartbeat()
    made.heartbeat()
    assert queue.visibility == [("m0", 30), ("m1", 30)] * 2
    assert made.counts()["visibility_extended"] == 4


def test_what_was_received_since_the_last_heartbeat_is_hidden_for_long_enough() -> None:
    queue, made, _ = holding(2)
    made.heartbeat()
    assert queue.visibility == []


def test_a_message_that_others_took_is_let_go_and_not_counted_as_extended() -> None:
    queue, made, _ = holding(3)
    made.heartbeat()
    queue.lost = {"m1"}
    made.heartbeat()
    queue.visibility.clear()
    made.heartbeat()
    assert queue.visibility == [("m0", 30), ("m2", 30)]
    assert made.counts() == {"visibility_extended": 4, "visibility_lost": 1}


def test_a_message_that_could_not_be_hidden_is_tried_again_with_the_next_beat() -> None:
    queue, made, _ = holding(2)
    queue.unhidable = {"m1"}
    made.heartbeat()
    made.heartbeat()
    assert +made.counts() == {"visibility_extended": 1, "visibility_failed": 1}
    queue.unhidable = set()
    made.heartbeat()
    assert made.counts()["visibility_extended"] == 3


def test_what_is_settled_while_a_beat_is_under_way_is_not_lost() -> None:
    queue, made, batch = holding(1)
    queue.lost = {"m0"}
    queue.while_hiding = lambda: made.acknowledge(batch)
    made.heartbeat()
    assert not +made.counts()


def test_what_is_settled_is_released() -> None:
    queue, made, (first, second, third) = holding(3)
    made.acknowledge([first])
    made.give_back([(second, 7.4)])
    assert (queue.deleted, queue.visibility) == ([first], [("m1", 7)])
    queue.visibility.clear()
    made.heartbeat()
    made.heartbeat()
    assert queue.visibility == [(third.message_id, 30)]


def test_what_others_may_have_received_meanwhile_is_not_deleted() -> None:
    queue, now = FakeQueue(waiting=2), [100.0]
    made = source(queue, 1, clock=lambda: now[0])
    late, extended = made.receive(), made.receive()
    made.heartbeat()
    now[0] += 29.0
    queue.lost = {"m0"}
    made.heartbeat()
    now[0] += 2.0
    made.acknowledge([*late, *extended])
    assert queue.deleted == extended
    now[0] += 60.0
    made.heartbeat()
    assert queue.visibility == [("m0", 30), ("m1", 30)], "both are let go"


def test_what_others_may_have_received_meanwhile_stays_hidden_for_them() -> None:
    queue, now = FakeQueue(waiting=3), [100.0]
    made = source(queue, 1, clock=lambda: now[0])
    late = made.receive()
    now[0] += 31.0
    gone = made.receive()
    made.let_go()
    ours = made.receive()
    queue.visibility.clear()
    made.give_back([(each, 5.0) for each in (*late, *gone, *ours)])
    assert queue.visibility == [(ours[0].message_id, 5)]


@pytest.mark.parametrize("receives", [1, UNANSWERED + 1], ids=["ordinary", "came often"])
def test_a_message_is_deleted_only_within_the_time_for_which_it_was_hidden(receives: int) -> None:
    for seconds, deleted in ((0.9, 1), (1.1, 0)):
        queue, now = FakeQueue(waiting=1), [100.0]
        queue.waiting[0] = replace(queue.waiting[0], receive_count=receives)
        made = source(queue, 1, clock=lambda now=now: now[0])
        batch = made.receive()
        now[0] += seconds * (30 if receives == 1 else 15)
        with nullcontext() if deleted else pytest.raises(TransientFailure):
            made.acknowledge(batch)
        assert len(queue.deleted) == deleted


def test_a_message_that_came_after_a_long_wait_is_hidden_again_and_deleted() -> None:
    now = [100.0]

    class LongPoll(FakeQueue):
        def receive(self, limit: int, wait_seconds: float, visibility_seconds: int) -> list[Received]:
            now[0] += wait_seconds
            return super().receive(limit, wait_seconds, visibility_seconds)

    for wait_seconds, hidden in ((14.0, []), (20.0, [("m0", 30)])):
        queue = LongPoll(waiting=1)
        made = source(queue, 1, wait_seconds, clock=lambda: now[0])
        batch = made.receive()
        now[0] += 15.0
        made.acknowledge(batch)
        assert queue.visibility == hidden and queue.deleted == batch


def test_closing_gives_back_the_rest_at_once_and_only_the_rest() -> None:
    queue, made, (first, second, _) = holding(3)
    made.acknowledge([first])
    made.give_back([(second, 5)])
    queue.visibility.clear()
    made.close()
    assert queue.visibility == [("m2", 0)]
    made.close()
    made.heartbeat()
    assert queue.visibility == [("m2", 0)]


def test_a_message_that_could_not_be_deleted_is_let_go_so_that_it_comes_again() -> None:
    queue = FakeQueue(waiting=2)
    queue.undeletable = {"m1"}
    made = source(queue)
    made.acknowledge(made.receive())
    made.heartbeat()
    assert queue.visibility == []


def test_an_acknowledgement_that_deletes_no_message_has_failed() -> None:
    queue = FakeQueue(waiting=1)
    queue.undeletable = {"m0"}
    made = source(queue)
    with pytest.raises(TransientFailure, match="none of 1 messages was deleted"):
        made.acknowledge(made.receive())
    made.heartbeat()
    assert queue.visibility == [], "it is let go nevertheless"


def test_a_failed_acknowledgement_lets_go_too() -> None:
    queue, made, batch = holding(1)
    queue.failure = unavailable
    with pytest.raises(TransientFailure):
        made.acknowledge(batch)
    queue.failure = None
    made.heartbeat()
    assert queue.visibility == []


def test_an_empty_queue_is_idle_and_costs_no_call_to_settle() -> None:
    queue = FakeQueue()
    made = source(queue)
    assert made.receive() == [] and made.may_idle()
    made.acknowledge([])
    made.give_back([])
    made.heartbeat()
    made.close()
    assert not queue.visibility and not queue.deleted


def test_what_came_often_is_kept_for_half_the_time_so_that_it_comes_again_soon_after_a_death() -> None:
    queue = FakeQueue(waiting=2)
    queue.waiting[0] = replace(queue.waiting[0], receive_count=UNANSWERED + 1)
    made = source(queue)
    assert len(made.receive()) == 2
    assert queue.visibility == [("m0", 15)]
    made.heartbeat()
    made.heartbeat()
    assert queue.visibility[1:] == [("m0", 15), ("m1", 30)]


def test_what_came_often_is_handed_out_even_if_its_time_cannot_be_changed() -> None:
    queue = FakeQueue(waiting=1)
    queue.waiting[0] = replace(queue.waiting[0], receive_count=UNANSWERED + 1)
    queue.failure = unavailable
    assert len(source(queue).receive()) == 1


def test_what_is_let_go_is_visible_at_once_and_not_kept_by_the_next_heartbeat() -> None:
    queue, made, batch = holding(3)
    made.let_go()
    assert [seconds for _, seconds in queue.visibility] == [0, 0, 0]
    made.heartbeat()
    made.heartbeat()
    assert len(queue.visibility) == 3
    with pytest.raises(TransientFailure):
        made.acknowledge(batch)
    assert not queue.deleted, (
        "they may be with others by now: a batch in flight that ends after all is repeated"
    )
