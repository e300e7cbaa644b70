"""The source wins in the real stores, killed anywhere and beside drains, and what it replaced comes back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from regworkers_core.adapters.mongo.entry_documents import Effect, Write
from regworkers_core.adapters.mongo.superseded import Lowering
from regworkers_core.domain.entry import Entry, Order
from regworkers_core.domain.keys import EntryKey
from regworkers_core.replication.reconcile.acceptance import Accept
from regworkers_core.replication.reconcile.reconciliation import Comparing, reconcile
from regworkers_core.replication.reconcile.undo import Now, undo_acceptance
from regworkers_core.replication.settled import settled
from regworkers_core.runtime import Runtime
from tests.replication.reconcile.crash import STEPS, accept, crash_and_repeat, undo
from tests.replication.reconcile.test_reconcile_on_real_servers import AGED, OLD, OLDER, findings, saving
from tests.support.drains import replicate_all, run
from tests.support.entries import document, key, put, remove, source

E1 = key("e1")
BACK = {"createdAt": OLDER, "updatedAt": OLDER}


class Killed(BaseException):
    pass


def killed_at(step: str) -> Callable[[str], None]:
    def on_step(name: str) -> None:
        if name == step:
            raise Killed

    return on_step


def created_again_by_a_slow_clock(runtime: Runtime, entry: EntryKey = E1) -> dict[str, Any]:
    """Ahead by the book: removed, and put again with an earlier time before the removal is saved. The document of
    the replica.
    """
    put(runtime, entry, **AGED, firstName="before")
    replicate_all(runtime)
    remove(runtime, entry)
    put(runtime, entry, **BACK, firstName="again")
    _, saved = replicate_all(runtime)
    assert saved.counts["stale"] == 1
    return document(runtime, entry) or {}


def rows(runtime: Runtime) -> list[dict[str, Any]]:
    return list(runtime.database["superseded_entries"].find())


def name_of(runtime: Runtime) -> object:
    return (document(runtime, E1) or {}).get("firstName")


def test_an_entry_that_was_created_again_by_a_slow_clock_is_cured_and_brought_back(runtime: Runtime) -> None:
    former = created_again_by_a_slow_clock(runtime)
    put(runtime, key("e2"), **AGED)
    with saving(runtime):
        run(runtime, "enqueue")
        dry = reconcile(runtime, Comparing("summer", accept=Accept()))
        assert findings(dry) == {"ahead": 1} and document(runtime, E1) == former
        done = reconcile(runtime, Comparing("summer", repair=True, accept=Accept(1)))
    assert done.clean, done.as_dict()
    assert name_of(runtime) == "again" and reconcile(runtime).clean
    assert (source(runtime, E1) or {})["needsReplication"] is False, "the draw waits for no flag"
    (row,) = rows(runtime)
    assert row["former"] == former and row["campaignId"] == "summer" and row["entryId"] == "e1"
    until = row["expiresAt"].replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) + timedelta(days=30) - until) < timedelta(minutes=5)

    listed = undo_acceptance(runtime, "summer")
    assert listed.counts[Now.RETURNABLE] == 1 and name_of(runtime) == "again"
    assert "1 can be" in listed.advice
    refused = undo_acceptance(runtime, "summer", confirmed=2)
    assert not refused.clean and name_of(runtime) == "again"
    back = undo_acceptance(runtime, "summer", confirmed=1)
    assert back.clean and back.restored == 1 and document(runtime, E1) == former
    assert findings(reconcile(runtime)) == {"ahead": 1}
    assert undo_acceptance(runtime, "summer").acceptance is None
    with saving(runtime):
        assert reconcile(runtime, Comparing(repair=True, accept=Accept(1))).clean, "it may be accepted again"
    assert len(rows(runtime)) == 1 and undo(runtime).counts[Now.RETURNABLE] == 1


def test_the_entry_stays_readable_until_the_source_s_state_is_saved(runtime: Runtime) -> None:
    former = created_again_by_a_slow_clock(runtime)
    accept(runtime, 1)
    lowered = document(runtime, E1) or {}
    assert lowered["_replication"] == {**former["_replication"], "createdAt": OLDER, "updatedAt": OLDER}
    assert {**lowered, "_replication": None} == {**former, "_replication": None}
    assert undo(runtime, 1).restored == 1 and document(runtime, E1) == former
    accept(runtime, 1)
    run(runtime, "save")
    assert name_of(runtime) == "again"


@pytest.mark.parametrize("step", ["accept.after_keep", "accept.after_lower"])
def test_an_acceptance_that_is_killed_is_simply_repeated(runtime: Runtime, step: str) -> None:
    former = created_again_by_a_slow_clock(runtime)
    with pytest.raises(Killed):
        accept(runtime, 1, killed_at(step))
    (row,) = rows(runtime)
    assert row["former"] == former
    if step == "accept.after_keep":
        assert document(runtime, E1) == former
        assert undo(runtime).counts == {**dict.fromkeys(Now, 0), Now.CURRENT: 1}
        assert accept(runtime, 1).acceptance is not None
    else:
        assert findings(reconcile(runtime, Comparing(repair=True))) == {"stale": 1}, "any repair heals it"
    run(runtime, "save")
    assert name_of(runtime) == "again" and reconcile(runtime).clean
    (row,) = rows(runtime)
    assert row["former"] == former
    assert undo(runtime, 1).restored == 1 and document(runtime, E1) == former


def test_bringing_back_that_is_killed_is_simply_repeated(runtime: Runtime) -> None:
    former = created_again_by_a_slow_clock(runtime)
    accept(runtime, 1)
    run(runtime, "save")
    with pytest.raises(Killed):
        undo(runtime, 1, on_step=killed_at("undo.after_restore"))
    assert document(runtime, E1) == former
    again = undo(runtime, 0)
    assert again.clean and again.counts[Now.CURRENT] == 1 and undo(runtime).acceptance is None
    assert document(runtime, E1) == former


# What a drain that was held up since before the acceptance may still hold, and what its write comes to.
HELD_UP = [
    (Order("2025-01-01T00:00:00.000Z", 99, OLD), Effect.STALE),
    (Order(OLDER, 0, OLDER), Effect.STALE),
    (Order(OLDER, 1, "2025-05-01T00:00:00.000Z"), Effect.STALE),
    (Order(OLDER, 1, OLDER), Effect.HEALED),
    (Order(OLDER, 2, OLDER), Effect.APPLIED),
]


def test_after_the_acceptance_no_state_older_than_the_source_s_is_saved(runtime: Runtime) -> None:
    created_again_by_a_slow_clock(runtime)
    fields = Entry.parse(E1, source(runtime, E1) or {}).fields
    accept(runtime, 1)
    for order, effect in HELD_UP:
        read = {**fields, **order.as_fields(), "firstName": "held up"}
        assert runtime.replica.apply([Write(E1, order, read, "m")], at=OLD, run_id="r") == {E1: effect}
        assert name_of(runtime) == ("before" if effect is Effect.STALE else "held up")


def test_a_removal_after_the_acceptance_leaves_a_tombstone_and_nothing_to_bring_back(
    runtime: Runtime,
) -> None:
    created_again_by_a_slow_clock(runtime)
    accept(runtime, 1)
    remove(runtime, E1)
    replicate_all(runtime)
    tombstone = document(runtime, E1) or {}
    assert "deletedAt" in tombstone and reconcile(runtime).clean
    passed = undo(runtime, 0)
    assert passed.counts[Now.REMOVED] == 1 and not passed.clean
    assert document(runtime, E1) == tombstone and undo(runtime).acceptance is None


def test_a_newer_state_since_the_acceptance_is_not_overwritten_by_bringing_back(runtime: Runtime) -> None:
    created_again_by_a_slow_clock(runtime)
    accept(runtime, 1)
    put(runtime, E1, **BACK, version=2, firstName="newest")
    replicate_all(runtime)
    listed = undo(runtime)
    assert listed.entries == [("summer:e1", Now.CHANGED)]
    assert undo(runtime, 0).restored == 0 and name_of(runtime) == "newest"


def test_only_the_last_acceptance_is_taken_back_and_then_the_one_before(runtime: Runtime) -> None:
    first = created_again_by_a_slow_clock(runtime, key("a", "summer"))
    accept(runtime, 1)
    run(runtime, "save")
    second = created_again_by_a_slow_clock(runtime, key("b", "winter"))
    accept(runtime, 1)
    run(runtime, "save")
    assert undo(runtime, 1).entries == [("winter:b", Now.RETURNABLE)]
    assert document(runtime, key("b", "winter")) == second
    assert name_at(runtime, key("a")) == "again"
    assert undo(runtime, 1).entries == [("summer:a", Now.RETURNABLE)]
    assert document(runtime, key("a")) == first


def name_at(runtime: Runtime, entry: EntryKey) -> object:
    return (document(runtime, entry) or {}).get("firstName")


def test_only_a_live_entry_with_exactly_the_custody_as_seen_is_lowered(runtime: Runtime) -> None:
    created_again_by_a_slow_clock(runtime)
    seen = runtime.replica.get([E1])[E1].custody
    lowering = Lowering(E1, seen, Order(OLDER, 1, OLDER))
    entries = runtime.database["entries"]
    for name, value in (("erasedAt", OLD), ("deletedAt", OLD), ("_replication.messageId", "other")):
        entries.update_one({"_id": E1.document_id}, {"$set": {name: value}})
        changed = document(runtime, E1)
        if name != "erasedAt":
            assert runtime.superseded_entries.keep([lowering], acceptance="a", at=OLD) == []
        runtime.superseded_entries.lower([lowering])
        assert document(runtime, E1) == changed
        entries.update_one({"_id": E1.document_id}, {"$unset": {name: ""}})
        entries.update_one({"_id": E1.document_id}, {"$set": {"_replication": dict(seen)}})
    runtime.superseded_entries.lower([lowering])
    assert runtime.replica.get([E1])[E1].order == Order(OLDER, 1, OLDER)


def test_a_field_that_only_the_new_state_has_goes_when_the_former_one_comes_back(runtime: Runtime) -> None:
    former = created_again_by_a_slow_clock(runtime)
    put(runtime, E1, **BACK, unit="household-1", memberId="m-1", needsReplication=False)
    accept(runtime, 1)
    run(runtime, "save")
    assert (document(runtime, E1) or {})["unit"] == "household-1"
    assert undo(runtime, 1).restored == 1 and document(runtime, E1) == former


def test_what_waits_for_a_draw_names_the_cure(runtime: Runtime) -> None:
    created_again_by_a_slow_clock(runtime)
    settlement = settled(runtime, "summer", sleep=lambda _seconds: None)
    found = settlement.open
    assert settlement.differences == {"ahead": 1}
    assert found[0] == "1 ahead" and len(found) == 2
    assert "regworkers reconcile --campaign summer --repair" in found[1]
    assert "--accept-source" in found[1]


def test_copies_expire_by_themselves_and_those_of_a_fan_are_found_by_an_index(runtime: Runtime) -> None:
    indexes = runtime.database["superseded_entries"].index_information().values()
    expiring = {each.get("expireAfterSeconds"): list(each["key"]) for each in indexes}
    assert expiring[0] == [("expiresAt", 1)]
    assert [("campaignId", 1), ("entryId", 1)] in [list(each["key"]) for each in indexes]


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_repeat_after_a_kill_loses_no_version_and_keeps_none_twice(runtime: Runtime, step: str) -> None:
    verdict = crash_and_repeat(runtime, step)
    assert verdict.clean, verdict
