"""How long schedules are silent at most."""

from __future__ import annotations

import pytest

from regworkers_core.operations.snapshot.cron import longest_gap_seconds

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


@pytest.mark.parametrize("cron", ["", "@reboot", "0 9 * * MON", "0 25 * * *", "x * * * *", "5-1 * * * *"])
def test_what_is_not_understood_raises_no_false_alarm(cron: str) -> None:
    assert longest_gap_seconds(cron) == 366 * DAY
