"""The stream, the queues, and the replica that drains write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from fairdraw.documents import as_document
from regworkers_core.domain.snapshot import (
    AGE_UNKNOWN,
    CORRECTNESS,
    FRESHNESS,
    QueueState,
    Reading,
    Severity,
    StreamState,
    Unread,
)
from regworkers_core.domain.timestamps import duration
from regworkers_core.flows import DRAIN_OF, PAGES
from regworkers_core.operations.alerts.conditions.condition import (
    LIMITS,
    Check,
    Context,
    Finding,
    Unknown,
    causes_of_backlog,
    merged,
)
from regworkers_core.operations.alerts.conditions.drains import (
    ENQUEUE,
    is_draining,
    is_paused,
    stalled_enqueue,
)
from regworkers_core.operations.alerts.conditions.objectives import or_burns
from regworkers_core.replication.drains import SAVE
from regworkers_core.reporting import counted
from regworkers_core.settings import AnalyticsSettings, Names

_DAY_SECONDS = 24 * 3600.0
_EXPIRY_DAYS = 4
_STREAM, _STREAM_RETENTION, _REPLICA = "demand-table", "demand-table-stream", "replica"
_ANALYTICS_QUEUE = "analytics-queue"
_ANALYTICS_DEAD = "analytics-queue-dlq"
_FORGED = f"forged-events:{_ANALYTICS_QUEUE}"
_ANALYTICS = AnalyticsSettings()
# Without the environment's prefix.
TOPICS = Names("").topics
_ARCHIVE = "event-archive"
# The pages that replace the runbook on stream lag.
_PAGES = {**dict.fromkeys(TOPICS, "kafka.md"), **PAGES}
# A class of reconcile that is no difference yet.
_NOT_YET = "not_yet"


@Check(
    name="stream-lag",
    section="stream",
    second=f"above `streamLagCriticalSeconds` ({duration(LIMITS.stream_lag_critical_seconds)})",
    key="demand-table",
    runbook="stream-lag.md",
    several="streams lag",
    reads=("stream",),
    burns=or_burns(FRESHNESS),
    timed=True,
)
def stream_lag(context: Context, stream: StreamState) -> Sequence[Finding] | Unread:
    """Fires when the oldest unread record of the demand table's stream is older than `streamLagSeconds`
    ({alerts.stream_lag_seconds:.0f} s); or records are unread and `enqueue` acknowledges nothing, as in
    `drain-stalled`; or the budget of [freshness](#objectives) burns.

    At most one finding: the age of the oldest record that no drain has read, or that none is read at all.
    """
    age, stalled = stream.iterator_age_seconds, stalled_enqueue(context)
    if age is None and stalled is None:
        return AGE_UNKNOWN
    found = [] if stalled is None else [replace(stalled, subject=_STREAM)]
    if age is not None and age > context.settings.alerts.stream_lag_seconds:
        limit = duration(context.settings.alerts.stream_lag_seconds)
        summary = f"the oldest unread record of the stream is {duration(age)} old, above {limit}"
        details = {"iteratorAgeSeconds": round(age), "shards": stream.shards}
        because = causes_of_backlog(ENQUEUE)
        found.append(Finding(_STREAM, _severity_of_lag(context, age), summary, details, because))
    return (merged(*found),) if found else ()


def _severity_of_lag(context: Context, age: float) -> Severity:
    """What is deep but draining warns, and so does what waits because an operator wanted that."""
    if is_paused(context, ENQUEUE):
        return Severity.WARNING
    if age > context.settings.alerts.stream_lag_critical_seconds:
        return Severity.worst((context.severity.stream_lag, context.severity.stream_lag_critical))
    return Severity.WARNING if is_draining(context, ENQUEUE) else context.severity.stream_lag


@Check(
    name="queue-depth",
    section="queues",
    fires="more messages wait than `queueDepth` of that queue: "
    + ", ".join(f"{name} {limit:,}" for name, limit in LIMITS.queue_depth.model_dump().items()),
    key="queue",
    runbook="stream-lag.md",
    several="queues are deep",
    reads=("queues",),
)
def queue_depth(context: Context, queues: Sequence[QueueState]) -> Iterator[Finding | Unknown]:
    for queue in queues:
        name = _name(context, queue.name)
        limit = context.settings.alerts.queue_depth.of(name)
        if queue.is_dead_letter or queue.waiting <= limit:
            continue
        details = as_document(queue, "waiting", "visible", "in_flight") | {"limit": limit, **_age(queue)}
        yield Finding(
            name,
            context.severity.queue_depth,
            f"{queue.waiting} messages wait on {name}, above {limit}",
            details,
            causes_of_backlog(DRAIN_OF.get(name, "")),
            page=_PAGES.get(name, ""),
        )
    yield from _unread_queues(context, dead=False)


@Check(
    name="dead-letters",
    section="deadLetterQueues",
    key="dead-letter queue",
    runbook="dead-letters.md",
    several="dead-letter queues are not empty",
    reads=("queues",),
    burns=or_burns(CORRECTNESS),
)
def dead_letters(context: Context, queues: Sequence[QueueState]) -> Iterator[Finding | Unknown]:
    """Fires when more than `deadLetters` ({alerts.dead_letters}) messages are on a dead-letter queue; or the budget of
    [correctness](#objectives) burns.
    """
    for queue in queues:
        if queue.is_dead_letter and queue.waiting > context.settings.alerts.dead_letters:
            yield Finding(
                name := _name(context, queue.name),
                context.severity.dead_letters,
                f"{queue.waiting} dead letters on {name}",
                {"waiting": queue.waiting, **_age(queue)},
                (_FORGED,) if name == _ANALYTICS_DEAD else (),
            )
    yield from _unread_queues(context, dead=True)


@Check(
    name="forged-events",
    section="deadLetterQueues",
    key="`analytics-queue`",
    runbook="dead-letters.md",
    several="events are forged",
    reads=("forged",),
)
def forged_events(context: Context, forged: int) -> Iterator[Finding]:
    """Fires when events on the analytics queue were signed by no role that may send them; closes when their
    dead letters are dropped or published.

    At most one finding: messages that none of our roles has signed, whose dead letters are open.
    """
    if forged:
        summary = (
            f"{forged} messages on {_ANALYTICS_QUEUE} were not signed by a role that may send them; nothing of them "
            "is on Kafka"
        )
        yield Finding(_ANALYTICS_QUEUE, context.severity.forged_events, summary, {"messages": forged})


@Check(
    name="data-loss",
    section="queues",
    second=f"under `lossCriticalShareLeft` ({LIMITS.loss_critical_share_left:.0%}), `analytics.criticalDaysLeft` "
    f"({_ANALYTICS.critical_days_left:g} days)",
    key="queue, topic, or `demand-table-stream`",
    runbook="stream-lag.md",
    several="queues are about to lose something",
    timed=True,
)
def data_loss(context: Context) -> Iterator[Finding | Unknown]:
    """Fires when less of the retention is left than `lossShareLeft` ({alerts.loss_share_left:.0%}) for the oldest item
    of the stream (24 h), of a queue, or of a topic before the archive reads it; of the analytics queue
    `analytics.warnDaysLeft` ({analytics.warn_days_left:g} days).

    What is not empty and has no known age is unknown.
    """
    for each in _kept(context):
        if each.age is None:
            yield Unknown(each.name, Unread(f"the age of the oldest message on {each.name} is unknown"))
        elif isinstance(each.age, Unread):
            yield Unknown(each.name, each.age)
        else:
            yield from _loss(context, each, each.age)


@Check(
    name="expiry",
    severities=f"{LIMITS.severity.data_loss_critical} (`dataLossCritical`)",
    runbook="dead-letters.md",
    reads=("queues",),
)
def expiry(context: Context, queues: Sequence[QueueState]) -> Iterator[Finding]:
    """Fires when SQS deletes the message of the oldest open dead letter of a queue in less than four days, or has
    deleted it: then the queue may be empty, and `data-loss` sees nothing of it.
    """
    for queue in queues:
        left = queue.seconds_left
        if queue.is_dead_letter and left is not None and left < _EXPIRY_DAYS * _DAY_SECONDS:
            lost = f"expires in {left / _DAY_SECONDS:.1f} days" if left else "has expired"
            text = f"{queue.name}: the oldest message {lost}; `regworkers dlq groups` shows why it failed"
            yield Finding(queue.name, context.severity.data_loss_critical, text)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What waits where it is not kept for ever."""

    name: str
    # The age of its oldest item, in seconds; None: unknown.
    age: Reading[float] | None
    retention_seconds: float = 0.0
    # The same as those of a finding.
    section: str = ""
    row: str | None = None


def _kept(context: Context) -> Iterator[_Kept]:
    """Each queue, the stream, and each topic that the archive reads."""
    queues, stream, archive = context.snapshot.queues, context.snapshot.stream, context.snapshot.archive
    if isinstance(queues, Unread):
        names = [name + end for name in context.settings.names.queues for end in ("", "-dlq")]
        yield from (_Kept(_name(context, name), queues) for name in names)
    else:
        unread = context.snapshot.unread_queues.items()
        yield from (_Kept(_name(context, name), why) for name, why in unread)
        for queue in queues:
            age = (queue.age_unread or queue.oldest_seconds) if queue.waiting else 0.0
            section = "deadLetterQueues" if queue.is_dead_letter else ""
            yield _Kept(_name(context, queue.name), age, queue.retention_seconds, section)
    if isinstance(stream, Unread):
        yield _Kept(_STREAM_RETENTION, stream)
    else:
        known = stream.iterator_age_seconds
        age = AGE_UNKNOWN if known is None else known
        yield _Kept(_STREAM_RETENTION, age, stream.retention_seconds, "stream", _STREAM)
    if isinstance(archive, Unread):
        # What is urgent by now has an incident already, which stays open. The rest has this time until it is.
        alerts, retention = context.settings.alerts, context.settings.kafka.retention_days * _DAY_SECONDS
        slack = (alerts.loss_share_left - alerts.loss_critical_share_left) * retention
        yield _Kept(_ARCHIVE, replace(archive, slack_seconds=max(0.0, slack)))
        return
    for topic in archive:
        if topic.retention_seconds is not None:
            # Offsets without a record behind them, which transactions and compaction leave, have no age.
            age = topic.oldest_seconds if topic.waiting and topic.oldest_seconds is not None else 0.0
            yield _Kept(_name(context, topic.topic), age, topic.retention_seconds, "archive")


def _loss(context: Context, kept: _Kept, age: float) -> Iterator[Finding]:
    name, retention = kept.name, kept.retention_seconds
    left = max(0.0, retention - age)
    warn, critical = _margins(context, name, retention)
    if left > warn:
        return
    if left:
        summary = f"the oldest item on {name} is lost in {duration(left)}, it has waited for {duration(age)}"
    else:
        summary = (
            f"{name} loses items older than {duration(retention)}, the oldest has waited for {duration(age)}"
        )
    if name in TOPICS:
        summary += ": run `regworkers archive run`"
    severity = context.severity.data_loss
    if left <= critical:
        severity = Severity.worst((severity, context.severity.data_loss_critical))
    yield Finding(
        name,
        severity,
        summary,
        {"secondsLeft": round(left), "ageSeconds": round(age), "retentionSeconds": round(retention)},
        page="dead-letters.md" if name.endswith("-dlq") else _PAGES.get(name, ""),
        section=kept.section,
        row=kept.row,
    )


class _Margins(NamedTuple):
    """Seconds that are left at each step."""

    warn: float
    critical: float


def _margins(context: Context, name: str, retention: float) -> _Margins:
    if name == _ANALYTICS_QUEUE:
        own = context.settings.analytics
        return _Margins(own.warn_days_left * _DAY_SECONDS, own.critical_days_left * _DAY_SECONDS)
    alerts = context.settings.alerts
    return _Margins(alerts.loss_share_left * retention, alerts.loss_critical_share_left * retention)


@Check(
    name="analytics",
    section="queues",
    severities=f"{LIMITS.severity.analytics_age} (`analyticsAge`)",
    key="age",
    runbook="kafka.md",
    several="analytics queues are never empty",
    reads=("queues",),
    timed=True,
)
def never_empty(context: Context, queues: Sequence[QueueState]) -> Iterator[Finding | Unknown]:
    """Fires when the analytics queue was not seen empty for so long that `analytics.warnDaysLeft`
    ({analytics.warn_days_left:g} days) or less of its retention may be left: messages may be stuck.

    At most one finding. What is certain is a finding of `data_loss`.
    """
    unread = context.snapshot.unread_queues.get(context.settings.names.analytics_queue)
    for queue in queues:
        if _name(context, queue.name) == _ANALYTICS_QUEUE:
            unread = queue.age_unread if queue.waiting else None
            if unread is None:
                yield from _never_empty(context, queue)
    if unread is not None:
        yield Unknown("age", unread)


def _never_empty(context: Context, queue: QueueState) -> Iterator[Finding]:
    at_least, at_most = queue.oldest_seconds, queue.oldest_at_most_seconds
    warn = queue.retention_seconds - context.settings.analytics.warn_days_left * _DAY_SECONDS
    is_certain = at_least is not None and at_least >= warn
    if not queue.waiting or is_certain or at_most is None or at_most < warn:
        return
    summary = (
        f"the analytics queue was not seen empty for {at_most / _DAY_SECONDS:.1f} days: it is busy, or messages "
        "are stuck"
    )
    details = {"waiting": queue.waiting, "oldestAtLeastSeconds": at_least, "oldestAtMostSeconds": at_most}
    known = {name: round(value) for name, value in details.items() if value is not None}
    yield Finding("age", context.severity.analytics_age, summary, known, row=_ANALYTICS_QUEUE)


def _name(context: Context, queue: str) -> str:
    """The queue's name without the environment's prefix."""
    return queue.removeprefix(context.settings.names.prefix)


def _unread_queues(context: Context, *, dead: bool) -> Iterator[Unknown]:
    for name, unread in context.snapshot.unread_queues.items():
        if name.endswith("-dlq") is dead:
            yield Unknown(_name(context, name), unread)


def _age(queue: QueueState) -> dict[str, int]:
    return {} if queue.oldest_seconds is None else {"oldestSeconds": round(queue.oldest_seconds)}


@Check(
    name="drift",
    section="parity",
    second=f"from `driftCritical` ({LIMITS.drift_critical}) entries on",
    key="`replica`, `save`",
    runbook="out-of-sync.md",
    several="replicas differ",
)
def drift(context: Context) -> Iterable[Finding | Unknown] | Unread:
    """Fires when the last reconcile found that the replica differs from its source in `driftEntries`
    ({alerts.drift_entries}) entries or more; or the second look of the drain `save` found that number within 5 min.

    What the last reconcile found, and each drain whose second look found differences.
    """
    parity, drains = context.snapshot.parity, context.snapshot.drains
    if isinstance(parity, Unread) and isinstance(drains, Unread):
        return parity
    found: list[Finding | Unknown] = []
    if isinstance(parity, Unread):
        found.append(Unknown(_REPLICA, parity))
    elif parity is None:
        # It was never compared.
        found.append(Unknown(_REPLICA))
    else:
        what = "the replica differs from its source in"
        found += _differing(context, _REPLICA, what, parity.differences, {"comparedAt": parity.at})
    if isinstance(drains, Unread):
        found.append(Unknown(SAVE.name, drains))
    else:
        for drain in drains:
            what = f"what the drain {drain.name} had saved differs a minute later in"
            details = {"windowSeconds": drain.window_seconds}
            found += _differing(context, drain.name, what, drain.differing, details)
    return found


def _differing(
    context: Context, subject: str, what: str, differences: Mapping[str, int], details: Mapping[str, Any]
) -> Iterator[Finding]:
    found = {kind: count for kind, count in sorted(differences.items()) if count and kind != _NOT_YET}
    total = sum(found.values())
    limits, severity = context.settings.alerts, context.severity.drift
    if total < limits.drift_entries:
        return
    kinds = ", ".join(f"{count} {kind}" for kind, count in found.items())
    if total >= limits.drift_critical:
        severity = Severity.worst((severity, context.severity.drift_critical))
    entries = counted(total, "entry")
    yield Finding(subject, severity, f"{what} {entries}: {kinds}", {**found, **details})
