"""The rows that show that a drain lives, and when it last acknowledged something."""

from __future__ import annotations

import gc
import threading
from collections import Counter
from dataclasses import replace

import pytest

from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso
from regworkers_core.drains.heartbeat import Heartbeat, beats
from regworkers_core.drains.recorder import AcknowledgementWriter, last_acknowledged
from regworkers_core.drains.runner import relaxed_gc
from regworkers_core.engine.drain_report import DrainReport
from regworkers_core.engine.leases import LeaseRow
from regworkers_core.runtime import Runtime
from tests.support.drains import replicate_all, run
from tests.support.entries import key, put
from tests.support.in_memory import MemoryLeaseTable
from tests.support.waiting import Clock, wait_until


def heartbeat(table: MemoryLeaseTable, clock: Clock, *, beat_seconds: float = 0.01) -> Heartbeat:
    return Heartbeat(
        lambda: table,
        "save",
        "r1",
        started_at="2026-11-26T03:00:00.000Z",
        idle_seconds=30.0,
        max_seconds=300.0,
        beat_seconds=beat_seconds,
        clock=clock,
    )


def test_its_counter_moves_while_the_drain_runs_and_the_row_goes_with_it() -> None:
    table, clock = MemoryLeaseTable(), Clock()
    with heartbeat(table, clock):
        wait_until(lambda: any(beat.counter >= 3 for beat in beats(table, "save")))
        (beat,) = beats(table, "save")
        assert (beat.run_id, beat.idle_seconds, beat.max_seconds) == ("r1", 30.0, 300.0)
    assert beats(table, "save") == []


def test_it_says_how_long_the_drain_runs_by_its_own_clock() -> None:
    table, clock = MemoryLeaseTable(), Clock()
    life = heartbeat(table, clock)
    clock.sleep(12.5)
    life.beat()
    assert [beat.running_seconds for beat in beats(table, "save")] == [12.5]


def test_a_table_that_does_not_answer_ends_nothing_and_the_next_beat_puts_the_row_back() -> None:
    table = MemoryLeaseTable()
    with heartbeat(table, Clock()):
        wait_until(lambda: bool(table.stored))
        table.gate.down = True
        table.gate.calls.clear()
        wait_until(lambda: table.gate.calls.total() >= 2)
        assert all(map(table.beside.remove, table.stored.values()))
        table.gate.down = False
        wait_until(lambda: bool(table.stored))
    assert table.stored == {}


def test_a_beat_whose_answer_got_lost_is_followed_by_the_next_one() -> None:
    table, clock = MemoryLeaseTable(), Clock()
    life = heartbeat(table, clock)
    life.beat()
    (key,) = table.stored
    assert table.swap(replace(table.stored[key], counter=99), table.stored[key])
    life.beat()
    assert table.stored[key].counter == 2
    life.remove()
    assert table.stored == {}


@pytest.mark.parametrize("error", [UsageError("no table"), ValueError("a defect")])
def test_what_cannot_be_written_holds_up_neither_start_nor_end(error: Exception) -> None:
    class Broken(MemoryLeaseTable):
        def swap(self, row: LeaseRow, seen: LeaseRow | None) -> bool:
            raise error

    with heartbeat(Broken(), Clock()):
        pass


def test_a_table_that_hangs_holds_up_the_end_by_a_second_at_most() -> None:
    class Hanging(MemoryLeaseTable):
        answers = threading.Event()

        def swap(self, row: LeaseRow, seen: LeaseRow | None) -> bool:
            self.answers.wait(30)
            return True

    table = Hanging()
    with heartbeat(table, Clock()) as life:
        pass
    assert life._thread.is_alive() and life._thread.daemon
    table.answers.set()


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


# The collector's thresholds are the process's own again once the last drain has ended


def test_the_last_one_out_puts_the_thresholds_back() -> None:
    before = gc.get_threshold()
    first, second = relaxed_gc(), relaxed_gc()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert gc.get_threshold() != before
    second.__exit__(None, None, None)
    assert gc.get_threshold() == before


def test_a_failure_inside_puts_them_back_too() -> None:
    before = gc.get_threshold()
    with pytest.raises(ValueError), relaxed_gc():
        raise ValueError
    assert gc.get_threshold() == before
