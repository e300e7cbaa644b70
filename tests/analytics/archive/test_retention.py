"""What the archive keeps: both of two bodies under one event id, and after their days only the ids of events."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from regworkers_core.analytics.archive.archiver import ArchiveReport
from regworkers_core.analytics.archive.files import expire, expire_days
from regworkers_core.analytics.archive.manifest import Ledger
from regworkers_core.analytics.archive.reading import archive_status, verify
from regworkers_core.engine.leases import LeaseBusy, held_lease
from regworkers_core.runtime import Runtime
from tests.analytics.archive.fakes import FIRST, NOW, FakeLog, ids_in, manifest_in, rows_in, run
from tests.analytics.archive.world import DAY, archived, event, manifest_of, produce, wanted
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
    with held_lease(runtime.leases, "event-archive", "another", lease_seconds=1), pytest.raises(LeaseBusy):
        expire(runtime, first_day="2027-01-01", dry_run=False)


def forged(number: int) -> dict[str, Any]:
    genuine = event(number)
    return {**genuine, "data": {**genuine["data"], "ref": "FORGED"}}


def apart(objects: MemoryObjects) -> list[tuple[str, int]]:
    """Reason and offset of what is kept apart."""
    tables = [
        pq.read_table(pa.BufferReader(objects.stored[file.key])) for file in manifest_in(objects).damaged
    ]
    return [(row["reason"], row["kafkaOffset"]) for table in tables for row in table.to_pylist()]


def numbers(report: ArchiveReport) -> tuple[int, int, int, int, bool]:
    return report.read, report.written, report.repeats, report.damaged, report.finding


def test_another_body_under_a_known_id_is_kept_apart_and_named_within_a_batch() -> None:
    objects = MemoryObjects()
    with capture_logs() as lines:
        report = run(objects, FakeLog([forged(1), event(1), event(2)]))
    assert numbers(report) == (3, 2, 0, 1, True) and report.adds_up
    assert apart(objects) == [("OTHER_BODY", 1)] and ids_in(objects) == wanted(1, 2)
    (line,) = [each for each in lines if each["event"] == "another body under a known event id"]
    assert (line["log_level"], line["eventId"], line["offset"]) == ("error", event(1)["id"], 1)


def test_another_body_is_named_between_batches_and_between_runs() -> None:
    objects, source = MemoryObjects(), FakeLog([event(1), event(2), event(3), forged(1)])
    assert numbers(run(objects, source)) == (4, 3, 0, 1, True)
    source.values[FIRST] += FakeLog([forged(2), event(3)]).values[FIRST]
    assert numbers(run(objects, source, token=2)) == (2, 0, 1, 1, True)
    assert apart(objects) == [("OTHER_BODY", 3), ("OTHER_BODY", 4)]
    assert "FORGED" not in str(rows_in(objects))


@pytest.mark.parametrize("name", ["replicatedAt", "selectedAt", "queuedAt", "asOf"])
def test_an_event_that_is_sent_again_later_is_a_repeat(name: str) -> None:
    first, again = event(1), event(1, time="2026-11-25T00:00:00.000Z", correlationid="another")
    first["data"] = {**first["data"], name: "2026-11-20T00:00:00.000Z"}
    again["data"] = {**again["data"], name: "2026-11-25T00:00:00.000Z"}
    assert numbers(run(MemoryObjects(), FakeLog([first, again]))) == (2, 1, 1, 0, False)


@pytest.mark.parametrize(
    "change", [{"type": "entry.removed"}, {"subject": "summer:other"}, {"source": "other"}]
)
def test_what_an_event_is_about_is_part_of_its_body(change: dict[str, str]) -> None:
    assert numbers(run(MemoryObjects(), FakeLog([event(1), {**event(1), **change}])))[3] == 1


def test_the_id_of_a_foreign_event_is_not_logged() -> None:
    with capture_logs() as lines:
        run(
            MemoryObjects(),
            FakeLog([event(1, id="jane@mail.example"), {**forged(1), "id": "jane@mail.example"}]),
        )
    assert "jane" not in str(lines)
