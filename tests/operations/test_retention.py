"""What is over goes after its time, what is not stays, and a dry run changes nothing; on the real servers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import iso
from regworkers_core.engine.stop import StopSignal
from regworkers_core.operations import upkeep
from regworkers_core.operations.retention import (
    Documents,
    PartResult,
    RetentionPart,
    RetentionReport,
    all_parts,
    apply_retention,
)
from regworkers_core.replication.scratch_database import Scratch
from regworkers_core.runtime import Runtime
from tests.support.faces import Face

NOW = time.time()
DAYS = {"alerts_days": 10, "dead_letters_days": 10, "operator_actions_days": 20, "reviews_days": 30}

pytestmark = pytest.mark.namespace("module", housekeeping=DAYS)


def ago(days: float) -> str:
    return iso(NOW - days * 24 * 3600)


# By collection: what shall go, and what shall stay.
GOES: dict[str, list[dict[str, Any]]] = {
    "alerts": [{"status": "resolved", "resolvedAt": ago(11), "notified": {"slack": "resolved"}}],
    "dead_letters": [
        {"status": "resolved", "resolvedAt": ago(11)},
        {"status": "dropped", "resolvedAt": ago(99)},
    ],
    "operator_actions": [{"startedAt": ago(21)}],
}
STAYS: dict[str, list[dict[str, Any]]] = {
    "alerts": [
        {"status": "resolved", "resolvedAt": ago(9)},
        {"status": "open", "openedAt": ago(99), "resolvedAt": None},
        # Slack still shows it as open.
        {"status": "resolved", "resolvedAt": ago(11), "notified": {"slack": "opened"}},
    ],
    "dead_letters": [
        {"status": "open", "lastFailedAt": ago(99)},
        {"status": "open", "resolvedAt": ago(99)},
        {"status": "resolved", "resolvedAt": ago(1)},
    ],
    "operator_actions": [{"startedAt": ago(19)}],
}
REVIEWS = {
    f"reviews/weekly/{ago(31)[:10]}/report.html": True,
    f"reviews/weekly/{ago(29)[:10]}/report.html": False,
    "reviews/notes.txt": False,
}


def plant(runtime: Runtime) -> None:
    for name in GOES:
        documents = [
            {**each, "_id": f"{what}-{number}"}
            for what, found in (("goes", GOES[name]), ("stays", STAYS[name]))
            for number, each in enumerate(found)
        ]
        runtime.database[name].insert_many(documents)
    for key in REVIEWS:
        runtime.objects.put_bytes(key, b"x")


def state(runtime: Runtime) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: sorted(str(each["_id"]) for each in runtime.database[name].find()) for name in GOES
    }
    # What is done is written down there, too.
    found["operator_actions"] = [name for name in found["operator_actions"] if "-" in name]
    return {**found, "reviews": runtime.objects.list("reviews/")}


def over(done: RetentionReport) -> dict[str, int]:
    return {part.name: part.over for part in done.parts}


TOMBSTONES = ("tombstones", "erased_tombstones")
OF_CAMPAIGNS = ("claims", "pipeline", "outbox", "selections", "codes")
EXPECTED = {
    **dict.fromkeys((*OF_CAMPAIGNS, *TOMBSTONES), 0),
    "alerts": 1,
    "dead_letters": 2,
    "operator_actions": 1,
    "reviews": 1,
    "archive": 0,
}


def test_a_dry_run_counts_what_would_go_and_changes_nothing(runtime: Runtime) -> None:
    plant(runtime)
    before = state(runtime)
    done = apply_retention(all_parts(runtime), dry_run=True)
    assert done.fine and over(done) == {**EXPECTED, "drill_databases": 0}
    assert done.deleted == 0 and all(part.before == part.after for part in done.parts)
    assert state(runtime) == before


def test_old_data_is_deleted_the_rest_stays_and_sizes_are_reported(runtime: Runtime) -> None:
    plant(runtime)
    before = state(runtime)
    done = apply_retention(all_parts(runtime), dry_run=False)
    assert done.fine and {part.name: part.deleted for part in done.parts} == {
        **EXPECTED,
        "drill_databases": 0,
    }
    after = state(runtime)
    for name in GOES:
        assert after[name] == [each for each in before[name] if each.startswith("stays")], name
    assert after["reviews"] == sorted(key for key, goes in REVIEWS.items() if not goes)
    part = next(part for part in done.parts if part.name == "dead_letters")
    assert part.before and part.after and part.before.number - part.after.number == 2
    assert part.before.bytes is not None and part.after.bytes is not None
    assert apply_retention(all_parts(runtime), dry_run=False).deleted == 0


def test_data_without_a_period_is_kept_for_ever(runtime: Runtime) -> None:
    kept = runtime.settings.housekeeping.model_copy(update={"archive_days": None})
    mine = Runtime(runtime.settings.model_copy(update={"housekeeping": kept}))
    archive = next(
        part for part in apply_retention(all_parts(mine), dry_run=False).parts if part.name == "archive"
    )
    assert archive.older_than_days is None and "for ever" in archive.note


def test_a_database_that_a_killed_drill_left_is_dropped_after_a_day(runtime: Runtime) -> None:
    stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(NOW - 2 * 24 * 3600))
    old, young = Scratch(runtime, f"{runtime.names.prefix}drill-{stamp}"), Scratch(runtime)
    try:
        for each in (old, young):
            each.make().insert_one({"_id": "x"})
        assert over(apply_retention(all_parts(runtime), dry_run=True))["drill_databases"] == 1
        apply_retention(all_parts(runtime), dry_run=False)
        left = runtime.mongo.list_database_names()
        assert old.name not in left and young.name in left and runtime.database.name in left
    finally:
        old.drop()
        young.drop()


def test_tombstones_go_after_their_period_and_those_of_erased_fans_later(runtime: Runtime) -> None:
    stones: dict[str, dict[str, Any]] = {
        "old": {"deletedAt": ago(31)},
        "young": {"deletedAt": ago(29)},
        "erased": {"deletedAt": ago(41), "erasedAt": ago(41)},
        "erased-long-ago": {"deletedAt": ago(43), "erasedAt": ago(43)},
        "erased-and-removed-again": {"deletedAt": ago(5), "erasedAt": ago(43)},
        # Their leaves wait for a notice.
        "noted-later": {"deletedAt": ago(31), "_registration": {"leaf": "a" * 64, "index": 1}},
        "erased-and-noted-later": {
            "deletedAt": ago(43),
            "erasedAt": ago(43),
            "_registration": {"leaf": "b" * 64},
        },
        "live": {"email": "a@example.com"},
        "a-later-life": {"email": "a@example.com", "erasedAt": ago(99)},
    }
    runtime.database["entries"].insert_many([{"_id": f"c:{name}", **each} for name, each in stones.items()])
    done = apply_retention(all_parts(runtime), dry_run=False)
    assert done.fine and done.deleted == 2
    gone = {"c:old", "c:erased-long-ago"}
    left = {each["_id"] for each in runtime.database["entries"].find()}
    assert left == {f"c:{name}" for name in stones} - gone


def test_a_dead_letter_that_is_opened_again_before_its_deletion_stays(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(runtime)
    look = Documents._pages

    def opened_again(self: Documents, *arguments: Any) -> Iterator[list[Any]]:
        for ids in look(self, *arguments):
            # Only now: the look at another collection comes before that at this one.
            if self._collection.name == "dead_letters":
                self._collection.update_one({"_id": "goes-0"}, {"$set": {"status": "open"}})
            yield ids

    monkeypatch.setattr(Documents, "_pages", opened_again)
    apply_retention(all_parts(runtime), dry_run=False)
    assert "goes-0" in state(runtime)["dead_letters"] and "goes-1" not in state(runtime)["dead_letters"]


def test_a_cap_leaves_some_for_the_next_time(runtime: Runtime) -> None:
    collection = runtime.database["dead_letters"]
    collection.insert_many([{"_id": number} for number in range(7)])
    documents = Documents("dead_letters", collection, runtime.dependency("mongo"), lambda _document: True)
    first = documents.delete(1, {}, dry_run=False, batch=2, most=4)
    assert (first.deleted, first.more) == (4, True)
    second = documents.delete(1, {}, dry_run=False, batch=2, most=4)
    assert (second.deleted, second.more) == (3, False) and collection.find_one() is None


def test_an_unavailable_store_does_not_stop_the_other_parts() -> None:
    def down(_dry_run: bool) -> PartResult:
        raise TransientFailure("s3", "EndpointConnectionError")

    def apply(dry_run: bool) -> PartResult:
        return PartResult("other", 1, 1, 0 if dry_run else 1)

    done = apply_retention(
        [RetentionPart("reviews", 1, down), RetentionPart("other", 1, apply)], dry_run=False
    )
    assert not done.fine and done.parts[0].trouble == "s3: EndpointConnectionError"
    assert done.parts[1].deleted == 1
    stop = StopSignal()
    stop.set()
    assert apply_retention([RetentionPart("other", 1, apply)], dry_run=False, stop=stop).deleted == 0


def test_housekeeping_deletes_only_when_it_is_confirmed_and_records_who_did(
    runtime: Runtime, face: Face
) -> None:
    plant(runtime)
    before = state(runtime)
    assert face.does("housekeeping").fine and state(runtime) == before
    done = face.does("housekeeping", apply=True)
    assert done.fine and str(sum(EXPECTED.values())) in done.text, done.text
    (action,) = runtime.operator_actions.history(what="housekeeping")
    assert action.outcome == "done" and action.result["dead_letters"] == 2


def test_housekeeping_fails_when_a_part_had_trouble(face: Face, monkeypatch: pytest.MonkeyPatch) -> None:
    def down(_dry_run: bool) -> PartResult:
        raise TransientFailure("s3", "EndpointConnectionError")

    monkeypatch.setattr(upkeep, "all_parts", lambda _runtime: [RetentionPart("reviews", 1, down)])
    done = face.does("housekeeping")
    assert not done.fine and "not everything was deleted: reviews: s3" in done.text
