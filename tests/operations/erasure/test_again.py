"""What came back after an erasure: put back by a writer, or by a restore of the table or of MongoDB."""

from __future__ import annotations

from typing import Any

import pytest

from regworkers_core.domain.reasons import UsageError
from regworkers_core.operations.erasure.erase import Eraser
from regworkers_core.operations.erasure.facts import SECRET
from regworkers_core.operations.erasure.operations import pending, replay
from regworkers_core.replication.reconcile.classify import Kind
from regworkers_core.replication.reconcile.reconciliation import Comparing, reconcile
from regworkers_core.runtime import Runtime
from tests.operations.dead_letters.world import FAST
from tests.operations.erasure.world import (
    Killed,
    bodies,
    dead_letters,
    enter,
    erased,
    killed_at,
    plant,
    sort_keys,
)
from tests.support.drains import replicate_all
from tests.support.entries import document, key, put, source

pytestmark = pytest.mark.namespace("module", dead_letters=FAST)

E1, E2 = key("e1"), key("e2")


def restore_table(runtime: Runtime, *images: dict[str, Any]) -> None:
    """As point-in-time recovery brings items back: as they were, with their flag cleared."""
    for image in images:
        put(runtime, key(image["entryId"]), **{**image, "needsReplication": False})


def test_what_came_back_behind_a_tombstone_is_counted_and_taken_out_again(runtime: Runtime) -> None:
    image = enter(runtime, E1)
    plant(runtime, E2)
    assert pending(runtime).as_dict()["found"] == 0 and pending(runtime).finished
    assert erased(runtime, E1).finished and erased(runtime, E2).finished
    restore_table(runtime, image)
    looked = pending(runtime)
    assert (looked.found, looked.finished) == (1, False)
    assert [id_ for id_, _ in looked.entries] == ["summer:e1"] and source(runtime, E1) is not None
    wrong = pending(runtime, confirmed=2)
    assert wrong.refused_because and not wrong.finished and source(runtime, E1) is not None
    done = pending(runtime, confirmed=1)
    assert done.finished and source(runtime, E1) is None
    assert pending(runtime).found == 0


def test_a_crash_between_tombstone_and_table_is_pending(runtime: Runtime) -> None:
    plant(runtime, E1)
    with pytest.raises(Killed):
        erased(runtime, E1, on_step=killed_at("erase.after_tombstone"))
    assert pending(runtime).found == 1
    assert pending(runtime, confirmed=1).finished and source(runtime, E1) is None


def test_of_several_entries_that_are_back_each_is_closed_and_loses_its_dead_letters(runtime: Runtime) -> None:
    for each in (E1, E2):
        enter(runtime, each, email=f"{each.entry_id}@quixilla-mail.example")
        with pytest.raises(Killed):
            erased(runtime, each, on_step=killed_at("erase.after_tombstone"))
        dead_letters(runtime, each)
    queue = runtime.queue(runtime.names.dead_letter_queue(runtime.names.replication_queue))
    held = queue.receive(10, 0, 30)
    refused = pending(runtime, confirmed=2)
    assert (refused.done, refused.finished, len(refused.left)) == (0, False, 2)
    ledger = Eraser(runtime, []).ledger
    assert [ledger.of_entry(each).done for each in (E1, E2)] == [False, False]
    queue.change_visibility([(message, 0) for message in held])
    for each in (E1, E2):
        enter(runtime, each, email=f"{each.entry_id}@quixilla-mail.example")
    assert pending(runtime, confirmed=2).finished
    assert [ledger.of_entry(each).done for each in (E1, E2)] == [True, True]
    assert source(runtime, E1) is source(runtime, E2) is None
    assert not [body for body in bodies(runtime, "replication-queue") if E1.sk in body or E2.sk in body]


def test_a_new_registration_is_not_pending(runtime: Runtime) -> None:
    enter(runtime, E1)
    assert erased(runtime, E1).finished
    later = "2126-05-01T00:00:00.000Z"
    enter(runtime, E1, createdAt=later, updatedAt=later)
    replicate_all(runtime)
    assert pending(runtime).found == 0 and replay(runtime).found == 0
    assert (document(runtime, E1) or {})["email"]


def test_a_restored_table_is_cleaned_by_the_ledger_though_mongodb_lost_the_tombstones(
    runtime: Runtime,
) -> None:
    image = enter(runtime, E1)
    other = put(runtime, E2)
    replicate_all(runtime)
    at = erased(runtime, E1).erased_at
    assert reconcile(runtime, Comparing("summer")).clean
    # Both stores of the evening before: neither knows of the erasure.
    runtime.database["entries"].delete_many({})
    restore_table(runtime, image, other)
    looked = replay(runtime)
    assert (looked.recorded, looked.found, looked.finished) == (1, 1, False)
    assert looked.entries == [("summer:e1", at)]
    done = replay(runtime, confirmed=1)
    assert done.finished and source(runtime, E1) is None and source(runtime, E2) is not None
    stored = document(runtime, E1)
    assert stored is not None and stored["erasedAt"] == at and "email" not in stored
    assert replay(runtime).found == 0


def test_a_restored_mongodb_gets_its_tombstones_back(runtime: Runtime) -> None:
    enter(runtime, E1)
    replicate_all(runtime)
    backup = document(runtime, E1)
    assert backup is not None and "email" in backup
    at = erased(runtime, E1).erased_at
    runtime.database["entries"].replace_one({"_id": E1.document_id}, backup)
    assert replay(runtime, "summer", confirmed=1).finished
    stored = document(runtime, E1)
    assert stored is not None and stored["erasedAt"] == at and "email" not in stored


def test_former_versions_that_a_restore_brought_back_go_too(runtime: Runtime) -> None:
    plant(runtime, E1)
    rows = list(runtime.database["superseded_entries"].find())
    assert erased(runtime, E1).finished
    runtime.database["superseded_entries"].insert_many(rows)
    assert replay(runtime).found == 1
    assert replay(runtime, confirmed=1).finished and runtime.superseded_entries.of_entry(E1) == []


def test_former_versions_are_read_a_page_at_a_time_and_none_is_left_out(runtime: Runtime) -> None:
    at = "2026-05-01T00:00:00.000Z"
    runtime.database["superseded_entries"].insert_many(
        {
            "_id": f"summer:e{version}@0",
            "campaignId": "summer",
            "entryId": f"e{version}",
            "former": {"_replication": {"createdAt": at, "version": version, "updatedAt": at}},
        }
        for version in range(5)
    )
    for limit in (1, 2, 5, 6):
        read = runtime.superseded_entries.orders("summer", limit)
        assert [(each.entry_id, order.version) for each, order in read] == [(f"e{n}", n) for n in range(5)]


def test_a_restore_keeps_the_registration_that_came_after_the_erasure(runtime: Runtime) -> None:
    enter(runtime, E1)
    assert erased(runtime, E1).finished
    later = "2126-05-01T00:00:00.000Z"
    enter(runtime, E1, createdAt=later, updatedAt=later)
    runtime.database["entries"].delete_many({})
    replicate_all(runtime)
    assert replay(runtime).found == 1, "its time is lost: what an older backup brings back would be let in"
    assert replay(runtime, confirmed=1).finished
    stored = document(runtime, E1)
    assert stored is not None and stored["email"] and stored["erasedAt"] < later
    assert source(runtime, E1) is not None and sort_keys(runtime) == {E1.sk}


def test_without_the_key_of_the_ledger_nothing_is_called_fine(runtime: Runtime) -> None:
    enter(runtime, E1)
    assert erased(runtime, E1).finished
    runtime.aws.client("secretsmanager").delete_secret(
        SecretId=runtime.names.prefix + SECRET, ForceDeleteWithoutRecovery=True
    )
    with pytest.raises(UsageError, match=SECRET):
        replay(runtime)
    # A new key would make the erasures before it unknown for good, and `replay` would call that fine.
    enter(runtime, E2)
    with pytest.raises(UsageError, match=SECRET):
        erased(runtime, E2)
    with pytest.raises(UsageError, match=SECRET):
        replay(runtime)
    assert source(runtime, E2) is not None


def test_nothing_was_ever_erased(runtime: Runtime) -> None:
    enter(runtime, E1)
    looked = replay(runtime)
    assert looked.finished and (looked.recorded, looked.looked_at) == (0, 0)


@pytest.mark.parametrize(
    "created_at",
    ["no time at all", "2126-01-01T12:00:00Z", "2126-01-01T20:00:00+10:00"],
)
def test_an_entry_whose_creation_its_writer_wrote_otherwise_is_erased_and_stays_so_after_a_restore(
    runtime: Runtime, created_at: str
) -> None:
    image = enter(runtime, E1, createdAt=created_at, updatedAt=created_at)
    replicate_all(runtime)
    assert (document(runtime, E1) or {})["email"]
    report = erased(runtime, E1)
    assert report.complete and not report.registered_again, report.as_dict()
    restore_table(runtime, image)
    replicate_all(runtime)
    assert "email" not in (document(runtime, E1) or {})
    assert pending(runtime).found == 1
    assert reconcile(runtime, Comparing("summer", repair=True)).counts[Kind.ERASED] == 1
    runtime.database["entries"].delete_many({})
    assert replay(runtime, confirmed=1).finished and source(runtime, E1) is None
