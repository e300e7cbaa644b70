"""Two bodies under one event id: the second is no repeat, and is kept apart and named."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from structlog.testing import capture_logs

from regworkers_core.analytics.archive.archiver import ArchiveReport
from tests.analytics.archive.fakes import FIRST, FakeLog, ids_in, manifest_in, rows_in, run
from tests.analytics.archive.world import event, wanted
from tests.support.in_memory import MemoryObjects


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
