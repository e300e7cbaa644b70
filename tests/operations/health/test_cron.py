"""When schedules are due, and how long they are silent at most."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from regworkers_core.operations.health.scheduler import longest_gap_seconds, next_time

HOUR, DAY = 3600.0, 24 * 3600.0


@pytest.mark.parametrize(
    ("cron", "seconds"),
    [
        ("* * * * *", 60.0),
        ("*/5 * * * *", 300.0),
        ("40 3 * * *", DAY),
        ("0 7,15 * * *", 16 * HOUR),
        ("15 8-17 * * *", 15 * HOUR),
        ("0 9 * * 1-5", 3 * DAY),
        ("0 9 * * 1", 7 * DAY),
        ("0 9 * * MON", 7 * DAY),
        ("0 7 2 1,4,7,10 *", 92 * DAY),
        ("0 9 * * 0,7", 7 * DAY),
        ("0 */6 * * *", 6 * HOUR),
        ("5/30 * * * *", 1800.0),
        ("@daily", DAY),
        ("0 9 1 * *", 31 * DAY),
        ("0 9 1 4 *", 366 * DAY),
    ],
)
def test_the_longest_gap_between_two_times(cron: str, seconds: float) -> None:
    assert longest_gap_seconds(cron) == seconds


@pytest.mark.parametrize("cron", ["", "@reboot", "0 25 * * *", "x * * * *", "5-1 * * * *"])
def test_an_invalid_schedule_raises_no_false_alarm(cron: str) -> None:
    assert longest_gap_seconds(cron) == 366 * DAY


@pytest.mark.parametrize(
    ("cron", "after", "due"),
    [
        ("*/5 * * * *", "2026-11-26T05:04:59", "2026-11-26T05:05:00"),
        ("*/5 * * * *", "2026-11-26T05:05:00", "2026-11-26T05:10:00"),
        ("0 * * * *", "2026-11-26T23:30:00", "2026-11-27T00:00:00"),
        ("0 6 * * 1", "2026-11-26T05:00:00", "2026-11-30T06:00:00"),
        ("0 4 * * 0", "2026-12-31T05:00:00", "2027-01-03T04:00:00"),
        ("30 6 1 * *", "2026-11-26T05:00:00", "2026-12-01T06:30:00"),
        ("0 7 2 1,4,7,10 *", "2026-11-26T05:00:00", "2027-01-02T07:00:00"),
        ("0 0 29 2 *", "2096-03-01T00:00:00", "2104-02-29T00:00:00"),
        # As in cron: the 13th, or a Friday.
        ("0 9 13 * 5", "2026-11-26T12:00:00", "2026-11-27T09:00:00"),
    ],
)
def test_the_next_time_of_a_schedule(cron: str, after: str, due: str) -> None:
    def epoch(text: str) -> float:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    assert next_time(cron, epoch(after)) == epoch(due)


@pytest.mark.parametrize("cron", ["", "@reboot", "0 25 * * *", "0 0 30 2 *"])
def test_an_invalid_schedule_or_date_has_no_next_time(cron: str) -> None:
    assert next_time(cron, 0.0) is None


def test_every_schedule_of_ours_is_valid_and_in_utc() -> None:
    from regworkers_dagster.definitions import defs

    schedules = defs.get_repository_def().schedule_defs
    assert schedules
    for each in schedules:
        assert isinstance(each.cron_schedule, str) and next_time(each.cron_schedule, 0.0) is not None
        assert each.execution_timezone == "UTC"
