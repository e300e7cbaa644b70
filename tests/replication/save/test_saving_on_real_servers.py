"""What becomes of entries on their way from the demand table to the replica, on the real servers."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest

from regworkers_core.adapters.mongo.replica import Replica
from regworkers_core.domain.entry import Order
from regworkers_core.domain.messages import Op, ReplicationItem
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.queue import Outgoing, Received
from regworkers_core.replication.keys import send_keys
from regworkers_core.runtime import Runtime
from tests.adapters.fakes import CommitsAndThenTimesOut
from tests.support.drains import replicate_all, run, taken
from tests.support.entries import document, item, key, put, remove, set_flag, source


def send(runtime: Runtime, *bodies: Any) -> None:
    queue = runtime.queue(runtime.names.replication_queue)
    raw = [body if isinstance(body, bytes) else orjson.dumps(body) for body in bodies]
    assert queue.send([Outgoing(body) for body in raw]) == []


def dead(runtime: Runtime) -> list[Received]:
    queue = runtime.queue(runtime.names.dead_letter_queue(runtime.names.replication_queue))
    return queue.receive(10, 0, 30)


def events(runtime: Runtime) -> list[dict[str, Any]]:
    return taken(runtime, runtime.names.analytics_queue)


def envelope(*items: Any, **changes: Any) -> dict[str, Any]:
    return {"type": "entries.replicate", "version": 1, "correlationId": "c", "items": list(items), **changes}


def named(entry_id: str) -> dict[str, Any]:
    return ReplicationItem(key(entry_id), Op.UPSERT).as_json()


def test_an_entry_reaches_the_replica_with_custody_an_event_and_a_cleared_flag(runtime: Runtime) -> None:
    written = put(runtime, key("e1"), weight=3, segments=["vip"], attributes={"deep": {"n": [1, 2.5, None]}})
    _, saved = replicate_all(runtime)
    stored = document(runtime, key("e1"))
    assert stored is not None
    for field in ("ref", "email", "firstName", "markets", "attributes", "weight", "version", "createdAt"):
        assert stored[field] == written[field]
    custody = stored["_replication"]
    assert custody["version"] == 1 and custody["runId"] == "test-run" and custody["messageId"]
    now = source(runtime, key("e1"))
    assert now is not None and now["needsReplication"] is False and now["replicatedVersion"] == 1
    (event,) = events(runtime)
    assert event["type"] == "entry.replicated" and event["subject"] == "summer:e1"
    assert "email" not in orjson.dumps(event).decode() and "Zo" not in orjson.dumps(event).decode()
    assert saved.counts["applied"] == saved.counts["cleared"] == saved.lag.count == 1


def test_a_removed_entry_leaves_a_tombstone_without_personal_data(runtime: Runtime) -> None:
    put(runtime, key("e1"), weight=2, attributes={"a": 1})
    replicate_all(runtime)
    remove(runtime, key("e1"))
    _, saved = replicate_all(runtime)
    stored = document(runtime, key("e1"))
    assert stored is not None
    assert set(stored) == {"_id", "campaignId", "entryId", "_replication", "_toRegister", "deletedAt"}
    assert stored["_replication"]["version"] == 1
    assert saved.counts["removed"] == 1
    assert [event["type"] for event in events(runtime)] == ["entry.replicated", "entry.removed"]


def test_a_late_removal_does_not_bury_the_entry_created_since(runtime: Runtime) -> None:
    old = Order("2026-01-01T00:00:00.000Z", 7, "2026-01-01T00:00:00.000Z")
    put(runtime, key("e1"), version=1, createdAt="2026-02-01T00:00:00.000Z")
    send_keys(runtime.queue(runtime.names.replication_queue), [ReplicationItem(key("e1"), Op.REMOVE, old)])
    assert run(runtime, "save").counts["applied"] == 1
    assert "deletedAt" not in (document(runtime, key("e1")) or {"deletedAt": 1})


def test_a_tombstone_yields_only_to_a_greater_order_and_says_resurrected(runtime: Runtime) -> None:
    put(runtime, key("e1"), version=5, createdAt="2026-02-01T00:00:00.000Z")
    replicate_all(runtime)
    remove(runtime, key("e1"))
    replicate_all(runtime)
    put(runtime, key("e1"), version=1, createdAt="2026-01-01T00:00:00.000Z")
    _, saved = replicate_all(runtime)
    assert saved.counts["resurrected"] == 1
    assert "deletedAt" in (document(runtime, key("e1")) or {})


def test_an_optional_field_that_vanished_vanishes_from_the_replica(runtime: Runtime) -> None:
    written = put(runtime, key("e1"), memberId="m-1", weight=2, attributes={"keep": 1, "drop": 2})
    replicate_all(runtime)
    put(runtime, key("e1"), version=2, createdAt=written["createdAt"], attributes={"keep": 1})
    replicate_all(runtime)
    stored = document(runtime, key("e1")) or {}
    assert "memberId" not in stored and "weight" not in stored and stored["attributes"] == {"keep": 1}


def test_duplicate_and_reordered_messages_change_nothing(runtime: Runtime) -> None:
    put(runtime, key("e1"), version=2)
    send(runtime, envelope(named("e1"), named("e1")), envelope(named("e1")))
    first = run(runtime, "save")
    assert first.counts["applied"] == 1 and first.counts["dropped"] == 2
    send(runtime, envelope(named("e1")))
    second = run(runtime, "save")
    assert second.counts["unchanged"] == 1
    assert len(events(runtime)) == 1


def test_a_flag_set_by_hand_heals_drift_without_a_version_bump(runtime: Runtime) -> None:
    put(runtime, key("e1"), firstName="Zoë")
    replicate_all(runtime)
    runtime.database["entries"].update_one({"_id": "summer:e1"}, {"$set": {"firstName": "drift"}})
    set_flag(runtime, key("e1"))
    _, saved = replicate_all(runtime)
    assert saved.counts["healed"] == 1 and saved.lag.count == 0
    assert (document(runtime, key("e1")) or {})["firstName"] == "Zoë"
    assert (source(runtime, key("e1")) or {})["needsReplication"] is False


def test_an_unchanged_entry_whose_flag_is_still_set_gets_its_event_and_its_clearing(runtime: Runtime) -> None:
    put(runtime, key("e1"))
    replicate_all(runtime)
    (first,) = events(runtime)
    set_flag(runtime, key("e1"))
    _, saved = replicate_all(runtime)
    assert saved.counts["unchanged"] == saved.counts["cleared"] == 1
    (second,) = events(runtime)
    assert second["id"] == first["id"]


def test_an_entry_removed_between_enqueue_and_save_is_gone_and_then_buried(runtime: Runtime) -> None:
    put(runtime, key("e1"))
    run(runtime, "enqueue")
    remove(runtime, key("e1"))
    assert run(runtime, "save").counts["gone"] == 1
    assert document(runtime, key("e1")) is None
    replicate_all(runtime)
    assert "deletedAt" in (document(runtime, key("e1")) or {})


def test_an_update_between_read_and_clear_keeps_its_flag_and_goes_round_again(runtime: Runtime) -> None:
    written = put(runtime, key("e1"), firstName="first")
    run(runtime, "enqueue")
    changed: list[int] = []

    def change(step: str) -> None:
        if step == "save.after_event" and not changed:
            changed.append(1)
            put(runtime, key("e1"), version=2, firstName="second", createdAt=written["createdAt"])

    saved = run(runtime, "save", on_step=change)
    assert saved.counts["changed_meanwhile"] == 1 and saved.counts["applied"] == 2
    assert (document(runtime, key("e1")) or {})["firstName"] == "second"
    assert (source(runtime, key("e1")) or {})["replicatedVersion"] == 2


def test_an_entry_of_an_unknown_campaign_is_saved_and_counted(runtime: Runtime) -> None:
    runtime.database["campaigns"].insert_one({"_id": "summer", "slug": "summer"})
    put(runtime, key("e1"))
    put(runtime, key("e2", "unknown"))
    _, saved = replicate_all(runtime)
    assert saved.counts["applied"] == 2 and saved.counts["unknown_campaign"] == 1


def test_numbers_as_strings_are_read_as_numbers_and_the_flag_is_still_cleared(runtime: Runtime) -> None:
    put(runtime, key("e1"), version="3", weight="2")
    replicate_all(runtime)
    stored = document(runtime, key("e1")) or {}
    assert stored["version"] == 3 and stored["weight"] == 2
    assert (source(runtime, key("e1")) or {})["needsReplication"] is False


@pytest.mark.parametrize(
    "absent", [["version"], ["createdAt"], ["updatedAt"], ["version", "createdAt", "updatedAt"]]
)
def test_an_entry_without_order_fields_is_saved_with_the_smallest_order(
    runtime: Runtime, absent: list[str]
) -> None:
    put(runtime, key("e1"), **dict.fromkeys(absent))
    replicate_all(runtime)
    stored = document(runtime, key("e1")) or {}
    for field in absent:
        assert field not in stored
        assert stored["_replication"][field] in ("", 0)
    assert (source(runtime, key("e1")) or {})["needsReplication"] is False
    assert run(runtime, "save").counts["received"] == 0


def test_an_entry_with_390_kb_of_attributes_is_saved_whole(runtime: Runtime) -> None:
    large = {"blob": "ö" * (195 * 1024)}
    put(runtime, key("e1"), attributes=large)
    replicate_all(runtime)
    assert (document(runtime, key("e1")) or {})["attributes"] == large


BAD_BODIES = [
    (b"not json", "INVALID_BODY"),
    (b"{}", "INVALID_BODY"),
    (b"[1]", "INVALID_BODY"),
    (envelope(type="entries.other"), "UNKNOWN_TYPE"),
    (envelope(version=2), "UNSUPPORTED_VERSION"),
    (envelope({"sk": "ENTRY#e"}), "MISSING_KEY"),
    (envelope({"pk": "CAMPAIGN#c", "sk": "INVITE#email#x"}), "INVALID_ENTRY"),
    (envelope("text"), "INVALID_BODY"),
]


def test_every_bad_message_is_a_dead_letter_at_once_with_its_reason_and_its_history(runtime: Runtime) -> None:
    send(runtime, *(body for body, _ in BAD_BODIES))
    saved = run(runtime, "save")
    assert saved.counts["dead_lettered"] == len(BAD_BODIES)
    dead_letters = dead(runtime)
    assert sorted(dead_letter.attributes["reason"] for dead_letter in dead_letters) == sorted(
        reason for _, reason in BAD_BODIES
    )
    for dead_letter in dead_letters:
        assert {"error", "fingerprint", "firstFailedAt", "source", "attempt"} <= set(dead_letter.attributes)
        assert dead_letter.attributes["source"] == runtime.names.replication_queue
    history = list(runtime.database["dead_letters"].find())
    assert len(history) == len(BAD_BODIES) and {each["status"] for each in history} == {"open"}
    assert runtime.queue(runtime.names.replication_queue).depth().total == 0


def test_a_repaired_entry_whose_write_lost_its_answer_has_its_event_although_no_flag_asks_for_it(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(runtime, key("e1"), needsReplication=False)
    send(runtime, envelope(named("e1")))
    collection = CommitsAndThenTimesOut(runtime.database["entries"])
    monkeypatch.setitem(vars(runtime), "replica", Replica(collection, runtime.dependency("mongo")))
    assert run(runtime, "save").counts["applied"] == 1
    assert collection.left == 0
    assert [event["type"] for event in events(runtime)] == ["entry.replicated"]


def test_a_dead_letter_is_closed_when_its_entry_is_saved_at_that_order_or_above(runtime: Runtime) -> None:
    repaired, broken, removed = key("repaired"), key("broken"), key("removed")
    created = iso(time.time())
    for entry in (repaired, broken, removed):
        put(runtime, entry, version=2, createdAt=created, email=None)
    replicate_all(runtime)
    put(runtime, repaired, version=3, createdAt=created)
    put(runtime, broken, version=1, createdAt=created)
    remove(runtime, removed)
    _, saved = replicate_all(runtime)
    assert saved.counts["letters_closed"] == 2
    dead_letters = {each["entryId"]: each for each in runtime.database["dead_letters"].find()}
    status = {entry_id: dead_letter["status"] for entry_id, dead_letter in dead_letters.items()}
    assert status == {"repaired": "resolved", "broken": "open", "removed": "resolved"}
    assert dead_letters["repaired"]["resolvedAt"] and "resolvedAt" not in dead_letters["broken"]


def test_an_empty_message_is_a_no_op(runtime: Runtime) -> None:
    send(runtime, envelope())
    saved = run(runtime, "save")
    assert saved.deliveries["acknowledged"] == 1 and saved.counts["received"] == 0


def test_a_bad_item_lands_alone_and_its_neighbours_are_saved(runtime: Runtime) -> None:
    put(runtime, key("good"))
    put(runtime, key("bad"), email=None)
    send(runtime, envelope(named("good"), named("bad"), {"pk": "x"}))
    saved = run(runtime, "save")
    assert saved.counts["applied"] == 1 and saved.counts["dead_lettered"] == 2
    dead_letters = {each.attributes["reason"]: orjson.loads(each.body)["items"] for each in dead(runtime)}
    assert dead_letters == {"INVALID_ENTRY": [named("bad")], "MISSING_KEY": [{"pk": "x"}]}


def test_an_entry_that_mongodb_cannot_hold_is_a_dead_letter_and_the_bulk_goes_on(runtime: Runtime) -> None:
    put(runtime, key("good"))
    put(runtime, key("bad"), attributes={"nul\x00key": 1})
    _, saved = replicate_all(runtime)
    assert saved.counts["applied"] == 1 and saved.counts["dead_lettered"] == 1
    assert [dead_letter.attributes["reason"] for dead_letter in dead(runtime)] == ["INVALID_ENTRY"]


def test_a_message_redriven_after_a_newer_change_saves_the_newer_change(runtime: Runtime) -> None:
    written = put(runtime, key("e1"), email=None)
    replicate_all(runtime)
    (dead_letter,) = dead(runtime)
    put(runtime, key("e1"), version=2, createdAt=written["createdAt"], firstName="fixed")
    replicate_all(runtime)
    send(runtime, dead_letter.body.encode())
    assert run(runtime, "save").counts["unchanged"] == 1
    assert (document(runtime, key("e1")) or {})["firstName"] == "fixed"


def test_lag_is_measured_from_the_last_change_to_the_replica(runtime: Runtime) -> None:
    put(runtime, key("e1"), updatedAt=iso(time.time() - 60))
    _, saved = replicate_all(runtime)
    assert 59 < (saved.lag.at(50) or 0) < 90
    assert item(key("x"))["version"] == 1


def test_a_version_above_64_bits_is_refused_and_stalls_no_one(runtime: Runtime) -> None:
    put(runtime, key("good"))
    put(runtime, key("huge"), version="9" * 30)
    enqueue, saved = replicate_all(runtime)
    assert enqueue.counts["sent"] == 2
    assert saved.counts["applied"] == 1 and saved.counts["dead_lettered"] == 1


def test_a_removal_whose_last_image_was_malformed_buries_what_was_saved_before(runtime: Runtime) -> None:
    """A version that cannot be read is no reason to keep a removed fan's data."""
    entry = key("e1")
    put(runtime, entry, version=7)
    replicate_all(runtime)
    put(runtime, entry, version="two")
    replicate_all(runtime)
    remove(runtime, entry)
    replicate_all(runtime)
    buried = document(runtime, entry)
    assert buried is not None and "email" not in buried and "deletedAt" in buried
    put(runtime, entry)
    replicate_all(runtime)
    again = document(runtime, entry)
    assert again is not None and "email" in again, "created again it is another life"


def test_of_several_lives_that_end_in_one_batch_the_latest_is_buried(runtime: Runtime) -> None:
    """A host whose clock is behind created it again, and it was removed at once."""
    entry, later, earlier = key("e1"), "2026-01-01T00:00:05.000Z", "2026-01-01T00:00:04.000Z"
    put(runtime, entry, createdAt=later)
    replicate_all(runtime)
    remove(runtime, entry)
    put(runtime, entry, createdAt=earlier)
    remove(runtime, entry)
    replicate_all(runtime)
    buried = document(runtime, entry)
    assert buried is not None and "email" not in buried
