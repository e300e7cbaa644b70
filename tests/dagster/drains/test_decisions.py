"""How many drains a sensor starts, which are at work, and which died unnoticed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
    ActiveDrain,
    DrainRun,
    Life,
    Memory,
    Staff,
    by_age,
    by_beats,
    by_depth,
    by_runs,
    cursor_of,
    parse_memory,
    pause_after_crashes,
    worth_recording,
)

WAITING_TO_START = ActiveDrain(None, 30, 300)
AT_WORK = ActiveDrain(100, 30, 300)
LEAVING = ActiveDrain(290, 30, 300)
RESIDENT = ActiveDrain(100, 3600, 3600, resident=True)
REQUESTED = ActiveDrain(None, 3600, 3600, resident=True)
OVERDUE = ActiveDrain(3590, 3600, 3600, resident=True)
OUTSIDE = ActiveDrain(100, 1e9, 1e9, resident=True, outside=True)
BLIND = replace(RESIDENT, blind=True)
BLIND_OUTSIDE = replace(OUTSIDE, blind=True)
LEAD_SECONDS = 20.0


def staff(active: Sequence[ActiveDrain], *, residents: bool = False) -> Staff:
    return Staff(active, LEAD_SECONDS, residents)


active_drains = st.lists(
    st.builds(
        ActiveDrain,
        st.none() | st.floats(0, 400),
        idle_seconds=st.floats(0, 60),
        max_seconds=st.floats(1, 400),
    ),
    max_size=8,
)
messages = st.integers(0, 10_000)


@pytest.mark.parametrize(
    ("waiting", "in_flight", "active", "start"),
    [
        (0, 0, [], 0),
        (1, 0, [], 1),
        (2000, 0, [], 1),
        (2001, 0, [], 2),
        (1500, 1000, [], 2),
        (1_000_000, 0, [], 4),
        (1, 0, [AT_WORK], 0),
        (1, 0, [WAITING_TO_START], 0),
        (5000, 0, [AT_WORK], 2),
        (5000, 0, [AT_WORK] * 5, 0),
        # What is only in flight has its drain, or waits for its retry.
        (0, 50, [], 0),
        # The next one starts before the last one ends, also in a moment without a message.
        (1, 0, [LEAVING], 1),
        (0, 0, [LEAVING], 1),
        (0, 0, [LEAVING, AT_WORK], 0),
        (0, 0, [LEAVING, WAITING_TO_START], 0),
        (1_000_000, 0, [LEAVING] * 4, 4),
    ],
)
def test_drains_of_a_queue_follow_its_depth(
    waiting: int, in_flight: int, active: list[ActiveDrain], start: int
) -> None:
    assert by_depth(waiting, in_flight, staff(active), per_drain=2000, max_drains=4).start == start


@pytest.mark.parametrize(
    ("oldest", "active", "start"),
    [
        (None, [], 0),
        (0.0, [], 1),
        (59.0, [], 1),
        (61.0, [], 2),
        (100_000.0, [], 3),
        (-2.0, [], 1),
        (None, [AT_WORK], 0),
        (None, [WAITING_TO_START], 0),
        (None, [LEAVING], 1),
        (None, [LEAVING, LEAVING, AT_WORK], 2),
        (None, [LEAVING, WAITING_TO_START], 1),
    ],
)
def test_drains_of_the_stream_follow_the_age_of_what_is_unread(
    oldest: float | None, active: list[ActiveDrain], start: int
) -> None:
    assert by_age(oldest, staff(active), objective_seconds=60, max_drains=3).start == start


def test_a_replacement_that_waits_to_start_is_not_replaced_again() -> None:
    assert by_age(None, staff([LEAVING, WAITING_TO_START]), objective_seconds=60, max_drains=1).start == 0


def test_a_drain_with_a_time_limit_below_its_idle_time_is_not_replaced_for_ever() -> None:
    short = ActiveDrain(9, idle_seconds=30, max_seconds=10)
    assert by_depth(0, 0, staff([short]), per_drain=2000, max_drains=4).start == 0


@given(messages, messages, active_drains, st.integers(1, 5000), st.integers(1, 16))
def test_there_are_never_more_drains_than_the_limit_beside_those_that_leave(
    waiting: int, in_flight: int, active: list[ActiveDrain], per_drain: int, max_drains: int
) -> None:
    decision = by_depth(waiting, in_flight, staff(active), per_drain=per_drain, max_drains=max_drains)
    staying = sum(not drain.leaves(LEAD_SECONDS) for drain in active)
    assert decision.start == 0 or staying + decision.start <= max_drains
    if waiting:
        assert staying + decision.start >= 1, "messages wait and no drain takes them"
    assert decision.reason


@given(st.none() | st.floats(0, 1e6), active_drains, st.integers(1, 8))
def test_unread_records_always_have_a_reader(
    oldest: float | None, active: list[ActiveDrain], max_drains: int
) -> None:
    decision = by_age(oldest, staff(active), objective_seconds=10, max_drains=max_drains)
    staying = sum(not drain.leaves(LEAD_SECONDS) for drain in active)
    assert decision.start == 0 or staying + decision.start <= max_drains
    if oldest is not None or active:
        assert staying + decision.start >= 1


@given(messages, messages, st.integers(1, 5000), st.integers(1, 16))
def test_a_second_look_right_after_the_start_starts_nothing(
    waiting: int, in_flight: int, per_drain: int, max_drains: int
) -> None:
    first = by_depth(waiting, in_flight, staff([]), per_drain=per_drain, max_drains=max_drains)
    started = [WAITING_TO_START] * first.start
    assert by_depth(waiting, in_flight, staff(started), per_drain=per_drain, max_drains=max_drains).start == 0


@given(st.floats(0, 600), st.floats(0, 60), st.floats(1, 600))
def test_a_drain_leaves_only_near_its_time_limit_and_after_its_idle_time(
    running: float, idle: float, longest: float
) -> None:
    if ActiveDrain(running, idle, longest).leaves(LEAD_SECONDS):
        assert running > idle
        assert running >= longest - LEAD_SECONDS


@pytest.mark.parametrize(
    ("waiting", "active", "residents", "start"),
    [
        (0, [], 2, 2),
        (0, [REQUESTED], 1, 1),
        (0, [REQUESTED, RESIDENT], 0, 0),
        (0, [RESIDENT, RESIDENT], 0, 0),
        # Both are replaced before their time is over, and only once.
        (0, [OVERDUE, RESIDENT], 1, 1),
        (0, [OVERDUE, OVERDUE], 2, 2),
        (0, [OVERDUE, OVERDUE, REQUESTED, REQUESTED], 0, 0),
        # One stands by, so two residents do the work of one.
        (4000, [RESIDENT, RESIDENT], 0, 1),
        (4000, [], 2, 3),
        (4000, [RESIDENT, RESIDENT, AT_WORK], 0, 0),
        # A deployment scales itself.
        (1_000_000, [OUTSIDE], 0, 0),
        (0, [OUTSIDE, OVERDUE], 0, 0),
    ],
)
def test_there_are_two_residents_and_more_drains_with_depth(
    waiting: int, active: list[ActiveDrain], residents: int, start: int
) -> None:
    decision = by_depth(waiting, 0, staff(active, residents=True), per_drain=2000, max_drains=4)
    assert (decision.residents, decision.start) == (residents, start)
    assert (
        by_age(None, staff(active, residents=True), objective_seconds=60, max_drains=1).residents == residents
    )


def test_residents_that_are_no_longer_wanted_are_not_replaced() -> None:
    for active in ([RESIDENT, RESIDENT], [OVERDUE], [OVERDUE, OVERDUE]):
        assert by_depth(0, 0, staff(active), per_drain=2000, max_drains=4).start == 0


@pytest.mark.parametrize("residents", [[RESIDENT, RESIDENT], [OUTSIDE]])
def test_the_next_look_is_late_only_while_every_heartbeat_moves(residents: list[ActiveDrain]) -> None:
    def late(active: list[ActiveDrain]) -> bool:
        return by_depth(0, 0, staff(active, residents=True), per_drain=2000, max_drains=4).late

    assert late(residents)
    assert not late([replace(residents[0], silent=True), *residents[1:]])


def test_two_crashes_are_forgiven_and_a_row_of_them_slows_the_sensor_down() -> None:
    assert [pause_after_crashes(n, 0.0) for n in range(8)] == [0, 0, 0, 15, 30, 60, 120, 240]
    assert pause_after_crashes(100, 0.0) == 300
    assert pause_after_crashes(3, 10.0) == 5
    assert pause_after_crashes(3, 60.0) == 0


@pytest.mark.parametrize(
    ("before", "now", "seconds", "worth"),
    [
        (5.0, 5.0, 30, False),
        (5.0, 5.0, 3600, True),
        (100.0, 110.0, 30, False),
        (100.0, 130.0, 30, True),
        (0.0, 1.0, 30, True),
        (1.0, 0.0, 30, True),
        (0.0, 0.0, 30, False),
        (None, 0.0, 30, True),
        (0.0, None, 30, True),
        (None, None, 30, False),
    ],
)
def test_an_observation_is_written_when_it_tells_something_new(
    before: float | None, now: float | None, seconds: float, worth: bool
) -> None:
    assert worth_recording(before, now, seconds) is worth


@pytest.mark.parametrize("waiting", [0, 5000])
@pytest.mark.parametrize(
    "active", [[BLIND, RESIDENT], [BLIND, RESIDENT, RESIDENT], [BLIND_OUTSIDE, OUTSIDE], [BLIND, REQUESTED]]
)
def test_a_blind_resident_beside_others_starts_no_more_than_one_that_works(
    waiting: int, active: list[ActiveDrain]
) -> None:
    seeing = [replace(each, blind=False) for each in active]
    one, other = (
        by_depth(waiting, 0, staff(each, residents=True), per_drain=2000, max_drains=4)
        for each in (active, seeing)
    )
    assert (one.start, one.residents, one.tries) == (other.start, other.residents, False)


@pytest.mark.parametrize("active", [[BLIND], [BLIND] * 2, [BLIND_OUTSIDE] * 2, [BLIND_OUTSIDE] * 9])
def test_while_all_are_blind_one_more_is_tried_and_no_other_beside_it(active: list[ActiveDrain]) -> None:
    for decision in (
        by_depth(100_000, 0, staff(active, residents=True), per_drain=2000, max_drains=4),
        by_age(900.0, staff(active, residents=True), objective_seconds=60.0, max_drains=4),
    ):
        assert (decision.start, decision.residents, decision.tries) == (1, 1, True)
    tried = [*active, BLIND, BLIND]
    assert by_age(900.0, staff(tried, residents=True), objective_seconds=60.0, max_drains=4).start == 0


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
