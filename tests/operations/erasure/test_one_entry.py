"""One entry out of everywhere, killed anywhere and beside all others at work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest

from regworkers_core.adapters.aws.claims import EntryClaims
from regworkers_core.adapters.aws.sqs import SqsQueue
from regworkers_core.domain.claim import InviteType
from regworkers_core.domain.entry import lenient_order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.domain.messages import MessageType, Op, RefusedRecord, ReplicationItem, decode
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.eligibility.case import Identity
from regworkers_core.eligibility.identity import IdentitySecret
from regworkers_core.engine.leases import held_lease
from regworkers_core.engine.queue import Outgoing, Received, SendFailure
from regworkers_core.operations.erasure.erase import erase
from regworkers_core.operations.erasure.facts import PREFIX
from regworkers_core.operations.trace import trace_entry
from regworkers_core.replication.keys import send_keys
from regworkers_core.replication.reconcile.acceptance import Accept
from regworkers_core.replication.reconcile.classify import Kind, Sides
from regworkers_core.replication.reconcile.reconciliation import Comparing, Reconciliation, reconcile
from regworkers_core.replication.reconcile.segments import Segments
from regworkers_core.replication.reconcile.undo import Now, undo_acceptance
from regworkers_core.replication.saver import Saver
from regworkers_core.replication.settled import settled
from regworkers_core.runtime import Runtime
from tests.operations.dead_letters.world import FAST, without_messages
from tests.operations.erasure.world import (
    CODE,
    COMPARABLE,
    LATER,
    MAIL_ONCE,
    MARKET,
    OLD,
    OTHER,
    REF,
    SENT_WITH,
    Killed,
    bodies,
    claim,
    dead_letters,
    dead_messages,
    draw,
    drills,
    enter,
    erased,
    invite,
    items,
    killed_at,
    plant,
    sort_keys,
)
from tests.support.drains import replicate_all, run
from tests.support.entries import document, key, put, source
from tests.support.shared import emptied

pytestmark = pytest.mark.namespace("module", dead_letters=FAST)

E1 = key("e1")
STEPS = (
    "erase.after_ledger",
    "erase.after_tombstone",
    "erase.after_messages",
    "erase.after_dead_letters",
    "erase.after_invites",
    "erase.after_claims",
    "erase.after_entry",
    "erase.after_superseded",
    "erase.after_failures",
    "erase.after_staged",
    "erase.after_event",
)


def nothing_is_left(runtime: Runtime) -> None:
    """Of the fan; and all of the others is."""
    assert sort_keys(runtime) == {OTHER.sk, "INVITE#email#other@example.com"}
    stored = document(runtime, E1)
    assert stored is not None and {"deletedAt", "erasedAt"} <= set(stored)
    assert not {"email", "ref", "firstName", "_identity"} & set(stored)
    assert document(runtime, OTHER) is not None and source(runtime, OTHER) is not None
    assert runtime.superseded_entries.of_entry(E1) == []
    assert runtime.dead_letters.of_entry(E1) == [] and len(runtime.dead_letters.of_entry(OTHER)) == 2


def lines(runtime: Runtime) -> list[str]:
    """Of the ledger, without what says that they came to their end."""
    return [name for name in runtime.objects.list(PREFIX) if name.endswith(".jsonl")]


def test_a_dry_run_counts_and_changes_nothing(runtime: Runtime) -> None:
    plant(runtime, E1)
    draw(runtime, E1)
    dead_letters(runtime, E1)
    before, replica = items(runtime), document(runtime, E1)
    report = erase(runtime, E1, dry_run=True)
    assert report.numbers == {
        "entryInTheDemandTable": 1,
        "entryInTheReplica": 1,
        "invites": 3,
        "claims": 3,
        "messagesSuperseded": 2,
        "supersededEntries": 1,
        "recordedFailures": 2,
        "stagedRows": 0,
        "deadLetters": 6,
        "copies": 7,
    }
    assert items(runtime) == before and document(runtime, E1) == replica
    assert runtime.objects.list(PREFIX) == [] and report.erased_at == ""
    assert len(bodies(runtime, "replication-queue")) == 6, "the look gave all of them back"


def test_everything_of_the_fan_goes_and_all_of_the_others_stays(runtime: Runtime) -> None:
    plant(runtime, E1)
    report = erased(runtime, E1)
    assert report.finished, report.as_dict()
    nothing_is_left(runtime)
    assert report.removed.invites == 3, f"also that of {MAIL_ONCE}, which the entry had before"
    # The stream's removal arrives later, and one event says that the state was removed.
    replicate_all(runtime)
    nothing_is_left(runtime)
    events = [
        event
        for message in runtime.queue(runtime.names.analytics_queue).receive(10, 0, 30)
        for event in decode(message.body, MessageType.PUBLISH).items
        if event["type"] == "entry.removed"
    ]
    assert {event["data"]["createdAt"] for event in events} == {OLD}
    assert len({event["id"] for event in events}) == 1


FORMER = "oldmail.planted@old-planted.example"


def plant_a_former_address(runtime: Runtime) -> None:
    """Only a claim and an invite know it, and a dead letter that cannot be read names it."""
    plant(runtime, E1)
    invite(runtime, InviteType.EMAIL, FORMER)
    claim(runtime, E1, Identity.EMAIL, FORMER)
    queue = runtime.queue(runtime.names.dead_letter_queue(runtime.names.replication_queue))
    assert queue.send([Outgoing(f'{{"mail": "{FORMER}"'.encode(), {})]) == []


@pytest.mark.parametrize("step", STEPS)
def test_killed_after_any_step_the_same_command_goes_on(runtime: Runtime, step: str) -> None:
    plant_a_former_address(runtime)
    with pytest.raises(Killed):
        erased(runtime, E1, on_step=killed_at(step))
    (line,) = lines(runtime)
    report = erased(runtime, E1)
    assert report.finished, report.as_dict()
    nothing_is_left(runtime)
    assert bodies(runtime, "replication-queue") == []
    assert lines(runtime) == [line], "it is one erasure, of one time"
    assert erased(runtime, E1).finished and lines(runtime) == [line]


def test_what_it_could_not_find_it_says_and_an_unknown_entry_is_not_buried(runtime: Runtime) -> None:
    report = erased(runtime, key("unknown"))
    assert not report.known and not report.finished
    assert document(runtime, key("unknown")) is None and runtime.objects.list(PREFIX) == []


@pytest.mark.parametrize("odd", [{"version": 2**70}, {"createdAt": [OLD]}])
def test_an_entry_that_replication_refuses_is_erased_too(runtime: Runtime, odd: dict[str, Any]) -> None:
    enter(runtime, E1, **odd)
    assert erased(runtime, E1).finished
    assert source(runtime, E1) is None and "email" not in (document(runtime, E1) or {})


def test_an_entry_that_its_writer_removed_before_is_erased_by_what_is_left(runtime: Runtime) -> None:
    plant(runtime, E1)
    for held in list(runtime.entry_claims.held_by("summer", [E1.entry_id])):
        runtime.entry_claims.release(held)
    runtime.demand_table.remove(E1, source(runtime, E1) or {})
    replicate_all(runtime)
    report = erased(runtime, E1)
    assert report.finished and report.removed.superseded == 1
    assert any("mail address is unknown" in note for note in report.notes)
    assert (document(runtime, E1) or {})["erasedAt"] == report.erased_at
    assert erased(runtime, E1).notes == [], "a repeat has nothing to add"


def test_former_identities_go_too_which_only_claims_remember(runtime: Runtime) -> None:
    """The address was changed, so no version has the former one; nor has a writer that removed the entry any."""
    plant_a_former_address(runtime)
    other = claim(runtime, OTHER, Identity.EMAIL, "other@example.com")
    counted = erase(runtime, E1, dry_run=True)
    assert (counted.removed.invites, counted.removed.claims) == (4, 4)
    report = erased(runtime, E1)
    assert report.finished and (report.removed.invites, report.removed.claims) == (4, 4)
    assert report.dead_letters.messages == 1, "a body with the former address"
    assert other.key[1] in sort_keys(runtime)
    runtime.entry_claims.release(other)
    nothing_is_left(runtime)


def test_a_dead_letter_of_a_former_address_that_others_hold_is_found_by_a_repeat(runtime: Runtime) -> None:
    plant_a_former_address(runtime)
    queue = runtime.queue(runtime.names.dead_letter_queue(runtime.names.replication_queue))
    held = queue.receive(10, 0, 30)
    report = erased(runtime, E1)
    assert not report.finished and (report.removed.invites, report.removed.claims) == (0, 0)
    queue.change_visibility([(message, 0) for message in held])
    assert erased(runtime, E1).finished
    assert bodies(runtime, "replication-queue") == []
    nothing_is_left(runtime)


def test_a_registration_that_comes_meanwhile_keeps_its_invites_and_claims(runtime: Runtime) -> None:
    """The writer had removed the entry, so nothing in the table can change under the erasure but a new one."""
    plant(runtime, E1)
    runtime.demand_table.remove(E1, source(runtime, E1) or {})
    before, later = sort_keys(runtime), "2126-05-01T00:00:00.000Z"

    def register(step: str) -> None:
        if step == "erase.after_dead_letters":
            enter(runtime, E1, createdAt=later, updatedAt=later)

    report = erased(runtime, E1, on_step=register)
    assert report.registered_again == later
    assert sort_keys(runtime) == {*before, E1.sk}


def test_an_entry_that_its_writer_removed_loses_the_invites_of_its_claims(runtime: Runtime) -> None:
    plant(runtime, E1)
    runtime.database["superseded_entries"].delete_many({})
    invite(runtime, InviteType.EMAIL, "other@example.com")
    runtime.demand_table.remove(E1, source(runtime, E1) or {})
    replicate_all(runtime)
    report = erased(runtime, E1)
    # The invite of the former version has no claim, and that version is gone.
    assert report.finished and (report.removed.invites, report.removed.claims) == (2, 3)
    assert not any("mail address is unknown" in note for note in report.notes)


@pytest.mark.parametrize("step", ["erase.after_claims", "erase.after_entry"])
def test_a_claim_or_an_invite_that_is_left_is_named_by_its_hash_and_fails(
    runtime: Runtime, step: str
) -> None:
    plant(runtime, E1)
    made: list[str] = []

    def meanwhile(name: str) -> None:
        if name == step:
            invite(runtime, InviteType.EMAIL, COMPARABLE)
            made.append(claim(runtime, E1, Identity.EMAIL, COMPARABLE).key[1].rpartition("#")[2])

    report = erased(runtime, E1, on_step=meanwhile)
    assert not report.finished and not report.complete
    assert [
        f"1 {what}(s) of type email, hashed {made[0]}" in report.advice for what in ("claim", "invite")
    ] == [
        True,
        True,
    ]
    assert "planted" not in report.advice.lower()
    assert erased(runtime, E1).finished
    nothing_is_left(runtime)


def test_without_the_secret_of_the_hashes_no_erasure_says_that_it_is_complete(runtime: Runtime) -> None:
    plant(runtime, E1)
    claim(runtime, E1, Identity.EMAIL, FORMER)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(IdentitySecret, "existing", lambda _self: None)
        with pytest.raises(UsageError, match="secret eligibility-identity is missing"):
            erased(runtime, E1)
    assert erased(runtime, E1).finished


def test_an_entry_that_never_reached_the_replica_gets_a_tombstone_at_once(runtime: Runtime) -> None:
    enter(runtime, E1)
    assert erased(runtime, E1).finished
    # Its first state and its removal are still in the stream.
    replicate_all(runtime)
    stored = document(runtime, E1)
    assert stored is not None and "email" not in stored and "erasedAt" in stored


def test_a_save_drain_that_has_read_the_entry_before_cannot_bring_it_back(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    enter(runtime, E1)
    run(runtime, "enqueue")
    read = Saver._read

    def read_and_be_held_up(saver: Saver, *arguments: Any) -> Any:
        found = read(saver, *arguments)
        monkeypatch.setattr(Saver, "_read", read)
        assert erased(runtime, E1).removed.source == 1
        return found

    monkeypatch.setattr(Saver, "_read", read_and_be_held_up)
    run(runtime, "save")
    replicate_all(runtime)
    stored = document(runtime, E1)
    assert stored is not None and "email" not in stored and "erasedAt" in stored


def test_a_writer_that_changes_the_entry_meanwhile_does_not_save_it(runtime: Runtime) -> None:
    plant(runtime, E1)
    changes = iter(["second@quixilla-mail.example"])

    def change(step: str) -> None:
        if step == "erase.after_messages" and (mail := next(changes, None)):
            enter(runtime, E1, version=2, email=mail)
            claim(runtime, E1, Identity.EMAIL, mail)
            queue = runtime.names.dead_letter_queue(runtime.names.replication_queue)
            assert runtime.queue(queue).send([Outgoing(orjson.dumps({"email": mail}))]) == []

    report = erased(runtime, E1, on_step=change)
    assert report.finished and report.removed.claims == 4
    assert bodies(runtime, "replication-queue") == []
    nothing_is_left(runtime)
    replicate_all(runtime)
    nothing_is_left(runtime)


def test_a_new_registration_is_let_in_and_an_erasure_that_goes_on_leaves_it_alone(runtime: Runtime) -> None:
    plant(runtime, E1)
    with pytest.raises(Killed):
        erased(runtime, E1, on_step=killed_at("erase.after_entry"))
    later = "2126-05-01T00:00:00.000Z"
    enter(runtime, E1, createdAt=later, updatedAt=later, ref="another-ref")
    report = erased(runtime, E1)
    assert not report.finished and report.registered_again == later
    replicate_all(runtime)
    stored = document(runtime, E1)
    assert stored is not None and stored["ref"] == "another-ref" and stored["erasedAt"] == report.erased_at
    assert trace_entry(runtime, E1)["verdict"] == "in_sync"
    # Asked for once more, it is an erasure of its own.
    again = erased(runtime, E1)
    assert again.finished and again.erased_at >= later
    assert source(runtime, E1) is None and len(lines(runtime)) == 2


def test_a_claim_that_a_registration_may_rely_on_is_waited_for(runtime: Runtime) -> None:
    enter(runtime, E1)
    young = claim(runtime, E1, Identity.EMAIL, COMPARABLE, age=10.0)
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        # Meanwhile another writer takes it over.
        claims = EntryClaims(runtime.dynamodb, runtime.dependency("dynamodb"), runtime.names.demand_table)
        assert claims.claim(type(young)(young.key, "another", young.claimed_at + 30, "new"), young)

    report = erased(runtime, E1, sleep=sleep)
    assert report.finished and report.removed.claims == 0
    assert 40 < waited[0] < 60
    assert young.key[1] in sort_keys(runtime), "it is another entry's by now"


def test_messages_that_were_not_sent_never_are_and_the_code_is_listed(runtime: Runtime) -> None:
    plant(runtime, E1)
    draw(runtime, E1)
    report = erased(runtime, E1)
    assert [(each.code, each.market_id, each.status) for each in report.codes] == [
        (CODE, "berlin", "ASSIGNED")
    ]
    row = runtime.database["outbox"].find_one({"_id": MARKET.key(REF)})
    assert (row["status"], row["why"]) == ("SUPERSEDED", "erased")
    assert runtime.outbox.statuses([LATER.key(REF), MARKET.key("other")]) == {
        LATER.key(REF): "SUPERSEDED",
        MARKET.key("other"): "PENDING",
    }
    assert {"outbox", "selections", "codes", "s3 draws/"} <= {each.where for each in report.stays}
    # What it holds is no less after it.
    assert runtime.database["codes"].find_one({"_id": CODE})["status"] == "ASSIGNED"


def test_a_message_that_was_sent_stays_sent(runtime: Runtime) -> None:
    plant(runtime, E1)
    draw(runtime, E1, status="SENT")
    assert erased(runtime, E1).removed.messages == 1, "the one of the next phase"
    assert runtime.outbox.statuses([MARKET.key(REF)]) == {MARKET.key(REF): "SENT"}


def test_while_a_draw_is_at_work_its_sender_is_left_to_supersede_the_messages(runtime: Runtime) -> None:
    plant(runtime, E1)
    draw(runtime, E1)
    with held_lease(runtime.leases, "draw-summer", "a draw", lease_seconds=1.0):
        report = erased(runtime, E1)
    assert report.finished and "its sender supersedes" in report.notes[0]
    assert (document(runtime, E1) or {})["erasedAt"], "which is what the sender looks at"


def test_dead_letters_lose_what_is_about_the_fan_and_keep_the_rest(runtime: Runtime) -> None:
    plant(runtime, E1)
    dead_letters(runtime, E1)
    report = erased(runtime, E1)
    assert report.finished and (report.dead_letters.messages, report.dead_letters.copies) == (6, 7)
    left = dead_messages(runtime, "replication-queue")
    assert sorted(others(left)) == [OTHER, OTHER, OTHER]
    assert [message.attributes for message in left] == [SENT_WITH] * 3
    assert bodies(runtime, "notification-queue") == bodies(runtime, "analytics-queue") == []
    (name,) = runtime.objects.list("dead-letters/")
    kept = [orjson.loads(line) for line in runtime.objects.get_bytes(name).splitlines()]
    assert sorted(line["body"] for line in kept) == sorted(message.body for message in left)
    queue = runtime.names.dead_letter_queue(runtime.names.replication_queue)
    assert [line["queue"] for line in kept] == [queue] * 3


def others(messages: Sequence[Received]) -> list[EntryKey]:
    """The entry of each message, which has one item."""
    found = []
    for message in messages:
        (item,) = decode(message.body, MessageType.REPLICATE).items
        record = RefusedRecord.parse(item)
        key = EntryKey.parse(record.pk, record.sk) if record else EntryKey.parse(item["pk"], item["sk"])
        assert key is not None
        found.append(key)
    return found


def test_a_dead_letter_that_cannot_be_replaced_is_not_called_gone_and_loses_no_other_fan(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(runtime, E1)
    dead_letters(runtime, E1)
    before = len(bodies(runtime, "replication-queue"))
    for call, answer in (("send", [SendFailure(0, "fake", False)]), ("delete", ["the receipt of one"])):
        works = getattr(SqsQueue, call)

        def refuses(queue: SqsQueue, messages: Any, works: Any = works, answer: Any = answer) -> Any:
            return answer if queue.name.endswith("-dlq") else works(queue, messages)

        with (
            monkeypatch.context() as patched,
            pytest.raises(TransientFailure, match=r"not (confirmed|deleted)"),
        ):
            patched.setattr(SqsQueue, call, refuses)
            erased(runtime, E1)
        assert len(bodies(runtime, "replication-queue")) >= before
    assert erased(runtime, E1).finished
    assert set(others(dead_messages(runtime, "replication-queue"))) == {OTHER}, "the mail address, too"


def test_rows_of_every_drill_go_and_those_of_others_stay(runtime: Runtime) -> None:
    plant(runtime, E1)
    made = drills(runtime, E1)
    try:
        assert erase(runtime, E1, dry_run=True).removed.staged == 2
        report = erased(runtime, E1)
        assert report.finished and report.removed.staged == 2
        assert [[row["_id"] for row in each.find()] for each in made] == [[OTHER.document_id]] * 2
    finally:
        for each in made:
            each.database.client.drop_database(each.database.name)


def test_dead_letters_that_others_hold_are_reported_and_a_repeat_removes_them(runtime: Runtime) -> None:
    plant(runtime, E1)
    dead_letters(runtime, E1)
    names = runtime.names
    queues = [
        runtime.queue(names.dead_letter_queue(name))
        for name in (names.replication_queue, names.notification_queue)
    ]
    held = [queue.receive(10, 0, 30) for queue in queues]
    report = erased(runtime, E1)
    assert not report.finished and all(queue.name in report.left[0] for queue in queues)
    for queue, messages in zip(queues, held, strict=True):
        queue.change_visibility([(message, 0) for message in messages])
    assert source(runtime, E1) is not None, "it names the fan"
    assert erased(runtime, E1).finished
    assert set(others(dead_messages(runtime, "replication-queue"))) == {OTHER}


def test_reconcile_names_it_repairs_nothing_and_the_draw_does_not_wait_for_it(runtime: Runtime) -> None:
    image = enter(runtime, E1)
    replicate_all(runtime)
    assert erased(runtime, E1).finished
    replicate_all(runtime)
    put(runtime, E1, **{**image, "needsReplication": False})
    replicate_all(runtime)
    result = reconcile(runtime, Comparing("summer", repair=True))
    assert result.counts[Kind.ERASED] == 1 and sum(result.counts.values()) == 1 and result.adds_up
    assert not result.clean and "erasures repeat" in result.explanations[Kind.ERASED]
    assert result.repair is not None and (result.repair.sent, result.repair.tombstones_deleted) == (0, 0)
    assert settled(runtime, "summer", sleep=lambda _seconds: None).open == ()
    traced = trace_entry(runtime, E1)
    assert traced["verdict"] == "erased" and "erasures repeat" in traced["command"]


def test_a_former_version_that_was_copied_too_late_is_not_brought_back(runtime: Runtime) -> None:
    plant(runtime, E1)
    rows = list(runtime.database["superseded_entries"].find())
    assert erased(runtime, E1).finished
    runtime.database["superseded_entries"].insert_many(rows)
    runtime.database["campaigns"].insert_one({"_id": "summer", "slug": "summer"})
    looked = undo_acceptance(runtime)
    assert looked.counts[Now.ERASED] == 1 and not looked.clean
    done = undo_acceptance(runtime, confirmed=0)
    assert done.restored == 0 and runtime.superseded_entries.of_entry(E1) == []
    assert "email" not in (document(runtime, E1) or {})


def test_an_acceptance_that_copies_while_the_fan_is_erased_keeps_no_copy(runtime: Runtime) -> None:
    enter(runtime, E1, createdAt=OLD, version=3)
    replicate_all(runtime)
    enter(runtime, E1, createdAt=OLD, version=2)
    flow = Reconciliation(
        Sides(runtime.demand_table, runtime.replica, runtime.dead_letters),
        runtime.queue(runtime.names.replication_queue),
        runtime.settings.replication.model_copy(update={"lag_objective_seconds": 0.05}),
        segments=Segments(runtime.leases, lease_seconds=1),
        superseded=runtime.superseded_entries,
        visibility_seconds=1,
        # Between the copy and the lowering; what the erasure finds is put back, as if it had looked before.
        on_step=lambda step: erased_before_the_copy(runtime) if step == "accept.after_keep" else None,
    )
    result = flow.run(Comparing("summer", repair=True, accept=Accept(1)))
    assert result.acceptance is not None and result.acceptance.accepted == 0
    assert runtime.superseded_entries.of_entry(E1) == []
    stored = document(runtime, E1)
    assert stored is not None and "email" not in stored and stored["erasedAt"]


def erased_before_the_copy(runtime: Runtime) -> None:
    copies = list(runtime.database["superseded_entries"].find())
    assert len(copies) == 1 and erased(runtime, E1).finished
    runtime.database["superseded_entries"].insert_many(copies)


def test_a_writer_whose_clock_is_ahead_is_reported(runtime: Runtime) -> None:
    ahead = "2126-01-01T00:00:00.000Z"
    enter(runtime, E1, createdAt=ahead, updatedAt=ahead)
    replicate_all(runtime)
    report = erased(runtime, E1)
    assert report.finished and report.erased_at == ahead
    assert any(ahead in note for note in report.notes)


def test_a_key_on_the_queue_is_refused_without_an_event_of_the_fan(runtime: Runtime) -> None:
    image = enter(runtime, E1)
    replicate_all(runtime)
    assert erased(runtime, E1).finished
    put(runtime, E1, **image)
    without_messages(emptied(runtime))
    runtime.replica.erase(E1, lenient_order(image), at=OLD, run_id="test")
    send_keys(runtime.queue(runtime.names.replication_queue), [ReplicationItem(E1, Op.UPSERT)])
    report = run(runtime, "save")
    assert report.counts["resurrected"] == 1 and report.counts["events"] == 0
    assert (source(runtime, E1) or {})["needsReplication"] is True, "nothing says that it was replicated"
