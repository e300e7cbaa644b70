"""When a cron schedule is due, and how long it is silent at most. Times are UTC, as those of all our schedules."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

_DAY_MINUTES = 24 * 60
_WEEK_MINUTES = 7 * _DAY_MINUTES
_ALIASES = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0"}
_MONTH_SECONDS = 31 * 24 * 3600.0
_YEAR_SECONDS = 366 * 24 * 3600.0
# From one 29 February to the next one, across a century that has none.
_MOST_DAYS = 8 * 366 + 1


def next_time(cron: str, after: float) -> float | None:
    """The first time of a cron expression with five fields after `after`, both in epoch seconds; None for one that is
    not understood, or that never comes. As in cron, a day fits by its date or its weekday where both are given.
    """
    fields = _ALIASES.get(cron, cron).split()
    if len(fields) != 5:
        return None
    try:
        minutes, hours = sorted(_numbers(fields[0], 60)), sorted(_numbers(fields[1], 24))
        dates, months = _numbers(fields[2], 32), _numbers(fields[3], 13)
        weekdays = {day % 7 for day in _numbers(fields[4], 8)}
    except ValueError:
        return None
    either = fields[2] != "*" and fields[4] != "*"
    start = datetime.fromtimestamp(after, UTC)
    midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
    for _ in range(_MOST_DAYS):
        by_date, by_weekday = midnight.day in dates, midnight.isoweekday() % 7 in weekdays
        if midnight.month in months and (by_date or by_weekday if either else by_date and by_weekday):
            for hour in hours:
                for minute in minutes:
                    due = midnight.replace(hour=hour, minute=minute)
                    if due > start:
                        return due.timestamp()
        midnight += timedelta(days=1)
    return None


def longest_gap_seconds(cron: str) -> float:
    """Between two times of a cron expression with five fields; of one that names days of the month a month, of one
    that names months a year, as of any that is not understood.
    """
    fields = _ALIASES.get(cron, cron).split()
    if len(fields) != 5 or fields[3] != "*":
        return _YEAR_SECONDS
    if fields[2] != "*":
        return _MONTH_SECONDS
    try:
        minutes, hours = _numbers(fields[0], 60), _numbers(fields[1], 24)
        # 7 is Sunday, too.
        days = {day % 7 for day in _numbers(fields[4], 8 if fields[4] != "*" else 7)}
    except ValueError:
        return _YEAR_SECONDS
    times = sorted(
        day * _DAY_MINUTES + hour * 60 + minute for day in days for hour in hours for minute in minutes
    )
    following = [*times[1:], times[0] + _WEEK_MINUTES]
    return 60.0 * max(after - before for before, after in zip(times, following, strict=True))


def _numbers(field: str, end: int) -> set[int]:
    """Those below `end` that a field stands for. Raises ValueError for one that is none, or stands for nothing."""
    found = {number for part in field.split(",") for number in _of_part(part, end)}
    if not found or not all(0 <= number < end for number in found):
        raise ValueError(field)
    return found


def _of_part(part: str, end: int) -> Iterable[int]:
    span, _, step = part.partition("/")
    first, _, last = span.partition("-")
    if first == "*":
        return range(0, end, int(step or 1))
    if last or step:
        return range(int(first), (int(last) if last else end - 1) + 1, int(step or 1))
    return [int(first)]
