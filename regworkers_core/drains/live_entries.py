"""How many live entries a campaign has, how they came over time, and how far behind they are, without a count of
`entries`.

Each run of the save drain writes by minute, into `drain_log`, how many entries of a campaign came to the replica less
those that were removed. A count of the collection, by each reconcile and as a campaign opens, is what those minutes are
added to: it corrects what they missed, and keeps the hours that `drain_log` forgets after its 40 days.

A minute is written up to 15 s late. So a count beside a running drain may be off by what that drain saved in this time,
until the next count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import structlog

from regworkers_core.adapters.mongo.activity import DRAIN_LOG_DAYS, EntryCount, minute_of
from regworkers_core.domain.reasons import TransientFailure
from regworkers_core.domain.timestamps import duration, iso
from regworkers_core.runtime import Runtime

log = structlog.get_logger(__name__)
_HOUR_SECONDS, _DAY_SECONDS = 3600.0, 86_400.0
# A run writes a minute that is over within 15 s, or as it ends; clocks differ.
_WRITTEN_SECONDS = 300.0
# What was saved before says nothing of now.
_RECENT_SECONDS = 900.0
# A count of more takes too long for a page.
MOST_PARKED = 10_000


@dataclass(frozen=True, slots=True)
class EntriesOverTime:
    """The live entries of a campaign."""

    campaign_id: str
    as_of: str  # an ISO time; what was saved in the 15 s before it may be missing
    total: int | None  # None: never counted
    counted_since: str | None  # the first minute that is not in the last count
    # The first minute of each bucket in which the number changed, and by how much, oldest first.
    buckets: tuple[tuple[str, int], ...]

    @property
    def totals(self) -> tuple[tuple[str, int], ...]:
        """The number of entries at the end of each bucket; empty without a total."""
        if self.total is None:
            return ()
        before = self.total - sum(number for _, number in self.buckets)
        reached = accumulate((number for _, number in self.buckets), initial=before)
        return tuple(zip((begin for begin, _ in self.buckets), list(reached)[1:], strict=True))


def entries_over_time(
    runtime: Runtime, campaign_id: str, *, since: float = 0.0, by: Literal["minute", "hour"] = "hour"
) -> EntriesOverTime:
    """The live entries of a campaign: the total, and how it changed from the hour or minute of `since` (epoch seconds)
    on, of at most 40 days. Raises TransientFailure.
    """
    now = runtime.clock()
    counted = runtime.entry_counts.of(campaign_id)
    since = max(since, now - DRAIN_LOG_DAYS * _DAY_SECONDS)
    first = minute_of(since) if by == "minute" else _hour_of(since)
    # Hours of the last count are not read again.
    known = counted is not None and by == "hour"
    start = counted.hour if counted and (known or counted.hour < first) else first
    minutes = runtime.drain_log.live(campaign_id, start, minute_of(now - _WRITTEN_SECONDS))
    total = None
    if counted is not None:
        total = counted.entries + sum(number for minute, number in minutes.items() if minute >= counted.hour)
    changed = Counter(minutes) if by == "minute" else _by_hour(minutes.items())
    if counted is not None and known:
        changed.update(counted.earlier)
    buckets = sorted((begin, number) for begin, number in changed.items() if begin >= first and number)
    return EntriesOverTime(campaign_id, iso(now), total, counted.hour if counted else None, tuple(buckets))


@dataclass(frozen=True, slots=True)
class CampaignLag:
    """How far the replica of one campaign is behind its source."""

    # The longest time from a change to its save in the last minute that saved one, and that minute; None: no change was
    # saved within a quarter of an hour.
    lag_seconds: float | None
    lag_at: str | None
    paused_since: str | None  # None: it is not paused
    parked: int  # keys that wait for the end of the pause, counted up to MOST_PARKED

    @property
    def in_words(self) -> str:
        if self.paused_since is not None:
            more = " or more" if self.parked == MOST_PARKED else ""
            return f"paused since {self.paused_since}: {self.parked:,}{more} keys wait"
        waits = f"; {self.parked:,} keys wait to be queued again" if self.parked else ""
        if self.lag_seconds is None:
            return f"no change was saved within {_RECENT_SECONDS / 60:g} minutes{waits}"
        return f"{duration(self.lag_seconds)} at most in the minute of {self.lag_at}{waits}"


def campaign_lag(runtime: Runtime, campaign_id: str) -> CampaignLag:
    """How far a campaign is behind, by the minutes of the save drain and by the keys that are parked. What waits in the
    stream and the queue belongs to no campaign yet. Raises TransientFailure.
    """
    last, paused = latest_lags(runtime, campaign_id).get(campaign_id), runtime.parking.of(campaign_id)
    lag, at = last or (None, None)
    parked = runtime.parking.count(campaign_id, MOST_PARKED)
    return CampaignLag(lag, at, paused.at if paused else None, parked)


def latest_lags(runtime: Runtime, campaign_id: str | None = None) -> dict[str, tuple[float, str]]:
    """The longest lag of each campaign in the last minute in which one was measured, within a quarter of an hour, and
    that minute; of one campaign, or of all. Raises TransientFailure.
    """
    lags = runtime.drain_log.lags(minute_of(runtime.clock() - _RECENT_SECONDS), campaign_id)
    return {each: (round(found[last := max(found)], 1), last) for each, found in lags.items()}


def count_entries(runtime: Runtime, campaign_ids: Iterable[str]) -> None:
    """Count the entries of these campaigns from an index. One that cannot be counted now keeps its last count."""
    now = runtime.clock()
    hour, oldest = _hour_of(now), _hour_of(now - DRAIN_LOG_DAYS * _DAY_SECONDS)
    over = minute_of(now - _WRITTEN_SECONDS)
    for campaign_id in campaign_ids:
        try:
            before = runtime.entry_counts.of(campaign_id)
            minutes = runtime.drain_log.live(campaign_id, before.hour if before else oldest, over)
            since = sum(number for minute, number in minutes.items() if minute >= hour)
            earlier = _by_hour((minute, number) for minute, number in minutes.items() if minute < hour)
            earlier.update(before.earlier if before else {})
            kept = {begin: number for begin, number in sorted(earlier.items()) if begin >= oldest and number}
            entries = runtime.replica.count_campaign(campaign_id).live - since
            runtime.entry_counts.put(campaign_id, EntryCount(hour, entries, kept))
        except TransientFailure as failure:
            log.warning("entries not counted", campaignId=campaign_id, error=str(failure))


def _by_hour(minutes: Iterable[tuple[str, int]]) -> Counter[str]:
    hours = Counter[str]()
    for minute, number in minutes:
        hours[f"{minute[: -len('00Z')]}00Z"] += number
    return hours


def _hour_of(seconds: float) -> str:
    return minute_of(seconds // _HOUR_SECONDS * _HOUR_SECONDS)
