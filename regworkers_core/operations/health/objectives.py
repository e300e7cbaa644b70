"""Objectives: which share of the work was good, within the windows of burn rates and over the days of the budget.

Freshness, delivery and correctness count the items of `drain_log`, draws on time the draws. Each state has the subject
of the condition whose incident it shares: see `alerts.conditions.objectives`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from heapq import nlargest
from itertools import accumulate
from typing import NamedTuple

from regworkers_core.domain.activity import DrainMinute
from regworkers_core.domain.snapshot import (
    CORRECTNESS,
    DELIVERY,
    DRAWS,
    FRESHNESS,
    OBJECTIVES,
    Budget,
    CampaignState,
    ObjectiveState,
    Share,
)
from regworkers_core.domain.timestamps import seconds
from regworkers_core.flows import DRAIN
from regworkers_core.operations.health.activity import DAY_SECONDS, Activity
from regworkers_core.replication.drains import SAVE
from regworkers_core.runtime import Runtime
from regworkers_core.settings import ObjectivesSettings

_STREAM, ALL_DRAWS = "demand-table", "all"
SUBJECTS: Mapping[str, tuple[str, ...]] = {
    FRESHNESS: (_STREAM,),
    DELIVERY: tuple(DRAIN),
    DRAWS: (ALL_DRAWS,),
    CORRECTNESS: tuple(dict.fromkeys(f"{spec.queue}-dlq" for spec in DRAIN.values())),
}
# What lasts no longer pages no one. Draws are single events, not minutes of many.
_BLIP_MINUTES = 2


class Key(NamedTuple):
    objective: str
    subject: str


class Counted(NamedTuple):
    """Events at one time (epoch seconds)."""

    at: float
    events: int
    bad: int


class Timeline:
    """Events in the order of their time, added up from the first on."""

    def __init__(self, counted: Iterable[Counted]) -> None:
        by_time: defaultdict[float, list[Counted]] = defaultdict(list)
        for row in counted:
            by_time[row.at].append(row)
        self._times = sorted(by_time)
        self._bad_at = [sum(row.bad for row in by_time[at]) for at in self._times]
        self._events = [0, *accumulate(sum(row.events for row in by_time[at]) for at in self._times)]
        self._bad = [0, *accumulate(self._bad_at)]

    @property
    def last_bad_at(self) -> float | None:
        """When the last bad event came (epoch seconds, to the minute, of hours ago to ten); None: never."""
        return next(
            (at for at, bad in zip(reversed(self._times), reversed(self._bad_at), strict=True) if bad), None
        )

    def share(self, since: float, until: float, *, without: int = 0) -> Share:
        """What came after `since`, until and with `until`, `without` the minutes that had the most bad events."""
        first, last = bisect_right(self._times, since), bisect_right(self._times, until)
        events, bad = self._events[last] - self._events[first], self._bad[last] - self._bad[first]
        for worst in nlargest(without, range(first, last), self._bad_at.__getitem__):
            events -= self._events[worst + 1] - self._events[worst]
            bad -= self._bad_at[worst]
        return Share(events, bad)


def timelines(
    minutes: Iterable[DrainMinute], campaigns: Iterable[CampaignState], draw_seconds: float, now: float
) -> dict[Key, Timeline]:
    """The events of each objective and subject."""
    found: defaultdict[Key, list[Counted]] = defaultdict(list)
    for each in minutes:
        at = seconds(each.minute)
        if at is None:
            continue
        received = each.counts.get("received", 0)
        dead = each.counts.get("dead_lettered", 0)
        # The drain that ends the way of a change.
        if each.drain == SAVE.name:
            found[Key(FRESHNESS, _STREAM)].append(Counted(at, each.measured, each.late))
        found[Key(DELIVERY, each.drain)].append(Counted(at, received, min(each.failed, received)))
        queue = DRAIN[each.drain].queue if each.drain in DRAIN else each.drain
        found[Key(CORRECTNESS, f"{queue}-dlq")].append(Counted(at, received, min(dead, received)))
    for began, drawn in (draw for campaign in campaigns for draw in campaign.draws):
        start = seconds(began)
        if start is not None:
            # A draw that is late counts from when it became late, one that is not drawn and not late not yet.
            end = min(seconds(drawn or "") or now, start + draw_seconds)
            late = end == start + draw_seconds
            if late or drawn:
                found[Key(DRAWS, ALL_DRAWS)].append(Counted(end, 1, int(late)))
    return {key: Timeline(rows) for key, rows in found.items()}


def objective_states(
    found: Mapping[Key, Timeline], settings: ObjectivesSettings, now: float
) -> tuple[ObjectiveState, ...]:
    """The windows of all burn rates, until `now`."""
    pages = (settings.page_fast, settings.page_slow)
    windows = {
        window for rate in (*pages, settings.warn) for window in (rate.long_seconds, rate.short_seconds)
    }
    return tuple(
        ObjectiveState(
            *key,
            {each: line.share(now - each, now) for each in windows},
            {
                each.short_seconds: line.share(
                    now - each.short_seconds, now, without=0 if key.objective == DRAWS else _BLIP_MINUTES
                )
                for each in pages
            },
            line.last_bad_at,
        )
        for key, line in found.items()
    )


def budgets(found: Mapping[Key, Timeline], settings: ObjectivesSettings, now: float) -> tuple[Budget, ...]:
    """The budget of each objective, in their order, over `budget_days`."""
    return tuple(
        Budget(
            name,
            getattr(settings, name),
            _over_all(found, name, now - settings.budget_days * DAY_SECONDS, now),
        )
        for name in OBJECTIVES
    )


def _over_all(found: Mapping[Key, Timeline], objective: str, since: float, until: float) -> Share:
    shares = [line.share(since, until) for key, line in found.items() if key.objective == objective]
    return Share(sum(each.events for each in shares), sum(each.bad for each in shares))


def draw_states(
    campaigns: Iterable[CampaignState], settings: ObjectivesSettings, now: float
) -> tuple[ObjectiveState, ...]:
    """The state of draws on time, none without a draw."""
    return objective_states(timelines((), campaigns, settings.draw_seconds, now), settings, now)


def read_objectives(runtime: Runtime) -> tuple[ObjectiveState, ...]:
    """The states that `drain_log` shows: all but draws on time. Raises TransientFailure."""
    now, settings = runtime.clock(), runtime.settings.objectives
    longest = max(rate.long_seconds for rate in (settings.page_fast, settings.page_slow, settings.warn))
    minutes = Activity(runtime).counted(longest)
    return objective_states(timelines(minutes, (), settings.draw_seconds, now), settings, now)


def read_budgets(runtime: Runtime, campaigns: Sequence[CampaignState]) -> tuple[Budget, ...]:
    """Reads the days of the budget. Raises TransientFailure."""
    now, settings = runtime.clock(), runtime.settings.objectives
    minutes = Activity(runtime).counted(settings.budget_days * DAY_SECONDS)
    return budgets(timelines(minutes, campaigns, settings.draw_seconds, now), settings, now)
