"""A look at a queue of any depth, in bounded memory, that gives everything back."""

from __future__ import annotations

import tracemalloc
from itertools import count

import pytest

from regworkers_core.cli.dlq_text import letter_document
from regworkers_core.domain.dead_letter import fingerprint
from regworkers_core.domain.messages import MessageType
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.engine.ports import Outgoing, Received
from regworkers_core.operations.dead_letters.groups import Groups, Trend, trend
from regworkers_core.operations.dead_letters.letters import NOT_SHOWN, DeadMessage, read_message
from regworkers_core.operations.dead_letters.looking import Ended, Look
from regworkers_core.operations.dead_letters.moving import Mover
from regworkers_core.operations.dead_letters.queues import DeadQueue
from regworkers_core.operations.dead_letters.truth import Judged, Verdict
from tests.operations.dead_letters.fakes import EndlessQueue, MemoryQueue
from tests.operations.dead_letters.world import body

QUEUE = DeadQueue("replication-queue", "replication-queue-dlq", MessageType.REPLICATE)
BODY = body("e1").decode()
# Of a receipt on AWS.
RECEIPT = "r" * 350
MIB = 1024 * 1024


def message(number: int, cause: str = "") -> Received:
    attributes = {"reason": "INVALID_ENTRY", "error": cause or f"cause {number % 7}"}
    return Received(f"m{number}", f"{RECEIPT}{number}", BODY, attributes, 1, 1_790_000_000.0 + number)


def letter(number: int) -> DeadMessage:
    return read_message(QUEUE, message(number))


def group_all(queue: EndlessQueue) -> tuple[Groups, Look]:
    groups = Groups()
    with Look(queue, wait_seconds=0) as look:
        for batch in look.batches():
            for each in batch:
                groups.add(read_message(QUEUE, each))
    return groups, look


def test_a_hundred_thousand_letters_are_grouped_in_one_look_and_all_given_back() -> None:
    queue = EndlessQueue(100_000, message)
    groups, look = group_all(queue)
    assert look.complete and look.seen == queue.given_back == 100_000
    assert [group.messages for group in groups] == [14_286] * 5 + [14_285] * 2
    assert queue.visibility_seconds > 100_000 / 50, "nothing comes a second time while the look lasts"


def test_a_look_does_not_take_more_memory_the_more_it_sees() -> None:
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
def test_the_command_of_a_cause_does_what_its_advice_says(reason: str, text: str, verb: str) -> None:
    (group,) = _grouped(Received("m1", RECEIPT, text, {"reason": reason}, 1, 1_790_000_000.0))
    assert f"dlq {verb} " in group.command
    assert ("then drop them" in group.advice) is (verb == "drop")


def _grouped(*messages: Received) -> Groups:
    groups = Groups()
    for each in messages:
        groups.add(read_message(QUEUE, each))
    return groups


def test_more_causes_than_anybody_reads_are_one_group_of_others() -> None:
    groups = Groups(most=10)
    for number in range(50):
        groups.add(read_message(QUEUE, message(number, f"cause {number}")))
    assert len(groups) == 11 and sum(group.messages for group in groups) == 50
    assert max(groups, key=lambda group: group.messages).fingerprint == ""


def test_a_look_that_takes_too_long_ends_before_its_messages_come_again() -> None:
    ticks = count()
    queue = EndlessQueue(1000, message)
    with Look(queue, wait_seconds=0, clock=lambda: float(next(ticks))) as look:
        seen = sum(len(batch) for batch in look.batches())
    assert look.ended is Ended.TIME and 0 < seen < 1000
    assert queue.given_back == seen


def test_a_look_at_the_limit_of_messages_in_flight_says_so_and_gives_back() -> None:
    queue = EndlessQueue(1000, message)
    queue.over_limit_at = 200
    with Look(queue, wait_seconds=0) as look:
        assert sum(len(batch) for batch in look.batches()) == 200
    assert look.ended is Ended.IN_FLIGHT_LIMIT and queue.given_back == 200


def test_a_look_that_fails_half_way_gives_back_what_it_holds() -> None:
    queue = MemoryQueue(QUEUE.name, [message(number) for number in range(30)])
    with pytest.raises(TransientFailure), Look(queue, wait_seconds=0, batch_messages=10) as look:
        for _ in look.batches():
            raise TransientFailure("mongo", "away")
    assert len(queue.waiting) == 30 and not queue.hidden


def test_what_is_settled_is_not_given_back() -> None:
    queue = MemoryQueue(QUEUE.name, [message(number) for number in range(30)])
    with Look(queue, wait_seconds=0, batch_messages=10) as look:
        for batch in look.batches():
            queue.delete(batch[:3])
            look.settled(batch[:3])
    assert len(queue.waiting) == 21 and not queue.hidden


def test_only_what_the_source_confirmed_is_deleted() -> None:
    dead = MemoryQueue(QUEUE.name, [message(number) for number in range(5)])
    received = [read_message(QUEUE, each) for each in dead.receive(10, 0, 60)]
    source = MemoryQueue(QUEUE.source)
    source.refused = {1: False, 3: True}
    moved = Mover(source, dead).move(received)
    assert [each.id for each in moved.sent] == ["m0", "m2", "m4"]
    assert (moved.unsent, moved.refused, moved.doubled) == (1, 1, 0)
    assert sorted(each.message_id for each in dead.hidden.values()) == ["m1", "m3"]


def test_one_that_was_sent_and_could_not_be_deleted_counts_as_doubled_not_as_lost() -> None:
    dead = MemoryQueue(QUEUE.name, [message(0), message(1)])
    received = [read_message(QUEUE, each) for each in dead.receive(10, 0, 60)]
    dead.undeletable = {"m1"}
    source = MemoryQueue(QUEUE.source)
    moved = Mover(source, dead).move(received)
    assert (len(moved.sent), moved.doubled, len(source.sent), len(dead.hidden)) == (2, 1, 2, 1)


def test_a_send_comes_before_its_delete() -> None:
    dead = MemoryQueue(QUEUE.name, [message(0)])
    (received,) = (read_message(QUEUE, each) for each in dead.receive(10, 0, 60))
    source = MemoryQueue(QUEUE.source)

    def interrupt(step: str) -> None:
        assert step == "redrive.after_send" and len(source.sent) == 1 and len(dead.hidden) == 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Mover(source, dead, on_step=interrupt).move([received])
    assert len(source.sent) == 1 and len(dead.hidden) == 1


def test_a_message_without_attributes_was_moved_by_the_redrive_policy() -> None:
    found = read_message(QUEUE, Received("m", "r", BODY, {"attempt": "1"}, 3, 1_790_000_000.0))
    assert (found.reason, found.first_failed) == ("RECEIVED_TOO_OFTEN", 1_790_000_000.0)
    assert found.fingerprint == read_message(QUEUE, Received("n", "s", "{}", {}, 1)).fingerprint


def test_a_body_that_cannot_be_read_tells_why_and_nothing_of_itself() -> None:
    found = read_message(QUEUE, Received("m", "r", '{"type": "jane@example.com"}', {}, 1))
    assert found.unreadable == "field items is missing or malformed" and found.items == ()


def test_a_trend_compares_two_windows() -> None:
    told = [trend(*each) for each in ((0, 0), (0, 1), (10, 16), (10, 12), (10, 6))]
    assert told == [Trend.UNKNOWN, Trend.RISING, Trend.RISING, Trend.STEADY, Trend.FALLING]


def test_a_revived_message_keeps_what_is_no_trace_of_its_failure() -> None:
    found = read_message(QUEUE, Received("m", "r", BODY, {"attempt": "9", "reason": "X", "tenant": "t"}, 1))
    assert found.revived() == Outgoing(BODY.encode(), {"tenant": "t", "attempt": "1", "origin": "m"})


def test_a_revived_message_knows_whose_part_it_is() -> None:
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
    """All that is told of a letter with these attributes, alone and in its group."""
    found = read_message(QUEUE, Received("m1", RECEIPT, BODY, attributes, 1, 1_790_000_000.0))
    groups = Groups()
    groups.add(found)
    judged = Judged(found, [], Verdict.NEEDED)
    shown = letter_document(judged, whole=True)
    return repr((shown, [group.as_dict() for group in groups]))


def test_what_a_worker_wrote_of_a_failure_is_shown() -> None:
    told = documents(**OURS, correlationId="c-1", traceparent=PARENT)
    assert all(repr(value) in told for value in (*OURS.values(), "c-1", PARENT)) and NOT_SHOWN not in told


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
def test_what_anybody_may_have_written_is_not_shown(forged: dict[str, str]) -> None:
    told = documents(**{**OURS, **forged})
    assert "planted" not in told.lower() and "x1b" not in told


def test_causes_of_others_are_told_apart_without_being_shown() -> None:
    groups = Groups()
    for error in ("a", "b", "b"):
        groups.add(read_message(QUEUE, message(1, error)))
    assert [group.messages for group in groups] == [2, 1]
    assert {(group.reason, group.error) for group in groups} == {("INVALID_ENTRY", NOT_SHOWN)}


def test_names_of_fields_that_ours_could_not_have_are_not_shown() -> None:
    text = '{"type": "entries.replicate", "version": 1, "items": [{"pk": 1, "fan@planted.example.org": 2}]}'
    found = read_message(QUEUE, Received("m1", RECEIPT, text, OURS, 1))
    document = letter_document(Judged(found, [], Verdict.UNREADABLE), whole=True)
    assert document["bodyFields"] == ["pk"]
