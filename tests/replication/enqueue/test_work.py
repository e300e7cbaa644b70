"""The filter, coalescing, messages, confirmation and lag."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from regworkers_core.adapters.aws.streams import StreamRecord, stream_record
from regworkers_core.domain.entry import LAST_VERSION
from regworkers_core.domain.messages import MAX_BYTES, DeadLetter, ReplicationItem
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import seconds
from regworkers_core.engine.defects import MOST_DEFECTS
from regworkers_core.engine.drain import Settlement
from regworkers_core.engine.drain_report import OUTCOMES
from regworkers_core.engine.settling import DeadLetterPublisher
from regworkers_core.replication.enqueue.changes import change_of
from regworkers_core.replication.enqueue.enqueue_work import EnqueueWork, invoke_enqueue
from tests.replication.enqueue.fakes import change, entry, insert
from tests.support.in_memory import MemoryQueue

UPDATED = "2026-11-25T08:00:00.000Z"
TTL = {"userIdentity": {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}}


def records(*raw: dict[str, Any]) -> list[StreamRecord]:
    return [stream_record({**each, "dynamodb": dict(each["dynamodb"])}, "s1") for each in raw]


def inserts(count: int, **fields: Any) -> list[StreamRecord]:
    return records(*(insert(f"e{number}", str(number), **fields) for number in range(count)))


@pytest.fixture
def queue() -> MemoryQueue:
    return MemoryQueue()


class NoHistory:
    def record(self, dead_letters: Sequence[DeadLetter], *, at: str, run_id: str) -> None:
        return None


def run(
    queue: MemoryQueue, batch: Sequence[StreamRecord], now: float = 0.0, dead: MemoryQueue | None = None
) -> Settlement[StreamRecord]:
    publisher = None if dead is None else DeadLetterPublisher(queue, dead, NoHistory(), run_id="r")
    work = EnqueueWork(queue, publisher=publisher, clock=lambda: now, new_id=lambda: "fresh", backoff=float)
    settlement = work(batch)
    settled = [*settlement.done, *(record for record, _ in settlement.again)]
    assert sorted(map(id, settled)) == sorted(map(id, batch)), "every record is settled once"
    counts = settlement.counts
    assert counts["received"] == len(batch) == sum(counts[outcome] for outcome in OUTCOMES)
    return settlement


def items(queue: MemoryQueue) -> list[dict[str, Any]]:
    return [item for message in queue.sent for item in orjson.loads(message.body)["items"]]


def test_a_message_carries_keys_and_order_and_nothing_of_the_fan(queue: MemoryQueue) -> None:
    mail: dict[str, Any] = {"email": {"S": "someone@example.org"}}
    run(queue, records(insert("e1", correlationId={"S": "c-1"}, **mail)))
    (message,) = queue.sent
    assert orjson.loads(message.body) == {
        "type": "entries.replicate",
        "version": 1,
        "correlationId": "c-1",
        "items": [
            {
                "pk": "CAMPAIGN#c1",
                "sk": "ENTRY#e1",
                "op": "upsert",
                "version": 1,
                "createdAt": "2026-11-25T08:00:00.000Z",
                "updatedAt": UPDATED,
            }
        ],
    }
    # A trace may be on, and is the message's as well.
    attributes = {name: text for name, text in message.attributes.items() if name != "traceparent"}
    assert attributes == {"correlationId": "c-1", "attempt": "1"}


COUNTS = {
    "an insert with the flag": insert("e1"),
    "an update with the flag": change("MODIFY", new=entry(), old=entry(flag=False)),
    "a flag set by hand without a version bump": change("MODIFY", new=entry(), old=entry(flag=False)),
    "an explicit removal": change("REMOVE", old=entry(flag=False)),
    "a removal by TTL": {**change("REMOVE", old=entry(flag=False)), **TTL},
    "an entry without entityType": change(
        "INSERT", new={name: value for name, value in entry().items() if name != "entityType"}
    ),
    "a removal without an old image": {
        "eventName": "REMOVE",
        "dynamodb": {"Keys": change("REMOVE", old=entry())["dynamodb"]["Keys"], "SequenceNumber": "1"},
    },
}
INVITE = {**entry(), "SK": {"S": "INVITE#email#x"}, "entityType": {"S": "INVITE"}}
DOES_NOT_COUNT = {
    "an update that clears the flag": change("MODIFY", new=entry(flag=False), old=entry()),
    "an insert without the flag": insert("e1", flag=False),
    "a flag that is a string": insert("e1", needsReplication={"S": "true"}),
    "an invite": change("INSERT", new=INVITE),
    "the removal of an invite": change("REMOVE", old=INVITE),
    "another kind of item under an entry's key": insert("e1", entityType={"S": "NOTE"}),
    "a key that is not an entry's": change("INSERT", new={**entry(), "PK": {"S": "VENUE#1"}}),
    "a binary key": change("INSERT", new={**entry(), "PK": {"B": b"1"}}),
}


@pytest.mark.parametrize("raw", COUNTS.values(), ids=COUNTS.keys())
def test_a_change_that_counts_is_sent(queue: MemoryQueue, raw: dict[str, Any]) -> None:
    settlement = run(queue, records(raw))
    assert len(items(queue)) == settlement.counts["sent"] == 1


@pytest.mark.parametrize("raw", DOES_NOT_COUNT.values(), ids=DOES_NOT_COUNT.keys())
def test_a_change_that_does_not_count_is_dropped_and_acknowledged(
    queue: MemoryQueue, raw: dict[str, Any]
) -> None:
    settlement = run(queue, records(raw))
    assert queue.sent == []
    assert (settlement.counts["filtered"], len(settlement.done)) == (1, 1)


def test_a_removal_carries_the_order_of_the_removed_image(queue: MemoryQueue) -> None:
    old = entry(version={"N": "7"}, created="2026-01-01T00:00:00.000Z", flag=False)
    settlement = run(queue, records(change("REMOVE", old=old)))
    (item,) = items(queue)
    assert (item["op"], item["version"], item["createdAt"]) == ("remove", 7, "2026-01-01T00:00:00.000Z")
    assert (settlement.counts["removals"], settlement.counts["upserts"]) == (1, 0)


def test_numbers_as_strings_and_missing_order_fields_are_read_leniently(queue: MemoryQueue) -> None:
    bare = {name: value for name, value in entry("e2").items() if name not in ("version", "createdAt")}
    run(queue, records(insert("e1", version={"S": "12"}), change("INSERT", new=bare, sequence="2")))
    assert [(item["version"], item["createdAt"]) for item in items(queue)] == [(12, UPDATED), (0, "")]


def test_several_records_of_one_key_become_one_item_with_the_last_state(queue: MemoryQueue) -> None:
    states = [insert("e1", str(number), version={"N": str(number)}) for number in (1, 2, 3)]
    settlement = run(queue, records(*states, insert("e2", "4")))
    assert [(item["sk"], item["version"]) for item in items(queue)] == [("ENTRY#e1", 3), ("ENTRY#e2", 1)]
    assert settlement.counts["coalesced"] == settlement.counts["dropped"] == 2
    assert len(settlement.done) == 4


def test_an_entry_that_was_removed_last_is_sent_as_a_removal(queue: MemoryQueue) -> None:
    run(queue, records(insert("e1", "1"), change("REMOVE", old=entry("e1"), sequence="2")))
    assert [item["op"] for item in items(queue)] == ["remove"]


def test_clearing_the_flag_does_not_swallow_the_change_that_set_it(queue: MemoryQueue) -> None:
    cleared = change("MODIFY", new=entry("e1", flag=False), old=entry("e1"), sequence="2")
    run(queue, records(insert("e1", "1"), cleared))
    assert len(items(queue)) == 1


def test_a_message_carries_up_to_a_hundred_keys(queue: MemoryQueue) -> None:
    settlement = run(queue, inserts(250))
    assert [len(orjson.loads(message.body)["items"]) for message in queue.sent] == [100, 100, 50]
    assert settlement.counts["messages"] == 3


def test_messages_of_long_keys_stay_within_the_size_limit(queue: MemoryQueue) -> None:
    # Six bytes each in a body.
    run(queue, records(*(insert("\uffff" * 160 + str(number), str(number)) for number in range(400))))
    assert len(items(queue)) == 400
    assert max(len(message.body) for message in queue.sent) <= MAX_BYTES


def test_a_message_of_several_correlation_ids_gets_one_of_its_own(queue: MemoryQueue) -> None:
    run(queue, records(insert("e1", correlationId={"S": "a"}), insert("e2", correlationId={"S": "b"})))
    assert queue.sent[0].attributes["correlationId"] == "fresh"


def test_only_the_records_of_failed_messages_are_tried_again(queue: MemoryQueue) -> None:
    queue.fail = {1: False}
    batch = inserts(250)
    settlement = run(queue, batch)
    assert [record for record, _ in settlement.again] == batch[100:200]
    assert (settlement.counts["sent"], settlement.counts["returned"]) == (150, 100)
    assert settlement.counts["messages"] == 2


def test_a_queue_that_is_unavailable_returns_everything_with_a_growing_delay_until_it_answers(
    queue: MemoryQueue,
) -> None:
    work = EnqueueWork(queue, backoff=float)
    queue.gate.down = True
    delays = [work(inserts(2)).again[0][1] for _ in range(3)]
    queue.gate.down = False
    assert work(inserts(2)).again == []
    queue.gate.down = True
    assert delays == [1.0, 2.0, 3.0]
    assert work(inserts(2)).again[0][1] == 1.0


def test_a_refused_message_is_kept_too_and_tried_again_rarely(queue: MemoryQueue) -> None:
    queue.fail = {0: True}
    ((_, delay),) = run(queue, inserts(1)).again
    assert delay >= 30.0


def test_a_coalesced_record_comes_again_with_its_successor_that_failed(queue: MemoryQueue) -> None:
    queue.fail = {0: False}
    batch = records(insert("e1", "1"), insert("e1", "2"))
    settlement = run(queue, batch)
    assert (settlement.done, [record for record, _ in settlement.again]) == ([], batch)


@pytest.mark.parametrize(
    ("raw", "lags"),
    [
        (insert("e1"), [2.5]),
        (change("MODIFY", new=entry(version={"N": "2"}), old=entry()), [2.5]),
        (change("MODIFY", new=entry(), old=entry(flag=False)), []),
        (change("REMOVE", old=entry()), []),
        (insert("e1", updated="yesterday"), []),
    ],
    ids=["insert", "changed order", "flag only", "removal", "no time"],
)
def test_lag_counts_from_updated_at_and_only_where_the_order_changed(
    raw: dict[str, Any], lags: list[float]
) -> None:
    now = (seconds(UPDATED) or 0) + 2.5
    assert run(MemoryQueue(), records(raw), now).lags == lags


def test_a_failed_message_adds_no_lag(queue: MemoryQueue) -> None:
    queue.fail = {0: False}
    assert run(queue, inserts(3)).lags == []


def test_the_step_after_the_send_comes_before_anything_is_acknowledged() -> None:
    queue, seen = MemoryQueue(), []
    work = EnqueueWork(queue, on_step=lambda step: seen.append((step, len(queue.sent))))
    work(inserts(1))
    assert seen == [("enqueue.after_send", 1)]


# The invocation by hand, as an operator of the old system typed it


def test_an_invocation_answers_with_the_sequence_numbers_that_were_not_sent(queue: MemoryQueue) -> None:
    event = {"Records": [insert("e1", "11"), insert("e2", "12"), insert("e3", "13", flag=False)]}
    assert invoke_enqueue(event, queue) == {"batchItemFailures": []}
    assert len(items(queue)) == 2
    queue.fail = {0: False}
    assert invoke_enqueue(event, queue) == {
        "batchItemFailures": [{"itemIdentifier": "11"}, {"itemIdentifier": "12"}]
    }


GOOD = insert("e1")
BAD_EVENTS: list[tuple[Any, str]] = [
    ({}, "Records should be a list"),
    ([], "Records should be a list"),
    ({"Records": {}}, "Records should be a list"),
    ({"Records": [7]}, r"Records\[0\] should be an object, found int"),
    ({"Records": [GOOD, {**GOOD, "eventName": "DROP"}]}, r"Records\[1\].eventName"),
    ({"Records": [{"eventName": "INSERT"}]}, r"Records\[0\].dynamodb should be an object"),
    (
        {"Records": [{**GOOD, "dynamodb": {**GOOD["dynamodb"], "SequenceNumber": 7}}]},
        r"Records\[0\].dynamodb.SequenceNumber should be",
    ),
    (
        {"Records": [{**GOOD, "dynamodb": {**GOOD["dynamodb"], "Keys": {"PK": {"S": "x"}}}}]},
        r"Records\[0\].dynamodb.Keys.SK",
    ),
    (
        {"Records": [{**GOOD, "dynamodb": {**GOOD["dynamodb"], "NewImage": "x"}}]},
        r"Records\[0\].dynamodb.NewImage should be an object, found str",
    ),
]


@pytest.mark.parametrize(("event", "message"), BAD_EVENTS)
def test_a_malformed_event_is_refused_with_the_name_of_the_field(event: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        invoke_enqueue(event, MemoryQueue())


def test_a_removal_that_is_handed_out_before_the_older_change_of_its_key_still_goes_out(
    queue: MemoryQueue,
) -> None:
    older, removal = records(insert("e1", "100"), change("REMOVE", old=entry("e1"), sequence="200"))
    settlement = run(queue, [removal, older])
    assert settlement.counts["coalesced"] == 1 and settlement.counts["removals"] == 1
    assert [item["op"] for item in items(queue)] == ["remove"]


# Removals of one key among other changes


EARLY, LATE = "2026-11-25T08:00:04.000Z", "2026-11-25T08:00:05.000Z"


def removal(created: str = EARLY, sequence: str = "1", **fields: Any) -> dict[str, Any]:
    return change("REMOVE", old=entry("e1", created=created, **fields), sequence=sequence)


def created(at: str, sequence: str) -> dict[str, Any]:
    return insert("e1", sequence, created=at)


@pytest.mark.parametrize(
    ("changes", "sent"),
    [
        ([removal(LATE, "1"), created(EARLY, "2"), removal(EARLY, "3")], ("remove", LATE, 1)),
        ([removal(EARLY, "1"), created(LATE, "2"), removal(LATE, "3")], ("remove", LATE, 1)),
        ([removal(LATE, "1"), created(EARLY, "2")], ("remove", LATE, 1)),
        ([created(EARLY, "1"), removal(EARLY, "2")], ("remove", EARLY, 1)),
        ([removal(EARLY, "1", version={"N": "10"}), removal(EARLY, "2", version={"N": "9"})], ("remove", EARLY, 10)),
        ([created(EARLY, "1"), created(LATE, "2")], ("upsert", LATE, 1)),
        ([removal(EARLY, "1", version={"S": "two"})], ("remove", EARLY, LAST_VERSION)),
        ([removal(EARLY, "1", version={"M": {}})], ("remove", EARLY, LAST_VERSION)),
        ([removal(EARLY, "1", version={"N": "1.5"}), created(LATE, "2"), removal(LATE, "3")], ("remove", LATE, 1)),
        ([removal(LATE, "1", version={"N": "1e3"}), created(EARLY, "2")], ("remove", LATE, LAST_VERSION)),
    ],
)  # fmt: skip
def test_of_the_removals_of_a_key_the_one_with_the_highest_order_is_sent(
    queue: MemoryQueue, changes: list[dict[str, Any]], sent: tuple[str, str, int]
) -> None:
    batch = records(*changes)
    settlement = run(queue, batch)
    (item,) = items(queue)
    assert (item["op"], item["createdAt"], item["version"]) == sent
    assert settlement.counts["coalesced"] == len(changes) - 1


@pytest.mark.parametrize("last", [removal(EARLY, "3"), created(EARLY, "3")], ids=["removed", "created"])
def test_the_highest_removal_goes_out_also_after_a_sending_that_failed(
    queue: MemoryQueue, last: dict[str, Any]
) -> None:
    queue.fail = {0: False}
    work = EnqueueWork(queue, backoff=float)
    settlement = work(records(removal(LATE, "1"), created(EARLY, "2"), last))
    assert queue.sent == []
    work([record for record, _ in settlement.again])
    (item,) = items(queue)
    assert (item["op"], item["createdAt"]) == ("remove", LATE)


def test_a_removal_that_a_later_creation_follows_keeps_the_lag_of_the_creation() -> None:
    now = (seconds(UPDATED) or 0) + 2.5
    assert run(MemoryQueue(), records(removal(LATE, "1"), created(EARLY, "2")), now).lags == [2.5]


# What no message can carry


HALF = "\ud800"


def under(pk: str, sk: str, sequence: str = "1", event: str = "INSERT") -> dict[str, Any]:
    image = {**entry(), "PK": {"S": pk}, "SK": {"S": sk}}
    return change(event, **({"old": image} if event == "REMOVE" else {"new": image}), sequence=sequence)


REFUSED = {
    "half a character": (under("CAMPAIGN#c", "ENTRY#" + HALF), "the entry id holds a control character"),
    "a long id": (under("CAMPAIGN#c", "ENTRY#" + "x" * 513), "the entry id is longer than 512 bytes"),
    "a colon": (under("CAMPAIGN#a:b", "ENTRY#c"), "the campaign id holds a colon"),
    "no id": (under("CAMPAIGN#c", "ENTRY#"), "the entry id is empty"),
    "a removal under such a key": (
        under("CAMPAIGN#a:b", "ENTRY#c", event="REMOVE"),
        "the campaign id holds a colon",
    ),
    "a removal without order": (
        change("REMOVE", old=entry("e1", created="x" * 65)),
        "field createdAt of the removed entry is not a time, so its removal has no order:"
        " `regworkers reconcile --repair --apply` removes what the replica still holds",
    ),
}


@pytest.mark.parametrize(("raw", "error"), REFUSED.values(), ids=REFUSED.keys())
def test_a_record_that_no_message_can_carry_is_a_dead_letter_without_its_image(
    raw: dict[str, Any], error: str
) -> None:
    queue, dead = MemoryQueue(), MemoryQueue()
    raw["dynamodb"]["SequenceNumber"] = "77"
    settlement = run(queue, records(raw, insert("good", "78")), dead=dead)
    assert [item["sk"] for item in items(queue)] == ["ENTRY#good"]
    assert settlement.counts["dead_lettered"] == 1 and not settlement.again
    (dead_letter,) = dead.sent
    (item,) = orjson.loads(dead_letter.body)["items"]
    assert (item["shard"], item["sequenceNumber"]) == ("s1", "77")
    keys = raw["dynamodb"]["Keys"]
    read = {
        name: base64.b64decode(text).decode("utf-8", "surrogatepass") for name, text in item["key"].items()
    }
    assert read == {"pk": keys["PK"]["S"], "sk": keys["SK"]["S"]}
    assert set(item) == {"shard", "sequenceNumber", "key"}
    attributes = dead_letter.attributes
    assert (attributes["reason"], attributes["error"], attributes["source"]) == (
        "INVALID_ENTRY",
        error,
        "replication-queue",
    )


def test_an_entry_whose_values_are_wrong_is_sent_all_the_same_and_the_save_reads_it_whole(
    queue: MemoryQueue,
) -> None:
    run(queue, records(insert("e1", version={"S": "two"}, created="x" * 65)))
    assert [(item["version"], item["createdAt"]) for item in items(queue)] == [(0, "")]


def test_many_changes_under_one_refused_key_are_one_dead_letter() -> None:
    dead = MemoryQueue()
    settlement = run(
        MemoryQueue(),
        records(*(under("CAMPAIGN#a:b", "ENTRY#c", str(number)) for number in range(9))),
        dead=dead,
    )
    assert len(dead.sent) == settlement.counts["dead_lettered"] == 1
    assert settlement.counts["coalesced"] == 8


def test_a_refused_record_is_not_done_before_its_dead_letter_is_confirmed() -> None:
    queue, dead = MemoryQueue(), MemoryQueue()
    dead.fail = {0: False}
    bad, good = records(under("CAMPAIGN#a:b", "ENTRY#c"), insert("good", "2"))
    settlement = run(queue, [bad, good], dead=dead)
    assert settlement.done == [good]
    assert [record for record, _ in settlement.again] == [bad]


def test_an_invocation_names_the_record_that_no_message_can_carry(queue: MemoryQueue) -> None:
    event = {"Records": [under("CAMPAIGN#a:b", "ENTRY#c", "11"), insert("good", "12")]}
    assert invoke_enqueue(event, queue) == {"batchItemFailures": [{"itemIdentifier": "11"}]}
    assert [item["sk"] for item in items(queue)] == ["ENTRY#good"]


TEXTS = st.one_of(
    st.text(max_size=5),
    st.sampled_from(["CAMPAIGN#c", "ENTRY#e", "CAMPAIGN#", "ENTRY#a:b", HALF, "x" * 2000]),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(TEXTS, inner, max_size=2)),
)
ATTRIBUTE = st.one_of(
    JSON, st.dictionaries(st.sampled_from(["S", "N", "B", "BOOL", "NULL", "M"]), JSON, max_size=2)
)
IMAGE = st.dictionaries(
    st.sampled_from(["entityType", "needsReplication", "correlationId", "createdAt", "version", "updatedAt"]),
    st.one_of(ATTRIBUTE, st.just({"BOOL": True}), st.just({"S": "ENTRY"})),
)


@given(
    event=st.sampled_from(["INSERT", "MODIFY", "REMOVE"]),
    keys=st.tuples(TEXTS.map("CAMPAIGN#".__add__), TEXTS.map("ENTRY#".__add__)),
    new=IMAGE,
    old=IMAGE,
)
def test_any_record_is_sent_dropped_or_a_dead_letter(
    event: str, keys: tuple[str, str], new: dict[str, Any], old: dict[str, Any]
) -> None:
    pk, sk = keys
    detail = {
        "Keys": {"PK": {"S": pk}, "SK": {"S": sk}},
        "SequenceNumber": "1",
        "NewImage": new,
        "OldImage": old,
    }
    queue, dead = MemoryQueue(), MemoryQueue()
    settlement = run(queue, records({"eventName": event, "dynamodb": detail}), dead=dead)
    assert len(settlement.done) == 1
    assert len(items(queue)) + len(dead.sent) + settlement.counts["filtered"] == 1
    for item in items(queue):
        ReplicationItem.parse(item)


# Records that raise


def break_reading(patch: pytest.MonkeyPatch, *sequences: str) -> None:
    """Of the records named, or of all."""

    def bug(record: StreamRecord) -> Any:
        if not sequences or record.sequence in sequences:
            raise KeyError("zoe@example.com")
        return change_of(record)

    patch.setattr("regworkers_core.replication.enqueue.changes.change_of", bug)


def test_a_record_that_raises_is_a_dead_letter_and_those_beside_it_are_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue, dead = MemoryQueue(), MemoryQueue()
    break_reading(monkeypatch, "17")
    with capture_logs():
        settlement = run(queue, inserts(100), dead=dead)
    assert len(settlement.done) == 100 and settlement.blown is None
    assert {item["sk"] for item in items(queue)} == {
        f"ENTRY#e{number}" for number in range(100) if number != 17
    }
    (dead_letter,) = dead.sent
    assert dead_letter.attributes["reason"] == "DEFECT"
    assert dead_letter.attributes["error"].startswith("KeyError at replication/enqueue/changes.py:")
    assert b"zoe" not in dead_letter.body + str(dead_letter.attributes).encode()


def test_of_one_key_a_record_that_raises_holds_up_neither_the_earlier_nor_the_later_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue, dead = MemoryQueue(), MemoryQueue()
    break_reading(monkeypatch, "2")
    batch = records(*(insert("same", str(number), version={"N": str(number)}) for number in (1, 2, 3)))
    with capture_logs():
        settlement = run(queue, batch, dead=dead)
    assert len(settlement.done) == 3 and len(dead.sent) == 1
    assert items(queue)[-1]["version"] == 3, "the last state is sent last"


def test_a_record_that_raises_is_not_done_before_its_dead_letter_is_confirmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dead = MemoryQueue()
    dead.fail = {0: False}
    break_reading(monkeypatch, "1")
    with capture_logs():
        settlement = run(MemoryQueue(), inserts(3), dead=dead)
    assert [record.sequence for record, _ in settlement.again] == ["1"]


def test_a_bug_in_every_record_makes_few_dead_letters_and_all_the_rest_goes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queue, dead = MemoryQueue(), MemoryQueue()
    work = EnqueueWork(queue, publisher=DeadLetterPublisher(queue, dead, NoHistory(), run_id="r"))
    break_reading(monkeypatch)
    with capture_logs():
        settlements = [work(inserts(7)) for _ in range(10)]
    assert 0 < len(dead.sent) <= MOST_DEFECTS
    assert settlements[-1].blown is not None and not settlements[-1].done
    assert len(settlements[-1].again) == 7
