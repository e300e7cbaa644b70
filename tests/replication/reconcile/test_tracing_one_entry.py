"""`trace` and `replicate`: one entry, on the real stores."""

from __future__ import annotations

from typing import Any

import pytest

from regworkers_core.domain.entry import Order
from regworkers_core.domain.events import EventType, event_id
from regworkers_core.operations.trace import trace_entry
from regworkers_core.replication.reconcile.repair import replicate
from regworkers_core.runtime import Runtime
from tests.support.drains import replicate_all, run
from tests.support.entries import document, key, put, remove, source

OLD = "2026-01-01T00:00:00.000Z"
AGED = {"createdAt": OLD, "updatedAt": OLD}


def test_an_entry_in_sync_shows_both_sides_custody_lag_and_the_event_of_its_state(runtime: Runtime) -> None:
    put(runtime, key("e1"), memberId="member-77")
    replicate_all(runtime)
    trace = trace_entry(runtime, key("e1"))
    assert trace["verdict"] == "in_sync" and trace["command"] is None
    assert trace["source"]["needsReplication"] is False and trace["source"]["replicatedVersion"] == 1
    assert trace["replica"]["state"] == "live" and trace["replica"]["runId"] == "test-run"
    assert trace["lagSeconds"] >= 0
    (event,) = trace["events"]
    item = source(runtime, key("e1")) or {}
    order = Order(item["createdAt"], item["version"], item["updatedAt"])
    assert event == {
        "id": event_id(key("e1"), order, EventType.ENTRY_REPLICATED),
        "type": "entry.replicated",
    }
    for secret in ("example.com", "Zo", "member-77"):
        assert secret not in str(trace)
    # Random, and what support needs for a receipt.
    assert trace["ref"] == item["ref"]


def test_each_state_of_an_entry_has_its_verdict_and_the_command_that_helps(runtime: Runtime) -> None:
    entry, entries = key("e1"), runtime.database["entries"]

    def verdict() -> tuple[str, str | None]:
        trace = trace_entry(runtime, entry)
        return trace["verdict"], trace["command"]

    assert verdict() == ("unknown", None)
    put(runtime, entry, **AGED)
    assert verdict() == ("missing", "regworkers replicate summer e1")
    replicate_all(runtime)
    entries.update_one({"_id": "summer:e1"}, {"$set": {"firstName": "drift"}})
    assert verdict() == ("stale", "regworkers replicate summer e1")
    entries.update_one({"_id": "summer:e1"}, {"$set": {"_replication.version": 5}})
    assert verdict() == ("ahead", "regworkers reconcile --campaign summer --repair")
    remove(runtime, entry)
    assert verdict() == ("orphaned", "regworkers replicate summer e1")
    assert replicate(runtime, entry)["op"] == "remove"
    run(runtime, "save")
    assert verdict() == ("gone", None)
    put(runtime, entry, **AGED)
    assert verdict() == ("resurrected", "regworkers reconcile --campaign summer --repair --apply")


def test_a_refused_entry_is_rejected_with_its_dead_letters(runtime: Runtime) -> None:
    put(runtime, key("e1"), **AGED, email=None)
    replicate_all(runtime)
    trace = trace_entry(runtime, key("e1"))
    assert trace["verdict"] == "rejected" and trace["source"]["problem"] == "field email is missing or empty"
    (dead_letter,) = trace["deadLetters"]
    assert (dead_letter["reason"], dead_letter["status"], dead_letter["count"]) == (
        "INVALID_ENTRY",
        "open",
        1,
    )


@pytest.mark.parametrize(("fields", "young"), [({}, True), (AGED, False)], ids=["young", "old"])
def test_a_young_difference_says_that_it_may_be_lag(
    runtime: Runtime, fields: dict[str, Any], young: bool
) -> None:
    replication = runtime.settings.replication.model_copy(update={"lag_objective_seconds": 60.0})
    runtime.settings = runtime.settings.model_copy(update={"replication": replication})
    put(runtime, key("e1"), **fields)
    trace = trace_entry(runtime, key("e1"))
    assert trace["verdict"] == "missing" and trace["young"] is young
    assert ("may be mere lag" in trace["explanation"]) is young


def test_replicate_sends_the_key_although_the_flag_was_set_already(runtime: Runtime) -> None:
    put(runtime, key("e1"), **AGED)
    answer = replicate(runtime, key("e1"))
    assert answer["sent"] and answer["op"] == "upsert" and answer["correlationId"]
    assert run(runtime, "save").counts["applied"] == 1
    assert document(runtime, key("e1")) is not None


def test_replicate_of_an_entry_that_no_one_knows_or_that_is_buried_sends_nothing(runtime: Runtime) -> None:
    unknown = replicate(runtime, key("e1"))
    assert not unknown["sent"] and "Check the ids" in unknown["explanation"]
    put(runtime, key("e1"), **AGED)
    replicate_all(runtime)
    remove(runtime, key("e1"))
    replicate_all(runtime)
    assert "tombstone" in replicate(runtime, key("e1"))["explanation"]
    assert runtime.queue(runtime.names.replication_queue).depth().total == 0


def test_replicate_says_when_sending_cannot_help(runtime: Runtime) -> None:
    put(runtime, key("e1"), **AGED, version=4)
    replicate_all(runtime)
    put(runtime, key("e1"), **AGED, version=2)
    answer = replicate(runtime, key("e1"))
    assert answer["sent"] and "change nothing" in answer["explanation"]
