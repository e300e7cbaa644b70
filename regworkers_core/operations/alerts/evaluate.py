"""One evaluation: assess all conditions on a snapshot, open and close incidents, notify the channels.

The alerts sensor calls it, and `regworkers alerts evaluate` from outside of Dagster. While MongoDB, which stores the
incidents, is unavailable, it notifies without MongoDB and records the outage afterwards. Two memories work then: a row
in `worker-leases`, which all evaluators share, and what the caller carries from one evaluation to the next (the
sensor's cursor). Without either, channels are notified at every evaluation: twice is better than never.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from regworkers_core.adapters.mongo.incidents import EvaluationState, Incident
from regworkers_core.domain.reasons import TransientFailure, UsageError
from regworkers_core.domain.snapshot import Alert, IncidentChange, Reading, Snapshot, Unread
from regworkers_core.domain.timestamps import duration, iso, seconds
from regworkers_core.engine.leases import LeaseKey, LeaseRow, LeaseTable
from regworkers_core.observability.logs import describe
from regworkers_core.operations.alerts.conditions import TABLE, drains
from regworkers_core.operations.alerts.conditions.availability import RENEWED, mongo_down, renewal
from regworkers_core.operations.alerts.conditions.blindness import (
    Gap,
    blind,
    blind_findings,
    gaps_of,
    gaps_since,
)
from regworkers_core.operations.alerts.conditions.campaigns import PROCESSING, WAITINGS
from regworkers_core.operations.alerts.conditions.condition import (
    BLIND,
    Check,
    Context,
    Finding,
    Judged,
)
from regworkers_core.operations.alerts.grouping import Previous, group_and_inhibit
from regworkers_core.operations.alerts.notifier import notifier_of
from regworkers_core.operations.health.sources import GAP_EVALUATIONS
from regworkers_core.runtime import Runtime
from regworkers_core.settings import Settings

log = structlog.get_logger(__name__)
ROW = LeaseKey("OUTAGE#alerts", "OUTAGE")
# Longer than a notification takes. A process that dies meanwhile delays the others by this time.
_CLAIM_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Outage:
    """An outage of MongoDB. All times are epoch seconds."""

    # The first evaluation that found it.
    since: float
    # The latest evaluation that found it.
    last: float
    # The channels that accepted it.
    notified: frozenset[str] = frozenset()
    # While a process is notifying; 0: none is.
    claimed_until: float = 0.0

    def as_state(self) -> dict[str, str]:
        claimed = {"claimedUntil": iso(self.claimed_until)} if self.claimed_until else {}
        channels = " ".join(sorted(self.notified))
        return {"since": iso(self.since), "last": iso(self.last), "notified": channels, **claimed}

    @classmethod
    def parse(cls, state: Mapping[str, object]) -> Outage | None:
        """None for an invalid state: a memory is only a hint."""
        texts = {name: text for name, text in state.items() if isinstance(text, str)}
        since, last = seconds(texts.get("since", "")), seconds(texts.get("last", ""))
        if since is None or last is None:
            return None
        claimed = seconds(texts.get("claimedUntil", "")) or 0.0
        return cls(since, last, frozenset(texts.get("notified", "").split()), claimed)

    def merged(self, other: Outage | None) -> Outage:
        """Two memories of the same outage as one."""
        if other is None:
            return self
        return Outage(
            min(self.since, other.since),
            max(self.last, other.last),
            self.notified | other.notified,
            max(self.claimed_until, other.claimed_until),
        )

    def is_blip(self, runtime: Runtime) -> bool:
        """Whether no two evaluations that are `patience_seconds` apart have found it."""
        return self.last - self.since < runtime.settings.alerts.patience_seconds

    def is_claimed(self, now: float) -> bool:
        # A claim that ends too late was made by a clock that was set back since.
        return now < self.claimed_until <= now + _CLAIM_SECONDS


class _Row:
    """The memory in `worker-leases`, as far as it can be read and written."""

    def __init__(self, runtime: Runtime) -> None:
        self._leases: LeaseTable | None = None
        self._seen: LeaseRow | None = None
        self.outage: Outage | None = None
        try:
            self._leases = runtime.leases
            self._seen = self._leases.get(ROW)
        except (TransientFailure, UsageError) as failure:
            log.warning("outage not stored", error=str(failure))
            return
        self.outage = None if self._seen is None else Outage.parse(self._seen.state)

    def store(self, outage: Outage) -> bool:
        """False if another process wrote the row since it was read. True if DynamoDB does not answer."""
        if self._leases is None:
            return True
        counter = 0 if self._seen is None else self._seen.counter + 1
        row = LeaseRow(ROW, counter=counter, state=outage.as_state())
        try:
            stored = self._leases.swap(row, self._seen)
        except (TransientFailure, UsageError) as failure:
            log.warning("outage not stored", error=str(failure))
            return True
        self._seen = row
        return stored

    def remove(self) -> None:
        try:
            if self._leases is not None and self._seen is not None:
                self._leases.remove(self._seen)
        except (TransientFailure, UsageError) as failure:
            # It is recorded once, however often it is found.
            log.warning("outage not removed", error=str(failure))


def notify_without_mongo(runtime: Runtime, snapshot: Snapshot, why: str, carried: Outage | None) -> Outage:
    """One evaluation without MongoDB: notify every channel that does not know of the outage yet, once it is no blip."""
    row, now = _Row(runtime), runtime.clock()
    known = (row.outage or Outage(now, now)).merged(carried)
    known = replace(known, last=max(known.last, now))
    if known.is_claimed(now):
        return known
    if known.is_blip(runtime):
        row.store(known)
        return known
    if not row.store(replace(known, claimed_until=now + _CLAIM_SECONDS)):
        return known
    incident = Incident(_alert(runtime, snapshot, why), True, 0, iso(known.since), iso(now), None, {})
    accepted = notifier_of(runtime).notify_unrecorded(incident, IncidentChange.OPENED, besides=known.notified)
    known = replace(known, notified=known.notified | accepted, claimed_until=0.0)
    row.store(known)
    return known


def record_outage(runtime: Runtime, snapshot: Snapshot, carried: Outage | None) -> None:
    """Record an outage that is over, unless it was a blip: as an open incident since its first evaluation, which the
    next settlement closes. Raises TransientFailure when MongoDB is unavailable again.
    """
    row = _Row(runtime)
    known = row.outage or carried
    if known is None:
        return
    known = known.merged(carried)
    if not known.is_blip(runtime):
        alert = _alert(runtime, snapshot, "it answers again")
        runtime.incidents.adopt(alert, iso(known.since), known.notified)
    row.remove()


def last_evaluation(
    runtime: Runtime, recorded: float | None, now: float, carried: Outage | None = None
) -> float | None:
    """When the sensor last evaluated (epoch seconds). `recorded` is what MongoDB has; if that is long ago, the end of
    an outage counts instead, because nothing could be recorded during it. Raises TransientFailure.
    """
    if recorded is None or now - recorded <= runtime.settings.alerts.silent_seconds:
        return recorded
    known, incident = _Row(runtime).outage or carried, runtime.incidents.find(mongo_down.key_of("mongo"))
    over = seconds(incident.resolved_at) if incident is not None and incident.resolved_at else None
    return max(recorded, min(now, max(known.last if known else recorded, over or recorded)))


def _alert(runtime: Runtime, snapshot: Snapshot, why: str) -> Alert:
    others = sorted(
        name for name, trouble in snapshot.dependencies.items() if trouble is not None and name != "mongo"
    )
    return mongo_down.alert(
        Finding(
            "mongo",
            runtime.settings.alerts.severity.mongo_away,
            "MongoDB does not answer: nothing is replicated, and no other alert can be stored or sent",
            {"why": snapshot.dependencies.get("mongo") or why, "alsoAway": others},
        )
    )


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
    each that was not checked, what the public log lacks of each, and the counter of each drain with work that is due.
    Unread: it may be or not.
    """
    found = drains.marks(snapshot, settings)
    for each in () if isinstance(snapshot.campaigns, Unread) else snapshot.campaigns:
        if each.status == PROCESSING and each.lease_owner:
            found[each.campaign_id] = each.lease_beat
        found |= {kind.key(each.campaign_id): mark for kind in WAITINGS if (mark := kind.of(each))}
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
