"""Days of the archive that go after their time: rows and files, never the knowledge of their ids."""

from __future__ import annotations

from typing import Any

import pytest

from regworkers_core.analytics.archive.compaction import expire, expire_days
from regworkers_core.analytics.archive.manifest import Ledger
from regworkers_core.analytics.archive.status import archive_status, verify
from regworkers_core.engine.leases import LeaseBusy, held_lease
from regworkers_core.runtime import Runtime
from tests.analytics.archive.fakes import NOW, FakeLog, ids_in, manifest_in, run
from tests.analytics.archive.world import DAY, archived, event, manifest_of, produce
from tests.support.in_memory import MemoryObjects

OLD, KEPT = "2026-11-01", DAY


def on_day(number: int, day: str) -> dict[str, Any]:
    return event(number, time=f"{day}T08:00:00.000Z")


def stocked() -> tuple[MemoryObjects, FakeLog]:
    objects, source = MemoryObjects(), FakeLog([on_day(1, OLD), on_day(2, OLD), on_day(3, KEPT)])
    run(objects, source)
    return objects, source


def expire_at(objects: MemoryObjects, token: int = 5) -> int:
    store: Any = objects
    return expire_days(Ledger(store, token), KEPT, NOW).rows


def test_days_before_go_and_the_others_stay_whole() -> None:
    objects, _ = stocked()
    assert expire_at(objects) == 2
    manifest = manifest_in(objects)
    assert {file.date for file in manifest.files} == {KEPT} and manifest.expired == 2
    assert ids_in(objects) == {event(3)["id"]: 1}
    assert expire_at(objects, token=6) == 0 and manifest_in(objects).expired == 2


def test_readers_keep_their_files_until_a_later_run_deletes_them() -> None:
    objects, source = stocked()
    old = [key for key in objects.stored if f"date={OLD}" in key]
    expire_at(objects)
    assert old and set(old) <= set(objects.stored)
    run(objects, source, token=7, now=lambda: NOW + 10_000)
    assert not set(old) & set(objects.stored)


def test_days_that_go_one_after_the_other_are_all_deleted_and_counted() -> None:
    objects, source = stocked()
    old = [key for key in objects.stored if "date=" in key]
    store: Any = objects
    for token, first_day in enumerate([KEPT, "2026-11-21"], 5):
        expire_days(Ledger(store, token), first_day, NOW)
    run(objects, source, token=7, now=lambda: NOW + 10_000)
    assert len(old) == 2 and not set(old) & set(objects.stored)
    manifest = manifest_in(objects)
    assert (manifest.read, manifest.rows, manifest.expired) == (3, 0, 3)


def test_an_event_of_a_day_that_is_gone_does_not_come_back_when_kafka_shows_it_again() -> None:
    objects, _ = stocked()
    expire_at(objects)
    again = FakeLog([on_day(1, OLD), on_day(2, OLD), on_day(3, KEPT), on_day(1, OLD)])
    report = run(objects, again, token=8)
    assert (report.repeats, report.written) == (1, 0)
    assert ids_in(objects) == {event(3)["id"]: 1}


def test_on_the_real_servers_it_adds_up_before_and_after_and_a_dry_run_changes_nothing(
    runtime: Runtime,
) -> None:
    produce(runtime, on_day(1, OLD), on_day(2, KEPT))
    archived(runtime)
    before = manifest_of(runtime)
    assert expire(runtime, first_day=KEPT, dry_run=True).rows == 1 and manifest_of(runtime) == before
    found = expire(runtime, first_day=KEPT, dry_run=False)
    assert (found.files, found.rows, found.left_files) == (1, 1, 1)
    checked = verify(runtime.objects, memory_mib=100)
    assert checked.holds and checked.expired == 1, checked.as_dict()
    status = archive_status(runtime)
    assert status["addsUp"] and status["expired"] == 1 and status["firstDay"] == KEPT
    with (
        held_lease(runtime.leases, "event-archive", "another", lease_seconds=1),
        pytest.raises(LeaseBusy),
    ):
        expire(runtime, first_day="2027-01-01", dry_run=False)
