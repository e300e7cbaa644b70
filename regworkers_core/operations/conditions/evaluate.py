"""One look, judged and settled: what the sensor of alerts does, and `regworkers alerts evaluate` from outside of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from regworkers_core.adapters.mongo.alert_looks import AlertLooks
from regworkers_core.adapters.mongo.incidents import Incident
from regworkers_core.alerting import alerting
from regworkers_core.domain.alert import Alert, Change, Severity
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.snapshot import Snapshot, Unread
from regworkers_core.domain.timestamps import iso
from regworkers_core.observability.logs import describe
from regworkers_core.operations.conditions.campaigns import PROCESSING
from regworkers_core.operations.conditions.condition import Condition, Given, Judgement
from regworkers_core.operations.conditions.fold import Before, fold
from regworkers_core.operations.conditions.table import MONGO_AWAY, TABLE
from regworkers_core.operations.conditions.texts import duration
from regworkers_core.runtime import Runtime

log = structlog.get_logger(__name__)
# Who looks: the sensor in Dagster, or somebody outside.
SENSOR, OUTSIDE = "sensor", "outside"
# Looks come a little late.
_LATE = 1.5


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`open` incidents; `unknown` has, by the name of a condition that could not be judged, why. `blind_looks` counts
    the looks in a row at which MongoDB kept nothing: give it to the next look.
    """

    open: tuple[Incident, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)
    blind_looks: int = 0


def evaluate(runtime: Runtime, snapshot: Snapshot, *, by: str, blind_looks: int = 0) -> Evaluation:
    """Judge the snapshot, open and close incidents, tell the channels. Does not raise when MongoDB is away: then
    PagerDuty is told of that, from the second look on.
    """
    try:
        return _settle(runtime, snapshot, by, blind_looks)
    except (TransientFailure, UsageError) as failure:
        # Away, or it refuses us: nobody is told of anything in either case.
        if blind_looks:
            alerting(runtime).tell_blindly(_mongo_away(runtime, snapshot), Change.OPENED)
        return Evaluation(
            unknown={condition.name: str(failure) for condition in TABLE}, blind_looks=blind_looks + 1
        )


def judge(condition: Condition, given: Given, *, clock_ahead_seconds: float) -> Judgement | Unread:
    """A condition that compares times judges nothing by a clock that is wrong; a defect of one is not that of all."""
    if condition.timed and abs(clock_ahead_seconds) > given.settings.alerts.clock_seconds:
        side = "ahead of" if clock_ahead_seconds > 0 else "behind"
        return Unread(f"the clock here is {duration(abs(clock_ahead_seconds))} {side} that of MongoDB")
    try:
        return condition.judge(given)
    except Exception as error:
        log.error("condition not judged", condition=condition.name, error=describe(error))
        return Unread(f"defect in the condition: {type(error).__name__}")


def _settle(runtime: Runtime, snapshot: Snapshot, by: str, blind_looks: int) -> Evaluation:
    settings, looks = runtime.settings, runtime.alert_looks
    now, seen = looks.now(), looks.looks()
    seen_at = None if by == SENSOR else seen.get(SENSOR)
    given = Given(snapshot, settings, seen_at, _still(looks, snapshot, now))
    ahead = given.now - now
    judged = {condition.name: judge(condition, given, clock_ahead_seconds=ahead) for condition in TABLE}
    suspected = {key: since for key, since in looks.suspected().items() if since <= now}
    before = Before(runtime.incidents.of(*judged), suspected, now)
    folded = fold(TABLE, judged, before, settings.alerts)
    for key in folded.suspected - suspected.keys():
        looks.suspect(key, now)
    looks.clear(folded.cleared)
    telling = alerting(runtime)
    last = seen.get(by)
    away = last is not None and now - last > _LATE * settings.alerts.look_seconds
    if telling.repeatable and (blind_looks > 1 or (by == OUTSIDE and away)):
        # Told while nothing could be kept, or perhaps told: it is closed there in either case.
        runtime.incidents.adopt(_mongo_away(runtime, snapshot).alert, iso(now), telling.repeatable)
    open_now = telling.settle_all(folded.held, now=now)
    looks.looked(by, now)
    unknown = {name: found.why for name, found in judged.items() if isinstance(found, Unread)}
    return Evaluation(tuple(open_now), unknown)


def _still(looks: AlertLooks, snapshot: Snapshot, now: float) -> dict[str, float]:
    """For how long (s) the lease of each campaign in PROCESSING did not move, as far as looks have seen it."""
    if isinstance(snapshot.campaigns, Unread):
        return {}
    known = looks.beats()
    beats = {
        each.campaign_id: each.lease_beat
        for each in snapshot.campaigns
        if each.status == PROCESSING and each.lease_owner
    }
    still = {}
    for name, beat in beats.items():
        last, since = known.get(name, ("", now))
        if last != beat or since > now:
            looks.beat(name, beat, now)
        else:
            still[name] = now - since
    looks.forget(known.keys() - beats.keys())
    return still


def _mongo_away(runtime: Runtime, snapshot: Snapshot) -> Incident:
    others = sorted(
        name for name, trouble in snapshot.dependencies.items() if trouble is not None and name != "mongo"
    )
    alert = Alert(
        MONGO_AWAY.key_of("mongo"),
        Severity.CRITICAL,
        "MongoDB does not answer: nothing is replicated, and no other alert can be kept or told",
        f"runbooks/{MONGO_AWAY.runbook}",
        {"alsoAway": others},
    )
    at = iso(runtime.clock())
    return Incident(alert, True, 0, at, at, None, {})
