"""Reconcile, undo, backfill and recovery drill, at the terminal and on the launchpad."""

from __future__ import annotations

from typing import Any

import pytest

from regworkers_core.runtime import Runtime
from tests.dagster.support import job, use
from tests.replication.reconcile.test_acceptance_on_real_servers import (
    created_again_by_a_slow_clock,
    name_of,
)
from tests.replication.reconcile.test_reconcile_on_real_servers import saving
from tests.support.campaigns import create
from tests.support.drains import replicate_all, run
from tests.support.entries import document, key, put, remove
from tests.support.faces import Face
from tests.support.terminal import regworkers
from tests.support.typing_in import Typed, at_a_terminal

OLD = "2020-01-01T00:00:00.000Z"
JSON = ("--format", "json")


def test_a_comparison_names_what_differs_and_a_repair_heals_it(runtime: Runtime, face: Face) -> None:
    for name in ("kept", "lost"):
        put(runtime, key(name), updatedAt=OLD)
    replicate_all(runtime)
    runtime.database["entries"].delete_one({"_id": key("lost").document_id})
    found = face.does("reconcile")
    assert not found.fine and "1 missing, verified as of 2" in found.text and "summer:lost" in found.text
    with saving(runtime):
        healed = face.does("reconcile", apply=True, campaign_id="summer")
    assert healed.fine and "1 missing" in healed.text and "; repaired" in healed.text
    agreed = face.does("reconcile")
    assert agreed.fine and "2 entries agree, verified as of 2" in agreed.text
    (action,) = runtime.operator_actions.history()
    assert (action.what, action.target, action.result["healed"]) == ("reconcile", "summer", 1)
    for answer in (found, healed, agreed):
        assert "example.com" not in answer.text


def test_a_repair_from_an_empty_source_removes_nothing_until_its_number_is_given(
    runtime: Runtime, face: Face
) -> None:
    put(runtime, key("lost"), updatedAt=OLD)
    replicate_all(runtime)
    remove(runtime, key("lost"))
    refused = face.does("reconcile", apply=True)
    assert not refused.fine and "1 removals refused: the source holds no entry of summer" in refused.text
    assert "`--yes-remove 1`" in refused.text and "`yes_remove: 1`" in refused.text
    assert document(runtime, key("lost")) is not None
    with saving(runtime):
        assert face.does("reconcile", apply=True, yes_remove=1).fine
    assert (document(runtime, key("lost")) or {}).get("email") is None


def test_a_campaign_is_named_by_id_or_slug(runtime: Runtime, face: Face) -> None:
    create(runtime, "summer", slug="summer-tour")
    put(runtime, key("e1"), updatedAt=OLD)
    replicate_all(runtime)
    for named in ("summer", "summer-tour"):
        for command in ("trace", "replicate", "erase"):
            assert face.does(command, campaign_id=named, entry_id="e1").fine, command
        for command in ("reconcile", "backfill"):
            assert face.does(command, apply=True, campaign_id=named).fine, command
    acts = [(each.what, each.target) for each in runtime.operator_actions.history()]
    assert sorted(acts) == [
        *[("backfill", "summer")] * 2,
        *[("reconcile", "summer")] * 2,
        *[("replicate", "summer:e1")] * 2,
    ]


def test_one_entry_is_traced_and_replicated_and_shows_no_fans_data(runtime: Runtime, face: Face) -> None:
    # An id may begin with a dash.
    one = {"campaign_id": "summer", "entry_id": "-e1"}
    put(runtime, key("-e1"), updatedAt=OLD, needsReplication=False)
    missing = face.does("trace", **one)
    assert not missing.fine and "missing: " in missing.text
    assert face.does("replicate", **one).fine
    run(runtime, "save")
    found = face.does("trace", **one)
    assert found.fine and "in_sync" in found.text
    for answer in (missing, found):
        assert not [word for word in ("example.com", "Zoë", "Łukasz") if word in answer.text]
    audited = face.does("audit", what="replicate")
    assert audited.fine and "summer:-e1" in audited.text
    (action,) = runtime.operator_actions.history()
    assert (action.what, action.target, action.result["sent"]) == ("replicate", "summer:-e1", True)


def test_the_entries_are_listed_their_number_is_confirmed_and_it_is_taken_back(
    runtime: Runtime, face: Face
) -> None:
    created_again_by_a_slow_clock(runtime)
    given = {"campaign_id": "summer"}
    listed = face.does("reconcile", repair=True, **given)
    assert not listed.fine and "summer:e1" in listed.text and "--accept-source 1" in listed.text
    wrong = face.does("reconcile", apply=True, accept_source=2, **given)
    assert not wrong.fine and "were typed" in wrong.text and name_of(runtime) == "before"
    with saving(runtime):
        done = face.does("reconcile", apply=True, accept_source=1, **given)
    assert done.fine and "the source wins in 1 of 1" in done.text and name_of(runtime) == "again"
    returnable = face.does("reconcile undo", **given)
    assert returnable.fine and "1 returnable" in returnable.text and name_of(runtime) == "again"
    back = face.does("reconcile undo", apply=True, **given)
    assert back.fine and "1 restored" in back.text and name_of(runtime) == "before"
    assert "there is no acceptance to take back" in face.does("reconcile undo", **given).text
    for answer in (listed, wrong, done, returnable, back):
        assert "example.com" not in answer.text and "Łukasz" not in answer.text
    taken_back, accepted = [each for each in runtime.operator_actions.history() if each.result["acceptance"]]
    assert accepted.arguments["acceptSource"] == 1 and accepted.result["accepted"] == 1
    assert taken_back.what == "reconcile undo" and taken_back.result["restored"] == 1
    assert taken_back.result["acceptance"] == accepted.result["acceptance"]


def test_another_number_brings_nothing_back(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    created_again_by_a_slow_clock(runtime)
    with saving(runtime):
        words = ("--campaign", "summer", "--apply", "--accept-source", "1", *JSON)
        acceptance = regworkers(runtime, "reconcile", *words).document["acceptance"]
    assert (acceptance["found"], acceptance["accepted"]) == (1, 1)
    assert acceptance["entries"][0]["id"] == "summer:e1"
    typed = Typed(runtime, monkeypatch, capsys)
    at_a_terminal(monkeypatch, "3")
    assert typed("reconcile", "undo", "--apply").code == 2 and name_of(runtime) == "again"
    use(monkeypatch, runtime)
    refused = job("undo_acceptance").execute_in_process(run_config={"confirm": 3}, raise_on_error=False)
    assert not refused.success and "1 entries can be, and 3 were confirmed" in str(refused.all_events)
    assert name_of(runtime) == "again"
    assert typed("reconcile", "undo", *JSON).document["counts"]["returnable"] == 1


def test_a_table_that_was_restored_is_accepted_only_with_a_number(runtime: Runtime, face: Face) -> None:
    refused = face.does("reconcile", apply=True, after_restore=True)
    assert not refused.fine and "where it is applied" in refused.text


def test_a_cycle_repairs_nothing(runtime: Runtime, face: Face) -> None:
    assert face.does("reconcile", cycle=True).fine
    refused = face.does("reconcile", apply=True, cycle=True)
    assert not refused.fine and "repairs nothing" in refused.text


def test_a_backfill_queues_every_key_and_the_save_drain_rebuilds_the_replica(
    runtime: Runtime, face: Face
) -> None:
    names = [f"e{number}" for number in range(5)]
    for name in names:
        put(runtime, key(name))
    counted = face.does("backfill")
    assert counted.fine and "counted" in counted.text
    assert runtime.queue(runtime.names.replication_queue).depth().total == 0
    sent = face.does("backfill", apply=True, campaign_id="summer", rate=1000.0)
    assert sent.fine and "finished" in sent.text
    (action,) = runtime.operator_actions.history()
    assert (action.what, action.target, action.result["sent"]) == ("backfill", "summer", 5)
    assert run(runtime, "save").counts["applied"] == 5
    assert all(document(runtime, key(name)) for name in names)


def test_a_finished_backfill_has_a_status_and_is_neither_paused_nor_resumed(runtime: Runtime) -> None:
    none = {"state": "none has run", "sent": 0, "known": []}
    assert regworkers(runtime, "backfill", "status", *JSON).document == none
    for words in (("status", "--id", "x"), ("pause",)):
        assert regworkers(runtime, "backfill", *words).code == 2
    put(runtime, key("e1"))
    assert regworkers(runtime, "backfill", "--apply", *JSON).document["ended"] == "finished"
    for word in ("pause", "resume"):
        answer = regworkers(runtime, "backfill", word)
        assert answer.code == 2 and "is finished" in answer.stderr
    assert regworkers(runtime, "backfill", "status", "--id", "all", *JSON).document["sent"] == 1


@pytest.mark.namespace("test", reviews={"drill_max_entries": 5})
@pytest.mark.parametrize(("given", "read"), [({"max_entries": 4}, 4), ({"everything": True}, 6), ({}, 5)])
def test_a_drill_rebuilds_as_many_entries_as_asked(
    runtime: Runtime, face: Face, given: dict[str, Any], read: int
) -> None:
    for number in range(6):
        put(runtime, key(f"e{number}"))
    assert face.does("drill recovery", **given).fine
    (action,) = runtime.operator_actions.history()
    assert (action.what, action.result) == ("drill recovery", {"read": read, "differences": 0})


def test_a_drill_answers_with_one_document(runtime: Runtime) -> None:
    put(runtime, key("e1"))
    answer = regworkers(runtime, "drill", "recovery", *JSON)
    assert answer.code == 0 and (answer.document["read"], answer.document["passed"]) == (1, True)
