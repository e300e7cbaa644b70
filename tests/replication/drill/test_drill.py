"""The recovery drill, on the real servers: what it rebuilds, what it finds, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from regworkers_core.adapters.mongo.replica import Replica
from regworkers_core.domain.drill import DrillResult
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.engine.stop import StopSignal
from regworkers_core.infrastructure.indexes import INDEXES
from regworkers_core.replication import saver
from regworkers_core.replication.recovery_drill import recovery_drill
from regworkers_core.replication.scratch_database import Scratch, left_behind
from regworkers_core.runtime import Runtime
from tests.support.drains import replicate_all
from tests.support.entries import document, key, put, remove, source

pytestmark = pytest.mark.namespace("module")

ENTRIES = [key(f"e{number}") for number in range(12)]
AT_REBUILD = "drill.after_rebuild"


@pytest.fixture(scope="module")
def shared(shared: Runtime) -> Runtime:
    """With twelve entries, all replicated, and one whose flag is still set."""
    for entry in ENTRIES:
        put(shared, entry)
    replicate_all(shared)
    return shared


def scratch_databases(runtime: Runtime) -> list[str]:
    prefix = runtime.names.prefix + "drill-"
    return [name for name in runtime.mongo.list_database_names() if name.startswith(prefix)]


def at_rebuild(do: Callable[[], Any]) -> Callable[[str], None]:
    return lambda step: do() if step == AT_REBUILD else None


def rebuilt(runtime: Runtime) -> Any:
    (name,) = scratch_databases(runtime)
    return runtime.mongo[name]["entries"]


def test_a_drill_rebuilds_every_entry_finds_it_equal_and_leaves_nothing_behind(runtime: Runtime) -> None:
    seen: dict[str, Any] = {}

    def look() -> None:
        found = rebuilt(runtime)
        seen["ids"] = {each["_id"] for each in found.find()}
        seen["indexes"] = [list(index["key"]) for index in found.index_information().values()]

    result = recovery_drill(runtime, on_step=at_rebuild(look))
    assert result.passed, result.findings
    assert (result.read, result.saved, result.total) == (12, 12, 12)
    assert seen["ids"] == {entry.document_id for entry in ENTRIES}
    # What takes time in the real replica takes it here.
    assert all(list(index.keys) in seen["indexes"] for index in INDEXES["entries"])
    assert scratch_databases(runtime) == []


def test_it_writes_no_line_into_the_trace_of_an_entry_and_a_save_does(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(saver, "wants_entries", lambda: True)
    monkeypatch.setattr(saver, "entries_passed", lambda event, _entries, **_more: said.append(event))
    assert recovery_drill(runtime).saved == 12
    assert said == []
    put(runtime, key("traced"))
    replicate_all(runtime)
    assert said == ["entry saved"]
    remove(runtime, key("traced"))
    replicate_all(runtime)


def test_it_touches_neither_flags_nor_queues_nor_the_real_replica(runtime: Runtime) -> None:
    fresh = key("flagged")
    put(runtime, fresh)
    queues = [each for name in runtime.names.queues for each in (name, runtime.names.dead_letter_queue(name))]

    def depths() -> list[int]:
        return [runtime.queue(name).depth().total for name in queues]

    before = depths()
    try:
        result = recovery_drill(runtime)
        assert (result.read, result.saved) == (13, 13)
        stored = source(runtime, fresh)
        assert stored is not None and stored["needsReplication"] is True and "replicatedVersion" not in stored
        assert document(runtime, fresh) is None and depths() == before
        assert runtime.database["dead_letters"].find_one() is None
    finally:
        remove(runtime, fresh)


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (lambda found: found.update_one({"_id": "summer:e3"}, {"$set": {"firstName": "other"}}), "stale"),
        (lambda found: found.delete_one({"_id": "summer:e3"}), "missing"),
        (
            lambda found: found.update_one({"_id": "summer:e3"}, {"$set": {"deletedAt": "2026"}}),
            "resurrected",
        ),
    ],
)
def test_a_planted_difference_turns_it_red_and_is_named(
    runtime: Runtime, plant: Callable[[Any], Any], kind: str
) -> None:
    result = recovery_drill(runtime, on_step=at_rebuild(lambda: plant(rebuilt(runtime))))
    assert not result.passed and dict(result.differences) == {kind: 1} and result.samples == ("summer:e3",)
    assert kind in result.findings[0] and scratch_databases(runtime) == []


def test_a_change_during_the_drill_is_no_difference(runtime: Runtime) -> None:
    result = recovery_drill(
        runtime, on_step=at_rebuild(lambda: put(runtime, ENTRIES[0], version=2, firstName="later"))
    )
    assert result.passed, result.findings


def test_an_entry_that_every_save_refuses_is_counted_and_no_difference(runtime: Runtime) -> None:
    refused = [key("broken"), key("e\x1b[2J", "a:b")]
    for entry in refused:
        put(runtime, entry, markets="no list")
    try:
        result = recovery_drill(runtime)
    finally:
        for entry in refused:
            remove(runtime, entry)
    assert result.passed and result.refused == 2 and result.saved == 12
    assert result.refused_example in ("summer:broken", "a:b:e\\x1b[2J")


def test_a_part_is_enough_to_tell_how_long_all_would_take(runtime: Runtime) -> None:
    result = recovery_drill(runtime, most=5)
    assert (result.ended, result.read, dict(result.differences)) == ("most_entries", 5, {})
    assert result.total is not None and result.total >= 12
    assert result.estimate_seconds is not None and result.estimate_seconds > result.seconds


def test_a_drill_that_is_stopped_drops_its_database_and_proves_nothing(runtime: Runtime) -> None:
    stop = StopSignal()
    stop.set()
    result = recovery_drill(runtime, stop=stop)
    assert not result.passed and result.ended == "stopped" and result.dropped
    assert scratch_databases(runtime) == []


def test_a_replica_that_becomes_unavailable_ends_it_with_its_name_and_the_database_is_dropped(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: Any, **__: Any) -> Any:
        raise TransientFailure("mongo", "AutoReconnect")

    monkeypatch.setattr(Replica, "apply", unavailable)
    result = recovery_drill(runtime)
    assert not result.passed and result.ended == "dependency_down" and "mongo" in result.findings[0]
    assert result.dropped and scratch_databases(runtime) == []


def test_the_real_database_is_never_taken_for_a_scratch_one(runtime: Runtime) -> None:
    prefix = runtime.names.prefix
    for name in (
        runtime.database.name,
        "admin",
        f"{prefix}drill-",
        f"{prefix}drill-2026",
        "drill-20261125120000",
    ):
        with pytest.raises(UsageError, match="not a scratch database"):
            Scratch(runtime, name)


def test_two_drills_do_not_share_a_database(runtime: Runtime) -> None:
    here = Scratch(runtime)
    here.make().insert_one({"_id": "x"})
    try:
        with pytest.raises(UsageError, match="another drill"):
            Scratch(runtime, here.name).make()
        # One that was killed is found when it is old enough, and not before.
        assert [each.name for each in left_behind(runtime, older_than_seconds=-60)] == [here.name]
        assert not list(left_behind(runtime, older_than_seconds=3600))
    finally:
        here.drop()


def test_the_objective_is_judged_by_the_measured_rate_and_by_what_a_backfill_sends() -> None:
    def result(total: int, seconds: float) -> DrillResult:
        return DrillResult(
            "most_entries", 1000, 1000, 0, 0, {}, (), seconds, 1.0, total, 2000.0, 3600.0, "drill-x", True
        )

    assert result(1_000_000, 1.0).passed
    slow = result(1_000_000, 10.0)
    assert slow.processes_needed == 3 and "3 save drains" in slow.findings[0]
    assert "replication.backfillItemsPerSecond" in result(10_000_000, 0.1).findings[0]
