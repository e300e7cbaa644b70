"""Which drains are at work, and which died unnoticed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regworkers_core.drains.heartbeat import Beat
from regworkers_core.engine.leases import LeaseKey, LeaseRow
from regworkers_dagster.drains.decisions import (
    DEAD_SECONDS,
    SILENT_SECONDS,
    DrainRun,
    Life,
    Watched,
    by_beats,
    by_runs,
    cursor_of,
    parse_watched,
)


def beat(run_id: str = "r1", counter: int = 7, running: float = 100.0) -> Beat:
    row = LeaseRow(LeaseKey("DRAIN#save", f"RUN#{run_id}"), run_id, 1, counter)
    return Beat(row, run_id, running, 30.0, 300.0, "2026-11-26T03:00:00.000Z", "host:7")


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
        ([run()], 100.0, 29.0, ALIVE),
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
    watched = Watched().seen([beat()], now=1000.0)
    watched = watched.seen([beat()], now=5000.0)
    assert watched.seconds_still(beat()) == 15.0
    assert watched.seen([beat(counter=8)], now=5005.0).seconds_still(beat()) == 0.0


def test_a_lost_cursor_does_not_let_the_dead_live_for_ever() -> None:
    watched, looks = Watched(), 0
    while watched.seconds_still(beat()) < DEAD_SECONDS:
        watched, looks = watched.seen([beat()], now=1000.0 + 5 * looks), looks + 1
    assert looks == 25


@given(st.lists(st.tuples(st.floats(0, 60), st.booleans()), max_size=60))
def test_a_heart_that_beats_within_every_half_minute_of_looks_is_never_dead(
    looks: list[tuple[float, bool]],
) -> None:
    watched, now, counter, silent = Watched(), 0.0, 1, 0.0
    for after, moved in looks:
        now += after
        silent += min(after, 15.0)
        if moved or silent >= 30.0:
            counter, silent = counter + 1, 0.0
        watched = watched.seen([beat(counter=counter)], now)
        assert shape(by_beats([run()], [beat(counter=counter)], watched)) == ALIVE


def test_the_cursor_keeps_what_was_seen() -> None:
    seen = {"save": still(12.5)}
    assert parse_watched(cursor_of(seen)) == seen
    assert cursor_of({"save": Watched(1000.0)}) == "{}"


@pytest.mark.parametrize(
    "cursor", [None, "", "3", "[]", "{", '{"save": 3}', '{"save": {"at": 1, "still": {"r": 1}}}']
)
def test_a_damaged_cursor_is_no_cursor(cursor: str | None) -> None:
    assert parse_watched(cursor) == {}
