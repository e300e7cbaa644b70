"""The one summary of what drains did within a window."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from regworkers_core.domain.activity import SILENT_SECONDS, DrainMinute
from regworkers_core.operations.health.activity import Activity, Window, together

NOW = 1_795_594_590.0  # 2026-11-25T08:16:30Z


def minute(
    at: str = "2026-11-25T08:15Z", run: str = "r1", drain: str = "save", **changes: Any
) -> DrainMinute:
    values: dict[str, Any] = {
        "counts": {"received": 60},
        "batches": 2,
        "batch_p95_seconds": 0.5,
        "batch_max_seconds": 1.0,
        "batch_limit_seconds": 60.0,
    }
    return DrainMinute(drain, run, at, **{**values, **changes})


class Log:
    def __init__(self, *minutes: DrainMinute) -> None:
        self._minutes = minutes
        self.asked = list[tuple[str, str]]()

    def between(self, start: str, end: str) -> list[DrainMinute]:
        self.asked.append((start, end))
        return [each for each in self._minutes if start <= each.minute < end]


def activity(log: Log, *, now: float = NOW) -> Activity:
    runtime: Any = SimpleNamespace(clock=lambda: now, drain_log=log)
    return Activity(runtime)


def test_minutes_of_all_runs_are_added_up_and_percentiles_are_those_of_the_worst() -> None:
    log = Log(
        minute(calls={"mongo": 2}, waited_seconds={"mongo": 1.0}, lag_p95_seconds=7.0, memory_mib=300.0),
        minute(
            run="r2",
            calls={"mongo": 2},
            waited_seconds={"mongo": 2.0},
            batch_p95_seconds=0.7,
            batch_limit_seconds=30.0,
            lag_p95_seconds=0.4,
            memory_mib=100.0,
        ),
        minute(run="r3", ended="idle"),
        minute(drain="publish", ended="dependency_down"),
    )
    found = activity(log).last(600)
    save = found["save"]
    assert (save.minutes, save.active_runs, save.received, save.rate) == (3, 2, 180, 1.0)
    assert (save.mean_wait("mongo"), save.mean_wait("sqs")) == (0.75, None)
    assert (save.batch_p95_seconds, save.lag_p95_seconds, save.typical_seconds) == (0.7, 7.0, 0.5)
    assert (save.memory_mib, save.batch_limit_seconds, save.window_seconds) == (300.0, 30.0, 600)
    assert found["publish"].ends == Counter(dependency_down=1) and not found["publish"].active_runs


@pytest.mark.parametrize(("later", "active"), [(-1.0, 1), (0.0, 0)])
def test_a_run_that_is_silent_for_two_minutes_has_died(later: float, active: int) -> None:
    begun = NOW - NOW % 60 - 60
    found = activity(Log(minute()), now=begun + SILENT_SECONDS + later).last(600)
    assert (found["save"].active_runs, found["save"].last_seen_at) == (active, "2026-11-25T08:15Z")


def test_a_run_is_as_active_as_its_last_minute() -> None:
    log = Log(minute("2026-11-25T08:15Z"), minute("2026-11-25T08:16Z", ended="idle"))
    assert activity(log).last(600)["save"].active_runs == 0


def test_writing_the_log_is_not_part_of_the_work() -> None:
    log = Log(minute(calls={"drain-log": 4}, waited_seconds={"drain-log": 9.0}))
    save = activity(log).last(600)["save"]
    assert not save.calls and not save.waited_seconds


def test_a_window_is_read_a_day_at_a_time_and_until_now_with_what_clocks_ahead_wrote() -> None:
    log = Log(*(minute(f"2026-11-{day}T12:00Z") for day in (22, 23, 24)), minute("2026-11-25T08:17Z"))
    assert activity(log).last(2.5 * 86_400)["save"].minutes == 3
    assert log.asked == [
        ("2026-11-22T20:16Z", "2026-11-23T00:00Z"),
        ("2026-11-23T00:00Z", "2026-11-24T00:00Z"),
        ("2026-11-24T00:00Z", "2026-11-25T00:00Z"),
        ("2026-11-25T00:00Z", "2026-11-25T09:16Z"),
    ]


def test_a_minute_between_two_windows_is_in_the_later_one() -> None:
    log, middle = Log(minute("2026-11-25T06:00Z")), NOW - NOW % 3600 - 2 * 3600
    before, after = (Window(middle - 3600, middle), Window(middle, middle + 3600))
    assert not activity(log).over(before) and activity(log).over(after)["save"].minutes == 1


def test_days_together_are_the_window() -> None:
    log = Log(minute("2026-11-24T23:59Z"), minute("2026-11-25T00:00Z", "r2", lag_p95_seconds=2.0))
    window = Window(NOW - 86_400, NOW)
    days = activity(log).by_day(window)
    assert list(days) == ["2026-11-24", "2026-11-25"]
    assert [day["save"].received for day in days.values()] == [60, 60]
    whole, merged = activity(log).over(window)["save"], together(days.values())["save"]
    assert (merged.received, merged.batch_p95s, merged.latest) == (120, [0.5, 0.5], whole.latest)
