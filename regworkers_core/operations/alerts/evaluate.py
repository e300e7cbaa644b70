"""One evaluation: assess all conditions on a snapshot, open and close incidents, notify the channels.

The alerts sensor calls it, and `regworkers alerts evaluate` from outside of Dagster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from regworkers_core.adapters.mongo.incidents import EvaluationState, Incident
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.snapshot import Reading, Snapshot, Unread
from regworkers_core.domain.timestamps import duration
from regworkers_core.observability.logs import describe
from regworkers_core.operations.alerts.conditions import TABLE, drains
from regworkers_core.operations.alerts.conditions.availability import RENEWED, renewal
from regworkers_core.operations.alerts.conditions.blindness import (
    Gap,
    blind,
    blind_findings,
    gaps_of,
    gaps_since,
)
from regworkers_core.operations.alerts.conditions.campaigns import PROCESSING, unjudged_key
from regworkers_core.operations.alerts.conditions.condition import (
    BLIND,
    Check,
    Context,
    Finding,
    Judged,
)
from regworkers_core.operations.alerts.grouping import Previous, group_and_inhibit
from regworkers_core.operations.alerts.notifier import notifier_of
from regworkers_core.operations.alerts.outage import (
    Outage,
    last_evaluation,
    notify_without_mongo,
    record_outage,
)
from regworkers_core.operations.health.sources import GAP_EVALUATIONS
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings

log = structlog.get_logger(__name__)
# Who evaluates: the sensor in Dagster, or a command outside of it.
SENSOR, OUTSIDE = "sensor", "outside"
CLOCK = "clock"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """`open` are the incidents that are open now. `unknown` says why something could not be assessed, by the name of
    the condition or, for one subject, the key of its alert. `outage` is set if MongoDB stored nothing: pass it to the
    next evaluation.
    """

    open: tuple[Incident, ...] = ()
    unknown: Mapping[str, str] = field(default_factory=dict)
    outage: Outage | None = None


def evaluate(runtime: Runtime, snapshot: Snapshot, *, by: str, outage: Outage | None = None) -> Evaluation:
    """Evaluate the snapshot. Does not raise if MongoDB is unavailable: then the channels are notified of that alone,
    directly. `outage` is that of the previous evaluation.
    """
    try:
        found = _settle(runtime, snapshot, by, outage)
        # Also the line whose absence shows that no line arrives.
        log.info("alerts evaluated", open=len(found.open), unread=len(found.unknown))
        return found
    except (TransientFailure, UsageError) as failure:
        # MongoDB is down, or refuses us.
        unknown = {check.name: str(failure) for check in TABLE}
        return Evaluation(
            unknown=unknown, outage=notify_without_mongo(runtime, snapshot, str(failure), outage)
        )


def assess(check: Check, context: Context, *, clock_ahead_seconds: float) -> Judged:
    """What one check finds. Unread if it compares times and the clock is wrong, or if it raises: a defect in
    one check must not stop the others.
    """
    if check.timed and abs(clock_ahead_seconds) > context.settings.alerts.clock_seconds:
        side = "ahead of" if clock_ahead_seconds > 0 else "behind"
        return Unread(f"the clock here is {duration(abs(clock_ahead_seconds))} {side} that of MongoDB", CLOCK)
    try:
        return check.assess(context)
    except Exception as error:
        log.error("condition not assessed", condition=check.name, error=describe(error))
        return Unread(f"defect in the condition: {type(error).__name__}")


def _settle(runtime: Runtime, snapshot: Snapshot, by: str, outage: Outage | None) -> Evaluation:
    settings, state = runtime.settings, runtime.evaluation_state
    now, evaluations = state.now(), state.evaluations()
    seen_at = None if by == SENSOR else last_evaluation(runtime, evaluations.get(SENSOR), now, outage)
    # First: what goes wrong after it may be its consequence.
    record_outage(runtime, snapshot, outage)
    before = max(evaluations.values(), default=0.0)
    context = Context(snapshot, settings, seen_at, _still_seconds(state, snapshot, settings, before, now))
    ahead = context.now - now
    assessed = {
        check.name: assess(check, context, clock_ahead_seconds=ahead)
        for check in TABLE
        if check.name != BLIND
    }
    suspected = {key: since for key, since in state.suspected().items() if since <= now}
    previous = Previous(runtime.incidents.of(*assessed, BLIND), suspected, now)
    gaps = gaps_of(TABLE, assessed, settings.alerts)
    findings = _blind(state, gaps, previous.incidents, now, settings.alerts.blind_seconds)
    assessed[BLIND] = blind.assess(replace(context, blind=findings))
    grouped = group_and_inhibit(TABLE, assessed, previous, settings.alerts)
    for key in grouped.suspected - suspected.keys():
        state.suspect(key, now)
    state.clear(grouped.cleared)
    open_now = notifier_of(runtime).settle_all(grouped.scopes, now=now)
    state.record_evaluation(by, now)
    _mark_queues(runtime, snapshot, now)
    return Evaluation(tuple(open_now), {gap.key: gap.unread.why for gap in gaps})


def _blind(
    state: EvaluationState, gaps: Sequence[Gap], incidents: Sequence[Incident], now: float, seconds: float
) -> tuple[Finding, ...]:
    """What could not be read for too long, by this evaluation and those before it."""
    before = {key: since for key, since in state.unread().items() if since <= now}
    since = gaps_since(gaps, before, now)
    state.keep_unread(since, before)
    return blind_findings(gaps, since, incidents, now, seconds)


def _mark_queues(runtime: Runtime, snapshot: Snapshot, now: float) -> None:
    """Record which queues are empty, so that the next evaluation knows how old their oldest message may be."""
    if not isinstance(snapshot.queues, Unread):
        empty = [queue.name for queue in snapshot.queues if not queue.waiting]
        waiting = [queue.name for queue in snapshot.queues if queue.waiting]
        runtime.queue_marks.seen(empty, waiting, now, GAP_EVALUATIONS * runtime.settings.alerts.look_seconds)


def watched(snapshot: Snapshot, settings: Settings) -> dict[str, Reading[str]]:
    """What must move between two evaluations, by its key: the lease of each campaign in PROCESSING, the first phase of
    each that was not checked, and the counter of each drain with work that is due. Unread: it may be or not.
    """
    found = drains.marks(snapshot, settings)
    for each in () if isinstance(snapshot.campaigns, Unread) else snapshot.campaigns:
        if each.status == PROCESSING and each.lease_owner:
            found[each.campaign_id] = each.lease_beat
        if each.unjudged_since:
            found[unjudged_key(each.campaign_id)] = each.unjudged_since
    return found


def still_since(
    beats: Mapping[str, Reading[str]], known: Mapping[str, tuple[str, float]], now: float
) -> dict[str, float]:
    """Seconds for which each of `beats` was seen not to move; 0 for one that has moved. `known` has the beat of earlier
    evaluations, and since when.
    """
    return {
        name: now - known[name][1] if known[name] == (beat, min(known[name][1], now)) else 0.0
        for name, beat in beats.items()
        if name in known and not isinstance(beat, Unread)
    }


def _still_seconds(
    state: EvaluationState, snapshot: Snapshot, settings: Settings, before: float, now: float
) -> dict[str, float]:
    """As far as evaluations saw it, the last at `before`. After a long gap it begins again: all may have been off."""
    known, beats = state.beats(), watched(snapshot, settings)
    has_gap = now - before > GAP_EVALUATIONS * settings.alerts.look_seconds
    still = {} if has_gap else still_since(beats, known, now)
    for name, beat in beats.items():
        if not isinstance(beat, Unread) and not still.get(name):
            state.beat(name, beat, now)
    gone = known.keys() - beats.keys()
    if isinstance(snapshot.campaigns, Unread):
        gone = {name for name in gone if drains.is_key(name)}
    state.forget(gone)
    return still


def watch_renewals(runtime: Runtime) -> None:
    """Report a renewed certificate that the brokers refuse, until one is accepted.

    Only a process that produces sees this; it calls this once. Does nothing if the certificate cannot change.
    """
    credentials = runtime.kafka_credentials
    if not credentials.may_change:
        return

    def report(refused: str | None) -> None:
        summary = f"the newest Kafka certificate is not taken up, the one before stays in use: {refused}"
        finding = Finding(RENEWED, runtime.settings.alerts.severity.certificate_renewal, summary)
        try:
            notifier_of(runtime).settle(renewal.name, [renewal.alert(finding)] if refused else [])
        except TransientFailure:
            # The next renewal check, which is soon, reports it again.
            return

    credentials.watcher = report
