"""A browser reads a queue of any depth in bounded memory and returns everything."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from itertools import count

import pytest

from regworkers_core.domain.messages import MessageType, fingerprint
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.queue import NotHidden, Outgoing, QueueDepth, Received
from regworkers_core.operations.dead_letters.browse import Ended, QueueBrowser
from regworkers_core.operations.dead_letters.model import NOT_SHOWN, DeadQueue, read_message
from regworkers_core.operations.dead_letters.operations import message_document, shown_id, sparkline
from regworkers_core.operations.dead_letters.redrive import move
from regworkers_core.operations.dead_letters.report import Causes, RedriveReport, Trend, trend
from regworkers_core.operations.dead_letters.verdict import Assessed, DeadLetterVerdict
from tests.operations.dead_letters.world import body
from tests.support.in_memory import MemoryQueue

QUEUE = DeadQueue("replication-queue", "replication-queue-dlq", (MessageType.REPLICATE,))
BODY = body("e1").decode()
# Of a receipt on AWS.
RECEIPT = "r" * 350
MIB = 1024 * 1024


def message(number: int, cause: str = "") -> Received:
    attributes = {"reason": "INVALID_ENTRY", "error": cause or f"cause {number % 7}"}
    return Received(f"m{number}", f"{RECEIPT}{number}", BODY, attributes, 1, 1_790_000_000.0 + number)


class EndlessQueue:
    """`size` messages by number. What is received stays hidden until it is given back; only counts are kept.
    A browser sends and deletes nothing.
    """

    name = "replication-queue-dlq"

    def __init__(self, size: int, make: Callable[[int], Received]) -> None:
        self._size, self._make = size, make
        self._next = 0
        self.given_back = 0
        self.visibility_seconds = 0
        self.over_limit_at: int | None = None

    def receive(self, limit: int, wait_seconds: float, visibility_seconds: int) -> list[Received]:
        if self.over_limit_at is not None and self._next >= self.over_limit_at:
            raise TransientFailure("sqs", "OverLimit")
        self.visibility_seconds = visibility_seconds
        first, self._next = self._next, min(self._next + limit, self._size)
        return [self._make(number) for number in range(first, self._next)]

    def change_visibility(self, messages: Sequence[tuple[Received, int]]) -> NotHidden:
        assert all(seconds == 0 for _, seconds in messages)
        self.given_back += len(messages)
        return NotHidden()

    def depth(self) -> QueueDepth:
        return QueueDepth(self._size - self._next, 0, 0)


def group_all(queue: EndlessQueue) -> tuple[Causes, QueueBrowser]:
    groups = Causes()
    with QueueBrowser(queue, wait_seconds=0) as browser:
        for batch in browser.batches():
            for each in batch:
                groups.add(read_message(QUEUE, each))
    return groups, browser


@pytest.mark.slow
def test_a_hundred_thousand_messages_are_counted_in_one_pass_and_all_returned() -> None:
    queue = EndlessQueue(100_000, message)
    groups, browser = group_all(queue)
    assert browser.complete and browser.seen == queue.given_back == 100_000
    assert [group.messages for group in groups] == [14_286] * 5 + [14_285] * 2
    assert queue.visibility_seconds > 100_000 / 50, "nothing becomes visible again while the browser is open"


def test_memory_does_not_grow_with_the_number_of_messages() -> None:
    peaks = []
    for size in (2_000, 8_000):
        queue = EndlessQueue(size, message)
        tracemalloc.start()
        group_all(queue)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The receipts of 8,000 alone are 2.8 MB.
    assert peaks[1] < 1 * MIB and peaks[1] - peaks[0] < 64 * 1024


@pytest.mark.parametrize(
    ("reason", "text", "verb"),
    [
        ("INVALID_ENTRY", BODY, "redrive"),
        ("MISSING_KEY", BODY, "drop"),
        ("INVALID_BODY", "no JSON", "drop"),
        ("RECEIVED_TOO_OFTEN", "no JSON", "drop"),
    ],
)
def test_the_command_of_a_cause_matches_its_advice(reason: str, text: str, verb: str) -> None:
    (group,) = _grouped(Received("m1", RECEIPT, text, {"reason": reason}, 1, 1_790_000_000.0))
    assert f"dlq {verb} " in group.command
    assert ("then drop them" in group.advice) is (verb == "drop")


def _grouped(*messages: Received) -> Causes:
    groups = Causes()
    for each in messages:
        groups.add(read_message(QUEUE, each))
    return groups


def test_causes_beyond_the_limit_are_counted_as_others() -> None:
    groups = Causes(most=10)
    for number in range(50):
        groups.add(read_message(QUEUE, message(number, f"cause {number}")))
    assert len(groups) == 11 and sum(group.messages for group in groups) == 50
    assert max(groups, key=lambda group: group.messages).fingerprint == ""


def test_a_slow_browser_stops_before_its_messages_become_visible_again() -> None:
    ticks = count()
    queue = EndlessQueue(1000, message)
    with QueueBrowser(queue, wait_seconds=0, clock=lambda: float(next(ticks))) as browser:
        seen = sum(len(batch) for batch in browser.batches())
    assert browser.ended is Ended.TIME and 0 < seen < 1000
    assert queue.given_back == seen


def test_a_browser_at_the_limit_of_messages_in_flight_reports_it_and_returns_them() -> None:
    queue = EndlessQueue(1000, message)
    queue.over_limit_at = 200
    with QueueBrowser(queue, wait_seconds=0) as browser:
        assert sum(len(batch) for batch in browser.batches()) == 200
    assert browser.ended is Ended.IN_FLIGHT_LIMIT and queue.given_back == 200


def filled(number: int) -> MemoryQueue:
    queue = MemoryQueue(QUEUE.name)
    queue.send([Outgoing(BODY.encode(), message(each).attributes) for each in range(number)])
    return queue


def test_a_browser_that_fails_returns_the_messages_it_holds() -> None:
    queue = filled(30)
    with pytest.raises(TransientFailure), QueueBrowser(queue, wait_seconds=0, batch_messages=10) as browser:
        for _ in browser.batches():
            raise TransientFailure("mongo", "unavailable")
    assert queue.depth() == QueueDepth(30, 0, 0)


def test_settled_messages_are_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    queue, returned = filled(30), list[object]()
    change = queue.change_visibility
    monkeypatch.setattr(queue, "change_visibility", lambda given: returned.extend(given) or change(given))
    with QueueBrowser(queue, wait_seconds=0, batch_messages=10) as browser:
        for batch in browser.batches():
            queue.delete(batch[:3])
            browser.settle(batch[:3])
    assert queue.depth() == QueueDepth(21, 0, 0) and len(returned) == 21


def test_only_what_the_source_confirmed_is_deleted() -> None:
    dead, source = filled(5), MemoryQueue(QUEUE.source)
    received = [read_message(QUEUE, each) for each in dead.receive(10, 0, 60)]
    source.fail = {1: False, 3: True}
    report = RedriveReport(QUEUE, dry_run=False)
    sent, _ = move(received, source, dead, report)
    assert sent == received[::2]
    assert (report.unsent, report.refused, report.doubled) == (1, 1, 0)
    assert sorted(dead.stored.messages) == sorted(each.id for each in received[1::2])


def test_a_sent_message_that_cannot_be_deleted_counts_as_doubled() -> None:
    dead, source = filled(2), MemoryQueue(QUEUE.source)
    received = [read_message(QUEUE, each) for each in dead.receive(10, 0, 60)]
    delete = dead.delete
    dead.delete = lambda messages: delete(messages[:1]) + list(messages[1:])  # type: ignore[method-assign]
    report = RedriveReport(QUEUE, dry_run=False)
    sent, _ = move(received, source, dead, report)
    assert (len(sent), report.doubled, len(source.sent)) == (2, 1, 2)
    assert [*dead.stored.messages] == [received[1].id]


def test_a_send_comes_before_its_delete() -> None:
    dead, source = filled(1), MemoryQueue(QUEUE.source)
    (received,) = (read_message(QUEUE, each) for each in dead.receive(10, 0, 60))

    def interrupt(step: str) -> None:
        assert step == "redrive.after_send" and len(source.sent) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        move([received], source, dead, RedriveReport(QUEUE, dry_run=False), on_step=interrupt)
    assert len(source.sent) == 1 and dead.depth() == QueueDepth(0, 1, 0)


def test_a_message_without_attributes_was_moved_by_the_redrive_policy() -> None:
    found = read_message(QUEUE, Received("m", "r", BODY, {"attempt": "1"}, 3, 1_790_000_000.0))
    assert (found.reason, found.first_failed) == ("RECEIVED_TOO_OFTEN", 1_790_000_000.0)
    assert found.fingerprint == read_message(QUEUE, Received("n", "s", "{}", {}, 1)).fingerprint


def test_an_unreadable_body_is_explained_and_not_shown() -> None:
    found = read_message(QUEUE, Received("m", "r", '{"type": "jane@example.com"}', {}, 1))
    assert found.unreadable == "field items is missing or malformed" and found.items == ()


def test_a_trend_compares_two_windows() -> None:
    shown = [trend(*each) for each in ((0, 0), (0, 1), (10, 16), (10, 12), (10, 6))]
    assert shown == [Trend.UNKNOWN, Trend.RISING, Trend.RISING, Trend.STEADY, Trend.FALLING]


def test_a_redriven_message_keeps_attributes_that_do_not_describe_its_failure() -> None:
    found = read_message(QUEUE, Received("m", "r", BODY, {"attempt": "9", "reason": "X", "tenant": "t"}, 1))
    assert found.revived() == Outgoing(BODY.encode(), {"tenant": "t", "attempt": "1", "origin": "m"})


def test_a_redriven_message_keeps_its_origin() -> None:
    found = read_message(QUEUE, Received("m", "r", BODY, {"origin": "first", "reason": "X"}, 1))
    assert found.revived().attributes == {"origin": "first", "attempt": "1"}


PLANTED = "PLANTED fan@planted.example.org \x1b[2J"
OURS = {
    "reason": "INVALID_ENTRY",
    "error": "field email is missing or empty",
    "fingerprint": fingerprint("INVALID_ENTRY", "field email is missing or empty"),
    "firstFailedAt": "2026-01-01T00:00:00.000Z",
    "source": "replication-queue",
    "attempt": "3",
}
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def documents(**attributes: str) -> str:
    """Everything shown of a message with these attributes, alone and in its cause."""
    found = read_message(QUEUE, Received("m1", RECEIPT, BODY, attributes, 1, 1_790_000_000.0))
    groups = Causes()
    groups.add(found)
    assessed = Assessed(found, [], DeadLetterVerdict.NEEDED)
    shown = message_document(assessed, whole=True)
    return repr((shown, [group.as_dict() for group in groups]))


def test_attributes_that_a_worker_wrote_are_shown() -> None:
    shown = documents(**OURS, correlationId="c-1", traceparent=PARENT)
    assert all(repr(value) in shown for value in (*OURS.values(), "c-1", PARENT)) and NOT_SHOWN not in shown


@pytest.mark.parametrize(
    "forged",
    [
        {"error": PLANTED},
        {"reason": PLANTED},
        {"fingerprint": PLANTED},
        {"reason": PLANTED, "error": "x", "fingerprint": fingerprint(PLANTED, "x")},
        {"firstFailedAt": PLANTED, "source": PLANTED, "fingerprint": ""},
        {"correlationId": PLANTED, "traceparent": PLANTED, "tenant": PLANTED},
    ],
)
def test_attributes_that_any_sender_can_write_are_not_shown(forged: dict[str, str]) -> None:
    shown = documents(**{**OURS, **forged})
    assert "planted" not in shown.lower() and "x1b" not in shown


def test_causes_of_other_senders_are_distinguished_without_being_shown() -> None:
    groups = Causes()
    for error in ("a", "b", "b"):
        groups.add(read_message(QUEUE, message(1, error)))
    assert [group.messages for group in groups] == [2, 1]
    assert {(group.reason, group.error) for group in groups} == {("INVALID_ENTRY", NOT_SHOWN)}


def test_field_names_that_ours_cannot_have_are_not_shown() -> None:
    text = '{"type": "entries.replicate", "version": 1, "items": [{"pk": 1, "fan@planted.example.org": 2}]}'
    found = read_message(QUEUE, Received("m1", RECEIPT, text, OURS, 1))
    document = message_document(Assessed(found, [], DeadLetterVerdict.UNREADABLE), whole=True)
    assert document["bodyFields"] == ["pk"]


def test_a_long_id_leaves_the_other_columns_their_room() -> None:
    for entry, shown in (("e1", "summer:e1"), ("e" * 900, "m1")):
        found = read_message(QUEUE, Received("m1", RECEIPT, body(entry).decode(), OURS, 1))
        assert shown_id(Assessed(found, [], DeadLetterVerdict.NEEDED)) == shown


def test_a_trend_is_one_character_an_hour_with_a_dot_for_none() -> None:
    assert sparkline([0, 1, 50, 100]) == "·▁▄█"
    assert sparkline([0, 0]) == "··" and sparkline([]) == ""
