"""The row that shows that a drain lives."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from regworkers_core.domain.reasons import UsageError
from regworkers_core.drains.heartbeat import Heartbeat, beats
from regworkers_core.engine.leases import LeaseRow
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
