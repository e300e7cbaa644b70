"""What objectives read of `drain_log` on a real server."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from regworkers_core.adapters.mongo.activity import A_MINUTE, TEN_MINUTES, minute_of
from regworkers_core.domain.activity import DrainMinute
from regworkers_core.domain.snapshot import CORRECTNESS, DELIVERY, FRESHNESS, Share
from regworkers_core.domain.timestamps import iso
from regworkers_core.operations.health.objectives import read_budgets, read_objectives, timelines
from regworkers_core.runtime import Runtime
from regworkers_dagster.operations import health
from tests.operations.alerts.world import WELL

pytestmark = pytest.mark.namespace("module")

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
# Yesterday at 14:13:20: the server deletes what is too old.
NOW = time.time() // DAY * DAY - DAY + 14 * HOUR + 13 * MINUTE + 20
YESTERDAY, BEFORE = iso(NOW)[:10], iso(NOW - DAY)[:10]


@pytest.fixture
def runtime(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setattr(runtime, "clock", lambda: NOW)
    return runtime


def put(runtime: Runtime, ago: float, run: str = "a", drain: str = "save", **facts: Any) -> DrainMinute:
    counts = {"received": 100, "returned": 2, "dead_lettered": 1, "applied": 97}
    made = DrainMinute(drain, run, minute_of(NOW - ago), counts, 1, 1.0, 1.0, 60.0, measured=97, late=5)
    made = replace(made, **facts)
    runtime.drain_log.put(made)
    return made


def test_runs_are_added_up_by_ten_minutes_or_minute_and_an_older_row_has_no_lags(runtime: Runtime) -> None:
    put(runtime, 10), put(runtime, 20, "b"), put(runtime, 4 * MINUTE), put(runtime, 10, drain="publish")
    old = put(runtime, DAY)
    runtime.database["drain_log"].update_one({"minute": old.minute}, {"$unset": {"measured": "", "late": ""}})

    def rows(by: int) -> list[tuple[str, str, int, int]]:
        found = runtime.drain_log.totals(minute_of(NOW - 2 * DAY), minute_of(NOW + HOUR), by)
        return [(each.minute, each.drain, each.counts["received"], each.measured) for each in found]

    assert (f"{BEFORE}T14:10Z", "save", 100, 0) in rows(TEN_MINUTES)
    assert (f"{YESTERDAY}T14:10Z", "save", 200, 194) in rows(TEN_MINUTES)
    assert (f"{YESTERDAY}T14:13Z", "save", 200, 194) in rows(A_MINUTE)


def test_windows_are_as_if_every_minute_had_been_read_to_within_ten_minutes(runtime: Runtime) -> None:
    every = [put(runtime, ago * MINUTE) for ago in (1, 4, 20, 45, 59, 70, 200, 340, 400, 1000, 4000, 4500)]
    lines = timelines(every, (), HOUR, NOW)
    states = read_objectives(runtime)
    assert {each.objective for each in states} == {DELIVERY, CORRECTNESS, FRESHNESS}
    for state in states:
        line = next(line for key, line in lines.items() if key == (state.objective, state.subject))
        assert state.windows == {window: line.share(NOW - window, NOW) for window in state.windows}


def test_what_is_over_is_read_once_in_a_process(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    for ago in (1, 59, 64, 70, 75, 400, 4000):
        put(runtime, ago * MINUTE)
    read_objectives(runtime)
    totals, ranges = runtime.drain_log.totals, []

    def seen(start: str, end: str, by: int) -> list[DrainMinute]:
        ranges.append((start, end))
        return totals(start, end, by)

    monkeypatch.setattr(runtime.drain_log, "totals", seen)
    monkeypatch.setattr(runtime, "clock", lambda: NOW + 10 * MINUTE)
    exact = minute_of(NOW - 50 * MINUTE)[:TEN_MINUTES] + "0Z"
    later = read_objectives(runtime)
    assert [start for start, _ in ranges] == [minute_of(NOW - HOUR)[:TEN_MINUTES] + "0Z", exact]
    left = read_budgets(runtime, ())
    ranges.clear()
    # The longer time serves both.
    assert (read_objectives(runtime), read_budgets(runtime, ())) == (later, left)
    assert {start for start, _ in ranges} == {exact}
    fresh = Runtime(runtime.settings, clock=runtime.clock)
    assert left == read_budgets(fresh, ())
    assert later == read_objectives(fresh)


def test_budgets_are_of_the_days_that_the_settings_name(runtime: Runtime) -> None:
    put(runtime, HOUR), put(runtime, 29 * DAY, drain="publish"), put(runtime, 31 * DAY)
    shares = {each.objective: each.share for each in read_budgets(runtime, ())}
    assert shares[DELIVERY] == Share(200, 6) and shares[CORRECTNESS] == Share(200, 2)
    assert shares[FRESHNESS] == Share(97, 5)


def test_the_sensor_publishes_what_is_left_of_each_budget_in_the_first_minutes_of_an_hour(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(runtime, HOUR)
    assert health._hourly(runtime, WELL) == []
    monkeypatch.setattr(runtime, "clock", lambda: NOW // HOUR * HOUR + 30)
    published = {each.dimensions["Objective"]: each.value for each in health._hourly(runtime, WELL)}
    assert published["draws"] == 100.0 and published["delivery"] == pytest.approx(-2900)
