"""Dead letters on the real queues, tables and documents, from the failure to its end."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import orjson
import pytest

from regworkers_core.adapters.aws.sqs import SqsQueue
from regworkers_core.analytics.publishing import refusal
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MessageType, Op, ReplicationItem, encode
from regworkers_core.domain.reasons import Reason, TransientFailure, UsageError
from regworkers_core.engine.leases import held_lease
from regworkers_core.engine.queue import Outgoing, Received, SendFailure
from regworkers_core.operations.dead_letters import browse
from regworkers_core.operations.dead_letters import drop as dropping
from regworkers_core.operations.dead_letters.browse import Ended, QueueBrowser, find_message, list_messages
from regworkers_core.operations.dead_letters.drop import DropOptions, ExportOptions, drop, export
from regworkers_core.operations.dead_letters.model import Choice, DeadMessage, dead_queue
from regworkers_core.operations.dead_letters.redrive import RedriveOptions, redrive
from regworkers_core.operations.dead_letters.report import RedriveEnded, count_causes
from regworkers_core.operations.dead_letters.rounds import Outcome
from regworkers_core.operations.dead_letters.verdict import Assessed, Assessor, DeadLetterVerdict
from regworkers_core.operations.on_call import pause_drain, resume_drain
from regworkers_core.replication.reconcile.classify import Kind
from regworkers_core.replication.reconcile.reconciliation import reconcile
from regworkers_core.runtime import Runtime
from tests.operations.dead_letters.world import (
    FAST,
    assessor,
    body,
    correct,
    depths,
    everything,
    recorded,
    refuse,
    replication,
    saving,
    send_dead,
)
from tests.support.drains import replicate_all, run
from tests.support.entries import document, key, put, remove

pytestmark = pytest.mark.namespace("module", dead_letters=FAST)

ACT = RedriveOptions(dry_run=False)


def test_counting_leaves_every_message_in_place_and_names_each_cause(runtime: Runtime) -> None:
    refuse(runtime, "e1", "e2", "e3")
    refuse(runtime, "x1", email="someone@example.com", markets="berlin")
    queue = replication(runtime)
    send_dead(runtime, queue, [Outgoing(body("e9"))])
    groups, seen = count_causes(runtime, [queue], Choice())
    found = [(group.reason, group.messages, group.trend.value) for group in groups]
    assert found[0] == (Reason.INVALID_ENTRY, 3, "rising")
    assert sorted(found[1:]) == [
        (Reason.INVALID_ENTRY, 1, "rising"),
        (Reason.RECEIVED_TOO_OFTEN, 1, "unknown"),
    ]
    assert (seen.messages, seen.fitting, seen.partly, seen.hidden) == (5, 5, {}, 0)
    first = next(iter(groups))
    assert first.command == f"regworkers dlq redrive {queue.source} --fingerprint {first.fingerprint}"
    assert set(first.examples) == {"summer:e1", "summer:e2", "summer:e3"}
    dead = runtime.queue(queue.name)
    assert (dead.depth().visible, dead.depth().in_flight) == (5, 0)
    assert len(everything(runtime, queue.name)) == 5


def test_each_message_is_listed_with_its_verdict(runtime: Runtime) -> None:
    refuse(runtime, "broken", "corrected", "saved", "removed")
    correct(runtime, "corrected")
    put(runtime, key("saved"), version=2)
    replicate_all(runtime)
    remove(runtime, key("removed"))
    found, _ = list_messages(runtime, [replication(runtime)], Choice(), assessor(runtime), limit=10)
    found = {assessed.message.items[0].id: (assessed.verdict, assessed.fails_again) for assessed in found}
    assert found == {
        "summer:broken": (DeadLetterVerdict.NEEDED, True),
        "summer:corrected": (DeadLetterVerdict.NEEDED, False),
        "summer:saved": (DeadLetterVerdict.SUPERSEDED, False),
        "summer:removed": (DeadLetterVerdict.GONE, False),
    }
    one, _ = find_message(runtime, replication(runtime), "summer:saved", assessor(runtime))
    assert one is not None and one.why == "source and replica hold the same state"
    none, seen = find_message(runtime, replication(runtime), "summer:none", assessor(runtime))
    assert none is None and (seen.messages, seen.partly) == (4, {})
    assert depths(runtime) == (0, 4)


def test_a_list_receives_no_more_than_it_shows(runtime: Runtime) -> None:
    queue = replication(runtime)
    send_dead(runtime, queue, [Outgoing(body(f"e{number}")) for number in range(30)])
    found, seen = list_messages(runtime, [queue], Choice(), assessor(runtime), limit=5)
    assert len(found) == 5 and seen.messages == 5 and seen.partly == {queue.name: "enough"}


def test_a_dry_run_counts_and_changes_nothing(runtime: Runtime) -> None:
    refuse(runtime, "e1", "e2")
    report = redrive(runtime, replication(runtime), assessor(runtime), RedriveOptions())
    assert (report.ended, report.finished, report.sent.total()) == (RedriveEnded.COUNTED, True, 0)
    assert "add --apply to send 2 messages" in report.advice
    assert depths(runtime) == (0, 2)
    assert runtime.operator_actions.history(what="dlq") == []


def test_corrected_entries_are_redriven_and_their_documents_close(runtime: Runtime) -> None:
    names = [f"e{number}" for number in range(8)]
    refuse(runtime, *names)
    correct(runtime, *names)
    with saving(runtime):
        report = redrive(runtime, replication(runtime), assessor(runtime), ACT, who="ada")
    assert report.finished and report.sent.total() == 8, str(report.numbers())
    run(runtime, "save")
    assert depths(runtime) == (0, 0)
    assert all(document(runtime, key(name)) for name in names)
    assert recorded(runtime, status="open") == []
    (action,) = runtime.operator_actions.history(what="dlq")
    assert (action.who, action.what, action.outcome) == ("ada", "dlq redrive", "done")
    assert action.result["sent"] == 8


def test_a_cause_that_fails_again_stops_and_no_other(runtime: Runtime) -> None:
    broken, fine = [f"b{number}" for number in range(6)], [f"f{number}" for number in range(6)]
    refuse(runtime, *broken)
    refuse(runtime, *fine, email="someone@example.com", markets="berlin")
    correct(runtime, *fine)
    with saving(runtime):
        report = redrive(runtime, replication(runtime), assessor(runtime), ACT)
    assert not report.finished
    assert list(report.stopped_causes.values()) == [Outcome.FAILED_AGAIN]
    assert sorted(report.sent.values()) == [4, 6] and report.failed == 4
    assert "failures return" in report.advice
    run(runtime, "save")
    assert depths(runtime) == (0, 6), "those that failed again are dead letters again"
    assert all(document(runtime, key(name)) for name in fine)
    assert runtime.operator_actions.history(what="dlq")[0].outcome == "stopped"


def test_without_a_drain_the_first_message_stays_unanswered_and_the_rest_stays(runtime: Runtime) -> None:
    refuse(runtime, "e1", "e2", "e3")
    options = RedriveOptions(dry_run=False, outcome_seconds=0.3)
    report = redrive(runtime, replication(runtime), assessor(runtime), options)
    assert list(report.stopped_causes.values()) == [Outcome.UNANSWERED] and not report.finished
    assert "is a drain of" in report.advice and depths(runtime) == (1, 2)


def test_nothing_is_sent_to_a_paused_drain_unless_at_once(runtime: Runtime) -> None:
    refuse(runtime, "e1", "e2")
    pause_drain(runtime, "save", "on purpose", by="ada")
    try:
        with pytest.raises(UsageError, match="by ada: on purpose; resume it first"):
            redrive(runtime, replication(runtime), assessor(runtime), ACT)
        assert depths(runtime) == (0, 2)
        assert redrive(runtime, replication(runtime), assessor(runtime), RedriveOptions()).sent.total() == 0
        at_once = RedriveOptions(dry_run=False, at_once=True)
        assert redrive(runtime, replication(runtime), assessor(runtime), at_once).sent.total() == 2
    finally:
        resume_drain(runtime, "save")


def test_a_cause_that_the_queue_refuses_stays_whole(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(runtime, *(f"e{number}" for number in range(6)))
    queue, calls = replication(runtime), list[int]()

    def refusing(_self: SqsQueue, messages: Sequence[Outgoing], **_more: object) -> list[SendFailure]:
        calls.append(len(messages))
        return [SendFailure(index, "fake", False) for index in range(len(messages))]

    monkeypatch.setattr(SqsQueue, "send", refusing)
    report = redrive(runtime, queue, assessor(runtime), ACT)
    assert list(report.stopped_causes.values()) == [Outcome.NOT_TAKEN] and not report.finished
    assert calls == [1, 1, 1, 1] and report.unsent == 4, "one odd message does not stop a cause, four do"
    assert "did not take what was sent" in report.advice
    assert runtime.queue(queue.name).depth().visible == 6, "all are given back"


def test_messages_are_returned_when_verdicts_can_no_longer_be_read(runtime: Runtime) -> None:
    queue = replication(runtime)
    send_dead(runtime, queue, [Outgoing(body("e0")) for _ in range(110)])
    reads, assess = count(), assessor(runtime)

    class Unavailable(Assessor):
        def __call__(self, messages: Sequence[DeadMessage]) -> list[Assessed]:
            if next(reads):
                raise TransientFailure("mongo", "unavailable")
            return assess(messages)

    put(runtime, key("e0"))
    with pytest.raises(TransientFailure):
        redrive(runtime, queue, Unavailable(runtime, refusal), ACT)
    assert runtime.queue(queue.name).depth().visible == 110


def test_a_redrive_that_saw_only_a_part_is_unfinished(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = replication(runtime)
    put(runtime, key("e1"))
    send_dead(runtime, queue, [Outgoing(body("e1"))])
    receives = count()

    class Short(QueueBrowser):
        def _receive(self, limit: int) -> list[Received]:
            found = super()._receive(limit)
            if found and not next(receives):
                self.ended = Ended.IN_FLIGHT_LIMIT
            return found

    monkeypatch.setattr(browse, "QueueBrowser", Short)
    options = RedriveOptions(dry_run=False, at_once=True)
    report = redrive(runtime, queue, assessor(runtime), options)
    assert report.sent.total() == 1 and report.ended is RedriveEnded.UNFINISHED
    assert not report.finished and "run it again" in report.advice
    assert redrive(runtime, queue, assessor(runtime), options).finished


def test_superseded_and_gone_messages_are_not_sent_and_can_be_dropped(runtime: Runtime) -> None:
    refuse(runtime, "saved", "removed")
    put(runtime, key("saved"), version=2)
    replicate_all(runtime)
    remove(runtime, key("removed"))
    report = redrive(runtime, replication(runtime), assessor(runtime), ACT)
    assert report.finished and report.sent.total() == 0 and depths(runtime) == (0, 2)
    assert "2 messages are superseded or gone: `regworkers dlq drop" in report.advice


def test_a_redriven_message_restarts_its_attempts_and_keeps_its_trace(runtime: Runtime) -> None:
    attributes = {"correlationId": "corr-7", "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
    failed = {
        "attempt": "20",
        "reason": "ATTEMPTS_EXHAUSTED",
        "error": "20 attempts",
        "fingerprint": "f" * 16,
    }
    failed |= {"source": "q", "firstFailedAt": "2026-01-01T00:00:00.000Z"}
    put(runtime, key("e1"))
    queue = replication(runtime)
    send_dead(runtime, queue, [Outgoing(body("e1"), attributes | failed)])
    report = redrive(runtime, queue, assessor(runtime), RedriveOptions(dry_run=False, at_once=True))
    assert report.finished and report.sent.total() == 1
    (message,) = everything(runtime, queue.source)
    origin = message.attributes["origin"]
    assert origin != message.message_id
    assert message.attributes == {**attributes, "attempt": "1", "origin": origin}


def test_a_redrive_succeeds_when_only_its_end_cannot_be_recorded(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(runtime, key("e1"))
    queue = replication(runtime)
    send_dead(runtime, queue, [Outgoing(body("e1"))])

    def unavailable(*_: object) -> None:
        raise TransientFailure("mongo", "unavailable")

    monkeypatch.setattr(runtime.operator_actions, "ends", unavailable)
    report = redrive(runtime, queue, assessor(runtime), RedriveOptions(dry_run=False, at_once=True))
    assert report.finished and report.sent.total() == 1


def test_a_second_command_names_the_one_at_work(runtime: Runtime) -> None:
    queue = replication(runtime)
    name = f"dead-letters:{queue.source}"
    with held_lease(runtime.leases, name, "other", lease_seconds=1.0) as lease:
        lease.save({"who": "grace", "what": "redrive", "since": "2026-11-25T08:00:00.000Z"})
        with pytest.raises(UsageError, match=r"worked on by grace \(redrive since 2026-11-25T08"):
            redrive(runtime, queue, assessor(runtime), ACT)


def test_messages_are_copied_to_s3_before_they_are_dropped(runtime: Runtime) -> None:
    refuse(runtime, "broken", "removed")
    remove(runtime, key("removed"))
    queue = replication(runtime)
    counted = drop(runtime, queue, assessor(runtime), DropOptions())
    assert (counted.chosen, counted.dropped) == (1, 0) and depths(runtime) == (0, 2)
    report = drop(runtime, queue, assessor(runtime), DropOptions(dry_run=False), who="ada")
    assert (report.chosen, report.dropped, report.finished) == (1, 1, True) and depths(runtime) == (0, 1)
    (copy,) = runtime.objects.list(f"dead-letters/{queue.name}/")
    (line,) = map(orjson.loads, runtime.objects.get_bytes(copy).splitlines())
    assert line["attributes"]["reason"] == "INVALID_ENTRY" and "ENTRY#removed" in line["body"]
    assert line["keepUntil"] > line["copiedAt"]
    assert [each["status"] for each in recorded(runtime, entryId="removed")] == ["resolved"]
    assert [each["status"] for each in recorded(runtime, entryId="broken")] == ["open"]


def test_a_message_that_cannot_be_deleted_is_given_back_and_the_drop_is_not_finished(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(runtime, "r1", "r2", "r3")
    for name in ("r1", "r2", "r3"):
        remove(runtime, key(name))
    queue, delete, stays = replication(runtime), SqsQueue.delete, list[Received]()

    def deletes_all_but_one(self: SqsQueue, messages: Sequence[Received]) -> list[Received]:
        if self.name == queue.name and not stays:
            stays.append(messages[0])
            return stays + delete(self, messages[1:])
        return delete(self, messages)

    monkeypatch.setattr(SqsQueue, "delete", deletes_all_but_one)
    monkeypatch.setattr(dropping, "_PART", 2)
    report = drop(runtime, queue, assessor(runtime), DropOptions(dry_run=False))
    assert (report.chosen, report.dropped, report.left, report.finished) == (3, 2, 1, False)
    assert "run it again" in report.advice
    assert runtime.operator_actions.history(what="dlq")[0].outcome == "stopped"
    assert runtime.queue(queue.name).depth().visible == 1, "given back at once"
    copies = runtime.objects.list(f"dead-letters/{queue.name}/")
    assert sum(len(runtime.objects.get_bytes(copy).splitlines()) for copy in copies) == 3 and len(copies) == 2


def test_nothing_is_deleted_that_has_no_copy(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse(runtime, "removed")
    remove(runtime, key("removed"))

    def unavailable(_key: str, _data: bytes) -> bytes:
        raise ConnectionError

    monkeypatch.setattr(runtime.objects, "put_once", unavailable)
    with pytest.raises(ConnectionError):
        drop(runtime, replication(runtime), assessor(runtime), DropOptions(dry_run=False))
    assert depths(runtime) == (0, 1)
    assert runtime.queue(replication(runtime).name).depth().visible == 1, "given back at once"


def test_nothing_is_dropped_while_another_object_has_the_key_of_its_copy(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(runtime, "removed")
    remove(runtime, key("removed"))
    monkeypatch.setattr(runtime.objects, "put_once", lambda _key, _data: b"something else")
    with pytest.raises(TransientFailure, match="holds something else"):
        drop(runtime, replication(runtime), assessor(runtime), DropOptions(dry_run=False))
    assert depths(runtime) == (0, 1) and len(recorded(runtime, status="open")) == 1


def test_dropping_a_message_of_a_state_that_is_still_refused_leaves_it_rejected(runtime: Runtime) -> None:
    old = "2026-01-01T00:00:00.000Z"
    refuse(runtime, "broken", createdAt=old, updatedAt=old)
    rejected = reconcile(runtime).counts[Kind.REJECTED]
    options = DropOptions(verdicts=frozenset({DeadLetterVerdict.NEEDED}), dry_run=False)
    assert drop(runtime, replication(runtime), assessor(runtime), options).dropped == 1
    assert reconcile(runtime).counts[Kind.REJECTED] == rejected > 0


def test_a_drop_for_one_campaign_leaves_what_others_may_need(runtime: Runtime) -> None:
    theirs = EntryKey("winter", "theirs")
    for each in (key("mine"), theirs):
        put(runtime, each)
    items = [ReplicationItem(each, Op.UPSERT).as_json() for each in (key("mine"), theirs)]
    send_dead(
        runtime,
        replication(runtime),
        [Outgoing(encode(MessageType.REPLICATE, "c", items)), Outgoing(body("mine"))],
    )
    needed, mine = frozenset({DeadLetterVerdict.NEEDED}), Choice(campaign_id="summer")
    report = drop(runtime, replication(runtime), assessor(runtime), DropOptions(mine, needed, dry_run=False))
    assert (report.chosen, report.mixed, report.dropped) == (1, 1, 1) and depths(runtime)[1] == 1
    assert "1 messages stay, for they hold items of other campaigns" in report.advice
    remove(runtime, theirs)
    alone = drop(runtime, replication(runtime), assessor(runtime), DropOptions(mine, needed, dry_run=False))
    assert (alone.mixed, alone.dropped) == (0, 1) and depths(runtime)[1] == 0


def test_unreadable_bodies_are_distinguished_from_messages_that_only_the_mailer_knows(
    runtime: Runtime,
) -> None:
    """A winner may get no other message, and both have the same cause if SQS moved them."""
    notices = dead_queue(runtime.names, "notification")
    runtime.database["outbox"].insert_one({"_id": "k", "key": "k", "status": "SENT"})
    notice = encode(MessageType.NOTIFY, "c", [{"key": "k", "campaignId": "summer"}])
    send_dead(runtime, notices, [Outgoing(notice)])
    counted = drop(runtime, notices, assessor(runtime), DropOptions())
    (group,) = counted.groups
    assert group.verdicts[DeadLetterVerdict.UNKNOWN] == 1 and counted.advice == ""
    send_dead(runtime, notices, [Outgoing(b"no json")])
    counted = drop(runtime, notices, assessor(runtime), DropOptions())
    command = f"regworkers dlq drop {notices.source} --verdict unreadable"
    assert counted.chosen == 0 and command in counted.advice
    assert command in redrive(runtime, notices, assessor(runtime), RedriveOptions()).advice
    named = DropOptions(verdicts=frozenset({DeadLetterVerdict.UNREADABLE}), dry_run=False)
    assert drop(runtime, notices, assessor(runtime), named).dropped == 1
    assert depths(runtime, notices)[1] == 1


UNREADABLE = DropOptions(verdicts=frozenset({DeadLetterVerdict.UNREADABLE}), dry_run=False)


def test_a_refused_record_of_the_stream_is_shown_not_sent_again_and_dropped(runtime: Runtime) -> None:
    queue, refused = replication(runtime), key("e\x1b[2J1", "a:b")
    put(runtime, refused)
    put(runtime, key("good"))
    replicate_all(runtime)
    assert depths(runtime) == (0, 1) and document(runtime, key("good")) is not None
    groups, _ = count_causes(runtime, [queue], Choice(), assess=assessor(runtime))
    (group,) = groups
    assert (group.reason, group.error) == ("INVALID_ENTRY", "the campaign id holds a colon")
    assert group.examples == ["a:b:e\\x1b[2J1"]
    assert group.command.endswith("--verdict unreadable")
    (shown,), _ = list_messages(runtime, [queue], Choice(campaign_id="a:b"), assessor(runtime), limit=5)
    assert shown.verdict is DeadLetterVerdict.UNREADABLE and "of shard" in shown.why
    found, _ = find_message(runtime, queue, shown.message.id, assessor(runtime))
    assert found is not None
    report = redrive(runtime, queue, assessor(runtime), ACT)
    assert report.sent.total() == 0 and depths(runtime) == (0, 1)
    assert drop(runtime, queue, assessor(runtime), UNREADABLE).dropped == 1
    assert depths(runtime) == (0, 0)


def test_messages_about_keys_that_no_table_takes_do_not_block_others(runtime: Runtime) -> None:
    """Other senders may still send such keys."""
    queue = replication(runtime)
    refuse(runtime, "e1")
    long = ReplicationItem(EntryKey("summer", "L" * 5000), Op.UPSERT).as_json()
    send_dead(
        runtime, queue, [Outgoing(encode(MessageType.REPLICATE, "c", [long]), {"reason": "INVALID_ENTRY"})]
    )
    runtime.database["dead_letters"].insert_one(
        {"_id": "old", "queue": queue.source, "status": "open", "campaignId": "summer", "entryId": "L" * 5000,
         "lastFailedAt": "2020-01-01T00:00:00.000Z"}
    )  # fmt: skip
    correct(runtime, "e1")
    with saving(runtime):
        report = redrive(runtime, queue, assessor(runtime), ACT)
    assert report.sent.total() == 1 and document(runtime, key("e1")) is not None
    assert depths(runtime)[1] == 1
    assert drop(runtime, queue, assessor(runtime), UNREADABLE).dropped == 1
    assert [each["status"] for each in recorded(runtime, _id="old")] == ["resolved"]


def test_a_message_about_a_key_beyond_the_limits_leaves_its_neighbours_alone(runtime: Runtime) -> None:
    put(runtime, key("good"))
    odd = [EntryKey("summer", "L" * 5000), EntryKey("c" * 65, "e"), EntryKey("a:b", "c")]
    items = [ReplicationItem(each, Op.UPSERT).as_json() for each in (*odd, key("good"))]
    runtime.queue(runtime.names.replication_queue).send([Outgoing(encode(MessageType.REPLICATE, "c", items))])
    report = run(runtime, "save")
    assert (report.counts["dead_lettered"], report.counts["applied"], report.counts["returned"]) == (3, 1, 0)
    assert {each["reason"] for each in recorded(runtime)} == {"INVALID_ENTRY"}


def test_an_export_copies_and_deletes_nothing(runtime: Runtime, tmp_path: object) -> None:
    queue = replication(runtime)
    send_dead(runtime, queue, [Outgoing(body(f"e{number}")) for number in range(3)])
    path = f"{tmp_path}/copies.jsonl"
    assert export(runtime, queue, ExportOptions(), path).written == 3
    with open(path, "rb") as file:  # noqa: PTH123
        assert len([orjson.loads(line) for line in file]) == 3
    on_s3 = export(runtime, queue, ExportOptions(), "s3")
    assert on_s3.place is not None and on_s3.place.startswith(f"s3://{runtime.names.bucket}/dead-letters/")
    assert depths(runtime) == (0, 3)
    with pytest.raises(UsageError, match="cannot be written"):
        export(runtime, queue, ExportOptions(), f"{tmp_path}/none/copies.jsonl")


def test_filters_choose_by_reason_campaign_cause_and_age(runtime: Runtime) -> None:
    queue = replication(runtime)
    old = {"reason": "INVALID_ENTRY", "error": "x", "firstFailedAt": "2026-01-01T00:00:00.000Z"}
    send_dead(runtime, queue, [Outgoing(body("e1"), old), Outgoing(body("e2")), Outgoing(b"{}")])

    def matching(**said: str) -> int:
        return count_causes(runtime, [queue], Choice.parse(**said))[1].fitting

    assert matching() == 3 and matching(reason="invalid_entry") == 1 and matching(campaign="summer") == 2
    assert matching(older="1d") == 1 and matching(newer="1d") == 2
    cause = next(iter(count_causes(runtime, [queue], Choice.parse(reason="INVALID_ENTRY"))[0])).fingerprint
    assert matching(fingerprint=cause[:6]) == 1
    with pytest.raises(UsageError, match="is not an age"):
        Choice.parse(older="soon")


def test_a_queue_is_found_by_any_of_its_names(runtime: Runtime) -> None:
    names = runtime.names
    for text in ("analytics", "analytics-queue", "analytics-queue-dlq", names.analytics_queue):
        assert dead_queue(names, text).name == names.dead_letter_queue(names.analytics_queue)
    with pytest.raises(UsageError, match="choose one of"):
        dead_queue(names, "demand")
