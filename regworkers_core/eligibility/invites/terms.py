"""Which campaign invites are for, and until when they are valid, from what the operator typed.

A mistyped campaign id must not look like a campaign without invites.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from regworkers_core.domain.campaign import Campaign
from regworkers_core.domain.claim import InviteType
from regworkers_core.domain.keys import is_selection_id, quoted
from regworkers_core.domain.reasons import UsageError
from regworkers_core.domain.timestamps import iso, seconds
from regworkers_core.runtime import Runtime
from regworkers_core.settings import InvitesSettings

MAX_DAYS = 3650
_DAY_SECONDS = 86_400
# Epoch seconds have ten digits from 2001 to 2286.
_FIRST_EPOCH, _END_OF_EPOCHS = 1_000_000_000, 10_000_000_000
_SHOWN_CHARS = 40
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_NUMBER = re.compile(r"([+-]?\d{1,20})(d|days?)?", re.IGNORECASE)
_FORMS = "days (30), a date (2026-12-31: until its end, UTC), a time (2026-12-31T18:00:00Z) or epoch seconds"


def parse_ttl(text: str, now: float) -> int:
    """Return epoch seconds for `30` (days, until the end of that day in UTC), `2026-12-31`, `2026-12-31T18:00:00+01:00`
    or `1798761600`. Days are rounded up, so that an upload that is repeated on the same day means the same moment.

    Raises UsageError, which suggests what was meant, for a moment in the past or more than MAX_DAYS ahead.
    """
    trimmed = text.strip()
    number = _NUMBER.fullmatch(trimmed)
    if number is not None:
        ttl = _from_number(int(number[1]), text=trimmed, in_days=bool(number[2]), now=now)
    else:
        ttl = _from_date(trimmed)
    if ttl <= now:
        moment = f" ({iso(ttl)})" if number is not None else ""
        raise UsageError(f"ttl {trimmed} is in the past{moment}, so the invites would not count: {_FORMS}")
    if ttl > now + (MAX_DAYS + 1) * _DAY_SECONDS:
        raise UsageError(f"ttl {trimmed} is more than {MAX_DAYS} days ahead: {_FORMS}")
    return ttl


def days_from(days: int, now: float) -> int:
    """Return the end of the day (UTC) `days` from now."""
    return _end_of(datetime.fromtimestamp(now, UTC) + timedelta(days=days))


def default_ttl(
    campaign: Campaign | None, settings: InvitesSettings, now: float, *, until_close: bool = False
) -> int:
    """Return the default: `ttlDays` from now; with `until_close`, when the draw no longer needs the invites if that is
    later. Raises UsageError for `until_close` without a campaign.
    """
    ttl = days_from(settings.ttl_days, now)
    if not until_close:
        return ttl
    if campaign is None:
        raise UsageError("the campaign does not exist yet, so nothing says when it closes: give a ttl")
    return max(ttl, needed_until(campaign, settings))


def needed_until(campaign: Campaign, settings: InvitesSettings) -> int:
    """Return the end of the day (UTC) `afterCloseDays` after the campaign closes. Until then a draw checks whether
    entrants were invited, and DynamoDB deletes expired invites.
    """
    return days_from(settings.after_close_days, seconds(campaign.closes_at) or 0.0)


def _from_number(number: int, *, text: str, in_days: bool, now: float) -> int:
    if number <= 0:
        raise UsageError(f"ttl {text} is in the past, so the invites would not count: {_FORMS}")
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


class Invited(NamedTuple):
    campaign_id: str  # to write invites under
    campaign: Campaign | None  # None: it does not exist yet


def campaign_to_invite_to(runtime: Runtime, slug_or_id: str, *, force: bool) -> Invited:
    """Find the campaign to invite to. `force` accepts the id of a campaign that does not exist
    yet. Without `force`, raises UsageError for an unknown campaign.
    """
    if not force:
        hint = "; to invite before it is created, give its campaignId and --force"
        campaign = runtime.campaigns.require(slug_or_id, hint)
        return Invited(campaign.campaign_id, campaign)
    found = runtime.campaigns.find(slug_or_id)
    if found is not None:
        return Invited(found.campaign_id, found)
    if not is_selection_id(slug_or_id):
        raise UsageError(
            "the campaign to invite to cannot be a campaignId: use 1 to 64 characters of A-Z a-z 0-9 - _"
        )
    return Invited(slug_or_id, None)


def campaign_of_invites(runtime: Runtime, slug_or_id: str) -> str:
    """Return the id under which to look for invites. Raises UsageError for an unknown campaign that has no invites
    either.
    """
    campaign = runtime.campaigns.find(slug_or_id)
    if campaign is not None:
        return campaign.campaign_id
    if runtime.invites.are_there(slug_or_id):
        return slug_or_id
    raise UsageError(
        f"there is no campaign {quoted(slug_or_id)}, and no invite with this campaignId: see `regworkers campaign list`"
    )


def advice(campaign: Campaign | None, type_: InviteType, ttl: int, settings: InvitesSettings) -> str | None:
    """Return why the invites will not count, or None; they are valid until `ttl`."""
    if campaign is None:
        return "the campaign does not exist yet: these invites are not used before it is created"
    terms = campaign.eligibility
    if not terms.invite_only:
        return f"campaign {campaign.campaign_id} is not `inviteOnly`: every fan may enter, invited or not"
    if type_ not in terms.invite_types:
        wanted = ", ".join(each.value for each in terms.invite_types)
        return f"campaign {campaign.campaign_id} accepts only invites by {wanted}: those by {type_.value} do not count"
    if ttl < (needed := needed_until(campaign, settings)):
        return (
            f"these invites expire at {iso(ttl)} and campaign {campaign.campaign_id} closes at {campaign.closes_at}:"
            " expired invites are deleted, and a later draw excludes their entries as NOT_INVITED; make them valid"
            f" until {iso(needed)} (`--until-close`; `until_close: true` in the job)"
        )
    return None
