"""Until when invites of an upload hold, from what the operator typed."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.settings import InvitesSettings

MAX_DAYS = 3650
_DAY_SECONDS = 86_400
# Epoch seconds have ten digits from 2001 to 2286.
_FIRST_EPOCH, _END_OF_EPOCHS = 1_000_000_000, 10_000_000_000
_SHOWN_CHARS = 40
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_NUMBER = re.compile(r"([+-]?\d{1,20})(d|days?)?", re.IGNORECASE)
_FORMS = "days (30), a date (2026-12-31: to its end, UTC), a time (2026-12-31T18:00:00Z) or epoch seconds"


def parse_ttl(text: str, now: float) -> int:
    """Epoch seconds from `30` (days, to the end of that day in UTC), `2026-12-31`, `2026-12-31T18:00:00+01:00` or
    `1798761600`. Days are rounded up, so that an upload that is repeated the same day means the same moment.

    Raises UsageError, which says what was probably meant, for a moment that has passed or lies more than
    MAX_DAYS ahead.
    """
    trimmed = text.strip()
    number = _NUMBER.fullmatch(trimmed)
    if number is not None:
        ttl = _from_number(int(number[1]), text=trimmed, in_days=bool(number[2]), now=now)
    else:
        ttl = _from_date(trimmed)
    if ttl <= now:
        moment = f" ({iso(ttl)})" if number is not None else ""
        raise UsageError(f"ttl {trimmed} is in the past{moment}, so nobody would be invited: {_FORMS}")
    if ttl > now + (MAX_DAYS + 1) * _DAY_SECONDS:
        raise UsageError(f"ttl {trimmed} is more than {MAX_DAYS} days ahead: {_FORMS}")
    return ttl


def days_from(days: int, now: float) -> int:
    """The end of the day (UTC) `days` from now."""
    return _end_of(datetime.fromtimestamp(now, UTC) + timedelta(days=days))


def default_ttl(campaign: Campaign | None, settings: InvitesSettings, now: float) -> int:
    """Where nothing was typed: `ttlDays` from now, or until the draw no longer needs the invites if that is later."""
    ttl = days_from(settings.ttl_days, now)
    return ttl if campaign is None else max(ttl, needed_until(campaign, settings))


def needed_until(campaign: Campaign, settings: InvitesSettings) -> int:
    """The end of the day (UTC) `afterCloseDays` after the campaign closes. Until then somebody may ask whether who
    entered was invited, and DynamoDB takes expired invites away.
    """
    return days_from(settings.after_close_days, seconds(campaign.closes_at) or 0.0)


def _from_number(number: int, *, text: str, in_days: bool, now: float) -> int:
    if number <= 0:
        raise UsageError(f"ttl {text} is in the past, so nobody would be invited: {_FORMS}")
    if number <= MAX_DAYS:
        return days_from(number, now)
    if not in_days and _FIRST_EPOCH <= number < _END_OF_EPOCHS:
        return number
    raise UsageError(f"ttl {text} is {_what_was_meant(number, in_days)}: {_FORMS}")


def _what_was_meant(number: int, in_days: bool) -> str:
    if in_days:
        return f"more than {MAX_DAYS} days"
    for unit, per_second in (("milliseconds", 1_000), ("microseconds", 1_000_000)):
        if _FIRST_EPOCH <= number // per_second < _END_OF_EPOCHS:
            seconds = number // per_second
            return f"a time in {unit}; {seconds} seconds ({iso(seconds)}) was probably meant"
    if number % _DAY_SECONDS == 0 and number // _DAY_SECONDS <= MAX_DAYS:
        return f"neither days nor a time; {number // _DAY_SECONDS} days in seconds was probably meant"
    return f"neither days (up to {MAX_DAYS}) nor a time"


def _from_date(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"ttl {text[:_SHOWN_CHARS]!r} cannot be read: {_FORMS}") from None
    if _DATE.fullmatch(text):
        return _end_of(moment)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _end_of(day: datetime) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) + _DAY_SECONDS
