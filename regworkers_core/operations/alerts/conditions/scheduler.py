"""Whether Dagster's daemons beat, its sensors and schedules tick, and the sensor of alerts looks."""

from __future__ import annotations

from regworkers_core.domain.snapshot import TickState, Unread
from regworkers_core.operations.alerts.conditions.causes import DAEMONS
from regworkers_core.operations.alerts.conditions.condition import Finding, Given, Judgement
from regworkers_core.operations.alerts.conditions.texts import duration, some

ALERTS_SENSOR = "alerts_sensor"
# A schedule whose time has come may wait for the daemon's next round, and its tick for a busy machine.
_SCHEDULE_LATE_SECONDS = 60.0


def silent(given: Given) -> Judgement | Unread:
    """One finding for all daemons, for they live in one process, and one for each tick that is overdue or fails."""
    read = given.snapshot.scheduler
    if isinstance(read, Unread):
        return read
    findings = []
    limit = given.settings.alerts.silent_seconds
    ages = {name: given.age(at) for name, at in sorted(read.daemons.items())}
    late = {name: age for name, age in ages.items() if age is None or age > limit}
    if late:
        beats = [f"{name} {'never' if age is None else duration(age) + ' ago'}" for name, age in late.items()]
        summary = f"{len(late)} of {len(ages)} daemons of Dagster are silent, last heard of: {some(beats)}"
        details = {"silentSeconds": {name: age and round(age) for name, age in late.items()}}
        findings.append(Finding(DAEMONS.partition(":")[2], given.severity.scheduler, summary, details))
    findings += [found for tick in read.ticks if (found := _of_tick(given, tick)) is not None]
    # Since when these are switched on is not known: their first tick may be due tomorrow.
    first = {tick.name for tick in read.ticks if tick.last_tick_at is None and tick.since is None}
    return Judgement(tuple(findings), early=frozenset(first))


def watcher_silent(given: Given) -> Judgement:
    """Who looks from outside sees whether the sensor still does: a dead daemon cannot alert of itself."""
    seen = given.sensor_seen_at
    age = None if seen is None else given.now - seen
    if age is None or age <= given.settings.alerts.silent_seconds:
        return Judgement()
    summary = f"{ALERTS_SENSOR} has not looked for {duration(age)}: daemon, code location or sensor are down"
    found = Finding(
        ALERTS_SENSOR, given.severity.watcher, summary, {"silentSeconds": round(age)}, because=(DAEMONS,)
    )
    return Judgement((found,))


def _of_tick(given: Given, tick: TickState) -> Finding | None:
    age = given.age(tick.last_tick_at)
    severity = given.severity.scheduler_ticks
    details = {
        "intervalSeconds": tick.interval_seconds,
        "silentSeconds": None if age is None else round(age),
    }
    if _is_late(given, tick):
        last = "never ticked" if age is None else f"ticked {duration(age)} ago"
        summary = f"{tick.name} is switched on and {last}, it should every {duration(tick.interval_seconds)}"
        return Finding(tick.name, severity, summary, details, because=(DAEMONS,))
    if tick.error:
        summary = f"the last tick of {tick.name} failed: {tick.error.splitlines()[0][:200]}"
        return Finding(tick.name, severity, summary, details)
    return None


def _is_late(given: Given, tick: TickState) -> bool:
    """A schedule one interval and some seconds after it was due first, a sensor after some intervals without a tick.
    From when neither of them ticked, nor is known to be switched on, nothing is late.
    """
    if tick.due_at is not None:
        overdue = given.age(tick.due_at) or 0.0
        return overdue > tick.interval_seconds + _SCHEDULE_LATE_SECONDS
    silent = given.age(tick.last_tick_at or tick.since)
    alerts = given.settings.alerts
    limit = max(alerts.silent_intervals * tick.interval_seconds, alerts.silent_seconds)
    return silent is not None and silent > limit
