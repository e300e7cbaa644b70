"""Every class of difference, planted in the real stores, found and healed or left alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from regworkers_core.domain.keys import EntryKey
from regworkers_core.drains.runner import drain_limits, run_drain
from regworkers_core.engine.stop import StopSignal
from regworkers_core.replication.drains import SAVE
from regworkers_core.replication.reconcile.classify import Kind
from regworkers_core.replication.reconcile.reconciliation import Comparing, ReconcileResult, reconcile
from regworkers_core.runtime import Runtime
from tests.support.drains import replicate_all, run
from tests.support.entries import document, key, put, remove, source

OLD = "2026-01-01T00:00:00.000Z"
OLDER = "2025-06-01T00:00:00.000Z"
AGED = {"createdAt": OLD, "updatedAt": OLD}


@contextmanager
def saving(runtime: Runtime) -> Iterator[None]:
    """A save drain beside, as the sensor would have it."""
    stop = StopSignal()
    limits = drain_limits(runtime.settings, SAVE, idle_seconds=60, max_seconds=60)
    thread = threading.Thread(target=run_drain, args=(runtime, SAVE, limits), kwargs={"stop": stop})
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def change(runtime: Runtime, entry: EntryKey, **fields: Any) -> None:
    """Drift: someone writes to the replica directly."""
    runtime.database["entries"].update_one({"_id": entry.document_id}, {"$set": fields})


def forget(runtime: Runtime, entry: EntryKey) -> None:
    runtime.database["entries"].delete_one({"_id": entry.document_id})


def findings(result: ReconcileResult) -> dict[str, int]:
    assert result.adds_up, result.as_dict()
    return {kind.value: number for kind, number in result.counts.items() if number}


def waiting_keys(runtime: Runtime) -> int:
    return runtime.queue(runtime.names.replication_queue).depth().total


def plant_all(runtime: Runtime) -> None:
    """One of each that a repair can heal, and a sound entry."""
    for name in ("sound", "missing", "stale", "drifted", "orphan", "buried"):
        put(runtime, key(name), **AGED)
    replicate_all(runtime)
    forget(runtime, key("missing"))
    change(runtime, key("stale"), **{"_replication.createdAt": OLDER, "firstName": "old"})
    change(runtime, key("drifted"), firstName="someone else")
    remove(runtime, key("orphan"))
    remove(runtime, key("buried"))
    # The removal of the orphan is lost, that of the buried one arrives, then it comes back in its old state.
    run(runtime, "enqueue")
    queue = runtime.queue(runtime.names.replication_queue)
    queue.delete(queue.receive(10, 0, 30))
    runtime.database["entries"].update_one(
        {"_id": "summer:buried"},
        {"$set": {"deletedAt": OLD}, "$unset": {"email": "", "firstName": "", "lastName": ""}},
    )
    put(runtime, key("buried"), **AGED, needsReplication=False)


def test_a_replica_that_equals_its_source_is_clean(runtime: Runtime) -> None:
    for number in range(30):
        put(runtime, key(f"e{number}"), weight=number, attributes={"n": [1, 2.5, None], "deep": {"x": True}})
    put(runtime, key("gone"))
    put(runtime, key("e1", "winter"), memberId="m")
    replicate_all(runtime)
    remove(runtime, key("gone"))
    replicate_all(runtime)
    result = reconcile(runtime)
    assert result.clean and findings(result) == {}
    assert result.totals == {
        "source": 31,
        "replica": 31,
        "tombstones": 1,
        "matched": 31,
        "only_in_replica": 0,
    }
    assert reconcile(runtime, Comparing("winter")).totals["source"] == 1


def test_both_stores_have_a_range_of_ids_in_the_same_order_and_name_the_same_campaigns(
    runtime: Runtime,
) -> None:
    ids = ["", "A", "a", "a-", "a:", "a:b", "aé", "z", "ä", "日本", "\uffff", "😀", "😀a"]
    campaigns = ["a", "a-b", "b", "é", "😀"]
    table = [EntryKey(campaign, each) for campaign in campaigns for each in ids]
    for entry in table:
        put(runtime, entry, **AGED)
        custody = {"_replication": {"createdAt": OLD, "version": 1, "updatedAt": OLD}}
        names = {"campaignId": entry.campaign_id, "entryId": entry.entry_id}
        runtime.database["entries"].insert_one({"_id": entry.document_id, **names, **custody})
    runtime.database["entries"].insert_one({"_id": "a:b:c", "campaignId": "a:b", "entryId": "c"})
    for item in (
        {"PK": "CAMPAIGN#a", "SK": "INVITE#email#x"},
        {"PK": "OTHER#1", "SK": "s"},
        {"PK": "Z", "SK": "s"},
    ):
        runtime.dynamodb.put_item(
            TableName=runtime.names.demand_table, Item={name: {"S": text} for name, text in item.items()}
        )
    assert sorted(runtime.demand_table.campaign_ids()) == campaigns
    assert sorted(runtime.replica.campaign_ids()) == sorted([*campaigns, "a:b"])
    in_order = sorted(ids, key=str.encode)
    for first, end in [("", None), ("a", "z"), ("a:", "😀"), ("😀", None), ("b", "b")]:
        expected = [each for each in in_order if each >= first and (end is None or each < end)]
        for campaign in campaigns:
            pages = runtime.demand_table.entries(campaign, first, end) if first != end else ()
            assert [key.entry_id for page in pages for key, _ in page.items] == expected
            found = [key for key, _ in runtime.replica.entries(campaign, first, end)]
            assert found == [EntryKey(campaign, each) for each in expected]
    assert [key for key, _ in runtime.replica.entries("a:b")] == [EntryKey("a:b", "c")]


def test_a_part_reads_only_what_changed_since_on_either_side(runtime: Runtime) -> None:
    for name in ("old", "changed", "lost"):
        put(runtime, key(name), **AGED)
    replicate_all(runtime)
    since = "2026-02-01T00:00:00.000Z"
    put(runtime, key("changed"), createdAt=OLD, version=2, updatedAt=since)
    forget(runtime, key("lost"))
    result = reconcile(runtime, Comparing(since=since))
    assert findings(result) == {"stale": 1} and result.totals["source"] == 1
    assert runtime.reconcile_results.last() is None, "a part says nothing about the whole"
    assert findings(reconcile(runtime)) == {"stale": 1, "missing": 1}


def test_each_class_is_found_and_the_repair_heals_it_without_writing_the_table(runtime: Runtime) -> None:
    plant_all(runtime)
    before = {name: source(runtime, key(name)) for name in ("missing", "stale", "drifted", "buried")}
    found = reconcile(runtime)
    assert not found.clean
    assert findings(found) == {"missing": 1, "stale": 2, "orphaned": 1, "resurrected": 1}
    assert found.samples[Kind.ORPHANED] == ("summer:orphan",)
    assert found.samples[Kind.STALE] == ("summer:drifted", "summer:stale")
    assert waiting_keys(runtime) == 0, "looking sends nothing"
    with saving(runtime):
        repaired = reconcile(runtime, Comparing(repair=True))
    assert repaired.repair is not None
    assert repaired.clean, repaired.as_dict()
    assert (repaired.repair.sent, repaired.repair.removals, repaired.repair.tombstones_deleted) == (5, 1, 1)
    assert repaired.repair.healed == 5 and repaired.repair.advice == ""
    depth = runtime.queue(runtime.names.replication_queue).depth()
    assert depth.delayed == 1, "the key of the deleted tombstone comes again"
    assert "deletedAt" in (document(runtime, key("orphan")) or {})
    again = reconcile(runtime)
    assert again.clean and findings(again) == {} and again.generations == 0
    assert before == {name: source(runtime, key(name)) for name in before}


def test_a_document_without_custody_fields_is_of_the_lowest_order(runtime: Runtime) -> None:
    put(runtime, key("e1"), **AGED)
    replicate_all(runtime)
    runtime.database["entries"].update_one({"_id": "summer:e1"}, {"$unset": {"_replication": ""}})
    assert findings(reconcile(runtime)) == {"stale": 1}
    with saving(runtime):
        assert reconcile(runtime, Comparing(repair=True)).clean
    assert (document(runtime, key("e1")) or {})["_replication"]["version"] == 1


def test_the_answer_is_a_document_without_a_fan_s_data(runtime: Runtime) -> None:
    plant_all(runtime)
    text = str(reconcile(runtime).as_dict())
    assert "example.com" not in text and "Zo" not in text and "someone" not in text
