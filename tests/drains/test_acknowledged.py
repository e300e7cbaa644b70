"""The row that says when a drain last acknowledged something."""

from __future__ import annotations

from collections import Counter

import pytest

from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.acknowledged import AcknowledgementWriter, last_acknowledged
from regworkers_core.drains.heartbeat import Heartbeat, beats
from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.runtime import Runtime
from tests.support.drains import replicate_all, run
from tests.support.entries import key, put
from tests.support.in_memory import MemoryLeaseTable
from tests.support.waiting import Clock


def writer(table: MemoryLeaseTable, report: DrainReport | None = None) -> AcknowledgementWriter:
    made = AcknowledgementWriter(lambda: table, "save", Clock())
    made.report = report
    return made


def report_of(acknowledged: int, not_acknowledged: int = 0) -> DrainReport:
    deliveries = Counter(acknowledged=acknowledged, not_acknowledged=not_acknowledged)
    return DrainReport("save", deliveries=deliveries)


def marks(table: MemoryLeaseTable) -> list[tuple[int, str]]:
    return [(row.counter, row.state["acknowledgedAt"]) for row in table.stored.values()]


def test_it_moves_with_what_was_acknowledged_and_with_nothing_else() -> None:
    table = MemoryLeaseTable()
    made = writer(table)
    made.write()
    made.report = report_of(2, not_acknowledged=2)
    made.write()
    assert not table.stored, "what the source did not take was not acknowledged"
    made.report = report_of(3, not_acknowledged=2)
    made.write()
    made.write()
    assert marks(table) == [(1, iso(1000.0))]
    made.report = report_of(4, not_acknowledged=2)
    made.write()
    assert marks(table) == [(2, iso(1000.0))]


def test_every_run_moves_the_same_row_and_leaves_it() -> None:
    table = MemoryLeaseTable()
    for _ in range(2):
        with writer(table, report_of(5)):
            pass
    assert [counter for counter, _ in marks(table)] == [2]


def test_the_end_of_a_drain_that_was_short_is_written_too() -> None:
    table = MemoryLeaseTable()
    with writer(table) as made:
        made.report = report_of(1)
    assert len(marks(table)) == 1


def test_it_is_no_heartbeat_of_a_run() -> None:
    table = MemoryLeaseTable()
    writer(table, report_of(1)).write()
    life = Heartbeat(lambda: table, "save", "r1", started_at="", idle_seconds=1.0, max_seconds=1.0)
    life.beat()
    assert [beat.run_id for beat in beats(table, "save")] == ["r1"]


@pytest.mark.parametrize("drain", ["enqueue", "save"])
def test_each_drain_of_replication_leaves_its_last_acknowledgement(runtime: Runtime, drain: str) -> None:
    run(runtime, drain)
    assert last_acknowledged(runtime.leases, [drain]) == (), "nothing was acknowledged"
    put(runtime, key("one"))
    replicate_all(runtime)
    (first,) = last_acknowledged(runtime.leases, [drain])
    put(runtime, key("two"))
    replicate_all(runtime)
    (second,) = last_acknowledged(runtime.leases, [drain])
    assert (first.drain, second.drain) == (drain, drain)
    assert second.mark > first.mark and second.at >= first.at > ""
