"""Which drains are at work, and which died unnoticed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regworkers_core.drains.heartbeat import Beat, Watched
from regworkers_core.engine.leases import LeaseKey, LeaseRow
from regworkers_dagster.drains.decisions import (
    DEAD_SECONDS,
    HUNG_SECONDS,
    MAX_SECONDS_PER_TICK,
    SILENT_SECONDS,
    DrainRun,
    Life,
    Memory,
    by_beats,
    by_runs,
    cursor_of,
    parse_memory,
)


def beat(run_id: str = "r1", counter: int = 7, running: float = 100.0, role: str = "") -> Beat:
    row = LeaseRow(LeaseKey("DRAIN#save", f"RUN#{run_id}"), run_id, 1, counter)
    return Beat(row, run_id, running, 30.0, 300.0, "2026-11-26T03:00:00.000Z", "host:7", role)


def look(watched: Watched, beats: list[Beat], now: float) -> Watched:
    return watched.seen(beats, now, longest_seconds=MAX_SECONDS_PER_TICK)


def run(run_id: str = "r1", running: float | None = 100.0, *, ended: bool = False) -> DrainRun:
    return DrainRun(run_id, ended, running, 30.0, 300.0)


def still(seconds: float) -> Watched:
    return Watched(1000.0, {"r1": (7, seconds)})


def shape(life: Life) -> tuple[int, list[str], int]:
    return len(life.active), [dead.run_id for dead in life.dead], len(life.ended)


ALIVE, NOT_COUNTED, DEAD, LEFT = (1, [], 0), (0, [], 0), (0, ["r1"], 0), (0, [], 1)


@pytest.mark.parametrize(
    ("runs", "running", "seconds_still", "shows"),
    [
        ([run()], 100.0, 0.0, ALIVE),
        ([run()], 100.0, 39.0, ALIVE),
        ([run()], 100.0, SILENT_SECONDS, NOT_COUNTED),
        ([run()], 100.0, DEAD_SECONDS, DEAD),
        # Started in a terminal: Dagster knows no run of it.
        ([], 100.0, 0.0, ALIVE),
        ([], 100.0, DEAD_SECONDS, DEAD),
        # Dagster saw it end: it is not waited for, and what it left behind goes.
        ([run(ended=True)], 100.0, 0.0, NOT_COUNTED),
        ([run(ended=True)], 100.0, DEAD_SECONDS, LEFT),
        # Asked for, and at work before Dagster heard of it.
        ([run(running=None)], 1.0, 0.0, ALIVE),
        # About to leave, finishing what is in flight, hanging.
        ([run()], 359.0, 0.0, ALIVE),
        ([run()], 361.0, 0.0, NOT_COUNTED),
        ([run()], 901.0, 0.0, DEAD),
        ([], 901.0, 0.0, NOT_COUNTED),
    ],
)
def test_a_drain_counts_while_its_heart_beats(
    runs: list[DrainRun], running: float, seconds_still: float, shows: tuple[int, list[str], int]
) -> None:
    assert shape(by_beats(runs, [beat(running=running)], still(seconds_still))) == shows


@pytest.mark.parametrize(
    ("running", "shows"),
    [(None, ALIVE), (0.0, ALIVE), (60.0, ALIVE), (61.0, NOT_COUNTED), (900.0, NOT_COUNTED), (901.0, DEAD)],
)
def test_a_run_without_a_heartbeat_counts_until_it_should_have_one(
    running: float | None, shows: tuple[int, list[str], int]
) -> None:
    assert shape(by_beats([run(running=running)], [], Watched())) == shows


@pytest.mark.parametrize(("running", "counts"), [(None, 1), (359.0, 1), (361.0, 0), (1e6, 0)])
def test_without_the_rows_dagster_is_believed_within_the_time_limit_and_nothing_is_dead(
    running: float | None, counts: int
) -> None:
    assert shape(by_runs([run(running=running), run("r2", ended=True)])) == (counts, [], 0)


def test_time_without_looks_hardly_counts() -> None:
    watched = look(Watched(), [beat()], 1000.0)
    watched = look(watched, [beat()], 5000.0)
    assert watched.seconds_still(beat()) == MAX_SECONDS_PER_TICK < SILENT_SECONDS
    assert look(watched, [beat(counter=8)], 5005.0).seconds_still(beat()) == 0.0


def test_a_lost_cursor_does_not_let_the_dead_live_for_ever() -> None:
    watched, looks = Watched(), 0
    while watched.seconds_still(beat()) < DEAD_SECONDS:
        watched, looks = look(watched, [beat()], 1000.0 + 5 * looks), looks + 1
    assert looks == 25


@given(st.lists(st.tuples(st.floats(0, 60), st.booleans()), max_size=60))
def test_a_heart_that_beats_within_every_half_minute_of_looks_is_never_dead(
    looks: list[tuple[float, bool]],
) -> None:
    watched, now, counter, silent = Watched(), 0.0, 1, 0.0
    for after, moved in looks:
        now += after
        silent += min(after, MAX_SECONDS_PER_TICK)
        if moved or silent >= SILENT_SECONDS:
            counter, silent = counter + 1, 0.0
        watched = look(watched, [beat(counter=counter)], now)
        assert shape(by_beats([run()], [beat(counter=counter)], watched)) == ALIVE


def test_the_cursor_keeps_what_was_seen() -> None:
    seen = {"save": Memory(still(12.5), {"r1": 6.5})}
    assert parse_memory(cursor_of(seen)) == seen
    assert cursor_of({"save": Memory(Watched(1000.0))}) == "{}"


def test_a_successor_is_started_as_early_as_the_slowest_of_recent_starts_needs() -> None:
    def started(run_id: str, seconds: float) -> DrainRun:
        return DrainRun(run_id, False, 1.0, 30.0, 300.0, seconds_known=seconds + 2.0)

    memory = Memory()
    unknown = memory.lead_seconds
    for number in range(40):
        name, seconds = f"r{number}", 60.0 if number == 30 else 5.0
        memory = memory.seen([started(name, seconds)], [beat(name, running=2.0)], 1000.0)
        # Seen again later, it does not count a second time.
        memory = memory.seen([started(name, 500.0)], [beat(name, running=2.0)], 1001.0)
    assert len(memory.starts) == 20 and set(memory.starts.values()) == {5.0, 60.0}
    assert memory.lead_seconds == 5.0 + 30.0 < unknown
    slow = memory.seen([started("r99", 60.0)], [beat("r99", running=2.0)], 1002.0)
    assert slow.lead_seconds == 60.0 + 30.0, "one in twenty is usual by then"


def test_a_resident_counts_however_long_it_stays_and_one_outside_of_dagster_is_recognized() -> None:
    (inside,) = by_beats([run()], [beat(running=9000.0, role="working")], Watched()).active
    (outside,) = by_beats([], [beat(running=9000.0, role="standby")], Watched()).active
    assert (inside.resident, inside.outside, outside.resident, outside.outside) == (True, False, True, True)


@pytest.mark.parametrize(
    "cursor", [None, "", "3", "[]", "{", '{"save": 3}', '{"save": {"at": 1, "still": {"r": 1}}}']
)
def test_a_damaged_cursor_is_no_cursor(cursor: str | None) -> None:
    assert parse_memory(cursor) == {}


def test_a_blind_resident_is_active_and_known_as_blind_and_counts_as_hung_long_after_its_time() -> None:
    rows = [beat(role="blind"), beat("r2", role="working")]
    life = by_beats([], rows, Watched())
    assert [each.blind for each in life.active] == [True, False]
    late = by_beats([run()], [beat(running=300.0 + HUNG_SECONDS + 1, role="blind")], Watched())
    assert [dead.run_id for dead in late.dead] == ["r1"]
