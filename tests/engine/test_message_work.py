"""What becomes of a message, whatever the flow does with its items."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from regworkers_core.domain.messages import ItemSubject, MessageType, encode, fit_correlation_id
from regworkers_core.domain.reasons import ItemFailure, LeftOver, PermanentFailure, Reason, TransientFailure
from regworkers_core.engine.dependency import RetryPolicy
from regworkers_core.engine.handling import Requested
from regworkers_core.engine.queue import Received
from tests.engine.message_world import World, items_of, message, reasons_of

REFUSED = PermanentFailure(Reason.INVALID_ENTRY, "field x is wrong")
UNAVAILABLE = TransientFailure("mongo", "unavailable")
AGAIN = ItemFailure("a repeat may cure it")
LEFT = LeftOver("kafka", "unavailable")


def test_what_is_done_is_acknowledged_and_counted() -> None:
    world = World(b="unchanged")
    settlement = world.settle(message("a", "b"))
    assert [each.message_id for each in settlement.done] == ["m1"]
    assert (settlement.counts["applied"], settlement.counts["unchanged"]) == (1, 1)
    assert world.steps == ["fake.before_delete"]


def test_the_handler_sees_every_item_with_the_message_that_asked_for_it() -> None:
    world = World()
    world.settle(message("a", 7, number=1), message("b", number=2))
    assert world.handler.asked == [Requested("a", "m1", "corr"), Requested("b", "m2", "corr")]


def test_an_item_that_came_twice_counts_once_and_the_second_is_dropped() -> None:
    settlement = World().settle(message("a", "a", number=1), message("a", number=2))
    assert (settlement.counts["applied"], settlement.counts["dropped"]) == (1, 2)


def test_a_dependency_unavailable_for_the_batch_gives_all_of_it_back_and_deletes_nothing() -> None:
    world = World()
    world.handler.raises = UNAVAILABLE
    settlement = world.settle(message("a", number=1), message("b", "c", number=2))
    assert not settlement.done
    assert settlement.counts["returned"] == 3
    assert world.steps == []


def test_a_dependency_unavailable_for_one_item_keeps_its_message_whole_and_the_others_go_on() -> None:
    world = World(a=UNAVAILABLE, b=REFUSED)
    settlement = world.settle(message("a", "b", number=1), message("c", number=2))
    assert [each.message_id for each in settlement.done] == ["m2"]
    assert not world.dead.sent, "the refused one will be refused when the message comes again"


class SealedByNow:
    """A seal that cannot be checked for the message that `m1` is."""

    def check(self, found: Received, _items: Sequence[Any]) -> None:
        if found.message_id == "m1":
            raise UNAVAILABLE

    def kept(self, _message: Received) -> dict[str, str]:
        return {}

    def attributes(self, _body: bytes) -> dict[str, str]:
        return {}


def test_a_message_whose_seal_cannot_be_checked_now_goes_back_alone() -> None:
    world = World()
    world.handler.seal = SealedByNow()
    settlement = world.settle(message("a", number=1), message("b", number=2))
    assert [each.message_id for each in settlement.done] == ["m2"]
    assert [each.message_id for each, _ in settlement.again] == ["m1"] and not world.dead.sent


def test_a_refused_item_becomes_a_dead_letter_alone_with_its_reason_and_its_subject() -> None:
    world = World(b=REFUSED)
    settlement = world.settle(message("a", "b", firstFailedAt="earlier"), message("c", number=2))
    assert settlement.counts["dead_lettered"] == 1
    assert settlement.failed == ["m1"], "what is logged as its batch's failure"
    assert items_of(world.dead) == [["b"]]
    attributes = world.dead.sent[0].attributes
    assert (attributes["reason"], attributes["firstFailedAt"]) == ("INVALID_ENTRY", "earlier")
    (dead_letter,) = world.history.dead_letters
    assert dead_letter.subject == ItemSubject("b", {"marketId": "b"})


def test_an_item_that_cannot_be_read_and_a_body_that_cannot_are_dead_letters() -> None:
    world = World()
    broken = Received("m2", "r2", "not json", {}, 1)
    settlement = world.settle(message("a", 7), broken)
    assert settlement.counts["dead_lettered"] == 2
    assert reasons_of(world.dead) == ["INVALID_BODY"] * 2
    assert world.dead.sent[1].body == b"not json"
    assert [dead_letter.subject for dead_letter in world.history.dead_letters] == [None, None]


def test_an_item_that_a_repeat_may_cure_goes_on_alone_and_carries_its_attempt() -> None:
    world = World(b=AGAIN)
    settlement = world.settle(message("a", "b"))
    assert settlement.counts["resent"] == 1
    assert items_of(world.queue) == [["b"]]
    assert world.queue.sent[0].attributes["attempt"] == "2"


def test_an_item_that_is_alone_already_goes_back_by_visibility() -> None:
    world = World(b=AGAIN)
    settlement = world.settle(message("b"))
    ((returned, seconds),) = settlement.again
    assert returned.message_id == "m1" and seconds >= 1.0
    assert not world.queue.sent


def test_what_comes_back_again_and_again_waits_ever_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RetryPolicy, "backoff", lambda _policy, attempt: 2.0 * attempt)
    waits = [World(b=AGAIN).settle(message("b", receives=times)).again[0][1] for times in (1, 4, 9)]
    assert waits == [2.0, 8.0, 18.0]


@pytest.mark.parametrize(
    ("attempt", "dead"), [("1", 0), ("2", 0), ("3", 1), ("x", 0), ("-1", 0), ("9" * 5000, 0)]
)
def test_attempts_are_carried_from_message_to_message_and_have_an_end(attempt: str, dead: int) -> None:
    world = World(b=AGAIN)
    settlement = world.settle(message("b", attempt=attempt))
    assert settlement.counts["dead_lettered"] == dead
    assert reasons_of(world.dead) == ["ATTEMPTS_EXHAUSTED"] * dead


def test_the_receives_of_a_message_of_one_item_that_ended_with_its_failure_are_its_attempts() -> None:
    world = World(b=AGAIN)
    ends = [world.settle(message("b", receives=number)).counts for number in (1, 2, 3)]
    assert [counts["returned"] for counts in ends] == [1, 1, 0]
    assert ends[2]["dead_lettered"] == 1
    assert world.dead.sent[0].attributes["reason"] == "ATTEMPTS_EXHAUSTED"
    assert not world.table.stored, "what is over leaves nothing behind"


def test_the_receives_of_an_outage_are_no_attempts() -> None:
    world = World(b=UNAVAILABLE)
    for number in range(1, 61):
        assert world.settle(message("b", receives=number)).counts["returned"] == 1
    world.handler.outcomes["b"] = AGAIN
    ends = [world.settle(message("b", receives=number)).counts for number in (61, 62, 63)]
    assert [counts["dead_lettered"] for counts in ends] == [0, 0, 1]


def test_an_attempt_that_cannot_be_counted_goes_back() -> None:
    world = World(b=AGAIN)
    world.table.gate.down = True
    assert world.settle(message("b", receives=2)).counts["returned"] == 1


def test_what_is_left_over_goes_on_as_one_message_whose_receives_count_from_the_start() -> None:
    world = World(b=LEFT, d=LEFT)
    settlement = world.settle(message("a", "b", "c", "d", receives=7, attempt="9"))
    assert [each.message_id for each in settlement.done] == ["m1"]
    assert items_of(world.queue) == [["b", "d"]]
    assert world.queue.sent[0].attributes["attempt"] == "9", "an outage is no attempt of an item"
    assert (settlement.counts["applied"], settlement.counts["resent"]) == (2, 2)


def test_a_message_of_which_all_is_left_over_is_kept_whole_however_often_it_came() -> None:
    world = World(a=LEFT, b=LEFT)
    settlement = world.settle(message("a", "b", receives=500), message("a", number=2, receives=500))
    assert not settlement.done and not world.queue.sent and not world.dead.sent
    assert settlement.counts["returned"] == 3


def test_what_is_left_over_goes_on_beside_dead_letters_and_items_that_go_alone() -> None:
    world = World(b=LEFT, c=REFUSED, d=AGAIN)
    settlement = world.settle(message("b", "c", "d"))
    assert items_of(world.queue) == [["d"], ["b"]] and items_of(world.dead) == [["c"]]
    assert (settlement.counts["resent"], settlement.counts["dead_lettered"]) == (2, 1)


def test_a_failure_that_keeps_the_message_whole_wins_over_what_is_left_over() -> None:
    world = World(b=LEFT, c=UNAVAILABLE)
    settlement = world.settle(message("a", "b", "c"))
    assert not settlement.done and not world.queue.sent


def test_a_rest_that_is_not_confirmed_keeps_itsmessage() -> None:
    world = World(b=LEFT)
    world.queue.fail = {0: False}
    settlement = world.settle(message("a", "b"))
    assert not settlement.done and settlement.counts["returned"] == 2


def test_a_body_that_is_not_utf_8_is_a_dead_letter() -> None:
    world = World()
    settlement = world.settle(Received("m1", "r1", "\udcff{", {}, 1))
    assert settlement.counts["dead_lettered"] == 1
    assert world.dead.sent[0].attributes["reason"] == "INVALID_BODY"
    assert world.dead.sent[0].body.decode() == "\\udcff{"


def test_a_dead_letter_that_is_not_confirmed_keeps_itsmessage() -> None:
    world = World(b=REFUSED)
    world.dead.fail = {0: False}
    settlement = world.settle(message("a", "b"))
    assert not settlement.done
    assert settlement.counts["returned"] == 2


def test_a_message_without_items_is_done() -> None:
    assert World().settle(message()).done


def test_a_correlation_id_of_others_that_may_be_a_fans_data_goes_no_further() -> None:
    world = World(b=REFUSED)
    body = encode(MessageType.ASSIGN, "someone@example.org", ["a", "b"]).decode()
    world.settle(Received("m1", "r1", body, {"correlationId": "someone@example.org"}, 1))
    assert {asked.correlation_id for asked in world.handler.asked} == {"m1"}
    sent = [world.dead.sent[0].body.decode(), world.dead.sent[0].attributes, world.history.dead_letters[0]]
    assert "someone" not in repr(sent)


def test_an_item_that_lies_deeper_than_json_is_written_lands_alone_and_whole() -> None:
    world = World()
    deep: Any = "x"
    for _ in range(900):
        deep = [deep]
    settlement = world.settle(message("a", deep))
    assert (settlement.counts["applied"], settlement.counts["dead_lettered"]) == (1, 1)
    assert items_of(world.dead) == [[deep]]


@pytest.mark.parametrize(
    ("given", "known"), [("m-1", "m-1"), ("fan@example.com", ""), ("", ""), ("x" * 200, "")]
)
def test_a_message_is_known_by_an_id_in_any_case(given: str, known: str) -> None:
    id_ = Received(given, "r", "{}", {"correlationId": "fan@example.com"}, 1).known_as
    assert fit_correlation_id(id_) == id_ and (id_ == known or not known)
