"""What drains did lately, from what they wrote down by the minute."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from regworkers_core.adapters.mongo.drain_log import DrainMinute, minute_of
from regworkers_core.domain.snapshot import DrainState
from regworkers_core.domain.timestamps import seconds
from regworkers_core.drains.runner import DrainSpec
from regworkers_core.runtime import Runtime

WINDOW_SECONDS = 300.0
# A run that writes every quarter of a minute and was not heard of for so long has died.
_SILENT_SECONDS = 120.0


def read_drains(runtime: Runtime, specs: Iterable[DrainSpec[object]]) -> tuple[DrainState, ...]:
    """Raises TransientFailure."""
    now = runtime.clock()
    limits = {spec.name: spec.pace(runtime.settings).keep_seconds for spec in specs}
    minutes = runtime.drain_log.since(minute_of(now - WINDOW_SECONDS))
    seen = {minute.drain for minute in minutes}
    before = {name: runtime.drain_log.last(name) for name in limits if name not in seen}
    return drain_states(minutes, {name: last for name, last in before.items() if last}, limits, now)


def drain_states(
    minutes: Sequence[DrainMinute],
    last: Mapping[str, DrainMinute],
    limits: Mapping[str, float],
    now: float,
) -> tuple[DrainState, ...]:
    """One for each drain of `limits` (its batch limit in seconds). `minutes` are those of the window, oldest first,
    `last` the latest one of drains that are not among them.
    """
    states = []
    for name, limit in limits.items():
        mine = [minute for minute in minutes if minute.drain == name]
        latest = {minute.run_id: minute for minute in mine}
        batches = [each.batch_p95_seconds for each in mine if each.batch_p95_seconds is not None]
        lags = [each.lag_p95_seconds for each in latest.values() if each.lag_p95_seconds is not None]
        seen = mine[-1] if mine else last.get(name)
        states.append(
            DrainState(
                name,
                WINDOW_SECONDS,
                received=sum(minute.counts.get("received", 0) for minute in mine),
                failed=sum(minute.failed for minute in mine),
                last_seen_at=seen.minute if seen else None,
                active_runs=sum(_is_active(minute, now) for minute in latest.values()),
                # Of the worst minute: those of a minute cannot be put together to those of five.
                batch_p95_seconds=max(batches, default=None),
                batch_limit_seconds=mine[-1].batch_limit_seconds if mine else limit,
                lag_p95_seconds=max(lags, default=None),
                dead_lettered=sum(minute.counts.get("dead_lettered", 0) for minute in mine),
            )
        )
    return tuple(states)


def _is_active(latest: DrainMinute, now: float) -> bool:
    at = seconds(latest.minute)
    return not latest.ended and at is not None and now - at < _SILENT_SECONDS
