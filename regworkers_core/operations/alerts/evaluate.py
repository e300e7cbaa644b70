"""One look, judged and settled: what the sensor of alerts does, and `regworkers alerts evaluate` from outside of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from regworkers_core.adapters.mongo.incidents import EvaluationState, Incident
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.snapshot import Snapshot, Unread
from regworkers_core.observability.logs import describe
from regworkers_core.operations.alerts.conditions.blindness import Gap, findings_of, gaps_of, since_when
from regworkers_core.operations.alerts.conditions.campaigns import PROCESSING
from regworkers_core.operations.alerts.conditions.causes import BLIND
from regworkers_core.operations.alerts.conditions.condition import Condition, Finding, Given, Judgement
from regworkers_core.operations.alerts.conditions.dependencies import blind
from regworkers_core.operations.alerts.conditions.texts import duration
from regworkers_core.operations.alerts.grouping import Before, fold
from regworkers_core.operations.alerts.notifier import alerting
from regworkers_core.operations.alerts.outage import Outage, last_look, notify_directly, record_outage
from regworkers_core.operations.alerts.table import TABLE
from regworkers_core.operations.health.queues import GAP_EVALUATIONS
from regworkers_core.runtime import Runtime

log = structlog.get_logger(__name__)
# The evaluator: the sensor in Dagster, or a command run outside of it.
SENSOR, OUTSIDE = "sensor", "outside"
CLOCK = "clock"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`open` incidents; `unknown` has why something could not be judged, by the name of the condition, or by the key of
    an alert where it is one subject. `outage` of MongoDB, where it kept nothing: give it to the next look.
    """

    open: tuple[Incident, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)
    outage: Outage | None = None


def evaluate(runtime: Runtime, snapshot: Snapshot, *, by: str, outage: Outage | None = None) -> Evaluation:
    """Judge the snapshot, open and close incidents, tell the channels. Does not raise when MongoDB is away: then they
    are told of that alone, and directly. `outage` is that of the look before.
    """
    try:
        return _settle(runtime, snapshot, by, outage)
    except (TransientFailure, UsageError) as failure:
        # Away, or it refuses us.
        unknown = {condition.name: str(failure) for condition in TABLE}
        return Evaluation(unknown=unknown, outage=notify_directly(runtime, snapshot, str(failure), outage))


def judge(condition: Condition, given: Given, *, clock_ahead_seconds: float) -> Judgement | Unread:
    """A condition that compares times judges nothing by a clock that is wrong; a defect of one is not that of all."""
    if condition.timed and abs(clock_ahead_seconds) > given.settings.alerts.clock_seconds:
        side = "ahead of" if clock_ahead_seconds > 0 else "behind"
        return Unread(f"the clock here is {duration(abs(clock_ahead_seconds))} {side} that of MongoDB", CLOCK)
    try:
        return condition.judge(given)
    except Exception as error:
        log.error("condition not judged", condition=condition.name, error=describe(error))
        return Unread(f"defect in the condition: {type(error).__name__}")


def _settle(runtime: Runtime, snapshot: Snapshot, by: str, outage: Outage | None) -> Evaluation:
    settings, state = runtime.settings, runtime.evaluation_state
    now, seen = state.now(), state.evaluations()
    seen_at = None if by == SENSOR else last_look(runtime, seen.get(SENSOR), now, outage)
    given = Given(snapshot, settings, seen_at, _still(state, snapshot, now))
    ahead = given.now - now
    judged = {
        condition.name: judge(condition, given, clock_ahead_seconds=ahead)
        for condition in TABLE
        if condition.name != BLIND
    }
    suspected = {key: since for key, since in state.suspected().items() if since <= now}
    before = Before(runtime.incidents.of(*judged, BLIND), suspected, now)
    gaps = gaps_of(TABLE, judged, settings.alerts)
    given = replace(given, blind=_blind(state, gaps, before.incidents, now, settings.alerts.blind_seconds))
    judged[BLIND] = blind(given)
    folded = fold(TABLE, judged, before, settings.alerts)
    for key in folded.suspected - suspected.keys():
        state.suspect(key, now)
    state.clear(folded.cleared)
    record_outage(runtime, snapshot, outage)
    open_now = alerting(runtime).settle_all(folded.held, now=now)
    state.record_evaluation(by, now)
    _mark_queues(runtime, snapshot, now)
    return Evaluation(tuple(open_now), {gap.key: gap.unread.why for gap in gaps})


def _blind(
    state: EvaluationState, gaps: Sequence[Gap], incidents: Sequence[Incident], now: float, seconds: float
) -> tuple[Finding, ...]:
    """What cannot be read for too long, by this look and those before it."""
    before = {key: since for key, since in state.unread().items() if since <= now}
    since = since_when(gaps, before, now)
    state.keep_unread(since, before)
    return findings_of(gaps, since, incidents, now, seconds)


def _mark_queues(runtime: Runtime, snapshot: Snapshot, now: float) -> None:
    """So that the next look knows how old the oldest message of each queue may be. The analytics queue has a watch of
    its own, which knows of deliveries, too.
    """
    if not isinstance(snapshot.queues, Unread):
        queues = [queue for queue in snapshot.queues if queue.name != runtime.names.analytics_queue]
        empty = [queue.name for queue in queues if not queue.waiting]
        waiting = [queue.name for queue in queues if queue.waiting]
        runtime.queue_marks.seen(empty, waiting, now, GAP_EVALUATIONS * runtime.settings.alerts.look_seconds)


def _still(state: EvaluationState, snapshot: Snapshot, now: float) -> dict[str, float]:
    """For how long (s) the lease of each campaign in PROCESSING did not move, as far as looks have seen it."""
    if isinstance(snapshot.campaigns, Unread):
        return {}
    known = state.beats()
    beats = {
        each.campaign_id: each.lease_beat
        for each in snapshot.campaigns
        if each.status == PROCESSING and each.lease_owner
    }
    still = {}
    for name, beat in beats.items():
        last, since = known.get(name, ("", now))
        if last != beat or since > now:
            state.beat(name, beat, now)
        else:
            still[name] = now - since
    state.forget(known.keys() - beats.keys())
    return still
