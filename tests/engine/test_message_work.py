"""What becomes of a message, whatever the flow does with its items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest

from regworkers_core.domain.dead_letter import DeadLetter, Subject
from regworkers_core.domain.messages import MessageType, encode
from regworkers_core.domain.reasons import (
    Failure,
    ItemFailure,
    LeftOver,
    PermanentFailure,
    Reason,
    TransientFailure,
)
from regworkers_core.engine.dead_letters import DeadLetterOffice
from regworkers_core.engine.drain import OUTCOMES, Settlement
from regworkers_core.engine.message_work import Asked, Handled, MessageWork
from regworkers_core.engine.ports import Received
from tests.enqueue.fakes import FakeQueue

Outcome = str | Failure
REFUSED = PermanentFailure(Reason.INVALID_ENTRY, "field x is wrong")
AWAY = TransientFailure("mongo", "away")
AGAIN = ItemFailure("a repeat may cure it")
LEFT = LeftOver("kafka", "away")


class Handler:
    """Items are strings; `outcomes` says what each comes to, `applied` if nothing."""

    kind = MessageType.ASSIGN

    def __init__(self, **outcomes: Outcome) -> None:
        self.outcomes = outcomes
        self.raises: Failure | None = None
        self.asked: list[Asked[str]] = []

    def parse(self, raw: object) -> str:
        if not isinstance(raw, str):
            raise PermanentFailure(Reason.INVALID_BODY, "an item should be a string")
        return raw

    def key(self, item: str) -> str:
        return item

    def subject(self, item: str) -> Subject:
        return Subject(item, {"marketId": item})

    def handle(self, asked: Sequence[Asked[str]]) -> Handled:
        self.asked.extend(asked)
        if self.raises is not None:
            raise self.raises
        return Handled({each.item: self.outcomes.get(each.item, "applied") for each in asked})


class History:
    def __init__(self) -> None:
        self.letters: list[DeadLetter] = []

    def record(self, letters: Sequence[DeadLetter], *, at: str, run_id: str) -> None:
        self.letters.extend(letters)


class World:
    def __init__(self, **outcomes: Outcome) -> None:
        self.queue, self.dead, self.history = FakeQueue(), FakeQueue(), History()
        self.handler = Handler(**outcomes)
        self.steps: list[str] = []
        office = DeadLetterOffice(self.queue, self.dead, self.history, run_id="run", clock=lambda: 0.0)
        self.work: Callable[[Sequence[Received]], Settlement[Received]] = MessageWork(
            "fake", self.handler, office, max_attempts=3, on_step=self.steps.append
        )

    def settle(self, *messages: Received) -> Settlement[Received]:
        """Settles the messages; every item must have one outcome, every message one end."""
        settlement = self.work(messages)
        counts = settlement.counts
        assert counts["received"] == sum(counts[outcome] for outcome in OUTCOMES)
        ended = [*settlement.done, *(message for message, _ in settlement.again)]
        assert sorted(each.message_id for each in ended) == sorted(each.message_id for each in messages)
        return settlement


def _message(*items: Any, number: int = 1, receives: int = 1, **attributes: str) -> Received:
    body = encode(MessageType.ASSIGN, "corr", items).decode()
    return Received(f"m{number}", f"r{number}", body, attributes, receives)


def _items(queue: FakeQueue) -> list[Any]:
    return [orjson.loads(message.body)["items"] for message in queue.sent]


def test_what_is_done_is_acknowledged_and_counted() -> None:
    world = World(b="unchanged")
    settlement = world.settle(_message("a", "b"))
    assert [message.message_id for message in settlement.done] == ["m1"]
    assert (settlement.counts["applied"], settlement.counts["unchanged"]) == (1, 1)
    assert world.steps == ["fake.before_delete"]


def test_the_handler_sees_every_item_with_the_message_that_asked_for_it() -> None:
    world = World()
    world.settle(_message("a", 7, number=1), _message("b", number=2))
    assert world.handler.asked == [Asked("a", "m1", "corr"), Asked("b", "m2", "corr")]


def test_an_item_that_came_twice_counts_once_and_the_second_is_dropped() -> None:
    settlement = World().settle(_message("a", "a", number=1), _message("a", number=2))
    assert (settlement.counts["applied"], settlement.counts["dropped"]) == (1, 2)


def test_a_dependency_away_for_the_batch_gives_all_of_it_back_and_deletes_nothing() -> None:
    world = World()
    world.handler.raises = AWAY
    settlement = world.settle(_message("a", number=1), _message("b", "c", number=2))
    assert not settlement.done
    assert settlement.counts["returned"] == 3
    assert world.steps == []


def test_a_dependency_away_for_one_item_keeps_its_message_whole_and_the_others_go_on() -> None:
    world = World(a=AWAY, b=REFUSED)
    settlement = world.settle(_message("a", "b", number=1), _message("c", number=2))
    assert [message.message_id for message in settlement.done] == ["m2"]
    assert not world.dead.sent, "the refused one will be refused when the message comes again"


def test_a_refused_item_becomes_a_dead_letter_alone_with_its_reason_and_its_subject() -> None:
    world = World(b=REFUSED)
    settlement = world.settle(_message("a", "b", firstFailedAt="earlier"))
    assert settlement.counts["dead_lettered"] == 1
    assert _items(world.dead) == [["b"]]
    attributes = world.dead.sent[0].attributes
    assert (attributes["reason"], attributes["firstFailedAt"]) == ("INVALID_ENTRY", "earlier")
    (letter,) = world.history.letters
    assert letter.subject == Subject("b", {"marketId": "b"})


def test_an_item_that_cannot_be_read_and_a_body_that_cannot_are_dead_letters() -> None:
    world = World()
    broken = Received("m2", "r2", "not json", {}, 1)
    settlement = world.settle(_message("a", 7), broken)
    assert settlement.counts["dead_lettered"] == 2
    assert [message.attributes["reason"] for message in world.dead.sent] == ["INVALID_BODY"] * 2
    assert world.dead.sent[1].body == b"not json"
    assert [letter.subject for letter in world.history.letters] == [None, None]


def test_an_item_that_a_repeat_may_cure_goes_on_alone_and_carries_its_attempt() -> None:
    world = World(b=AGAIN)
    settlement = world.settle(_message("a", "b"))
    assert settlement.counts["resent"] == 1
    assert _items(world.queue) == [["b"]]
    assert world.queue.sent[0].attributes["attempt"] == "2"


def test_an_item_that_is_alone_already_goes_back_by_visibility() -> None:
    world = World(b=AGAIN)
    settlement = world.settle(_message("b"))
    ((message, seconds),) = settlement.again
    assert message.message_id == "m1" and seconds >= 1.0
    assert not world.queue.sent


@pytest.mark.parametrize(
    ("attempt", "receives", "dead"), [("1", 2, 0), ("1", 3, 1), ("2", 2, 1), ("x", 1, 0)]
)
def test_attempts_are_counted_over_messages_and_receives_and_have_an_end(
    attempt: str, receives: int, dead: int
) -> None:
    world = World(b=AGAIN)
    settlement = world.settle(_message("b", receives=receives, attempt=attempt))
    assert settlement.counts["dead_lettered"] == dead
    assert [message.attributes["reason"] for message in world.dead.sent] == ["ATTEMPTS_EXHAUSTED"] * dead


def test_what_is_left_over_goes_on_as_one_message_whose_receives_count_from_the_start() -> None:
    world = World(b=LEFT, d=LEFT)
    settlement = world.settle(_message("a", "b", "c", "d", receives=7, attempt="9"))
    assert [message.message_id for message in settlement.done] == ["m1"]
    assert _items(world.queue) == [["b", "d"]]
    assert world.queue.sent[0].attributes["attempt"] == "9", "an outage is no attempt of an item"
    assert (settlement.counts["applied"], settlement.counts["resent"]) == (2, 2)


def test_a_message_of_which_all_is_left_over_is_kept_whole_however_often_it_came() -> None:
    world = World(a=LEFT, b=LEFT)
    settlement = world.settle(_message("a", "b", receives=500), _message("a", number=2, receives=500))
    assert not settlement.done and not world.queue.sent and not world.dead.sent
    assert settlement.counts["returned"] == 3


def test_what_is_left_over_goes_on_beside_dead_letters_and_items_that_go_alone() -> None:
    world = World(b=LEFT, c=REFUSED, d=AGAIN)
    settlement = world.settle(_message("b", "c", "d"))
    assert _items(world.queue) == [["d"], ["b"]] and _items(world.dead) == [["c"]]
    assert (settlement.counts["resent"], settlement.counts["dead_lettered"]) == (2, 1)


def test_a_failure_that_keeps_the_message_whole_wins_over_what_is_left_over() -> None:
    world = World(b=LEFT, c=AWAY)
    settlement = world.settle(_message("a", "b", "c"))
    assert not settlement.done and not world.queue.sent


def test_a_rest_that_is_not_confirmed_keeps_its_message() -> None:
    world = World(b=LEFT)
    world.queue.fail = {0: False}
    settlement = world.settle(_message("a", "b"))
    assert not settlement.done and settlement.counts["returned"] == 2


def test_a_body_that_is_not_utf_8_is_a_dead_letter() -> None:
    world = World()
    settlement = world.settle(Received("m1", "r1", "\udcff{", {}, 1))
    assert settlement.counts["dead_lettered"] == 1
    assert world.dead.sent[0].attributes["reason"] == "INVALID_BODY"
    assert world.dead.sent[0].body.decode() == "\\udcff{"


def test_a_dead_letter_that_is_not_confirmed_keeps_its_message() -> None:
    world = World(b=REFUSED)
    world.dead.fail = {0: False}
    settlement = world.settle(_message("a", "b"))
    assert not settlement.done
    assert settlement.counts["returned"] == 2


def test_a_message_without_items_is_done() -> None:
    assert World().settle(_message()).done
