"""How many drains a sensor starts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regworkers_dagster.drains.decisions import (
    HANDOVER_SECONDS,
    ActiveDrain,
    by_age,
    by_depth,
    pause_after_crashes,
    worth_recording,
)

WAITING_TO_START = ActiveDrain(None, 30, 300)
AT_WORK = ActiveDrain(100, 30, 300)
LEAVING = ActiveDrain(290, 30, 300)

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
    assert by_depth(waiting, in_flight, active, per_drain=2000, max_drains=4).start == start


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
    assert by_age(oldest, active, objective_seconds=60, max_drains=3).start == start


def test_a_replacement_that_waits_to_start_is_not_replaced_again() -> None:
    assert by_age(None, [LEAVING, WAITING_TO_START], objective_seconds=60, max_drains=1).start == 0


def test_a_drain_with_a_time_limit_below_its_idle_time_is_not_replaced_for_ever() -> None:
    short = ActiveDrain(9, idle_seconds=30, max_seconds=10)
    assert by_depth(0, 0, [short], per_drain=2000, max_drains=4).start == 0


@given(messages, messages, active_drains, st.integers(1, 5000), st.integers(1, 16))
def test_there_are_never_more_drains_than_the_limit_beside_those_that_leave(
    waiting: int, in_flight: int, active: list[ActiveDrain], per_drain: int, max_drains: int
) -> None:
    decision = by_depth(waiting, in_flight, active, per_drain=per_drain, max_drains=max_drains)
    staying = sum(not drain.leaves for drain in active)
    assert decision.start == 0 or staying + decision.start <= max_drains
    if waiting:
        assert staying + decision.start >= 1, "messages wait and no drain takes them"
    assert decision.reason


@given(st.none() | st.floats(0, 1e6), active_drains, st.integers(1, 8))
def test_unread_records_always_have_a_reader(
    oldest: float | None, active: list[ActiveDrain], max_drains: int
) -> None:
    decision = by_age(oldest, active, objective_seconds=10, max_drains=max_drains)
    staying = sum(not drain.leaves for drain in active)
    assert decision.start == 0 or staying + decision.start <= max_drains
    if oldest is not None or active:
        assert staying + decision.start >= 1


@given(messages, messages, st.integers(1, 5000), st.integers(1, 16))
def test_a_second_look_right_after_the_start_starts_nothing(
    waiting: int, in_flight: int, per_drain: int, max_drains: int
) -> None:
    first = by_depth(waiting, in_flight, [], per_drain=per_drain, max_drains=max_drains)
    started = [WAITING_TO_START] * first.start
    assert by_depth(waiting, in_flight, started, per_drain=per_drain, max_drains=max_drains).start == 0


@given(st.floats(0, 600), st.floats(0, 60), st.floats(1, 600))
def test_a_drain_leaves_only_near_its_time_limit_and_after_its_idle_time(
    running: float, idle: float, longest: float
) -> None:
    if ActiveDrain(running, idle, longest).leaves:
        assert running > idle
        assert running >= longest - HANDOVER_SECONDS


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
